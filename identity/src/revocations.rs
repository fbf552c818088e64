//! The lives that were cut off. The head keeps the list and raises its number with each change; nodes take what is newer.

use std::collections::BTreeMap;

use mobula_core::cluster::UnixTime;
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, limits};
use serde::{Deserialize, Serialize};

/// Who was cut off, until their certificates have ended anyway.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Revocations {
    serial: u64,
    lives: BTreeMap<NodeUid, UnixTime>,
}

impl Revocations {
    /// Cuts a life off, and forgets those whose certificates are over.
    pub fn revoke(&mut self, uid: NodeUid, now: UnixTime) {
        self.lives.retain(|_, until| *until > now);
        // What was issued a moment ago ends the latest.
        let life = if planted::is(Bug::CutTooShort) { limits::CERTIFICATE_LIFE / 2 } else { limits::CERTIFICATE_LIFE };
        self.lives.insert(uid, now.after(life).after(limits::CLOCK_SKEW_MAX));
        self.serial += 1;
    }

    /// True if the life was cut off.
    pub fn contains(&self, uid: NodeUid) -> bool {
        self.lives.contains_key(&uid)
    }

    /// All of them.
    pub fn lives(&self) -> impl Iterator<Item = NodeUid> {
        self.lives.keys().copied()
    }

    /// Takes over what the head says, if it is newer, and tells whom to cut off now. An old list changes nothing: nobody comes
    /// back by a delayed message.
    pub fn adopt(&mut self, newer: Revocations) -> Vec<NodeUid> {
        if newer.serial <= self.serial && !planted::is(Bug::OldListAdopted) {
            return Vec::new();
        }
        let old = std::mem::replace(self, newer);
        let forgotten = usize::from(planted::is(Bug::CutForgotten));
        let cut: Vec<NodeUid> = self.lives.keys().filter(|uid| !old.contains(**uid)).copied().collect();
        cut[..cut.len() - forgotten.min(cut.len().saturating_sub(1))].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    #[test]
    fn a_newer_list_cuts_those_who_are_new_on_it() {
        let mut head = Revocations::default();
        head.revoke(NodeUid(1), NOW);
        let first = head.clone();
        let mut node = Revocations::default();
        assert_eq!(node.adopt(first.clone()), [NodeUid(1)]);
        head.revoke(NodeUid(2), NOW);
        assert_eq!(node.adopt(head.clone()), [NodeUid(2)]);
        assert_eq!(node.adopt(first), [], "an old list");
        assert!(node.contains(NodeUid(1)) && node.contains(NodeUid(2)) && !node.contains(NodeUid(3)));
    }

    #[test]
    fn a_life_stays_on_the_list_as_long_as_a_certificate_could() {
        let mut list = Revocations::default();
        list.revoke(NodeUid(1), NOW);
        list.revoke(NodeUid(2), NOW.after(limits::CERTIFICATE_LIFE));
        assert!(list.contains(NodeUid(1)));
        list.revoke(NodeUid(3), NOW.after(limits::CERTIFICATE_LIFE).after(limits::CLOCK_SKEW_MAX));
        assert!(!list.contains(NodeUid(1)) && list.contains(NodeUid(2)));
    }
}
