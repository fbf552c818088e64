//! What an actor must say about itself to be created and called from afar, and how a new one is described.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mobula_core::cluster::{GroupId, LabelSelector, ToAmount};
use mobula_core::{ActorAddress, CallError, IdMap, MessageKey, NodeId, RemoteMessage, RestartPolicy, limits};
use mobula_transport::Payload;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::acceptance::Acceptance;
use crate::actor_ref::ActorRef;
use crate::cell::Shared;
use crate::envelope::{Envelope, Owed};
use crate::graceful;
use crate::inbound::Incoming;
use crate::keyed;
use crate::late::{self, Late};
use crate::mailbox::{Letter, MailboxPolicy, Placed, Refused};
use crate::placing::{self, Demand, Granted, Seat};
use crate::recipient::Recipient;
use crate::reply::ReplyTo;
use crate::snapshot::SnapshotPolicy;
use crate::stuck::StuckPolicy;
use crate::supervised::Supervised;

/// An actix actor that can be created on any node and called from any node.
///
/// Written by `#[mobula::actor]`, by [`remote_actor!`](crate::remote_actor), or by hand; a type written by hand is
/// registered with [`register_actor!`](crate::register_actor).
pub trait RemoteActor: Actor<Context = Context<Self>> {
    /// The name of the type on the wire: `<package>::<Type>` by default. One executable knows each name once.
    const NAME: &'static str;
    /// A hash of the constructor's arguments. Nodes that differ refuse to create the actor for each other.
    const SCHEMA: u64;
    /// What the actor is made from. Kept, since a restart makes it anew.
    type Args: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// Makes the actor, on the thread where it will live; again after each panic.
    fn make(args: Self::Args) -> Self;

    /// Lists the messages that may come from other nodes.
    fn messages(table: &mut MessageTable<Self>);

    /// Describes a new actor, to be handed to a node or a cluster.
    fn spec(args: Self::Args) -> ActorSpec<Self> {
        ActorSpec { args, options: SpawnOptions::default(), demand: Demand::default() }
    }
}

/// Where a new actor is to live.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Placement {
    /// The node that has the fewest actors of this driver.
    #[default]
    Default,
    /// The next node in turn.
    Spread,
    /// This life of this node and no other.
    Node(NodeId),
    /// Whichever life there is of the node with this name.
    Named {
        /// The name.
        name: String,
        /// Any other will do.
        soft: bool,
    },
    /// A node with such labels.
    Labels {
        /// Which.
        selector: LabelSelector,
        /// Any other will do.
        soft: bool,
    },
    /// Within what a placement group has set aside.
    Group {
        /// Which.
        group: GroupId,
        /// In this bundle, counted from 0; without it in the first that has room.
        bundle: Option<u32>,
    },
}

