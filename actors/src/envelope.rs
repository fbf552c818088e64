//! A typed message in the mailbox: checks that it is still wanted, runs the handler, sends the answer.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use actix::dev::MessageResponse;
use actix::{Actor, Context, Handler, Message};
use mobula_core::{CallError, Deadline, RemoteMessage, panic_text};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::cell::Shared;
use crate::inbound::FlowTicket;
use crate::mailbox::Letter;
use crate::reply::ReplyTo;
use crate::scope;
use crate::shapes::Cause;

pub(crate) struct Envelope<M: RemoteMessage> {
    pub(crate) message: M,
    /// None for a tell.
    pub(crate) reply: Option<ReplyTo<M::Reply>>,
    pub(crate) deadline: Deadline,
    /// Held from arrival to here for messages from other nodes: returns their credit.
    pub(crate) ticket: Option<FlowTicket>,
}

impl<M: RemoteMessage> Envelope<M> {
    fn unwanted(&self, now: Instant) -> Option<CallError> {
        if self.reply.as_ref().is_some_and(ReplyTo::is_cancelled) {
            Some(CallError::Cancelled { started: false })
        } else if self.deadline.is_over(now) {
            Some(CallError::DeadlineExceeded { started: false })
        } else {
            None
        }
    }
}

impl<A, M> Letter<A> for Envelope<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    fn deliver(mut self: Box<Self>, actor: &mut A, ctx: &mut Context<A>, shared: &Arc<Shared<A>>, now: Instant) {
        if let Some(error) = self.unwanted(now) {
            if !Letter::<A>::refuse(self, error.clone()) {
                shared.node.dead_letters(shared.id, 1, &error);
            }
            return;
        }
        if self.reply.as_mut().is_some_and(|reply| !reply.begin()) {
            // Given up this very moment: its caller has been told that it never began.
            return;
        }
        let Envelope { message, reply, deadline, ticket } = *self;
        // The mailbox has room again as soon as the handler begins.
        drop(ticket);
        let before = scope::set_deadline(deadline);
        let result = catch_unwind(AssertUnwindSafe(|| actor.handle(message, ctx)));
        scope::set_deadline(before);
        match result {
            Ok(response) => match reply {
                Some(reply) => respond::<A, M>(response, ctx, reply, shared),
                None => response.handle(ctx, None),
            },
            Err(panic) => {
                let text = panic_text(&*panic);
                if let Some(reply) = reply {
                    reply.send(Err(shared.panicked(M::NAME, &text)));
                }
                // The cell ends this life of the actor.
                resume_unwind(panic);
            }
        }
    }

    fn refuse(self: Box<Self>, error: CallError) -> bool {
        let reply = self.reply.map(|reply| reply.send(Err(error)));
        reply.is_some()
    }
}

fn respond<A, M>(
    response: <A as Handler<M>>::Result,
    ctx: &mut Context<A>,
    reply: ReplyTo<M::Reply>,
    shared: &Arc<Shared<A>>,
) where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let (sender, mut receiver) = oneshot::channel();
    response.handle(ctx, Some(sender));
    let cause = Cause::take();
    match receiver.try_recv() {
        Ok(value) => reply.send(Ok(value)),
        Err(TryRecvError::Closed) => reply.send(Err(shared.lost(shared.generation(), M::NAME))),
        // The handler answered with a future: somebody else completes it.
        Err(TryRecvError::Empty) => {
            // By the time the future is lost, the next life may have begun.
            let (shared, generation) = (Arc::clone(shared), shared.generation());
            actix_rt::spawn(async move {
                let answer = receiver.await.map_err(|_| match cause.and_then(|cause| cause.text()) {
                    Some(text) => shared.panicked_in(generation, M::NAME, &text),
                    None => shared.lost(generation, M::NAME),
                });
                reply.send(answer);
            });
        }
    }
}
