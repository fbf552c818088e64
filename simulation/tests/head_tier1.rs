//! The head in tier 1 as a test: a piece of every campaign, and seeds that failed. A seed costs more than in tier 0, so there are fewer.

use mobula_simulation::head::tier1::Summary;

/// As many as an unoptimized build runs in some seconds.
const SEEDS: u64 = if cfg!(debug_assertions) { 5 } else { 100 };

/// Seeds that failed before the nodes were mended.
const FAILED_ONCE: [u64; 4] = [20, 44, 66, 68];

#[test]
fn the_head_and_the_nodes_around_it_keep_their_promises() {
    let mut summary = Summary::default();
    (0..SEEDS).chain(FAILED_ONCE).for_each(|seed| summary.run_seed(seed));
    let failures = &summary.failures;
    assert!(failures.is_empty(), "replay with `simulate --tier 1 --world head --seed N`: {failures:#?}");
    assert!(summary.compared > 0);
    // Worlds in which nothing happens prove nothing.
    let counts = summary.counts;
    assert!(counts.leases > 5 * SEEDS && counts.processes > 5 * SEEDS && counts.kills > 0, "{counts:?}");
}
