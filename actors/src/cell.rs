//! The cell: the future in which an actor lives. The only module that touches actix's internals.
//!
//! It polls control first, then the actor's context, catches panics around that, and starts the next life as the
//! restart policy says. Mail is kept in our own mailbox, outside the context: a new life is a new context with a new
//! actor, and finds its mail where the last one left it. The context's own timers and futures end with their life.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, AsyncContext, Context};
use mobula_core::{
    ActorId, CallError, Decision, ExitReason, Fence, Generation, RestartBudget, RestartPolicy, limits, panic_text,
};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::actor::SpawnOptions;
use crate::control::SpawnError;
use crate::directory::{Afterwards, Tenure};
use crate::link::Exit;
use crate::mailbox::{Mailbox, Order};
use crate::monitor::End;
use crate::node::{Load, Node};
use crate::placing::Granted;
use crate::scope::{self, Place};
use crate::snapshot::Keeper;
use crate::stuck::StuckPolicy;
use crate::supervised::Supervised;
use crate::timers::{Alarm, TimerRows};
use crate::vitals::{Phase, Vitals};

/// A life that has ended, and the panic's text if it was one.
type LastEnd = (Generation, Option<String>);

/// Makes a message of the end of a linked actor.
pub(crate) type Trap<A> = fn(&Arc<Shared<A>>, Exit);

/// What an actor has beside its arguments.
struct Standing {
    tenure: Option<Tenure>,
    snapshots: Option<Arc<Keeper>>,
}

/// What an actor's cell and its references share.
pub(crate) struct Shared<A: Actor<Context = Context<A>>> {
    pub(crate) id: ActorId,
    pub(crate) node: Node,
    /// What it is known by beyond this life of its node, if anything: its name.
    pub(crate) identity: Option<String>,
    /// Set before its first life begins.
    standing: OnceLock<Box<Standing>>,
    pub(crate) mailbox: Mailbox<A>,
    pub(crate) end: End,
    pub(crate) timers: TimerRows<A>,
    /// On a thread of its own, where handlers may compute or block for as long as they like.
    own_thread: bool,
    generation: AtomicU32,
    concurrent_max: u32,
    /// Handlers whose futures run beside the others.
    concurrent: AtomicU32,
    pub(crate) vitals: Vitals,
    /// Who restarts it, if not its own policy.
    pub(crate) supervised: Option<Box<Supervised>>,
    /// Set while ends of linked actors are messages to this one.
    trap: Mutex<Option<Trap<A>>>,
    /// The life that ended last, and the panic's text if it was one; it explains replies that were lost with that life.
    last_panic: Mutex<Option<Box<LastEnd>>>,
    pub(crate) stuck: StuckPolicy,
    granted: Option<Box<Granted>>,
    /// Taken by whoever ends it: its cell, or the watchdog.
    on_end: Mutex<Option<OnEnd>>,
}

impl<A: Actor<Context = Context<A>>> Shared<A> {
    pub(crate) fn new(id: ActorId, node: Node, options: &SpawnOptions, identity: Option<String>) -> Self {
        Shared {
            id,
            node,
            identity,
            standing: OnceLock::new(),
            mailbox: Mailbox::new(options.mailbox, options.mailbox_policy),
            end: End::default(),
            timers: TimerRows::default(),
            own_thread: options.own_thread,
            generation: AtomicU32::new(0),
            concurrent_max: options.concurrent_max.max(1),
            concurrent: AtomicU32::new(0),
            vitals: Vitals::default(),
            supervised: options.supervised.clone(),
            trap: Mutex::new(None),
            last_panic: Mutex::new(None),
            stuck: options.stuck,
            granted: options.granted.clone(),
            on_end: Mutex::new(None),
        }
    }

    /// It has what it needs to begin: its name, if it is to have one, and what was saved of it.
    pub(crate) fn stand(&self, tenure: Option<Tenure>, snapshots: Option<Arc<Keeper>>) {
        if tenure.is_some() || snapshots.is_some() {
            // Said once, by whoever creates it.
            let _ = self.standing.set(Box::new(Standing { tenure, snapshots }));
        }
    }

