//! The cell: the future in which an actor lives. The only module that touches actix's internals.
//!
//! It polls control first, then the actor's context, catches panics around that, and starts the next life as the
//! restart policy says. Mail is kept in our own mailbox, outside the context: a new life is a new context with a new
//! actor, and finds its mail where the last one left it. The context's own timers and futures end with their life.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll};

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
use crate::node::Node;
use crate::scope::{self, Place};
use crate::timers::{Alarm, TimerRows};

/// Makes a message of the end of a linked actor.
pub(crate) type Trap<A> = fn(&Arc<Shared<A>>, Exit);

/// What an actor's cell and its references share.
pub(crate) struct Shared<A: Actor<Context = Context<A>>> {
    pub(crate) id: ActorId,
    pub(crate) node: Node,
    /// What it is known by beyond this life of its node, if anything: its name.
    pub(crate) identity: Option<String>,
    tenure: Option<Tenure>,
    pub(crate) mailbox: Mailbox<A>,
    pub(crate) end: End,
    pub(crate) timers: TimerRows<A>,
    /// On a thread of its own, where handlers may compute or block for as long as they like.
    own_thread: bool,
    generation: AtomicU32,
    /// Set while ends of linked actors are messages to this one.
    trap: Mutex<Option<Trap<A>>>,
    /// The last panic's text and the life that it ended; it explains replies that were lost with that life.
    last_panic: Mutex<Option<(Generation, String)>>,
}

impl<A: Actor<Context = Context<A>>> Shared<A> {
    pub(crate) fn new(
        id: ActorId,
        node: Node,
        options: &SpawnOptions,
        identity: Option<String>,
        tenure: Option<Tenure>,
    ) -> Self {
        Shared {
            id,
            node,
            identity,
            tenure,
            mailbox: Mailbox::new(options.mailbox, options.mailbox_policy),
            end: End::default(),
            timers: TimerRows::default(),
            own_thread: options.own_thread,
            generation: AtomicU32::new(0),
            trap: Mutex::new(None),
            last_panic: Mutex::new(None),
        }
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
        self.tenure.as_ref().is_some_and(|tenure| !tenure.holds())
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
        match last.as_ref().filter(|(ended, _)| *ended == generation) {
            Some((_, text)) => self.panicked_in(generation, message, text),
            // It was told to stop, and the handler was under way.
            None if self.mailbox.is_closed() => CallError::Cancelled { started: true },
            None => self.panicked_in(generation, message, "the handler's future ended without an answer"),
        }
    }

    /// The panic that ended the life `generation`, for a handler of that life.
    pub(crate) fn ended_by_panic(&self, generation: Generation, message: &str) -> Option<CallError> {
        let last = self.last_panic.lock();
        let (_, text) = last.as_ref().filter(|(ended, _)| *ended == generation)?;
        Some(self.panicked_in(generation, message, text))
    }

    pub(crate) fn panicked_in(&self, generation: Generation, message: &str, text: &str) -> CallError {
        CallError::Panicked { actor: self.id, message: message.to_owned(), text: text.to_owned(), generation }
    }
}

/// An actor that is hosted here, its type forgotten.
pub(crate) trait AnyShared: Send + Sync {
    fn order(&self, order: Order);
    /// Under which it holds its name.
    fn fence(&self) -> Option<Fence>;
    fn unstash_all(&self) -> usize;
    /// The `Arc<Shared<A>>`.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<A: Actor<Context = Context<A>>> AnyShared for Shared<A> {
    fn order(&self, order: Order) {
        self.mailbox.order(order);
    }

    fn fence(&self) -> Option<Fence> {
        self.tenure.as_ref().map(|tenure| tenure.fence)
    }

