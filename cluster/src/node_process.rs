//! The node's end of a started process: becomes what the driver says, and ends with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use mobula_actors::{Node, NodeConfig};
use mobula_control::handover::WORKER_VARIABLE;
use mobula_core::{LeaseTimes, NodeUid};
use mobula_transport::preface::Secret;
use mobula_transport::tcp::{self, ConnectError};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use crate::cluster::{self, Cluster};
use crate::driver::DRIVER_VARIABLE;
use crate::handover::{self, PeerAddress, ToDriver, ToNode};
use crate::members::NodeInfo;
use crate::peers::{self, Addresses};
use crate::process::NODE_VARIABLE;

/// What this process was started as.
pub(crate) enum StartedAs {
    /// A node of `Cluster::local`, by a driver at the other end of the socket.
    Node(UnixStream),
    /// A worker of a job, by a node.
    Worker(UnixStream),
}

/// What this process was started as, if not by hand.
///
/// The variable alone does not make a node: what a node starts in turn inherits it, but not the socket.
pub(crate) fn started_as() -> Option<StartedAs> {
    let is_set = |variable| std::env::var_os(variable).is_some();
    if is_set(WORKER_VARIABLE) {
        return inherited_socket().map(StartedAs::Worker);
    }
    if is_set(NODE_VARIABLE) { inherited_socket().map(StartedAs::Node) } else { None }
}

/// The driver of a submitted job begins when its node lets it: with the end of its standard input. Until then the node has found a place for it.
pub(crate) fn wait_for_leave_to_drive() {
    if std::env::var_os(DRIVER_VARIABLE).is_some()
        && let Some(mut socket) = inherited_socket()
    {
        // However it ends.
        let _ = io::copy(&mut socket, &mut io::sink());
    }
}

fn inherited_socket() -> Option<UnixStream> {
    let stdin = rustix::stdio::stdin();
    let file_type = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(stdin).ok()?.st_mode);
    if !file_type.is_socket() {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).ok()?;
    // The program's own code finds an empty standard input, not our socket.
    let null = std::fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    Some(UnixStream::from(socket as OwnedFd))
}

/// Serves as a node until the driver ends.
pub(crate) fn run(socket: UnixStream) -> ExitCode {
    begin_process();

    let part = match handover::receive(&socket) {
        Ok(ToNode::Become {
            name,
            secret,
            cpus,
            arbiters,
            port,
            driver,
            lease,
            snapshots,
            encode_local_calls,
            compress_above_bytes,
            uid,
        }) => Part {
            name,
            secret,
            cpus,
            arbiters,
            port,
            driver,
            lease,
            snapshots,
            encode_local_calls,
            compress_above_bytes,
            uid,
        },
        Ok(_) => return fail(&socket, "it was to join before it had a part", false),
        // Without a driver there is nothing to be.
        Err(_) => return ExitCode::FAILURE,
    };
    let system = actix_rt::System::new();
    let result = system.block_on(async {
        let socket = Arc::new(socket);
        let (node, cluster, addresses) = start(part, &socket).await?;
        watch_driver(Arc::clone(&socket), cluster, addresses);
        // Everything else happens on this thread's arbiter and on the control runtime.
        let () = std::future::pending().await;
        drop(node);
        Ok::<_, Failure>(())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { socket, reason, port_in_use }) => fail(&socket, &reason, port_in_use),
    }
}

/// What every process that somebody has started does first.
pub(crate) fn begin_process() {
    // The second of two strings to whoever started it: it holds even while this process is stopped.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOBULA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).try_init();
}

struct Part {
    name: String,
    secret: Vec<u8>,
    cpus: u32,
    arbiters: usize,
    port: u16,
    driver: mobula_core::NodeId,
    lease: LeaseTimes,
    snapshots: Option<String>,
    encode_local_calls: bool,
    compress_above_bytes: Option<usize>,
    uid: Option<NodeUid>,
}

struct Failure {
    socket: Arc<UnixStream>,
    reason: String,
    port_in_use: bool,
}

