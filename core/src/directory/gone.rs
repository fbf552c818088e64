//! The lives of nodes that are no more, as far as they are remembered.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{NodeUid, limits};

/// The latest of them. One that is forgotten has long ended itself, for nobody has renewed its lease.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Gone {
    uids: BTreeSet<NodeUid>,
    /// The oldest first.
    order: VecDeque<NodeUid>,
}

impl Gone {
    pub(super) fn insert(&mut self, uid: NodeUid) {
        if !self.uids.insert(uid) {
            return;
        }
        self.order.push_back(uid);
        if self.order.len() > limits::GONE_NODES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, uid: NodeUid) -> bool {
        self.uids.contains(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_lives_that_are_gone_are_remembered() {
        let mut gone = Gone::default();
        let max = limits::GONE_NODES_MAX as u64;
        for uid in (0..=max).chain(0..=max) {
            gone.insert(NodeUid(uid));
            gone.insert(NodeUid(uid));
            assert!(gone.contains(NodeUid(uid)));
        }
        assert_eq!((gone.uids.len(), gone.order.len()), (limits::GONE_NODES_MAX, limits::GONE_NODES_MAX));
        assert!(!gone.contains(NodeUid(0)) && gone.contains(NodeUid(1)));
    }
}