/// A description of an actor that does not exist yet: its arguments, its options, its place.
#[derive(Debug)]
pub struct ActorSpec<A: RemoteActor> {
    pub(crate) args: A::Args,
    pub(crate) options: SpawnOptions,
    pub(crate) demand: Demand,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SpawnOptions {
    pub(crate) name: Option<String>,
    pub(crate) restart: RestartPolicy,
    pub(crate) mailbox: usize,
    #[serde(default)]
    pub(crate) mailbox_policy: MailboxPolicy,
    pub(crate) own_thread: bool,
    #[serde(default = "concurrent_max")]
    pub(crate) concurrent_max: u32,
    /// It begins its life linked with this actor.
    #[serde(default)]
    pub(crate) link: Option<ActorAddress>,
    /// Its supervisor restarts it, not its own policy.
    #[serde(default)]
    pub(crate) supervised: Option<Box<Supervised>>,
    /// When its state is saved, if at all.
    #[serde(default)]
    pub(crate) snapshots: Option<SnapshotPolicy>,
    /// When it counts as stuck.
    #[serde(default)]
    pub(crate) stuck: StuckPolicy,
    /// Its end is kept for the monitor that the spawning node sets up behind the spawn.
    #[serde(default)]
    pub(crate) keep_end: bool,
    /// What it has of its node.
    #[serde(default)]
    pub(crate) granted: Option<Box<Granted>>,
    /// It is to outlive its job, and so is none of it: see [`Node::create_detached`].
    #[serde(default)]
    pub(crate) detached: bool,
}

fn concurrent_max() -> u32 {
    limits::CONCURRENT_HANDLERS_MAX
}

impl Default for SpawnOptions {
    fn default() -> Self {
        SpawnOptions {
            name: None,
            restart: RestartPolicy::default(),
            mailbox: limits::MAILBOX_MESSAGES,
            mailbox_policy: MailboxPolicy::default(),
            own_thread: false,
            concurrent_max: limits::CONCURRENT_HANDLERS_MAX,
            link: None,
            supervised: None,
            snapshots: None,
            stuck: StuckPolicy::default(),
            keep_end: false,
            granted: None,
            detached: false,
        }
    }
}

impl<A: RemoteActor> Clone for ActorSpec<A> {
    fn clone(&self) -> Self {
        ActorSpec { args: self.args.clone(), options: self.options.clone(), demand: self.demand.clone() }
    }
}

impl<A: RemoteActor> ActorSpec<A> {
    /// Gives the actor a name, by which every node finds it. At most one live actor of the cluster bears it. 1 to 512
    /// bytes ([`limits::NAME_BYTES_MAX`]).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// The actor outlives the job that creates it, however that ends, on a running cluster (`mobula start`): it goes on until it is
    /// [stopped](ActorRef::stop), fails for good, or its node is lost. It has to have a [name](Self::name), which is its own in the whole
    /// cluster: by that every job finds it, also one of another program.
    ///
    /// It belongs to a job that the head begins for all detached actors of this program, its keeper. What it takes it has as long as it lives. Detached
    /// actors are created by `Cluster::spawn` alone: neither monitored, linked nor supervised from their beginning.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.options.detached = true;
        self
    }

    /// True if it is [`detached`](Self::detached).
    pub fn is_detached(&self) -> bool {
        self.options.detached
    }

    /// Places the actor on this life of `node`.
    #[must_use]
    pub fn node_affinity(mut self, node: &NodeId) -> Self {
        self.demand.placement = Placement::Node(node.clone());
        self
    }

    /// Places the actor on the node with this name, whichever life of it there is.
    #[must_use]
    pub fn on_node(mut self, name: impl Into<String>) -> Self {
        self.demand.placement = Placement::Named { name: name.into(), soft: false };
        self
    }

    /// Places the actor on the node with this name, or on another if it cannot be there now.
    #[must_use]
    pub fn prefer_node(mut self, name: impl Into<String>) -> Self {
        self.demand.placement = Placement::Named { name: name.into(), soft: true };
        self
    }

