//! The one kind of address: the same for an actor of this process and for one across the network.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use futures::Stream;
use mobula_core::{ActorAddress, ActorId, CallError, Deadline, ExitReason, NodeId, RemoteMessage};
use mobula_transport::now;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::actor::RemoteActor;
use crate::ask::{Ask, Tell};
use crate::cell::Shared;
use crate::control::{self, Control};
use crate::dead_letter::{DeadLetter, Unheard};
use crate::envelope::Envelope;
use crate::far::{Far, Wait};
use crate::graceful;
use crate::link::Linking;
use crate::mailbox::{Order, Placed, Refused};
use crate::monitor::{Down, Monitor, MonitorGuard, Watch};
use crate::node::Node;
use crate::recipient::Recipient;
use crate::reply::{ReplyTo, Slot, StreamReader};
use crate::scope;
use crate::stream::{ReplyStream, StreamMessage};
use crate::vitals::{self, Restarted};
use crate::way::Way;

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

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    pub(crate) fn near(shared: Arc<Shared<A>>) -> Self {
        ActorRef { target: Target::Near(shared), wait: Wait::Default }
    }

    pub(crate) fn far(node: NodeId, actor: ActorId, via: Option<Node>) -> Self {
        ActorRef { target: Target::Far(Arc::new(Far::new(node, actor, via))), wait: Wait::Default }
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
        let now = now();
        let deadline = self.wait.of_ask_at(now);
        match &self.target {
            Target::Near(shared) if scope::is_exclusive(shared) => {
                Ask::failed(CallError::Deadlock { actor: shared.id })
            }
            Target::Near(shared) => {
                let message = match shared.node.pass_message(message) {
                    Ok(message) => message,
                    Err(error) => return Ask::failed(error),
                };
                let slot = Slot::new();
                let reply = ReplyTo::near(Arc::clone(&slot)).passing(&shared.node);
                if let Err(Refused { letter, error, .. }) = shared.put(Envelope::ask(message, reply, deadline)) {
                    shared.dismiss(letter, error);
                }
                Ask::near(slot, deadline, shared.node.clone())
            }
            Target::Far(far) => far.ask(message, now, deadline),
        }
    }

    /// Sends `message` now and gives the stream of its answers. The deadline is that of the whole stream.
    ///
    /// # Errors
    /// [`CallError`], as the last item.
    pub fn ask_stream<M>(&self, message: M) -> ReplyStream<M::Item>
    where
        A: Handler<M>,
        M: StreamMessage + Message<Result = ()>,
    {
        ReplyStream::open(|reader| self.open_stream(message, reader))
    }

    /// As [`ask`](Self::ask), with many answers, which `reader` takes.
    pub(crate) fn open_stream<M>(&self, message: M, reader: Arc<dyn StreamReader>) -> Result<Way, CallError>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.wait.of_ask();
        match &self.target {
            Target::Near(shared) if scope::is_exclusive(shared) => Err(CallError::Deadlock { actor: shared.id }),
            Target::Near(shared) => {
                let message = shared.node.pass_message(message)?;
                let reply = ReplyTo::stream(reader);
                if let Err(Refused { letter, error, .. }) = shared.put(Envelope::ask(message, reply, deadline)) {
                    shared.dismiss(letter, error);
                }
                Ok(Way::near(shared.node.clone(), deadline))
            }
            Target::Far(far) => far.open_stream(message, deadline, reader),
        }
    }

    /// Sends `message` without an answer. The future says when it is in the mailbox, or on its way to its node; it
    /// waits while there is no room. What becomes of the message after that, [`Node::on_dead_letter`] tells if it is
    /// not handled.
    ///
    /// # Errors
    /// [`CallError`] with the outcome "not sent" or "not started".
    pub fn tell<M>(&self, message: M) -> Tell<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.wait.of_tell();
        match &self.target {
            Target::Near(shared) => tell_near(shared, message, deadline, false),
            Target::Far(far) => far.tell(message, deadline),
        }
    }

    /// Sends `message` without an answer. The future says when it is in the actor's mailbox, wherever that is. For an
    /// actor of this process that is what [`tell`](Self::tell) does; for one elsewhere it takes a way there and back.
    ///
    /// # Errors
    /// [`CallError`]; "unknown" if the connection ends before the other node has said so, or the deadline passes.
    pub fn tell_acked<M>(&self, message: M) -> Tell<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        match &self.target {
            Target::Near(shared) => tell_near(shared, message, self.wait.of_tell(), true),
            Target::Far(far) => far.tell_acked(message, self.wait.of_tell()),
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
        let deadline = self.wait.of_tell();
        match &self.target {
            Target::Near(shared) => {
                let message = shared.node.pass_message(message)?;
                shared.try_put(Envelope::tell(message, deadline)).map_err(|refused| refused.error)
            }
            Target::Far(far) => far.try_tell(message, deadline),
        }
    }

    /// Watches for the actor's end, from now on. An actor that has ended already answers at once, with
    /// [`ExitReason::NoProc`](mobula_core::ExitReason::NoProc).
    pub fn monitor(&self) -> Monitor {
        match &self.target {
            Target::Near(shared) => {
                let watch = Watch::of(shared.node.actor(shared.id).as_ref());
                Monitor::near(shared.node.id().clone(), shared.id, watch)
            }
            Target::Far(far) => {
                // Over the data link, behind what the actor has sent here.
                let sent = far
                    .link()
                    .map(|link| control::request_for_ever(link, &Control::AwaitEnd { actor: far.actor, kept: false }));
                Monitor::far(far.node.clone(), far.actor, sent)
            }
        }
    }

    /// As [`monitor`](Self::monitor), with the news as a message to `to`: usually the monitoring actor itself,
    /// `mobula::this::<Self>()`, which has a `Handler<Down>`.
    ///
    /// A recipient of this node gets the news however full its mailbox is. One of another node gets it as a tell, which
    /// is refused when too many stand in line before it.
    pub fn monitor_into(&self, to: impl Into<Recipient<Down>>) -> MonitorGuard {
        match &self.target {
            Target::Near(shared) => {
                let actor = shared.node.actor(shared.id);
                MonitorGuard::near(shared.node.id().clone(), shared.id, actor.as_ref(), to.into())
            }
            Target::Far(far) => MonitorGuard::far(far.node.clone(), far.actor, far.link().cloned(), to.into()),
        }
    }

    /// Links this actor with `other`, wherever the two live: when one of them comes to an end that is not
    /// [`Normal`](ExitReason::Normal), the other ends, too, with [`ExitReason::Linked`] as its reason. A restart is not
    /// an end. There is at most one link between two actors, and it is the same from both ends.
    ///
    /// Done or on its way when the call returns; the future says when this actor's node has it. An `other` that has
    /// ended already ends this actor, with `NoProc` as the cause, and the other way round.
    /// # Errors
    /// [`CallError`] if this actor's node cannot be reached; [`CallError::Overloaded`] if it, or an `other` of the same node, has
    /// [`limits::LINKS_MAX`](mobula_core::limits::LINKS_MAX) links. An `other` of another node that has as many ends this actor with that as the cause.
    pub fn link<B: Actor<Context = Context<B>>>(&self, other: &ActorRef<B>) -> Linking {
        self.set_link(other.address(), true)
    }

    /// Takes the link with `other` away, if there is one. An end of `other` that comes later does nothing to this actor.
    /// # Errors
    /// [`CallError`] if this actor's node cannot be reached.
    pub fn unlink<B: Actor<Context = Context<B>>>(&self, other: &ActorRef<B>) -> Linking {
        self.set_link(other.address(), false)
    }

    fn set_link(&self, peer: ActorAddress, on: bool) -> Linking {
        match &self.target {
            Target::Near(shared) => Linking::known(shared.node.links().change(&shared.node, shared.id, peer, on)),
            Target::Far(far) => {
                // It has ended on this very node, and is told so as one is whose end is not known here.
                if let Some(home) = far.via().filter(|via| *via.id() == far.node) {
                    return Linking::known(home.links().change(&home, far.actor, peer, on));
                }
                let control = Control::Link { actor: far.actor, peer, on };
                // Over the data link, as all signals between linked actors.
                Linking::sent(far.link().map(|link| control::request(link, &control)))
            }
        }
    }

    /// The restarts of the actor from now on, each with the generation that began and how the life before ended. Ends
    /// with the actor. Of many restarts in a row that are not read, the latest 8 are kept.
    pub fn watch_restarts(&self) -> impl Stream<Item = Restarted> + Send + Unpin + use<A> {
        vitals::restarts(self.via(), self.address())
    }

    /// The node of this process through which the actor is reached.
    pub(crate) fn via(&self) -> Option<Node> {
        match &self.target {
            Target::Near(shared) => Some(shared.node.clone()),
            Target::Far(far) => far.via(),
        }
    }

    /// The actor and its node.
    pub fn address(&self) -> ActorAddress {
        ActorAddress { node: self.node().clone(), actor: self.id() }
    }

    /// Ends the actor: what it handles now it finishes, queued mail is answered [`CallError::Stopped`]. Returns when
    /// the order has reached the actor's node, not when the actor has ended.
    ///
    /// # Errors
    /// [`CallError`] if the node cannot be reached. An actor that has ended already is no error.
    pub async fn stop(&self) -> Result<(), CallError> {
        self.order(Order::Stop(ExitReason::Shutdown)).await
    }

    /// Ends the actor without running its hooks. Otherwise as [`stop`](Self::stop).
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn kill(&self) -> Result<(), CallError> {
        self.order(Order::Kill).await
    }

    /// Ends the actor once it has handled what this sender has sent it before: the order stands in the mailbox. What
    /// comes behind it is answered [`CallError::Stopped`], and a handler that answers with a future is cut off then, as
    /// by [`stop`](Self::stop). The order is given by this call, polled or not; the future says when it has a place there.
    ///
    /// # Errors
    /// [`CallError`] if it was not accepted. An actor of this node that has ended already is no error.
    pub fn stop_gracefully(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<A> {
        match &self.target {
            Target::Near(shared) => graceful::near(shared),
            Target::Far(far) => graceful::far(far),
        }
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
        self.with_wait(Wait::For(wait))
    }

    /// The same reference, whose asks wait as long as it takes.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        self.with_wait(Wait::ForEver)
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

    /// Mail of the runtime's own: has room always at home, and is skipped there once `slot` is cancelled.
    pub(crate) fn signal<M>(&self, message: M, slot: Arc<Slot<M::Reply>>)
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        match &self.target {
            Target::Near(shared) => {
                let signal = Envelope::ask(message, ReplyTo::near(slot), Deadline::NEVER);
                if let Err(Refused { letter, error, .. }) = shared.mailbox.put_signal(signal) {
                    shared.dismiss(letter, error);
                }
            }
            Target::Far(far) => drop(far.tell(message, Deadline::NEVER)),
        }
    }

    /// The same reference, whose asks wait as long as the call that is being handled may take.
    pub(crate) fn as_far_as_the_call(&self) -> Self {
        match self.wait {
            Wait::Default => self.with_wait(Wait::ForEver),
            Wait::For(_) | Wait::ForEver => self.clone(),
        }
    }

    pub(crate) fn with_wait(&self, wait: Wait) -> Self {
        ActorRef { target: self.target.clone(), wait }
    }

    /// Why a call would not leave this node, as far as is known here.
    pub(crate) fn known_end(&self) -> Option<CallError> {
        match &self.target {
            Target::Near(shared) => shared.mailbox.is_closed().then_some(CallError::Stopped),
            Target::Far(far) => far.known_end(),
        }
    }

    /// The node of this process through which calls go.
    pub(crate) fn through(&self) -> Option<Node> {
        match &self.target {
            Target::Near(shared) => Some(shared.node.clone()),
            Target::Far(far) => far.through(),
        }
    }

    /// True if the actor lives in this process: messages are handed over, not encoded.
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Near(_))
    }
}

