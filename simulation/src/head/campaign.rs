//! Many seeds of this world.

use mobula_core::planted::{Bug, HEAD_BUGS};

use super::{Params, run};
use crate::kind;

/// The kind of this world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind;

/// What is counted in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Heads that were killed.
    pub kills: u64,
    /// Leases that clients were given.
    pub leases: u64,
}

/// What came of one.
pub type Report = kind::Report<Counts>;

/// What many seeds gave.
pub type Summary = kind::Summary<Kind>;

impl kind::Kind for Kind {
    type Counts = Counts;
    const BUGS: &'static [Bug] = HEAD_BUGS;

    fn run(seed: u64, traced: bool) -> Report {
        run(&Params::draw(seed), traced)
    }

    fn describe(seed: u64) -> String {
        format!("{:?}", Params::draw(seed))
    }
}

impl kind::Counts for Counts {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.leases += other.leases;
    }

    fn named(&self) -> Vec<(&'static str, u64)> {
        vec![("heads_killed", self.kills), ("leases", self.leases)]
    }
}
