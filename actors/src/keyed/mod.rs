//! Keyed actors: there when they are called, one for each key in the whole cluster.
//!
//! A [`KeyedRef`] knows the key only. The message goes to the node that the key belongs to among the live ones; the
//! gate there hands it to the key's actor, and creates that first if need be, under the name
//! `keyed:<type>/<key>` in the cluster's directory. So nodes may disagree for a moment about who is alive, and there is
//! still one actor at most.
mod gate;
mod reference;

use std::sync::Arc;
use std::time::Duration;

use mobula_core::{ActorId, CallError, IdMap, NodeId, limits, rendezvous, schema_hash};
use parking_lot::{Mutex, RwLock};

use crate::actor::RemoteActor;
use crate::node::{AnyActor, Node};
use crate::snapshot::SnapshotPolicy;

pub(crate) use gate::{dispatch, gate};
pub use reference::KeyedRef;

/// An actor that is known by a key, such as an account by its number. [`keyed_actor!`](crate::keyed_actor) writes it.
pub trait KeyedActor: RemoteActor {
    /// An actor to which nothing was sent for so long, and which owes no answer, is stopped until it is called again.
    /// Default [`limits::KEYED_IDLE`], 5 minutes.
    const IDLE: Duration = limits::KEYED_IDLE;

    /// What the actor with this key is made from.
    fn args_for(key: &str) -> Self::Args;

    /// When its state is saved, if at all, beside the end by idleness, before which it is saved in any case. With a store that
    /// all nodes reach, whoever is next created for the key, here or on another node, begins with what was saved last. Default
    /// never: it begins with what its key says. See [`Snapshot`](crate::Snapshot), which the type has to be.
    fn snapshots() -> Option<SnapshotPolicy> {
        None
    }
}

/// Makes an actor type one of keyed actors, and registers it: says what the actor of a key is made from, and if need be
/// after which time without mail it is stopped, and when its state is saved.
///
/// ```ignore
/// mobula::keyed_actor!(Account, |key| (key.to_owned(),));
/// mobula::keyed_actor!(Session, |key| key.to_owned(), idle: Duration::from_secs(30));
/// mobula::keyed_actor!(Balance, |key| key.to_owned(), snapshots: SnapshotPolicy::on_demand().every_messages(1));
/// ```
#[macro_export]
macro_rules! keyed_actor {
    ($actor:ty, |$key:ident| $args:expr $(, idle: $idle:expr)? $(, snapshots: $policy:expr)? $(,)?) => {
        impl $crate::KeyedActor for $actor {
            $(const IDLE: ::core::time::Duration = $idle;)?

            fn args_for($key: &str) -> <Self as $crate::RemoteActor>::Args {
                $args
            }

            $(fn snapshots() -> ::core::option::Option<$crate::SnapshotPolicy> {
                $crate::private::saved_as::<Self>($policy)
            })?
        }
        $crate::private::inventory::submit! { $crate::KeyedEntry::of::<$actor>() }
    };
}

/// What the names of keyed actors in the directory begin with.
pub(crate) const KEYED: &str = "keyed:";

/// Gates have ids of their own, which all nodes know: no actor that is counted up comes near them.
const GATES: u64 = 1 << 63;

pub(crate) fn is_gate(id: ActorId) -> bool {
    id.0 & GATES != 0
}

/// Where messages to the keyed actors of this type go, on every node.
pub(crate) fn gate_id(actor_type: &str) -> ActorId {
    ActorId(schema_hash(actor_type) | GATES)
}

/// The keyed actors of one node, and where those of others are.
pub(crate) struct KeyedActors {
    /// The nodes among which keys are shared out.
    homes: RwLock<Vec<NodeId>>,
    gates: Mutex<IdMap<u64, Arc<dyn AnyActor>>>,
}

impl KeyedActors {
    pub(crate) fn new(node: &NodeId) -> Self {
        KeyedActors { homes: RwLock::new(vec![node.clone()]), gates: Mutex::default() }
    }
}

impl Node {
    /// From now on keyed actors live on these nodes, as far as they are alive. To be the same on all nodes of a cluster.
    /// A node that was never told keeps them to itself.
    pub fn set_homes(&self, homes: Vec<NodeId>) {
        *self.keyed().homes.write() = homes;
    }

    /// The actor with this key; it is created when it is first called.
    pub fn keyed_ref<A: KeyedActor>(&self, key: &str) -> KeyedRef<A> {
        KeyedRef::new(key.into(), Some(self.clone()))
    }

    /// The node that a key belongs to now.
    pub(crate) fn home_of(&self, actor_type: &str, key: &str) -> Result<NodeId, CallError> {
        let hash = schema_hash(key) ^ schema_hash(actor_type).rotate_left(32);
        let homes = self.keyed().homes.read();
        let alive = homes.iter().filter(|home| !self.is_lost(home.uid));
        rendezvous(hash, alive).cloned().ok_or_else(|| CallError::Unreachable {
            node: self.id().clone(),
            sent: false,
            reason: format!("no node is left for `{actor_type}` with the key `{key}`"),
        })
    }

    /// The gate to this node's keyed actors of one type, if the type is registered.
    pub(crate) fn gate(&self, id: ActorId) -> Option<Arc<dyn AnyActor>> {
        let entry = self.registry().keyed(id)?;
        Some(Arc::clone(self.keyed().gates.lock().entry(id.0).or_insert_with(|| (entry.gate)(self))))
    }
}
