//! The handle to a cluster.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::Stream;
use mobula_actors::{
    ActorList, ActorRef, ActorSpec, DeadLetter, Group, KeyedActor, KeyedRef, LeaseAnswer, LeaseRequest, Monitor, Node,
    NodeConfig, NodeReport, NodeResources, PlacementError, RemoteActor, RemoteTask, Seat, SpawnError, StuckActor,
    SupervisionTree, TaskSpec,
};
use mobula_control::ControlError;
use mobula_core::cluster::{GroupStrategy, Resources};
use mobula_core::{CallError, NodeId, RemoteMessage};
use mobula_transport::preface::Secret;
use parking_lot::{Mutex, RwLock};

use crate::builder::ClusterBuilder;
use crate::driver::{self, Driver, Wanted};
use crate::error::ClusterError;
use crate::handover::ToNode;
use crate::keepers::{self, Keepers};
use crate::leases::{self, Leases, PlacementGroup};
use crate::members::{Members, NodeInfo};
use crate::node_events::NodeEvents;
use crate::node_process::node_info;
use crate::own_processes::{OwnProcesses, Recipe};
use crate::peers;
use crate::process::NodeProcess;
use crate::task_pool::{ObjectRef, TaskPool};
use crate::watch;

/// A cluster, as one process sees it. Cheap to clone; may be used from any thread and runtime.
///
/// When the last handle of the driver is dropped, or the driver ends in any other way, node processes that it started
/// end, too.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    node: Node,
    members: Arc<Mutex<Members>>,
    tasks: TaskPool,
    processes: Vec<NodeProcess>,
    /// Those for one actor each.
    own: Option<Arc<OwnProcesses>>,
    /// On a running cluster: this process as the driver of a job.
    driver: Option<Driver>,
    keepers: Keepers,
    /// False where the node outlives the handle: in a node process.
    owns_node: bool,
}

/// Who gives the resources of a new cluster's actors.
enum Leasing {
    /// A head in this process, for nodes that others start.
    Embedded,
    /// The same, for nodes that this process starts, and processes for one actor.
    OwnProcesses(Arc<OwnProcesses>),
    /// The head of a running cluster, for the job of this driver.
    Running(Driver, leases::Running),
}

/// A cluster, for as long as others keep it.
#[derive(Clone)]
pub(crate) struct WeakCluster(Weak<Inner>);

impl WeakCluster {
    pub(crate) fn upgrade(&self) -> Option<Cluster> {
        self.0.upgrade().map(Cluster)
    }
}

/// The cluster that this process is a node of.
static CURRENT: RwLock<Option<Cluster>> = RwLock::new(None);

pub(crate) fn set_current(cluster: Cluster) {
    *CURRENT.write() = Some(cluster);
}

/// How long [`Cluster::shutdown`] waits for node processes to be reaped.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

impl Cluster {
    /// The cluster that this process belongs to. A program that was started by hand becomes the driver of a new job on the running cluster of
    /// this user on this host, or else on the one that this user has logged in to (`mobula login`), whose nodes then run this very executable as
    /// workers; if there is neither, it gets a cluster inside this process: no socket is opened, and values are handed over, not encoded.
    ///
    /// `MOBULA_ADDRESS` says otherwise: `HOST:PORT`, several with commas, is where the heads of a cluster are that this user has logged in to, a word the name
    /// of such a login; `auto` wants the running cluster of this host, `local` wants none, and an absolute path is the home of the node to ask.
    ///
    /// From a host that is no node, the driver connects to the port of each node, at the address by which the nodes reach each other, and again when a
    /// connection breaks. Nobody connects to it: it needs no open port, and may be behind a firewall or address translation. Its executable is that of the
    /// workers, so it has to be one that the nodes can run.
    ///
    /// When the last handle is dropped or the process ends in any other way, the job is over, and its workers end.
    ///
    /// # Errors
    /// [`ClusterError`]. Not cancel-safe: a job may have begun, which ends with this process.
    pub async fn connect() -> Result<Cluster, ClusterError> {
        match Self::running().await? {
            Some(running) => Ok(running),
            None => Self::embedded(&Self::builder()),
        }
    }

