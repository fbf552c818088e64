//! The canary of the head in tier 1: bugs of the head's decisions are found by what nodes and drivers see. Needs `--features planted`; a process of its
//! own, since a planted bug is planted for all of its tests.
#![cfg(feature = "planted")]

use mobula_core::planted::plant;
use mobula_simulation::head::tier1::{Kind, Summary};
use mobula_simulation::kind::Kind as _;

#[test]
fn bugs_of_the_head_are_found_by_those_around_it() {
    for bug in Kind::BUGS {
        plant(Some(*bug));
        let mut summary = Summary::default();
        let found = (0..60).any(|seed| {
            summary.run_seed(seed);
            !summary.failures.is_empty()
        });
        plant(None);
        assert!(found, "{bug:?}");
    }
}
