//! What a driver and the node process it started tell each other over the socket that the process inherits.
//!
//! The secret travels here and nowhere else: not in arguments, not in the environment. The end of the socket is the
//! end of the driver, whatever ended it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mobula_core::cluster::{Labels, Resources};
use mobula_core::{LeaseTimes, NodeId, NodeUid, codec};
use mobula_transport::preface::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message is refused beyond this: no list of nodes comes near it.
const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// Driver to node.
#[derive(Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// First: who to be.
    Become {
        name: String,
        #[serde(with = "serde_bytes")]
        secret: Vec<u8>,
        cpus: u32,
        arbiters: usize,
        /// 0 lets the system choose.
        port: u16,
        driver: NodeId,
        lease: LeaseTimes,
        /// The URL of the store.
        #[serde(default)]
        snapshots: Option<String>,
        encode_local_calls: bool,
        #[serde(default)]
        compress_above_bytes: Option<usize>,
        /// Drawn by itself where none is given.
        #[serde(default)]
        uid: Option<NodeUid>,
    },
    /// Second: all nodes of the cluster, in the order of their numbers.
    Join { peers: Vec<PeerAddress> },
    /// One more has come, which connects by itself.
    Peer { peer: PeerAddress },
    /// It is to end in order, within that time.
    Leave { reason: String, within: Duration },
}

/// Node to driver.
#[derive(Serialize, Deserialize)]
pub(crate) enum ToDriver {
    /// It listens.
    Ready { node: PeerAddress },
    /// It has a link to every other node.
    Joined,
    /// It cannot be a node.
    Failed { reason: String, port_in_use: bool },
}

/// Where a node is reached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerAddress {
    pub(crate) id: NodeId,
    pub(crate) pid: u32,
    pub(crate) cpus: u32,
    pub(crate) address: SocketAddr,
    /// What it gives, and what is said of it; the driver says so.
    #[serde(default)]
    pub(crate) resources: Resources,
    #[serde(default)]
    pub(crate) labels: Labels,
    /// It is for one actor alone.
    #[serde(default)]
    pub(crate) isolated: bool,
}

impl PeerAddress {
    pub(crate) fn new(id: NodeId, pid: u32, cpus: u32, address: SocketAddr) -> Self {
        PeerAddress { id, pid, cpus, address, resources: Resources::new(), labels: Labels::new(), isolated: false }
    }
}

pub(crate) fn secret_from(bytes: &[u8]) -> Result<Secret, String> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| format!("a secret of {} bytes, 32 are needed", bytes.len()))?;
    Ok(Secret::from_bytes(bytes))
}

/// Sends one message: its length as a big-endian u32, then MessagePack.
pub(crate) fn send<T: Serialize>(mut socket: &UnixStream, message: &T) -> io::Result<()> {
    let body = codec::encode(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    socket.write_all(&bytes)
}

/// Receives one message. The end of the socket is `UnexpectedEof`.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        let text = format!("a message of {length} bytes was announced, at most {MESSAGE_BYTES_MAX} are accepted");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)?;
    codec::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_the_socket() {
        let (driver, node) = UnixStream::pair().expect("a pair of sockets");
        let reason = "port taken".to_owned();
        send(&node, &ToDriver::Failed { reason: reason.clone(), port_in_use: true }).expect("room for it");
        let received: ToDriver = receive(&driver).expect("just sent");
        assert!(matches!(received, ToDriver::Failed { reason: got, port_in_use: true } if got == reason));
    }

    #[test]
    fn an_announced_gigabyte_is_refused_and_an_end_is_an_end() {
        let (driver, node) = UnixStream::pair().expect("a pair of sockets");
        (&node).write_all(&u32::MAX.to_be_bytes()).expect("room for it");
        let refused = receive::<ToDriver>(&driver).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::InvalidData));
        drop(node);
        let ended = receive::<ToDriver>(&driver).err().map(|error| error.kind());
        assert_eq!(ended, Some(io::ErrorKind::UnexpectedEof));
    }
}
