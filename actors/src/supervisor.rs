//! A supervisor: an actor that starts its children, restarts them when they fail, and stops them when it ends.
//!
//! What to do is decided by [`Supervision`]; this is its driver. A child's lives follow one another in the same cell, so
//! its id, references, name and monitors stay. The supervisor hears of them by [`vitals`], which works alike for children
//! on its own node and on others.

use std::collections::BTreeMap;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Running, SpawnHandle};
use actix::{ResponseActFuture, WrapFuture};
use mobula_core::{
    ActorAddress, CallError, ChildError, ChildKey, Effect, ExitReason, RemoteMessage, Supervision, schema_hash,
};
use mobula_transport::now;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::actor::{MessageTable, RemoteActor};
use crate::actor_ref::ActorRef;
use crate::cell::AnyShared;
use crate::child::{ChildInfo, ChildSpec, SupervisorError, SupervisorSpec};
use crate::control::SpawnError;
use crate::mailbox::Order;
use crate::node::Node;
use crate::placing::Seat;
use crate::registry::ActorEntry;
use crate::scope::{self, Within};
use crate::supervised::{self, ChildOrder, Supervised};
use crate::vitals::{self, LifeNews, Phase};

/// An actor that supervises others, made from a [`SupervisorSpec`]: `Supervisor::spec(..)`.
///
/// Children start in order, each after the one before has started, and stop in reverse. A child that fails begins again
/// as its [`RestartType`](mobula_core::RestartType) and the supervisor's [`Strategy`](mobula_core::Strategy) say, and
/// keeps its id, references and name. When the restarts allowed are used up, the supervisor stops its children and ends
/// with [`ExitReason::ChildFailed`]; its own supervisor then decides about it in turn.
///
/// `stop` on a child's reference ends one life of it; [`TerminateChild`] ends it for good. A supervisor that is killed or
/// panics takes its children with it.
#[derive(Debug)]
pub struct Supervisor {
    node: Node,
    own: ActorAddress,
    machine: Supervision,
    /// What it begins with.
    first: Vec<ChildSpec>,
    children: BTreeMap<ChildKey, Child>,
    timer: Option<SpawnHandle>,
    /// True when every child that is to run does.
    settled: watch::Sender<bool>,
}

#[derive(Debug)]
struct Child {
    spec: ChildSpec,
    at: Option<ActorAddress>,
    /// Tells the answer to this spawn from one that was given up.
    attempt: u64,
    /// What it has to be told once it is there.
    then: Option<ChildOrder>,
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let first = std::mem::take(&mut self.first);
        // Twice the same name is refused as it would be later.
        for child in &first {
            if first.iter().filter(|other| other.id == child.id).count() > 1 {
                scope::stop_with(SupervisorError::Taken { id: child.id.clone() });
                return;
            }
        }
        // It has just been made, and nobody has told it to stop.
        let _ = self.add(first);
        self.drive(ctx);
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        self.machine.stop(now());
        self.drive(ctx);
        if self.machine.is_over() {
            return Running::Stop;
        }
        // It ends when its last child has.
        scope::put_off_stop();
        Running::Continue
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // After an end in order there are none left.
        for at in self.children.values().filter_map(|child| child.at.as_ref()) {
            self.node.child_care().let_go(at);
            supervised::send(&self.node, at, ChildOrder::Discard);
        }
    }
}

impl Supervisor {
    fn add(&mut self, specs: Vec<ChildSpec>) -> Result<(), ChildError> {
        let keys = self.machine.add(specs.iter().map(|spec| (spec.restart, spec.shutdown)), now())?;
        for (key, spec) in keys.into_iter().zip(specs) {
            self.children.insert(key, Child { spec, at: None, attempt: 0, then: None });
        }
        Ok(())
    }

