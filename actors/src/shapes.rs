//! Handlers that wait: beside all others on a clone of the actor, or alone with its state.
//!
//! `#[mobula::actor]` writes these for `async fn`s; a plain actix [`Handler`](actix::Handler) may return them, too. In
//! both, [`this`](crate::this), [`current_node`](crate::current_node) and the deadline that nested asks inherit are
//! there for as long as the future runs, also after an `.await`.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Message};
use futures::FutureExt;
use mobula_core::panic_text;

use crate::begin;
use crate::scope::{Place, Scope};

/// The answer of a handler that runs beside all others, as an `async fn` with `&self` does.
///
/// Its future does not touch the actor: it works on a clone, or on whatever else it owns. The actor takes its next
/// message meanwhile, so many of these run at once, as many as [`concurrent_handlers`](crate::ActorSpec::concurrent_handlers) says. A panic answers this one call `Panicked`; it ends no life of
/// the actor. The end of the actor's life ends the future, and answers the call `Cancelled { started: true }`, or
/// `Panicked` where a panic in another handler was that end.
#[must_use = "a handler returns it"]
pub struct Concurrent<M: Message> {
    future: Pin<Box<dyn Future<Output = M::Result>>>,
    scope: Scope,
}

impl<M: Message> Concurrent<M> {
    /// Runs `future` beside the actor.
    pub fn new(future: impl Future<Output = M::Result> + 'static) -> Self {
        Concurrent { future: Box::pin(future), scope: Scope::current() }
    }

    /// Runs what `run` makes of a clone of the actor. What the actor's handlers are to share lies in an `Arc` or `Rc`.
    pub fn on_clone_of<A: Clone, F>(actor: &A, run: impl FnOnce(A) -> F) -> Self
    where
        F: Future<Output = M::Result> + 'static,
    {
        Concurrent::new(run(actor.clone()))
    }
}

impl<M: Message> std::fmt::Debug for Concurrent<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Concurrent")
    }
}

impl<A, M> MessageResponse<A, M> for Concurrent<M>
where
    A: Actor<Context = Context<A>>,
    M: Message<Result: Send>,
{
    fn handle(self, _: &mut Context<A>, answer: Option<OneshotSender<M::Result>>) {
        let cause = answer.is_some().then(Cause::explain_this_call);
        let place = self.scope.place();
        let beside = place.as_ref().and_then(|place| place.begin_beside());
        let running = AssertUnwindSafe(InScope { scope: self.scope, future: self.future }).catch_unwind();
        let task = async move {
            let ended = running.await;
            drop(beside);
            match ended {
                Ok(value) => {
                    if let Some(answer) = answer {
                        // Its caller may have gone.
                        let _ = answer.send(value);
                    }
                }
                Err(panic) => {
                    let text = panic_text(&*panic);
                    tracing::error!(panic = %text, "a concurrent handler panicked");
                    if let Some(cause) = cause {
                        cause.set(text);
                    }
                    // Dropping the answer's way is what tells the call.
                    drop(answer);
                }
            }
        };
        match place {
            Some(place) => place.tasks.spawn(task),
            // Not in one of our cells: nobody ends it with the actor.
            None => drop(begin::on_this_thread(task)),
        }
    }
}

/// The answer of a handler that has the actor to itself, as an `async fn` with `&mut self` does.
///
/// Until its future is done, the actor handles nothing else, and its own futures and timers rest. Control goes on:
/// monitors can be set, a stop takes effect when the future is done, a kill at once. Asking the own actor from within
/// could only wait for itself, and is answered [`CallError::Deadlock`](mobula_core::CallError::Deadlock).
///
/// The state is taken out of the actor, which holds its `Default` meanwhile, and put back at the end; no handler and no
/// hook ever sees the placeholder. A panic ends the life, as in any handler.
#[must_use = "a handler returns it"]
pub struct Exclusive<A, M: Message> {
    future: StateFuture<A, M>,
    scope: Scope,
}

