//! Stashing: a handler puts its message aside, and its actor takes all of them up again when it is ready.

use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, Message};
use mobula_core::RemoteMessage;

use crate::cell::Shared;
use crate::envelope::Envelope;
use crate::inbound::FlowTicket;
use crate::reply::ReplyTo;
use crate::scope;

/// What a handler returns that may put its message aside: its answer, or the message itself.
///
/// A message that is put aside is not answered: whoever asked waits on, as long as the deadline allows, and who gives up
/// is not served later. Its handler has run, though: if nothing comes of it, the error says `started: true`. [`unstash_all`] puts what was put aside in front of the mailbox, in its order. So does a restart.
/// At most [`STASH_MESSAGES`](mobula_core::limits::STASH_MESSAGES) that somebody waits for are kept aside; one more is answered
/// [`Full`](mobula_core::CallError::Full).
///
/// An actor whose behaviour depends on its state keeps the state in an enum, and puts aside what it cannot handle in it:
///
/// ```
/// use actix::{Actor, Context, Handler};
/// use mobula_actors::{Stashable, unstash_all};
///
/// enum Session {
///     Connecting,
///     Ready { prefix: String },
/// }
///
/// impl Actor for Session {
///     type Context = Context<Self>;
/// }
///
/// #[derive(actix::Message)]
/// #[rtype(result = "String")]
/// struct Query(String);
///
/// impl Handler<Query> for Session {
///     type Result = Stashable<Query>;
///
///     fn handle(&mut self, query: Query, _: &mut Context<Self>) -> Stashable<Query> {
///         match self {
///             Session::Connecting => Stashable::Later(query),
///             Session::Ready { prefix } => Stashable::Now(format!("{prefix}{}", query.0)),
///         }
///     }
/// }
///
/// #[derive(actix::Message)]
/// #[rtype(result = "()")]
/// struct Connected(String);
///
/// impl Handler<Connected> for Session {
///     type Result = ();
///
///     fn handle(&mut self, Connected(prefix): Connected, _: &mut Context<Self>) {
///         *self = Session::Ready { prefix };
///         unstash_all();
///     }
/// }
/// ```
#[derive(Debug)]
pub enum Stashable<M: Message> {
    /// The message is handled.
    Now(M::Result),
    /// The message is put aside.
    Later(M),
}

impl<A, M> MessageResponse<A, M> for Stashable<M>
where
    A: Actor,
    M: Message,
{
    /// For an actor that Mobula does not host: there nothing can be put aside, and the asker finds itself unanswered.
    fn handle(self, _: &mut A::Context, answer: Option<OneshotSender<M::Result>>) {
        if let (Stashable::Now(result), Some(answer)) = (self, answer) {
            // Who asked may be gone.
            let _ = answer.send(result);
        }
    }
}

/// Answers, or puts the message aside with its way back and its deadline. To be called in the scope of its call.
pub(crate) fn respond<A, M>(
    response: Stashable<M>,
    reply: Option<ReplyTo<M::Reply>>,
    ticket: Option<FlowTicket>,
    shared: &Arc<Shared<A>>,
) where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    match (response, reply) {
        (Stashable::Now(result), Some(reply)) => reply.send(Ok(result)),
        (Stashable::Now(_), None) => {}
        (Stashable::Later(message), Some(reply)) => {
            reply.put_aside();
            shared.stash(Envelope::ask(message, reply, scope::deadline()));
        }
        (Stashable::Later(message), None) => shared.stash(Envelope::put_aside(message, scope::deadline(), ticket)),
    }
}

/// Puts what the actor whose handler runs on this thread has put aside in front of its mailbox, in its order. Gives the
/// number of messages; 0 outside of handlers.
pub fn unstash_all() -> usize {
    scope::current_actor().map_or(0, |actor| actor.unstash_all())
}
