//! The member's end of its lease.

use std::time::{Duration, Instant};

use super::LeaseTimes;

/// Whether this node may act under the names that it was given.
///
/// A grant counts from the moment at which the renewal was sent, which is before the head counts from: so the node knows
/// of its end no later than the head does. A lease that is over stays over.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    lease: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Fresh,
    HeldUntil(Instant),
    Over,
}

impl Lease {
    /// Not held yet.
    pub fn new(times: &LeaseTimes) -> Self {
        Lease { lease: times.lease, state: State::Fresh }
    }

    /// Grants that come from now on are for the lease of `times`.
    pub fn lasts(&mut self, times: &LeaseTimes) {
        self.lease = times.lease;
    }

    /// The head has granted a renewal that was sent at `sent`. False if that is of no use any more.
    pub fn granted(&mut self, sent: Instant, now: Instant) -> bool {
        let until = sent + self.lease;
        self.state = match self.state {
            State::Fresh if now < until => State::HeldUntil(until),
            State::Fresh => State::Fresh,
            State::HeldUntil(before) if now < before => State::HeldUntil(before.max(until)),
            State::HeldUntil(_) | State::Over => State::Over,
        };
        self.holds(now)
    }

    /// The head has said that it is over.
    pub fn refused(&mut self) {
        self.state = State::Over;
    }

    /// True while it is held.
    pub fn holds(&self, now: Instant) -> bool {
        matches!(self.state, State::HeldUntil(until) if now < until)
    }

    /// True if it was held once and is not at `now`, or was refused: for ever.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.state {
            State::Fresh => false,
            State::HeldUntil(until) => now >= until,
            State::Over => true,
        }
    }

    /// When it ends unless it is renewed.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::HeldUntil(until) => Some(until),
            State::Fresh | State::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn it_counts_from_the_sending_and_never_comes_back() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut lease = Lease::new(&LeaseTimes::of(Duration::from_secs(8)));
        assert!(!lease.holds(at(0)) && !lease.is_over(at(100)));
        // An answer that was under way for too long begins nothing, and ends nothing.
        assert!(!lease.granted(at(0), at(9)) && !lease.is_over(at(9)));
        assert!(lease.granted(at(10), at(12)));
        assert_eq!(lease.until(), Some(at(18)));
        assert!(lease.granted(at(13), at(17)));
        // A late answer to an earlier renewal shortens nothing.
        assert!(lease.granted(at(12), at(18)));
        assert!(lease.holds(at(20)) && !lease.holds(at(21)) && lease.is_over(at(21)));
        assert!(!lease.granted(at(20), at(21)));
        assert!(!lease.granted(at(22), at(22)) && lease.is_over(at(22)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_refusal_is_the_end() {
        let now = Instant::now();
        let mut lease = Lease::new(&LeaseTimes::default());
        assert!(lease.granted(now, now));
        lease.refused();
        assert!(!lease.holds(now) && lease.is_over(now) && !lease.granted(now, now));
    }
}