type StateFuture<A, M> = Pin<Box<dyn Future<Output = (<M as Message>::Result, A)>>>;

impl<A: 'static, M: Message> Exclusive<A, M> {
    /// Runs what `run` makes of the actor's state; it gives the answer and the state back.
    pub fn on_state_of<F>(actor: &mut A, run: impl FnOnce(A) -> F) -> Self
    where
        A: Default,
        F: Future<Output = (M::Result, A)> + 'static,
    {
        Exclusive { future: Box::pin(run(std::mem::take(actor))), scope: Scope::current() }
    }
}

impl<A, M: Message> std::fmt::Debug for Exclusive<A, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exclusive")
    }
}

impl<A, M> MessageResponse<A, M> for Exclusive<A, M>
where
    A: Actor<Context = Context<A>>,
    M: Message + 'static,
{
    fn handle(self, ctx: &mut Context<A>, answer: Option<OneshotSender<M::Result>>) {
        let turn = self.scope.place().map(ExclusiveTurn::begin);
        ctx.wait(Alone::<A, M> { scope: self.scope, future: self.future, answer, turn, message: PhantomData });
    }
}

/// An exclusive handler's future, as an item of the actor's context that holds everything else back.
struct Alone<A, M: Message> {
    scope: Scope,
    future: StateFuture<A, M>,
    answer: Option<OneshotSender<M::Result>>,
    turn: Option<ExclusiveTurn>,
    message: PhantomData<fn(M)>,
}

impl<A, M> ActorFuture<A> for Alone<A, M>
where
    A: Actor<Context = Context<A>>,
    M: Message,
{
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Self::Output> {
        let this = &mut *self;
        let (value, state) = ready!(this.scope.exclusively(|| this.future.as_mut().poll(cx)));
        *actor = state;
        if let Some(answer) = this.answer.take() {
            let _ = answer.send(value);
        }
        if this.turn.take().is_some_and(ExclusiveTurn::end) {
            ctx.stop();
        }
        Poll::Ready(())
    }
}

impl<A, M: Message> Unpin for Alone<A, M> {}

/// While it lives, stops wait.
struct ExclusiveTurn(Arc<Place>);

impl ExclusiveTurn {
    fn begin(place: Arc<Place>) -> Self {
        place.stops.hold();
        place.exclusive_begun();
        ExclusiveTurn(place)
    }

    /// True if the actor was told to stop meanwhile.
    fn end(self) -> bool {
        self.0.stops.release()
    }
}

impl Drop for ExclusiveTurn {
    fn drop(&mut self) {
        self.0.exclusive_ended();
        self.0.stops.release();
    }
}

/// Why a handler's future went away without an answer, for the call that waits for it.
#[derive(Clone, Default)]
pub(crate) struct Cause(Rc<RefCell<Option<String>>>);

thread_local! {
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
}

impl Cause {
    /// Made by a response that is being handled; found by [`take`](Self::take) in the call that it belongs to.
    fn explain_this_call() -> Self {
        let cause = Cause::default();
        CAUSE.set(Some(cause.clone()));
        cause
    }

    /// That of the response that was handled last, if it has one.
    pub(crate) fn take() -> Option<Self> {
        CAUSE.take()
    }

    fn set(&self, text: String) {
        *self.0.borrow_mut() = Some(text);
    }

    pub(crate) fn text(&self) -> Option<String> {
        self.0.borrow_mut().take()
    }
}

/// A future that is polled where, and for whom, it was made.
pub(crate) struct InScope<F> {
    scope: Scope,
    future: F,
}

impl<F> InScope<F> {
    pub(crate) fn current(future: F) -> Self {
        InScope { scope: Scope::current(), future }
    }
}

impl<F: Future + Unpin> Future for InScope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.scope.turn(|| Pin::new(&mut this.future).poll(cx))
    }
}
