//! How the numbers from 0 to n are cut into chunks.
use std::ops::Range;

use super::kernel::Kernel;

/// Cuts 0..=n into `chunks` ranges of about equal cost for `kernel`, in rising order.
///
/// Every number lies in exactly one range and no range is empty, so there are only n + 1 ranges when `chunks` is more
/// than that. `n` is at most [`N_MAX`](super::args::N_MAX); `chunks` of 0 counts as 1.
pub fn cut(n: u64, chunks: usize, kernel: Kernel) -> Vec<Range<u64>> {
    let end = n + 1;
    let chunks = (chunks as u64).clamp(1, end);
    let mut start = 0;
    (1..=chunks)
        .map(|taken| {
            // One number at least for this chunk and for each that follows.
            let border = border(end, taken, chunks, kernel).clamp(start + 1, end - (chunks - taken));
            std::mem::replace(&mut start, border)..border
        })
        .collect()
}

/// Where the first `taken` of `chunks` equal shares of the cost end.
fn border(end: u64, taken: u64, chunks: u64, kernel: Kernel) -> u64 {
    match kernel {
        Kernel::Sieve => (u128::from(end) * u128::from(taken) / u128::from(chunks)) as u64,
        // A number x costs up to sqrt(x) divisions, so all below x cost about x^(3/2); this is the inverse.
        Kernel::Trial => (end as f64 * (taken as f64 / chunks as f64).powf(2.0 / 3.0)).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::args::N_MAX;
    use super::*;

    fn assert_covers(n: u64, chunks: usize, kernel: Kernel) {
        let ranges = cut(n, chunks, kernel);
        assert_eq!(ranges.len() as u64, (chunks as u64).min(n + 1), "n={n} chunks={chunks} {kernel}");
        let mut next = 0;
        for range in ranges {
            assert_eq!(range.start, next, "n={n} chunks={chunks} {kernel}");
            assert!(range.end > range.start, "n={n} chunks={chunks} {kernel}: {range:?} is empty");
            next = range.end;
        }
        assert_eq!(next, n + 1, "n={n} chunks={chunks} {kernel}");
    }

    #[test]
    fn every_number_once_when_small() {
        for n in 0..=40 {
            for chunks in 1..=50 {
                assert_covers(n, chunks, Kernel::Sieve);
                assert_covers(n, chunks, Kernel::Trial);
            }
        }
    }

    proptest! {
        #[test]
        fn every_number_once(n in 0..=N_MAX, chunks in 1..2000_usize) {
            assert_covers(n, chunks, Kernel::Sieve);
            assert_covers(n, chunks, Kernel::Trial);
        }
    }

    #[test]
    fn sieve_chunks_are_equally_wide() {
        let widths: Vec<u64> = cut(1_000_000, 64, Kernel::Sieve).iter().map(|range| range.end - range.start).collect();
        assert!(widths.iter().all(|width| (15_625..=15_626).contains(width)), "{widths:?}");
    }

    #[test]
    fn trial_chunks_cost_about_the_same() {
        let divisions = |number: u64| {
            let factor = (2..=number.isqrt()).find(|divisor| number.is_multiple_of(*divisor));
            factor.unwrap_or(number.isqrt())
        };
        let costs: Vec<u64> =
            cut(100_000, 8, Kernel::Trial).into_iter().map(|range| range.map(divisions).sum()).collect();
        let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
        assert!(most * 2 < least * 3, "{costs:?}");
    }
}
