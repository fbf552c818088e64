//! What a node and a worker process that it has started tell each other over the socket which the process inherits.
//!
//! Key and certificate travel here and nowhere else: not in arguments, not in the environment. The end of the socket is the end of
//! the node, whatever ended it. Connections to the process come here, too, as descriptors (`SCM_RIGHTS`), each with its message.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mobula_core::cluster::{JobId, Labels, Resources};
use mobula_core::{LeaseTimes, NodeId, NodeUid, codec, limits};
use mobula_identity::Revocations;
use mobula_transport::tls::Credentials;
use mobula_transport::tls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Set for a worker process. It only says "look at your standard input"; a secret it is not.
pub const WORKER_VARIABLE: &str = "MOBULA_WORKER";

/// Node to worker.
#[derive(Serialize, Deserialize)]
pub enum ToWorker {
    /// First: who to be.
    Begin(Box<Part>),
    /// The workers of the job that have not ended; whenever they change. Who is missing has ended.
    Peers(Vec<PeerWorker>),
    /// A connection for this process comes with this message.
    Connection,
    /// What proves from now on who it is.
    Renew(Box<Proof>),
    /// Who is cut off: whoever proves to be one of them is not talked to.
    CutOff(Revocations),
    /// Its node is about to end: it says so to its peers, and ends when it has answered what they had sent, or after that time.
    Leave {
        /// Why, for those who call it.
        reason: String,
        /// How long it may take.
        within: Duration,
    },
    /// The workers of the jobs whose detached actors this one's processes may call; whenever they change. Who is missing has ended.
    Keepers(Vec<Keeper>),
}

/// A job that keeps detached actors, and its workers that have not ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Keeper {
    /// Which.
    pub job: JobId,
    /// Its workers.
    pub workers: Vec<PeerWorker>,
}

/// Worker to node.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// It takes connections.
    Ready,
    /// It cannot be a worker.
    Failed(String),
}

/// What a worker is.
#[derive(Serialize, Deserialize)]
pub struct Part {
    /// Its name and life.
    pub id: NodeId,
    /// The job's name.
    pub job: String,
    /// Its number in the job: of two workers the later one connects.
    pub number: u32,
    /// The job's driver, which keeps the names of the job.
    pub driver: NodeId,
    /// Task slots.
    pub cpus: u32,
    /// The life of the node that starts it.
    pub host: NodeUid,
    /// What that gives.
    pub resources: Resources,
    /// What is said of it.
    pub labels: Labels,
    /// Threads for actors.
    pub arbiters: usize,
    /// How long a node may be without an answer.
    pub lease: LeaseTimes,
    /// The URL of the store of snapshots.
    pub snapshots: Option<String>,
    /// What proves who it is.
    pub proof: Proof,
    /// It is for one actor alone.
    #[serde(default)]
    pub isolated: bool,
    /// The job keeps detached actors: processes of other jobs may call them.
    #[serde(default)]
    pub keeper: bool,
}

/// [`Credentials`] on their way to the process that they are for. Shown in no log, and overwritten in the end.
#[derive(Serialize, Deserialize)]
pub struct Proof {
    #[serde(with = "serde_bytes")]
    certificate: Vec<u8>,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    authority: Vec<u8>,
}

impl Proof {
    /// Of credentials with one certificate.
    pub fn of(credentials: &Credentials) -> Self {
        let certificate = credentials.chain.first().map(|own| own.to_vec()).unwrap_or_default();
        let (key, authority) = (credentials.key.secret_der().to_vec(), credentials.authority.to_vec());
        Proof { certificate, key, authority }
    }

