//! Lets the oracles speak about each fact, and keeps the trace and its hash.

use super::fact::Fact;
use super::oracles::{self, Oracle};
use crate::judge::Violation;
use crate::params::Time;

/// What watches a world of the head.
pub(super) struct Judge {
    oracles: Vec<Box<dyn Oracle>>,
    /// The first broken promise.
    pub(super) violation: Option<Violation>,
    /// Of all facts and their times.
    pub(super) hash: u64,
    /// So far.
    pub(super) facts: u64,
    /// The trace, if it is kept.
    pub(super) lines: Option<Vec<String>>,
}

impl Judge {
    pub(super) fn new(traced: bool) -> Self {
        Judge {
            oracles: oracles::all(),
            violation: None,
            hash: 0xcbf2_9ce4_8422_2325,
            facts: 0,
            lines: traced.then(Vec::new),
        }
    }

    /// Something has happened.
    pub(super) fn fact(&mut self, fact: &Fact, now: Time) {
        self.facts += 1;
        let text = line_of(now, &format!("{fact:?}"));
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(text);
        }
        let spoken =
            self.oracles.iter_mut().filter_map(|oracle| Some((oracle.promise(), oracle.fact(fact, now).err()?)));
        // Each of them hears it, whoever has spoken.
        let spoken: Vec<_> = spoken.collect();
        spoken.into_iter().for_each(|(promise, what)| self.accuse(promise, what, now));
    }

    /// A promise is broken. The first one counts.
    pub(super) fn accuse(&mut self, promise: &'static str, what: String, now: Time) {
        if self.violation.is_none() {
            self.line(now, || format!("VIOLATION of \"{promise}\": {what}"));
            self.violation = Some(Violation { promise, what, at: now });
        }
    }

    /// Text for the trace only.
    pub(super) fn line(&mut self, now: Time, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line_of(now, &text()));
        }
    }
}

fn line_of(now: Time, text: &str) -> String {
    format!("{:>12.6}  {text}", now as f64 / 1e6)
}
