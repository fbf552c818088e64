//! The canary: oracles that sleep find nothing. Needs `--features planted`; a process of its own, since a planted bug is
//! planted for all of its tests.
#![cfg(feature = "planted")]

use mobula_core::planted::{Bug, plant};
use mobula_simulation::campaign::{Summary, Tier};
use mobula_simulation::params::Params;

#[test]
fn a_planted_bug_is_found_and_shrunk() {
    plant(Some(Bug::SentFlagWrong));
    let mut summary = Summary::default();
    let found = (0..1000).any(|seed| {
        summary.run_seed(seed);
        !summary.failures.is_empty()
    });
    let failure = summary.failures.first().cloned();
    let small = failure.map(|failure| {
        let drawn = Params::draw(failure.seed);
        let (small, _) = mobula_simulation::shrink::shrink(Tier::Zero, &drawn, failure.violation.promise);
        (drawn.calls.len() + drawn.faults.len(), small.calls.len() + small.faults.len())
    });
    plant(None);
    assert!(found);
    assert!(small.is_some_and(|(before, after)| after < before && after <= 8), "{small:?}");
}
