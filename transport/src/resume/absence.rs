//! After a connection has broken: when to look for the peer, and when to give it up.

use std::time::{Duration, Instant};

use mobula_core::{SplitMix64, backoff, limits};

/// What to do next while there is no connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Look for the peer now.
    Look,
    /// Nothing before this moment, but what others report.
    Wait(Instant),
    /// The peer did not come back in time.
    GiveUp {
        /// For how long it was waited for.
        waited: Duration,
    },
}

/// The time between two connections of one session.
#[derive(Debug)]
pub struct Absence {
    since: Instant,
    until: Instant,
    /// When to look again; none if there is nobody to look for.
    look_at: Option<Instant>,
    looks: u32,
    jitter: SplitMix64,
}

impl Absence {
    /// The connection has broken at `now`. The peer is given up after `window`. With `looks` it is looked for, at once and
    /// again after rests that double; `seed` says where in their bounds those fall.
    pub fn begin(now: Instant, window: Duration, looks: bool, seed: u64) -> Self {
        Absence {
            since: now,
            until: now + window,
            look_at: looks.then_some(now),
            looks: 0,
            jitter: SplitMix64::new(seed),
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Instant) -> Next {
        if now >= self.until {
            return Next::GiveUp { waited: now.saturating_duration_since(self.since) };
        }
        match self.look_at {
            Some(at) if at <= now => Next::Look,
            Some(at) => Next::Wait(at.min(self.until)),
            None => Next::Wait(self.until),
        }
    }

    /// When the peer is given up.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// The peer was looked for, and is not back at `now`.
    pub fn looked_in_vain(&mut self, now: Instant) {
        let jitter = (self.jitter.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let rest = backoff(limits::RESUME_BACKOFF_MIN, limits::RESUME_BACKOFF_MAX, self.looks, jitter);
        self.looks = self.looks.saturating_add(1);
        self.look_at = Some(now + rest);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn the_peer_is_looked_for_at_once_then_after_rests_that_double_and_given_up_in_the_end() {
        let mut now = Instant::now();
        let begun = now;
        let mut absence = Absence::begin(now, WINDOW, true, 7);
        let mut rests = Vec::new();
        let waited = loop {
            match absence.next(now) {
                Next::Look => absence.looked_in_vain(now),
                Next::Wait(at) => {
                    assert!(at > now && at <= absence.until());
                    rests.push(at - now);
                    now = at;
                }
                Next::GiveUp { waited } => break waited,
            }
        };
        assert_eq!((waited, now), (WINDOW, begun + WINDOW));
        for (number, rest) in rests.iter().take(rests.len() - 1).enumerate() {
            let nominal =
                (limits::RESUME_BACKOFF_MIN * 2_u32.saturating_pow(number as u32)).min(limits::RESUME_BACKOFF_MAX);
            assert!(*rest >= nominal * 4 / 5 && *rest <= nominal * 6 / 5, "rest {number}: {rest:?}");
        }
        // So many that the peer is back within a tenth of a second of when it can be, and no more.
        assert!((80..200).contains(&rests.len()), "{}", rests.len());
    }

    #[test]
    fn who_cannot_look_waits() {
        let now = Instant::now();
        let absence = Absence::begin(now, WINDOW, false, 7);
        assert_eq!(absence.next(now), Next::Wait(now + WINDOW));
        assert_eq!(absence.next(now + WINDOW), Next::GiveUp { waited: WINDOW });
    }
}
