//! Whole nodes as a test: a piece of every campaign of tier 1. A seed costs more there, so there are fewer.

use mobula_simulation::campaign::{Summary, Tier};

/// As many as an unoptimized build runs in some seconds.
const SEEDS: u64 = if cfg!(debug_assertions) { 5 } else { 100 };

#[test]
fn promises_hold_for_whole_nodes() {
    let mut summary = Summary::of(Tier::One);
    (0..SEEDS).for_each(|seed| summary.run_seed(seed));
    let failures = &summary.failures;
    assert!(failures.is_empty(), "replay with `simulate --tier 1 --seed N`: {failures:#?}");
    assert!(summary.compared > 0 && summary.calls > 0);
}
