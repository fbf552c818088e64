//! The kinds of places in which one and the same suite runs.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use mobula::{ActorRef, ActorSpec, Ask, Cluster, Node, NodeId, RemoteActor};
use mobula_actors::NodeConfig;
use mobula_transport::{Lane, memory};

use crate::actors::{Entered, GateKeeper, Hold, Open, Opener, Probe};
use crate::gates;
use crate::wait::{LONG, within};

/// Where a suite runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One process, one node: everything is near.
    Embedded,
    /// Node processes on loopback TCP, called by the test's process.
    Processes,
    /// Several nodes in the test's process, over the memory wire: every byte is encoded, no socket is used.
    Memory,
}

/// One stage: the node that calls, and two homes for actors. On an embedded stage all three are one node.
#[derive(Debug)]
pub struct Stage {
    kind: Kind,
    caller: Node,
    homes: Vec<NodeId>,
    under: Under,
}

#[derive(Debug)]
enum Under {
    Cluster(Cluster),
    Nodes(Vec<Node>),
}

/// A whole suite takes less, also on a busy machine.
const SUITE_BOUND: Duration = Duration::from_secs(60);

/// Runs `suite` on a fresh stage of `kind`, whose node processes run `node_host`.
///
/// # Panics
/// If the suite does, or takes more than a minute.
pub fn run<F: Future<Output = ()>>(kind: Kind, node_host: &str, suite: impl FnOnce(Stage) -> F) {
    let node_host = PathBuf::from(node_host);
    actix::System::new().block_on(async move {
        let stage = within(LONG, "the stage", Stage::set(kind, node_host)).await;
        within(SUITE_BOUND, "the suite", suite(stage)).await;
    });
}

/// Runs `test` on a fresh `System`, within a minute.
///
/// # Panics
/// If the test does, or takes longer.
pub fn run_plain(test: impl Future<Output = ()>) {
    actix::System::new().block_on(within(SUITE_BOUND, "the test", test));
}

/// Makes a module for each suite, with a test for each kind of stage:
/// `suites! { tells_keep_their_order on [embedded, processes, memory]; }`.
#[macro_export]
macro_rules! suites {
    ($($suite:ident on [$($kind:ident),+];)+) => {
        $(mod $suite {
            $(#[test]
            fn $kind() {
                $crate::stage::run($crate::suites!(@ $kind), env!("CARGO_BIN_EXE_node_host"), super::$suite);
            })+
        })+
    };
    (@ embedded) => { $crate::Kind::Embedded };
    (@ processes) => { $crate::Kind::Processes };
    (@ memory) => { $crate::Kind::Memory };
}

impl Stage {
    async fn set(kind: Kind, node_host: PathBuf) -> Stage {
        match kind {
            Kind::Embedded => {
                let cluster = Cluster::connect().await.expect("a cluster in this process");
                Self::over(kind, cluster)
            }
            Kind::Processes => {
                let builder = Cluster::builder().nodes(2).cpus_per_node(1).executable(node_host);
                let cluster = builder.connect().await.expect("a cluster of two processes");
                Self::over(kind, cluster)
            }
            Kind::Memory => {
                let nodes = vec![start_node("caller"), start_node("home-1"), start_node("home-2")];
                nodes[1..].iter().for_each(|home| home.set_head(nodes[0].id()));
                for (at, one) in nodes.iter().enumerate() {
                    for other in &nodes[at + 1..] {
                        connect_by_memory(one, other).await;
                    }
                }
                let homes: Vec<NodeId> = nodes[1..].iter().map(|node| node.id().clone()).collect();
                nodes.iter().for_each(|node| node.set_homes(homes.clone()));
                Stage { kind, caller: nodes[0].clone(), homes, under: Under::Nodes(nodes) }
            }
        }
    }

    fn over(kind: Kind, cluster: Cluster) -> Stage {
        let homes = cluster.nodes().into_iter().map(|node| node.id).cycle().take(2).collect();
        Stage { kind, caller: cluster.node().clone(), homes, under: Under::Cluster(cluster) }
    }

    /// Where this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True if the homes are in this process and on the calling node.
    pub fn is_near(&self) -> bool {
        self.kind == Kind::Embedded
    }

    /// The node that calls.
    pub fn caller(&self) -> &Node {
        &self.caller
    }

