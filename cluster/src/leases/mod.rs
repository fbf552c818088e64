//! The leases of a cluster's actors, kept by the driver: it asks the head, tells nodes of the head and nodes of actors apart, and gives
//! back what belongs to nobody any more.
//!
//! The head is that of a running cluster ([`Running`]), or one inside the driver ([`Embedded`]): the same decisions, with nobody to ask them from outside.
mod embedded;
mod group;
mod running;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use mobula_actors::{
    Demand, Granted, LeaseAnswer, LeaseRequest, Lessor, Node, NodeResources, Placement, PlacementError,
};
use mobula_core::cluster::{
    BadFlag, GroupId, GroupPhase, GroupStrategy, JobId, NewGroup, PlaceStrategy, Placed, PlacementGroupRow, Refused,
    Resources,
};
use mobula_core::{ActorAddress, CallError, NodeId, limits};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::meeting::met;
use crate::members::Members;

pub(crate) use embedded::Embedded;
pub use group::PlacementGroup;
pub(crate) use group::{ANSWER, unexpected};
pub(crate) use running::Running;

/// Where leases come from.
pub(crate) enum Source {
    /// From a head inside this process.
    Embedded(Arc<Embedded>),
    /// From the head of a running cluster.
    Running(Running),
}

/// A lease that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) number: u64,
    pub(crate) resources: Resources,
    pub(crate) strategy: PlaceStrategy,
    /// With a process of its own.
    pub(crate) isolated: bool,
}

/// What became of a request at its end.
pub(crate) enum Unplaced {
    /// It has not its place in time.
    InVain,
    /// The lease was given, and is over again: its node is.
    Over,
    /// It is refused.
    Refused(PlacementError),
}

impl Source {
    async fn take(&self, wanted: &Wanted, until: Instant) -> Result<Placed, Unplaced> {
        match self {
            Source::Embedded(head) => head.take(wanted, until).await,
            Source::Running(head) => head.take(wanted, until).await,
        }
    }

    fn give_back(&self, node: &Node, number: u64) {
        match self {
            Source::Embedded(head) => head.give_back(number),
            Source::Running(head) => head.give_back(node, number),
        }
    }

    fn job(&self) -> JobId {
        match self {
            Source::Embedded(head) => head.job(),
            Source::Running(head) => head.job(),
        }
    }

    /// Rings when something may have changed that somebody waits for.
    fn changes(&self) -> watch::Receiver<()> {
        match self {
            Source::Embedded(head) => head.changes(),
            Source::Running(head) => head.changes(),
        }
    }

    async fn group(&self, group: NewGroup, until: Instant) -> Result<PlacementGroupRow, PlacementError> {
        match self {
            Source::Embedded(head) => head.group(group),
            Source::Running(head) => head.group(group, until).await,
        }
    }

    async fn remove_group(&self, group: GroupId, until: Instant) -> Result<(), PlacementError> {
        match self {
            Source::Embedded(head) => head.remove_group(group),
            Source::Running(head) => head.remove_group(group, until).await,
        }
    }

    async fn begun(&self) {
        if let Source::Running(head) = self {
            head.begun().await;
        }
    }

    async fn keeper(&self, of: Option<String>) -> Result<Option<JobId>, PlacementError> {
        match self {
            Source::Embedded(_) => Err(PlacementError::Bad {
                reason: "it would outlive its job, and this cluster ends with its driver: start one with `mobula start --head`"
                    .to_owned(),
            }),
            Source::Running(head) => head.keeper(of).await,
        }
    }

    async fn hold_name(&self, number: u64, name: &str, until: Instant) -> Result<(), PlacementError> {
        match self {
            Source::Embedded(_) => Ok(()),
            Source::Running(head) => head.hold_name(number, name, until).await,
        }
    }

    fn release_name(&self, node: &Node, number: u64) {
        match self {
            Source::Embedded(_) => {}
            Source::Running(head) => head.release_name(node, number),
        }
    }

    async fn nodes(&self) -> Result<Vec<NodeResources>, PlacementError> {
        match self {
            Source::Embedded(head) => Ok(head.nodes()),
            Source::Running(head) => head.nodes().await,
        }
    }
}

/// Gives the actors of one cluster, or one job, their resources.
pub(crate) struct Leases(Arc<Inner>);

struct Inner {
    source: Source,
    members: Arc<Mutex<Members>>,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    /// By the number that the asker has drawn.
    leases: HashMap<u64, Row>,
    groups: HashMap<GroupId, NewGroup>,
}

/// A lease that somebody has, or waits for.
struct Row {
    /// The number at the head: another one than the asker's once the first was over.
    number: u64,
    group: Option<GroupId>,
    /// The name that a detached actor has by it in the whole cluster.
    name: Option<String>,
    /// There is a lease, or a request for one. Not for a detached actor that has but a name.
    leased: bool,
    /// Whose it is, once that has begun.
    actor: Option<ActorAddress>,
    /// Watches the node that has asked, until an actor has it.
    asker: Option<AbortHandle>,
}

