//! The driver's end of a node process: starts it, hands it its part, and reaps it.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mobula_core::limits;
use mobula_transport::tcp::ConnectError;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use crate::error::ClusterError;
use crate::handover::{self, PeerAddress, ToDriver, ToNode};

/// Set for a node process. It only says "look at your standard input"; a secret it is not.
pub(crate) const NODE_VARIABLE: &str = "MOBULA_NODE";

/// How long a driver waits until a node process takes what it is told; one that is stopped by a signal must not hold it up.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// A node process, from its start to its end. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    name: String,
    socket: Arc<UnixStream>,
    /// The process itself, where the kernel knows such handles: unlike a pid, never another one.
    handle: Arc<OnceLock<OwnedFd>>,
    join: mpsc::Sender<Vec<PeerAddress>>,
    joined: Option<oneshot::Receiver<Result<(), ClusterError>>>,
    ended: watch::Receiver<Option<String>>,
}

impl NodeProcess {
    /// Starts a node from `executable`, with this in its environment beside what is in ours, and waits until it listens.
    pub(crate) async fn start(
        executable: PathBuf,
        part: ToNode,
        environment: Vec<(&'static str, String)>,
    ) -> Result<(Self, PeerAddress), ClusterError> {
        let ToNode::Become { name, port, .. } = &part else {
            return Err(ClusterError::Unsupported("a node process begins with its part".to_owned()));
        };
        let (name, port) = (name.clone(), *port);
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(SEND_DEADLINE))?;
        let socket = Arc::new(ours);
        let (join, to_join) = mpsc::channel();
        let (tell_ready, ready) = oneshot::channel();
        let (tell_joined, joined) = oneshot::channel();
        let (tell_end, ended) = watch::channel(None);
        let life = Life { name: name.clone(), executable, environment, port, socket: Arc::clone(&socket) };
        let handle = Arc::new(OnceLock::new());
        let own_handle = Arc::clone(&handle);
        // The kernel ends the process with the thread that started it, so that thread stays to reap it.
        std::thread::Builder::new().name(format!("mobula-{name}")).spawn(move || {
            let mut child = match life.start(theirs) {
                Ok(child) => child,
                Err(error) => {
                    let _ = tell_ready.send(Err(error));
                    return;
                }
            };
            if let Ok(opened) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
                let _ = own_handle.set(opened);
            }
            let was_ready = life.become_ready(&part);
            let is_ready = was_ready.is_ok();
            let _ = tell_ready.send(was_ready);
            if is_ready && let Ok(peers) = to_join.recv() {
                let _ = tell_joined.send(life.join(peers));
            } else {
                let _ = life.socket.shutdown(Shutdown::Both);
                // What is no node does not care about the socket.
                let _ = child.kill();
            }
            let end = match child.wait() {
                Ok(status) => describe(status),
                Err(error) => format!("cannot be reaped: {error}"),
            };
            let _ = tell_end.send(Some(end));
        })?;
        let address = ready.await.unwrap_or_else(|_| Err(not_ready(&name, "its starter ended")))?;
        Ok((NodeProcess { name, socket, handle, join, joined: Some(joined), ended }, address))
    }

    /// Tells the node its peers and waits until it is connected to them.
    pub(crate) async fn join(&mut self, peers: Vec<PeerAddress>) -> Result<(), ClusterError> {
        let gone = || not_ready(&self.name, "it ended");
        self.join.send(peers).map_err(|_| gone())?;
        match self.joined.take() {
            Some(joined) => joined.await.unwrap_or_else(|_| Err(gone())),
            None => Ok(()),
        }
    }

    /// Over which it is told things once it has joined.
    pub(crate) fn line(&self) -> Line {
        Line(Arc::clone(&self.socket))
    }

    /// Resolves with how the process ended, once it has been reaped.
    pub(crate) fn ended(&self) -> impl Future<Output = String> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            let end = ended.wait_for(Option::is_some).await;
            end.ok().and_then(|end| end.clone()).unwrap_or_else(|| "its reaper ended".to_owned())
        }
    }

    /// Tells the process to end, at once and whatever it does.
    pub(crate) fn end(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        // It would do that itself, but not while it is stopped by a signal.
        if let Some(handle) = self.handle.get() {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// The way to a node process that has joined.
#[derive(Clone, Debug)]
pub(crate) struct Line(Arc<UnixStream>);

impl Line {
    /// Tells it something. Blocks while it does not read, for [`SEND_DEADLINE`] at most; one that has ended needs to hear nothing.
    pub(crate) fn tell(&self, what: &ToNode) {
        if let Err(error) = handover::send(&self.0, what) {
            tracing::debug!(%error, "a node process was not told something");
        }
    }
}

/// What the thread of a node process knows.
struct Life {
    name: String,
    executable: PathBuf,
    environment: Vec<(&'static str, String)>,
    port: u16,
    socket: Arc<UnixStream>,
}

impl Life {
    fn start(&self, theirs: UnixStream) -> Result<Child, ClusterError> {
        Command::new(&self.executable)
            .env(NODE_VARIABLE, &self.name)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| ClusterError::Start {
                node: self.name.clone(),
                executable: self.executable.display().to_string(),
                error,
            })
    }

    fn become_ready(&self, part: &ToNode) -> Result<PeerAddress, ClusterError> {
        match self.exchange(part)? {
            ToDriver::Ready { node } => Ok(node),
            ToDriver::Failed { port_in_use: true, .. } => {
                let address = (std::net::Ipv4Addr::LOCALHOST, self.port).into();
                Err(ClusterError::Listen { node: self.name.clone(), error: ConnectError::PortInUse { address } })
            }
            ToDriver::Failed { reason, .. } => Err(not_ready(&self.name, &reason)),
            ToDriver::Joined => Err(not_ready(&self.name, "it joined before it was told to")),
        }
    }

    fn join(&self, peers: Vec<PeerAddress>) -> Result<(), ClusterError> {
        match self.exchange(&ToNode::Join { peers })? {
            ToDriver::Joined => Ok(()),
            ToDriver::Failed { reason, .. } => Err(not_ready(&self.name, &reason)),
            ToDriver::Ready { .. } => Err(not_ready(&self.name, "it was ready twice")),
        }
    }

    fn exchange(&self, message: &ToNode) -> Result<ToDriver, ClusterError> {
        let after = limits::NODE_START_DEADLINE;
        let exchanged = self
            .socket
            .set_read_timeout(Some(after))
            .and_then(|()| handover::send(&self.socket, message))
            .and_then(|()| handover::receive(&self.socket));
        exchanged.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClusterError::StartDeadline { node: self.name.clone(), after }
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                not_ready(&self.name, "its process ended; its output may say why")
            }
            _ => not_ready(&self.name, &error.to_string()),
        })
    }
}

fn not_ready(node: &str, reason: &str) -> ClusterError {
    ClusterError::NotReady { node: node.to_owned(), reason: reason.to_owned() }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("its process ended with exit code {code}"),
        (None, Some(signal)) => format!("its process was ended by signal {signal}"),
        (None, None) => "its process ended".to_owned(),
    }
}
