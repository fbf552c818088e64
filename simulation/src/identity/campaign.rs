//! Many seeds, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Params, Report, run};
use crate::campaign::{COMPARED_ONE_IN, Failure};
use crate::judge::Violation;
use crate::params::Time;

/// What many seeds gave.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Every seed is run twice, not one in [`COMPARED_ONE_IN`].
    pub compares_all: bool,
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// Virtual time of all of them.
    pub lasted: Time,
    /// Facts.
    pub facts: u64,
    /// Who was let in.
    pub joined: u64,
    /// Who was sent away.
    pub refused: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Traces that were compared.
    pub compared: u64,
}

impl Summary {
    /// Runs `seed` and counts it in.
    pub fn run_seed(&mut self, seed: u64) {
        let report = run_caught(seed, false);
        self.seeds += 1;
        self.lasted += report.lasted;
        self.facts += report.facts;
        self.joined += report.joined;
        self.refused += report.refused;
        self.cut += report.cut;
        let mut violation = report.violation;
        if violation.is_none() && (self.compares_all || seed.is_multiple_of(COMPARED_ONE_IN)) {
            self.compared += 1;
            let again = run_caught(seed, false);
            if again.hash != report.hash {
                let what = format!("{:016x} and {:016x}", report.hash, again.hash);
                violation = Some(Violation { promise: "I28 same seed, same trace", what, at: again.lasted });
            }
        }
        self.failures.extend(violation.map(|violation| Failure { seed, violation }));
    }
}

/// Runs a seed with its trace.
pub fn replay(seed: u64) -> Report {
    run_caught(seed, true)
}

fn run_caught(seed: u64, traced: bool) -> Report {
    let params = Params::draw(seed);
    catch_unwind(AssertUnwindSafe(|| run(&params, traced))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_else(|| "a panic without a text".to_owned());
        let violation = Some(Violation { promise: "I31 no peer input panics", what, at: 0 });
        Report { violation, hash: 0, facts: 0, lasted: 0, joined: 0, refused: 0, cut: 0, lines: Vec::new() }
    })
}
