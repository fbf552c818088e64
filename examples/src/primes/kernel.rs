//! What one worker computes: the count and the sum of the primes of a range.
//!
//! [`Kernel::Trial`] asks each number in turn and is the kernel of most map-reduce tutorials; [`Kernel::Sieve`]
//! (in [`sieve`](mod@super::sieve)) is what a program that wants the answer would run. Both give the same [`Part`].
use std::fmt;
use std::ops::{AddAssign, Range};

use serde::{Deserialize, Serialize};

use super::sieve;

/// How the primes of a range are found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
pub enum Kernel {
    /// Division by 2, 3 and every 6k ± 1 up to the root: a number x costs up to sqrt(x) / 3 divisions.
    Trial,
    /// A segmented sieve: a number costs about the same wherever it lies, and hundreds of times less than by trial.
    #[default]
    Sieve,
}

impl Kernel {
    /// Counts and adds up the primes in `range`; an empty or reversed range holds none.
    ///
    /// Runs on the calling thread until it is done.
    /// # Panics
    /// If the range ends beyond [`sieve::END_MAX`]; what users type is checked in [`args`](super::args).
    pub fn run(self, range: Range<u64>) -> Part {
        assert!(range.end <= sieve::END_MAX, "a range may end at {} at most, not at {}", sieve::END_MAX, range.end);
        match self {
            Kernel::Trial => trial(range),
            Kernel::Sieve => sieve::sieve(range),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Trial => "trial",
            Kernel::Sieve => "sieve",
        })
    }
}

/// The primes of one range, or of many ranges added up.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Part {
    /// Sum of the primes. The primes below 10^12 add up to about 1.8 * 10^22, more than a `u64` holds.
    pub sum: u128,
    /// How many primes there are.
    pub count: u64,
}

impl Part {
    pub(super) fn add_prime(&mut self, prime: u64) {
        self.sum += u128::from(prime);
        self.count += 1;
    }
}

impl AddAssign for Part {
    fn add_assign(&mut self, other: Part) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

fn trial(range: Range<u64>) -> Part {
    let mut part = Part::default();
    for number in range {
        if is_prime(number) {
            part.add_prime(number);
        }
    }
    part
}

fn is_prime(number: u64) -> bool {
    // 32-bit division takes half the time of 64-bit division or less.
    match u32::try_from(number) {
        Ok(number) => is_prime_u32(number),
        Err(_) => is_prime_u64(number),
    }
}

/// One body for both widths; a generic function would need a trait of numbers.
macro_rules! trial_division {
    ($name:ident, $number:ty) => {
        fn $name(number: $number) -> bool {
            if number < 4 {
                return number >= 2;
            }
            if number % 2 == 0 || number % 3 == 0 {
                return false;
            }
            let mut divisor: $number = 5;
            while u64::from(divisor) * u64::from(divisor) <= u64::from(number) {
                if number % divisor == 0 || number % (divisor + 2) == 0 {
                    return false;
                }
                divisor += 6;
            }
            true
        }
    };
}

trial_division!(is_prime_u32, u32);
trial_division!(is_prime_u64, u64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(range: Range<u64>) -> Part {
        let mut part = Part::default();
        for number in range.filter(|&number| number >= 2 && (2..number).all(|divisor| number % divisor != 0)) {
            part.add_prime(number);
        }
        part
    }

    #[test]
    fn small_ranges_as_by_definition() {
        for start in 0..=100 {
            for end in start..=101 {
                let expected = naive(start..end);
                assert_eq!(Kernel::Trial.run(start..end), expected, "{start}..{end}");
                assert_eq!(Kernel::Sieve.run(start..end), expected, "{start}..{end}");
            }
        }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "a reversed range is what is tested")]
    fn an_empty_range_has_no_primes() {
        for kernel in [Kernel::Trial, Kernel::Sieve] {
            assert_eq!(kernel.run(97..97), Part::default());
            assert_eq!(kernel.run(97..3), Part::default());
        }
    }

    #[test]
    fn known_sums() {
        assert_eq!(Kernel::Trial.run(0..100_001), Part { sum: 454_396_537, count: 9592 });
        assert_eq!(Kernel::Sieve.run(0..100_001), Part { sum: 454_396_537, count: 9592 });
        assert_eq!(Kernel::Sieve.run(0..10_000_001), Part { sum: 3_203_324_994_356, count: 664_579 });
    }

    #[test]
    fn trial_across_the_border_of_32_bits() {
        // The largest prime below 2^32, the square of the largest 16-bit prime, and the two primes next above 2^32.
        let border = 1_u64 << 32;
        assert!(is_prime(border - 5) && is_prime(border + 15) && is_prime(border + 61));
        assert!(!is_prime(65_521 * 65_521) && !is_prime(border - 1) && !is_prime(65_537 * 65_537));
        let range = border - 300..border + 300;
        assert_eq!(Kernel::Trial.run(range.clone()), Kernel::Sieve.run(range));
    }

    proptest! {
        #[test]
        fn kernels_agree(start in 0..20_000_000_u64, width in 0..5_000_u64) {
            let range = start..start + width;
            prop_assert_eq!(Kernel::Trial.run(range.clone()), Kernel::Sieve.run(range));
        }
    }

    #[test]
    fn kernels_agree_at_the_end() {
        let range = sieve::END_MAX - 200..sieve::END_MAX;
        assert_eq!(Kernel::Trial.run(range.clone()), Kernel::Sieve.run(range));
    }

    #[test]
    #[should_panic(expected = "a range may end at 1000000000001 at most")]
    fn beyond_the_end() {
        Kernel::Sieve.run(0..sieve::END_MAX + 1);
    }

    #[test]
    fn parts_survive_messagepack_and_json() {
        let part = Part { sum: u128::from(u64::MAX) + 1, count: 3 };
        let bytes = rmp_serde::to_vec_named(&part).unwrap();
        assert_eq!(rmp_serde::from_slice::<Part>(&bytes).unwrap(), part);
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"{"sum":18446744073709551616,"count":3}"#);
    }
}
