//! Many seeds of this world.

use mobula_core::planted::Bug;

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
    /// Nodes that have ended themselves for want of answers.
    fenced: "nodes_fenced",
    /// Processes that have begun.
    processes: "processes",
}

/// What came of one.
pub type Report = kind::Report<Counts, Branch>;

/// What many seeds gave.
pub type Summary = kind::Summary<Kind>;

impl kind::Kind for Kind {
    type Params = Params;
    type Counts = Counts;
    type Branch = Branch;
    const BUGS: &'static [Bug] = &[Bug::NodeDownEarly, Bug::LeaseUnwritten, Bug::NodeForgotten];

    fn draw(seed: u64) -> Params {
        Params::draw(seed)
    }

    fn run(params: &Params, traced: bool) -> Report {
        run(params, traced)
    }

    fn size(params: &Params) -> usize {
        params.faults.len() + (params.hosts + params.clients) as usize + usize::from(params.kill_one_in > 0)
    }

    fn smaller(best: Params, fails: &mut dyn FnMut(&Params) -> bool) -> Params {
        let mut best = fewer(best, |params| &mut params.faults, fails);
        best = change(best, |params| params.kill_one_in = 0, fails);
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
    params.faults.retain(|fault| fault.what.peer() != Some(last));
    params.clients -= 1;
}

/// Leaves the last host out, and the faults about it and about clients, which have the numbers after the hosts.
fn without_host(params: &mut Params) {
    let last = params.hosts - 1;
    params.faults.retain(|fault| fault.what.peer().or(fault.what.host()).is_none_or(|number| number < last));
    params.hosts = last;
}
