//! Routers: several actors behind one handle that is used like a single reference.
//!
//! `members` decides, `ask` sends and sends again, `pull` hands out work to whoever is free.
mod ask;
mod broadcast;
mod members;
mod pull;
mod routee;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mobula_core::{CallError, RemoteMessage};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use ask::RoutedAsk;
pub use broadcast::AskAll;
pub use members::{MemberId, Routing};
pub use routee::{Routee, Takes};

use crate::ask::Tell;
use crate::dead_letter::Unheard;
use crate::far::Wait;
use crate::node::Node;
use members::Members;

/// Several actors, near and far, behind one handle. Cheap to clone; clones share turn, counts and members.
///
/// A call goes to the member that its [`Routing`] chooses. A member that is found to have ended, or whose node is lost,
/// is left out from then on, and the call goes to another if its outcome is "not sent" or "not started"; else the caller
/// is told. With no member left, calls fail with [`CallError::Stopped`].
///
/// What one sender sends goes to several actors, so it is handled in order only as far as it goes to one of them.
///
/// ```
/// # use mobula_actors::{ActorRef, RemoteActor, Router};
/// # fn route<A: RemoteActor>(near: ActorRef<A>, far: ActorRef<A>) {
/// let router = Router::round_robin([near, far]);
/// # }
/// ```
pub struct Router<R: Routee> {
    shared: Arc<Shared<R>>,
    wait: Wait,
}

struct Shared<R> {
    routing: Routing,
    state: Mutex<State<R>>,
    keys: RwLock<HashMap<TypeId, KeyOf>>,
    /// Somebody replaces members that end: a call without a member waits for one.
    kept: bool,
    /// Members came or went, or work was put in.
    changed: watch::Sender<()>,
    /// The node of this process through which the first member is reached.
    node: OnceLock<Node>,
}

struct State<R> {
    members: Members<R>,
    pull: pull::Queue<R>,
    /// No call is taken any more.
    shut: bool,
}

/// A message's key, hashed, from the message with its type forgotten.
type KeyOf = Arc<dyn Fn(&dyn Any) -> Option<u64> + Send + Sync>;

impl<R: Routee> Router<R> {
    /// A router over `members`, which chooses as `routing` says.
    pub fn new(routing: Routing, members: impl IntoIterator<Item = R>) -> Self {
        let router = Self::make(routing, false, OnceLock::new());
        for member in members {
            router.add(member);
        }
        router
    }

    /// Each member in turn.
    pub fn round_robin(members: impl IntoIterator<Item = R>) -> Self {
        Self::new(Routing::RoundRobin, members)
    }

    /// The member with the fewest unanswered asks of this router: [`Routing::LeastLoaded`].
    pub fn least_loaded(members: impl IntoIterator<Item = R>) -> Self {
        Self::new(Routing::LeastLoaded, members)
    }

    /// Any member, by chance.
    pub fn random(members: impl IntoIterator<Item = R>) -> Self {
        Self::new(Routing::Random, members)
    }

    /// The member that a message's key belongs to; say what the key is with [`key`](Self::key). Routers over the same
    /// members agree, in every process of one build.
    pub fn consistent_hash(members: impl IntoIterator<Item = R>) -> Self {
        Self::new(Routing::ConsistentHash, members)
    }

    /// Members take the next message when they have answered the one before. Messages wait in the router, at most
    /// [`PULL_QUEUE_MESSAGES`](mobula_core::limits::PULL_QUEUE_MESSAGES) of them; one more fails with [`CallError::Full`].
    pub fn work_pulling(members: impl IntoIterator<Item = R>) -> Self {
        Self::new(Routing::WorkPulling, members)
    }

    fn make(routing: Routing, kept: bool, node: OnceLock<Node>) -> Self {
        let state = State {
            members: Members::new(routing, node.get().map_or(0, |node| node.chance().bits())),
            pull: pull::Queue::new(),
            shut: false,
        };
        let shared = Shared {
            routing,
            state: Mutex::new(state),
            keys: RwLock::default(),
            kept,
            changed: watch::Sender::new(()),
            node,
        };
        Router { shared: Arc::new(shared), wait: Wait::Default }
    }

