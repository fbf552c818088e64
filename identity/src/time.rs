//! Wall-clock time, which certificates and tokens are about; it comes in as an argument.

use mobula_core::cluster::UnixTime;

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
