//! A typed message in the mailbox: checks that it is still wanted, runs the handler, sends the answer.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler, Message};
use mobula_core::{CallError, Deadline, RemoteMessage, panic_text};

use crate::acceptance::Acceptance;
use crate::call_context::Caller;
use crate::cell::Shared;
use crate::dead_letter::Undelivered;
use crate::inbound::FlowTicket;
use crate::mailbox::Letter;
use crate::reply::ReplyTo;
use crate::respond::respond;
use crate::scope;
use crate::spares;

pub(crate) struct Envelope<M: RemoteMessage>(Option<Content<M>>);

/// What is in an envelope until it is opened, after which the envelope is used again.
struct Content<M: RemoteMessage> {
    message: M,
    owed: Owed<M::Reply>,
    deadline: Deadline,
    /// Held from arrival to here for messages from other nodes: returns their credit.
    ticket: Option<FlowTicket>,
}

/// What the sender of a message waits for.
pub(crate) enum Owed<T> {
    Nothing,
    Acceptance(Arc<Acceptance>),
    Answer(ReplyTo<T>),
}

impl<T> Owed<T> {
    /// Tells the sender that its message will not be handled. The error comes back if nobody waits to hear it, with the
    /// acceptance of a sender on this node, who may still ask.
    pub(crate) fn refuse(self, error: CallError) -> Option<(CallError, Option<Arc<Acceptance>>)> {
        match self {
            Owed::Answer(reply) => {
                reply.refuse(error);
                None
            }
            Owed::Acceptance(acceptance) if acceptance.fail(&error) => None,
            Owed::Acceptance(acceptance) if !acceptance.is_far() => Some((error, Some(acceptance))),
            Owed::Acceptance(_) | Owed::Nothing => Some((error, None)),
        }
    }

    /// What has to hear when the message has moved up.
    pub(crate) fn acceptance(&self) -> Option<Arc<Acceptance>> {
        match self {
            Owed::Acceptance(acceptance) => Some(Arc::clone(acceptance)),
            Owed::Answer(_) | Owed::Nothing => None,
        }
    }
}

impl<M: RemoteMessage> Envelope<M> {
    pub(crate) fn tell(message: M, deadline: Deadline) -> Box<Self> {
        Self::seal(Content { message, owed: Owed::Nothing, deadline, ticket: None })
    }

    /// A tell that its handler has put aside, with its way back if it came from another node.
    pub(crate) fn put_aside(message: M, deadline: Deadline, ticket: Option<FlowTicket>) -> Box<Self> {
        Self::seal(Content { message, owed: Owed::Nothing, deadline, ticket })
    }

    pub(crate) fn ask(message: M, reply: ReplyTo<M::Reply>, deadline: Deadline) -> Box<Self> {
        Self::seal(Content { message, owed: Owed::Answer(reply), deadline, ticket: None })
    }

    /// From another node. An answer that is owed keeps the ticket itself.
    pub(crate) fn incoming(
        message: M,
        owed: Owed<M::Reply>,
        deadline: Deadline,
        ticket: Option<FlowTicket>,
    ) -> Box<Self> {
        Self::seal(Content { message, owed, deadline, ticket })
    }

    fn seal(content: Content<M>) -> Box<Self> {
        match spares::take::<Box<Self>>() {
            Some(mut spare) => {
                spare.0 = Some(content);
                spare
            }
            None => Box::new(Envelope(Some(content))),
        }
    }

    /// Empty only if it was opened before.
    fn open(mut self: Box<Self>) -> Option<Content<M>> {
        let content = self.0.take();
        spares::keep::<Self, _>(self);
        content
    }
}

impl<A, M> Letter<A> for Envelope<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    fn deliver(self: Box<Self>, actor: &mut A, ctx: &mut Context<A>, shared: &Arc<Shared<A>>, now: Instant) {
        if let Some(error) = Letter::<A>::unwanted(&*self, now) {
            return shared.dismiss(self, error);
        }
        let Some(Content { message, mut owed, deadline, ticket }) = self.open() else { return };
        if let Owed::Answer(reply) = &mut owed
            && !reply.begin()
        {
            // Given up this very moment: its caller has been told that it never began.
            return;
        }
        let reply = match owed {
            Owed::Answer(reply) => Some(reply),
            Owed::Acceptance(_) | Owed::Nothing => None,
        };
        if let Some(snapshots) = shared.snapshots() {
            snapshots.message();
        }
        // The mailbox has room again as soon as the handler begins. A tell that is put aside still knows whose it is.
        let ticket = ticket.map(FlowTicket::begun);
        let caller = reply.as_ref().map_or(Caller::Nobody, ReplyTo::caller);
        let call = scope::Call { deadline, caller: Some(caller) };
        scope::serve(call, (M::KEY, M::NAME), || match catch_unwind(AssertUnwindSafe(|| actor.handle(message, ctx))) {
            Ok(response) => respond::<A, M>(response, ctx, reply, ticket, shared),
            Err(panic) => {
                let text = panic_text(&*panic);
                if let Some(reply) = reply {
                    reply.send(Err(shared.panicked(M::NAME, &text)));
                }
                // The cell ends this life of the actor.
                resume_unwind(panic);
            }
        });
    }

    fn refuse(self: Box<Self>, error: CallError) -> Option<Undelivered> {
        let Content { message, owed, ticket, .. } = self.open()?;
        let (error, acceptance) = owed.refuse(error)?;
        Some(match ticket {
            Some(ticket) => Undelivered::Far { ticket, reason: error },
            None => Undelivered::near(message, error, acceptance),
        })
    }

    fn unwanted(&self, now: Instant) -> Option<CallError> {
        let Content { owed, deadline, .. } = self.0.as_ref()?;
        if let Owed::Answer(reply) = owed
            && reply.is_cancelled()
        {
            Some(CallError::Cancelled { started: false })
        } else if deadline.is_over(now) {
            Some(CallError::DeadlineExceeded { started: false })
        } else {
            None
        }
    }

    fn stand_in_line(&mut self) -> Option<Arc<Acceptance>> {
        let Content { owed, ticket, .. } = self.0.as_mut()?;
        // A tell from another node is on its way for its sender, who has waited for credit.
        if matches!(owed, Owed::Nothing) && ticket.is_none() {
            *owed = Owed::Acceptance(Acceptance::near());
        }
        owed.acceptance()
    }
}
