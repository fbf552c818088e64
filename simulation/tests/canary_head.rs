//! The canary of the head's world: each bug of the head is found. Needs `--features planted`; a process of its own, since a planted bug is planted
//! for all of its tests.
#![cfg(feature = "planted")]

use mobula_core::planted::{HEAD_BUGS, plant};
use mobula_simulation::head::Summary;

#[test]
fn the_bugs_of_the_head_are_found() {
    for bug in HEAD_BUGS {
        plant(Some(*bug));
        let mut summary = Summary::default();
        let found = (0..400).any(|seed| {
            summary.run_seed(seed);
            !summary.failures.is_empty()
        });
        plant(None);
        assert!(found, "{bug:?}");
    }
}
