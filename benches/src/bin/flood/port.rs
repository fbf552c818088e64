//! The node that is flooded: one port for newcomers who want a certificate and for nodes, as the head of a cluster has.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mobula_actors::{Node, NodeConfig};
use mobula_core::{NodeId, NodeUid};
use mobula_identity::{Asked, Head, Role, Token, UnixTime};
use mobula_transport::tls::{self, Accepted, Door, Endpoint, Entrance, Place};
use mobula_transport::unix::Directory;
use tokio::net::TcpListener;

/// The node's life.
pub(crate) const UID: NodeUid = NodeUid(0xead);

/// Where the node listens, and what lets one in.
#[derive(Clone)]
pub(crate) struct AtDoor {
    pub(crate) address: SocketAddr,
    pub(crate) token: Arc<Token>,
}

/// The node in its process, which ends with this.
pub(crate) struct OtherProcess {
    child: Child,
    pub(crate) door: AtDoor,
}

impl OtherProcess {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a path to this executable"));
        command.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says where it is");
        let (address, token) = line.trim().split_once(' ').expect("an address and a token");
        let token = Arc::new(Token::parse(token).expect("a token"));
        OtherProcess { child, door: AtDoor { address: address.parse().expect("an address"), token } }
    }

    /// What it has in memory now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process that has not ended");
        let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().expect("a number of kB");
        kib * 1024
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Is the node until the standard input ends.
pub(crate) fn serve() -> ExitCode {
    let directory = tempfile::tempdir().expect("a directory");
    let state = Directory::create(directory.path().join("head")).expect("a directory of our own");
    let now = UnixTime::now();
    let identity = Arc::new(Head::open(&state, now).expect("a head"));
    let credentials = identity.credentials(UID, now).expect("credentials");
    let endpoint = Arc::new(Endpoint::new(UID, &credentials, true).expect("good credentials"));
    let token = identity.create_token(Role::Worker, u32::MAX, Duration::from_secs(3600), now).expect("a token");
    actix::System::new().block_on(async {
        let config = NodeConfig { name: "head".to_owned(), uid: Some(UID), ..NodeConfig::default() };
        let node = Node::start(config).expect("a node");
        // As the port of a node has: two threads, which are neither the actors' nor the heartbeats'.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
        let runtime = runtime.expect("a runtime");
        let opening = runtime.spawn(async { tls::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) });
        let listener = opening.await.expect("it only listens").expect("a port");
        println!("{} {}", listener.local_addr().expect("it is bound"), *token.expose());
        runtime.spawn(keep(listener, node, endpoint, identity));
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = ended.await;
        runtime.shutdown_background();
    });
    ExitCode::SUCCESS
}

async fn keep(listener: TcpListener, node: Node, endpoint: Arc<Endpoint>, identity: Arc<Head>) {
    let entrance = Entrance::open(listener, Door::default()).expect("a fresh listener");
    loop {
        let (stream, address, mut place) = entrance.next().await;
        let (node, endpoint, identity) = (node.clone(), Arc::clone(&endpoint), Arc::clone(&identity));
        tokio::spawn(async move {
            if let Some(Ok(accepted)) = place.hold(endpoint.accept(stream, address)).await {
                welcome(accepted, place, &node, &identity).await;
            }
        });
    }
}

async fn welcome(accepted: Accepted, mut place: Place, node: &Node, identity: &Arc<Head>) {
    match accepted {
        Accepted::Joiner(stream) => {
            if let Some(asked) = place.hold(Asked::read(stream)).await.filter(|_| place.settle()) {
                let _ = identity.answer(asked, UnixTime::now()).await;
            }
        }
        Accepted::Node(secured, dial) => {
            drop(place);
            // Without a way back: a connection that breaks ends its session.
            let attached = node.attach(dial.lane, NodeId::new("peer", dial.dialer), move || tls::wire(secured));
            let _ = attached.await;
        }
        Accepted::Controller(_) => {}
    }
}