impl Leases {
    pub(crate) fn new(source: Source, members: Arc<Mutex<Members>>) -> Self {
        Leases(Arc::new(Inner { source, members, rows: Mutex::default() }))
    }
}

impl Lessor for Leases {
    fn serve(&self, node: &Node, from: &NodeId, request: LeaseRequest) -> BoxFuture<'static, LeaseAnswer> {
        let (inner, node) = (Arc::clone(&self.0), node.clone());
        match request {
            LeaseRequest::Take { number, demand } => {
                inner.enter(&node, from, number, &demand);
                Box::pin(async move { answer(inner.take(&node, number, demand).await) })
            }
            LeaseRequest::Hold { number, actor } => {
                inner.hold(&node, number, actor);
                done()
            }
            LeaseRequest::GiveBack { number } => {
                inner.end(&node, number);
                done()
            }
            LeaseRequest::CreateGroup { number, bundles, strategy } => {
                let group = GroupId { job: inner.source.job(), number };
                Box::pin(async move { answer(inner.create_group(group, bundles, strategy).await) })
            }
            LeaseRequest::AwaitGroup { group, within } => {
                Box::pin(async move { answer(inner.await_group(group, within).await) })
            }
            LeaseRequest::RemoveGroup { group } => {
                Box::pin(async move { answer(inner.remove_group(&node, group).await) })
            }
            LeaseRequest::Keeper { of } => {
                Box::pin(async move { answer(inner.source.keeper(of).await.map(LeaseAnswer::Keeper)) })
            }
            LeaseRequest::Look => Box::pin(async move { answer(inner.source.nodes().await.map(LeaseAnswer::Nodes)) }),
            _ => {
                let error = PlacementError::Bad { reason: "the driver does not know the request".to_owned() };
                Box::pin(futures::future::ready(LeaseAnswer::Refused(error)))
            }
        }
    }
}

fn done() -> BoxFuture<'static, LeaseAnswer> {
    Box::pin(futures::future::ready(LeaseAnswer::Done))
}

fn answer(answer: Result<LeaseAnswer, PlacementError>) -> LeaseAnswer {
    answer.unwrap_or_else(LeaseAnswer::Refused)
}

/// So long a head that does not answer is tried again where nothing else is said.
const HEAD_PATIENCE: Duration = limits::PLACE_DEADLINE;

impl Inner {
    /// From here on the lease ends with the node that asks for it, unless an actor holds it.
    fn enter(self: &Arc<Self>, node: &Node, from: &NodeId, number: u64, demand: &Demand) {
        let group = match &demand.placement {
            Placement::Group { group, .. } => Some(*group),
            _ => None,
        };
        let asker = (from != node.id()).then(|| {
            let (inner, opened) = (Arc::clone(self), node.control_link_opened(from));
            let watching = node.control_runtime().spawn(async move {
                let Some((node, link)) = opened.await else { return };
                link.closed().await;
                inner.end(&node, number);
            });
            watching.abort_handle()
        });
        let (name, leased) = (demand.detached.clone(), demand.needs_lease());
        let row = Row { number, group, name, leased, actor: None, asker };
        let before = self.rows.lock().leases.insert(number, row);
        if let Some(asker) = before.and_then(|row| row.asker) {
            asker.abort();
        }
    }

    async fn take(&self, node: &Node, number: u64, demand: Demand) -> Result<LeaseAnswer, PlacementError> {
        if let Some(name) = &demand.detached {
            let named = self.take_name(number, name, &demand).await;
            let is_wanted = self.rows.lock().leases.contains_key(&number);
            match named {
                Ok(None) if is_wanted => {}
                Ok(Some(node)) if is_wanted => return Ok(LeaseAnswer::Seated(node)),
                named => {
                    // Whether it was given is not known where the head is away.
                    self.rows.lock().leases.remove(&number);
                    self.source.release_name(node, number);
                    let given_up = || PlacementError::Bad { reason: "nobody waits for it any more".to_owned() };
                    return Err(named.err().unwrap_or_else(given_up));
                }
            }
        }
        let taken = self.try_take(node, number, &demand).await;
        if demand.detached.is_some() && taken.is_err() {
            self.source.release_name(node, number);
        }
        // Whoever gave up meanwhile has given back what it knew of.
        let is_wanted = self.rows.lock().leases.contains_key(&number);
        match taken {
            Ok((at, placed)) if is_wanted => Ok(LeaseAnswer::Taken(at, Granted::new(placed, demand.resources))),
            Ok((_, placed)) => {
                self.source.give_back(node, placed.lease.number);
                Err(PlacementError::Bad { reason: "nobody waits for it any more".to_owned() })
            }
            Err(error) => {
                self.rows.lock().leases.remove(&number);
                Err(error)
            }
        }
    }

