//! Requests to a node itself: create, stop and find actors, and say what it is.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use futures::future::BoxFuture;
use mobula_core::cluster::JobId;
use mobula_core::directory::{Answer, GroupName, Refusal, Request as DirectoryRequest};
use mobula_core::{
    ActorAddress, ActorId, CallError, Deadline, ExitReason, NodeId, RemoteMessage, RequestId, codec, schema_hash,
};
use mobula_transport::{Call, Request, SessionError};
use serde::{Deserialize, Serialize};

use crate::actor::SpawnOptions;
use crate::ask::Ask;
use crate::guest::{self, GuestAnswer, GuestRequest};
use crate::link::Signal;
use crate::mailbox::Order;
use crate::monitor::Watch;
use crate::node::{Node, NodeLink};
use crate::placing::{LeaseAnswer, LeaseRequest, PlacementError};
use crate::reply::{Answer as Reply, Pending, Slot};
use crate::scope::{self, Within};
use crate::serving::{Kind, NotBegun, Serving};
use crate::snapshot::SnapshotError;
use crate::stuck::StuckActor;
use crate::supervised::{self, ChildOrder};
use crate::tree::{ActorList, SupervisionTree};
use crate::vitals::{self, LifeNews};

/// An actor could not be created. Nothing of it is left behind, so creating it again is safe.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SpawnError {
    /// The node's executable does not know the type.
    #[error(
        "no actor type `{actor_type}` is registered on {node}: link the crate that registers it (`use that_crate as \
         _;`), and run the same build everywhere"
    )]
    UnknownActorType {
        /// The registered name.
        actor_type: String,
        /// The node that was asked.
        node: NodeId,
    },
    /// The two executables define the constructor's arguments differently.
    #[error(
        "`{actor_type}` is constructed from other arguments on {node} (there {theirs:016x}, here {ours:016x}): run \
         the same build everywhere"
    )]
    SchemaMismatch {
        /// The registered name.
        actor_type: String,
        /// The node that was asked.
        node: NodeId,
        /// The asking side's hash.
        ours: u64,
        /// The node's hash.
        theirs: u64,
    },
    /// The arguments could not be read.
    #[error("arguments of `{actor_type}`: {reason}")]
    BadArguments {
        /// The registered name.
        actor_type: String,
        /// What was found.
        reason: String,
    },
    /// The constructor or `started` panicked.
    #[error("the actor panicked while it started: {text}")]
    Panicked {
        /// The panic's text.
        text: String,
    },
    /// It came to its end before it had started: it was told to stop, or was linked with what is no more.
    #[error("the actor ended before it had started: {reason}")]
    Ended {
        /// How.
        reason: ExitReason,
    },
    /// A live actor bears the name, or one of a node that may still be alive.
    #[error("the name `{name}` is taken by actor {holder} on {node}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who bears it.
        holder: ActorId,
        /// Where.
        node: NodeId,
    },
    /// Names that begin with `keyed:` are those of keyed actors.
    #[error("the name `{name}` begins with `keyed:`, which keyed actors bear: choose another")]
    ReservedName {
        /// What was asked for.
        name: String,
    },
    /// The head of the cluster did not give it its name.
    #[error("no name for the actor: {0}")]
    NoGrant(Refusal),
    /// The node has no thread left for it.
    #[error("no thread for the actor: {reason}")]
    NoThread {
        /// What the system said.
        reason: String,
    },
    /// What was saved of the actor cannot be used, or its state could not be saved. What lies in the store is as it was.
    #[error("`{actor_type}` cannot begin with its snapshots: {error}")]
    Snapshot {
        /// The registered name.
        actor_type: String,
        /// What is wrong.
        error: SnapshotError,
    },
    /// The node shuts down.
    #[error("the node is shutting down")]
    NodeEnding,
    /// No node of the cluster is the one asked for, or none is left.
    #[error("no such node: {wanted}; the cluster has {have}")]
    NoSuchNode {
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
    /// There is no place for it.
    #[error("no place for the actor: {0}")]
    NotPlaced(#[from] PlacementError),
    /// The node could not be asked, or did not answer.
    #[error("cannot reach the node: {0}")]
    Call(#[from] CallError),
    /// A [detached](crate::ActorSpec::detached) actor was described in a way that makes no sense.
    #[error("this actor cannot be detached: {reason}")]
    CannotDetach {
        /// What is wrong.
        reason: String,
    },
    /// Another detached actor has the name, in whatever job.
    #[error(
        "the name `{name}` belongs to a detached actor that {keeper} keeps: find it, stop it, or choose another name"
    )]
    NameHeld {
        /// The name.
        name: String,
        /// The job that keeps the actor.
        keeper: JobId,
    },
    /// The job that keeps detached actors could not be begun, or reached. Trying again is safe.
    #[error("no keeper for the detached actor: {reason}")]
    NoKeeper {
        /// What was tried.
        reason: String,
    },
}

