//! I25: versions N and N-1 work together or refuse clearly: the only calls that end for want of a version are streams over a
//! connection in the version that has none, and no item comes over it.

use super::{Oracle, View};
use crate::fact::{Fact, Op, Verdict};
use crate::params::{Ending, Kind};

pub(super) struct Versions;

/// The first version with streams.
const STREAMS: u16 = 2;

impl Oracle for Versions {
    fn promise(&self) -> &'static str {
        "I25 versions N and N-1 work together or refuse clearly"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let is_old = |op: Op| {
            let call = view.ledger.call(op);
            let version = |life: u32| view.params.versions[usize::from(view.ledger.lives[life as usize].node)];
            version(call.caller).min(version(call.target.0)) < STREAMS
        };
        match *fact {
            // Unless it is an item that was made so that it cannot be written.
            Fact::Resolved { op, verdict: Verdict::Encode { .. } }
                if view.ledger.call(op).plan.ending != Ending::Error
                    && !view.ledger.is_tainted(op)
                    && (view.ledger.call(op).plan.kind != Kind::Stream || !is_old(op)) =>
            {
                return Err(format!("#{op} is refused, and both sides know its kind"));
            }
            Fact::ItemSent { op, .. } | Fact::ItemArrived { op, .. } if is_old(op) && !view.ledger.is_tainted(op) => {
                return Err(format!("#{op} gets items over a connection that has none"));
            }
            _ => {}
        }
        Ok(())
    }
}