    /// Does what the machine says, and comes back when it wants to.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        loop {
            let effects = self.machine.poll_effects();
            if effects.is_empty() {
                break;
            }
            effects.into_iter().for_each(|effect| self.perform(effect, ctx));
        }
        let known = &self.machine;
        self.children.retain(|key, _| known.state_of(*key).is_some());
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = self.machine.next_tick() {
            let wait = at.saturating_duration_since(now());
            self.timer = Some(ctx.run_later(wait, |this, ctx| {
                this.timer = None;
                this.machine.tick(now());
                this.drive(ctx);
            }));
        }
        self.settled.send_replace(self.machine.is_settled());
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Start(key) => self.start(key, ctx),
            Effect::Stop(key) => self.tell(key, ChildOrder::Stop),
            Effect::Kill(key) => self.tell(key, ChildOrder::Kill),
            Effect::Dismiss(key) => self.part(key, ChildOrder::Dismiss),
            Effect::Abandon(key) => self.part(key, ChildOrder::Discard),
            Effect::End(None) => ctx.stop(),
            Effect::End(Some((key, cause))) => {
                let child = self.children.get(&key).map_or_else(String::new, |child| child.spec.id.clone());
                if let Some(own) = scope::this_shared::<Self>() {
                    AnyShared::order(&*own, Order::Exit(ExitReason::child_failed(child, cause)));
                }
            }
        }
    }

    fn start(&mut self, key: ChildKey, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if let Some(at) = &child.at {
            return supervised::send(&self.node, at, ChildOrder::Begin);
        }
        child.attempt += 1;
        child.then = None;
        let (attempt, spec, node) = (child.attempt, child.spec.clone(), self.node.clone());
        let by = Supervised { by: self.own.clone(), child: spec.id.clone(), orphans: spec.orphans };
        let (tell, told) = oneshot::channel();
        // Not in this actor's context: a child that comes to life after its supervisor has gone must be taken back.
        let spawning = Box::pin(async move {
            let spawned = spawn(&node, spec, by).await;
            if let Err(Ok(orphan)) = tell.send(spawned) {
                supervised::send(&node, &orphan, ChildOrder::Discard);
            }
        });
        // References among a child's arguments belong to this node.
        self.node.control_runtime().spawn(Within::new(self.node.clone(), spawning));
        let told = async { told.await.unwrap_or(Err(SpawnError::NodeEnding)) };
        ctx.spawn(told.into_actor(self).map(move |spawned, this, ctx| this.spawned(key, attempt, spawned, ctx)));
    }

    fn spawned(
        &mut self,
        key: ChildKey,
        attempt: u64,
        spawned: Result<ActorAddress, SpawnError>,
        ctx: &mut Context<Self>,
    ) {
        let child = self.children.get_mut(&key).filter(|child| child.attempt == attempt);
        match (spawned, child) {
            (Ok(at), Some(child)) => {
                child.at = Some(at.clone());
                if at.node != *self.node.id() {
                    self.node.child_care().keep(&at, self.own.actor);
                }
                if let Some(order) = child.then.take() {
                    supervised::send(&self.node, &at, order);
                }
                self.listen(key, at, 0, ctx);
            }
            (Ok(at), None) => supervised::send(&self.node, &at, ChildOrder::Discard),
            (Err(error), Some(_)) => {
                self.machine.ended(key, reason_of(error), now(), self.node.chance().fraction());
                self.drive(ctx);
            }
            (Err(_), None) => {}
        }
    }

    /// Waits for news of a child that are later than the number `known`.
    fn listen(&self, key: ChildKey, at: ActorAddress, known: u64, ctx: &mut Context<Self>) {
        let news = vitals::next(&self.node, &at, known);
        ctx.spawn(news.into_actor(self).map(move |news, this, ctx| this.heard(key, at, news, ctx)));
    }

    fn heard(&mut self, key: ChildKey, at: ActorAddress, news: LifeNews, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&key).filter(|child| child.at.as_ref() == Some(&at)) else { return };
        let jitter = self.node.chance().fraction();
        match news.phase {
            Phase::Unborn => {}
            Phase::Running => self.machine.started(key, now()),
            Phase::Between(reason) => self.machine.ended(key, reason, now(), jitter),
            Phase::Over(reason) => {
                child.at = None;
                self.node.child_care().let_go(&at);
                self.machine.ended(key, reason, now(), jitter);
                return self.drive(ctx);
            }
        }
        self.listen(key, at, news.number, ctx);
        self.drive(ctx);
    }

    fn tell(&mut self, key: ChildKey, order: ChildOrder) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match &child.at {
            Some(at) => supervised::send(&self.node, at, order),
            None => child.then = Some(order),
        }
    }

    /// Tells a child the last thing that it hears from here.
    fn part(&mut self, key: ChildKey, order: ChildOrder) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.attempt += 1;
        if let Some(at) = child.at.take() {
            self.node.child_care().let_go(&at);
            supervised::send(&self.node, &at, order);
        }
    }

    fn key(&self, id: &str) -> Result<ChildKey, SupervisorError> {
        let found = self.children.iter().find(|(_, child)| child.spec.id == id);
        let unknown = || SupervisorError::Child { id: id.to_owned(), error: ChildError::Unknown };
        found.map(|(key, _)| *key).ok_or_else(unknown)
    }

    fn infos(&self) -> Vec<ChildInfo> {
        let info = |key| {
            let Child { spec, at, .. } = self.children.get(&key)?;
            Some(ChildInfo {
                id: spec.id.clone(),
                actor_type: spec.actor_type.clone(),
                actor: at.clone(),
                restart: spec.restart,
                state: self.machine.state_of(key)?,
            })
        };
        self.machine.children().filter_map(info).collect()
    }

    fn change(
        &mut self,
        id: &str,
        ctx: &mut Context<Self>,
        change: impl FnOnce(&mut Supervision, ChildKey) -> Result<(), ChildError>,
    ) -> Result<(), SupervisorError> {
        let key = self.key(id)?;
        let changed = change(&mut self.machine, key);
        self.drive(ctx);
        changed.map_err(|error| SupervisorError::Child { id: id.to_owned(), error })
    }
}