    /// A router without members, and the one who gives it members and takes them away. While there is none, asks wait
    /// for one until their deadline; tells fail, except where work is pulled.
    pub fn kept(routing: Routing, node: Node) -> (Self, RouterKeeper<R>) {
        let router = Self::make(routing, true, OnceLock::from(node));
        let keeper = RouterKeeper { shared: Arc::clone(&router.shared) };
        (router, keeper)
    }

    /// Says what the key of a message of type `M` is, for [`Routing::ConsistentHash`]. Messages of types without a key go
    /// to each member in turn.
    #[must_use]
    pub fn key<M, K>(self, key: impl Fn(&M) -> K + Send + Sync + 'static) -> Self
    where
        M: RemoteMessage,
        K: Hash,
    {
        let key_of = move |message: &dyn Any| message.downcast_ref().map(|message| members::hash_of(&key(message)));
        self.shared.keys.write().insert(TypeId::of::<M>(), Arc::new(key_of));
        self
    }

    /// Messages that may wait for a free member, at least 1, where work is pulled.
    #[must_use]
    pub fn queue(self, messages: usize) -> Self {
        self.shared.state.lock().pull.set_capacity(messages);
        self
    }

    /// Sends `message` to a member now and gives the future of its answer.
    ///
    /// The deadline is 30 s, or what [`with_deadline`](Self::with_deadline) or the member itself says; it counts for all
    /// attempts together. To be able to send the message again, the router keeps an encoded copy until it is answered,
    /// unless there is only one member.
    /// # Errors
    /// [`CallError`], of the last attempt.
    pub fn ask<M>(&self, message: M) -> RoutedAsk<M>
    where
        R: Takes<M>,
        M: RemoteMessage,
    {
        match self.shared.routing {
            Routing::WorkPulling => RoutedAsk::pulled(pull::ask(&self.shared, message, self.wait)),
            _ => ask::send(&self.shared, message, self.wait),
        }
    }

    /// Sends `message` to a member without an answer. The future says when it has a place there; where work is pulled,
    /// in the router. It goes to one member only: if that ends before it has begun the message, the message is a dead letter,
    /// except where work is pulled. So is one that has nobody to go to, if nobody looks at the error.
    ///
    /// # Errors
    /// [`CallError`] with the outcome "not sent" or "not started".
    pub fn tell<M>(&self, message: M) -> Tell<M>
    where
        R: Takes<M>,
        M: RemoteMessage,
    {
        if self.shared.routing == Routing::WorkPulling {
            return match pull::tell(&self.shared, message, self.wait) {
                Ok(()) => Tell::accepted(),
                Err(unheard) => Tell::refused(unheard),
            };
        }
        match self.choose(&message) {
            Ok(member) => member.tell(message),
            Err(error) => Tell::refused(Unheard::to_nobody(self.shared.node.get(), Some(message), error)),
        }
    }

    /// Sends `message` without an answer, if the chosen member has room for it at once.
    ///
    /// # Errors
    /// [`CallError::Full`] if it has not; else as [`tell`](Self::tell).
    pub fn try_tell<M>(&self, message: M) -> Result<(), CallError>
    where
        R: Takes<M>,
        M: RemoteMessage,
    {
        match self.shared.routing {
            Routing::WorkPulling => pull::tell(&self.shared, message, self.wait)
                .map_err(|mut unheard| unheard.hear().unwrap_or(CallError::Stopped)),
            _ => self.choose(&message)?.try_tell(message),
        }
    }

    /// Asks all members at once and collects their answers, in the order in which the members were added. A message that
    /// cannot be encoded reaches none.
    pub fn ask_all<M>(&self, message: M) -> AskAll<R, M>
    where
        R: Takes<M>,
        M: RemoteMessage,
    {
        broadcast::ask_all(&self.targets(), self.shared.node.get(), message)
    }

    /// Tells all members at once. What comes back says of each whether the message has a place there, or will have.
    pub fn tell_all<M>(&self, message: M) -> Vec<(R, Tell<M>)>
    where
        R: Takes<M>,
        M: RemoteMessage,
    {
        broadcast::tell_all(&self.targets(), self.shared.node.get(), message)
    }

    /// The member whose turn it is, for a call that is not a message to the router. None if there is none. Such a call
    /// is not counted as in flight, and not sent again. Where work is pulled this is a member that is free.
    pub fn pick(&self) -> Option<R> {
        self.shared.choose(None).ok().map(|(_, member)| self.waiting(member))
    }

    /// The members that take messages, in the order in which they were added.
    pub fn members(&self) -> Vec<R> {
        self.shared.state.lock().members.open().map(|(_, member)| member.clone()).collect()
    }

    /// Adds a member.
    pub fn add(&self, member: R) -> MemberId {
        let key = members::hash_of(&(member.node().uid.0, member.id().0));
        self.shared.add(key, member)
    }

    /// Leaves a member out from now on. What was sent to it stays there. False if it was none.
    pub fn remove(&self, member: &R) -> bool {
        let mut found = false;
        let mut forgotten = Vec::new();
        {
            let mut state = self.shared.state.lock();
            let same = |other: &R| (other.id(), other.node()) == (member.id(), member.node());
            let ids: Vec<_> = state.members.open().filter(|(_, other)| same(other)).map(|(id, _)| id).collect();
            for id in ids {
                forgotten.push(state.members.close(id));
                found = true;
            }
        }
        self.shared.changed.send_replace(());
        found
    }

    /// The same router, whose asks and tells expire after `wait`.
    #[must_use]
    pub fn with_deadline(&self, wait: Duration) -> Self {
        Router { shared: Arc::clone(&self.shared), wait: Wait::For(wait) }
    }

    /// The same router, whose asks wait as long as it takes.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        Router { shared: Arc::clone(&self.shared), wait: Wait::ForEver }
    }

