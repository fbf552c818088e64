//! The world of the head as a test: a piece of every campaign, and every seed that ever failed.

use mobula_simulation::head::{Kind, Params, Summary};
use mobula_simulation::kind::Kind as _;

/// As many as an unoptimized build runs in some seconds.
const SEEDS: u64 = 300;

/// Seeds that failed while the head or its world was made, before there were detached actors in it.
const FAILED_ONCE: [u64; 19] =
    [0, 3, 9, 12, 26, 32, 46, 55, 57, 185, 229, 318, 364, 872, 3617, 4843, 8854, 12621, 19054];

#[test]
fn the_head_keeps_its_promises_in_many_worlds() {
    let mut summary = Summary::default();
    (0..SEEDS).for_each(|seed| summary.run_seed(seed));
    assert!(summary.failures.is_empty(), "replay with `simulate --world head --seed N`: {:#?}", summary.failures);
    assert!(summary.compared >= SEEDS / 100);
    // Worlds in which nothing happens prove nothing.
    assert!(summary.counts.kills > SEEDS / 10 && summary.counts.leases > 10 * SEEDS, "{summary:?}");
    assert!(summary.counts.names > SEEDS, "{summary:?}");
}

#[test]
fn worlds_that_failed_once_do_not_fail_again() {
    for seed in FAILED_ONCE {
        for params in [Params::draw_plain(seed), Params::draw(seed)] {
            let report = Kind::run_caught(&params, false);
            assert!(report.violation.is_none(), "{params:?}: {:?}", report.violation);
            assert_eq!(Kind::run_caught(&params, false).hash, report.hash, "{params:?}: two runs differ");
        }
    }
}
