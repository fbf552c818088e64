//! Which actors are stuck: they are busy, and what they are busy with has not changed for too long.
//!
//! Looks in, verdicts out: no clock, no thread. Whoever looks does so often enough for the shortest time in use.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ActorId;

/// What an actor is busy with.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Work {
    /// A turn, which holds its thread: a handler, a hook, or a poll of a future.
    Turn,
    /// A handler that waits and has the actor to itself. The thread is free.
    Exclusive,
}

/// An actor that is busy, at the time of a look.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    /// Which.
    pub actor: ActorId,
    /// With what.
    pub work: Work,
    /// Another number whenever it got on.
    pub progress: u64,
    /// How long it may go on without.
    pub after: Duration,
}

/// The busy actors that were seen at the last look.
#[derive(Debug, Default)]
pub struct StuckWatch {
    seen: BTreeMap<(ActorId, Work), Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    progress: u64,
    since: Instant,
    told: bool,
}

impl StuckWatch {
    /// Compares what is busy now with what was at the last look. Gives those that are stuck, once each time that they
    /// get stuck, and since when they are known to be.
    pub fn look(&mut self, busy: impl IntoIterator<Item = Busy>, now: Instant) -> Vec<(Busy, Instant)> {
        let before = std::mem::take(&mut self.seen);
        let mut stuck = Vec::new();
        for busy in busy {
            let key = (busy.actor, busy.work);
            let same = before.get(&key).filter(|seen| seen.progress == busy.progress);
            let mut seen = same.copied().unwrap_or(Seen { progress: busy.progress, since: now, told: false });
            if !seen.told && now.saturating_duration_since(seen.since) >= busy.after {
                seen.told = true;
                stuck.push((busy, seen.since));
            }
            self.seen.insert(key, seen);
        }
        stuck
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start to count from")]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn busy(actor: u64, work: Work, progress: u64) -> Busy {
        Busy { actor: ActorId(actor), work, progress, after: AFTER }
    }

    fn told(stuck: Vec<(Busy, Instant)>, begun: Instant) -> Vec<(u64, Work, u64)> {
        stuck.into_iter().map(|(busy, since)| (busy.actor.0, busy.work, (since - begun).as_secs())).collect()
    }

    #[test]
    fn who_gets_on_is_not_stuck_and_who_does_not_is_told_once() {
        let (begun, mut watch) = (Instant::now(), StuckWatch::default());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for now in 0..200 {
            let looked = watch.look([busy(1, Work::Turn, now), busy(2, Work::Turn, u64::from(now > 5))], at(now));
            let expected = if now == 36 { vec![(2, Work::Turn, 6)] } else { Vec::new() };
            assert_eq!(told(looked, begun), expected, "{now}");
        }
        // It was idle in between: a new affair.
        assert_eq!(told(watch.look([], at(200)), begun), []);
        assert_eq!(told(watch.look([busy(2, Work::Turn, 1)], at(201)), begun), []);
        assert_eq!(told(watch.look([busy(2, Work::Turn, 1)], at(231)), begun), [(2, Work::Turn, 201)]);
    }

    #[test]
    fn turns_and_exclusive_handlers_are_told_apart_and_some_may_take_for_ever() {
        let (begun, mut watch) = (Instant::now(), StuckWatch::default());
        let patient = Busy { after: Duration::MAX, ..busy(3, Work::Turn, 0) };
        let both = || [busy(1, Work::Turn, 0), busy(1, Work::Exclusive, 0), patient];
        assert_eq!(told(watch.look(both(), begun), begun), []);
        let looked = watch.look(both(), begun + AFTER);
        assert_eq!(told(looked, begun), [(1, Work::Turn, 0), (1, Work::Exclusive, 0)]);
    }
}
