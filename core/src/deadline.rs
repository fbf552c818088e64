//! Deadlines. Inside a process they are instants; on the wire they are the time left, so clocks need not agree.

use std::time::{Duration, Instant};

/// The moment after which nobody waits for an answer any more, or never.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline. To be asked for: the default of every ask is [`crate::limits::ASK_DEADLINE`].
    pub const NEVER: Deadline = Deadline(None);

    /// A deadline at `instant`.
    pub const fn at(instant: Instant) -> Self {
        Deadline(Some(instant))
    }

    /// A deadline `after` from `now`; never, if that lies beyond what an `Instant` can hold.
    #[inline]
    pub fn after(now: Instant, after: Duration) -> Self {
        Deadline(now.checked_add(after))
    }

    /// The instant, or none for [`Deadline::NEVER`].
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }

    /// True once `now` has reached the deadline.
    #[inline]
    pub fn is_over(self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// The earlier of the two.
    #[must_use]
    #[inline]
    pub fn min(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }

    /// What the wire carries: the time left at `now`.
    #[inline]
    pub fn budget(self, now: Instant) -> Budget {
        let Some(at) = self.0 else { return Budget::NEVER };
        let left = at.saturating_duration_since(now);
        // In 64 bits: half a billion years fit.
        let left_ms = left.as_secs().saturating_mul(1000).saturating_add(left.subsec_millis().into());
        Budget(u32::try_from(left_ms).unwrap_or(Budget::NEVER.0 - 1).min(Budget::NEVER.0 - 1))
    }
}

/// The time left to a request, in milliseconds, as it travels in a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget(pub u32);

impl Budget {
    /// No deadline.
    pub const NEVER: Budget = Budget(u32::MAX);

    /// The deadline of a request that arrived at `now`.
    #[inline]
    pub fn deadline(self, now: Instant) -> Deadline {
        if self == Budget::NEVER { Deadline::NEVER } else { Deadline::after(now, Duration::from_millis(self.0.into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn budget_and_deadline_agree() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_millis(1500));
        assert_eq!(deadline.budget(now), Budget(1500));
        assert_eq!(deadline.budget(now + Duration::from_secs(2)), Budget(0));
        assert_eq!(Budget(1500).deadline(now), deadline);
        assert_eq!(Deadline::NEVER.budget(now), Budget::NEVER);
        assert_eq!(Budget::NEVER.deadline(now), Deadline::NEVER);
        assert!(Budget(0).deadline(now).is_over(now));
        // Fifty days and more still fit: the largest finite budget, not "never".
        assert_eq!(Deadline::after(now, Duration::from_secs(60 * 86_400)).budget(now), Budget(u32::MAX - 1));
    }
}
