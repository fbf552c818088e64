//! What a node has for the snapshots of its actors: the store, and somebody to hear of failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::{SnapshotFailure, SnapshotStore};
use crate::node::Node;

type Hook = Arc<dyn Fn(SnapshotFailure) + Send + Sync>;

#[derive(Default)]
pub(crate) struct SnapshotHost {
    store: OnceLock<Arc<dyn SnapshotStore>>,
    hook: RwLock<Option<Hook>>,
}

impl Node {
    /// Gives the node the store where the snapshots of named actors lie, the same for all nodes of a cluster. To be set
    /// before such actors are created; a second store is ignored.
    pub fn set_snapshot_store(&self, store: Arc<dyn SnapshotStore>) {
        let _ = self.snapshots().store.set(store);
    }

    /// Calls `hook` for each snapshot of this node's actors that cannot be taken, written, read or used. It replaces the
    /// hook before. It runs where the failure was noticed, often on an actor's thread: it should be quick.
    pub fn on_snapshot_failure(&self, hook: impl Fn(SnapshotFailure) + Send + Sync + 'static) {
        let before = self.snapshots().hook.write().replace(Arc::new(hook));
        // What the user's hook holds is dropped without our lock.
        drop(before);
    }

    pub(crate) fn snapshot_store(&self) -> Option<Arc<dyn SnapshotStore>> {
        self.snapshots().store.get().cloned()
    }

    pub(crate) fn snapshot_failed(&self, failure: SnapshotFailure) {
        let SnapshotFailure { actor_type, identity, snapshot, error } = &failure;
        tracing::error!(node = %self.id(), actor_type, ?identity, ?snapshot, %error, "a snapshot failed");
        let hook = self.snapshots().hook.read().clone();
        if let Some(hook) = hook
            && catch_unwind(AssertUnwindSafe(|| hook(failure))).is_err()
        {
            tracing::error!("the hook for snapshot failures panicked");
        }
    }
}
