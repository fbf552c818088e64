//! I1: an ask has exactly one outcome, by its deadline + 50 ms; so has a tell that stands in line for another node. A
//! caller that is paused, or whose thread is at work, learns it when it goes on.

use super::{Oracle, View, at_work, hindered};
use crate::fact::{Fact, Verdict};
use crate::params::MS;

pub(super) struct OneOutcome;

impl Oracle for OneOutcome {
    fn promise(&self) -> &'static str {
        "I1 an ask has exactly one outcome, by deadline + 50 ms"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let Fact::Resolved { op, verdict } = *fact else { return Ok(()) };
        let call = view.ledger.call(op);
        if let Some((at, before)) = call.verdict {
            return Err(format!("#{op} ended with {before:?} at {at}, and again with {verdict:?}"));
        }
        let judged = verdict != Verdict::Orphaned && (call.is_ask() || call.end.is_some());
        let Some(deadline) = call.deadline.filter(|_| judged) else { return Ok(()) };
        let node = view.ledger.lives[call.caller as usize].node;
        let late = view.now.saturating_sub(deadline);
        let since = deadline.saturating_sub(100 * MS);
        let excused = hindered(view.params, node, since, view.now) + at_work(view.params, node, since, view.now);
        if late > 50 * MS + excused {
            return Err(format!("#{op} ends {late} us after its deadline"));
        }
        Ok(())
    }
}
