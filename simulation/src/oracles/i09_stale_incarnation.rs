//! I9: nothing from a stale incarnation is accepted: no connection for or of an earlier life, no message for one, and
//! none of a peer that was declared lost. And no reference is called stale by who has a link to that very life.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, View};
use crate::fact::{EndId, Fact, LifeId, Verdict};

#[derive(Default)]
pub(super) struct StaleIncarnation {
    lost: BTreeSet<(LifeId, u64)>,
    /// Who has a data link to whom.
    linked: BTreeMap<EndId, (LifeId, u64)>,
}

impl Oracle for StaleIncarnation {
    fn promise(&self) -> &'static str {
        "I9 nothing from a stale incarnation is accepted"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let uid_of = |life: LifeId| view.ledger.lives[life as usize].uid;
        match *fact {
            Fact::Admitted { life, target, .. } if target != uid_of(life) => {
                Err(format!("life {life} is {:016x}, and admits who wanted {target:016x}", uid_of(life)))
            }
            Fact::LinkUp { end, life, peer, control: false, .. } => {
                self.linked.insert(end, (life, peer));
                Ok(())
            }
            Fact::LinkDown { end, .. } => {
                self.linked.remove(&end);
                Ok(())
            }
            Fact::PeerLost { life, peer } => {
                self.lost.insert((life, peer));
                Ok(())
            }
            Fact::Arrived { op, life, .. } => {
                let call = view.ledger.call(op);
                if self.lost.contains(&(life, uid_of(call.caller))) {
                    return Err(format!("#{op} arrives from life {}, which was declared lost", call.caller));
                }
                Ok(())
            }
            Fact::Resolved { op, verdict: Verdict::Stale } => {
                let call = view.ledger.call(op);
                let link = (call.caller, uid_of(call.target.0));
                if call.end.is_none() && self.linked.values().any(|linked| *linked == link) {
                    return Err(format!("#{op} is for life {}, to which there is a link", call.target.0));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
