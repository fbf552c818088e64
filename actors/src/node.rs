//! A node: the actors of one process, the threads they live on, and the links to other nodes.

use std::any::Any;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::{Actor, Context};
use futures::future::Either;
use mobula_core::{
    ActorAddress, ActorId, CallError, ExitReason, IdMap, LeaseTimes, NodeId, NodeUid, RemoteMessage, Strategy, limits,
};
use mobula_transport::{Hello, Lane, Link, LinkClosed, Returned, SessionConfig, Wire};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, oneshot, watch};

use crate::actor::{ActorSpec, Placement, RemoteActor, Routes, SpawnOptions};
use crate::actor_ref::ActorRef;
use crate::cell::Shared;
use crate::chance::Chance;
use crate::child::{ChildSpec, SupervisorSpec};
use crate::child_lease::ChildCare;
use crate::compress;
use crate::control::{self, Control, ControlReply, NodeReport, SpawnError};
use crate::dead_letter::DeadLetters;
use crate::directory::{Afterwards, DirectoryEnd};
use crate::encode_local;
use crate::expiry::Expiries;
use crate::inbound::NodeInbound;
use crate::keyed::{self, KeyedActors};
use crate::leaving::Conversations;
use crate::link::{Exit, Links};
use crate::mailbox::Order;
use crate::monitor::{End, Monitor, Watch};
use crate::placing::Lessor;
use crate::recipient::Recipient;
use crate::registry::{Registry, RegistryError};
use crate::reply::Pending;
use crate::scope::{self, Within};
use crate::sessions::Sessions;
use crate::snapshot::SnapshotHost;
use crate::spawn;
use crate::stuck::{StuckPolicy, Watchdog};
use crate::supervised::Supervised;
use crate::supervisor::{Children, Supervisor};
use crate::task::TaskRunner;
use crate::threads::{Thread, Threads};
use crate::tree::{ActorList, SupervisionTree, TreeActor};
use crate::vitals::Vitals;

/// A link between two nodes.
pub type NodeLink = Link<Pending>;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name, e.g. `node-1`.
    pub name: String,
    /// Task slots: tasks that run at the same time, each on a thread of its own.
    pub cpus: u32,
    /// Threads for actors, beside the current one if [`use_current_thread`](Self::use_current_thread) is set.
    pub arbiters: usize,
    /// Host actors on the current thread, too: it must run an actix `System` or arbiter and do nothing else.
    pub use_current_thread: bool,
    /// Start no thread: actors (those that ask for an own thread as well), tasks, links and control all run on the
    /// current one, whose clock they follow. For tests and simulations; a busy actor holds up everything, heartbeats
    /// included. `arbiters` and `use_current_thread` then mean nothing. Default false.
    pub single_thread: bool,
    /// This node's life, where somebody else has drawn it: the head of the cluster, for one. Each life needs another. Default none:
    /// it is drawn here.
    pub uid: Option<NodeUid>,
    /// Where uid and jitter come from, instead of the system's randomness: with the same seed a node does the same
    /// again. Each life of a node needs another. For tests and simulations. Default none.
    pub seed: Option<u64>,
    /// How long the node's lease with the head lasts, and when a silent peer is lost. The same on all nodes. From
    /// [`limits::LEASE_MIN`] to [`limits::LEASE_MAX`]; default 8 s.
    pub lease: LeaseTimes,
    /// Requests of one peer to this node, such as to create an actor, that may be in progress at the same time. One more is
    /// refused with [`CallError::Overloaded`]. Default [`limits::CONTROL_REQUESTS_MAX`].
    pub control_requests_max: usize,
    /// Write and read messages, answers and items between actors of this node as well, as the wire would. For tests: it
    /// finds the types that do not survive it. References stay references. Default false, or true where the environment
    /// says `MOBULA_ENCODE_LOCAL=1`.
    pub encode_local_calls: bool,
    /// Compress messages, answers and items of more bytes than this, with LZ4, on the way to nodes that do so, too: others are sent
    /// everything as it is, and so is what does not get a sixteenth shorter. Worth it where the network is slower than LZ4. Default none,
    /// or what the environment says in `MOBULA_COMPRESS_ABOVE`; [`limits::PACK_ABOVE_BYTES`] is a good number.
    pub compress_above_bytes: Option<usize>,
}

impl Default for NodeConfig {
    /// A node named `node`, with one task slot and one thread for actors.
    fn default() -> Self {
        NodeConfig {
            name: "node".to_owned(),
            cpus: 1,
            arbiters: 1,
            use_current_thread: false,
            single_thread: false,
            uid: None,
            seed: None,
            lease: LeaseTimes::default(),
            control_requests_max: limits::CONTROL_REQUESTS_MAX,
            encode_local_calls: encode_local::is_asked_for(),
            compress_above_bytes: compress::asked_above(),
        }
    }
}

/// The actors of this process and its links to others. Cheap to clone; may be used from any thread and runtime.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// A node that may have gone.
#[derive(Clone)]
pub struct WeakNode(Weak<Inner>);

