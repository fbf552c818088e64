//! Asks that wait for their answer, found again by the request id that the answer carries.

use std::time::Instant;

use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, Deadline, RequestId};
use slab::Slab;

pub(super) struct Ask<R> {
    pub(super) deadline: Deadline,
    pub(super) target: ActorId,
    /// Its frame has not left yet, so no answer can be meant for it.
    pub(super) in_line: bool,
    pub(super) reply: R,
}

/// A request id is a slot and a sequence number: the slot finds the ask without hashing, the sequence number keeps
/// a late answer from the next ask in its slot.
pub(super) struct Pending<R> {
    slots: Slab<(u32, Ask<R>)>,
    sequence: u32,
    /// No ask has an earlier deadline; all may have a later one. Recomputed only when it is reached.
    earliest: Option<Instant>,
}

impl<R> Pending<R> {
    pub(super) fn new() -> Self {
        Pending { slots: Slab::new(), sequence: 0, earliest: None }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// The id of the ask that is [inserted](Self::insert) next.
    pub(super) fn next_id(&mut self) -> RequestId {
        self.sequence = self.sequence.wrapping_add(1);
        RequestId(u64::from(self.sequence) << 32 | self.slots.vacant_key() as u64)
    }

    pub(super) fn insert(&mut self, request: RequestId, ask: Ask<R>) {
        if let Some(at) = ask.deadline.instant() {
            self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
        }
        let key = self.slots.insert((sequence(request), ask));
        debug_assert_eq!(key, slot(request));
    }

    pub(super) fn get(&self, request: RequestId) -> Option<&Ask<R>> {
        let same = |found: u32| found == sequence(request) || planted::is(Bug::LateReplyDelivered);
        self.slots.get(slot(request)).filter(|slot| same(slot.0)).map(|slot| &slot.1)
    }

    pub(super) fn take(&mut self, request: RequestId) -> Option<Ask<R>> {
        self.get(request)?;
        self.slots.try_remove(slot(request)).map(|slot| slot.1)
    }

    pub(super) fn left_line(&mut self, request: RequestId) {
        if let Some((_, ask)) = self.slots.get_mut(slot(request)) {
            ask.in_line = false;
        }
    }

    /// The asks whose deadline `now` has reached. The caller takes them.
    pub(super) fn due(&mut self, now: Instant) -> Vec<RequestId> {
        let mut due = Vec::new();
        self.earliest = None;
        for (key, (sequence, ask)) in &self.slots {
            if ask.deadline.is_over(now) {
                due.push(RequestId(u64::from(*sequence) << 32 | key as u64));
            } else {
                self.earliest = self.earliest.into_iter().chain(ask.deadline.instant()).min();
            }
        }
        due
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Ask<R>> + '_ {
        self.earliest = None;
        self.slots.drain().map(|slot| slot.1)
    }
}

fn slot(request: RequestId) -> usize {
    (request.0 & 0xffff_ffff) as usize
}

fn sequence(request: RequestId) -> u32 {
    (request.0 >> 32) as u32
}
