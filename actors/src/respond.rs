//! What a handler returned becomes the answer: a value at once, a future when it is done.
//!
//! actix's own futures are run in the scope of the call that they serve, so that deadline, cancellation and place are
//! there after an `.await` as before it, and a panic's text reaches the caller. What else implements `MessageResponse` is
//! left to itself.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use actix::dev::MessageResponse;
use actix::fut::ActorFuture;
use actix::{
    Actor, AsyncContext, AtomicResponse, Context, Handler, Message, MessageResult, ResponseActFuture, ResponseFuture,
};
use futures::FutureExt;
use mobula_core::{Generation, RemoteMessage, panic_text};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::begin;
use crate::cell::Shared;
use crate::forward::Forward;
use crate::inbound::FlowTicket;
use crate::reply::ReplyTo;
use crate::scope::{self, Scope};
use crate::shapes::{Cause, InScope};
use crate::stash::{self, Stashable};
use crate::waiting::Beside;

/// Takes `response` as a `T`, if that is its type.
fn taken<T: 'static>(response: &mut dyn Any) -> Option<T> {
    response.downcast_mut::<Option<T>>().and_then(Option::take)
}

/// Runs what the handler of `M` returned. To be called in the scope of its call. A tell of another node has its `ticket`.
pub(crate) fn respond<A, M>(
    response: <A as Handler<M>>::Result,
    ctx: &mut Context<A>,
    reply: Option<ReplyTo<M::Reply>>,
    ticket: Option<FlowTicket>,
    shared: &Arc<Shared<A>>,
) where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let mut response = Some(response);
    if let Some(value) = value::<A, M>(&mut response) {
        if let Some(reply) = reply {
            reply.send(Ok(value));
        }
        return;
    }
    if let Some(future) = taken::<ResponseFuture<M::Reply>>(&mut response) {
        return beside::<A, M>(future, reply, shared);
    }
    if let Some(future) = taken::<ResponseActFuture<A, M::Reply>>(&mut response) {
        let (shared, generation) = (Arc::clone(shared), shared.generation());
        let scope = Scope::current();
        let beside = Some(Beside::begin(Arc::clone(&shared) as _));
        ctx.spawn(Inside::<A, M> { future, scope, reply, shared, generation, beside, message: PhantomData });
        return;
    }
    if let Some(alone) = taken::<AtomicResponse<A, M::Reply>>(&mut response) {
        // Until it is done, its future is all that the context polls.
        scope::begin_alone();
        ctx.wait(EndAlone);
        return left_to_itself::<A, M>(alone, ctx, reply, shared);
    }
    if let Some(stashable) = taken::<Stashable<M>>(&mut response) {
        return stash::respond(stashable, reply, ticket, shared);
    }
    if let Some(forward) = taken::<Forward<M::Reply>>(&mut response) {
        return forward.run(reply, shared);
    }
    if let Some(response) = response {
        left_to_itself::<A, M>(response, ctx, reply, shared);
    }
}

/// The answer itself, if the handler returned that and nothing else happens with it. A type that has its own
/// `MessageResponse` is none of these.
fn value<A, M>(response: &mut Option<<A as Handler<M>>::Result>) -> Option<M::Reply>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    if let Some(MessageResult(value)) = taken::<MessageResult<M>>(response) {
        return Some(value);
    }
    if is_plain::<M::Reply>() { taken::<M::Reply>(response) } else { None }
}

/// Types of the language whose `MessageResponse` is actix's.
fn is_plain<T: 'static>() -> bool {
    let of = TypeId::of::<T>();
    macro_rules! is_one_of {
        ($($plain:ty),*) => { $(of == TypeId::of::<$plain>())||* };
    }
    is_one_of!((), bool, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, f32, f64, String)
}