    /// The running cluster that [`connect`](Self::connect) would join, if there is one.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn running() -> Result<Option<Cluster>, ClusterError> {
        Self::running_as(&Self::builder()).await
    }

    /// The running cluster that the builder or the environment says, if there is one.
    pub(crate) async fn running_as(builder: &ClusterBuilder) -> Result<Option<Cluster>, ClusterError> {
        if let Some(current) = CURRENT.read().clone() {
            return Ok(Some(current));
        }
        match driver::wanted(builder.address.as_deref()).await? {
            Wanted::This(target) => Driver::connect(builder, target).await.map(Some),
            Wanted::There(target, renewal) => {
                let cluster = Driver::connect(builder, target).await?;
                // The driver has a certificate of its own, but not for what the login alone may ask.
                cluster.node().control_runtime().spawn(renewal.keep());
                Ok(Some(cluster))
            }
            Wanted::Maybe(target) => match Driver::connect(builder, target).await {
                Err(ClusterError::Control(ControlError::NoneHere { .. })) => Ok(None),
                connected => connected.map(Some),
            },
            Wanted::Embedded => Ok(None),
        }
    }

    /// A new cluster of `nodes` processes of this executable, on loopback, which all end with this process.
    ///
    /// Links are read on the current thread if it runs an actix `System`, as under `run_main`, so that an answer needs no
    /// other thread to reach its caller. Code there that computes without awaiting holds up what is sent and answered.
    ///
    /// # Errors
    /// [`ClusterError`]; what had been started is ended.
    pub async fn local(nodes: usize) -> Result<Cluster, ClusterError> {
        Self::builder().nodes(nodes).connect().await
    }

    /// Options first, then [`connect`](ClusterBuilder::connect).
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// Calls `hook` for each tell from this process that reached no handler; see [`Node::on_dead_letter`].
    pub fn on_dead_letter(&self, hook: impl Fn(DeadLetter) + Send + Sync + 'static) {
        self.0.node.on_dead_letter(hook);
    }

    pub(crate) fn embedded(builder: &ClusterBuilder) -> Result<Cluster, ClusterError> {
        let cpus = builder.cpus()?;
        let arbiters = builder.arbiters(cpus as usize)?;
        let lease = builder.lease_times()?;
        let encode_local_calls = builder.encode_local_calls;
        let name = "node-0".to_owned();
        let config = NodeConfig { name, cpus, arbiters, lease, encode_local_calls, ..NodeConfig::default() };
        let store = builder.snapshots.as_deref().map(mobula_snapshots::open).transpose()?;
        let node = Node::start(config)?;
        if let Some(store) = store {
            node.set_snapshot_store(store);
        }
        let mut info = NodeInfo::new(node.id().clone(), std::process::id(), None, cpus);
        (info.resources, info.labels) = builder.gives(0, cpus)?;
        Ok(Self::new(node, vec![info], Vec::new(), true))
    }

    pub(crate) async fn start_local(builder: &ClusterBuilder, nodes: usize) -> Result<Cluster, ClusterError> {
        let (cpus, arbiters) = (builder.cpus()?, builder.arbiters(1)?);
        let gives: Vec<_> = (1..=nodes).map(|number| builder.gives(number, cpus)).collect::<Result<_, _>>()?;
        builder.port(nodes - 1)?;
        if let Some(url) = builder.snapshots.as_deref().filter(|url| mobula_snapshots::is_of_one_process(url)) {
            return Err(ClusterError::Unsupported(format!(
                "`{url}` is in the memory of one process, and this cluster has several: give a file:// that all reach"
            )));
        }
        let executable = match &builder.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        };
        let secret = Secret::random().map_err(std::io::Error::from)?;
        let lease = builder.lease_times()?;
        let (encode_local_calls, compress_above_bytes) = (builder.encode_local_calls, builder.compress_above_bytes);
        let name = "driver".to_owned();
        let config = NodeConfig { name, lease, encode_local_calls, compress_above_bytes, ..NodeConfig::default() };
        let node = Node::start(config)?;
        if let Some(url) = &builder.snapshots {
            node.set_snapshot_store(mobula_snapshots::open(url)?);
        }
        let mut starting = Vec::new();
        for number in 0..nodes {
            let part = ToNode::Become {
                name: format!("node-{}", number + 1),
                secret: secret.expose().to_vec(),
                cpus,
                arbiters,
                port: builder.port(number)?,
                driver: node.id().clone(),
                lease,
                snapshots: builder.snapshots.clone(),
                encode_local_calls,
                compress_above_bytes,
                uid: None,
            };
            starting.push(NodeProcess::start(executable.clone(), part, Vec::new()));
        }
        let (mut processes, mut addresses): (Vec<_>, Vec<_>) =
            futures::future::try_join_all(starting).await?.into_iter().unzip();
        for (address, gives) in addresses.iter_mut().zip(gives) {
            (address.resources, address.labels) = gives;
        }
        let joining = processes.iter_mut().map(|process| process.join(addresses.clone()));
        futures::future::try_join_all(joining).await?;
        futures::future::try_join_all(
            addresses.iter().map(|peer| peers::connect(&node, &peer.id, peer.address, &secret)),
        )
        .await?;
        let members = addresses.iter().map(node_info).collect();
        let recipe = Recipe {
            executable,
            secret,
            lease,
            snapshots: builder.snapshots.clone(),
            encode_local_calls,
            compress_above_bytes,
        };
        let lines = processes.iter().map(NodeProcess::line);
        let own = OwnProcesses::new(&node, recipe, addresses.into_iter().zip(lines).collect());
        Ok(Self::with(node, members, processes, Leasing::OwnProcesses(own), true))
    }

    /// The cluster of `members` as `node`, one of them, sees it: for programs that start and connect nodes themselves,
    /// as test kits do. The nodes outlive the handle.
    pub fn over(node: Node, members: Vec<NodeReport>) -> Cluster {
        let info = |NodeReport { node, pid, cpus, .. }| NodeInfo::new(node, pid, None, cpus);
        Self::of_node(node, members.into_iter().map(info).collect())
    }

    /// The cluster as the driver of a job sees it, which has no workers yet.
    pub(crate) fn of_driver(node: Node, driver: Driver, leases: leases::Running) -> Cluster {
        Self::with(node, Vec::new(), Vec::new(), Leasing::Running(driver, leases), true)
    }

    /// The cluster as a node process sees it.
    pub(crate) fn of_node(node: Node, members: Vec<NodeInfo>) -> Cluster {
        Self::new(node, members, Vec::new(), false)
    }

    fn new(node: Node, members: Vec<NodeInfo>, processes: Vec<NodeProcess>, owns_node: bool) -> Cluster {
        Self::with(node, members, processes, Leasing::Embedded, owns_node)
    }

    fn with(
        node: Node,
        members: Vec<NodeInfo>,
        processes: Vec<NodeProcess>,
        leasing: Leasing,
        owns_node: bool,
    ) -> Cluster {
        let ids: Vec<NodeId> = members.iter().map(|member| member.id.clone()).collect();
        let members = Arc::new(Mutex::new(Members::new(members)));
        node.set_homes(members.lock().homes());
        let placing = Arc::clone(&members);
        node.set_placer(move |placement| placing.lock().place(placement));
        let (mut driver, mut own) = (None, None);
        let source = match leasing {
            Leasing::Running(of_job, leases) => {
                driver = Some(of_job);
                leases::Source::Running(leases)
            }
            Leasing::Embedded => leases::Source::Embedded(leases::Embedded::new(Arc::clone(&members), None)),
            Leasing::OwnProcesses(processes) => {
                processes.place_in(&members);
                let head = leases::Embedded::new(Arc::clone(&members), Some(Arc::clone(&processes)));
                let (follower, changes) = (Arc::downgrade(&head), members.lock().subscribe());
                node.control_runtime().spawn(leases::Embedded::follow_members(follower, changes));
                own = Some(processes);
                leases::Source::Embedded(head)
            }
        };
        node.set_lessor(Arc::new(Leases::new(source, Arc::clone(&members))));
        let tasks = TaskPool::new(node.clone(), Arc::clone(&members));
        for (index, id) in ids.into_iter().enumerate() {
            watch::watch(&node, &members, &id, processes.get(index).map(NodeProcess::ended));
        }
        let keepers = Keepers::default();
        Cluster(Arc::new(Inner { node, members, tasks, processes, own, driver, keepers, owns_node }))
    }

    /// Creates an actor where its placement says, and waits until it has started.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing of the actor is left behind, unless its node did not answer in time (30 s) or was lost on
    /// the way.
    /// # Cancel safety
    /// Dropping the future does not take the actor back: one that was being created lives on, without a reference.
    pub async fn spawn<A: RemoteActor>(&self, mut spec: ActorSpec<A>) -> Result<ActorRef<A>, SpawnError> {
        if spec.is_detached() {
            return keepers::spawn(self, spec).await;
        }
        let seat = self.seat(&mut spec).await?;
        let actor = self.0.node.spawn_on(seat.node(), spec).await?;
        seat.hold(actor.id());
        Ok(actor)
    }

    /// A node for an actor, with what it asks for.
    async fn seat<A: RemoteActor>(&self, spec: &mut ActorSpec<A>) -> Result<Seat, SpawnError> {
        if !spec.demand().needs_lease() {
            return Ok(Seat::free(self.0.members.lock().place(spec.placement())?));
        }
        let seat = self.0.node.seat(spec.demand()).await?;
        spec.seated(&seat);
        Ok(seat)
    }

    /// As [`spawn`](Self::spawn), with a monitor that is in force before the actor begins: however early it ends, the
    /// monitor tells the reason.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_monitor<A: RemoteActor>(
        &self,
        mut spec: ActorSpec<A>,
    ) -> Result<(ActorRef<A>, Monitor), SpawnError> {
        let seat = self.seat(&mut spec).await?;
        let (actor, monitor) = self.0.node.spawn_monitor(seat.node(), spec).await?;
        seat.hold(actor.id());
        Ok((actor, monitor))
    }

    /// As [`spawn`](Self::spawn), with a [link](ActorRef::link) between the new actor and `with` that is in force before
    /// the new actor begins.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn). An actor that fails to start does not end `with`.
    pub async fn spawn_link<A: RemoteActor, B: RemoteActor>(
        &self,
        mut spec: ActorSpec<A>,
        with: &ActorRef<B>,
    ) -> Result<ActorRef<A>, SpawnError> {
        let seat = self.seat(&mut spec).await?;
        let actor = self.0.node.spawn_link(seat.node(), spec, with).await?;
        seat.hold(actor.id());
        Ok(actor)
    }

    /// A node has come, and can be reached or soon will be.
    pub(crate) fn add_member(&self, info: NodeInfo) {
        let (node, members) = (&self.0.node, &self.0.members);
        let id = info.id.clone();
        if !members.lock().add(info) {
            return;
        }
        node.set_homes(members.lock().homes());
        watch::watch(node, members, &id, None::<std::future::Ready<String>>);
    }

    /// A node has ended, which is proven.
    pub(crate) fn member_ended(&self, id: &NodeId, reason: &str) {
        self.0.members.lock().down(id);
        self.0.node.peer_dead(id, reason);
    }

    /// Hears of every change of the members.
    pub(crate) fn member_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.members.lock().subscribe()
    }

    pub(crate) fn keepers(&self) -> &Keepers {
        &self.0.keepers
    }

    /// This process as the driver of a job on a running cluster.
    pub(crate) fn driver(&self) -> Option<&Driver> {
        self.0.driver.as_ref()
    }

    /// A handle that does not keep the cluster.
    pub(crate) fn downgrade(&self) -> WeakCluster {
        WeakCluster(Arc::downgrade(&self.0))
    }

    /// Submits a task and gives its result's reference at once. The task runs when a slot is free, on the node whose
    /// task actors are least busy.
    pub fn submit<T: RemoteTask>(&self, task: TaskSpec<T>) -> ObjectRef<T::Output> {
        self.0.tasks.submit(task)
    }

    /// Submits many tasks; their references come in the same order.
    pub fn submit_all<T: RemoteTask>(&self, tasks: impl IntoIterator<Item = TaskSpec<T>>) -> Vec<ObjectRef<T::Output>> {
        tasks.into_iter().map(|task| self.submit(task)).collect()
    }

    /// The live actor that bears `name`, on whatever node, if there is one and it is an `A`: of this job, or else, on a running cluster, the
    /// [detached](ActorSpec::detached) one.
    ///
    /// # Errors
    /// [`CallError`] if the head of the cluster cannot be asked, or the detached actor's keeper. Cancel-safe.
    pub async fn find<A: RemoteActor>(&self, name: &str) -> Result<Option<ActorRef<A>>, CallError> {
        match self.0.node.find(name).await? {
            Some(own) => Ok(Some(own)),
            None => keepers::find(self, name).await,
        }
    }

    /// The keyed actor with this key, wherever it lives; it is created when it is first called. See [`KeyedActor`].
    pub fn keyed<A: KeyedActor>(&self, key: &str) -> KeyedRef<A> {
        self.0.node.keyed_ref(key)
    }

    /// The group of this name among those for `M`, see [`Group`].
    ///
    /// # Errors
    /// [`CallError`] if the head of the cluster cannot be asked.
    pub async fn group<M: RemoteMessage>(&self, name: &str) -> Result<Group<M>, CallError> {
        self.0.node.group(name).await
    }

    /// The states of the nodes from now on: first each as it is, then each that changes, in a stream that does not end.
    /// States that a node has only passed through between two looks are not told.
    pub fn watch_nodes(&self) -> NodeEvents {
        NodeEvents::of(&self.0.members)
    }

    /// All nodes, those that are down included, in the order in which they were started.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.0.members.lock().nodes()
    }

    /// What all nodes have together for actors that ask for [resources](ActorSpec::cpus).
    ///
    /// # Errors
    /// [`PlacementError`] if the driver or the head of a running cluster cannot be asked.
    pub async fn resources(&self) -> Result<Resources, PlacementError> {
        Ok(sum(self.node_resources().await?.iter().map(|node| &node.total)))
    }

    /// What of that is not in use now.
    ///
    /// # Errors
    /// As for [`resources`](Self::resources).
    pub async fn available_resources(&self) -> Result<Resources, PlacementError> {
        Ok(sum(self.node_resources().await?.iter().map(|node| &node.available)))
    }

    /// What each node has, and what of it is not in use now. On a running cluster other jobs use it as well.
    ///
    /// # Errors
    /// As for [`resources`](Self::resources).
    pub async fn node_resources(&self) -> Result<Vec<NodeResources>, PlacementError> {
        match self.0.node.ask_lessor(LeaseRequest::Look, leases::ANSWER).await? {
            LeaseAnswer::Nodes(nodes) => Ok(nodes),
            LeaseAnswer::Refused(error) => Err(error),
            _ => Err(leases::unexpected()),
        }
    }

    /// Sets resources aside, all of them or none: each bundle on one node. What is not free now is
    /// [waited for](PlacementGroup::ready). Actors are placed [in the group](ActorSpec::in_group).
    ///
    /// # Errors
    /// [`PlacementError::Infeasible`] if that can never be had on the nodes that there are. Not cancel-safe: what was set aside then stays so until the
    /// job ends.
    pub async fn placement_group(
        &self,
        strategy: GroupStrategy,
        bundles: impl IntoIterator<Item = Resources>,
    ) -> Result<PlacementGroup, PlacementError> {
        PlacementGroup::create(&self.0.node, strategy, bundles.into_iter().collect()).await
    }

    /// What a node says about itself.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    pub async fn report(&self, node: &NodeId) -> Result<NodeReport, CallError> {
        self.0.node.report_of(node).await
    }

    /// The actors of this process and of all live nodes, `limit` at most, those of each node in the order of their creation.
    ///
    /// # Errors
    /// [`CallError`] if a live node cannot be asked.
    pub async fn actors(&self, limit: usize) -> Result<ActorList, CallError> {
        let asked = self.processes().into_iter().map(async |id| self.0.node.actors_of(&id, limit).await);
        let mut all = ActorList::default();
        for list in futures::future::try_join_all(asked).await? {
            all.add(list, limit);
        }
        Ok(all)
    }

    /// This process, all live nodes, and the processes of isolated actors.
    pub(crate) fn processes(&self) -> Vec<NodeId> {
        let own = self.0.node.id();
        let others = self.0.members.lock().processes().into_iter().filter(|id| id != own);
        std::iter::once(own.clone()).chain(others).collect()
    }

    /// The trees of supervisors on all live nodes, to be looked at or printed.
    ///
    /// # Errors
    /// [`CallError`] if a live node cannot be asked.
    pub async fn supervision_tree(&self) -> Result<SupervisionTree, CallError> {
        let mut tree = SupervisionTree::default();
        let processes = self.0.members.lock().processes();
        for process in &processes {
            tree.add(self.0.node.tree_of(process).await?);
        }
        Ok(tree)
    }

    /// The actors of all nodes that get stuck; of each node first the last 64 that did. See [`Node::watch_stuck`].
    ///
    /// # Errors
    /// [`CallError`] if a live node cannot be reached.
    pub fn watch_stuck(&self) -> Result<impl Stream<Item = StuckActor> + Send + Unpin + use<>, CallError> {
        let live = self.0.members.lock().processes();
        let watched: Result<Vec<_>, _> = live.iter().map(|process| self.0.node.watch_stuck(process)).collect();
        Ok(futures::stream::select_all(watched?))
    }

    /// The node of this process: in a driver, the one through which it calls others.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Ends the cluster: node processes that this driver started are ended and reaped, within 2 s. Later calls fail.
    pub async fn shutdown(&self) {
        self.0.tasks.shut_down();
        if let Some(driver) = &self.0.driver {
            driver.end().await;
        }
        if self.0.owns_node {
            self.0.node.shut_down("the driver ended the cluster");
        }
        for process in &self.0.processes {
            process.end();
        }
        let ended = futures::future::join_all(self.0.processes.iter().map(NodeProcess::ended));
        let own = self.0.own.clone();
        let all = async move {
            if let Some(own) = own {
                own.end_all().await;
            }
            ended.await;
        };
        let waited = self.0.node.control_runtime().spawn(tokio::time::timeout(SHUTDOWN_WAIT, all)).await;
        if !matches!(waited, Ok(Ok(_))) {
            tracing::warn!("node processes were not reaped within {SHUTDOWN_WAIT:?}");
        }
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Resources>) -> Resources {
    all.fold(Resources::new(), |mut sum, one| {
        sum.put(one);
        sum
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.shut_down();
        if let Some(own) = &self.own {
            // It tells them at once, and nobody waits here.
            drop(own.end_all());
        }
        if self.owns_node {
            self.node.shut_down("the driver dropped the cluster");
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.0.node).field("nodes", &self.nodes().len()).finish()
    }
}
