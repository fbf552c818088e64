//! The world of identities as a test: a piece of every campaign.

use mobula_simulation::identity::Summary;

/// As many as an unoptimized build runs in some seconds.
const SEEDS: u64 = 300;

#[test]
fn tokens_and_revocations_are_exact_in_many_worlds() {
    let mut summary = Summary::default();
    (0..SEEDS).for_each(|seed| summary.run_seed(seed));
    assert!(summary.failures.is_empty(), "replay with `simulate --world identity --seed N`: {:#?}", summary.failures);
    assert!(summary.compared >= SEEDS / 100);
    // Worlds in which nothing happens prove nothing.
    assert!(
        summary.counts.joined > SEEDS
            && summary.counts.refused > SEEDS
            && summary.counts.cut > SEEDS / 4
            && summary.counts.returned > SEEDS,
        "{summary:?}"
    );
}