    /// False while it waits for its name.
    pub(crate) fn has_standing(&self) -> bool {
        self.identity.is_none() || self.standing.get().is_some()
    }

    fn tenure(&self) -> Option<&Tenure> {
        self.standing.get()?.tenure.as_ref()
    }

    pub(crate) fn snapshots(&self) -> Option<&Arc<Keeper>> {
        self.standing.get()?.snapshots.as_ref()
    }

    /// It has ended, or will never live: tells everybody. Nothing of it is left.
    pub(crate) fn tell_end(&self, lived: bool, reason: &ExitReason) {
        self.node.links().ended(&self.node, self.id, lived, reason);
        self.vitals.change(self.generation(), Phase::Over(reason.clone()));
        self.end.publish(reason);
    }

    /// Takes no mail any more, and refuses what there is.
    pub(crate) fn shut(&self) {
        if let Some(snapshots) = self.snapshots() {
            snapshots.close();
        }
        for letter in self.mailbox.close() {
            // A message's own `Drop` may panic; the others are answered all the same, and the end is told.
            let _ = catch_unwind(AssertUnwindSafe(|| self.dismiss(letter, CallError::Stopped)));
        }
    }

    pub(crate) fn on_end(&self, on_end: OnEnd) {
        *self.on_end.lock() = Some(on_end);
    }

    /// It has ended for good: answers its mail, and tells everybody. Gives its place on an arbiter. Nothing happens if it has
    /// ended before.
    fn conclude(
        self: &Arc<Self>,
        reason: ExitReason,
        started: Option<oneshot::Sender<Result<(), SpawnError>>>,
        stillborn: Option<String>,
    ) -> Option<Load> {
        let on_end = self.on_end.lock().take()?;
        self.shut();
        let shared = Arc::clone(self);
        // Its name is free before anybody hears of its end.
        on_end(Afterwards::new(move || {
            shared.tell_end(started.is_none(), &reason);
            if let Some(started) = started {
                let ended = match stillborn {
                    Some(text) => SpawnError::Panicked { text },
                    None => SpawnError::Ended { reason },
                };
                let _ = started.send(Err(ended));
            }
        }))
    }

    /// Declares it ended, from another thread, while a turn of it holds its own. When that turn returns, its cell finds the
    /// order, and nothing left to tell.
    pub(crate) fn abandon(self: &Arc<Self>, left: &mut dyn FnMut(Load)) -> bool {
        if self.vitals.is_unborn() || self.on_end.lock().is_none() {
            return false;
        }
        self.mailbox.order(Order::Discard);
        if let Some(load) = self.conclude(ExitReason::Killed, None, None) {
            left(load);
        }
        true
    }

    pub(crate) fn trap(&self, trap: Trap<A>) {
        *self.trap.lock() = Some(trap);
    }

    /// An actor that this one was linked with has ended.
    pub(crate) fn exit(self: &Arc<Self>, exit: Exit) {
        let trap = *self.trap.lock();
        match trap {
            Some(trap) => trap(self, exit),
            None if exit.reason.is_abnormal() => {
                self.mailbox.order(Order::Exit(ExitReason::linked(exit.actor, exit.reason)));
            }
            None => {}
        }
    }

    /// True once somebody else may be given its name: then it must not act any more.
    pub(crate) fn is_fenced(&self) -> bool {
        self.tenure().is_some_and(|tenure| !tenure.holds())
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Relaxed))
    }

    /// A handler of this life panicked.
    pub(crate) fn panicked(&self, message: &str, text: &str) -> CallError {
        self.panicked_in(self.generation(), message, text)
    }

    /// The handler's future went away without an answer: its life, `generation`, ended, or it panicked outside of the
    /// context.
    pub(crate) fn lost(&self, generation: Generation, message: &str) -> CallError {
        let last = self.last_panic.lock();
        match last.as_deref().filter(|(ended, _)| *ended == generation) {
            Some((_, Some(text))) => self.panicked_in(generation, message, text),
            // Its life was ended in order, and the handler was under way.
            Some((_, None)) => CallError::Cancelled { started: true },
            // It was told to stop, and the handler was under way.
            None if self.mailbox.is_closed() => CallError::Cancelled { started: true },
            None => self.panicked_in(generation, message, "the handler's future ended without an answer"),
        }
    }

    /// The panic that ended the life `generation`, for a handler of that life.
    pub(crate) fn ended_by_panic(&self, generation: Generation, message: &str) -> Option<CallError> {
        let last = self.last_panic.lock();
        let (_, text) = last.as_deref().filter(|(ended, _)| *ended == generation)?;
        Some(self.panicked_in(generation, message, text.as_ref()?))
    }

    pub(crate) fn panicked_in(&self, generation: Generation, message: &str, text: &str) -> CallError {
        CallError::Panicked { actor: self.id, message: message.to_owned(), text: text.to_owned(), generation }
    }
}

