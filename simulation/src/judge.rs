//! Keeps the trace and its hash, writes the ledger, and lets the oracles speak.

use std::hash::{Hash, Hasher};

use crate::fact::Fact;
use crate::ledger::Ledger;
use crate::oracles::{self, Gauge, Oracle, Rest, View};
use crate::params::{Params, Time};
use crate::reach::{Branch, Reached};

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// How.
    pub what: String,
    /// When.
    pub at: Time,
}

/// All that watches a world.
pub struct Judge {
    /// The history.
    pub ledger: Ledger,
    /// The first broken promise; the world stops at it.
    pub violation: Option<Violation>,
    /// Branches that were taken.
    pub reached: Reached,
    /// Facts so far.
    pub facts: u64,
    /// The trace, if it is kept.
    pub lines: Option<Vec<String>>,
    hash: TraceHash,
    oracles: Vec<Box<dyn Oracle>>,
}

impl Judge {
    /// Begins; with `traced`, keeps the trace as text.
    pub fn new(traced: bool) -> Self {
        Judge {
            ledger: Ledger::default(),
            violation: None,
            reached: Reached::default(),
            facts: 0,
            lines: traced.then(Vec::new),
            hash: TraceHash(0xcbf2_9ce4_8422_2325),
            oracles: oracles::all(),
        }
    }

    /// Something happened.
    pub fn fact(&mut self, fact: Fact, params: &Params, now: Time) {
        (now, fact).hash(&mut self.hash);
        self.facts += 1;
        self.line(now, || fact.to_string());
        let view = View { ledger: &self.ledger, params, now };
        let spoken =
            self.oracles.iter_mut().find_map(|oracle| Some((oracle.promise(), oracle.fact(&fact, &view).err()?)));
        self.ledger.apply(&fact, now);
        self.accuse(spoken, now);
    }

    /// A connection has had a turn.
    pub fn gauge(&mut self, gauge: &Gauge, params: &Params, now: Time) {
        let view = View { ledger: &self.ledger, params, now };
        let spoken =
            self.oracles.iter_mut().find_map(|oracle| Some((oracle.promise(), oracle.gauge(gauge, &view).err()?)));
        self.accuse(spoken, now);
    }

    /// The world is at rest, or should be.
    pub fn rest(&mut self, rest: &Rest, params: &Params, now: Time) {
        let view = View { ledger: &self.ledger, params, now };
        let spoken =
            self.oracles.iter_mut().find_map(|oracle| Some((oracle.promise(), oracle.rest(rest, &view).err()?)));
        self.accuse(spoken, now);
    }

    /// The world itself has found something.
    pub fn accuse(&mut self, spoken: Option<(&'static str, String)>, now: Time) {
        let Some((promise, what)) = spoken else { return };
        self.line(now, || format!("VIOLATION of \"{promise}\": {what}"));
        self.violation.get_or_insert(Violation { promise, what, at: now });
    }

    /// A branch is taken.
    pub fn reach(&mut self, branch: Branch) {
        self.reached.reach(branch);
    }

    /// Text for the trace only.
    pub fn line(&mut self, now: Time, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6}  {}", now as f64 / 1e6, text()));
        }
    }

    /// The hash of all facts and their times.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}

/// FNV-1a by words: not the standard hasher, whose values may change between releases of Rust.
struct TraceHash(u64);

impl Hasher for TraceHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
}
