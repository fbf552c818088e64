//! Resources for new actors: what is asked for, who gives it, and how it comes back.
//!
//! The node that keeps a cluster's names keeps its leases as well, through its [`Lessor`]: set by whoever knows the cluster. Other nodes ask it
//! over their control links. An actor's lease is its own from before it begins until its end is known, however it ends.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use mobula_core::cluster::{
    GpuShare, GroupId, GroupStrategy, Infeasible, JobId, LabelSelector, Labels, LeaseId, Placed, PlacementGroupRow,
    Refused, Resources,
};
use mobula_core::{ActorAddress, ActorId, CallError, Deadline, NodeId, limits};
use mobula_transport::now;
use serde::{Deserialize, Serialize};

use crate::actor::Placement;
use crate::control::{self, Control, ControlReply, SpawnError};
use crate::monitor::{Monitor, Watch};
use crate::node::{Node, unexpected};
use crate::scope;

/// What a new actor takes of its node, and which node that may be.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// How much.
    pub resources: Resources,
    /// Where.
    pub placement: Placement,
    /// How long it may wait for that; [`limits::PLACE_DEADLINE`] if nothing is said.
    pub within: Option<Duration>,
    /// Why it makes no sense.
    pub bad: Option<String>,
    /// In a process of its own.
    #[serde(default)]
    pub isolated: bool,
    /// The name that it is to have in the whole cluster, if it is [detached](crate::ActorSpec::detached) and its keeper asks for it.
    #[serde(default)]
    pub detached: Option<String>,
}

impl Demand {
    /// True if somebody has to give something for it. Else any process of the cluster decides for itself.
    pub fn needs_lease(&self) -> bool {
        let is_of_nodes = matches!(self.placement, Placement::Labels { .. } | Placement::Group { .. });
        self.bad.is_some() || self.isolated || is_of_nodes || !self.resources.is_empty()
    }

    /// True if the job has to give something for it, a lease or a name.
    pub fn needs_seat(&self) -> bool {
        self.needs_lease() || self.detached.is_some()
    }

    /// Notes what is wrong with it; the first thing counts.
    pub(crate) fn check<T>(&mut self, what: &str, value: Result<T, impl std::fmt::Display>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(reason) => {
                self.bad.get_or_insert_with(|| format!("{what}: {reason}"));
                None
            }
        }
    }
}

/// What an actor has of its node: see [`granted`](crate::granted).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Granted {
    /// By which lease.
    pub lease: LeaseId,
    /// How much.
    pub resources: Resources,
    /// Which GPUs of the node, counted from 0, and how much of each.
    pub gpus: Vec<GpuShare>,
}

impl Granted {
    /// What was asked for and is placed.
    pub fn new(placed: Placed, resources: Resources) -> Self {
        Granted { lease: placed.lease, resources, gpus: placed.gpus }
    }
}

/// Why something has no place. Nothing is taken, and trying again is safe.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PlacementError {
    /// No node that there is can ever give it.
    #[error("{0}")]
    Infeasible(Box<Infeasible>),
    /// It would fit, but nothing came free in its time.
    #[error("no room for {asked} within {waited:?}: some node has so much, and others have it in use")]
    NoRoom {
        /// How much was asked for.
        asked: Resources,
        /// How long it has waited.
        waited: Duration,
    },
    /// It was asked for in a way that makes no sense.
    #[error("{reason}")]
    Bad {
        /// What is wrong.
        reason: String,
    },
    /// The head refuses it for another reason.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The head was not reached in time.
    #[error("the head of the cluster was not reached within {waited:?}: {reason}")]
    NoHead {
        /// How long it was tried.
        waited: Duration,
        /// What came of it.
        reason: String,
    },
    /// A placement group has not all of its bundles yet.
    #[error("placement group {group} is not ready after {waited:?}")]
    NotReady {
        /// Which.
        group: GroupId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The node that keeps the leases of this cluster was not reached, or knows nothing of them.
    #[error("cannot ask for resources: {0}")]
    Call(#[from] CallError),
    /// The process of an isolated actor was started, and did not get ready; it is ended.
    #[error("the process for the actor was not ready {waited:?} after it was wanted: its output may say why")]
    NoProcess {
        /// How long it has been waited for.
        waited: Duration,
    },
}

impl From<Refused> for PlacementError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Infeasible(why) => PlacementError::Infeasible(why),
            refused => PlacementError::Refused(Box::new(refused)),
        }
    }
}

