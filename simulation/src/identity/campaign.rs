//! Many seeds of this world.

use mobula_core::planted::{Bug, IDENTITY_BUGS};

use super::{Branch, Params, run};
use crate::kind::{self, counts};
use crate::shrink::{change, fewer};

/// The kind of this world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind;

counts! {
    /// Who was let in.
    joined: "joined",
    /// Who was sent away.
    refused: "refused",
    /// Connections that were cut.
    cut: "connections_cut",
    /// Who has come back.
    returned: "returned",
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
