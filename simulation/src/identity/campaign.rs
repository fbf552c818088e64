//! Many seeds of this world.

use mobula_core::planted::{Bug, IDENTITY_BUGS};

use super::{Branch, Params, run};
use crate::kind;
use crate::shrink::{change, fewer};

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
    /// Who has come back.
    pub returned: u64,
}

/// What came of one.
pub type Report = kind::Report<Counts, Branch>;

/// What many seeds gave.
pub type Summary = kind::Summary<Kind>;

impl kind::Kind for Kind {
    type Params = Params;
    type Counts = Counts;
    type Branch = Branch;
    const BUGS: &'static [Bug] = IDENTITY_BUGS;

    fn draw(seed: u64) -> Params {
        Params::draw(seed)
    }

    fn run(params: &Params, traced: bool) -> Report {
        run(params, traced)
    }

    fn size(params: &Params) -> usize {
        let visits: usize = params.tokens.iter().map(|token| token.visits.len()).sum();
        let clocks = params.clocks.iter().filter(|ahead| **ahead != 0).count();
        let others = params.revocations.len() + params.cuts.len() + usize::from(params.kill_one_in > 0);
        let others = others + usize::from(params.returns_each > 0);
        params.tokens.len() + visits + clocks + others
    }

    fn smaller(best: Params, fails: &mut dyn FnMut(&Params) -> bool) -> Params {
        let mut best = fewer(best, |params| &mut params.tokens, fails);
        best = fewer(best, |params| &mut params.cuts, fails);
        best = fewer(best, |params| &mut params.revocations, fails);
        for token in 0..best.tokens.len() {
            best = fewer(best, |params| &mut params.tokens[token].visits, fails);
        }
        best = change(best, |params| params.kill_one_in = 0, fails);
        best = change(best, |params| params.returns_each = 0, fails);
        change(best, |params| params.clocks.fill(0), fails)
    }
}

impl kind::Counts for Counts {
    fn add(&mut self, other: Self) {
        self.joined += other.joined;
        self.refused += other.refused;
        self.cut += other.cut;
        self.returned += other.returned;
    }

    fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("joined", self.joined),
            ("refused", self.refused),
            ("connections_cut", self.cut),
            ("returned", self.returned),
        ]
    }
}