/// Tells an actor of this process. If `acked`, its sender hears also of what the mailbox's policy drops.
fn tell_near<A, M>(shared: &Arc<Shared<A>>, message: M, deadline: Deadline, acked: bool) -> Tell<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
{
    let message = match shared.node.pass_message(message) {
        Ok(message) => message,
        Err(reason) => {
            let (node, actor) = (shared.node.id().clone(), shared.id);
            let letter = DeadLetter { node, actor, message: M::NAME, reason, body: None };
            return Tell::refused(Unheard::new(Some(shared.node.clone()), letter));
        }
    };
    match shared.put(Envelope::tell(message, deadline)) {
        Ok(Placed::InLine(Some(acceptance))) if scope::is_exclusive(shared) => {
            // It could only wait for itself. The place in line is safe; what becomes of it there, nobody waits for.
            acceptance.abandon();
            Tell::accepted()
        }
        Ok(Placed::InLine(Some(acceptance))) => Tell::near(acceptance, deadline, &shared.node),
        Ok(Placed::Inside | Placed::InLine(None)) => Tell::accepted(),
        Err(Refused { letter, error, dropped: true }) if !acked => {
            shared.dismiss(letter, error);
            Tell::accepted()
        }
        Err(Refused { letter, error, .. }) => {
            // The message is at hand still, should nobody look at the error.
            Unheard::of_refused(&shared.node, shared.id, letter, error).map_or_else(Tell::accepted, Tell::refused)
        }
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
