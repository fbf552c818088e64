//! I13: 30 s after the last fault every call has its outcome, and every message that arrived was handled or refused.

use super::{Oracle, Rest, View};
use crate::fact::Op;
use crate::params::SECOND;

pub(super) struct Resolves;

impl Oracle for Resolves {
    fn promise(&self) -> &'static str {
        "I13 after faults stop everything resolves in 30 s"
    }

    fn rest(&mut self, rest: &Rest, view: &View<'_>) -> Result<(), String> {
        if let Some(op) = view.ledger.owed().next() {
            return Err(format!("#{op} has no outcome: {:?}", view.ledger.call(op)));
        }
        if let Some(op) = rest.unfinished.first() {
            return Err(format!("#{op} still waits for its actor"));
        }
        for (op, call) in view.ledger.calls.iter().enumerate() {
            let alive = view.ledger.lives[call.target.0 as usize].until.is_none();
            let handled = call.started > 0 || call.skipped.is_some();
            if alive && call.arrived > 0 && !handled && !view.ledger.is_tainted(op as Op) {
                return Err(format!("#{op} arrived, and was neither handled nor refused"));
            }
            if let Some((at, verdict)) = call.verdict
                && at > rest.healed_at + 30 * SECOND
                && !call.background
                && !view.ledger.is_tainted(op as Op)
            {
                return Err(format!("#{op} ends {verdict:?} at {at}, faults were over at {}", rest.healed_at));
            }
        }
        Ok(())
    }
}