/// An actor that is hosted here, its type forgotten.
pub(crate) trait AnyShared: Send + Sync {
    fn id(&self) -> ActorId;
    fn order(&self, order: Order);
    /// Under which it holds its name.
    fn fence(&self) -> Option<Fence>;
    /// What it has of its node.
    fn granted(&self) -> Option<Granted>;
    fn unstash_all(&self) -> usize;
    fn snapshots(&self) -> Option<Arc<Keeper>>;
    /// A handler's future begins beside the others, or is over.
    fn runs_beside(&self, begins: bool);
    /// The `Arc<Shared<A>>`.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<A: Actor<Context = Context<A>>> AnyShared for Shared<A> {
    fn id(&self) -> ActorId {
        self.id
    }

    fn order(&self, order: Order) {
        self.mailbox.order(order);
    }

    fn fence(&self) -> Option<Fence> {
        self.tenure().map(|tenure| tenure.fence)
    }

    fn granted(&self) -> Option<Granted> {
        self.granted.as_deref().cloned()
    }

    fn unstash_all(&self) -> usize {
        self.mailbox.unstash_all()
    }

    fn snapshots(&self) -> Option<Arc<Keeper>> {
        Shared::snapshots(self).cloned()
    }

    fn runs_beside(&self, begins: bool) {
        if begins {
            self.concurrent.fetch_add(1, Ordering::Relaxed);
        } else if self.concurrent.fetch_sub(1, Ordering::Relaxed) >= self.concurrent_max {
            // It may take mail again.
            self.mailbox.wake();
        }
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Runs when the actor has ended for good. What it is given is to happen when nothing of the actor is left. Gives the actor's
/// place on an arbiter.
pub(crate) type OnEnd = Box<dyn FnOnce(Afterwards) -> Option<Load> + Send>;

pub(crate) struct Cell<A: Actor<Context = Context<A>>> {
    shared: Arc<Shared<A>>,
    place: Arc<Place>,
    create: Box<dyn FnMut() -> A>,
    budget: RestartBudget,
    life: Life<A>,
    alarm: Alarm,
    /// Told once, when the first life has started or failed to.
    started: Option<oneshot::Sender<Result<(), SpawnError>>>,
    /// The panic that kept the first life from starting.
    stillborn: Option<String>,
    /// Why it was told to stop, while it does.
    ordered: Option<Box<ExitReason>>,
    /// It will not begin again, whatever its supervisor would say.
    for_good: bool,
    supervised: bool,
    /// A life has begun and has not run yet.
    beginning: bool,
    /// How it ended, or will, as things stand.
    reason: ExitReason,
}

#[expect(clippy::large_enum_variant, reason = "a cell is boxed when it is spawned, and is running nearly all its time")]
enum Life<A: Actor<Context = Context<A>>> {
    Unborn,
    Running(ContextFut<A, Context<A>>),
    Resting(Pin<Box<Sleep>>),
    /// Ended like this; whether another follows is the supervisor's to say.
    Waiting(ExitReason),
    Over,
}

impl<A: Actor<Context = Context<A>>> Cell<A> {
    /// A cell to be spawned on the current thread.
    pub(crate) fn new(
        shared: Arc<Shared<A>>,
        create: Box<dyn FnMut() -> A>,
        policy: RestartPolicy,
        started: oneshot::Sender<Result<(), SpawnError>>,
    ) -> Self {
        let budget = RestartBudget::new(policy);
        let started = Some(started);
        let supervised = shared.supervised.is_some();
        let place = Place::of_actor(shared.node.clone(), Arc::clone(&shared) as _);
        Cell {
            shared,
            place,
            create,
            budget,
            life: Life::Unborn,
            alarm: Alarm::default(),
            started,
            stillborn: None,
            ordered: None,
            for_good: false,
            supervised,
            beginning: false,
            reason: ExitReason::Killed,
        }
    }

    /// True when the cell is over.
    fn turn(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.shared.mailbox.register(cx.waker());
        self.alarm.poll(&self.shared, cx);
        while let Some(order) = self.shared.mailbox.take_order() {
            if self.obey(order) {
                return true;
            }
        }
        if self.shared.is_fenced() {
            self.reason = ExitReason::Killed;
            return true;
        }
        loop {
            match &mut self.life {
                Life::Over => return true,
                Life::Unborn => self.begin(),
                Life::Waiting(_) => return false,
                Life::Resting(sleep) => match sleep.as_mut().poll(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(()) => self.begin(),
                },
                Life::Running(context) => {
                    match catch_unwind(AssertUnwindSafe(|| scope::poll_context(|| Pin::new(context).poll(cx)))) {
                        Ok(Poll::Pending) => {
                            self.has_begun();
                            self.forget_declined();
                            return false;
                        }
                        Ok(Poll::Ready(())) => {
                            self.has_begun();
                            let reason = self.ordered.take().map_or(ExitReason::Normal, |reason| *reason);
                            self.end_life(reason);
                        }
                        Err(panic) => self.fail(&*panic),
                    }
                }
            }
        }
    }

    /// True when the cell is over.
    fn obey(&mut self, order: Order) -> bool {
        match (&mut self.life, order) {
            (Life::Running(context), Order::Stop(reason) | Order::Exit(reason)) => {
                // The first holds: what ended it is not what it hears while it ends.
                self.ordered.get_or_insert(Box::new(reason));
                // An exclusive handler ends first, and then stops its actor itself.
                if self.place.stops.may_stop_now() {
                    context.ctx().stop();
                }
            }
            (Life::Running(context), Order::Dismiss) => {
                self.for_good = true;
                self.ordered.get_or_insert(Box::new(ExitReason::Shutdown));
                if self.place.stops.may_stop_now() {
                    context.ctx().stop();
                }
            }
            (Life::Running(_), Order::Kill) if self.supervised => {
                let context = self.leave();
                self.drop_silently(context);
                self.end_life(ExitReason::Killed);
            }
            // Between two lives there is nothing to end that its supervisor does not know of.
            (Life::Waiting(_), Order::Stop(_) | Order::Exit(_) | Order::Kill) => {}
            (Life::Waiting(_), Order::Begin) => {
                self.shared.generation.fetch_add(1, Ordering::Relaxed);
                self.begin();
            }
            (_, Order::Begin) => {}
            (Life::Waiting(reason), Order::Dismiss | Order::Discard) => {
                self.reason = reason.clone();
                return true;
            }
            (Life::Waiting(reason), Order::Detach) => {
                self.supervised = false;
                let reason = reason.clone();
                self.restart_or_give_up(reason);
            }
            (_, Order::Detach) => self.supervised = false,
            // What it has begun by itself, a rest before its next life, it finishes by itself.
            (_, Order::Adopt) => self.supervised = self.shared.supervised.is_some(),
            (_, Order::Stop(reason) | Order::Exit(reason)) => {
                self.reason = reason;
                return true;
            }
            (_, Order::Dismiss) => {
                self.reason = ExitReason::Shutdown;
                return true;
            }
            (_, Order::Kill | Order::Discard) => {
                self.reason = ExitReason::Killed;
                return true;
            }
        }
        matches!(self.life, Life::Over)
    }

    fn begin(&mut self) {
        self.beginning = true;
        self.shared.mailbox.rest(false);
        self.place.stops.reset();
        let (create, shared) = (&mut self.create, &self.shared);
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut actor = create();
            if let Some(snapshots) = Shared::snapshots(shared) {
                snapshots.restore(&mut actor);
            }
            actor
        }));
        match made {
            Ok(actor) => {
                if let Some(every) = Shared::snapshots(&self.shared).and_then(|snapshots| snapshots.interval()) {
                    self.shared.timers.beat(every);
                    self.shared.mailbox.wake();
                }
                let mut context = Context::new().into_future(actor);
                let pump = Pump { shared: Arc::clone(&self.shared), waits: true };
                context.ctx().spawn(pump);
                self.life = Life::Running(context);
            }
            Err(panic) => self.fail(&*panic),
        }
    }

    /// A stop that `stopping` has declined, and not put off, counts for nothing any more.
    fn forget_declined(&mut self) {
        if self.ordered.is_some()
            && !self.place.stops.is_to_come()
            && let Life::Running(context) = &mut self.life
            && context.ctx().state() == ActorState::Running
        {
            self.ordered = None;
        }
    }

    /// `started` has run.
    fn has_begun(&mut self) {
        if std::mem::replace(&mut self.beginning, false) {
            self.announce(Ok(()));
            self.shared.vitals.change(self.shared.generation(), Phase::Running);
        }
    }

    /// A life has ended in a panic: the next begins after a rest, or none does.
    fn fail(&mut self, panic: &(dyn Any + Send)) {
        // Also a stop that was declined in the very turn that panicked.
        self.forget_declined();
        let text = panic_text(panic);
        *self.shared.last_panic.lock() = Some(Box::new((self.shared.generation(), Some(text.clone()))));
        let mut was_ending = self.for_good || (self.ordered.is_some() && !self.supervised);
        let mut context = self.leave();
        if let Some(context) = &mut context {
            was_ending |= matches!(context.ctx().state(), ActorState::Stopping | ActorState::Stopped);
        }
        self.drop_silently(context);
        if self.started.is_some() {
            // It has never run, and its creator is there to hear why: once nothing of it is left.
            self.stillborn = Some(text);
            return;
        }
        let reason = ExitReason::Panicked { text };
        if was_ending && !self.supervised {
            // It was told to stop, or stopped itself: that holds, although its hooks failed.
            tracing::error!(actor = %self.shared.id, %reason, "actor panicked while it stopped");
            self.reason = reason;
            return;
        }
        self.ordered = None;
        match self.supervised {
            true => self.end_life(reason),
            false => self.restart_or_give_up(reason),
        }
    }

    /// A life has ended: the supervisor says what follows; without one, nothing does.
    fn end_life(&mut self, reason: ExitReason) {
        let context = self.leave();
        self.drop_silently(context);
        if !self.supervised || self.for_good {
            self.reason = reason;
            return;
        }
        let generation = self.shared.generation();
        // A panic has said already how the life ended.
        let mut last = self.shared.last_panic.lock();
        if last.as_deref().is_none_or(|(ended, _)| *ended != generation) {
            *last = Some(Box::new((generation, None)));
        }
        drop(last);
        if !matches!(reason, ExitReason::Normal | ExitReason::Shutdown) {
            tracing::warn!(actor = %self.shared.id, %reason, "actor failed, its supervisor decides");
        }
        self.life = Life::Waiting(reason.clone());
        self.shared.mailbox.rest(true);
        self.shared.vitals.change(generation, Phase::Between(reason));
    }

    fn restart_or_give_up(&mut self, reason: ExitReason) {
        match self.budget.on_failure(now(), self.shared.node.chance().fraction()) {
            Decision::RestartAfter(rest) => {
                let name = self.shared.identity.as_deref();
                tracing::warn!(actor = %self.shared.id, name, ?rest, %reason, "actor failed, restarts");
                self.shared.vitals.change(self.shared.generation(), Phase::Between(reason));
                self.shared.generation.fetch_add(1, Ordering::Relaxed);
                self.shared.mailbox.rest(true);
                self.life = Life::Resting(Box::pin(tokio::time::sleep(rest)));
            }
            Decision::GiveUp => {
                tracing::error!(actor = %self.shared.id, %reason, "actor failed, its restarts are used up");
                self.life = Life::Over;
                self.reason = reason;
            }
        }
    }

    /// Leaves the life that runs, if one does.
    fn leave(&mut self) -> Option<ContextFut<A, Context<A>>> {
        self.place.tasks.abort_all();
        self.place.exclusive_ended();
        self.shared.timers.end_life();
        // The next life starts where its own state says.
        self.shared.mailbox.unstash_all();
        match std::mem::replace(&mut self.life, Life::Over) {
            Life::Running(context) => Some(context),
            _ => None,
        }
    }

    /// What the user's `Drop` does to itself must not reach the arbiter.
    fn drop_silently(&self, context: Option<ContextFut<A, Context<A>>>) {
        if let Some(mut context) = context {
            end_silently(&mut context);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(context)));
        }
    }

    fn announce(&mut self, result: Result<(), SpawnError>) {
        if let Some(started) = self.started.take() {
            let _ = started.send(result);
        }
    }

    fn finish(&mut self) {
        // What it has answered comes before the news of its end.
        mobula_transport::settle();
        let context = self.leave();
        self.drop_silently(context);
        self.shared.timers.clear();
        let reason = std::mem::replace(&mut self.reason, ExitReason::Killed);
        drop(self.shared.conclude(reason, self.started.take(), self.stillborn.take()));
    }
}

