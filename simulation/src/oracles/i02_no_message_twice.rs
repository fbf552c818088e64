//! I2: no message reaches one life of a node twice, and no handler runs twice for it.

use super::{Oracle, View};
use crate::fact::Fact;

pub(super) struct NoMessageTwice;

impl Oracle for NoMessageTwice {
    fn promise(&self) -> &'static str {
        "I2 no message twice to one incarnation"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let (op, times) = match *fact {
            Fact::Arrived { op, .. } => (op, view.ledger.call(op).arrived),
            Fact::Started { op, .. } => (op, view.ledger.call(op).started),
            _ => return Ok(()),
        };
        if times > 0 && !view.ledger.is_tainted(op) {
            return Err(format!("#{op} for the second time: {fact}"));
        }
        Ok(())
    }
}