/// What a node says about itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who it is.
    pub node: NodeId,
    /// Its process.
    pub pid: u32,
    /// Task slots.
    pub cpus: u32,
    /// Actors that live there now.
    pub actors: u64,
    /// Tells that reached no handler.
    pub dead_letters: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Control {
    Spawn {
        actor_type: String,
        schema: u64,
        #[serde(with = "serde_bytes")]
        args: Vec<u8>,
        options: SpawnOptions,
    },
    Order {
        actor: ActorId,
        kill: bool,
    },
    /// Answered when the actor has ended.
    AwaitEnd {
        actor: ActorId,
        /// Takes up what the spawn has kept of the actor's end, see [`SpawnOptions`].
        #[serde(default)]
        kept: bool,
    },
    /// Links an actor of the node with another, or takes the link away.
    Link {
        actor: ActorId,
        peer: ActorAddress,
        on: bool,
    },
    /// Answered when there is news of the actor's life that is later than what is known.
    NextLife {
        actor: ActorId,
        known: u64,
    },
    /// Supervisors of the asking node keep these children of theirs. Bears the newest time of the answering node that has
    /// come back.
    KeepChildren {
        children: Vec<ActorId>,
        heard: Option<Duration>,
    },
    /// A supervisor speaks to its child. Wants no answer.
    Supervise {
        child: ActorId,
        order: ChildOrder,
    },
    /// One end of a link speaks to the other. Wants no answer.
    Signal(Signal),
    /// To the head.
    Directory(DirectoryRequest),
    /// To the head: answered when the group is another than in the version that is known.
    FollowGroup {
        group: GroupName,
        known: Option<u64>,
    },
    /// To the actor's node: puts it into a group, or takes it out.
    ChangeGroup {
        actor: ActorId,
        group: GroupName,
        join: bool,
    },
    /// Answered when more actors of the node have got stuck than are known of.
    NextStuck {
        known: u64,
    },
    /// To the head.
    Lease(Box<LeaseRequest>),
    TaskRunners,
    Tree,
    Report,
    /// All actors of the node, so many at most.
    Actors {
        limit: usize,
    },
    /// From a process of another job to one that keeps detached actors.
    Guest(Box<GuestRequest>),
    /// Answered when the node is connected to this one, or the time is over.
    AwaitPeer {
        peer: NodeId,
        within: Duration,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ControlReply {
    Spawned(Result<ActorId, SpawnError>),
    Ordered,
    Linked(Result<(), CallError>),
    Ended(ExitReason),
    Life(LifeNews),
    /// By the answering node's clock.
    ChildrenKept {
        at: Duration,
    },
    Directory(Answer),
    GroupChanged(Result<u64, CallError>),
    Stuck {
        told: u64,
        events: Vec<StuckActor>,
    },
    Lease(Box<LeaseAnswer>),
    TaskRunners(Result<Vec<ActorId>, SpawnError>),
    Tree(SupervisionTree),
    Report(NodeReport),
    Actors(ActorList),
    Guest(Box<GuestAnswer>),
    PeerThere(bool),
}

impl Control {
    /// What a process of another job may ask for: actors that it knows, and those that it may know. All else is for the job's own.
    pub(crate) fn is_for_guests(&self) -> bool {
        match self {
            Control::Order { .. }
            | Control::AwaitEnd { kept: false, .. }
            | Control::Link { .. }
            | Control::NextLife { .. }
            | Control::Signal(_)
            | Control::Guest(_) => true,
            Control::AwaitEnd { .. }
            | Control::Spawn { .. }
            | Control::KeepChildren { .. }
            | Control::Supervise { .. }
            | Control::Directory(_)
            | Control::FollowGroup { .. }
            | Control::ChangeGroup { .. }
            | Control::NextStuck { .. }
            | Control::Lease(_)
            | Control::TaskRunners
            | Control::Tree
            | Control::Report
            | Control::Actors { .. }
            | Control::AwaitPeer { .. } => false,
        }
    }

    /// True if a lease runs out without it. It depends on nothing that was asked before it.
    fn keeps_a_lease(&self) -> bool {
        matches!(self, Control::Directory(DirectoryRequest::Renew { .. }) | Control::KeepChildren { .. })
    }
}

impl RemoteMessage for Control {
    const NAME: &'static str = "mobula::Control";
    const SCHEMA: u64 = schema_hash("5");
    type Reply = ControlReply;
}

/// Answers a request on the node's control runtime: creating an actor takes time, and no connection waits for it.
///
/// # Errors
/// [`SessionError`] if there is one with its id in progress already.
pub(crate) fn serve(
    node: &Node,
    link: &Arc<NodeLink>,
    serving: &Arc<Serving>,
    request: &Request<'_>,
) -> Result<(), SessionError> {
    let Some(id) = request.request else { return Ok(()) };
    let refuse = |error: &CallError| {
        link.fail(id, error);
        link.kick();
    };
    let control = match codec::decode::<Control>(&request.payload) {
        Ok(control) => control,
        Err(error) => {
            refuse(&CallError::Decode { reason: error.to_string(), reply: false });
            return Ok(());
        }
    };
    if !node.may_ask(link.peer().uid, &control) {
        let rule = "a process of another job calls actors here, and asks for nothing else".to_owned();
        refuse(&CallError::Unauthorized { rule });
        return Ok(());
    }
    if control.keeps_a_lease() {
        // It takes no time, so it is no work that counts, nor does its answer wait for any: who asks for much must not lose its
        // lease by that.
        if let Some(reply) = perform(node, &node.peer_of(link), control).now_or_never() {
            link.reply_ahead(id, |out| codec::encode_into(&reply, out));
            link.kick();
        }
        return Ok(());
    }
    let kind = match control {
        Control::AwaitEnd { .. }
        | Control::FollowGroup { .. }
        | Control::NextLife { .. }
        | Control::NextStuck { .. }
        | Control::AwaitPeer { .. }
        | Control::Lease(_) => Kind::Wait,
        _ => Kind::Work,
    };
    let begun = match serving.begin(id, kind) {
        Ok(begun) => begun,
        Err(NotBegun::Twice) => return Err(SessionError::RequestTwice { request: id.0 }),
        Err(NotBegun::TooMany(error)) => {
            refuse(&error);
            return Ok(());
        }
    };
    let (performed, link, own) = (perform(node, &node.peer_of(link), control), Arc::clone(link), node.clone());
    let served = Box::pin(async move {
        let reply = performed.await;
        let created = match &reply {
            ControlReply::Spawned(Ok(actor)) => Some(*actor),
            _ => None,
        };
        if !begun.finish(created) {
            return created.into_iter().for_each(|actor| discard(&own, actor));
        }
        // The news of an end must not overtake what was said before it.
        link.reply_in_order(id, |out| codec::encode_into(&reply, out));
        link.kick();
    });
    // References among an actor's arguments belong to this node, whatever other nodes the process has.
    let task = node.control_runtime().spawn(Within::new(node.clone(), served));
    serving.runs(id, task.abort_handle());
    Ok(())
}

/// Ends an actor of this node for good that nobody knows.
pub(crate) fn discard(node: &Node, actor: ActorId) {
    supervised::order(node, actor, ChildOrder::Discard);
}

/// What wants no answer: signals between linked actors, in the order in which they come.
pub(crate) fn hear(node: &Node, link: &Arc<NodeLink>, request: &Request<'_>) {
    match codec::decode::<Control>(&request.payload) {
        Ok(control) if !node.may_ask(link.peer().uid, &control) => {
            tracing::warn!(peer = %link.peer(), "a process of another job may not say that, dropped");
        }
        Ok(Control::Signal(signal)) => node.links().hear(node, link.peer(), signal),
        Ok(Control::Supervise { child, order }) => supervised::order(node, child, order),
        Ok(_) => tracing::debug!(peer = %link.peer(), "a request that wants no answer, dropped"),
        Err(error) => tracing::debug!(peer = %link.peer(), %error, "an unreadable signal, dropped"),
    }
}

/// Tells the node at the other end of `link`.
pub(crate) fn tell(link: &Arc<NodeLink>, control: &Control) -> Result<(), CallError> {
    let waiter = || Pending(Slot::<()>::new());
    link.tell(&call(Deadline::NEVER), waiter, |out| codec::encode_into(control, out)).map(|_| ())
}

/// Does on this node what a request of `from` asks for. What takes no time is done before this returns, in the order in which
/// requests come.
pub(crate) fn perform(node: &Node, from: &NodeId, control: Control) -> BoxFuture<'static, ControlReply> {
    let own = node.clone();
    match control {
        Control::Spawn { actor_type, schema, args, options } => {
            let from = from.clone();
            Box::pin(async move {
                let supervised = options.supervised.is_some() && from != *own.id();
                let spawned = spawn(&own, actor_type, schema, args, options).await;
                if let (true, Ok(child)) = (supervised, &spawned) {
                    own.child_care().begun(&own, *child, from.uid);
                }
                ControlReply::Spawned(spawned)
            })
        }
        Control::Order { actor, kill } => {
            if let Some(actor) = node.actor(actor) {
                actor.order(if kill { Order::Kill } else { Order::Stop(ExitReason::Shutdown) });
            }
            ready(ControlReply::Ordered)
        }
        Control::AwaitEnd { actor, kept } => {
            let kept = if kept { node.take_kept(actor) } else { None };
            let watch = kept.unwrap_or_else(|| Watch::of(node.actor(actor).as_ref()));
            Box::pin(watch.map(ControlReply::Ended))
        }
        Control::Link { actor, peer, on } => ready(ControlReply::Linked(node.links().change(node, actor, peer, on))),
        Control::NextLife { actor, known } => Box::pin(vitals::near(node, actor, known).map(ControlReply::Life)),
        Control::KeepChildren { children, heard } => {
            let at = node.child_care().kept(node, from.uid, children, heard);
            ready(ControlReply::ChildrenKept { at })
        }
        Control::Supervise { child, order } => {
            supervised::order(node, child, order);
            ready(ControlReply::Ordered)
        }
        // Signals come as tells.
        Control::Signal(_) => ready(ControlReply::Ordered),
        Control::FollowGroup { group, known } => {
            let served = Arc::clone(node.directory_end()).serve_follower(from.clone(), group, known);
            Box::pin(served.map(ControlReply::Directory))
        }
        Control::ChangeGroup { actor, group, join } => {
            Box::pin(async move { ControlReply::GroupChanged(own.change_own_group(actor, group, join).await) })
        }
        Control::Directory(request) => ready(ControlReply::Directory(node.directory_end().serve(from, request))),
        Control::NextStuck { known } => {
            let later = Arc::clone(node.watchdog()).later_than(known);
            Box::pin(later.map(|(told, events)| ControlReply::Stuck { told, events }))
        }
        Control::Lease(request) => {
            Box::pin(node.serve_lease(from, *request).map(|answer| ControlReply::Lease(Box::new(answer))))
        }
        Control::TaskRunners => Box::pin(async move { ControlReply::TaskRunners(own.task_runners().await) }),
        Control::Tree => ready(ControlReply::Tree(SupervisionTree::of(node))),
        Control::Report => ready(ControlReply::Report(node.report())),
        Control::Actors { limit } => ready(ControlReply::Actors(ActorList::of(node, limit))),
        Control::Guest(request) => {
            Box::pin(async move { ControlReply::Guest(Box::new(guest::serve(&own, *request).await)) })
        }
        Control::AwaitPeer { peer, within } => {
            let connected = node.connected(&peer);
            Box::pin(async move {
                let there = tokio::time::timeout(within, connected).await;
                ControlReply::PeerThere(there.unwrap_or(false))
            })
        }
    }
}

fn ready(reply: ControlReply) -> BoxFuture<'static, ControlReply> {
    Box::pin(futures::future::ready(reply))
}

