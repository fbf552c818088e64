//! Wall-clock time, which certificates and tokens are about; it comes in as an argument.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// What the system's clock says. For programs; decisions take it as an argument.
    pub fn now() -> Self {
        UnixTime(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
    }

    /// So much later, or the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        UnixTime(self.0.saturating_add(duration.as_secs()))
    }

    /// So much earlier, or 1970.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        UnixTime(self.0.saturating_sub(duration.as_secs()))
    }

    pub(crate) fn system(self) -> SystemTime {
        // The end of what the system can say, rather than a panic, for a number that no clock shows.
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// When a certificate is to be renewed: at two thirds of its life, which leaves a third for a head that is away.
pub fn renew_at(from: UnixTime, until: UnixTime) -> UnixTime {
    UnixTime(from.0.saturating_add(until.0.saturating_sub(from.0) / 3 * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(renew_at(UnixTime(1_000), UnixTime(1_000 + 86_400)), UnixTime(1_000 + 57_600));
        assert_eq!(renew_at(UnixTime(1_000), UnixTime(500)), UnixTime(1_000), "a life that is over");
        assert_eq!(renew_at(UnixTime(0), UnixTime(u64::MAX)).0, u64::MAX / 3 * 2);
    }
}
