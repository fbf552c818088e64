//! I24: drain loses nothing: what was sent to a node before it said that it is about to end is handled and answered, and what is new
//! comes back unsent. Judged where no other fault is about the two nodes: those end calls for reasons of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, View};
use crate::fact::{EndId, Fact, LifeId, Op, Verdict};
use crate::params::{Fault, Time};

#[derive(Default)]
pub(super) struct Drain {
    /// Lives that say that they are about to end, and have not ended.
    draining: BTreeSet<LifeId>,
    /// Ends that have heard so from their peers, and when.
    heard: BTreeMap<EndId, Time>,
}

impl Oracle for Drain {
    fn promise(&self) -> &'static str {
        "I24 drain loses nothing"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::DrainBegins { life } => {
                self.draining.insert(life);
            }
            Fact::DrainEnds { life } | Fact::NodeDown { life, .. } => {
                self.draining.remove(&life);
            }
            Fact::DrainHeard { end } => {
                self.heard.entry(end).or_insert(view.now);
            }
            Fact::Wired { op, .. } if !view.ledger.is_tainted(op) => {
                let call = view.ledger.call(op);
                let heard = call.end.and_then(|end| self.heard.get(&end));
                if let Some(heard) = heard.filter(|heard| call.issued > **heard && !call.is_to_node()) {
                    return Err(format!("#{op} is sent, and its target said at {heard} that it is about to end"));
                }
            }
            Fact::Resolved {
                op,
                verdict: Verdict::Unreachable { sent: true } | Verdict::Quarantined { sent: true },
            } if self.draining.contains(&view.ledger.call(op).target.0) && is_calm(op, view) => {
                return Err(format!("#{op} was sent to a node that drains, which goes on, and fails"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Nothing else has gone wrong so far with the two nodes of a call, or by bytes that were forged.
fn is_calm(op: Op, view: &View<'_>) -> bool {
    let call = view.ledger.call(op);
    let node = |life: LifeId| view.ledger.lives[life as usize].node;
    let (own, target) = (node(call.caller), node(call.target.0));
    let about = |fault: &Fault| match *fault {
        Fault::Drain { node } => node == own,
        fault => fault.touches(own) || fault.touches(target),
    };
    let mut begun = view.params.faults.iter().filter(|fault| fault.at <= view.now);
    !begun.any(|fault| about(&fault.fault)) && view.ledger.tainted.is_empty() && own != target
}
