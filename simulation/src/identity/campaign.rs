//! Many seeds of this world.

use mobula_core::planted::{Bug, IDENTITY_BUGS};

use super::{Params, run};
use crate::kind;

/// The kind of this world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind;

/// What is counted in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Who was let in.
    pub joined: u64,
    /// Who was sent away.
    pub refused: u64,
    /// Connections that were cut.
    pub cut: u64,
}

/// What came of one.
pub type Report = kind::Report<Counts>;

/// What many seeds gave.
pub type Summary = kind::Summary<Kind>;

impl kind::Kind for Kind {
    type Counts = Counts;
    const BUGS: &'static [Bug] = IDENTITY_BUGS;

    fn run(seed: u64, traced: bool) -> Report {
        run(&Params::draw(seed), traced)
    }

    fn describe(seed: u64) -> String {
        format!("{:?}", Params::draw(seed))
    }
}

impl kind::Counts for Counts {
    fn add(&mut self, other: Self) {
        self.joined += other.joined;
        self.refused += other.refused;
        self.cut += other.cut;
    }

    fn named(&self) -> Vec<(&'static str, u64)> {
        vec![("joined", self.joined), ("refused", self.refused), ("connections_cut", self.cut)]
    }
}
