//! The one kind of address: the same for an actor of this process and for one across the network.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mobula_core::{ActorId, CallError, Deadline, NodeId, RemoteMessage, codec, limits};
use mobula_transport::{Accepted, Call, now};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::actor::RemoteActor;
use crate::ask::{Ask, Tell};
use crate::cell::Shared;
use crate::control::{self, Control};
use crate::envelope::Envelope;
use crate::mailbox::{Order, Refused};
use crate::node::{Node, NodeLink};
use crate::reply::{Pending, ReplyTo, Slot};
use crate::scope;

/// A reference to an actor, wherever it lives. Cheap to clone; it can be sent in messages and task arguments, and
/// points to the same actor there.
///
/// What one sender sends to one actor arrives in the order of the calls, tells and asks alike.
pub struct ActorRef<A: Actor<Context = Context<A>>> {
    target: Target<A>,
    wait: Wait,
}

enum Target<A: Actor<Context = Context<A>>> {
    Near(Arc<Shared<A>>),
    Far(Arc<Far>),
}

struct Far {
    node: NodeId,
    actor: ActorId,
    /// The node of this process through which the call goes.
    via: Option<Node>,
    link: OnceLock<Arc<NodeLink>>,
}

/// How long an ask waits.
#[derive(Clone, Copy)]
enum Wait {
    Default,
    For(Duration),
    ForEver,
}

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    pub(crate) fn near(shared: Arc<Shared<A>>) -> Self {
        ActorRef { target: Target::Near(shared), wait: Wait::Default }
    }

    pub(crate) fn far(node: NodeId, actor: ActorId, via: Option<Node>) -> Self {
        let far = Far { node, actor, via, link: OnceLock::new() };
        ActorRef { target: Target::Far(Arc::new(far)), wait: Wait::Default }
    }

    /// Sends `message` now and gives the future of its answer.
    ///
    /// The deadline is 30 s, or what [`with_deadline`](Self::with_deadline) says; asked from a handler, it is no later
    /// than that of the call being handled.
    /// # Errors
    /// [`CallError`]; its [`outcome`](CallError::outcome) says whether a retry is safe.
    pub fn ask<M>(&self, message: M) -> Ask<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.ask_deadline();
        match &self.target {
            Target::Near(shared) => {
                let slot = Slot::new();
                let reply = Some(ReplyTo::near(Arc::clone(&slot)));
                let envelope = Envelope { message, reply, deadline, ticket: None };
                if let Err(Refused { letter, error }) = shared.mailbox.put(Box::new(envelope), || None) {
                    letter.refuse(error);
                }
                Ask::near(slot, deadline, shared.node.clone())
            }
            Target::Far(far) => match far.link() {
                Ok(link) => {
                    let slot = Slot::new();
                    let waiter = Pending(Arc::clone(&slot) as _);
                    let sent = link.ask(&far.call::<M>(deadline), waiter, |out| codec::encode_into(&message, out));
                    Ask::far(slot, link, sent)
                }
                Err(error) => Ask::failed(error),
            },
        }
    }

    /// Sends `message` without an answer. The future says when it is in the mailbox, or on its way to its node; it
    /// waits while there is no room. What becomes of the message after that is not told.
    ///
    /// # Errors
    /// [`CallError`] with the outcome "not sent" or "not started".
    pub fn tell<M>(&self, message: M) -> Tell<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.tell_deadline();
        match &self.target {
            Target::Near(shared) => {
                let envelope = Envelope { message, reply: None, deadline, ticket: None };
                let mut waiter = None;
                let put = shared.mailbox.put(Box::new(envelope), || waiter.insert(Slot::new()).clone().into());
                match (put, waiter) {
                    (Err(Refused { error, .. }), _) => Tell::known(Err(error)),
                    (Ok(_), None) => Tell::known(Ok(())),
                    (Ok(_), Some(slot)) => Tell::in_line(slot),
                }
            }
            Target::Far(far) => {
                let link = match far.link() {
                    Ok(link) => link,
                    Err(error) => return Tell::known(Err(error)),
                };
                let mut waiter = None;
                let told = link.tell(
                    &far.call::<M>(deadline),
                    || Pending(waiter.insert(Slot::<()>::new()).clone()),
                    |out| codec::encode_into(&message, out),
                );
                match (told, waiter) {
                    (Err(error), _) => Tell::known(Err(error)),
                    (Ok(Accepted::InLine), Some(slot)) => Tell::in_line(slot),
                    (Ok(_), _) => Tell::known(Ok(())),
                }
            }
        }
    }

    /// Sends `message` without an answer, if there is room for it at once.
    ///
    /// # Errors
    /// [`CallError::Full`] if there is none; else as [`tell`](Self::tell).
    pub fn try_tell<M>(&self, message: M) -> Result<(), CallError>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.tell_deadline();
        match &self.target {
            Target::Near(shared) => {
                let envelope = Envelope { message, reply: None, deadline, ticket: None };
                shared.mailbox.try_put(Box::new(envelope)).map_err(|refused| refused.error)
            }
            Target::Far(far) => {
                let link = far.link()?;
                if !link.has_credit(far.actor) {
                    return Err(CallError::Full { limit: limits::CREDIT_MESSAGES.into() });
                }
                let waiter = || Pending(Slot::<()>::new());
                link.tell(&far.call::<M>(deadline), waiter, |out| codec::encode_into(&message, out)).map(|_| ())
            }
        }
    }

    /// Ends the actor: what it handles now it finishes, queued mail is answered [`CallError::Stopped`]. Returns when
    /// the order has reached the actor's node, not when the actor has ended.
    ///
    /// # Errors
    /// [`CallError`] if the node cannot be reached. An actor that has ended already is no error.
    pub async fn stop(&self) -> Result<(), CallError> {
        self.order(Order::Stop).await
    }

    /// Ends the actor without running its hooks. Otherwise as [`stop`](Self::stop).
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn kill(&self) -> Result<(), CallError> {
        self.order(Order::Kill).await
    }

    async fn order(&self, order: Order) -> Result<(), CallError> {
        match &self.target {
            Target::Near(shared) => shared.mailbox.order(order),
            Target::Far(far) => {
                let control = Control::Order { actor: far.actor, kill: order == Order::Kill };
                control::request(far.link()?, &control).await?;
            }
        }
        Ok(())
    }

    /// The same reference, whose asks and tells expire after `wait`.
    #[must_use]
    pub fn with_deadline(&self, wait: Duration) -> Self {
        ActorRef { target: self.target.clone(), wait: Wait::For(wait) }
    }

    /// The same reference, whose asks wait as long as it takes.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        ActorRef { target: self.target.clone(), wait: Wait::ForEver }
    }

    /// The node where the actor lives, and which life of it.
    pub fn node(&self) -> &NodeId {
        match &self.target {
            Target::Near(shared) => shared.node.id(),
            Target::Far(far) => &far.node,
        }
    }

    /// The actor, within that life of its node.
    pub fn id(&self) -> ActorId {
        match &self.target {
            Target::Near(shared) => shared.id,
            Target::Far(far) => far.actor,
        }
    }

    /// True if the actor lives in this process: messages are handed over, not encoded.
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Near(_))
    }

    fn ask_deadline(&self) -> Deadline {
        let own = match self.wait {
            Wait::Default => Deadline::after(now(), limits::ASK_DEADLINE),
            Wait::For(wait) => Deadline::after(now(), wait),
            Wait::ForEver => Deadline::NEVER,
        };
        own.min(scope::deadline())
    }

    /// A tell has no deadline unless it was given one: what it starts may well outlive the call that tells it.
    fn tell_deadline(&self) -> Deadline {
        match self.wait {
            Wait::For(wait) => Deadline::after(now(), wait),
            Wait::Default | Wait::ForEver => Deadline::NEVER,
        }
    }
}

