//! A handler that hands its caller on to another actor.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, Message};
use futures::future::{Either, select};
use mobula_core::{CallError, RemoteMessage};

use crate::actor_ref::ActorRef;
use crate::begin;
use crate::call_context::current_call;
use crate::cell::Shared;
use crate::reply::ReplyTo;
use crate::shapes::InScope;

/// The answer of a handler that leaves it to another actor.
///
/// The caller gets the other's answer, or the other's [`CallError`], as if it had asked there itself. The deadline of the
/// call goes with it, and if the caller gives up, the other hears of it. The actor takes its next message meanwhile, and
/// need not live until the answer comes; its node has to, since the answer passes through it.
///
/// ```ignore
/// impl Handler<Lookup> for FrontDesk {
///     type Result = Forward<Option<String>>;
///
///     fn handle(&mut self, Lookup(key): Lookup, _: &mut Context<Self>) -> Forward<Option<String>> {
///         Forward::to(self.shard_of(&key), Get(key))
///     }
/// }
/// ```
#[must_use = "a handler returns it"]
pub struct Forward<T>(Pin<Box<dyn Future<Output = Result<T, CallError>>>>);

impl<T: 'static> Forward<T> {
    /// Sends `message` to `actor` now; its answer is the handler's. A deadline that the reference was given holds, if it
    /// is the shorter.
    pub fn to<B, M>(actor: &ActorRef<B>, message: M) -> Self
    where
        B: Actor<Context = Context<B>> + Handler<M>,
        M: RemoteMessage<Reply = T> + Message<Result = T>,
    {
        Forward(Box::pin(actor.as_far_as_the_call().ask(message)))
    }

    /// Passes the other's answer on.
    pub(crate) fn run<A: Actor<Context = Context<A>>>(self, reply: Option<ReplyTo<T>>, _: &Arc<Shared<A>>) {
        let call = current_call();
        let passing = async move {
            let Some(call) = call else { return self.0.await };
            match select(self.0, pin!(call.cancelled())).await {
                Either::Left((answer, _)) => answer,
                // Dropping the ask is what the other hears.
                Either::Right(_) if call.is_late() => Err(CallError::DeadlineExceeded { started: true }),
                Either::Right(_) => Err(CallError::Cancelled { started: true }),
            }
        };
        let passing = InScope::current(Box::pin(passing));
        begin::on_this_thread(async move {
            let answer = passing.await;
            if let Some(reply) = reply {
                reply.send(answer);
            }
        });
    }
}

impl<T> std::fmt::Debug for Forward<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forward")
    }
}

impl<A, M, T> MessageResponse<A, M> for Forward<T>
where
    A: Actor<Context = Context<A>>,
    M: Message<Result = T>,
    T: 'static,
{
    /// For callers that do not go by way of an [`ActorRef`]: they learn no error.
    fn handle(self, _: &mut Context<A>, answer: Option<OneshotSender<T>>) {
        begin::on_this_thread(async move {
            if let (Ok(value), Some(answer)) = (self.0.await, answer) {
                let _ = answer.send(value);
            }
        });
    }
}
