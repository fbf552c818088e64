//! A reference that knows one message and not the actor's type.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mobula_core::{ActorId, CallError, Deadline, NodeId, RemoteMessage};
use mobula_transport::now;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::actor_ref::ActorRef;
use crate::ask::{Ask, Tell};
use crate::far::{Far, Wait};
use crate::node::Node;
use crate::reply::{Slot, StreamReader};
use crate::scope;
use crate::stream::{ReplyStream, StreamMessage};
use crate::way::Way;

/// A reference to any actor that takes an `M`, made [`from`](From) an [`ActorRef`]. Cheap to clone; it can be sent in
/// messages, and points to the same actor there.
///
/// Order, deadlines and errors are those of the actor's own reference. An actor that does not take `M` from other nodes
/// answers [`CallError::UnknownMessage`].
pub struct Recipient<M: RemoteMessage>(Arc<dyn Post<M>>);

trait Post<M: RemoteMessage>: Send + Sync {
    fn ask(&self, message: M) -> Ask<M>;
    /// Not the stream itself, for its items' type is that of streams' messages alone.
    fn open_stream(&self, message: M, reader: Arc<dyn StreamReader>) -> Result<Way, CallError>;
    fn tell(&self, message: M) -> Tell<M>;
    fn tell_acked(&self, message: M) -> Tell<M>;
    fn try_tell(&self, message: M) -> Result<(), CallError>;
    /// Mail of the runtime's own: has room always, and is skipped once `slot` is cancelled.
    fn signal(&self, message: M, slot: Arc<Slot<M::Reply>>);
    fn with_wait(&self, wait: Wait) -> Recipient<M>;
    fn node(&self) -> &NodeId;
    fn id(&self) -> ActorId;
    fn known_end(&self) -> Option<CallError>;
    fn through(&self) -> Option<Node>;
}

impl<A, M> Post<M> for ActorRef<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    fn ask(&self, message: M) -> Ask<M> {
        ActorRef::ask(self, message)
    }

    fn open_stream(&self, message: M, reader: Arc<dyn StreamReader>) -> Result<Way, CallError> {
        ActorRef::open_stream(self, message, reader)
    }

    fn tell(&self, message: M) -> Tell<M> {
        ActorRef::tell(self, message)
    }

    fn tell_acked(&self, message: M) -> Tell<M> {
        ActorRef::tell_acked(self, message)
    }

    fn try_tell(&self, message: M) -> Result<(), CallError> {
        ActorRef::try_tell(self, message)
    }

    fn signal(&self, message: M, slot: Arc<Slot<M::Reply>>) {
        ActorRef::signal(self, message, slot);
    }

    fn with_wait(&self, wait: Wait) -> Recipient<M> {
        ActorRef::with_wait(self, wait).into()
    }

    fn node(&self) -> &NodeId {
        ActorRef::node(self)
    }

    fn id(&self) -> ActorId {
        ActorRef::id(self)
    }

    fn known_end(&self) -> Option<CallError> {
        ActorRef::known_end(self)
    }

    fn through(&self) -> Option<Node> {
        ActorRef::through(self)
    }
}

/// An actor of another node, of whatever type.
struct FarPost {
    far: Arc<Far>,
    wait: Wait,
}

impl<M: RemoteMessage> Post<M> for FarPost {
    fn ask(&self, message: M) -> Ask<M> {
        let now = now();
        self.far.ask(message, now, self.wait.of_ask_at(now))
    }

    fn open_stream(&self, message: M, reader: Arc<dyn StreamReader>) -> Result<Way, CallError> {
        self.far.open_stream(message, self.wait.of_ask(), reader)
    }

    fn tell(&self, message: M) -> Tell<M> {
        self.far.tell(message, self.wait.of_tell())
    }

    fn tell_acked(&self, message: M) -> Tell<M> {
        self.far.tell_acked(message, self.wait.of_tell())
    }

    fn try_tell(&self, message: M) -> Result<(), CallError> {
        self.far.try_tell(message, self.wait.of_tell())
    }

    fn signal(&self, message: M, _: Arc<Slot<M::Reply>>) {
        drop(self.far.tell(message, Deadline::NEVER));
    }

    fn with_wait(&self, wait: Wait) -> Recipient<M> {
        Recipient(Arc::new(FarPost { far: Arc::clone(&self.far), wait }))
    }