impl WeakNode {
    /// The node, if there is one still.
    pub fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

struct Inner {
    hello: Hello,
    cpus: u32,
    registry: &'static Registry,
    actors: RwLock<Actors>,
    directory: Arc<DirectoryEnd>,
    keyed: KeyedActors,
    child_care: Arc<ChildCare>,
    watchdog: Arc<Watchdog>,
    next_actor: AtomicU64,
    threads: Threads,
    /// Actors on each of the arbiters.
    loads: Vec<Arc<AtomicUsize>>,
    peers: RwLock<Peers>,
    /// A link has opened, or a peer is lost.
    peers_changed: watch::Sender<()>,
    /// Ids, not references: those would keep the node, and so themselves, for ever.
    task_runners: OnceCell<Vec<ActorId>>,
    dead_letters: DeadLetters,
    encode_local_calls: bool,
    compress_above_bytes: Option<usize>,
    control_requests_max: usize,
    expiries: Arc<Expiries>,
    chance: Chance,
    links: Links,
    sessions: Sessions,
    conversations: Conversations,
    placer: OnceLock<Placer>,
    lessor: OnceLock<Arc<dyn Lessor>>,
    /// Why it is about to end, once it is.
    leaves: OnceLock<String>,
    snapshots: SnapshotHost,
    /// Ends of actors whose creators are about to monitor them.
    kept: Mutex<IdMap<u64, Watch>>,
}

/// Where an actor goes.
type Placer = Box<dyn Fn(&Placement) -> Result<NodeId, SpawnError> + Send + Sync>;

#[derive(Default)]
struct Actors {
    by_id: IdMap<u64, Arc<dyn AnyActor>>,
    /// The node is shut down: none is added any more.
    closed: bool,
}

#[derive(Default)]
struct Peers {
    links: IdMap<u64, PeerLinks>,
    lost: IdMap<u64, Loss>,
    /// They speak no version of the protocol that this node speaks.
    incompatible: IdMap<u64, String>,
    /// Processes of other jobs. None is forgotten while this node lives: what is on its way from one is judged when it comes.
    foreign: IdMap<u64, Foreign>,
}

/// What a process of another job is to this node.
#[derive(Clone, Copy, Default)]
struct Foreign {
    /// It calls actors here.
    is_guest: bool,
    /// It has actors that are called from here.
    is_host: bool,
}

/// Why a peer is lost, for ever in its life.
#[derive(Clone)]
struct Loss {
    reason: String,
    /// It lives, and nobody will ever know what became of what was said to it.
    quarantined: bool,
}

impl Loss {
    fn error(&self, node: &NodeId) -> CallError {
        let (node, reason) = (node.clone(), self.reason.clone());
        match self.quarantined {
            true => CallError::Quarantined { node, sent: false, reason },
            false => CallError::Unreachable { node, sent: false, reason },
        }
    }

    fn exit(&self) -> ExitReason {
        let reason = self.reason.clone();
        match self.quarantined {
            true => ExitReason::Quarantined { reason },
            false => ExitReason::NoConnection { reason },
        }
    }
}

struct PeerLinks {
    id: NodeId,
    data: Option<Arc<NodeLink>>,
    control: Option<Arc<NodeLink>>,
}

/// An actor of this node, its type forgotten.
pub(crate) trait AnyActor: Send + Sync {
    fn routes(&self) -> &'static Routes;
    fn order(&self, order: Order);
    fn is_over(&self) -> bool;
    /// Messages in its mailbox.
    fn waiting(&self) -> usize;
    fn end(&self) -> &End;
    fn vitals(&self) -> &Vitals;
    /// None for what is no actor of its own.
    fn in_tree(&self) -> Option<TreeActor>;
    fn supervised(&self) -> Option<&Supervised>;
    fn stuck_policy(&self) -> StuckPolicy;
    /// Declares it ended, though a turn of it holds its thread. `left` is given its place on an arbiter, if it has one. False
    /// if it has not begun, or has ended.
    fn abandon(&self, left: &mut dyn FnMut(Load)) -> bool;
    /// A linked actor has ended.
    fn exit(&self, exit: Exit);
    /// The `Arc<Shared<A>>`.
    fn as_any(&self) -> &dyn Any;
}

pub(crate) struct Hosted<A: RemoteActor>(pub(crate) Arc<Shared<A>>);

impl<A: RemoteActor> AnyActor for Hosted<A> {
    fn routes(&self) -> &'static Routes {
        Routes::of::<A>()
    }

    fn order(&self, order: Order) {
        self.0.mailbox.order(order);
    }

    fn is_over(&self) -> bool {
        self.0.mailbox.is_closed()
    }

    fn waiting(&self) -> usize {
        self.0.mailbox.waiting()
    }

    fn end(&self) -> &End {
        &self.0.end
    }

    fn vitals(&self) -> &Vitals {
        &self.0.vitals
    }

    fn in_tree(&self) -> Option<TreeActor> {
        if !self.0.has_standing() {
            return None;
        }
        Some(TreeActor {
            actor: ActorAddress { node: self.0.node.id().clone(), actor: self.0.id },
            actor_type: A::NAME.to_owned(),
            name: self.0.identity.clone(),
            generation: self.0.generation(),
            child_of: self.supervised().map(|supervised| (supervised.by.clone(), supervised.child.clone())),
            waiting: self.waiting() as u64,
        })
    }

    fn supervised(&self) -> Option<&Supervised> {
        self.0.supervised.as_deref()
    }

    fn stuck_policy(&self) -> StuckPolicy {
        self.0.stuck
    }

    fn abandon(&self, left: &mut dyn FnMut(Load)) -> bool {
        self.0.abandon(left)
    }

    fn exit(&self, exit: Exit) {
        self.0.exit(exit);
    }

    fn as_any(&self) -> &dyn Any {
        &self.0
    }
}

/// An actor's entry in its node, and what it holds in the directory.
pub(crate) struct Registration {
    node: Node,
    id: ActorId,
    over: bool,
}

impl Registration {
    /// Of an actor that is about to be. From here on whatever it holds is given back, whatever happens.
    pub(crate) fn new(node: &Node, id: ActorId) -> Self {
        Registration { node: node.clone(), id, over: false }
    }

    /// The actor can be found by its id.
    pub(crate) fn enter(&self, actor: Arc<dyn AnyActor>) -> Result<(), SpawnError> {
        let mut actors = self.node.0.actors.write();
        if actors.closed {
            return Err(SpawnError::NodeEnding);
        }
        actors.by_id.insert(self.id.0, actor);
        Ok(())
    }

