//! I32: a revoked peer is cut in 2 s: by every member that hears the head, counted from the head's word, or from when that member hears the
//! head again. It gets no certificate any more, and never comes back.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;

use super::{Fact, Oracle};
use crate::params::{SECOND, Time};

#[derive(Default)]
pub(super) struct CutOff {
    revoked: BTreeMap<NodeUid, Time>,
    /// Who cannot hear the head, and how many cuts are to blame.
    deaf: BTreeMap<NodeUid, u32>,
    /// Since when somebody hears the head again.
    hears_since: BTreeMap<NodeUid, Time>,
    /// Since when there is a head; none if there is not.
    head_since: Option<Time>,
    connected: BTreeSet<(NodeUid, NodeUid)>,
}

const WITHIN: Time = 2 * SECOND;

fn pair(one: NodeUid, other: NodeUid) -> (NodeUid, NodeUid) {
    (one.min(other), one.max(other))
}

impl Oracle for CutOff {
    fn promise(&self) -> &'static str {
        "I32 a revoked peer is cut in 2 s"
    }

    fn fact(&mut self, fact: &Fact, now: Time) -> Result<(), String> {
        match *fact {
            Fact::HeadBegins => self.head_since = Some(now),
            Fact::HeadEnds { .. } => self.head_since = None,
            Fact::Revoked { uid } => {
                self.revoked.entry(uid).or_insert(now);
            }
            Fact::Joined { uid, .. } | Fact::Returned { uid, .. } => {
                self.hears_since.insert(uid, now);
            }
            Fact::Renewed { uid } if self.revoked.contains_key(&uid) => {
                return Err(format!("{uid} was cut off, and gets a certificate"));
            }
            Fact::CutBegins { uid } => *self.deaf.entry(uid).or_default() += 1,
            Fact::CutEnds { uid } => {
                let left = self.deaf.entry(uid).or_default();
                *left = left.saturating_sub(1);
                self.hears_since.insert(uid, now);
            }
            Fact::Connected { one, other } => {
                self.connected.insert(pair(one, other));
            }
            Fact::Cut { by: one, peer: other } | Fact::Ended { one, other } => {
                self.connected.remove(&pair(one, other));
            }
            _ => {}
        }
        self.connected.iter().try_for_each(|(one, other)| {
            self.in_time(*one, *other, now)?;
            self.in_time(*other, *one, now)
        })
    }
}

impl CutOff {
    /// `own` has to have cut `peer` by now, if that was revoked.
    fn in_time(&self, own: NodeUid, peer: NodeUid, now: Time) -> Result<(), String> {
        let (Some(revoked), Some(head)) = (self.revoked.get(&peer), self.head_since) else { return Ok(()) };
        // Nobody counts on one that was cut off itself.
        if self.deaf.get(&own).is_some_and(|cuts| *cuts > 0) || self.revoked.contains_key(&own) {
            return Ok(());
        }
        let since = head.max(*revoked).max(self.hears_since.get(&own).copied().unwrap_or(0));
        match now > since + WITHIN {
            true => Err(format!("{peer} was cut off, {own} could know since {} us, and they talk", now - since)),
            false => Ok(()),
        }
    }
}