async fn start(part: Part, socket: &Arc<UnixStream>) -> Result<(Node, Cluster, Addresses), Failure> {
    let failed = |reason: String| Failure { socket: Arc::clone(socket), reason, port_in_use: false };
    let secret = handover::secret_from(&part.secret).map_err(failed)?;
    let config = NodeConfig {
        name: part.name,
        cpus: part.cpus,
        arbiters: part.arbiters.saturating_sub(1),
        use_current_thread: true,
        lease: part.lease,
        encode_local_calls: part.encode_local_calls,
        compress_above_bytes: part.compress_above_bytes,
        uid: part.uid,
        ..NodeConfig::default()
    };
    let node = Node::start(config).map_err(|error| failed(error.to_string()))?;
    if let Some(url) = &part.snapshots {
        node.set_snapshot_store(mobula_snapshots::open(url).map_err(|error| failed(error.to_string()))?);
    }
    node.set_head(&part.driver);
    let fenced = node.fenced();
    node.control_runtime().spawn(async move {
        fenced.await;
        // Only a new life may come back. Whoever started this one sees its end.
        end_now();
    });
    let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, part.port))).map_err(|error| Failure {
        socket: Arc::clone(socket),
        port_in_use: matches!(error, ConnectError::PortInUse { .. }),
        reason: error.to_string(),
    })?;
    let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let addresses = Addresses::default();
    peers::open_door(&node, listener, secret.clone(), addresses.clone());
    let own = PeerAddress::new(node.id().clone(), std::process::id(), part.cpus, address);
    handover::send(socket, &ToDriver::Ready { node: own }).map_err(|error| failed(error.to_string()))?;

    // The driver answers when all nodes listen; nothing needs this thread before that.
    let peers = match handover::receive(socket) {
        Ok(ToNode::Join { peers }) => peers,
        Ok(_) => return Err(failed("it was told something before its peers".to_owned())),
        Err(error) => return Err(failed(error.to_string())),
    };
    peers.iter().for_each(|peer| addresses.learn(peer.id.uid, peer.address));
    join(&node, &peers, &secret).await.map_err(|error| failed(error.to_string()))?;
    let members = peers.iter().map(node_info).collect();
    tracing::info!(node = %node.id(), driver = %part.driver, "joined");
    let cluster = Cluster::of_node(node.clone(), members);
    cluster::set_current(cluster.clone());
    handover::send(socket, &ToDriver::Joined).map_err(|error| failed(error.to_string()))?;
    Ok((node, cluster, addresses))
}

/// Of two nodes the later one connects, so that there is one connection between them.
async fn join(node: &Node, peers: &[PeerAddress], secret: &Secret) -> Result<(), crate::ClusterError> {
    let comes_late = peers.iter().any(|peer| peer.isolated && peer.id == *node.id());
    for peer in peers.iter().take_while(|peer| peer.id != *node.id()) {
        match peers::connect(node, &peer.id, peer.address, secret).await {
            // Among those that were there before it, one may just be ending.
            Err(error) if comes_late => tracing::debug!(peer = %peer.id, %error, "not connected"),
            Ok(()) if comes_late => {
                if let Err(error) = node.greet(&peer.id).await {
                    tracing::debug!(peer = %peer.id, %error, "not greeted");
                }
            }
            connected => connected?,
        }
    }
    Ok(())
}

pub(crate) fn node_info(peer: &PeerAddress) -> NodeInfo {
    let mut info = NodeInfo::new(peer.id.clone(), peer.pid, Some(peer.address), peer.cpus);
    (info.resources, info.labels, info.isolated) = (peer.resources.clone(), peer.labels.clone(), peer.isolated);
    info
}

/// Hears what the driver says, and ends this process when its end of the socket closes, however busy the arbiters are.
fn watch_driver(socket: Arc<UnixStream>, cluster: Cluster, addresses: Addresses) {
    let watched = std::thread::Builder::new().name("mobula-driver-watch".to_owned()).spawn(move || {
        loop {
            match handover::receive(&socket) {
                Ok(ToNode::Peer { peer }) => {
                    addresses.learn(peer.id.uid, peer.address);
                    cluster.add_member(node_info(&peer));
                }
                Ok(ToNode::Leave { reason, within }) => {
                    let node = cluster.node().clone();
                    cluster.node().control_runtime().spawn(async move {
                        node.leave(&reason, within).await;
                        end_now();
                    });
                }
                Ok(ToNode::Become { .. } | ToNode::Join { .. }) | Err(_) => return end_now(),
            }
        }
    });
    if watched.is_err() {
        end_now();
    }
}

/// Without hooks and without waiting: a handler that never returns must not keep the process alive.
pub(crate) fn end_now() {
    let _ = kill_process(getpid(), Signal::KILL);
}

fn fail(socket: &UnixStream, reason: &str, port_in_use: bool) -> ExitCode {
    let _ = handover::send(socket, &ToDriver::Failed { reason: reason.to_owned(), port_in_use });
    ExitCode::FAILURE
}
