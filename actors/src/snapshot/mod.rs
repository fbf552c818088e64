//! Snapshots: the state of an actor, saved so that its next life begins where the last one was.
//!
//! `keeper` takes them on the actor's turn and `history` writes them, off its thread; `format` is what the bytes mean.
mod error;
mod format;
mod history;
mod host;
mod keeper;
mod store;

use std::any::Any;
use std::num::NonZeroU32;
use std::time::Duration;

use mobula_core::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use error::SnapshotError;
pub use keeper::{SaveSnapshot, save_snapshot};
pub use store::{MemorySnapshots, SnapshotStore};

pub(crate) use host::SnapshotHost;
pub(crate) use keeper::{Keeper, open};

use crate::actor::{ActorSpec, RemoteActor};

/// An actor whose state can be saved. Registered beside it with [`register_snapshot!`](crate::register_snapshot), and
/// switched on by [`ActorSpec::snapshots`].
///
/// After a panic the actor is made from its arguments, and then given the state of its last snapshot. If it has a name,
/// and its cluster a [store](crate::Node::set_snapshot_store), that holds on other nodes and in later clusters, too:
/// whoever is next created under the name, as the same type, begins with the newest snapshot that was written. Without a
/// name or a store, snapshots serve restarts only.
pub trait Snapshot: RemoteActor {
    /// What is saved.
    type State: Serialize + DeserializeOwned;

    /// The state as it is now. Runs on the actor's turn, between two messages.
    fn snapshot(&self) -> Self::State;

    /// Takes a saved state over, before the actor's `started` runs.
    fn restore(&mut self, state: Self::State);
}

/// When snapshots are taken, beside those that the actor asks for with [`save_snapshot`]. Only after messages: what has
/// not changed is not saved again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SnapshotPolicy {
    every_messages: Option<NonZeroU32>,
    every: Option<Duration>,
}

impl SnapshotPolicy {
    /// Only when the actor asks for it.
    pub fn on_demand() -> Self {
        SnapshotPolicy::default()
    }

    /// After so many messages, at least 1.
    #[must_use]
    pub fn every_messages(mut self, messages: u32) -> Self {
        self.every_messages = Some(NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN));
        self
    }

    /// After so long a time, at least 1 ms, if there was a message.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        self.every = Some(time);
        self
    }
}

impl<A: Snapshot> ActorSpec<A> {
    /// Saves the actor's state as `policy` says, and begins every life with what was saved last.
    #[must_use]
    pub fn snapshots(mut self, policy: SnapshotPolicy) -> Self {
        self.options.snapshots = Some(policy);
        self
    }
}

/// A snapshot that could not be written, read or used, as the hook of [`Node::on_snapshot_failure`](crate::Node::on_snapshot_failure) sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotFailure {
    /// The registered name of the actor's type.
    pub actor_type: &'static str,
    /// The actor's name, if it has one.
    pub identity: Option<String>,
    /// The snapshot in the store, as `folder/name`, if one is meant.
    pub snapshot: Option<String>,
    /// What is wrong.
    pub error: SnapshotError,
}

/// How the state of one type of actor is taken and given back.
pub struct SnapshotEntry {
    pub(crate) actor_type: &'static str,
    take: fn(&dyn Any) -> Result<Vec<u8>, SnapshotError>,
    restore: fn(&mut dyn Any, &[u8]) -> Result<(), SnapshotError>,
}

inventory::collect!(SnapshotEntry);

impl SnapshotEntry {
    /// The entry of `A`, for [`register_snapshot!`](crate::register_snapshot).
    pub const fn of<A: Snapshot>() -> Self {
        SnapshotEntry { actor_type: A::NAME, take: take::<A>, restore: restore::<A> }
    }

    pub(crate) fn find(actor_type: &str) -> Option<&'static SnapshotEntry> {
        inventory::iter::<SnapshotEntry>.into_iter().find(|entry| entry.actor_type == actor_type)
    }
}

fn take<A: Snapshot>(actor: &dyn Any) -> Result<Vec<u8>, SnapshotError> {
    let wrong = || SnapshotError::NotRegistered { actor_type: A::NAME.to_owned() };
    let actor: &A = actor.downcast_ref().ok_or_else(wrong)?;
    codec::encode(&actor.snapshot()).map_err(|error| SnapshotError::Encode { reason: error.to_string() })
}

fn restore<A: Snapshot>(actor: &mut dyn Any, state: &[u8]) -> Result<(), SnapshotError> {
    let wrong = || SnapshotError::NotRegistered { actor_type: A::NAME.to_owned() };
    let actor: &mut A = actor.downcast_mut().ok_or_else(wrong)?;
    let state = codec::decode(state).map_err(|error| SnapshotError::State { reason: error.to_string() })?;
    actor.restore(state);
    Ok(())
}

/// Registers how the state of an actor is saved, so that any node of this executable can do it:
/// `mobula::register_snapshot!(Counter);`, beside `impl Snapshot for Counter`.
#[macro_export]
macro_rules! register_snapshot {
    ($actor:ty) => {
        $crate::private::inventory::submit! { $crate::SnapshotEntry::of::<$actor>() }
    };
}