/// What a node of the cluster gives.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeResources {
    /// Its name.
    pub name: Arc<str>,
    /// All of it.
    pub total: Resources,
    /// What is not in use now.
    pub available: Resources,
    /// What is said of it.
    pub labels: Labels,
}

impl NodeResources {
    /// Of the node with that name.
    pub fn new(name: Arc<str>, total: Resources, available: Resources, labels: Labels) -> Self {
        NodeResources { name, total, available, labels }
    }
}

/// What a [`Lessor`] is asked. Numbers of leases and groups are drawn by the asker, so that asking again is asking for the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LeaseRequest {
    /// A lease.
    Take {
        /// Which.
        number: u64,
        /// For what.
        demand: Demand,
    },
    /// A lease is this actor's from now on: its end is the lease's.
    Hold {
        /// Which.
        number: u64,
        /// Whose.
        actor: ActorAddress,
    },
    /// A lease is not needed, also if its request is still on its way.
    GiveBack {
        /// Which.
        number: u64,
    },
    /// A placement group.
    CreateGroup {
        /// Which.
        number: u64,
        /// What is set aside, each on one node.
        bundles: Vec<Resources>,
        /// How they are laid out.
        strategy: GroupStrategy,
    },
    /// Answered when all bundles of a group have their nodes.
    AwaitGroup {
        /// Which.
        group: GroupId,
        /// How long it is waited.
        within: Duration,
    },
    /// What a group has is given back, and the actors in it end.
    RemoveGroup {
        /// Which.
        group: GroupId,
    },
    /// What the nodes have.
    Look,
    /// The job that keeps the detached actors of this program, or, with a name, the one that keeps the actor of that name.
    Keeper {
        /// Whose keeper, if not the program's.
        of: Option<String>,
    },
}

/// What a [`Lessor`] answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LeaseAnswer {
    /// The lease, and the node of this cluster that it is on.
    Taken(NodeId, Granted),
    /// A placement group as it is.
    Group(PlacementGroupRow),
    /// The nodes that are not down.
    Nodes(Vec<NodeResources>),
    /// It is done.
    Done,
    /// It is not.
    Refused(PlacementError),
    /// The node of this cluster, without a lease.
    Seated(NodeId),
    /// The job, if there is one.
    Keeper(Option<JobId>),
}

/// Gives resources.
pub trait Lessor: Send + Sync + 'static {
    /// Answers a request of `from`. `node` is the one whose lessor this is.
    fn serve(&self, node: &Node, from: &NodeId, request: LeaseRequest) -> BoxFuture<'static, LeaseAnswer>;
}

/// A node for a new actor, and what it has there. Dropping it gives that back, unless an actor [holds](Self::hold) it.
#[derive(Debug)]
#[must_use = "dropping it gives the resources back"]
pub struct Seat {
    node: NodeId,
    granted: Option<Box<Granted>>,
    lease: Option<(Node, u64)>,
}

impl Seat {
    /// On this node, without anything.
    pub fn free(node: NodeId) -> Self {
        Seat { node, granted: None, lease: None }
    }

    /// Where.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub(crate) fn granted(&self) -> Option<Box<Granted>> {
        self.granted.clone()
    }

    /// What is here is the actor's.
    pub fn hold(mut self, actor: ActorId) {
        if let Some((node, number)) = self.lease.take() {
            let actor = ActorAddress { node: self.node.clone(), actor };
            node.tell_lessor(LeaseRequest::Hold { number, actor });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((node, number)) = self.lease.take() {
            node.tell_lessor(LeaseRequest::GiveBack { number });
        }
    }
}

/// What a request may take longer than it wants to wait, on its way.
const ON_THE_WAY: Duration = Duration::from_secs(5);

impl Node {
    /// Who gives resources to the cluster of which this node keeps the names. The first one holds.
    pub fn set_lessor(&self, lessor: Arc<dyn Lessor>) {
        let _ = self.lessor_slot().set(lessor);
    }

