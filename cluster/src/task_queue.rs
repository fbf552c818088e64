//! Which task goes to which task actor, and when. No I/O: jobs and slots are whatever the pool makes of them.
//!
//! Tasks wait in one line for any node and in one line for each node that tasks are bound to. A number gives each its
//! place among all, so nothing ever has to walk past tasks that cannot run yet: what is asked costs steps by lines and
//! slots, never by tasks.

use std::collections::{HashMap, VecDeque};

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
    anywhere: Line<J>,
    /// No line is kept empty.
    bound: HashMap<NodeId, Line<J>>,
    waiting: usize,
    slots: Vec<Slot>,
    /// The next place at the end of the line.
    last: i64,
    /// The next place ahead of all others.
    first: i64,
    /// Lines and slots that were looked at.
    #[cfg(test)]
    steps: usize,
}

/// Tasks with their places, in order.
type Line<J> = VecDeque<(i64, J)>;

#[derive(Debug)]
struct Slot {
    node: NodeId,
    /// Tasks sent to it and not ended: one runs, the rest wait in its mailbox.
    sent: usize,
    alive: bool,
}

impl<J> TaskQueue<J> {
    pub(crate) fn new() -> Self {
        TaskQueue {
            anywhere: Line::new(),
            bound: HashMap::new(),
            waiting: 0,
            slots: Vec::new(),
            last: 0,
            first: -1,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Adds a task actor.
    pub(crate) fn add_slot(&mut self, node: NodeId) -> SlotId {
        self.slots.push(Slot { node, sent: 0, alive: true });
        SlotId(self.slots.len() - 1)
    }

    /// A task waits, at the end of the line, for any node or for `only` one.
    pub(crate) fn submit(&mut self, job: J, only: Option<NodeId>) {
        let place = self.last;
        self.last += 1;
        self.line(only).push_back((place, job));
        self.waiting += 1;
    }

    /// A task whose node was lost waits again, ahead of those that never ran.
    pub(crate) fn submit_again(&mut self, job: J, only: Option<NodeId>) {
        let place = self.first;
        self.first -= 1;
        self.line(only).push_front((place, job));
        self.waiting += 1;
    }

    fn line(&mut self, only: Option<NodeId>) -> &mut Line<J> {
        match only {
            Some(node) => self.bound.entry(node).or_default(),
            None => &mut self.anywhere,
        }
    }

    /// The next task to send and the task actor to send it to: the first in line that some actor has room for, and the
    /// actor with the least to do.
    pub(crate) fn assign(&mut self) -> Option<(SlotId, J)> {
        // The last tasks go to idle actors only: one that waits behind another would run while others have nothing to do.
        let alive = self.slots.iter().filter(|slot| slot.alive).count();
        let sent_max = if self.waiting > alive { limits::TASK_PREFETCH } else { 0 };
        self.step(self.slots.len());
        let mut best: Option<(i64, usize)> = None;
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.alive && slot.sent <= sent_max) {
            let heads = [self.anywhere.front(), self.bound.get(&slot.node).and_then(VecDeque::front)];
            let Some(place) = heads.into_iter().flatten().map(|(place, _)| *place).min() else { continue };
            if best.is_none_or(|(other, at)| (place, slot.sent) < (other, self.slots[at].sent)) {
                best = Some((place, index));
            }
        }
        let (place, index) = best?;
        let job = if self.anywhere.front().is_some_and(|(head, _)| *head == place) {
            self.anywhere.pop_front()?.1
        } else {
            let node = &self.slots[index].node;
            let line = self.bound.get_mut(node)?;
            let (_, job) = line.pop_front()?;
            if line.is_empty() {
                self.bound.remove(node);
            }
            job
        };
        self.waiting -= 1;
        self.slots[index].sent += 1;
        Some((SlotId(index), job))
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

    /// Takes out the tasks that no task actor is left for, in their order.
    pub(crate) fn take_hopeless(&mut self) -> Vec<J> {
        self.step(self.slots.len() * (1 + self.bound.len()));
        let slots = &self.slots;
        if !slots.iter().any(|slot| slot.alive) {
            return self.take_all();
        }
        let served = |node: &NodeId| slots.iter().any(|slot| slot.alive && slot.node == *node);
        let mut hopeless: Vec<(i64, J)> =
            self.bound.extract_if(|node, _| !served(node)).flat_map(|(_, line)| line).collect();
        self.waiting -= hopeless.len();
        hopeless.sort_unstable_by_key(|(place, _)| *place);
        hopeless.into_iter().map(|(_, job)| job).collect()
    }

    /// Takes out all that waits, in its order.
    pub(crate) fn take_all(&mut self) -> Vec<J> {
        self.waiting = 0;
        let bound = self.bound.drain().flat_map(|(_, line)| line);
        let mut all: Vec<(i64, J)> = self.anywhere.drain(..).chain(bound).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, job)| job).collect()
    }

    #[cfg(test)]
    fn step(&mut self, steps: usize) {
        self.steps += steps;
    }

    #[cfg(not(test))]
    fn step(&mut self, _: usize) {}
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

    #[test]
    fn a_wake_costs_the_same_however_many_tasks_wait() {
        let steps_with = |tasks: u32| {
            let mut queue = queue();
            for job in 0..tasks {
                queue.submit(job, (job % 2 == 0).then(|| node(1)));
            }
            for _ in 0..100 {
                queue.assign();
                assert!(queue.take_hopeless().is_empty());
            }
            queue.steps
        };
        assert_eq!(steps_with(200), steps_with(100_000));
    }

    #[test]
    fn lost_tasks_keep_their_place_ahead_of_all_lines() {
        let mut queue = queue();
        queue.submit(1, Some(node(1)));
        queue.submit(2, None);
        queue.submit_again(0, Some(node(2)));
        let assigned: Vec<_> = std::iter::from_fn(|| queue.assign()).map(|(slot, job)| (slot.0, job)).collect();
        // The one for the second node goes first, then those that waited, to who may run them.
        assert_eq!(assigned[0], (1, 0));
        assert_eq!(assigned[1], (0, 1));
        (0..2).for_each(|slot| queue.ended(SlotId(slot)));
        assert_eq!(queue.assign().map(|(_, job)| job), Some(2));
        assert_eq!(queue.waiting, 0);
    }
}
