//! Many seeds, one after the other: what the program and the tests both do.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mobula_core::panic_text;

use crate::judge::Violation;
use crate::params::{Params, Time};
use crate::reach::Reached;
use crate::{Report, run, tier1};

/// One seed in so many is run twice, to compare the traces.
pub const COMPARED_ONE_IN: u64 = 100;
/// A campaign of so many seeds has to reach every branch.
pub const SEEDS_REACH_ALL: u64 = 10_000;

/// What is real in a world.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tier {
    /// The decisions: sessions, credits, handshakes, restart budgets.
    #[default]
    Zero,
    /// Whole nodes.
    One,
}

impl Tier {
    /// The world of `seed`.
    pub fn draw(self, seed: u64) -> Params {
        match self {
            Tier::Zero => Params::draw(seed),
            Tier::One => tier1::draw(seed),
        }
    }

    /// Runs a world; a panic is a broken promise like others.
    pub fn run_caught(self, params: &Params, traced: bool) -> Report {
        let run = || match self {
            Tier::Zero => run(params, traced),
            Tier::One => tier1::run(params, traced),
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Report {
            violation: Some(panicked(&*panic)),
            hash: 0,
            lasted: 0,
            facts: 0,
            calls: 0,
            reached: Reached::default(),
            lines: Vec::new(),
        })
    }
}

/// What a panic of a world breaks.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Violation {
    Violation { promise: "I31 no peer input panics", what: panic_text(panic), at: 0 }
}

/// True if `seed` is run twice.
pub(crate) fn is_compared(seed: u64, all: bool) -> bool {
    all || seed.is_multiple_of(COMPARED_ONE_IN)
}

/// One of two runs of a seed: the hash of its facts, and its trace.
pub(crate) type Run<'a> = (u64, &'a [String]);

/// What two runs of a seed break whose traces differ; the second has lasted until `at`.
pub(crate) fn another_trace((hash, lines): Run<'_>, (hash_again, lines_again): Run<'_>, at: Time) -> Option<Violation> {
    let what = || {
        let same = lines.iter().zip(lines_again).take_while(|(line, again)| line == again).count();
        let [line, again] = [lines, lines_again].map(|lines| lines.get(same).map_or("the end", |line| line.trim()));
        format!("after {same} equal lines the first run has \"{line}\", the second \"{again}\"")
    };
    (hash_again != hash).then(|| Violation { promise: "I28 same seed, same trace", what: what(), at })
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// How.
    pub violation: Violation,
}

/// What many seeds gave.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What is real in it.
    pub tier: Tier,
    /// Every seed is run twice, not one in [`COMPARED_ONE_IN`].
    pub compares_all: bool,
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// Virtual time of all of them.
    pub lasted: Time,
    /// Virtual time, each world counted as often as it has nodes.
    pub node_time: Time,
    /// Facts.
    pub facts: u64,
    /// Calls.
    pub calls: u64,
    /// Traces that were compared.
    pub compared: u64,
    /// Branches taken.
    pub reached: Reached,
}

impl Summary {
    /// An empty one.
    pub fn of(tier: Tier) -> Self {
        Summary { tier, ..Summary::default() }
    }

    /// Runs `seed` and counts it in.
    pub fn run_seed(&mut self, seed: u64) {
        let params = self.tier.draw(seed);
        // Two runs that differ are only of use where they are seen to part: what makes them differ may not come again.
        let compares = is_compared(seed, self.compares_all);
        let report = self.tier.run_caught(&params, compares);
        self.seeds += 1;
        self.lasted += report.lasted;
        self.node_time += report.lasted * Time::from(params.nodes);
        self.facts += report.facts;
        self.calls += report.calls;
        self.reached.add(&report.reached);
        let mut violation = report.violation;
        if violation.is_none() && compares {
            self.compared += 1;
            let again = self.tier.run_caught(&params, true);
            violation = another_trace((report.hash, &report.lines), (again.hash, &again.lines), again.lasted);
        }
        self.failures.extend(violation.map(|violation| Failure { seed, violation }));
    }

    /// Adds another campaign.
    pub fn add(&mut self, other: Summary) {
        self.seeds += other.seeds;
        self.failures.extend(other.failures);
        self.lasted += other.lasted;
        self.node_time += other.node_time;
        self.facts += other.facts;
        self.calls += other.calls;
        self.compared += other.compared;
        self.reached.add(&other.reached);
    }

    /// Branches that a run of this size should have taken and did not.
    pub fn unreached(&self) -> Vec<&'static str> {
        if self.tier == Tier::Zero && self.seeds >= SEEDS_REACH_ALL { self.reached.missing() } else { Vec::new() }
    }
}