    /// Places the actor on the next node in turn; if it asks for [resources](Self::cpus), on the least used one.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.demand.placement = Placement::Spread;
        self
    }

    /// Places the actor on a node with these labels, as in `zone=a,disk=ssd`.
    #[must_use]
    pub fn labels(mut self, labels: &str) -> Self {
        if let Some(selector) = self.demand.check("labels", placing::selector(labels)) {
            self.demand.placement = Placement::Labels { selector, soft: false };
        }
        self
    }

    /// Places the actor on a node with these labels, or on another if none of them has room.
    #[must_use]
    pub fn prefer_labels(mut self, labels: &str) -> Self {
        if let Some(selector) = self.demand.check("labels", placing::selector(labels)) {
            self.demand.placement = Placement::Labels { selector, soft: true };
        }
        self
    }

    /// Places the actor within what a placement group has set aside, in the first bundle that has room.
    #[must_use]
    pub fn in_group(mut self, group: impl Into<GroupId>) -> Self {
        self.demand.placement = Placement::Group { group: group.into(), bundle: None };
        self
    }

    /// Places the actor within this bundle of a placement group, counted from 0.
    #[must_use]
    pub fn in_bundle(mut self, group: impl Into<GroupId>, bundle: u32) -> Self {
        self.demand.placement = Placement::Group { group: group.into(), bundle: Some(bundle) };
        self
    }

    /// The actor takes so many cores of its node, as in `2` or `0.5`, from before it begins until its end is known. Nobody measures
    /// what it uses: this is for placing. Default none.
    ///
    /// What no node can ever give fails at once, with [`PlacementError::Infeasible`](crate::PlacementError::Infeasible); what is in use now is
    /// [waited for](Self::place_within).
    #[must_use]
    pub fn cpus(mut self, cpus: impl ToAmount) -> Self {
        if let Some(amount) = self.demand.check("cpus", cpus.to_amount()) {
            self.demand.resources.cpus = amount;
        }
        self
    }

    /// The actor takes so many GPUs: a part of one, as in `0.5`, or a whole number. Which they are says [`granted`](crate::granted).
    #[must_use]
    pub fn gpus(mut self, gpus: impl ToAmount) -> Self {
        if let Some(amount) = self.demand.check("gpus", gpus.to_amount()) {
            self.demand.resources.gpus = amount;
        }
        self
    }

    /// The actor takes so many bytes of memory.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        if let Some(amount) = self.demand.check("memory_bytes", bytes.to_amount()) {
            self.demand.resources.memory = amount;
        }
        self
    }

    /// The actor takes so much of a resource that operators have given this name.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: impl ToAmount) -> Self {
        if let Some(amount) = self.demand.check(name, amount.to_amount()) {
            self.demand.resources = std::mem::take(&mut self.demand.resources).with(name, amount);
        }
        self
    }

    /// How long the actor may wait for a node with room; zero for not at all. Default [`limits::PLACE_DEADLINE`], and never longer than the
    /// call within which it is created.
    #[must_use]
    pub fn place_within(mut self, time: Duration) -> Self {
        self.demand.within = Some(time);
        self
    }

    /// Gives the actor a process of its own on its node, which is started for it and ended with it: what ends or blocks that process ends or blocks nobody else,
    /// and it sees the GPUs that the actor has and no others. Nothing else is placed there; what the actor itself creates beside it is its own. The actor's end is
    /// the process's, and the other way round; restarts after a panic stay within it.
    ///
    /// Costs the start of a process, and two connections to each other process of the cluster. A node has at most
    /// [`limits::ISOLATED_WORKERS_MAX`]. A cluster inside its driver's process has no others, and refuses it with
    /// [`PlacementError::Bad`](crate::PlacementError::Bad).
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.demand.isolated = true;
        self
    }

    /// Restarts allowed within 10 s. Default 3; 0 ends the actor with its first panic.
    #[must_use]
    pub fn restarts(mut self, max: u32) -> Self {
        self.options.restart.restarts_max = max;
        self
    }

    /// The whole restart policy.
    #[must_use]
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.options.restart = policy;
        self
    }

    /// Rest before the first restart. Default 50 ms, doubling.
    #[must_use]
    pub fn backoff(mut self, min: Duration) -> Self {
        self.options.restart.backoff_min = min;
        self
    }

    /// Messages that fit into the mailbox before senders wait. Default [`limits::MAILBOX_MESSAGES`], at least 1.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.options.mailbox = messages;
        self
    }

    /// What becomes of messages for which the mailbox has no room. Default [`MailboxPolicy::Wait`].
    #[must_use]
    pub fn mailbox_policy(mut self, policy: MailboxPolicy) -> Self {
        self.options.mailbox_policy = policy;
        self
    }

    /// Handlers that may wait beside each other, in futures of their own; `async fn`s with `&self` are such. While so many do, the
    /// actor takes no further message: its mailbox fills, and senders wait. Default [`limits::CONCURRENT_HANDLERS_MAX`], at
    /// least 1. Handlers that wait for a message to their own actor then wait for each other, until their deadlines.
    #[must_use]
    pub fn concurrent_handlers(mut self, max: u32) -> Self {
        self.options.concurrent_max = max;
        self
    }

    /// Gives the actor a thread of its own, for handlers that compute or block. Costs a thread.
    #[must_use]
    pub fn own_thread(mut self) -> Self {
        self.options.own_thread = true;
        self
    }

    /// After which time with one turn, or with one handler that has it to itself, the actor is reported as stuck: see
    /// [`Node::watch_stuck`](crate::Node::watch_stuck). At least 1 ms; `Duration::MAX` for never. Default
    /// [`limits::STUCK_AFTER`], 30 s.
    #[must_use]
    pub fn stuck_after(mut self, time: Duration) -> Self {
        self.options.stuck = self.options.stuck.after(time);
        self
    }

    /// Ends the actor when it is stuck, with [`ExitReason::Killed`](mobula_core::ExitReason::Killed); if it has a
    /// supervisor, that decides what follows. Default: it is reported, and left alone.
    ///
    /// A handler that waits is dropped. A turn that holds its thread cannot be ended: the actor is *declared* ended. Its
    /// mail is answered `Stopped`, its name is free, monitors are told, its supervisor starts another; no new actor is placed on
    /// its thread until the turn ends, and actors that live there wait that long. A thread of its own ends with the turn. The
    /// call that is being handled ends at its deadline. What the turn still does cannot be undone, and may go on beside the
    /// next holder of the actor's name: effects outside are guarded by [`fence`](crate::fence).
    #[must_use]
    pub fn kill_when_stuck(mut self) -> Self {
        self.options.stuck.kill = true;
        self
    }

    /// Where the actor is to live.
    pub fn placement(&self) -> &Placement {
        &self.demand.placement
    }

    /// What the actor takes, and where it may be.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// The actor has what `seat` has.
    pub fn seated(&mut self, seat: &Seat) {
        self.options.granted = seat.granted();
    }
}