/// Without this, dropping a context polls the actor's hooks, on a state that a panic may have broken.
fn end_silently<A: Actor<Context = Context<A>>>(context: &mut ContextFut<A, Context<A>>) {
    context.ctx().terminate();
}

impl<A: Actor<Context = Context<A>>> Future for Cell<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        let place = Arc::clone(&this.place);
        let over = scope::turn(&place, || {
            let over = this.turn(cx);
            if over {
                this.finish();
            }
            over
        });
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Cell<A> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Moves mail from our mailbox to the actor, as an item of its context: so `ctx.wait` and an exclusive handler hold
/// it back as they hold back actix's own mailbox.
struct Pump<A: Actor<Context = Context<A>>> {
    shared: Arc<Shared<A>>,
    /// The life begins: its first turn is for `started` alone, whose failure is another matter than a handler's.
    waits: bool,
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.waits, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut begun = None;
        let mut quick = true;
        for _ in 0..limits::TURN_MESSAGES_MAX {
            if ctx.waiting() || self.shared.concurrent.load(Ordering::Relaxed) >= self.shared.concurrent_max {
                return Poll::Pending;
            }
            if let Some(snapshots) = Shared::snapshots(&self.shared) {
                snapshots.between_messages(actor, now());
            }
            let Some(letter) = self.shared.mailbox.take() else { return Poll::Pending };
            if self.shared.is_fenced() {
                self.shared.mailbox.put_back(letter);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // The clock is read once a message, and not for an empty mailbox.
            let now = now();
            let (quick_until, until) = *begun.get_or_insert((now + QUICK_TURN, now + limits::TURN_TIME_MAX));
            quick = now < quick_until;
            if now >= until {
                // Answers of this turn go out before a handler that may take as long as the one before.
                self.shared.mailbox.put_back(letter);
                step_back(cx);
                return Poll::Pending;
            }
            if self.shared.own_thread {
                // What was answered must not wait until this one is handled.
                scope::send_touched();
            }
            letter.letter.deliver(actor, ctx, &self.shared, now);
        }
        // No turn may follow one that stopped the actor, so nothing may be held back for it.
        if ctx.waiting() {
            return Poll::Pending;
        }
        // The turn is used up: the neighbours on this arbiter first.
        if quick {
            scope::hold();
        }
        step_back(cx);
        Poll::Pending
    }
}

/// A turn with all its messages that takes no longer is short beside the write of its answers, which then wait for those of
/// the next.
const QUICK_TURN: Duration = Duration::from_micros(200);

/// Comes back when all others of the thread have had their turn, those that other threads woke and the connections among
/// them. A task that merely wakes itself goes before those, up to 61 times.
fn step_back(cx: &mut TaskContext<'_>) {
    // Its first poll asks for that, and is pending.
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
}
