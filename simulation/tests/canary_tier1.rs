//! The canary of tier 1: a bug in the session is found by what users of real nodes see. Needs `--features planted`; a
//! process of its own, since a planted bug is planted for all of its tests.
#![cfg(feature = "planted")]

use mobula_core::planted::{Bug, plant};
use mobula_simulation::campaign::{Summary, Tier};

#[test]
fn a_planted_bug_is_found_in_whole_nodes() {
    plant(Some(Bug::SentFlagWrong));
    let mut summary = Summary::of(Tier::One);
    let found = (0..200).any(|seed| {
        summary.run_seed(seed);
        !summary.failures.is_empty()
    });
    plant(None);
    assert!(found);
    assert_eq!(
        summary.failures[0].violation.promise,
        "I8 NotStarted means the handler never ran, a reply that it ran once"
    );
}
