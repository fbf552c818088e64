//! Many seeds of this world.

use mobula_core::planted::{Bug, HEAD_BUGS};

use super::params::What;
use super::{Branch, Params, run};
use crate::kind::{self, counts};
use crate::shrink::{change, fewer};

/// The kind of this world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind;

counts! {
    /// Heads that were killed.
    kills: "heads_killed",
    /// Leases that clients were given.
    leases: "leases",
    /// Names that keepers were given.
    names: "names",
}

/// What came of one.
pub type Report = kind::Report<Counts, Branch>;

/// What many seeds gave.
pub type Summary = kind::Summary<Kind>;

impl kind::Kind for Kind {
    type Params = Params;
    type Counts = Counts;
    type Branch = Branch;
    const BUGS: &'static [Bug] = HEAD_BUGS;

    fn draw(seed: u64) -> Params {
        Params::draw(seed)
    }

    fn run(params: &Params, traced: bool) -> Report {
        run(params, traced)
    }

    fn size(params: &Params) -> usize {
        let drifts = params.rates.iter().filter(|rate| **rate != 1_000_000).count();
        let kills = usize::from(params.kill_one_in > 0);
        let wishes = usize::from(params.keepers) + usize::from(params.crowd_at.is_some());
        params.faults.len() + (params.hosts + params.clients) as usize + drifts + kills + wishes
    }

    fn smaller(best: Params, fails: &mut dyn FnMut(&Params) -> bool) -> Params {
        let mut best = fewer(best, |params| &mut params.faults, fails);
        best = change(best, |params| params.kill_one_in = 0, fails);
        best = change(best, |params| params.rates.fill(1_000_000), fails);
        best = change(best, |params| params.keepers = false, fails);
        best = change(best, |params| params.crowd_at = None, fails);
        for _ in 1..best.clients {
            best = change(best, without_client, fails);
        }
        for _ in 1..best.hosts {
            best = change(best, without_host, fails);
        }
        best
    }
}

/// Leaves the last client out, and the faults about it.
fn without_client(params: &mut Params) {
    let last = params.hosts + params.clients - 1;
    params.faults.retain(|fault| !matches!(fault.what, What::Cut { peer, .. } if peer == last));
    params.clients -= 1;
}

/// Leaves the last host out, and the faults about it. Clients have the numbers after the hosts.
fn without_host(params: &mut Params) {
    let last = params.hosts - 1;
    params.faults.retain(|fault| match fault.what {
        What::Cut { peer: host, .. }
        | What::Pause { host }
        | What::Crash { host }
        | What::Drain { host }
        | What::Remove { host } => host != last,
        What::PauseHead | What::CrashHead | What::KillKeepers => true,
    });
    for fault in &mut params.faults {
        if let What::Cut { peer, .. } = &mut fault.what {
            *peer -= u32::from(*peer > last);
        }
    }
    params.rates.pop();
    params.hosts = last;
}