/// The messages that one type of actor takes from other nodes.
pub struct MessageTable<A> {
    routes: Routes,
    actor: PhantomData<fn(A)>,
}

impl<A: RemoteActor> MessageTable<A> {
    /// Lets `M` come from other nodes.
    pub fn accept<M>(&mut self)
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let route = Route {
            name: M::NAME,
            schema: M::SCHEMA,
            dispatch: dispatch::<A, M>,
            keyed: keyed::dispatch::<A, M>,
            recipient: recipient::<A, M>,
        };
        self.routes.by_key.insert(M::KEY.0, route);
    }
}

impl<A> std::fmt::Debug for MessageTable<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.by_key.values().map(|route| route.name)).finish()
    }
}

pub(crate) struct Routes {
    pub(crate) actor_type: &'static str,
    by_key: IdMap<u64, Route>,
}

#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) schema: u64,
    pub(crate) dispatch: Dispatch,
    /// For a message that bears the key of its actor.
    keyed: Dispatch,
    recipient: MakeRecipient,
}

/// Makes a `Recipient<M>`, its type forgotten, of an actor whose type it knows.
type MakeRecipient = fn(&dyn Any) -> Option<Box<dyn Any>>;

/// Decodes a message and puts it into the mailbox of an actor, whose type it knows.
pub(crate) type Dispatch = fn(&dyn Any, Incoming<'_>) -> Result<(), CallError>;

impl Route {
    /// The route of a message that the cell itself takes, of every actor.
    pub(crate) fn built_in(name: &'static str, schema: u64, dispatch: Dispatch) -> Self {
        Route { name, schema, dispatch, keyed: dispatch, recipient: |_| None }
    }
}

impl Routes {
    /// The routes of an actor type, made once per process.
    pub(crate) fn of<A: RemoteActor>() -> &'static Routes {
        static ALL: Mutex<Option<HashMap<TypeId, &'static Routes>>> = Mutex::new(None);
        ALL.lock().get_or_insert_default().entry(TypeId::of::<A>()).or_insert_with(|| {
            let routes = Routes { actor_type: A::NAME, by_key: IdMap::default() };
            let mut table = MessageTable { routes, actor: PhantomData::<fn(A)> };
            A::messages(&mut table);
            let (key, graceful) = graceful::route::<A>();
            table.routes.by_key.insert(key, graceful);
            Box::leak(Box::new(table.routes))
        })
    }

    /// The routes to all keyed actors of a type, made once per process.
    pub(crate) fn of_keyed<A: RemoteActor>() -> &'static Routes {
        static ALL: Mutex<Option<HashMap<TypeId, &'static Routes>>> = Mutex::new(None);
        let plain = Self::of::<A>();
        ALL.lock().get_or_insert_default().entry(TypeId::of::<A>()).or_insert_with(|| {
            let by_key = plain.by_key.iter().map(|(key, route)| (*key, Route { dispatch: route.keyed, ..*route }));
            Box::leak(Box::new(Routes { actor_type: A::NAME, by_key: by_key.collect() }))
        })
    }

    pub(crate) fn find(&self, key: MessageKey, name: &str, schema: u64) -> Result<Dispatch, CallError> {
        match self.by_key.get(&key.0) {
            Some(route) if route.name == name && route.schema == schema => Ok(route.dispatch),
            Some(route) if route.name == name => {
                Err(CallError::SchemaMismatch { name: name.to_owned(), ours: route.schema, theirs: schema })
            }
            _ => Err(CallError::UnknownMessage { message: name.to_owned(), actor_type: self.actor_type.to_owned() }),
        }
    }

    /// True if the message with this registered name may come from other nodes.
    pub(crate) fn takes(&self, message: &str) -> bool {
        self.by_key.get(&MessageKey::of(message).0).is_some_and(|route| route.name == message)
    }

    /// A recipient of `M` that is the actor itself.
    pub(crate) fn recipient<M: RemoteMessage>(&self, actor: &dyn Any) -> Option<Recipient<M>> {
        let made = (self.by_key.get(&M::KEY.0)?.recipient)(actor)?;
        made.downcast().ok().map(|recipient| *recipient)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.by_key.values()
    }
}

