//! Several nodes in the test's own process.

use std::sync::Arc;

use mobula::{ActorRef, ActorSpec, Cluster, Node, NodeId, RemoteActor};
use mobula_actors::NodeConfig;
use mobula_transport::Lane;

use crate::clock::is_virtual;
use crate::wire::{self, Position, Switch};

/// Nodes of this process, each connected with each over the memory wire: everything between them is encoded, checked
/// and ordered as on a socket.
///
/// Connections can be [`cut`](Self::cut), nodes [`kill`](Self::kill)ed and [`restart`](Self::restart)ed. Within
/// [`virtual_time`](crate::virtual_time) the nodes live on the test's thread and clock; elsewhere each has threads of its
/// own. When it is dropped, all nodes are shut down.
#[derive(Debug)]
pub struct TestCluster {
    members: Vec<Member>,
    /// `ways[from][to]`.
    ways: Vec<Vec<Arc<Switch>>>,
}

#[derive(Debug)]
struct Member {
    node: Node,
    alive: bool,
    /// How many lives there have been.
    lives: u64,
}

impl TestCluster {
    /// Starts `nodes` nodes, named `node-0`, `node-1` and so on, and waits until each knows each.
    ///
    /// # Panics
    /// If they cannot be started or connected.
    pub async fn start(nodes: usize) -> TestCluster {
        let members = (0..nodes).map(|number| Member { node: start_node(number, 0), alive: true, lives: 1 }).collect();
        let ways = (0..nodes).map(|_| (0..nodes).map(|_| Arc::default()).collect()).collect();
        let cluster = TestCluster { members, ways };
        for number in 0..nodes {
            for other in 0..number {
                cluster.connect(number, other).await;
            }
        }
        cluster
    }

    /// How many nodes there are, those that were killed included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True if it was started with no node.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The node with this number, in its present life.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn node(&self, number: usize) -> &Node {
        &self.members[number].node
    }

    /// Its identity.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn id(&self, number: usize) -> &NodeId {
        self.node(number).id()
    }

    /// The nodes that live now as that node sees them, for code that takes a `Cluster`. One that is restarted later is not
    /// looked for again: ask for another handle.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn cluster(&self, number: usize) -> Cluster {
        let living = self.members.iter().filter(|member| member.alive);
        Cluster::over(self.node(number).clone(), living.map(|member| member.node.report()).collect())
    }

    /// Creates an actor on the node with this number. The reference is node 0's: calls to an actor of another node go
    /// over the wire.
    ///
    /// # Panics
    /// If it cannot be created.
    pub async fn spawn<A: RemoteActor>(&self, number: usize, spec: ActorSpec<A>) -> ActorRef<A> {
        match self.node(0).spawn_on(self.id(number), spec).await {
            Ok(actor) => actor,
            Err(error) => panic!("cannot spawn on {}: {error}", self.id(number)),
        }
    }

    /// A reference to `actor` as the node with this number has it: its calls come from there.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn seen_from<A: RemoteActor>(&self, number: usize, actor: &ActorRef<A>) -> ActorRef<A> {
        self.node(number).reference_to(actor)
    }

    /// From now on nothing passes between the two, in either direction. What is sent is kept, and arrives once the cut
    /// is [`heal`](Self::heal)ed; but who hears nothing for 10 s gives the other up for ever.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// From now on nothing passes from the one to the other; otherwise as [`cut`](Self::cut).
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.ways[from][to].set(Position::Cut);
    }

    /// Undoes [`cut`](Self::cut) and [`cut_one_way`](Self::cut_one_way).
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn heal(&self, one: usize, other: usize) {
        for way in [&self.ways[one][other], &self.ways[other][one]] {
            if way.position() == Position::Cut {
                way.set(Position::Open);
            }
        }
    }

    /// Ends a node as the end of its process would: its connections break without a goodbye, its actors are gone, no
    /// hook runs.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn kill(&mut self, number: usize) {
        for other in 0..self.len() {
            self.ways[number][other].set(Position::Severed);
            self.ways[other][number].set(Position::Severed);
        }
        self.members[number].node.shut_down("killed by the test");
        self.members[number].alive = false;
    }

    /// Starts the node again as another life, with the same name and another uid; kills it first if it lives. It is
    /// connected with all nodes that live, and no way to or from it is cut.
    ///
    /// # Panics
    /// If it cannot be started or connected.
    pub async fn restart(&mut self, number: usize) -> NodeId {
        self.kill(number);
        let lives = self.members[number].lives;
        self.members[number] = Member { node: start_node(number, lives), alive: true, lives: lives + 1 };
        for other in (0..self.len()).filter(|other| *other != number) {
            if self.members[other].alive {
                // New switches: those of the life before stay severed.
                self.ways[number][other] = Arc::default();
                self.ways[other][number] = Arc::default();
                self.connect(number, other).await;
            }
        }
        self.id(number).clone()
    }

    async fn connect(&self, one: usize, other: usize) {
        let (here, there) = (self.node(one), self.node(other));
        for lane in [Lane::Control, Lane::Data] {
            let (ours, theirs) = wire::pair(&self.ways[one][other], &self.ways[other][one]);
            let attached = futures::future::try_join(
                here.attach(lane, there.id().clone(), || Ok(ours)),
                there.attach(lane, here.id().clone(), || Ok(theirs)),
            );
            if let Err(error) = attached.await {
                panic!("cannot connect {} with {}: {error}", here.id(), there.id());
            }
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.members.iter().for_each(|member| member.node.shut_down("the test is over"));
    }
}

fn start_node(number: usize, life: u64) -> Node {
    let single_thread = is_virtual();
    let config = NodeConfig {
        name: format!("node-{number}"),
        single_thread,
        seed: single_thread.then_some((life << 32) | number as u64),
        ..NodeConfig::default()
    };
    Node::start(config).unwrap_or_else(|error| panic!("cannot start node-{number}: {error}"))
}