    /// The actor has ended. `after` runs when nothing of it is left, here or in the directory.
    pub(crate) fn end(mut self, after: Afterwards) {
        self.over = true;
        self.give_back(Some(after));
    }

    fn give_back(&self, after: Option<Afterwards>) {
        let (node, id) = (self.node.clone(), self.id);
        // Whoever asks for the actor before its name is free must not be told that it is gone.
        let gone = Afterwards::new(move || {
            node.0.actors.write().by_id.remove(&id.0);
            node.0.child_care.ended(id);
            drop(after);
        });
        self.node.release(self.id, gone);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.over {
            self.give_back(None);
        }
    }
}

/// One actor more on an arbiter, while it lives.
pub(crate) struct Load {
    actors: Arc<AtomicUsize>,
    counts: usize,
}

/// As many as no arbiter has.
const HEAVY: usize = 1 << 28;

impl Load {
    /// It counts so much that the arbiter is not chosen while there is another.
    pub(crate) fn weigh(&mut self) {
        self.actors.fetch_add(HEAVY, Ordering::Relaxed);
        self.counts += HEAVY;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.actors.fetch_sub(self.counts, Ordering::Relaxed);
    }
}

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The executable registers something twice.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Panics end the process here, so no actor could be restarted.
    #[error("built with panic = \"abort\": a panic would end the whole process; build with panic = \"unwind\"")]
    PanicAborts,
    /// No thread, no randomness, no descriptor.
    #[error("cannot start a node: {0}")]
    Io(#[from] io::Error),
    /// With such a lease a node could not live.
    #[error("a lease of {} ms: choose one from {} ms to {} s", lease.as_millis(), limits::LEASE_MIN.as_millis(), limits::LEASE_MAX.as_secs())]
    Lease {
        /// What was asked for.
        lease: Duration,
    },
    /// The heartbeat has to come several times in a lease, and at all.
    #[error("a heartbeat every {} us for a lease of {} ms: choose at least 1 ms and at most half the lease", heartbeat.as_micros(), lease.as_millis())]
    Heartbeat {
        /// What was asked for.
        heartbeat: Duration,
        /// And the lease.
        lease: Duration,
    },
    /// Neither own arbiters nor a current one.
    #[error(
        "a node needs at least one thread for its actors: set `arbiters`, or start it on a thread of an actix System"
    )]
    NoArbiter,
}

impl Node {
    /// Starts a node. Links live on the current thread if that runs an actix `System` or arbiter, so that callers there
    /// need no other thread for an answer; else on the node's first arbiter.
    ///
    /// # Errors
    /// [`NodeError`].
    /// # Panics
    /// If it is to have no thread of its own, and the current one is not within a `LocalSet`, as an actix `System` is.
    pub fn start(config: NodeConfig) -> Result<Node, NodeError> {
        if cfg!(panic = "abort") {
            return Err(NodeError::PanicAborts);
        }
        let LeaseTimes { lease, heartbeat, .. } = config.lease;
        if !(limits::LEASE_MIN..=limits::LEASE_MAX).contains(&lease) {
            return Err(NodeError::Lease { lease });
        }
        if heartbeat < Duration::from_millis(1) || heartbeat > lease / 2 {
            return Err(NodeError::Heartbeat { heartbeat, lease });
        }
        let registry = Registry::get()?;
        let chance = Chance::new(config.seed)?;
        let threads = match config.single_thread {
            true => Threads::none()?,
            false => Threads::start(config.arbiters, config.use_current_thread)?.ok_or(NodeError::NoArbiter)?,
        };
        let expiries = Arc::<Expiries>::default();
        threads.control.spawn(Arc::clone(&expiries).serve());
        let hello = Hello {
            node: NodeId::new(&config.name, config.uid.unwrap_or_else(|| NodeUid(chance.bits()))),
            pid: std::process::id(),
            capabilities: Hello::CAPABILITIES | config.compress_above_bytes.map_or(0, |_| Hello::LZ4),
            credit_messages: limits::CREDIT_MESSAGES,
        };
        let directory = DirectoryEnd::new(&hello.node, config.lease);
        let keyed = KeyedActors::new(&hello.node);
        threads.control.spawn(Arc::clone(&directory).look_after_leases());
        let node = Node(Arc::new(Inner {
            hello,
            cpus: config.cpus.max(1),
            registry,
            actors: RwLock::default(),
            directory,
            keyed,
            child_care: ChildCare::new(config.lease),
            watchdog: Watchdog::new(config.single_thread),
            next_actor: AtomicU64::new(1),
            loads: threads.arbiters.iter().map(|_| Arc::default()).collect(),
            threads,
            peers: RwLock::default(),
            peers_changed: watch::Sender::new(()),
            task_runners: OnceCell::new(),
            dead_letters: DeadLetters::default(),
            encode_local_calls: config.encode_local_calls,
            compress_above_bytes: config.compress_above_bytes,
            control_requests_max: config.control_requests_max.max(1),
            expiries,
            chance,
            links: Links::default(),
            sessions: Sessions::default(),
            conversations: Conversations::default(),
            placer: OnceLock::new(),
            lessor: OnceLock::new(),
            leaves: OnceLock::new(),
            snapshots: SnapshotHost::default(),
            kept: Mutex::default(),
        }));
        node.control_runtime().spawn(Arc::clone(node.child_care()).look_after_children(node.downgrade()));
        node.control_runtime().spawn(Arc::clone(node.watchdog()).watch(node.downgrade()));
        scope::set_default_node(Some(node.clone()));
        Ok(node)
    }

    /// Who this is.
    pub fn id(&self) -> &NodeId {
        &self.0.hello.node
    }