    fn unstash_all(&self) -> usize {
        self.mailbox.unstash_all()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
/// Runs when the actor has ended for good. What it is given is to happen when nothing of the actor is left.
pub(crate) type OnEnd = Box<dyn FnOnce(Afterwards)>;

pub(crate) struct Cell<A: Actor<Context = Context<A>>> {
    shared: Arc<Shared<A>>,
    place: Arc<Place>,
    create: Box<dyn FnMut() -> A>,
    budget: RestartBudget,
    life: Life<A>,
    alarm: Alarm,
    /// Told once, when the first life has started or failed to.
    started: Option<oneshot::Sender<Result<(), SpawnError>>>,
    on_end: Option<OnEnd>,
    /// The panic that kept the first life from starting.
    stillborn: Option<String>,
    /// Why it was told to stop, while it does.
    ordered: Option<ExitReason>,
    /// How it ended, or will, as things stand.
    reason: ExitReason,
}

#[expect(clippy::large_enum_variant, reason = "a cell is boxed when it is spawned, and is running nearly all its time")]
enum Life<A: Actor<Context = Context<A>>> {
    Unborn,
    Running(ContextFut<A, Context<A>>),
    Resting(Pin<Box<Sleep>>),
    Over,
}

impl<A: Actor<Context = Context<A>>> Cell<A> {
    /// A cell to be spawned on the current thread.
    pub(crate) fn new(
        shared: Arc<Shared<A>>,
        create: Box<dyn FnMut() -> A>,
        policy: RestartPolicy,
        started: oneshot::Sender<Result<(), SpawnError>>,
        on_end: OnEnd,
    ) -> Self {
        let budget = RestartBudget::new(policy);
        let (started, on_end) = (Some(started), Some(on_end));
        let place = Place::of_actor(shared.node.clone(), Arc::clone(&shared) as _);
        Cell {
            shared,
            place,
            create,
            budget,
            life: Life::Unborn,
            alarm: Alarm::default(),
            started,
            on_end,
            stillborn: None,
            ordered: None,
            reason: ExitReason::Killed,
        }
    }

    /// True when the cell is over.
    fn turn(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.shared.mailbox.register(cx.waker());
        self.alarm.poll(&self.shared, cx);
        while let Some(order) = self.shared.mailbox.take_order() {
            match (&mut self.life, order) {
                (Life::Running(context), Order::Stop(reason) | Order::Exit(reason)) => {
                    self.ordered = Some(reason);
                    // An exclusive handler ends first, and then stops its actor itself.
                    if self.place.stops.may_stop_now() {
                        context.ctx().stop();
                    }
                }
                (_, Order::Stop(reason) | Order::Exit(reason)) => {
                    self.reason = reason;
                    return true;
                }
                (_, Order::Kill) => {
                    self.reason = ExitReason::Killed;
                    return true;
                }
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
                Life::Resting(sleep) => match sleep.as_mut().poll(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(()) => self.begin(),
                },
                Life::Running(context) => {
                    match catch_unwind(AssertUnwindSafe(|| scope::poll_context(|| Pin::new(context).poll(cx)))) {
                        Ok(Poll::Pending) => {
                            self.announce(Ok(()));
                            return false;
                        }
                        Ok(Poll::Ready(())) => {
                            self.reason = self.ordered.take().unwrap_or(ExitReason::Normal);
                            self.announce(Ok(()));
                            return true;
                        }
                        Err(panic) => self.fail(&*panic),
                    }
                }
            }
        }
    }

    fn begin(&mut self) {
        let create = &mut self.create;
        match catch_unwind(AssertUnwindSafe(create)) {
            Ok(actor) => {
                let mut context = Context::new().into_future(actor);
                let pump = Pump { shared: Arc::clone(&self.shared) };
                context.ctx().spawn(pump);
                self.life = Life::Running(context);
            }
            Err(panic) => self.fail(&*panic),
        }
    }

    /// A life has ended in a panic: the next begins after a rest, or none does.
    fn fail(&mut self, panic: &(dyn Any + Send)) {
        let text = panic_text(panic);
        *self.shared.last_panic.lock() = Some((self.shared.generation(), text.clone()));
        let mut was_ending = false;
        self.place.tasks.abort_all();
        self.shared.timers.end_life();
        // The next life starts where its own state says.
        self.shared.mailbox.unstash_all();
        if let Life::Running(mut context) = std::mem::replace(&mut self.life, Life::Over) {
            was_ending = matches!(context.ctx().state(), ActorState::Stopping | ActorState::Stopped);
            end_silently(&mut context);
            // What the user's `Drop` does to itself must not reach the arbiter.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(context)));
        }
        if self.started.is_some() {
            // It has never run, and its creator is there to hear why: once nothing of it is left.
            self.stillborn = Some(text);
            return;
        }
        if was_ending {
            // It was told to stop, or stopped itself: that holds, although its hooks failed.
            tracing::error!(actor = %self.shared.id, panic = %text, "actor panicked while it stopped");
            self.reason = ExitReason::Panicked { text };
            return;
        }
        match self.budget.on_failure(now(), self.shared.node.chance().fraction()) {
            Decision::RestartAfter(rest) => {
                self.shared.generation.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(actor = %self.shared.id, name = self.shared.identity, ?rest, panic = %text, "actor panicked, restarts");
                self.life = Life::Resting(Box::pin(tokio::time::sleep(rest)));
            }
            Decision::GiveUp => {
                self.reason = ExitReason::Panicked { text: text.clone() };
                tracing::error!(actor = %self.shared.id, panic = %text, "actor panicked, its restarts are used up");
            }
        }
    }

    fn announce(&mut self, result: Result<(), SpawnError>) {
        if let Some(started) = self.started.take() {
            let _ = started.send(result);
        }
    }

    fn finish(&mut self) {
        self.place.tasks.abort_all();
        self.shared.timers.clear();
        if let Life::Running(mut context) = std::mem::replace(&mut self.life, Life::Over) {
            end_silently(&mut context);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(context)));
        }
        if let Some(on_end) = self.on_end.take() {
            for letter in self.shared.mailbox.close(&CallError::Stopped) {
                self.shared.dismiss(letter, CallError::Stopped);
            }
            let (shared, reason) = (Arc::clone(&self.shared), self.reason.clone());
            let (started, stillborn) = (self.started.take(), self.stillborn.take());
            // Its name is free before anybody hears of its end.
            on_end(Afterwards::new(move || {
                shared.node.links().ended(&shared.node, shared.id, started.is_none(), &reason);
                shared.end.publish(&reason);
                if let Some(started) = started {
                    let ended = match stillborn {
                        Some(text) => SpawnError::Panicked { text },
                        None => SpawnError::Ended { reason },
                    };
                    let _ = started.send(Err(ended));
                }
            }));
        }
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
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut begun = None;
        for _ in 0..limits::TURN_MESSAGES_MAX {
            if ctx.waiting() {
                return Poll::Pending;
            }
            let Some(letter) = self.shared.mailbox.take() else { return Poll::Pending };
            if self.shared.is_fenced() {
                self.shared.mailbox.put_back(letter);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // The clock is read once a message, and not for an empty mailbox.
            let now = now();
            if now.saturating_duration_since(*begun.get_or_insert(now)) >= limits::TURN_TIME_MAX {
                // Answers of this turn go out before a handler that may take as long as the one before.
                self.shared.mailbox.put_back(letter);
                cx.waker().wake_by_ref();
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
        scope::hold();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