    /// A node with room for `demand`, which [needs a seat](Demand::needs_seat).
    ///
    /// # Errors
    /// [`SpawnError`].
    /// # Cancel safety
    /// Dropping the future gives back what it may have been given.
    pub async fn seat(&self, demand: &Demand) -> Result<Seat, SpawnError> {
        if let Some(reason) = &demand.bad {
            return Err(PlacementError::Bad { reason: reason.clone() }.into());
        }
        let left = scope::deadline().instant().map(|at| at.saturating_duration_since(now()));
        let wanted = demand.within.unwrap_or(limits::PLACE_DEADLINE);
        let within = left.map_or(wanted, |left| left.min(wanted));
        let demand = Demand { within: Some(within), ..demand.clone() };
        // The largest number is that of drivers.
        let number = self.chance().bits() >> 1;
        // From here on it is given back, whatever becomes of the request.
        let mut seat = Seat { node: self.id().clone(), granted: None, lease: Some((self.clone(), number)) };
        let isolated = demand.isolated;
        let answered_within = if isolated { within.saturating_add(limits::NODE_START_DEADLINE) } else { within };
        match self.ask_lessor(LeaseRequest::Take { number, demand }, answered_within).await? {
            LeaseAnswer::Taken(node, granted) => {
                if isolated {
                    // It has just come, and the driver may have met it before this node.
                    let _ = tokio::time::timeout(ON_THE_WAY, self.control_link_opened(&node)).await;
                }
                seat.node = node;
                seat.granted = Some(Box::new(granted));
                Ok(seat)
            }
            LeaseAnswer::Seated(node) => {
                seat.node = node;
                Ok(seat)
            }
            LeaseAnswer::Refused(PlacementError::Refused(refused)) => Err(match *refused {
                Refused::NameHeld { name, keeper } => SpawnError::NameHeld { name, keeper },
                refused => PlacementError::from(refused).into(),
            }),
            LeaseAnswer::Refused(error) => Err(error.into()),
            _ => Err(unexpected().into()),
        }
    }

    /// Asks whoever gives resources in this cluster, with an answer that may take so long.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be asked.
    pub async fn ask_lessor(&self, request: LeaseRequest, within: Duration) -> Result<LeaseAnswer, CallError> {
        let head = self.head();
        if head == *self.id() {
            return Ok(self.serve_lease(self.id(), request).await);
        }
        let link = self.control_link_to(&head)?;
        let deadline = Deadline::after(now(), within.saturating_add(ON_THE_WAY));
        match control::request_until(&link, &Control::Lease(Box::new(request)), deadline).await? {
            ControlReply::Lease(answer) => Ok(*answer),
            _ => Err(unexpected()),
        }
    }

    /// The news of the end of an actor of any type.
    pub fn monitor_address(&self, actor: &ActorAddress) -> Monitor {
        let (node, id) = (actor.node.clone(), actor.actor);
        if node == *self.id() {
            return Monitor::near(node, id, Watch::of(self.actor(id).as_ref()));
        }
        let asked = self
            .link(&node, id)
            .map(|link| control::request_for_ever(&link, &Control::AwaitEnd { actor: id, kept: false }));
        Monitor::far(node, id, asked)
    }

    /// Kills an actor of any type. It is told when this returns, if its node is reached.
    ///
    /// # Errors
    /// [`CallError`] if its node cannot be asked.
    pub async fn kill_address(&self, actor: &ActorAddress) -> Result<(), CallError> {
        self.request(&actor.node, Control::Order { actor: actor.actor, kill: true }).await.map(drop)
    }

    pub(crate) fn serve_lease(&self, from: &NodeId, request: LeaseRequest) -> BoxFuture<'static, LeaseAnswer> {
        match self.lessor_slot().get() {
            Some(lessor) => lessor.serve(self, from, request),
            None => {
                let reason = "nobody on it knows the cluster".to_owned();
                let error = CallError::Unreachable { node: self.id().clone(), sent: true, reason };
                Box::pin(futures::future::ready(LeaseAnswer::Refused(error.into())))
            }
        }
    }

    /// Says something that has its answer at once, and sends it before this returns.
    fn tell_lessor(&self, request: LeaseRequest) {
        let head = self.head();
        if head == *self.id() {
            drop(self.serve_lease(self.id(), request));
            return;
        }
        // If the link is over, so is what this node has asked for.
        let Ok(link) = self.control_link_to(&head) else { return };
        let deadline = Deadline::after(now(), limits::PLACE_DEADLINE);
        let told = control::request_until(&link, &Control::Lease(Box::new(request)), deadline);
        self.control_runtime().spawn(async move {
            let _ = told.await;
        });
    }
}

/// A wish for labels, as it is written: `zone=a,disk=ssd`.
pub(crate) fn selector(text: &str) -> Result<LabelSelector, String> {
    let labels = Labels::parse("labels", text).map_err(|error| error.to_string())?;
    Ok(labels.iter().fold(LabelSelector::new(), |selector, (key, value)| selector.is(key, value)))
}
