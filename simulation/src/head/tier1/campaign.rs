//! Many seeds of this world.

use mobula_core::planted::Bug;

use super::{Branch, Params, run};
use crate::kind;
use crate::shrink::{change, fewer};

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
    /// Nodes that have ended themselves for want of answers.
    pub fenced: u64,
    /// Processes that have begun.
    pub processes: u64,
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

impl kind::Counts for Counts {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.leases += other.leases;
        self.fenced += other.fenced;
        self.processes += other.processes;
    }

    fn named(&self) -> Vec<(&'static str, u64)> {
        let Counts { kills, leases, fenced, processes } = *self;
        vec![("heads_killed", kills), ("leases", leases), ("nodes_fenced", fenced), ("processes", processes)]
    }
}
