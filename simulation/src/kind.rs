//! Worlds of tier 0 that are no cluster of links: what they have in common, and many seeds of one, one after the other.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mobula_core::planted::Bug;

use crate::campaign::{Failure, SEEDS_REACH_ALL, another_trace, is_compared, panicked};
use crate::judge::Violation;
use crate::params::Time;
use crate::reach::{Branches, Reached};

/// A kind of world.
pub trait Kind {
    /// What a seed decides before anything happens.
    type Params: Clone + Debug;
    /// What is counted in it.
    type Counts: Counts;
    /// What enough seeds have to come to.
    type Branch: Branches;
    /// The planted bugs that are to be found there.
    const BUGS: &'static [Bug];

    /// The world of `seed`.
    fn draw(seed: u64) -> Self::Params;

    /// Runs a world, which may panic.
    fn run(params: &Self::Params, traced: bool) -> KindReport<Self>;

    /// Worlds with less in them are smaller.
    fn size(params: &Self::Params) -> usize;

    /// Leaves out what is not needed for the world to fail.
    fn smaller(best: Self::Params, fails: &mut dyn FnMut(&Self::Params) -> bool) -> Self::Params;

    /// As [`run`](Self::run); a panic is a broken promise like others.
    fn run_caught(params: &Self::Params, traced: bool) -> KindReport<Self> {
        catch_unwind(AssertUnwindSafe(|| Self::run(params, traced)))
            .unwrap_or_else(|panic| Report { violation: Some(panicked(&*panic)), ..Report::default() })
    }
}

/// What came of a world of a kind.
pub type KindReport<K> = Report<<K as Kind>::Counts, <K as Kind>::Branch>;

/// What is counted in worlds of a kind.
pub trait Counts: Copy + Debug + Default {
    /// Adds those of another world.
    fn add(&mut self, other: Self);

    /// Each with its name.
    fn named(&self) -> Vec<(&'static str, u64)>;
}

/// Makes what is counted in a kind of world: for each number what it is, and its name for people.
macro_rules! counts {
    ($($(#[$what:meta])* $count:ident: $name:literal,)*) => {
        /// What is counted in it.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Counts {
            $($(#[$what])* pub $count: u64,)*
        }

        impl $crate::kind::Counts for Counts {
            fn add(&mut self, other: Self) {
                $(self.$count += other.$count;)*
            }

            fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$count)),*]
            }
        }
    };
}

pub(crate) use counts;

/// What came of a world.
#[derive(Clone, Debug)]
pub struct Report<C, B> {
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
    /// Branches taken.
    pub reached: Reached<B>,
    /// The trace, if it was asked for.
    pub lines: Vec<String>,
}

impl<C: Default, B: Branches> Default for Report<C, B> {
    fn default() -> Self {
        Report {
            violation: None,
            hash: 0,
            facts: 0,
            lasted: 0,
            counts: C::default(),
            reached: Reached::default(),
            lines: Vec::new(),
        }
    }
}

/// What many seeds gave.
#[derive(Clone, Debug)]
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
    /// Branches taken.
    pub reached: Reached<K::Branch>,
}

impl<K: Kind> Default for Summary<K> {
    fn default() -> Self {
        Summary {
            compares_all: false,
            seeds: 0,
            failures: Vec::new(),
            lasted: 0,
            facts: 0,
            counts: K::Counts::default(),
            compared: 0,
            reached: Reached::default(),
        }
    }
}

impl<K: Kind> Summary<K> {
    /// Runs `seed` and counts it in.
    pub fn run_seed(&mut self, seed: u64) {
        let compares = is_compared(seed, self.compares_all);
        let params = K::draw(seed);
        let Report { mut violation, hash, facts, lasted, counts, reached, lines } = K::run_caught(&params, compares);
        self.seeds += 1;
        self.lasted += lasted;
        self.facts += facts;
        self.counts.add(counts);
        self.reached.add(&reached);
        if violation.is_none() && compares {
            self.compared += 1;
            let again = K::run_caught(&params, true);
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
        self.reached.add(&other.reached);
    }

    /// Branches that a run of this size should have taken and did not.
    pub fn unreached(&self) -> Vec<&'static str> {
        if self.seeds >= SEEDS_REACH_ALL { self.reached.missing() } else { Vec::new() }
    }
}