impl Far {
    fn link(&self) -> Result<&Arc<NodeLink>, CallError> {
        if let Some(link) = self.link.get() {
            return Ok(link);
        }
        let Some(via) = self.via.clone().or_else(scope::current_node) else {
            let reason = "this process runs no node".to_owned();
            return Err(CallError::Unreachable { node: self.node.clone(), sent: false, reason });
        };
        let link = via.link(&self.node, self.actor)?;
        Ok(self.link.get_or_init(|| link))
    }

    fn call<M: RemoteMessage>(&self, deadline: Deadline) -> Call {
        Call { target: self.actor, key: M::KEY, name: M::NAME, schema: M::SCHEMA, deadline }
    }
}

impl<A: Actor<Context = Context<A>>> Clone for Target<A> {
    fn clone(&self) -> Self {
        match self {
            Target::Near(shared) => Target::Near(Arc::clone(shared)),
            Target::Far(far) => Target::Far(Arc::clone(far)),
        }
    }
}

impl<A: Actor<Context = Context<A>>> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        ActorRef { target: self.target.clone(), wait: self.wait }
    }
}

impl<A: Actor<Context = Context<A>>> std::fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.id(), self.node())
    }
}

impl<A: Actor<Context = Context<A>>> PartialEq for ActorRef<A> {
    /// Equal if they point to the same actor.
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.node() == other.node()
    }
}

impl<A: Actor<Context = Context<A>>> Eq for ActorRef<A> {}

#[derive(Serialize, Deserialize)]
struct OnTheWire {
    node: NodeId,
    actor: ActorId,
    actor_type: String,
}

impl<A: RemoteActor> Serialize for ActorRef<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = OnTheWire { node: self.node().clone(), actor: self.id(), actor_type: A::NAME.to_owned() };
        wire.serialize(serializer).map_err(ser::Error::custom)
    }
}

impl<'de, A: RemoteActor> Deserialize<'de> for ActorRef<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OnTheWire { node, actor, actor_type } = OnTheWire::deserialize(deserializer)?;
        if actor_type != A::NAME {
            let text = format!("a reference to `{actor_type}` where one to `{}` is expected", A::NAME);
            return Err(de::Error::custom(text));
        }
        let via = scope::current_node();
        if let Some(here) = &via
            && here.id().uid == node.uid
            && let Some(shared) = here.local::<A>(actor)
        {
            return Ok(ActorRef::near(shared));
        }
        Ok(ActorRef::far(node, actor, via))
    }
}