    /// For an [`Endpoint`](mobula_transport::tls::Endpoint), which checks them.
    pub fn credentials(&self) -> Credentials {
        let authority = CertificateDer::from(self.authority.clone());
        Credentials {
            chain: vec![CertificateDer::from(self.certificate.clone()), authority.clone()],
            key: PrivatePkcs8KeyDer::from(self.key.clone()).into(),
            authority,
        }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Another worker of the job, which has not ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PeerWorker {
    /// Its name and life.
    pub id: NodeId,
    /// Its number in the job.
    pub number: u32,
    /// Its process, on its host.
    pub pid: u32,
    /// Task slots.
    pub cpus: u32,
    /// The port of its node, behind which it is.
    pub address: SocketAddr,
    /// The life of its node.
    pub host: NodeUid,
    /// What its node gives.
    pub resources: Resources,
    /// What is said of its node.
    pub labels: Labels,
    /// It is known to take connections. A head that has come back does not know it yet of those that do.
    pub ready: bool,
    /// It is for one actor alone: nothing else is placed there.
    #[serde(default)]
    pub isolated: bool,
}

/// Sends one message, with a descriptor where it speaks of one.
///
/// # Errors
/// `InvalidInput` for one of more than [`limits::CONTROL_ANSWER_BYTES_MAX`], of which nothing was sent, or what the socket says; part of the
/// message may have been sent then.
pub fn send<T: Serialize>(socket: &UnixStream, message: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let limit = limits::CONTROL_ANSWER_BYTES_MAX;
    let Some(body) = codec::encode_within(message, limit).map_err(io::Error::other)? else {
        return Err(too_large(io::ErrorKind::InvalidInput, limit));
    };
    // The limit fits.
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        // The descriptor goes with the first bytes, and only with them.
        match rustix::net::sendmsg(socket, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(count) => {
                rest = &rest[count..];
                ancillary.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn too_large(kind: io::ErrorKind, limit: usize) -> io::Error {
    io::Error::new(kind, format!("ControlMessageTooLarge: at most {limit} bytes are accepted"))
}

/// Receives messages, and the descriptors that come with them.
pub struct Receiver<'a> {
    socket: &'a UnixStream,
    bytes_max: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl<'a> Receiver<'a> {
    /// What a worker process says, on a socket that nobody else reads: messages of [`limits::CONTROL_MESSAGE_BYTES_MAX`] at most.
    pub fn of_worker(socket: &'a UnixStream) -> Self {
        Receiver { socket, bytes_max: limits::CONTROL_MESSAGE_BYTES_MAX, descriptors: VecDeque::new() }
    }

    /// What the node says, on a socket that nobody else reads: messages of [`limits::CONTROL_ANSWER_BYTES_MAX`] at most, since a job may have
    /// workers on all nodes.
    pub fn of_node(socket: &'a UnixStream) -> Self {
        Receiver { bytes_max: limits::CONTROL_ANSWER_BYTES_MAX, ..Receiver::of_worker(socket) }
    }

    /// The next message. The end of the socket is `UnexpectedEof`.
    ///
    /// # Errors
    /// `InvalidData`, or what the socket says.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > self.bytes_max {
            return Err(too_large(io::ErrorKind::InvalidData, self.bytes_max));
        }
        let mut body = Vec::new();
        // Memory grows with what has arrived.
        while body.len() < length {
            let (from, to) = (body.len(), length.min(body.len() + limits::CONTROL_MESSAGE_BYTES_MAX));
            body.resize(to, 0);
            self.fill(body.get_mut(from..).unwrap_or_default())?;
        }
        codec::decode_large(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The descriptor that came with the last message that speaks of one.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn fill(&mut self, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(out)];
            let received = rustix::net::recvmsg(
                self.socket.as_fd(),
                &mut parts,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
            );
            let count = match received {
                Ok(received) if received.bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            out = &mut out[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use mobula_core::cluster::Amount;

    use super::*;

    #[test]
    fn a_connection_comes_with_its_message_and_with_no_other() {
        let (node, worker) = UnixStream::pair().expect("a pair of sockets");
        let (mut far, near) = UnixStream::pair().expect("a pair of sockets");
        send(&node, &ToWorker::Peers(Vec::new()), None).expect("room");
        send(&node, &ToWorker::Connection, Some(near.as_fd())).expect("room");
        send(&node, &ToWorker::Peers(Vec::new()), None).expect("room");
        drop(near);
        let mut receiver = Receiver::of_node(&worker);
        assert!(matches!(receiver.receive().expect("sent"), ToWorker::Peers(_)));
        assert!(receiver.descriptor().is_none());
        assert!(matches!(receiver.receive().expect("sent"), ToWorker::Connection));
        let mut passed = UnixStream::from(receiver.descriptor().expect("it came with it"));
        assert!(matches!(receiver.receive().expect("sent"), ToWorker::Peers(_)));
        assert!(receiver.descriptor().is_none());
        far.write_all(b"through").expect("open");
        let mut bytes = [0; 7];
        passed.read_exact(&mut bytes).expect("the same connection");
        assert_eq!(&bytes, b"through");
        drop(node);
        let end = receiver.receive::<ToWorker>().err().map(|error| error.kind());
        assert_eq!(end, Some(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn an_announced_gigabyte_is_refused() {
        let (node, worker) = UnixStream::pair().expect("a pair of sockets");
        (&node).write_all(&(1_u32 << 30).to_be_bytes()).expect("room");
        let refused = Receiver::of_node(&worker).receive::<ToWorker>().err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::InvalidData));
    }

    /// As many as a cluster may have nodes.
    fn peers() -> Vec<PeerWorker> {
        let peer = |number: u32| PeerWorker {
            id: NodeId::new("node-name-of-some-length", NodeUid(u64::MAX - u64::from(number))),
            number,
            pid: number,
            cpus: 64,
            address: SocketAddr::from(([255, 255, 255, 255], 65_535)),
            host: NodeUid(u64::from(number)),
            resources: Resources::cpus(Amount::units(64)),
            labels: Labels::new(),
            ready: true,
            isolated: false,
        };
        (0..limits::NODES_MAX as u32).map(peer).collect()
    }

    #[test]
    fn a_worker_hears_of_peers_on_all_nodes_that_there_may_be() {
        let (node, worker) = UnixStream::pair().expect("a pair of sockets");
        let sending = std::thread::spawn(move || {
            send(&node, &ToWorker::Peers(peers()), None).expect("it is read");
            node
        });
        let heard = Receiver::of_node(&worker).receive().expect("sent");
        assert!(matches!(heard, ToWorker::Peers(heard) if heard == peers()));
        drop(sending.join().expect("no panic"));
    }

    #[test]
    fn a_node_takes_no_large_message_of_a_worker() {
        let (node, worker) = UnixStream::pair().expect("a pair of sockets");
        let text = "a".repeat(limits::CONTROL_MESSAGE_BYTES_MAX);
        // More than there is room for, and nobody reads it.
        worker.set_nonblocking(true).expect("a socket");
        assert!(send(&worker, &FromWorker::Failed(text), None).is_err());
        let refused = Receiver::of_worker(&node).receive::<FromWorker>().err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::InvalidData));
    }
}
