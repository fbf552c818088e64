//! TLS 1.3 over TCP: both sides show a certificate of the cluster's own authority. The only wire that may leave the host.
//!
//! Who a peer is stands in its certificate, whose names are [`node_name`] and [`role_name`], and is checked by the standard
//! verifiers. Inside the encrypted connection goes the preface of every other wire, its proof made with a key that only the
//! two ends of this connection have (RFC 5705); so it cannot be carried over from another one. The life that it claims has
//! to be the certificate's. Start at [`Endpoint`]; [`wire`] makes a connection that a link can use.

mod back;
mod control;
mod credentials;
mod door;
mod endpoint;
mod entrance;
mod joining;
mod limited;
mod route;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mobula_core::NodeUid;

use crate::handshake::{self, HandshakeError};
use crate::preface::PrefaceError;

pub use back::{ask_after, ask_after_through, redial, redial_through};
pub use control::{ControlStream, dial_control};
pub use credentials::{Credentials, node_name, provider, role_name};
pub use door::{Door, Place};
pub use endpoint::{Accepted, Endpoint, Secured, listen};
pub use entrance::Entrance;
pub use joining::{JoinStream, dial_head, find_authority, key_hash};
pub use route::{Knock, ROUTE_BYTES, knock, route};
pub use rustls::pki_types;
pub use wire::wire;

/// What a node's connection is opened for, as its `ClientHello` says (ALPN).
pub const NODE_PROTOCOL: &[u8] = b"mobula/1";
/// The same for one who has no certificate yet and wants to join.
pub const JOIN_PROTOCOL: &[u8] = b"mobula-join/1";
/// The same for talk of the cluster itself, see [`ControlStream`].
pub const CONTROL_PROTOCOL: &[u8] = b"mobula-control/1";

/// A TLS connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Certificate, key and authority do not fit together, or not to this node.
    #[error("the node's credentials cannot be used: {reason}")]
    Credentials {
        /// What is wrong with them.
        reason: String,
    },
    /// The port is taken.
    #[error("port {} on {} is in use: choose another, or stop the process that holds it", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system or TLS says no.
    #[error("{what} {address}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With whom.
        address: SocketAddr,
        /// What came of it.
        error: io::Error,
    },
    /// The preface inside TLS was refused.
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
    /// The node's certificate was revoked.
    #[error("{address}: Revoked: node {uid} was cut off from the cluster")]
    Revoked {
        /// The peer.
        address: SocketAddr,
        /// Its life.
        uid: NodeUid,
    },
    /// The other side is not of the cluster that is wanted.
    #[error(
        "{address}: WrongAuthority: the head there shows no certificate with the key that was pinned; is it the right cluster?"
    )]
    WrongAuthority {
        /// The peer.
        address: SocketAddr,
    },
    /// Nobody can join or control the cluster here.
    #[error("{address}: NotTheHead: only the head takes nodes in and is asked about the cluster")]
    NotTheHead {
        /// The peer.
        address: SocketAddr,
    },
}

impl TlsError {
    /// The peer went away before the handshake was over: it ended, its connection was cut, or it is no peer but something
    /// that looks for open ports. No rule was broken.
    pub fn is_departure(&self) -> bool {
        matches!(self, Self::Io { error, .. } if handshake::is_departure(error))
    }
}

fn failed(what: &'static str, address: SocketAddr) -> impl FnOnce(HandshakeError) -> TlsError {
    move |error| match error {
        HandshakeError::Io(error) => TlsError::Io { what, address, error },
        HandshakeError::Preface(error) => TlsError::Preface { address, error },
        HandshakeError::Deadline { after } => TlsError::Deadline { address, after },
    }
}
