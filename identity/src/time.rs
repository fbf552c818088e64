//! Wall-clock time, which certificates and tokens are about; it comes in as an argument.

use std::time::Duration;

use mobula_core::cluster::UnixTime;

/// How long a certificate that is good until `until` is used before another is asked for, counted from `now`, when it was given: two thirds of
/// what is left of its life. The last third is for a head that is away.
pub fn renew_after(now: UnixTime, until: UnixTime) -> Duration {
    Duration::from_secs(until.0.saturating_sub(now.0) / 3 * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(renew_after(UnixTime(1_000), UnixTime(1_000 + 86_400)), Duration::from_secs(57_600));
        assert_eq!(renew_after(UnixTime(1_000), UnixTime(500)), Duration::ZERO, "a life that is over");
        assert_eq!(renew_after(UnixTime(0), UnixTime(u64::MAX)).as_secs(), u64::MAX / 3 * 2);
    }
}