    /// The home with this number, 0 or 1.
    pub fn home(&self, number: usize) -> &NodeId {
        &self.homes[number]
    }

    /// The cluster.
    ///
    /// # Panics
    /// On a memory stage, which has none.
    pub fn cluster(&self) -> &Cluster {
        match &self.under {
            Under::Cluster(cluster) => cluster,
            Under::Nodes(_) => panic!("a memory stage has no cluster"),
        }
    }

    /// The node of a home.
    ///
    /// # Panics
    /// Unless this is a memory stage.
    pub fn node(&self, home: usize) -> &Node {
        match &self.under {
            Under::Nodes(nodes) => &nodes[home + 1],
            Under::Cluster(_) => panic!("the home's node is in another process"),
        }
    }

    /// The process of a home.
    pub fn pid(&self, home: usize) -> u32 {
        match &self.under {
            Under::Cluster(cluster) => {
                let nodes = cluster.nodes();
                nodes.iter().find(|node| node.id == self.homes[home]).expect("a home is a member").pid
            }
            Under::Nodes(_) => std::process::id(),
        }
    }

    /// Creates an actor on a home.
    ///
    /// # Panics
    /// If that fails.
    pub async fn spawn<A: RemoteActor>(&self, home: usize, spec: ActorSpec<A>) -> ActorRef<A> {
        let spawned = within(LONG, "spawn", self.caller.spawn_on(&self.homes[home], spec)).await;
        spawned.unwrap_or_else(|error| panic!("cannot spawn on home {home}: {error}"))
    }

    /// A probe on a home, made from 0.
    pub async fn probe(&self, home: usize) -> ActorRef<Probe> {
        self.spawn(home, Probe::spec(0)).await
    }

    /// A keeper of the gates in a home's process.
    pub async fn keeper(&self, home: usize) -> ActorRef<GateKeeper> {
        self.spawn(home, GateKeeper::spec(()).own_thread()).await
    }

    /// Opens a gate of a home's process, however busy its arbiters are.
    pub async fn force_open(&self, home: usize, gate: &str) {
        let opener = self.spawn(home, Opener::spec(gate.to_owned()).own_thread()).await;
        within(LONG, "the order", opener.stop()).await.expect("the node can be reached");
    }

    /// Makes `probe` hold, and waits until its handler has begun: what is sent from now on stays in the mailbox.
    pub async fn hold(&self, probe: &ActorRef<Probe>) -> Held {
        let gate = gates::fresh_name();
        let home = self.homes.iter().position(|home| home == probe.node()).expect("it lives on a home");
        let keeper = self.keeper(home).await;
        let holding = probe.without_deadline().ask(Hold { gate: gate.clone() });
        let entered = keeper.ask(Entered { gate: gate.clone(), count: 1 });
        within(LONG, "the handler", entered).await.expect("the keeper answers");
        Held { keeper, gate, holding }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Under::Nodes(nodes) = &self.under {
            nodes.iter().for_each(|node| node.shut_down("the test is over"));
        }
    }
}

/// A probe that holds.
#[derive(Debug)]
pub struct Held {
    keeper: ActorRef<GateKeeper>,
    gate: String,
    /// The answer of the handler that holds.
    pub holding: Ask<Hold>,
}

impl Held {
    /// Lets the probe go on.
    pub async fn release(self) {
        within(LONG, "the keeper", self.keeper.ask(Open { gate: self.gate })).await.expect("the keeper answers");
        within(LONG, "the held handler", self.holding).await.expect("the handler goes on");
    }
}

/// A node of this process.
///
/// # Panics
/// If it cannot be started.
pub fn start_node(name: &str) -> Node {
    let config = NodeConfig { name: name.to_owned(), ..NodeConfig::default() };
    Node::start(config).expect("a node")
}

/// Connects two nodes of this process, on both lanes.
///
/// # Panics
/// If either does not say hello.
pub async fn connect_by_memory(one: &Node, other: &Node) {
    for lane in [Lane::Control, Lane::Data] {
        let (ours, theirs) = memory::pair(256 * 1024);
        let attached = futures::future::try_join(
            one.attach(lane, other.id().clone(), || Ok(ours)),
            other.attach(lane, one.id().clone(), || Ok(theirs)),
        );
        attached.await.expect("both sides say hello");
    }
}
