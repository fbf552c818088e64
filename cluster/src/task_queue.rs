//! Which task goes to which task actor, and when. No I/O: jobs and slots are whatever the pool makes of them.

use std::collections::VecDeque;

use mobula_core::{NodeId, limits};

/// A task actor, by its place in the queue's table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct SlotId(usize);

impl SlotId {
    /// Slots are numbered in the order in which they were added.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// Tasks that wait, and task actors that run them. Slow ones ask less often and so take fewer.
#[derive(Debug)]
pub(crate) struct TaskQueue<J> {
    waiting: VecDeque<Waiting<J>>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Waiting<J> {
    job: J,
    only: Option<NodeId>,
}

#[derive(Debug)]
struct Slot {
    node: NodeId,
    /// Tasks sent to it and not ended: one runs, the rest wait in its mailbox.
    sent: usize,
    alive: bool,
}

impl<J> TaskQueue<J> {
    pub(crate) fn new() -> Self {
        TaskQueue { waiting: VecDeque::new(), slots: Vec::new() }
    }

    /// Adds a task actor.
    pub(crate) fn add_slot(&mut self, node: NodeId) -> SlotId {
        self.slots.push(Slot { node, sent: 0, alive: true });
        SlotId(self.slots.len() - 1)
    }

    /// A task waits, at the end of the line, for any node or for `only` one.
    pub(crate) fn submit(&mut self, job: J, only: Option<NodeId>) {
        self.waiting.push_back(Waiting { job, only });
    }

    /// A task whose node was lost waits again, ahead of those that never ran.
    pub(crate) fn submit_again(&mut self, job: J, only: Option<NodeId>) {
        self.waiting.push_front(Waiting { job, only });
    }

    /// The next task to send and the task actor to send it to: the first in line that some actor has room for, and the
    /// actor with the least to do.
    pub(crate) fn assign(&mut self) -> Option<(SlotId, J)> {
        // The last tasks go to idle actors only: one that waits behind another would run while others have nothing to do.
        let alive = self.slots.iter().filter(|slot| slot.alive).count();
        let sent_max = if self.waiting.len() > alive { limits::TASK_PREFETCH } else { 0 };
        let free: Vec<usize> =
            (0..self.slots.len()).filter(|i| self.slots[*i].alive && self.slots[*i].sent <= sent_max).collect();
        if free.is_empty() {
            return None;
        }
        let fits = |slot: &Slot, only: &Option<NodeId>| only.as_ref().is_none_or(|only| slot.node == *only);
        let (index, slot) = self.waiting.iter().enumerate().find_map(|(index, waiting)| {
            let best = free.iter().filter(|slot| fits(&self.slots[**slot], &waiting.only));
            best.min_by_key(|slot| self.slots[**slot].sent).map(|slot| (index, *slot))
        })?;
        let waiting = self.waiting.remove(index)?;
        self.slots[slot].sent += 1;
        Some((SlotId(slot), waiting.job))
    }

    /// A task sent to `slot` has ended, one way or the other.
    pub(crate) fn ended(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(slot.0) {
            slot.sent = slot.sent.saturating_sub(1);
        }
    }

    /// The node is down: its task actors take no more.
    pub(crate) fn node_down(&mut self, node: &NodeId) {
        for slot in self.slots.iter_mut().filter(|slot| slot.node == *node) {
            slot.alive = false;
        }
    }

    /// Takes out the tasks that no task actor is left for.
    pub(crate) fn take_hopeless(&mut self) -> Vec<J> {
        let (hopeless, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| {
            let served = |slot: &Slot| slot.alive && waiting.only.as_ref().is_none_or(|only| slot.node == *only);
            !self.slots.iter().any(served)
        });
        self.waiting = waiting;
        let hopeless: VecDeque<Waiting<J>> = hopeless;
        hopeless.into_iter().map(|waiting| waiting.job).collect()
    }

    /// Takes out all that waits.
    pub(crate) fn take_all(&mut self) -> Vec<J> {
        self.waiting.drain(..).map(|waiting| waiting.job).collect()
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::NodeUid;

    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new("node", NodeUid(number))
    }

    fn queue() -> TaskQueue<u32> {
        let mut queue = TaskQueue::new();
        queue.add_slot(node(1));
        queue.add_slot(node(2));
        queue
    }

    #[test]
    fn idle_actors_first_then_one_ahead_then_no_more() {
        let mut queue = queue();
        (0..6).for_each(|job| queue.submit(job, None));
        let mut assigned = std::iter::from_fn(|| queue.assign()).map(|(slot, job)| (slot.0, job));
        let assigned: Vec<_> = assigned.by_ref().collect();
        assert_eq!(assigned, [(0, 0), (1, 1), (0, 2), (1, 3)]);
        queue.ended(SlotId(1));
        assert_eq!(queue.assign(), None, "the last are for idle actors");
        queue.ended(SlotId(1));
        assert_eq!(queue.assign(), Some((SlotId(1), 4)));
        assert_eq!(queue.assign(), None);
    }

    #[test]
    fn a_bound_task_lets_others_pass_and_keeps_its_place() {
        let mut queue = queue();
        (0..3).for_each(|job| queue.submit(job, Some(node(1))));
        queue.submit(9, None);
        let assigned: Vec<_> = std::iter::from_fn(|| queue.assign()).map(|(slot, job)| (slot.0, job)).collect();
        assert_eq!(assigned, [(0, 0), (0, 1), (1, 9)]);
        queue.ended(SlotId(0));
        assert_eq!(queue.assign(), None);
        queue.ended(SlotId(0));
        assert_eq!(queue.assign(), Some((SlotId(0), 2)));
    }

    #[test]
    fn lost_tasks_go_first_and_hopeless_ones_come_back() {
        let mut queue = queue();
        queue.submit(1, None);
        queue.submit(2, Some(node(1)));
        queue.node_down(&node(1));
        queue.submit_again(0, None);
        assert_eq!(queue.take_hopeless(), [2]);
        assert_eq!(queue.assign(), Some((SlotId(1), 0)));
        queue.node_down(&node(2));
        assert_eq!(queue.assign(), None);
        assert_eq!(queue.take_hopeless(), [1]);
        assert!(queue.take_all().is_empty());
    }
}
