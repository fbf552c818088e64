//! Groups: sets of actors, with a version for those who follow them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Found, GroupName, Members, Refusal};
use crate::limits;

/// All groups that have members.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Groups {
    groups: BTreeMap<GroupName, Group>,
    /// Changes so far, of whatever group.
    changes: u64,
    /// The last change that left a group without members: the version of all groups that are not there. So one that has had
    /// members since somebody looked is never taken for the same.
    #[serde(default)]
    emptied: u64,
    /// Memberships.
    entries: usize,
    /// Groups that have changed since somebody last asked.
    changed: BTreeSet<GroupName>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    version: u64,
    members: BTreeSet<Found>,
}

impl Groups {
    /// Puts `member` into `group`. True if it was not there.
    pub(super) fn join(&mut self, group: &GroupName, member: Found) -> Result<bool, Refusal> {
        let members = self.groups.get(group).map(|group| &group.members);
        if members.is_some_and(|members| members.contains(&member)) {
            return Ok(false);
        }
        for (taken, limit) in [
            (members.map_or(0, BTreeSet::len), limits::GROUP_MEMBERS_MAX),
            (self.entries, limits::DIRECTORY_ENTRIES_MAX),
        ] {
            if taken >= limit {
                return Err(Refusal::Full { limit: limit as u64 });
            }
        }
        self.changes += 1;
        let entry = self.groups.entry(group.clone()).or_default();
        entry.version = self.changes;
        entry.members.insert(member);
        self.entries += 1;
        self.changed.insert(group.clone());
        Ok(true)
    }

    /// Takes `member` out of `group`.
    pub(super) fn leave(&mut self, group: &GroupName, member: &Found) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        if !entry.members.remove(member) {
            return;
        }
        self.changes += 1;
        entry.version = self.changes;
        if entry.members.is_empty() {
            self.groups.remove(group);
            self.emptied = self.changes;
        }
        self.entries -= 1;
        self.changed.insert(group.clone());
    }

    pub(super) fn members(&self, group: &GroupName) -> Members {
        let (version, members) = match self.groups.get(group) {
            Some(group) => (group.version, group.members.iter().cloned().collect()),
            None => (self.emptied, Vec::new()),
        };
        Members { version, at: self.changes, members }
    }

    /// The number of the last change.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<GroupName> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}
