//! The canary of the world of identities: each bug of tokens and revocations is found. Needs `--features planted`; a process of its own, since a
//! planted bug is planted for all of its tests.
#![cfg(feature = "planted")]

use mobula_core::planted::{IDENTITY_BUGS, plant};
use mobula_simulation::identity::Summary;

#[test]
fn the_bugs_of_tokens_and_revocations_are_found() {
    for bug in IDENTITY_BUGS {
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