    /// The name of a detached actor; and its node, if it takes nothing else.
    async fn take_name(&self, number: u64, name: &str, demand: &Demand) -> Result<Option<NodeId>, PlacementError> {
        // A keeper that has just begun does not know its workers yet.
        self.source.begun().await;
        let until = now() + demand.within.unwrap_or(limits::PLACE_DEADLINE);
        self.source.hold_name(number, name, until).await?;
        if demand.needs_lease() {
            return Ok(None);
        }
        let placed = self.members.lock().place(&demand.placement);
        placed.map(Some).map_err(|error| PlacementError::Bad { reason: error.to_string() })
    }

    async fn try_take(&self, node: &Node, number: u64, demand: &Demand) -> Result<(NodeId, Placed), PlacementError> {
        let within = demand.within.unwrap_or(limits::PLACE_DEADLINE);
        let until = now() + within;
        demand.resources.check().map_err(|bad| PlacementError::Bad { reason: in_programs(bad) })?;
        let strategy = self.strategy(&demand.placement)?;
        let no_room = || PlacementError::NoRoom { asked: demand.resources.clone(), waited: within };
        let (mut members, mut news) = (self.members.lock().subscribe(), self.source.changes());
        let (resources, isolated) = (demand.resources.clone(), demand.isolated);
        let mut wanted = Wanted { number, resources, strategy, isolated };
        let mut placed_at = None;
        loop {
            let placed = match self.source.take(&wanted, until).await {
                Ok(placed) => placed,
                Err(Unplaced::Over) => {
                    // With a number of its own; the asker's stays the name by which it is given back.
                    wanted.number = wanted.number.wrapping_add(1);
                    match self.rows.lock().leases.get_mut(&number) {
                        Some(row) => row.number = wanted.number,
                        None => return Err(no_room()),
                    }
                    placed_at = None;
                    continue;
                }
                Err(refused) => {
                    if placed_at.is_some() {
                        self.source.give_back(node, wanted.number);
                    }
                    return Err(match refused {
                        Unplaced::Refused(error) => error,
                        _ => no_room(),
                    });
                }
            };
            let begun = *placed_at.get_or_insert_with(now);
            let (at, until) = match (isolated, placed.worker) {
                // A worker of the job may have just ended there, and another come soon.
                (false, _) => (self.members.lock().on_host(placed.node), until),
                // Its process has to come first, however little time there was to wait for room.
                (true, Some(worker)) => {
                    (self.members.lock().life(worker), until.max(begun + limits::NODE_START_DEADLINE))
                }
                (true, None) => {
                    self.source.give_back(node, wanted.number);
                    let reason = "the head of this cluster starts no process for one actor: it is of an older version"
                        .to_owned();
                    return Err(PlacementError::Bad { reason });
                }
            };
            if let Some(at) = at {
                if isolated {
                    self.introduce(node, &at).await;
                }
                return Ok((at, placed));
            }
            let changed = tokio::time::timeout_at(until.into(), async {
                tokio::select! {
                    changed = members.changed() => changed,
                    changed = news.changed() => changed,
                }
            });
            if !matches!(changed.await, Ok(Ok(()))) {
                self.source.give_back(node, wanted.number);
                let waited = now().saturating_duration_since(begun);
                return Err(if isolated { PlacementError::NoProcess { waited } } else { no_room() });
            }
        }
    }

    /// A process for one actor has come: it knows those that were there before it, and not yet those that have come with it.
    async fn introduce(&self, node: &Node, at: &NodeId) {
        if let Err(error) = node.greet(at).await {
            tracing::debug!(process = %at, %error, "a process for one actor was not greeted");
        }
        let mut others = self.members.lock().processes();
        others.retain(|other| other != at);
        let both_ways = others.into_iter().flat_map(|other| [(other.clone(), at.clone()), (at.clone(), other)]);
        met(node, both_ways).await;
    }

    /// Where, in the words of the head: it knows nodes, not the processes of a job on them.
    fn strategy(&self, placement: &Placement) -> Result<PlaceStrategy, PlacementError> {
        let members = self.members.lock();
        let unknown = |wanted: String| PlacementError::Bad { reason: members.no_such_node(wanted) };
        Ok(match placement {
            Placement::Spread => PlaceStrategy::Spread,
            Placement::Node(id) => {
                let node = members.host_of(id).ok_or_else(|| unknown(id.to_string()))?;
                PlaceStrategy::Node { node, soft: false }
            }
            Placement::Named { name, soft } => match members.host_named(name) {
                Some(node) => PlaceStrategy::Node { node, soft: *soft },
                None if *soft => PlaceStrategy::Default,
                None => return Err(unknown(name.clone())),
            },
            Placement::Labels { selector, soft } => PlaceStrategy::Labels { selector: selector.clone(), soft: *soft },
            Placement::Group { group, bundle } => PlaceStrategy::Group { group: *group, bundle: *bundle },
            _ => PlaceStrategy::Default,
        })
    }