async fn spawn(node: &Node, spec: ChildSpec, by: Supervised) -> Result<ActorAddress, SpawnError> {
    let ChildSpec { actor_type, schema, args, mut options, demand, .. } = spec;
    let args = args.map_err(|reason| SpawnError::BadArguments { actor_type: actor_type.clone(), reason })?;
    options.supervised = Some(Box::new(by));
    let seat = match demand.needs_lease() {
        true => node.seat(&demand).await?,
        false => Seat::free(node.place(&demand.placement)?),
    };
    options.granted = seat.granted();
    let at = seat.node().clone();
    let actor = node.spawn_encoded(&at, actor_type, schema, args.into_vec(), options).await?;
    seat.hold(actor);
    Ok(ActorAddress { node: at, actor })
}

/// As the failure of a child that did not come to life.
fn reason_of(error: SpawnError) -> ExitReason {
    match error {
        SpawnError::Panicked { text } => ExitReason::Panicked { text },
        SpawnError::Ended { reason } => reason,
        SpawnError::Call(CallError::Unreachable { reason, .. }) => ExitReason::NoConnection { reason },
        SpawnError::Call(CallError::Quarantined { reason, .. }) => ExitReason::Quarantined { reason },
        other => ExitReason::Error { text: other.to_string() },
    }
}

impl RemoteActor for Supervisor {
    const NAME: &'static str = "mobula::Supervisor";
    const SCHEMA: u64 = schema_hash("1");
    type Args = SupervisorSpec;

    fn make(spec: SupervisorSpec) -> Self {
        // A constructor runs in its actor's turn.
        let own = scope::this_shared::<Self>().map(|own| (own.node.clone(), own.id));
        let Some((node, actor)) = own else { panic!("a supervisor is made by its node, not by hand") };
        Supervisor {
            own: ActorAddress { node: node.id().clone(), actor },
            node,
            machine: Supervision::new(spec.strategy, spec.policy),
            first: spec.children,
            children: BTreeMap::new(),
            timer: None,
            settled: watch::Sender::new(false),
        }
    }

    fn messages(table: &mut MessageTable<Self>) {
        table.accept::<Children>();
        table.accept::<AddChild>();
        table.accept::<TerminateChild>();
        table.accept::<RestartChild>();
        table.accept::<DeleteChild>();
    }
}

