//! What a pool needs next: a member started in a slot, or one retired. No I/O: time and chance come in.

use std::time::{Duration, Instant};

use mobula_core::backoff;

/// A slot is empty at least so long after its member has ended, doubling with each that soon ends again.
const REST_MIN: Duration = Duration::from_millis(50);

/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(10);

/// A member that lived so long did not end soon.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// What the pool is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Start a member.
    Spawn { slot: usize },
    /// Take no more for this member, and let it finish.
    Retire { slot: usize },
}

/// The slots of a pool, one for each member.
#[derive(Debug)]
pub(crate) struct Slots {
    wanted: usize,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: SlotState,
    /// Members in a row that did not settle.
    failures: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SlotState {
    Empty,
    Resting { until: Instant },
    Starting,
    Live { since: Instant },
}

impl Slots {
    /// A pool whose first `live` slots have members since `now`.
    pub(crate) fn new(live: usize, now: Instant) -> Self {
        Slots { wanted: live, slots: vec![Slot { state: SlotState::Live { since: now }, failures: 0 }; live] }
    }

    pub(crate) fn resize(&mut self, wanted: usize) {
        self.wanted = wanted;
        if self.slots.len() < wanted {
            self.slots.resize(wanted, Slot { state: SlotState::Empty, failures: 0 });
        }
    }

    /// What to do at `now`; none if there is nothing to do yet.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Step> {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let is_wanted = index < self.wanted;
            match slot.state {
                SlotState::Empty if is_wanted => {
                    slot.state = SlotState::Starting;
                    return Some(Step::Spawn { slot: index });
                }
                SlotState::Resting { until } if is_wanted && until <= now => {
                    slot.state = SlotState::Starting;
                    return Some(Step::Spawn { slot: index });
                }
                SlotState::Live { .. } if !is_wanted => {
                    slot.state = SlotState::Empty;
                    return Some(Step::Retire { slot: index });
                }
                _ => {}
            }
        }
        let idle = |slot: &Slot| matches!(slot.state, SlotState::Empty | SlotState::Resting { .. });
        while self.slots.len() > self.wanted && self.slots.last().is_some_and(idle) {
            self.slots.pop();
        }
        None
    }

    /// When a rest is over.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let rests = self.slots.iter().take(self.wanted).filter_map(|slot| match slot.state {
            SlotState::Resting { until } => Some(until),
            _ => None,
        });
        rests.min()
    }

    /// The member of a slot has started.
    pub(crate) fn started(&mut self, slot: usize, now: Instant) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.state = SlotState::Live { since: now };
        }
    }

    /// The member of a slot has ended, or could not be started. `jitter` from 0 to 1 moves the rest by a fifth at most.
    pub(crate) fn ended(&mut self, slot: usize, now: Instant, jitter: f64) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        if let SlotState::Live { since } = slot.state
            && now.saturating_duration_since(since) >= SETTLED_AFTER
        {
            slot.failures = 0;
        }
        let rest = backoff(REST_MIN, REST_MAX, slot.failures, jitter);
        slot.failures = slot.failures.saturating_add(1);
        slot.state = SlotState::Resting { until: now + rest };
    }

    /// Members are being started.
    pub(crate) fn is_starting(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, SlotState::Starting | SlotState::Empty))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a start to count from")]
mod tests {
    use super::*;

    fn steps(slots: &mut Slots, now: Instant) -> Vec<Step> {
        std::iter::from_fn(|| slots.next(now)).collect()
    }

    #[test]
    fn a_pool_grows_at_once_and_shrinks_from_its_end() {
        let now = Instant::now();
        let mut slots = Slots::new(2, now);
        assert_eq!(steps(&mut slots, now), []);
        slots.resize(4);
        assert_eq!(steps(&mut slots, now), [Step::Spawn { slot: 2 }, Step::Spawn { slot: 3 }]);
        assert!(slots.is_starting());
        slots.resize(1);
        assert_eq!(steps(&mut slots, now), [Step::Retire { slot: 1 }]);
        // What was being started is retired once it has.
        slots.started(3, now);
        slots.started(2, now);
        assert_eq!(steps(&mut slots, now), [Step::Retire { slot: 2 }, Step::Retire { slot: 3 }]);
        assert!(!slots.is_starting());
        assert_eq!(slots.slots.len(), 1);
    }

    #[test]
    fn a_member_that_ends_is_replaced_after_a_rest_that_doubles_until_one_settles() {
        let mut now = Instant::now();
        let mut slots = Slots::new(1, now);
        for rest_ms in [50, 100, 200, 400] {
            slots.ended(0, now, 0.5);
            assert_eq!(steps(&mut slots, now), []);
            assert_eq!(slots.wake_at(), Some(now + Duration::from_millis(rest_ms)));
            now += Duration::from_millis(rest_ms);
            assert_eq!(steps(&mut slots, now), [Step::Spawn { slot: 0 }]);
            slots.started(0, now);
        }
        for _ in 0..40 {
            slots.ended(0, now, 1.0);
        }
        assert_eq!(slots.wake_at(), Some(now + Duration::from_secs(12)), "ten seconds and a fifth");
        now += Duration::from_secs(12);
        assert_eq!(steps(&mut slots, now), [Step::Spawn { slot: 0 }]);
        slots.started(0, now);
        now += SETTLED_AFTER;
        slots.ended(0, now, 0.5);
        assert_eq!(slots.wake_at(), Some(now + REST_MIN));
    }

    #[test]
    fn nothing_is_started_in_a_slot_that_is_not_wanted() {
        let now = Instant::now();
        let mut slots = Slots::new(2, now);
        slots.ended(1, now, 0.0);
        slots.resize(1);
        assert_eq!(slots.wake_at(), None);
        assert_eq!(steps(&mut slots, now + REST_MAX), []);
        slots.resize(0);
        assert_eq!(steps(&mut slots, now), [Step::Retire { slot: 0 }]);
    }
}