async fn spawn(
    node: &Node,
    actor_type: String,
    theirs: u64,
    args: Vec<u8>,
    options: SpawnOptions,
) -> Result<ActorId, SpawnError> {
    if node.is_leaving() {
        return Err(SpawnError::NodeEnding);
    }
    let Some(entry) = node.registry().actor(&actor_type) else {
        return Err(SpawnError::UnknownActorType { actor_type, node: node.id().clone() });
    };
    if entry.schema != theirs {
        // Seen from the asking side: its hash is "ours".
        let (ours, theirs) = (theirs, entry.schema);
        return Err(SpawnError::SchemaMismatch { actor_type, node: node.id().clone(), ours, theirs });
    }
    (entry.spawn)(node.clone(), args, options).await
}

/// Asks the node at the other end of `link`.
pub(crate) fn request(link: &Arc<NodeLink>, control: &Control) -> Ask<Control> {
    request_until(link, control, scope::deadline().min(crate::ask::default_deadline()))
}

/// Asks for an actor to be created. If nobody waits for it any more, it is ended again.
pub(crate) fn create(link: &Arc<NodeLink>, control: &Control) -> Creation {
    let slot = Slot::new();
    let waiter = Pending(Arc::new(Creator { slot: Arc::clone(&slot), link: Arc::downgrade(link) }));
    let deadline = scope::deadline().min(crate::ask::default_deadline());
    let sent = link.ask(&call(deadline), waiter, |out| codec::encode_into(control, out));
    Creation { ask: Ask::far(slot, link, sent), link: Arc::clone(link) }
}

