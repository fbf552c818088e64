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
/// What the socket says; part of the message may have been sent then.
pub fn send<T: Serialize>(socket: &UnixStream, message: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&codec::encode(message).map_err(io::Error::other)?);
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
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

/// Receives messages, and the descriptors that come with them.
pub struct Receiver<'a> {
    socket: &'a UnixStream,
    descriptors: VecDeque<OwnedFd>,
}

impl<'a> Receiver<'a> {
    /// Of this socket, which nobody else reads.
    pub fn new(socket: &'a UnixStream) -> Self {
        Receiver { socket, descriptors: VecDeque::new() }
    }

    /// The next message. The end of the socket is `UnexpectedEof`.
    ///
    /// # Errors
    /// `InvalidData`, or what the socket says.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > limits::CONTROL_MESSAGE_BYTES_MAX {
            let max = limits::CONTROL_MESSAGE_BYTES_MAX;
            let text = format!("ControlMessageTooLarge: {length} bytes, at most {max} are accepted");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        codec::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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

    use super::*;

    #[test]
    fn a_connection_comes_with_its_message_and_with_no_other() {
        let (node, worker) = UnixStream::pair().expect("a pair of sockets");
        let (mut far, near) = UnixStream::pair().expect("a pair of sockets");
        send(&node, &ToWorker::Peers(Vec::new()), None).expect("room");
        send(&node, &ToWorker::Connection, Some(near.as_fd())).expect("room");
        send(&node, &ToWorker::Peers(Vec::new()), None).expect("room");
        drop(near);
        let mut receiver = Receiver::new(&worker);
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
        let refused = Receiver::new(&worker).receive::<ToWorker>().err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::InvalidData));
    }
}
