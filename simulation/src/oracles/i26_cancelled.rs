//! I26: cancelled work frees its slot within 1 s: once the receiver knows, a handler that has not begun never does. What
//! was given up in line never leaves.

use super::{Oracle, View};
use crate::fact::Fact;

pub(super) struct Cancelled;

impl Oracle for Cancelled {
    fn promise(&self) -> &'static str {
        "I26 cancelled work frees its slot in 1 s"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        if let Fact::Wired { op, .. } = *fact
            && view.ledger.call(op).left_line
        {
            return Err(format!("#{op} was given up in line, and leaves"));
        }
        // Requests to the node itself begin when they arrive, and are done whatever becomes of their sender.
        let Fact::Started { op, actor: 1.., .. } = *fact else { return Ok(()) };
        match view.ledger.call(op).cancel_arrived {
            Some(at) if !view.ledger.is_tainted(op) => {
                Err(format!("#{op} starts; the cancel arrived {} us ago", view.now - at))
            }
            _ => Ok(()),
        }
    }
}