    /// The lease is the actor's, and ends with it.
    fn hold(self: &Arc<Self>, node: &Node, number: u64, actor: ActorAddress) {
        {
            let mut rows = self.rows.lock();
            let Some(row) = rows.leases.get_mut(&number) else { return };
            if let Some(asker) = row.asker.take() {
                asker.abort();
            }
            row.actor = Some(actor.clone());
        }
        let (inner, monitor) = (Arc::downgrade(self), node.monitor_address(&actor));
        let own = node.downgrade();
        node.control_runtime().spawn(async move {
            monitor.await;
            if let (Some(inner), Some(node)) = (inner.upgrade(), own.upgrade()) {
                inner.end(&node, number);
            }
        });
    }

    /// Nobody has the lease any more.
    fn end(self: &Arc<Self>, node: &Node, number: u64) {
        let Some(row) = self.rows.lock().leases.remove(&number) else { return };
        if let Some(asker) = row.asker {
            asker.abort();
        }
        if row.leased {
            self.source.give_back(node, row.number);
        }
        if let Some(name) = row.name {
            self.end_name(node, number, name, row.actor);
        }
    }

    /// A detached actor has ended, or was not created: its name is free in the whole cluster as soon as it is free in the job.
    fn end_name(self: &Arc<Self>, node: &Node, number: u64, name: String, actor: Option<ActorAddress>) {
        let (inner, own, every) = (Arc::clone(self), node.downgrade(), node.lease_times().heartbeat / 8);
        node.control_runtime().spawn(async move {
            // An end that is told may be that of a connection.
            while let Some(node) = own.upgrade().filter(|node| !node.is_closed()) {
                if actor.as_ref().is_none_or(|actor| !node.may_bear(&name, actor)) {
                    return inner.source.release_name(&node, number);
                }
                drop(node);
                tokio::time::sleep(every).await;
            }
        });
    }

    async fn create_group(
        &self,
        group: GroupId,
        bundles: Vec<Resources>,
        strategy: GroupStrategy,
    ) -> Result<LeaseAnswer, PlacementError> {
        for bundle in &bundles {
            bundle.check().map_err(|bad| PlacementError::Bad { reason: in_programs(bad) })?;
        }
        let new = NewGroup { group, bundles, strategy, for_new_nodes: false };
        let row = self.source.group(new.clone(), now() + HEAD_PATIENCE).await?;
        self.rows.lock().groups.insert(group, new);
        Ok(LeaseAnswer::Group(row))
    }

    async fn await_group(&self, group: GroupId, within: Duration) -> Result<LeaseAnswer, PlacementError> {
        let until = now() + within;
        let mut news = self.source.changes();
        let new = self.rows.lock().groups.get(&group).cloned();
        let new = new.ok_or_else(|| PlacementError::from(Refused::NoSuchGroup { group }))?;
        loop {
            // Asking for it again is asking how it is doing.
            let row = self.source.group(new.clone(), until).await?;
            if row.phase == GroupPhase::Ready {
                return Ok(LeaseAnswer::Group(row));
            }
            let changed = tokio::time::timeout_at(until.into(), news.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(PlacementError::NotReady { group, waited: within });
            }
        }
    }

    async fn remove_group(&self, node: &Node, group: GroupId) -> Result<LeaseAnswer, PlacementError> {
        let actors: Vec<ActorAddress> = {
            let mut rows = self.rows.lock();
            rows.groups.remove(&group);
            let of_group = rows.leases.values().filter(|row| row.group == Some(group));
            of_group.filter_map(|row| row.actor.clone()).collect()
        };
        // One that is not reached is on a node that is gone.
        let killed: Vec<Result<(), CallError>> =
            futures::future::join_all(actors.iter().map(|actor| node.kill_address(actor))).await;
        tracing::debug!(%group, actors = killed.len(), "a placement group is removed, and the actors in it end");
        self.source.remove_group(group, now() + HEAD_PATIENCE).await?;
        Ok(LeaseAnswer::Done)
    }
}

/// The words of a command line, as a program knows them.
fn in_programs(bad: BadFlag) -> String {
    let what = match bad.flag.as_str() {
        "--num-cpus" => "cpus",
        "--num-gpus" => "gpus",
        "--memory" => "memory_bytes",
        "--resources" => "resource",
        other => other,
    };
    format!("{what} {}: {}; valid are {}", bad.value, bad.reason, bad.valid)
}