    fn choose<M: RemoteMessage>(&self, message: &M) -> Result<R, CallError> {
        let key = self.shared.key_of(message);
        self.shared.choose(key).map(|(_, member)| self.waiting(member))
    }

    fn targets(&self) -> Vec<R> {
        self.members().into_iter().map(|member| self.waiting(member)).collect()
    }

    /// `member`, with the deadline of this router, if it has one.
    fn waiting(&self, member: R) -> R {
        match self.wait {
            Wait::Default => member,
            Wait::For(wait) => member.waiting(Some(wait)),
            Wait::ForEver => member.waiting(None),
        }
    }
}

/// Whoever gives a router its members and takes them away; made by [`Router::kept`]. Dropping it [shuts](Self::shut) the
/// router.
pub struct RouterKeeper<R: Routee> {
    shared: Arc<Shared<R>>,
}

impl<R: Routee> RouterKeeper<R> {
    /// Adds a member that takes over the keys of whoever bore this number before.
    pub fn add(&self, number: u64, member: R) -> MemberId {
        self.shared.add(members::hash_of(&number), member)
    }

    /// Leaves a member out from now on.
    pub fn close(&self, member: MemberId) {
        self.shared.close(member);
    }

    /// Resolves when `member` is left out and every ask that was sent to it through the router has ended.
    pub async fn drained(&self, member: MemberId) {
        let mut changed = self.shared.changed.subscribe();
        while self.shared.state.lock().members.knows(member) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    /// No further call is taken, and what waits for a member fails with [`CallError::Stopped`].
    pub fn shut(&self) {
        self.shared.shut();
    }
}

impl<R: Routee> Drop for RouterKeeper<R> {
    /// Nobody will give the router a member any more.
    fn drop(&mut self) {
        self.shut();
    }
}

impl<R: Routee> Shared<R> {
    fn key_of<M: RemoteMessage>(&self, message: &M) -> Option<u64> {
        if self.routing != Routing::ConsistentHash {
            return None;
        }
        let key_of = self.keys.read().get(&TypeId::of::<M>()).map(Arc::clone);
        // The user's code, without our lock.
        key_of.and_then(|key_of| key_of(message))
    }

