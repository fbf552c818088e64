//! Worlds of tier 0 that are no cluster of links: what they have in common, and many seeds of one, one after the other.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mobula_core::planted::Bug;

use crate::campaign::{Failure, another_trace, is_compared, panicked};
use crate::judge::Violation;
use crate::params::Time;

/// A kind of world.
pub trait Kind {
    /// What is counted in it.
    type Counts: Counts;
    /// The planted bugs that are to be found there.
    const BUGS: &'static [Bug];

    /// Runs the world of `seed`, which may panic.
    fn run(seed: u64, traced: bool) -> Report<Self::Counts>;

    /// The world of `seed`, for people.
    fn describe(seed: u64) -> String;

    /// As [`run`](Self::run); a panic is a broken promise like others.
    fn run_caught(seed: u64, traced: bool) -> Report<Self::Counts> {
        catch_unwind(AssertUnwindSafe(|| Self::run(seed, traced)))
            .unwrap_or_else(|panic| Report { violation: Some(panicked(&*panic)), ..Report::default() })
    }
}

/// What is counted in worlds of a kind.
pub trait Counts: Copy + Debug + Default {
    /// Adds those of another world.
    fn add(&mut self, other: Self);

    /// Each with its name.
    fn named(&self) -> Vec<(&'static str, u64)>;
}

/// What came of a world.
#[derive(Clone, Debug, Default)]
pub struct Report<C> {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Of all facts and their times.
    pub hash: u64,
    /// Facts.
    pub facts: u64,
    /// Virtual time.
    pub lasted: Time,
    /// What else was counted.
    pub counts: C,
    /// The trace, if it was asked for.
    pub lines: Vec<String>,
}

/// What many seeds gave.
#[derive(Clone, Debug, Default)]
pub struct Summary<K: Kind> {
    /// Every seed is run twice, not one in [`COMPARED_ONE_IN`](crate::campaign::COMPARED_ONE_IN).
    pub compares_all: bool,
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// Virtual time of all of them.
    pub lasted: Time,
    /// Facts.
    pub facts: u64,
    /// What else was counted.
    pub counts: K::Counts,
    /// Traces that were compared.
    pub compared: u64,
}

impl<K: Kind> Summary<K> {
    /// Runs `seed` and counts it in.
    pub fn run_seed(&mut self, seed: u64) {
        let compares = is_compared(seed, self.compares_all);
        let Report { mut violation, hash, facts, lasted, counts, lines } = K::run_caught(seed, compares);
        self.seeds += 1;
        self.lasted += lasted;
        self.facts += facts;
        self.counts.add(counts);
        if violation.is_none() && compares {
            self.compared += 1;
            let again = K::run_caught(seed, true);
            violation = another_trace((hash, &lines), (again.hash, &again.lines), again.lasted);
        }
        self.failures.extend(violation.map(|violation| Failure { seed, violation }));
    }

    /// Adds another campaign.
    pub fn add(&mut self, other: Summary<K>) {
        self.seeds += other.seeds;
        self.failures.extend(other.failures);
        self.lasted += other.lasted;
        self.facts += other.facts;
        self.counts.add(other.counts);
        self.compared += other.compared;
    }
}
