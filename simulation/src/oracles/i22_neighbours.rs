//! I22: a slow actor delays its neighbours at most twofold. Of sessions: the first message to an actor waits for nobody else's credit. Of whole
//! nodes: while nothing goes wrong, an actor that has nothing else to do answers within twice the time of the way and of its own work, whatever its
//! neighbours do.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, View};
use crate::fact::{EndId, Fact, LifeId, Op, Verdict};
use crate::ledger::Entry;
use crate::params::{Ending, Kind, MS};

#[derive(Default)]
pub(super) struct Neighbours {
    /// Who was sent anything over a connection.
    known: BTreeSet<(EndId, u64)>,
    /// The newest message, if it is the first to its actor.
    first: Option<Op>,
    /// What every actor may still have to do.
    to_do: BTreeMap<(LifeId, u64), BTreeSet<Op>>,
    /// Calls to actors that have something else to do.
    behind: BTreeSet<Op>,
}

impl Oracle for Neighbours {
    fn promise(&self) -> &'static str {
        "I22 a slow actor delays its neighbours at most 2x"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::Issued { op } => self.issued(op, view.ledger.call(op)),
            Fact::Finished { op } => {
                if let Some(to_do) = self.to_do.get_mut(&view.ledger.call(op).target) {
                    to_do.remove(&op);
                }
            }
            Fact::InLine { op, window_full: false } if self.first == Some(op) && !view.ledger.is_tainted(op) => {
                // What goes in fragments always stands in line.
                let is_small =
                    usize::from(view.ledger.call(op).plan.padding) + HEAD_BYTES <= view.params.fragment_bytes;
                if is_small {
                    return Err(format!("#{op} stands in line, and its actor was sent nothing before"));
                }
            }
            Fact::Resolved { op, verdict: Verdict::Replied { .. } } => return self.replied(op, view),
            _ => {}
        }
        Ok(())
    }
}

/// More than the head of a message takes.
const HEAD_BYTES: usize = 80;

impl Neighbours {
    fn issued(&mut self, op: Op, call: &Entry) {
        if call.is_to_node() {
            return;
        }
        let is_first = call.end.is_some_and(|end| self.known.insert((end, call.target.1)));
        self.first = is_first.then_some(op);
        let to_do = self.to_do.entry(call.target).or_default();
        if let Some(before) = to_do.first() {
            // Of several, all but the first were behind others when they came, and that one since the second came.
            self.behind.extend((to_do.len() == 1).then_some(*before));
            self.behind.insert(op);
        }
        to_do.insert(op);
    }

    /// Only of whole nodes: in worlds of sessions, windows and sockets are drawn so small that every message waits for some.
    fn replied(&self, op: Op, view: &View<'_>) -> Result<(), String> {
        let call = view.ledger.call(op);
        let node = |life: LifeId| view.ledger.lives[life as usize].node;
        let params = view.params;
        let between_whole_nodes = call.end.is_none() && node(call.caller) != node(call.target.0);
        let plain = call.plan.kind == Kind::Ask && call.plan.nested.is_empty() && call.plan.ending == Ending::Reply;
        let calm = params.faults.iter().all(|fault| fault.at > view.now);
        let small = params.calls.iter().all(|call| call.padding < 600);
        // With its siblings an actor rests, too.
        let alone = params.supervised.is_none();
        if !between_whole_nodes || !plain || !calm || !small || !alone || self.behind.contains(&op) {
            return Ok(());
        }
        let (took, own) = (view.now - call.issued, call.plan.work + 2 * (params.latency + params.jitter) + 10 * MS);
        match took > 2 * own {
            true => {
                Err(format!("#{op} took {took} us, and its actor had nothing else to do; way and work take {own} us"))
            }
            false => Ok(()),
        }
    }
}
