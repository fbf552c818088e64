//! How long a lease lasts, and what follows from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The times of a node's lease with the head. All nodes of a cluster use the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseTimes {
    /// A node that has had no answer from the head for so long stops its named and keyed actors. Default
    /// [`limits::LEASE`], 8 s.
    pub lease: Duration,
    /// The head waits so much longer before it gives a name to somebody else. Default a quarter of the lease, 2 s.
    pub margin: Duration,
    /// Silence after which a node is suspected: shown, nothing else. Default three eighths of the lease, 3 s.
    pub suspect_after: Duration,
    /// A node renews its lease, and sends a heartbeat to each peer, at this interval. Default a sixteenth of the
    /// lease, 500 ms.
    pub heartbeat: Duration,
}

impl LeaseTimes {
    /// The usual proportions for a lease of another length. A short lease finds a frozen node sooner, and takes a slow
    /// one for frozen.
    pub fn of(lease: Duration) -> Self {
        LeaseTimes { lease, margin: lease / 4, suspect_after: lease * 3 / 8, heartbeat: lease / 16 }
    }

    /// How often a node says which children on another node it keeps: a quarter of the lease, 2 s. Without it a child's
    /// lease, which is as long as the node's, runs out.
    pub fn child_keep_alive(&self) -> Duration {
        self.lease / 4
    }

    /// Silence after which a node is down, for ever.
    pub fn down_after(&self) -> Duration {
        self.lease + self.margin
    }
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self::of(limits::LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_of_the_limits() {
        let times = LeaseTimes::default();
        assert_eq!((times.lease, times.child_keep_alive()), (limits::CHILD_LEASE, limits::CHILD_KEEP_ALIVE));
        assert_eq!((times.suspect_after, times.heartbeat), (limits::SUSPECT_AFTER, limits::HEARTBEAT_INTERVAL));
        assert_eq!(times.down_after(), limits::DOWN_AFTER);
    }
}
