//! What drivers, nodes, the head and the command line of a cluster say to each other, and how.
//!
//! [`Request`] has all that can be asked; a [`Client`] asks it, over the socket of this user's node or over TLS, and [`serve_local`] and
//! [`serve_certified`] are the other end, with a [`Service`] behind it. [`handover`] is what a node tells a worker process that it has started.
//! [`Home`] is where the files of a user's node are, and [`Logins`] the credentials in it with which a person asks from any host; [`whom`] says which is asked.
//!
//! This crate decides nothing, and does not know actors.
mod address;
mod client;
mod elf;
mod error;
mod executable;
mod follow;
pub mod handover;
mod heads;
mod local;
mod logins;
mod logs;
mod request;
mod server;
mod whom;
mod wire;

pub use address::{ADDRESS_VARIABLE, Address, BadAddress, resolve};
pub use client::{Client, SharedCredentials, Subscription, Target};
pub use elf::{BadProgram, platform_of};
pub use error::{ControlError, Refusal};
pub use executable::{hand_in, identify};
pub use follow::{Heard, follow, follow_patiently};
pub use heads::Heads;
pub use local::{HOME_VARIABLE, Home, SOCKET};
pub use logins::{Login, LoginError, Logins, Renewal};
pub use logs::read_logs;
pub use request::*;
pub use server::{Peer, Reply, Service, serve_certified, serve_local};
pub use whom::{Whom, whom};

/// For the fuzz targets and simulations; no promise holds for it.
#[doc(hidden)]
pub mod private {
    use std::future::Future as _;
    use std::io;
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use mobula_core::{NodeUid, codec};
    use mobula_identity::Role;

    pub use crate::client::{Dial, Dialling};
    use crate::request::Request;
    use crate::server::{self, Peer, Service};
    pub use crate::wire::ByteStream;
    use crate::wire::{self, Answered};

    /// One that has proven who it is in another way than by a certificate.
    pub fn peer(role: Role, address: SocketAddr, life: NodeUid, line: NodeUid, job: Option<String>) -> Peer {
        Peer::known(role, address, life, line, job)
    }

    /// Serves a peer that is known, until it goes.
    pub async fn serve(service: &impl Service, peer: &Peer, stream: impl ByteStream + 'static) {
        server::serve(service, peer, Box::new(stream)).await;
    }

    /// True if what has come back, without its length, is an answer and no refusal.
    pub fn is_answer(message: &[u8]) -> bool {
        matches!(codec::decode(message), Ok(Answered::Item(_)))
    }

    /// Reads all of `bytes` as a head reads what a peer sends. An error as it would end the connection.
    pub fn read_requests(mut bytes: &[u8], mut take: impl FnMut(Request)) -> io::Result<()> {
        loop {
            let reading = pin!(wire::read(&mut bytes));
            match reading.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(Some(request))) => take(request),
                Poll::Ready(Ok(None)) => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                // Bytes in memory are never waited for.
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }
}
