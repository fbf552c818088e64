//! Section 4 of the semantics: the wire carries the time left, so it never grows on the way; expired work never starts.

use mobula_core::Budget;

use super::{Oracle, View};
use crate::fact::Fact;

pub(super) struct Expired;

impl Oracle for Expired {
    fn promise(&self) -> &'static str {
        "§4 the wire carries the time left, expired work never starts"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::Wired { op, budget_ms, empty_at } if budget_ms != Budget::NEVER.0 => {
                let Some(deadline) = view.ledger.call(op).deadline else {
                    return Err(format!("#{op} has no deadline, and goes out with one"));
                };
                // It was queued after the queue was last empty, so this much was left at most.
                let left = deadline.saturating_sub(empty_at) + 2;
                // A clock that is fast counts more of it, and moments are rounded.
                let left_ms = (left + left * view.params.fast_ppm() / 1_000_000) / 1000;
                if u64::from(budget_ms) > left_ms {
                    return Err(format!("#{op} goes out with {budget_ms} ms, at most {left_ms} ms are left"));
                }
            }
            // Requests to the node itself begin when they arrive.
            Fact::Started { op, actor: 1.., .. } => {
                let call = view.ledger.call(op);
                let over = call.deadline_there.is_some_and(|deadline| view.now >= deadline);
                if over && !view.ledger.is_tainted(op) {
                    return Err(format!("#{op} starts after its deadline"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