    fn add(&self, key: u64, member: R) -> MemberId {
        if self.node.get().is_none()
            && let Some(node) = member.through()
        {
            self.state.lock().members.reseed(node.chance().bits());
            let _ = self.node.set(node);
        }
        let id = self.state.lock().members.add(key, member);
        self.changed.send_replace(());
        id
    }

    fn close(&self, member: MemberId) {
        let forgotten = self.state.lock().members.close(member);
        drop(forgotten);
        self.changed.send_replace(());
    }

    fn ended(&self, member: MemberId) {
        let forgotten = self.state.lock().members.ended(member);
        drop(forgotten);
        self.changed.send_replace(());
    }

    /// The member for a message. Those that are known to have ended are left out on the way; the last of them says why,
    /// if none is left.
    fn choose(&self, key: Option<u64>) -> Result<(MemberId, R), CallError> {
        let mut why = CallError::Stopped;
        loop {
            let chosen = {
                let mut state = self.state.lock();
                if state.shut { None } else { state.members.choose(key) }
            };
            let Some((id, member)) = chosen else { return Err(why) };
            match member.known_end() {
                Some(error) => {
                    why = error;
                    self.close(id);
                }
                None => return Ok((id, member)),
            }
        }
    }

    fn shut(&self) {
        self.state.lock().shut = true;
        self.changed.send_replace(());
    }
}

/// The failure says that the member has ended, or is out of reach for good.
fn is_gone(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Stopped
            | CallError::NoSuchActor { .. }
            | CallError::StaleIncarnation { .. }
            | CallError::Unreachable { .. }
            | CallError::Quarantined { .. }
            | CallError::VersionIncompatible { .. }
    )
}

impl<R: Routee> Clone for Router<R> {
    fn clone(&self) -> Self {
        Router { shared: Arc::clone(&self.shared), wait: self.wait }
    }
}

impl<R: Routee> std::fmt::Debug for Router<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = self.shared.state.lock().members.open().count();
        f.debug_struct("Router").field("routing", &self.shared.routing).field("members", &members).finish()
    }
}

impl<R: Routee> std::fmt::Debug for RouterKeeper<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterKeeper").field("routing", &self.shared.routing).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use mobula_core::ActorAddress;

    use super::*;
    use crate::NodeConfig;
    use crate::link::Exit;
    use crate::recipient::Recipient;

    fn exit(node: &Node) -> Exit {
        let actor = ActorAddress { node: node.id().clone(), actor: mobula_core::ActorId(7) };
        Exit { actor, reason: mobula_core::ExitReason::Normal }
    }

    #[tokio::test]
    async fn an_ask_without_a_member_leaves_nothing_and_ends_with_the_keeper() {
        let node = Node::start(NodeConfig::default()).expect("a node");
        let (router, keeper) = Router::<Recipient<Exit>>::kept(Routing::RoundRobin, node.clone());
        let mut dropped = router.ask(exit(&node));
        assert!(poll!(&mut dropped).is_pending(), "there is no member");
        assert_eq!(router.shared.changed.receiver_count(), 1);
        drop(dropped);
        let gone = async {
            while router.shared.changed.receiver_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        // Much sooner than the deadline of the ask.
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nothing waits any more");
        let mut waits = router.ask(exit(&node));
        assert!(poll!(&mut waits).is_pending(), "there is no member");
        drop(keeper);
        let end = tokio::time::timeout(Duration::from_secs(10), waits).await.expect("nobody will come");
        assert_eq!(end, Err(CallError::Stopped));
        node.shut_down("the test is over");
    }
}
