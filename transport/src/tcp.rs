//! TCP on loopback, in the clear. Other addresses are refused: bytes that leave the host need TLS.

mod back;

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use mobula_core::NodeUid;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Acceptor, Dial, PrefaceError, Secret, Versions};
use crate::session::Lane;
use crate::wire::{Wire, WireWrite};

pub use back::{ask_after, hear_resume, redial};

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// In the clear, only loopback will do.
    #[error("{address} is not a loopback address: without TLS, nodes talk on loopback only")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The port is taken.
    #[error("port {} on {} is in use: choose another, or stop the process that holds it", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system says no.
    #[error("{what} {address}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With whom.
        address: SocketAddr,
        /// What came of it.
        error: io::Error,
    },
    /// The handshake failed.
    #[error("{address}: {error}")]
    Preface {
        /// The peer.
        address: SocketAddr,
        /// Which rule was broken.
        error: PrefaceError,
    },
    /// The handshake took too long.
    #[error("{address}: HandshakeDeadline: no proof within {} s", after.as_secs())]
    Deadline {
        /// The peer.
        address: SocketAddr,
        /// The limit.
        after: Duration,
    },
}

impl ConnectError {
    /// The peer went away before the handshake was over: it ended, its connection was cut, or it is no peer but something
    /// that looks for open ports. No rule was broken.
    pub fn is_departure(&self) -> bool {
        matches!(self, Self::Io { error, .. } if handshake::is_departure(error))
    }
}

/// Listens on `address`; port 0 lets the system choose.
///
/// # Errors
/// [`ConnectError::NotLoopback`], [`ConnectError::PortInUse`], or what the system says.
pub fn listen(address: SocketAddr) -> Result<std::net::TcpListener, ConnectError> {
    loopback_only(address)?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ConnectError::PortInUse { address },
        _ => ConnectError::Io { what: "cannot listen on", address, error },
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Connects to the life `target` at `address` and proves to it that we are `dialer`.
/// The stream is returned bare, so that it can be moved to the thread that will read it; see [`wire`].
///
/// # Errors
/// [`ConnectError`]. Cancel-safe: dropping the future closes the connection.
pub async fn dial(
    address: SocketAddr,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
) -> Result<Agreed<std::net::TcpStream>, ConnectError> {
    dial_speaking(preface::VERSIONS, address, secret, dialer, target, lane).await
}

/// As [`dial`], by a node that speaks other versions than this build does.
///
/// # Errors
/// As for [`dial`].
pub async fn dial_speaking(
    versions: Versions,
    address: SocketAddr,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
) -> Result<Agreed<std::net::TcpStream>, ConnectError> {
    loopback_only(address)?;
    let io_failed = |error| ConnectError::Io { what: "cannot connect to", address, error };
    let dial = handshake::fresh(dialer, target, lane, versions).map_err(io_failed)?;
    let stream = handshake::in_time(async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let version = handshake::dial(&mut stream, secret, &dial).await?;
        Ok((stream, version))
    });
    let (stream, version) = stream.await.map_err(failed("cannot connect to", address))?;
    Ok(Agreed { stream: stream.into_std().map_err(io_failed)?, version, session: dial.session() })
}

/// Reads and answers a dialer's preface.
///
/// # Errors
/// [`ConnectError`]: the connection is to be dropped. Strangers got no byte. Cancel-safe in the same sense.
pub async fn accept(
    mut stream: TcpStream,
    address: SocketAddr,
    acceptor: &Mutex<Acceptor>,
) -> Result<(Agreed<std::net::TcpStream>, Dial), ConnectError> {
    let failed = failed("handshake with", address);
    if let Err(error) = stream.set_nodelay(true) {
        return Err(failed(error.into()));
    }
    match handshake::in_time(handshake::accept(&mut stream, acceptor, |_| Ok(()))).await {
        Ok((dial, version)) => {
            let stream = stream.into_std().map_err(|error| failed(error.into()))?;
            Ok((Agreed { stream, version, session: dial.session() }, dial))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failed(what: &'static str, address: SocketAddr) -> impl FnOnce(HandshakeError) -> ConnectError {
    move |error| match error {
        HandshakeError::Io(error) => ConnectError::Io { what, address, error },
        HandshakeError::Preface(error) => ConnectError::Preface { address, error },
        HandshakeError::Deadline { after } => ConnectError::Deadline { address, after },
    }
}

/// Accepts one connection, whatever happens to others: errors of single connections and a lack of descriptors are
/// waited out. Must run on the runtime that owns `listener`.
pub async fn accept_next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Registers a connection with the current runtime, whose thread will read it.
///
/// # Errors
/// If the system refuses.
pub fn wire(agreed: Agreed<std::net::TcpStream>) -> io::Result<Wire> {
    let (read, write) = TcpStream::from_std(agreed.stream)?.into_split();
    Ok(Wire::new(agreed.version, read, Write(write)))
}

struct Write(OwnedWriteHalf);

impl WireWrite for Write {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_ref().poll_write_ready(cx)
    }
}

fn loopback_only(address: SocketAddr) -> Result<(), ConnectError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(ConnectError::NotLoopback { address }) }
}