    fn node(&self) -> &NodeId {
        &self.far.node
    }

    fn id(&self) -> ActorId {
        self.far.actor
    }

    fn known_end(&self) -> Option<CallError> {
        self.far.known_end()
    }

    fn through(&self) -> Option<Node> {
        self.far.through()
    }
}

impl<M: RemoteMessage> Recipient<M> {
    /// The actor itself if it lives on `via`, else the way to it from there.
    pub(crate) fn at(node: NodeId, actor: ActorId, via: Option<Node>) -> Self {
        if let Some(here) = &via
            && here.id().uid == node.uid
            && let Some(near) = here.recipient::<M>(actor)
        {
            return near;
        }
        Recipient(Arc::new(FarPost { far: Arc::new(Far::new(node, actor, via)), wait: Wait::Default }))
    }

    /// As [`ActorRef::ask`].
    pub fn ask(&self, message: M) -> Ask<M> {
        self.0.ask(message)
    }

    /// As [`ActorRef::tell`].
    pub fn tell(&self, message: M) -> Tell<M> {
        self.0.tell(message)
    }

    /// As [`ActorRef::tell_acked`].
    pub fn tell_acked(&self, message: M) -> Tell<M> {
        self.0.tell_acked(message)
    }

    /// As [`ActorRef::try_tell`].
    ///
    /// # Errors
    /// [`CallError::Full`] if there is no room for it at once.
    pub fn try_tell(&self, message: M) -> Result<(), CallError> {
        self.0.try_tell(message)
    }

    pub(crate) fn signal(&self, message: M, slot: Arc<Slot<M::Reply>>) {
        self.0.signal(message, slot);
    }

    /// The same recipient, whose asks and tells expire after `wait`.
    #[must_use]
    pub fn with_deadline(&self, wait: Duration) -> Self {
        self.0.with_wait(Wait::For(wait))
    }

    /// The same recipient, whose asks wait as long as it takes.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        self.0.with_wait(Wait::ForEver)
    }

    /// Why a call would not leave this node, as far as is known here.
    pub(crate) fn known_end(&self) -> Option<CallError> {
        self.0.known_end()
    }

    /// The node of this process through which calls go.
    pub(crate) fn through(&self) -> Option<Node> {
        self.0.through()
    }

    /// The node where the actor lives, and which life of it.
    pub fn node(&self) -> &NodeId {
        self.0.node()
    }

    /// The actor, within that life of its node.
    pub fn id(&self) -> ActorId {
        self.0.id()
    }
}

impl<M: StreamMessage> Recipient<M> {
    /// As [`ActorRef::ask_stream`]: sends `message` now and gives the stream of its answers. The deadline is that of the
    /// whole stream.
    ///
    /// # Errors
    /// [`CallError`], as the last item.
    pub fn ask_stream(&self, message: M) -> ReplyStream<M::Item> {
        ReplyStream::open(|reader| self.0.open_stream(message, reader))
    }
}

impl<A, M> From<ActorRef<A>> for Recipient<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    fn from(actor: ActorRef<A>) -> Self {
        Recipient(Arc::new(actor))
    }
}

impl<M: RemoteMessage> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Recipient(Arc::clone(&self.0))
    }
}

impl<M: RemoteMessage> std::fmt::Debug for Recipient<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} for {}", self.id(), self.node(), M::NAME)
    }
}

impl<M: RemoteMessage> PartialEq for Recipient<M> {
    /// Equal if they point to the same actor.
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.node() == other.node()
    }
}

impl<M: RemoteMessage> Eq for Recipient<M> {}

#[derive(Serialize, Deserialize)]
struct OnTheWire {
    node: NodeId,
    actor: ActorId,
    message: String,
}

impl<M: RemoteMessage> Serialize for Recipient<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = OnTheWire { node: self.node().clone(), actor: self.id(), message: M::NAME.to_owned() };
        wire.serialize(serializer).map_err(ser::Error::custom)
    }
}

impl<'de, M: RemoteMessage> Deserialize<'de> for Recipient<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OnTheWire { node, actor, message } = OnTheWire::deserialize(deserializer)?;
        if message != M::NAME {
            let text = format!("a recipient of `{message}` where one of `{}` is expected", M::NAME);
            return Err(serde::de::Error::custom(text));
        }
        Ok(Recipient::at(node, actor, scope::current_node()))
    }
}