/// Who waits for an actor that is being created, as the connection sees it.
struct Creator {
    slot: Arc<Slot<ControlReply>>,
    link: Weak<NodeLink>,
}

impl Reply for Creator {
    fn answer(&self, answer: Result<&[u8], CallError>) {
        let answer = answer.and_then(|bytes| {
            codec::decode(bytes).map_err(|error| CallError::Decode { reason: error.to_string(), reply: true })
        });
        // Given up at the moment at which the answer came: a cancel is not sent any more then.
        if let Some(answer) = self.slot.offer(answer)
            && let Some(link) = self.link.upgrade()
        {
            take_back(&link, answer);
        }
    }
}

/// Nobody will ever know the actor whose creation is answered here.
fn take_back(link: &Arc<NodeLink>, answer: Result<ControlReply, CallError>) {
    if let Ok(ControlReply::Spawned(Ok(child))) = answer {
        let _ = tell(link, &Control::Supervise { child, order: ChildOrder::Discard });
    }
}

/// The answer to [`create`].
pub(crate) struct Creation {
    ask: Ask<Control>,
    link: Arc<NodeLink>,
}

impl Future for Creation {
    type Output = Result<ControlReply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.ask).poll(cx)
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        // An answer that has come is not taken back by a cancel.
        if let Some(answer) = self.ask.withdraw() {
            take_back(&self.link, answer);
        }
    }
}

