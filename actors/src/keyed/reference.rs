//! A reference to whoever bears a key.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actix::{Handler, Message};
use mobula_core::{CallError, NodeId, NodeUid, RemoteMessage, codec};
use mobula_transport::now;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::gate::Gate;
use super::{KeyedActor, gate_id};
use crate::ask::{Ask, Tell};
use crate::dead_letter::Unheard;
use crate::envelope::Envelope;
use crate::far::{Far, Wait};
use crate::mailbox::{Placed, Refused};
use crate::node::Node;
use crate::reply::{ReplyTo, Slot};
use crate::scope;

/// The actor with a key, wherever it lives, and whether or not it is there yet: it is created when it is first called.
/// Cheap to clone; it can be sent in messages, and means the same there.
///
/// What one sender sends to one key arrives in the order of the calls, as long as the key does not move to another
/// node. Errors are those of any call; [`CallError::outcome`] says whether a retry is safe.
pub struct KeyedRef<A: KeyedActor> {
    key: Arc<str>,
    via: Option<Node>,
    wait: Wait,
    actor: PhantomData<fn(A)>,
}

impl<A: KeyedActor> KeyedRef<A> {
    pub(crate) fn new(key: Arc<str>, via: Option<Node>) -> Self {
        KeyedRef { key, via, wait: Wait::Default, actor: PhantomData }
    }

    /// Sends `message` now and gives the future of its answer, as [`ActorRef::ask`](crate::ActorRef::ask) does.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Unreachable`] also where the actor cannot be created.
    pub fn ask<M>(&self, message: M) -> Ask<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let now = now();
        let deadline = self.wait.of_ask_at(now);
        match self.way() {
            Ok(Way::Near(node, gate)) => {
                let slot = Slot::new();
                let reply = ReplyTo::near(Arc::clone(&slot));
                let put = gate.put(&self.key, |owes| Envelope::ask(message, reply.owing(owes), deadline));
                if let Err(Refused { letter, error, .. }) = put {
                    gate.dismiss(letter, error);
                }
                Ask::near(slot, deadline, node)
            }
            Ok(Way::Far(far)) => far.ask_with(now, deadline, |out| codec::encode_into(&(&*self.key, &message), out)),
            Err(error) => Ask::failed(error),
        }
    }

    /// Sends `message` without an answer. The future says when it is in the mailbox, or waits for the actor to be
    /// created, or is on its way to its node.
    ///
    /// # Errors
    /// [`CallError`] with the outcome "not sent" or "not started".
    pub fn tell<M>(&self, message: M) -> Tell<M>
    where
        A: Handler<M>,
        M: RemoteMessage + Message<Result = <M as RemoteMessage>::Reply>,
    {
        let deadline = self.wait.of_tell();
        match self.way() {
            Ok(Way::Near(node, gate)) => match gate.put(&self.key, |_| Envelope::tell(message, deadline)) {
                Ok(Placed::InLine(Some(acceptance))) => Tell::near(acceptance, deadline, &node),
                Ok(Placed::Inside | Placed::InLine(None)) => Tell::accepted(),
                Err(Refused { letter, error, .. }) => Unheard::of_refused(&node, gate_id(A::NAME), letter, error)
                    .map_or_else(Tell::accepted, Tell::refused),
            },
            Ok(Way::Far(far)) => far.tell_with(deadline, |out| codec::encode_into(&(&*self.key, &message), out)),
            Err(error) => Tell::refused(Unheard::to_nobody(None, Some(message), error)),
        }
    }

    /// The same reference, whose asks and tells expire after `wait`.
    #[must_use]
    pub fn with_deadline(&self, wait: Duration) -> Self {
        KeyedRef { wait: Wait::For(wait), ..self.clone() }
    }

    /// The same reference, whose asks wait as long as it takes.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        KeyedRef { wait: Wait::ForEver, ..self.clone() }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The node that the key belongs to now.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] if no node is left, or this process runs none.
    pub fn home(&self) -> Result<NodeId, CallError> {
        self.node()?.home_of(A::NAME, &self.key)
    }

    fn node(&self) -> Result<Node, CallError> {
        self.via.clone().or_else(scope::current_node).ok_or_else(|| CallError::Unreachable {
            node: NodeId::new("none", NodeUid(0)),
            sent: false,
            reason: "this process runs no node".to_owned(),
        })
    }

    fn way(&self) -> Result<Way<A>, CallError> {
        let node = self.node()?;
        let home = node.home_of(A::NAME, &self.key)?;
        if home == *node.id() {
            let gate = Gate::of(&node)?;
            return Ok(Way::Near(node, gate));
        }
        Ok(Way::Far(Far::new(home, gate_id(A::NAME), Some(node))))
    }
}

enum Way<A: KeyedActor> {
    Near(Node, Arc<Gate<A>>),
    Far(Far),
}

impl<A: KeyedActor> Clone for KeyedRef<A> {
    fn clone(&self) -> Self {
        KeyedRef { key: Arc::clone(&self.key), via: self.via.clone(), wait: self.wait, actor: PhantomData }
    }
}

impl<A: KeyedActor> std::fmt::Debug for KeyedRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", A::NAME, self.key)
    }
}

impl<A: KeyedActor> PartialEq for KeyedRef<A> {
    /// Equal if they bear the same key.
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<A: KeyedActor> Eq for KeyedRef<A> {}

impl<A: KeyedActor> Serialize for KeyedRef<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (A::NAME, &*self.key).serialize(serializer)
    }
}

impl<'de, A: KeyedActor> Deserialize<'de> for KeyedRef<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (actor_type, key) = <(String, String)>::deserialize(deserializer)?;
        if actor_type != A::NAME {
            let text = format!("a key of `{actor_type}` where one of `{}` is expected", A::NAME);
            return Err(de::Error::custom(text));
        }
        Ok(KeyedRef::new(key.into(), scope::current_node()))
    }
}