    /// What this node says of itself on a new connection.
    pub fn hello(&self) -> &Hello {
        &self.0.hello
    }

    /// The runtime on which the node itself works: heartbeats, handshakes, requests to the node. Never an arbiter, so
    /// that a busy actor does not make its node look dead.
    pub fn control_runtime(&self) -> &Handle {
        &self.0.threads.control
    }

    /// Runs `work` on the thread where data links are read, beside their callers.
    pub fn spawn_at_home(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.threads.home.spawn(work);
    }

    /// Creates an actor here and waits until it has started.
    ///
    /// # Cancel safety
    /// Dropping the future ends the actor again, if it has come to be: nobody would know it.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub async fn spawn<A: RemoteActor>(&self, spec: ActorSpec<A>) -> Result<ActorRef<A>, SpawnError> {
        let shared = spawn::spawn::<A>(self, spec.args, spec.options).await?;
        Ok(ActorRef::near(shared))
    }

    /// Creates an actor on `node`, here or elsewhere, and waits until it has started.
    ///
    /// # Cancel safety
    /// As for [`spawn`](Self::spawn); so does a deadline that passes before the answer comes.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub async fn spawn_on<A: RemoteActor>(&self, node: &NodeId, spec: ActorSpec<A>) -> Result<ActorRef<A>, SpawnError> {
        if node == self.id() {
            return self.spawn(spec).await;
        }
        let args = mobula_core::codec::encode(&spec.args)
            .map_err(|error| SpawnError::Call(CallError::Encode { reason: error.to_string(), reply: false }))?;
        let control = Control::Spawn { actor_type: A::NAME.to_owned(), schema: A::SCHEMA, args, options: spec.options };
        match self.request(node, control).await? {
            ControlReply::Spawned(spawned) => Ok(ActorRef::far(node.clone(), spawned?, Some(self.clone()))),
            _ => Err(unexpected().into()),
        }
    }

    /// As [`spawn_on`](Self::spawn_on), with a monitor that is in force before the actor begins: however early it ends,
    /// the monitor tells the reason.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub async fn spawn_monitor<A: RemoteActor>(
        &self,
        node: &NodeId,
        mut spec: ActorSpec<A>,
    ) -> Result<(ActorRef<A>, Monitor), SpawnError> {
        spec.options.keep_end = true;
        let spawned = self.spawn_on(node, spec).await?;
        let monitor = if node == self.id() {
            let kept = self.take_kept(spawned.id());
            let watch = kept.unwrap_or_else(|| Watch::of(self.actor(spawned.id()).as_ref()));
            Monitor::near(node.clone(), spawned.id(), watch)
        } else {
            let end = Control::AwaitEnd { actor: spawned.id(), kept: true };
            let asked = self.link(node, spawned.id()).map(|link| control::request_for_ever(&link, &end));
            Monitor::far(node.clone(), spawned.id(), asked)
        };
        Ok((spawned, monitor))
    }

    /// As [`spawn_on`](Self::spawn_on), with a [link](ActorRef::link) between the new actor and `with` that is in force
    /// before the new actor begins. An actor that fails to start does not end `with`.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub async fn spawn_link<A: RemoteActor, B: Actor<Context = Context<B>>>(
        &self,
        node: &NodeId,
        mut spec: ActorSpec<A>,
        with: &ActorRef<B>,
    ) -> Result<ActorRef<A>, SpawnError> {
        spec.options.link = Some(with.address());
        self.spawn_on(node, spec).await
    }

    /// The control link to `node`, or why there is none.
    pub(crate) fn control_link_to(&self, node: &NodeId) -> Result<Arc<NodeLink>, CallError> {
        self.control_link(node).ok_or_else(|| self.unreachable(node))
    }

    /// Says where actors go that their supervisors do not want beside them: set by whoever knows the cluster's nodes.
    pub fn set_placer(&self, placer: impl Fn(&Placement) -> Result<NodeId, SpawnError> + Send + Sync + 'static) {
        // The first holds: a process is a node of one cluster.
        let _ = self.0.placer.set(Box::new(placer));
    }

    /// Where a supervisor's child goes.
    pub(crate) fn place(&self, placement: &Placement) -> Result<NodeId, SpawnError> {
        match (placement, self.0.placer.get()) {
            (Placement::Default, _) => Ok(self.id().clone()),
            (Placement::Node(node), _) => Ok(node.clone()),
            (_, Some(placer)) => placer(placement),
            (_, None) => Ok(self.id().clone()),
        }
    }

    pub(crate) async fn spawn_encoded(
        &self,
        node: &NodeId,
        actor_type: String,
        schema: u64,
        args: Vec<u8>,
        options: SpawnOptions,
    ) -> Result<ActorId, SpawnError> {
        let control = Control::Spawn { actor_type, schema, args, options };
        match self.request(node, control).await? {
            ControlReply::Spawned(spawned) => spawned,
            _ => Err(unexpected().into()),
        }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.0.links
    }

    /// Keeps the end of `actor` until it is [taken](Self::take_kept), as long as anybody may wait for the spawn.
    pub(crate) fn keep_end(&self, actor: ActorId) {
        let watch = Watch::of(self.actor(actor).as_ref());
        self.0.kept.lock().insert(actor.0, watch);
        let node = Arc::downgrade(&self.0);
        self.control_runtime().spawn(async move {
            tokio::time::sleep(limits::ASK_DEADLINE).await;
            let forgotten = node.upgrade().and_then(|node| node.kept.lock().remove(&actor.0));
            drop(forgotten);
        });
    }

    pub(crate) fn take_kept(&self, actor: ActorId) -> Option<Watch> {
        self.0.kept.lock().remove(&actor.0)
    }

    /// The task actors of `node`, started if they were not.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub async fn task_runners_of(&self, node: &NodeId) -> Result<Vec<ActorRef<TaskRunner>>, SpawnError> {
        match self.request(node, Control::TaskRunners).await? {
            ControlReply::TaskRunners(runners) => {
                Ok(runners?.into_iter().map(|actor| self.reference(node, actor)).collect())
            }
            _ => Err(unexpected().into()),
        }
    }

    /// What `node` says about itself.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    pub async fn report_of(&self, node: &NodeId) -> Result<NodeReport, CallError> {
        match self.request(node, Control::Report).await? {
            ControlReply::Report(report) => Ok(report),
            _ => Err(unexpected()),
        }
    }

    /// The actors of `node`, those that began first, `limit` at most and never more than [`limits::TREE_ACTORS_MAX`].
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    pub async fn actors_of(&self, node: &NodeId, limit: usize) -> Result<ActorList, CallError> {
        match self.request(node, Control::Actors { limit }).await? {
            ControlReply::Actors(list) => Ok(list),
            _ => Err(unexpected()),
        }
    }

    /// The trees of supervisors of `node`.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    pub async fn tree_of(&self, node: &NodeId) -> Result<SupervisionTree, CallError> {
        match self.request(node, Control::Tree).await? {
            ControlReply::Tree(tree) => Ok(tree),
            _ => Err(unexpected()),
        }
    }

    /// Attaches a connection to `peer`, which the handshake has proven. `wire` is called where the connection will be
    /// read. Waits for the peer's hello.
    ///
    /// # Errors
    /// [`LinkClosed`] if the connection ends first.
    pub async fn attach(
        &self,
        lane: Lane,
        peer: NodeId,
        wire: impl FnOnce() -> io::Result<Wire> + Send + 'static,
    ) -> Result<Arc<NodeLink>, LinkClosed> {
        let (made, link) = oneshot::channel();
        let node = self.clone();
        let claimed = peer.clone();
        let open = move || {
            let wire = wire().map_err(|error| error.to_string())?;
            let inbound = NodeInbound::new(node.clone(), lane);
            let times = node.directory_end().times();
            let config = SessionConfig {
                heartbeat_interval: times.heartbeat,
                down_after: times.down_after(),
                // Without it, this node has not announced that it packs.
                pack_above_bytes: node.0.compress_above_bytes.unwrap_or(limits::PACK_ABOVE_BYTES),
                ..SessionConfig::new(lane)
            };
            let (link, driver) = NodeLink::open(wire, config, node.hello(), claimed, inbound);
            // Before anything is read: the connection may break at its first byte.
            node.0.sessions.enter(&link);
            Ok::<_, String>((link, Within::new(node, driver)))
        };
        match lane {
            Lane::Data => {
                self.0.threads.home.spawn_fn(move || {
                    let opened = open().map(|(link, driver)| {
                        actix_rt::spawn(driver);
                        link
                    });
                    let _ = made.send(opened);
                });
            }
            Lane::Control => {
                self.0.threads.control.spawn(async move {
                    match open() {
                        Ok((link, driver)) => {
                            let _ = made.send(Ok(link));
                            driver.await;
                        }
                        Err(error) => drop(made.send(Err(error))),
                    }
                });
            }
        }
        let failed = |reason: String| LinkClosed { peer: peer.clone(), reason, quarantined: false };
        let link = link.await.unwrap_or_else(|_| Err("the node is shutting down".to_owned())).map_err(failed)?;
        link.opened().await?;
        Ok(link)
    }

    /// Waits until `peer`, to which there are links, has met this node on both lanes: whoever is told there of an actor here reaches it then.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn greet(&self, peer: &NodeId) -> Result<(), CallError> {
        let data = self.data_link(peer).ok_or_else(|| self.unreachable(peer))?;
        for link in [self.control_link_to(peer)?, data] {
            // What comes back over a link was asked after its hello.
            control::request(&link, &Control::Report).await?;
        }
        Ok(())
    }

    /// The life `dialer` has proven who it is and comes back to a session whose connection broke.
    ///
    /// # Errors
    /// With the connection handed back, and the reason for which it is to be refused: there is no such session here, or
    /// not any more.
    pub fn come_back(&self, dialer: NodeUid, returned: Returned) -> Result<(), (Returned, String)> {
        let lost = self.0.peers.read().lost.get(&dialer.0).map(|loss| loss.reason.clone());
        match (self.0.sessions.find(returned.resume.session), lost) {
            (_, Some(reason)) => Err((returned, format!("this life of the node is down for ever: {reason}"))),
            (Some(link), None) if link.peer().uid == dialer => {
                link.come_back(returned).map_err(|returned| (returned, "the session has ended".to_owned()))
            }
            _ => Err((returned, "there is no such session here".to_owned())),
        }
    }

    /// The peer with this life is a process of another job, which may call actors here and ask for nothing else. To be said before
    /// it is [attached](Self::attach).
    pub fn admit_guest(&self, peer: NodeUid) {
        self.0.peers.write().foreign.entry(peer.0).or_default().is_guest = true;
    }

    /// The peer with this life is a process of another job, whose guest this node is: it too may call actors that it knows, and ask for nothing else.
    /// To be said before it is [attached](Self::attach).
    pub fn admit_host(&self, peer: NodeUid) {
        self.0.peers.write().foreign.entry(peer.0).or_default().is_host = true;
    }

    /// True if the peer may have this node do that: one of another job may do little.
    pub(crate) fn may_ask(&self, peer: NodeUid, control: &Control) -> bool {
        match self.0.peers.read().foreign.get(&peer.0) {
            None => true,
            Some(Foreign { is_guest: true, .. }) => control.is_for_guests(),
            Some(_) => control.is_for_guests() && !matches!(control, Control::Guest(_)),
        }
    }

    /// True once `peer` can be called, false if it is lost before that or this node has gone, which the future does not keep.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub fn connected(&self, peer: &NodeId) -> impl Future<Output = bool> + Send + 'static {
        let mut changes = self.0.peers_changed.subscribe();
        let (node, peer) = (self.downgrade(), peer.clone());
        async move {
            loop {
                let Some(here) = node.upgrade() else { return false };
                if here.is_lost(peer.uid) {
                    return false;
                }
                if peer == *here.id() || (here.data_link(&peer).is_some() && here.control_link(&peer).is_some()) {
                    return true;
                }
                drop(here);
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        }
    }

    /// The peer at the other end of `link` has said who it is. Known from here on, before its first message is handled:
    /// that may bring references back to the peer.
    pub(crate) fn peer_found(&self, lane: Lane, peer: &NodeId, link: &Arc<NodeLink>) {
        let mut peers = self.0.peers.write();
        if peers.lost.contains_key(&peer.uid.0) {
            drop(peers);
            return link.goodbye("this life of the node is down for ever");
        }
        let links = peers.links.entry(peer.uid.0).or_insert(PeerLinks { id: peer.clone(), data: None, control: None });
        // The first link stays the one to use: what is sent keeps its order.
        match lane {
            Lane::Data => links.data.get_or_insert_with(|| Arc::clone(link)),
            Lane::Control => links.control.get_or_insert_with(|| Arc::clone(link)),
        };
        drop(peers);
        // After the entry: whoever says it to all has found the link, or has said it before.
        if let Some(reason) = self.0.leaves.get() {
            link.go_away(reason);
        }
        if lane == Lane::Control {
            self.0.directory.peer_found(peer);
        }
        self.0.peers_changed.send_replace(());
    }

    /// The name and life of the node at the other end of a link.
    pub(crate) fn peer_of(&self, link: &NodeLink) -> NodeId {
        self.peer_named(link.peer()).unwrap_or_else(|| link.peer().clone())
    }

    /// A connected peer under the name that it gave itself.
    pub(crate) fn peer_named(&self, peer: &NodeId) -> Option<NodeId> {
        self.0.peers.read().links.get(&peer.uid.0).map(|links| links.id.clone())
    }

    /// Ends of [links](ActorRef::link) that stand at actors of this node.
    pub fn linked(&self) -> usize {
        self.0.links.len()
    }

    /// The link over which messages to `peer` go.
    pub fn data_link(&self, peer: &NodeId) -> Option<Arc<NodeLink>> {
        self.0.peers.read().links.get(&peer.uid.0).and_then(|links| links.data.clone())
    }

    /// The link over which this node and `peer` hear each other's heartbeats.
    pub fn control_link(&self, peer: &NodeId) -> Option<Arc<NodeLink>> {
        self.0.peers.read().links.get(&peer.uid.0).and_then(|links| links.control.clone())
    }

    /// This node and its control link to `peer`, as soon as there is one. None if `peer` is lost before that, or this node
    /// has gone, which the future does not keep.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub fn control_link_opened(
        &self,
        peer: &NodeId,
    ) -> impl Future<Output = Option<(Node, Arc<NodeLink>)>> + Send + 'static {
        let mut changes = self.0.peers_changed.subscribe();
        let (node, peer) = (self.downgrade(), peer.clone());
        async move {
            loop {
                {
                    let node = node.upgrade()?;
                    let peers = node.0.peers.read();
                    if peers.lost.contains_key(&peer.uid.0) {
                        return None;
                    }
                    let link = peers.links.get(&peer.uid.0).and_then(|links| links.control.clone());
                    drop(peers);
                    if let Some(link) = link {
                        return Some((node, link));
                    }
                }
                changes.changed().await.ok()?;
            }
        }
    }

    /// Says to all peers, also to those that connect later, that this node is about to end on purpose: it is to be followed by
    /// [`shut_down`](Self::shut_down) when what is in progress has had its time.
    ///
    /// From then on other nodes' calls to actors here fail at once with [`CallError::Unreachable`], as not sent, and their spawns
    /// with [`SpawnError::NodeEnding`]. What they have sent before is handled and answered, and calls from here go on. Peers
    /// of older builds are not told.
    pub fn go_away(&self, reason: &str) {
        if self.0.leaves.set(reason.to_owned()).is_err() {
            return;
        }
        self.data_links().iter().for_each(|link| link.go_away(reason));
    }

    /// The links over which messages go.
    pub(crate) fn data_links(&self) -> Vec<Arc<NodeLink>> {
        self.0.peers.read().links.values().filter_map(|links| links.data.clone()).collect()
    }

    pub(crate) fn conversations(&self) -> &Conversations {
        &self.0.conversations
    }

    /// True if messages wait in a mailbox.
    pub(crate) fn any_mail(&self) -> bool {
        let actors: Vec<_> = self.0.actors.read().by_id.values().cloned().collect();
        actors.iter().any(|actor| actor.waiting() > 0)
    }

    /// True once the node [goes away](Self::go_away).
    pub fn is_leaving(&self) -> bool {
        self.0.leaves.get().is_some()
    }

    /// Ends all links with a goodbye, and all actors of this node without running their hooks. Later spawns here fail
    /// with [`SpawnError::NodeEnding`].
    pub fn shut_down(&self, reason: &str) {
        let links: Vec<_> =
            self.0.peers.write().links.drain().flat_map(|(_, links)| [links.data, links.control]).collect();
        for link in links.into_iter().flatten() {
            link.goodbye(reason);
        }
        let actors: Vec<_> = {
            let mut actors = self.0.actors.write();
            actors.closed = true;
            actors.by_id.values().cloned().collect()
        };
        for actor in actors {
            actor.order(Order::Discard);
        }
        // Ends what else refers to this node.
        scope::forget_default_node(self);
    }

    /// What this node says about itself.
    pub fn report(&self) -> NodeReport {
        NodeReport {
            node: self.id().clone(),
            pid: self.0.hello.pid,
            cpus: self.0.cpus,
            actors: self.0.actors.read().by_id.len() as u64,
            dead_letters: self.0.dead_letters.count(),
        }
    }

    /// A number from 0 to 1, from this node's randomness: where in its bounds a rest falls, so that crowds disperse.
    pub fn jitter(&self) -> f64 {
        self.0.chance.fraction()
    }

    pub(crate) fn snapshots(&self) -> &SnapshotHost {
        &self.0.snapshots
    }

    pub(crate) fn lessor_slot(&self) -> &OnceLock<Arc<dyn Lessor>> {
        &self.0.lessor
    }

    pub(crate) fn chance(&self) -> &Chance {
        &self.0.chance
    }

    pub(crate) fn control_requests_max(&self) -> usize {
        self.0.control_requests_max
    }

    pub(crate) fn encodes_local_calls(&self) -> bool {
        self.0.encode_local_calls
    }

    pub(crate) fn dead_letters(&self) -> &DeadLetters {
        &self.0.dead_letters
    }

    pub(crate) fn expiries(&self) -> &Expiries {
        &self.0.expiries
    }

    pub(crate) fn registry(&self) -> &'static Registry {
        self.0.registry
    }

    pub(crate) fn is(&self, other: &Node) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn next_actor_id(&self) -> ActorId {
        ActorId(self.0.next_actor.fetch_add(1, Ordering::Relaxed))
    }

    /// A handle that does not keep the node.
    pub fn downgrade(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.0))
    }

    pub(crate) fn directory_end(&self) -> &Arc<DirectoryEnd> {
        &self.0.directory
    }

    /// The times of its lease, and of its heartbeats.
    pub fn lease_times(&self) -> LeaseTimes {
        self.0.directory.times()
    }

    /// True once it is shut down.
    pub fn is_closed(&self) -> bool {
        self.0.actors.read().closed
    }

    pub(crate) fn child_care(&self) -> &Arc<ChildCare> {
        &self.0.child_care
    }

    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.0.watchdog
    }

    pub(crate) fn keyed(&self) -> &KeyedActors {
        &self.0.keyed
    }

    /// False if everything runs on the thread on which the node was started, see [`NodeConfig::single_thread`].
    pub(crate) fn has_threads(&self) -> bool {
        !self.0.threads.is_none()
    }

    /// True if the node with this uid is down, as far as this one knows.
    pub(crate) fn is_lost(&self, node: NodeUid) -> bool {
        self.0.peers.read().lost.contains_key(&node.0)
    }

    pub(crate) fn actor(&self, id: ActorId) -> Option<Arc<dyn AnyActor>> {
        if keyed::is_gate(id) {
            return self.gate(id);
        }
        self.0.actors.read().by_id.get(&id.0).cloned()
    }

    pub(crate) fn actors(&self) -> Vec<Arc<dyn AnyActor>> {
        self.0.actors.read().by_id.values().cloned().collect()
    }

    pub(crate) fn local<A: RemoteActor>(&self, id: ActorId) -> Option<Arc<Shared<A>>> {
        self.actor(id)?.as_any().downcast_ref::<Arc<Shared<A>>>().cloned()
    }

    /// A recipient that is the actor itself, if it takes `M`.
    pub(crate) fn recipient<M: RemoteMessage>(&self, id: ActorId) -> Option<Recipient<M>> {
        let actor = self.actor(id)?;
        actor.routes().recipient(actor.as_any())
    }

    pub(crate) fn least_loaded_arbiter(&self) -> (Thread, Load) {
        let loads = self.0.threads.arbiters.iter().zip(&self.0.loads);
        let (arbiter, load) = match loads.min_by_key(|(_, load)| load.load(Ordering::Relaxed)) {
            Some((arbiter, load)) => (arbiter.clone(), Arc::clone(load)),
            // `start` refuses a node without arbiters.
            None => (self.0.threads.home.clone(), Arc::default()),
        };
        load.fetch_add(1, Ordering::Relaxed);
        (arbiter, Load { actors: load, counts: 1 })
    }

    pub(crate) async fn own_thread(&self) -> Result<Thread, SpawnError> {
        self.0.threads.start_own().await.map_err(|error| SpawnError::NoThread { reason: error.to_string() })
    }

    pub(crate) async fn task_runners(&self) -> Result<Vec<ActorId>, SpawnError> {
        let runners = self
            .0
            .task_runners
            .get_or_try_init(|| async {
                // Task actors are supervised as all others are, and stand in the same tree.
                let mut spec = SupervisorSpec::new(Strategy::OneForOne);
                // A task takes as long as it takes.
                let runner = TaskRunner::spec(()).own_thread().stuck_after(Duration::MAX);
                for number in 1..=self.0.cpus {
                    spec = spec.child(ChildSpec::new(format!("task-{number}"), runner.clone()));
                }
                let (supervisor, ended) = self.spawn_monitor(self.id(), Supervisor::spec(spec)).await?;
                let children = supervisor.ask(Children { settled: true });
                let children = match futures::future::select(children, ended).await {
                    Either::Left((children, _)) => children?,
                    Either::Right((down, _)) => return Err(SpawnError::Ended { reason: down.reason }),
                };
                Ok::<_, SpawnError>(children.into_iter().filter_map(|child| Some(child.actor?.actor)).collect())
            })
            .await?;
        Ok(runners.clone())
    }

    /// The data link to the node that hosts `actor`, or why there is none.
    pub(crate) fn link(&self, node: &NodeId, actor: ActorId) -> Result<Arc<NodeLink>, CallError> {
        if node == self.id() {
            // References to live actors here are local ones.
            return Err(CallError::NoSuchActor { actor });
        }
        if let Some(link) = self.data_link(node) {
            return Ok(link);
        }
        Err(self.unreachable(node))
    }

    /// A link has ended. That is the end of its peer, unless it was a second one that nobody used.
    pub(crate) fn link_ended(&self, lane: Lane, link: &Arc<NodeLink>, reason: &str) {
        let in_use = match lane {
            Lane::Data => self.data_link(link.peer()),
            Lane::Control => self.control_link(link.peer()),
        };
        if in_use.is_some_and(|in_use| Arc::ptr_eq(&in_use, link)) {
            match link.end_of() {
                Some(closed) if closed.quarantined => self.peer_quarantined(link.peer(), reason),
                _ => self.peer_lost(link.peer(), reason),
            }
        }
        self.0.sessions.forget(link);
    }

    /// Declares a peer dead: its process is known to have ended. As [`peer_lost`](Self::peer_lost), and if this node is
    /// the head, the names of the peer's actors are free at once.
    pub fn peer_dead(&self, peer: &NodeId, reason: &str) {
        self.0.directory.peer_dead(peer.uid);
        self.peer_lost(peer, reason);
    }

    /// Declares a peer lost, for ever in this life: its connection is gone, or it fell silent. What waits for it fails
    /// now. It may still be alive, so its actors keep their names until its lease is over.
    pub fn peer_lost(&self, peer: &NodeId, reason: &str) {
        self.lose(peer, Loss { reason: reason.to_owned(), quarantined: false });
    }

    /// Declares a peer quarantined, for ever in this life: it lives, and what was under way between the two will never be
    /// known. As [`peer_lost`](Self::peer_lost), but that calls and monitors are told [`CallError::Quarantined`] and
    /// [`ExitReason::Quarantined`].
    pub fn peer_quarantined(&self, peer: &NodeId, reason: &str) {
        self.lose(peer, Loss { reason: reason.to_owned(), quarantined: true });
    }

    fn lose(&self, peer: &NodeId, loss: Loss) {
        self.0.directory.peer_lost(peer.uid);
        let links = {
            let mut peers = self.0.peers.write();
            // Guests come and go as long as this node lives, and none comes back by itself: no reason is kept for each.
            if !peers.foreign.get(&peer.uid.0).is_some_and(|foreign| foreign.is_guest) {
                peers.lost.entry(peer.uid.0).or_insert_with(|| loss.clone());
            }
            peers.links.remove(&peer.uid.0)
        };
        self.0.peers_changed.send_replace(());
        let Some(links) = links else { return };
        let reason = &loss.reason;
        tracing::info!(node = %self.id(), %peer, reason, quarantined = loss.quarantined, "peer lost");
        // Without heartbeats data is not trusted, and without data heartbeats mean nothing.
        for link in [links.data, links.control].into_iter().flatten() {
            // So that the peer, if it lives, knows that this is no break.
            match loss.quarantined {
                true => link.quarantine(reason),
                false => link.goodbye(reason),
            }
        }
        self.0.links.node_lost(self, peer, &loss.exit());
        self.0.child_care.lost(peer);
        for actor in self.actors() {
            if let Some(supervised) = actor.supervised().filter(|supervised| supervised.by.node == *peer) {
                actor.order(supervised.orphaned());
            }
        }
    }

    /// Connecting to this life of a peer has failed, since the two builds speak no version of the protocol in common: calls to
    /// it fail with [`CallError::VersionIncompatible`] and this `reason`.
    pub fn peer_incompatible(&self, peer: &NodeId, reason: &str) {
        self.0.peers.write().incompatible.insert(peer.uid.0, reason.to_owned());
    }

    pub(crate) fn unreachable(&self, node: &NodeId) -> CallError {
        let peers = self.0.peers.read();
        if let Some(reason) = peers.incompatible.get(&node.uid.0) {
            return CallError::VersionIncompatible { node: node.clone(), reason: reason.clone() };
        }
        if let Some(loss) = peers.lost.get(&node.uid.0) {
            return loss.error(node);
        }
        // Others have names of another job.
        let mut own = peers.links.iter().filter(|(uid, _)| !peers.foreign.contains_key(uid));
        if own.any(|(_, links)| links.id.name == node.name) || node.name == self.id().name {
            return CallError::StaleIncarnation { node: node.clone() };
        }
        CallError::Unreachable { node: node.clone(), sent: false, reason: "no connection to it".to_owned() }
    }

    /// A reference to the same actor as this node has it: near if the actor lives here, else over this node's
    /// connections. Makes a difference in processes with more than one node.
    pub fn reference_to<A: RemoteActor>(&self, actor: &ActorRef<A>) -> ActorRef<A> {
        self.reference(actor.node(), actor.id())
    }

    pub(crate) fn reference<A: RemoteActor>(&self, node: &NodeId, actor: ActorId) -> ActorRef<A> {
        match self.local::<A>(actor) {
            Some(shared) if node == self.id() => ActorRef::near(shared),
            _ => ActorRef::far(node.clone(), actor, Some(self.clone())),
        }
    }

    pub(crate) async fn request(&self, node: &NodeId, control: Control) -> Result<ControlReply, CallError> {
        if node == self.id() {
            return Ok(control::perform(self, node, control).await);
        }
        let Some(link) = self.control_link(node) else { return Err(self.unreachable(node)) };
        match control {
            Control::Spawn { .. } => control::create(&link, &control).await,
            _ => control::request(&link, &control).await,
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.id())
    }
}

pub(crate) fn unexpected() -> CallError {
    CallError::Decode { reason: "the node answered another question".to_owned(), reply: true }
}