inventory::submit! { ActorEntry::of::<Supervisor>() }

macro_rules! message {
    ($message:ty, $name:literal, $reply:ty) => {
        impl Message for $message {
            type Result = $reply;
        }

        impl RemoteMessage for $message {
            const NAME: &'static str = $name;
            const SCHEMA: u64 = schema_hash("1");
            type Reply = $reply;
        }
    };
}

/// Asks a [`Supervisor`] for its children, in the order of their start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Children {
    /// Answer only when no child is about to start, stop or restart.
    pub settled: bool,
}

message!(Children, "mobula::Children", Vec<ChildInfo>);

impl Handler<Children> for Supervisor {
    type Result = ResponseActFuture<Self, Vec<ChildInfo>>;

    fn handle(&mut self, Children { settled }: Children, _: &mut Context<Self>) -> Self::Result {
        let mut state = self.settled.subscribe();
        let wait = async move {
            if settled {
                // The sender is the actor's own.
                let _ = state.wait_for(|settled| *settled).await;
            }
        };
        Box::pin(wait.into_actor(self).map(|(), this, _| this.infos()))
    }
}

/// Adds a child to a [`Supervisor`] and starts it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddChild(pub ChildSpec);

message!(AddChild, "mobula::AddChild", Result<(), SupervisorError>);

impl Handler<AddChild> for Supervisor {
    type Result = Result<(), SupervisorError>;

    fn handle(&mut self, AddChild(spec): AddChild, ctx: &mut Context<Self>) -> Self::Result {
        let id = spec.id.clone();
        if self.key(&id).is_ok() {
            return Err(SupervisorError::Taken { id });
        }
        self.add(vec![spec]).map_err(|error| SupervisorError::Child { id, error })?;
        self.drive(ctx);
        Ok(())
    }
}

/// Stops a child of a [`Supervisor`] for good. Answered when it has been told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TerminateChild(pub String);

message!(TerminateChild, "mobula::TerminateChild", Result<(), SupervisorError>);

impl Handler<TerminateChild> for Supervisor {
    type Result = Result<(), SupervisorError>;

    fn handle(&mut self, TerminateChild(id): TerminateChild, ctx: &mut Context<Self>) -> Self::Result {
        self.change(&id, ctx, |machine, key| machine.terminate(key, now()))
    }
}

/// Starts a child of a [`Supervisor`] that has ended or was terminated. It is a new actor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartChild(pub String);

message!(RestartChild, "mobula::RestartChild", Result<(), SupervisorError>);

impl Handler<RestartChild> for Supervisor {
    type Result = Result<(), SupervisorError>;

    fn handle(&mut self, RestartChild(id): RestartChild, ctx: &mut Context<Self>) -> Self::Result {
        self.change(&id, ctx, |machine, key| machine.restart(key, now()))
    }
}

/// Makes a [`Supervisor`] forget a child that does not run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteChild(pub String);

message!(DeleteChild, "mobula::DeleteChild", Result<(), SupervisorError>);

impl Handler<DeleteChild> for Supervisor {
    type Result = Result<(), SupervisorError>;

    fn handle(&mut self, DeleteChild(id): DeleteChild, ctx: &mut Context<Self>) -> Self::Result {
        self.change(&id, ctx, |machine, key| machine.delete(key))
    }
}

impl ActorRef<Supervisor> {
    /// The child that the supervisor calls `id`, once no child is about to start or restart. None if there is none that
    /// runs, or if it is not an `A`.
    ///
    /// # Errors
    /// [`CallError`] if the supervisor cannot be asked.
    pub async fn child<A: RemoteActor>(&self, id: &str) -> Result<Option<ActorRef<A>>, CallError> {
        let children = self.ask(Children { settled: true }).await?;
        let child = children.into_iter().find(|child| child.id == id && child.actor_type == A::NAME);
        let node = self.via();
        Ok(child.and_then(|child| child.actor).map(|ActorAddress { node: at, actor }| match node {
            Some(node) => node.reference(&at, actor),
            None => ActorRef::far(at, actor, None),
        }))
    }
}
