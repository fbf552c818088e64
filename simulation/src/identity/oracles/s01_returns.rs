//! §1: a life that is over comes back once, as one other life; none that was cut off, nor whose successor was; and the node whose life it was does, if nobody
//! has come before it with a copy of its credential. A life that has come back gets no certificate any more.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;

use super::{Fact, Oracle};
use crate::params::Time;

#[derive(Default)]
pub(super) struct Returns {
    successors: BTreeMap<NodeUid, NodeUid>,
    lives: BTreeSet<NodeUid>,
    revoked: BTreeSet<NodeUid>,
    /// A head that was killed may have noted it.
    maybe_revoked: BTreeSet<NodeUid>,
    /// Of which somebody has shown a copy.
    copied: BTreeSet<NodeUid>,
}

impl Oracle for Returns {
    fn promise(&self) -> &'static str {
        "§1 a life comes back once"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match *fact {
            Fact::Joined { uid, .. } => drop(self.lives.insert(uid)),
            Fact::WillRevoke { uid } => drop(self.maybe_revoked.insert(uid)),
            Fact::Revoked { uid } => drop(self.revoked.insert(uid)),
            Fact::Renewed { uid } if self.successors.contains_key(&uid) => {
                return Err(format!("{uid} has come back as another, and gets a certificate"));
            }
            Fact::AsksBack { was, copy: true } => drop(self.copied.insert(was)),
            Fact::Returned { was, uid } => {
                if self.revoked.contains(&was) {
                    return Err(format!("{was} was cut off, and comes back as {uid}"));
                }
                if let Some(before) = self.successors.insert(was, uid) {
                    return Err(format!("{was} comes back as {uid}, and has come back as {before}"));
                }
                if !self.lives.insert(uid) {
                    return Err(format!("{uid} is given twice"));
                }
            }
            Fact::NotBack { was, copy: false, ref why } => {
                let may = !self.maybe_revoked.contains(&was)
                    && !self.copied.contains(&was)
                    && !self.successors.contains_key(&was);
                if may {
                    return Err(format!("{was} is refused, and may come back: {why}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
