//! How long a child lives without word from its supervisor on another node: the table at the child's node.
//!
//! A supervisor's node names its children there in one keep-alive message, every so often. The child's node answers with
//! its own time, and the next keep-alive brings the newest time that has come back. A child's lease lasts from *that*
//! moment: so a connection on which only one direction passes keeps no child, nor does a message that was held up on its
//! way, and whoever has heard nothing from the child's node for the length of a lease knows that the child is over.
//!
//! Times are those since the start of the node that keeps the table. No clock, no I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{ActorId, NodeUid};

/// Children that live here, whose supervisors live elsewhere.
#[derive(Debug)]
pub struct ChildLeases {
    length: Duration,
    children: BTreeMap<ActorId, Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    by: NodeUid,
    until: Duration,
    /// It has run out, and its driver knows.
    over: bool,
}

impl ChildLeases {
    /// No child yet. A lease lasts for `length` from the last moment of which the supervisor's node has shown that it
    /// heard from here.
    pub fn new(length: Duration) -> Self {
        ChildLeases { length, children: BTreeMap::new() }
    }

    /// A child of a supervisor on node `by` has begun. Its first lease begins with it.
    pub fn begun(&mut self, child: ActorId, by: NodeUid, now: Duration) {
        self.children.insert(child, Lease { by, until: now.saturating_add(self.length), over: false });
    }

    /// The child has ended: its lease is forgotten.
    pub fn ended(&mut self, child: ActorId) {
        self.children.remove(&child);
    }

    /// The node `by` keeps these children, and has last heard our time `heard`. Gives those whose leases were over and
    /// hold again. Children of others, and those that are gone, stay as they are.
    pub fn kept(
        &mut self,
        by: NodeUid,
        children: impl IntoIterator<Item = ActorId>,
        heard: Option<Duration>,
        now: Duration,
    ) -> Vec<ActorId> {
        // A time that has not come yet was never told.
        let Some(heard) = heard.filter(|heard| *heard <= now) else { return Vec::new() };
        let until = heard.saturating_add(self.length);
        let mut again = Vec::new();
        for child in children {
            let Some(lease) = self.children.get_mut(&child).filter(|lease| lease.by == by) else { continue };
            lease.until = lease.until.max(until);
            if lease.over && lease.until > now {
                lease.over = false;
                again.push(child);
            }
        }
        again
    }

    /// Gives the children whose leases have run out, each once.
    pub fn run_out(&mut self, now: Duration) -> Vec<ActorId> {
        let due = self.children.iter_mut().filter(|(_, lease)| !lease.over && lease.until <= now);
        due.map(|(child, lease)| {
            lease.over = true;
            *child
        })
        .collect()
    }

    /// The node `by` is lost for ever, and its word with it.
    pub fn lost(&mut self, by: NodeUid) {
        self.children.retain(|_, lease| lease.by != by);
    }

    /// When [`run_out`](Self::run_out) is to be asked next.
    pub fn next_run_out(&self) -> Option<Duration> {
        self.children.values().filter(|lease| !lease.over).map(|lease| lease.until).min()
    }

    /// Children in the table.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// True without children.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;

    const LENGTH: Duration = Duration::from_secs(8);
    const PARENT: NodeUid = NodeUid(1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_child_that_nobody_keeps_is_over_once() {
        let mut leases = ChildLeases::new(LENGTH);
        leases.begun(ActorId(1), PARENT, s(1));
        leases.begun(ActorId(2), PARENT, s(3));
        assert_eq!(leases.next_run_out(), Some(s(9)));
        assert_eq!(leases.run_out(s(9) - Duration::from_nanos(1)), []);
        assert_eq!(leases.run_out(s(9)), [ActorId(1)]);
        assert_eq!(leases.run_out(s(10)), []);
        leases.ended(ActorId(2));
        assert_eq!(leases.next_run_out(), None);
        leases.ended(ActorId(1));
        assert!(leases.is_empty());
    }

    #[test]
    fn only_what_was_heard_counts_not_what_is_said() {
        let mut leases = ChildLeases::new(LENGTH);
        leases.begun(ActorId(1), PARENT, s(0));
        // It speaks, and hears nothing.
        assert_eq!(leases.kept(PARENT, [ActorId(1)], None, s(7)), []);
        assert_eq!(leases.run_out(s(8)), [ActorId(1)]);
        // A keep-alive that was held up on its way.
        assert_eq!(leases.kept(PARENT, [ActorId(1)], Some(s(2)), s(11)), []);
        // A time that was never told.
        assert_eq!(leases.kept(PARENT, [ActorId(1)], Some(s(12)), s(11)), []);
        // One that hears again.
        assert_eq!(leases.kept(PARENT, [ActorId(1)], Some(s(11)), s(12)), [ActorId(1)]);
        assert_eq!(leases.next_run_out(), Some(s(19)));
    }

    #[test]
    fn nobody_keeps_the_children_of_others() {
        let mut leases = ChildLeases::new(LENGTH);
        leases.begun(ActorId(1), PARENT, s(0));
        leases.begun(ActorId(2), NodeUid(2), s(0));
        leases.kept(NodeUid(2), [ActorId(1), ActorId(2), ActorId(3)], Some(s(4)), s(4));
        assert_eq!(leases.run_out(s(8)), [ActorId(1)]);
        leases.lost(NodeUid(2));
        assert_eq!(leases.len(), 1);
    }

    /// Two parents, messages that are lost and held up in both directions. Whatever happens: a child runs out within a
    /// lease of the last moment that its parent's node can have heard of, and never while its parent hears and is heard.
    #[test]
    fn leases_end_in_time_and_not_before_under_any_schedule() {
        for seed in 0..500 {
            let mut random = SplitMix64::new(seed);
            let mut leases = ChildLeases::new(LENGTH);
            // What each parent has heard, and what is on its way from it.
            let mut heard: [Option<u64>; 2] = [None; 2];
            let mut on_way: [Vec<Option<u64>>; 2] = Default::default();
            let mut until = [0_u64; 4];
            for child in 0..4_u64 {
                leases.begun(ActorId(child), NodeUid(child % 2), s(0));
                until[child as usize] = 8;
            }
            let mut over = [false; 4];
            for now in 1..200_u64 {
                let parent = (random.bits() % 2) as usize;
                match random.bits() % 4 {
                    0 => on_way[parent].push(heard[parent]),
                    // Its node's answer arrives.
                    1 => heard[parent] = Some(now),
                    2 if !on_way[parent].is_empty() => {
                        let at = random.bits() as usize % on_way[parent].len();
                        let said = on_way[parent].swap_remove(at);
                        let again = leases.kept(NodeUid(parent as u64), (0..4).map(ActorId), said.map(s), s(now));
                        for child in (0..4).filter(|child| child % 2 == parent) {
                            until[child] = until[child].max(said.map_or(0, |said| said + 8));
                        }
                        for child in again {
                            assert!(std::mem::replace(&mut over[child.0 as usize], false), "it was over: {seed}");
                        }
                    }
                    _ => {}
                }
                for child in leases.run_out(s(now)) {
                    assert!(!std::mem::replace(&mut over[child.0 as usize], true), "told once: {seed}");
                }
                for child in 0..4 {
                    assert_eq!(over[child], until[child] <= now, "seed {seed}, child {child} at {now}");
                }
            }
        }
    }
}