/// Asks for something that may take as long as the link lasts.
pub(crate) fn request_for_ever(link: &Arc<NodeLink>, control: &Control) -> Ask<Control> {
    request_until(link, control, Deadline::NEVER)
}

/// Asks for something that may take as long as the link lasts; `waiter` gets the answer.
pub(crate) fn ask_for_ever(link: &Arc<NodeLink>, control: &Control, waiter: Pending) -> Result<RequestId, CallError> {
    let sent = link.ask(&call(Deadline::NEVER), waiter, |out| codec::encode_into(control, out));
    sent.map_err(|(error, _)| error)
}

fn call(deadline: Deadline) -> Call {
    Call { target: ActorId::NODE, key: Control::KEY, name: Control::NAME, schema: Control::SCHEMA, deadline }
}

/// Asks the node at the other end of `link`; what keeps a lease goes ahead of all else.
pub(crate) fn request_until(link: &Arc<NodeLink>, control: &Control, deadline: Deadline) -> Ask<Control> {
    let slot = Slot::new();
    let (call, waiter) = (call(deadline), Pending(slot.clone()));
    let body = |out: &mut BytesMut| codec::encode_into(control, out);
    let sent = match control.keeps_a_lease() {
        true => link.ask_ahead(&call, waiter, body),
        false => link.ask(&call, waiter, body),
    };
    Ask::far(slot, link, sent)
}