fn recipient<A, M>(actor: &dyn Any) -> Option<Box<dyn Any>>
where
    A: RemoteActor + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let shared = actor.downcast_ref::<Arc<Shared<A>>>()?;
    Some(Box::new(Recipient::<M>::from(ActorRef::near(Arc::clone(shared)))))
}

fn dispatch<A, M>(actor: &dyn Any, incoming: Incoming<'_>) -> Result<(), CallError>
where
    A: RemoteActor + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let Some(shared) = actor.downcast_ref::<Arc<Shared<A>>>() else {
        // Routes are looked up by the actor they belong to.
        return Err(CallError::UnknownMessage { message: M::NAME.to_owned(), actor_type: A::NAME.to_owned() });
    };
    let Incoming { payload, request, post, deadline, flow, ticket } = incoming;
    // An answer that is owed keeps the ticket itself.
    let owed = |ticket| match request {
        None => (Owed::Nothing, Some(ticket)),
        Some(request) if post => (Owed::Acceptance(Acceptance::far(Arc::clone(flow), request)), Some(ticket)),
        Some(request) => (Owed::Answer(ReplyTo::far(ticket, request)), None),
    };
    match payload {
        Payload::Reassembled(bytes) if bytes.len() >= limits::DECODE_APART_BYTES && shared.node.has_threads() => {
            let (owed, ticket) = owed(ticket);
            let acceptance = owed.acceptance();
            arrive(shared, Late::<M>::begin(shared, bytes, owed, deadline, ticket), acceptance);
        }
        payload => {
            let message: M = late::decode(&payload)?;
            let (owed, ticket) = owed(ticket);
            let acceptance = owed.acceptance();
            arrive(shared, Envelope::incoming(message, owed, deadline, ticket), acceptance);
        }
    }
    Ok(())
}

/// Other nodes are bounded by their credit, so their mail has a place even in a full mailbox, if its policy is to wait.
fn arrive<A: RemoteActor>(shared: &Shared<A>, letter: Box<dyn Letter<A>>, acceptance: Option<Arc<Acceptance>>) {
    match shared.put(letter) {
        Ok(Placed::InLine(_)) => {}
        Ok(Placed::Inside) => {
            if let Some(acceptance) = acceptance {
                acceptance.accept();
            }
        }
        Err(Refused { letter, error, .. }) => shared.dismiss(letter, error),
    }
}

/// Makes a plain actix actor one that can be created and called from afar, and registers it: one line that names its
/// arguments, its constructor, and the messages that other nodes may send.
///
/// ```ignore
/// mobula::remote_actor!(Counter, args: i64, create: |start| Counter { count: start }, messages: [Increment, Get]);
/// ```
#[macro_export]
macro_rules! remote_actor {
    ($actor:ty, args: $args:ty, create: $create:expr, messages: [$($message:ty),* $(,)?] $(,)?) => {
        impl $crate::RemoteActor for $actor {
            const NAME: &'static str =
                ::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", ::core::stringify!($actor));
            const SCHEMA: u64 = $crate::schema_hash(::core::stringify!($args));
            type Args = $args;

            fn make(args: Self::Args) -> Self {
                let create: fn($args) -> $actor = $create;
                create(args)
            }

            fn messages(table: &mut $crate::MessageTable<Self>) {
                $(table.accept::<$message>();)*
            }
        }
        $crate::register_actor!($actor);
    };
}

/// Registers a type whose [`RemoteActor`] was written by hand, so that nodes running this executable can create it.
#[macro_export]
macro_rules! register_actor {
    ($actor:ty) => {
        $crate::private::inventory::submit! { $crate::ActorEntry::of::<$actor>() }
    };
}
