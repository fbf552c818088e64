//! A listener behind a [`Door`]: who gets no place there is closed before anything is set up for it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};

use super::door::{Door, Place};
use crate::link::now;

/// The rest after the system could not give a connection, for a lack of descriptors for one.
const REST: Duration = Duration::from_millis(50);

/// Where strangers come in, each with a place of its own.
#[derive(Debug)]
pub struct Entrance {
    listener: AsyncFd<std::net::TcpListener>,
    door: Door,
}

impl Entrance {
    /// The entrance through `listener`, whose runtime this has to be called on.
    ///
    /// # Errors
    /// If the system refuses.
    #[expect(deprecated, reason = "its successor is unsafe, for types whose descriptor changes; a listener's does not")]
    pub fn open(listener: TcpListener, door: Door) -> io::Result<Self> {
        Ok(Entrance { listener: AsyncFd::with_interest(listener.into_std()?, Interest::READABLE)?, door })
    }

    /// The next one who has a place at the door. Errors of single connections and a lack of descriptors are waited out. In a flood most
    /// have none, and the others wait behind them, so it costs these no more than to be accepted and closed. Cancel-safe.
    pub async fn next(&self) -> (TcpStream, SocketAddr, Place) {
        loop {
            match self.listener.async_io(Interest::READABLE, std::net::TcpListener::accept).await {
                Ok((stream, address)) => match self.door.enter(address.ip(), now()) {
                    Some(place) => match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                        Ok(stream) => return (stream, address, place),
                        Err(error) => tracing::warn!(%address, %error, "cannot accept a connection"),
                    },
                    None => tracing::debug!(%address, "too many handshakes at once, refused"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}
