//! I3: messages of one sender to one receiver arrive in the order of the calls; what is lost is a suffix.
//!
//! A call that fails before it left is not a loss. One that left and never arrived is, and nothing later may arrive. What keeps a
//! lease goes ahead of what was asked before; it is no message of an actor's.

use std::collections::BTreeMap;

use super::{Oracle, Rest, View};
use crate::fact::{Fact, LifeId, Op};

#[derive(Default)]
pub(super) struct Order {
    last: BTreeMap<(LifeId, LifeId, u64), Op>,
}

impl Oracle for Order {
    fn promise(&self) -> &'static str {
        "I3 FIFO per sender and receiver, loss only as a suffix"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let Fact::Arrived { op, life, .. } = *fact else { return Ok(()) };
        let call = view.ledger.call(op);
        if view.ledger.is_tainted(op) {
            return Ok(());
        }
        if life != call.target.0 {
            return Err(format!("#{op} is for life {}, and arrives at life {life}", call.target.0));
        }
        if call.ahead {
            return Ok(());
        }
        let last = self.last.entry((call.caller, life, call.target.1)).or_insert(op);
        if *last > op {
            return Err(format!("#{op} arrives after #{last}, which was called later"));
        }
        *last = op;
        Ok(())
    }

    fn rest(&mut self, _: &Rest, view: &View<'_>) -> Result<(), String> {
        for (op, call) in view.ledger.calls.iter().enumerate() {
            let lost = call.known_sent && call.arrived == 0 && !view.ledger.is_tainted(op as Op);
            let key = (call.caller, call.target.0, call.target.1);
            if lost && let Some(last) = self.last.get(&key).filter(|last| **last > op as Op) {
                return Err(format!("#{op} left and never arrived, and #{last} did"));
            }
        }
        Ok(())
    }
}