/// A future that has nothing to do with the actor any more, and outlives it.
fn beside<A, M>(future: ResponseFuture<M::Reply>, reply: Option<ReplyTo<M::Reply>>, shared: &Arc<Shared<A>>)
where
    A: Actor<Context = Context<A>>,
    M: RemoteMessage,
{
    let (shared, generation) = (Arc::clone(shared), shared.generation());
    let running = InScope::current(AssertUnwindSafe(future).catch_unwind());
    let beside = Beside::begin(Arc::clone(&shared) as _);
    begin::on_this_thread(async move {
        let ended = running.await;
        drop(beside);
        let answer = ended.map_err(|panic| {
            let text = panic_text(&*panic);
            tracing::error!(actor = %shared.id, panic = %text, "the future of a handler panicked");
            shared.panicked_in(generation, M::NAME, &text)
        });
        if let Some(reply) = reply {
            reply.send(answer);
        }
    });
}

/// A future of the actor, among others.
struct Inside<A: Actor<Context = Context<A>>, M: RemoteMessage> {
    future: ResponseActFuture<A, M::Reply>,
    scope: Scope,
    reply: Option<ReplyTo<M::Reply>>,
    shared: Arc<Shared<A>>,
    generation: Generation,
    beside: Option<Beside>,
    message: PhantomData<fn(M)>,
}

impl<A: Actor<Context = Context<A>>, M: RemoteMessage> Unpin for Inside<A, M> {}

impl<A: Actor<Context = Context<A>>, M: RemoteMessage> ActorFuture<A> for Inside<A, M> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| this.scope.call(|| this.future.as_mut().poll(actor, ctx, cx))));
        let answer = match polled {
            Ok(polled) => Ok(ready!(polled)),
            Err(panic) => Err(panic),
        };
        this.beside = None;
        let reply = this.reply.take();
        match answer {
            Ok(value) => {
                if let Some(reply) = reply {
                    reply.send(Ok(value));
                }
                Poll::Ready(())
            }
            Err(panic) => {
                if let Some(reply) = reply {
                    reply.send(Err(this.shared.panicked(M::NAME, &panic_text(&*panic))));
                }
                // The cell ends this life of the actor.
                resume_unwind(panic)
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: RemoteMessage> Drop for Inside<A, M> {
    fn drop(&mut self) {
        // Its life has ended; if in a panic, that is why. Otherwise it was cut off, which the reply says by itself.
        if let Some(error) = self.shared.ended_by_panic(self.generation, M::NAME)
            && let Some(reply) = self.reply.take()
        {
            reply.send(Err(error));
        }
    }
}

/// The exclusive response is done: polled after it, and before everything else.
struct EndAlone;

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for EndAlone {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut A, _: &mut Context<A>, _: &mut TaskContext<'_>) -> Poll<()> {
        scope::end_alone();
        Poll::Ready(())
    }
}

fn left_to_itself<A, M>(
    response: impl MessageResponse<A, M>,
    ctx: &mut Context<A>,
    reply: Option<ReplyTo<M::Reply>>,
    shared: &Arc<Shared<A>>,
) where
    A: Actor<Context = Context<A>>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let Some(reply) = reply else { return response.handle(ctx, None) };
    // One that came by actix's own mailbox has left its cause behind.
    drop(Cause::take());
    let (sender, receiver) = oneshot::channel();
    response.handle(ctx, Some(sender));
    pass_on::<A, M>(receiver, reply, shared);
}

/// Answers with what was or will be sent.
fn pass_on<A, M>(mut receiver: oneshot::Receiver<M::Reply>, reply: ReplyTo<M::Reply>, shared: &Arc<Shared<A>>)
where
    A: Actor<Context = Context<A>>,
    M: RemoteMessage,
{
    let cause = Cause::take();
    match receiver.try_recv() {
        Ok(value) => reply.send(Ok(value)),
        Err(TryRecvError::Closed) => reply.send(Err(shared.lost(shared.generation(), M::NAME))),
        // The handler answered with a future: somebody else completes it.
        Err(TryRecvError::Empty) => {
            // By the time the future is lost, the next life may have begun.
            let (shared, generation) = (Arc::clone(shared), shared.generation());
            begin::on_this_thread(async move {
                let answer = receiver.await.map_err(|_| match cause.and_then(|cause| cause.text()) {
                    Some(text) => shared.panicked_in(generation, M::NAME, &text),
                    None => shared.lost(generation, M::NAME),
                });
                reply.send(answer);
            });
        }
    }
}
