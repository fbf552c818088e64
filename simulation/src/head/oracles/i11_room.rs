//! What an isolated worker has is given to nobody else before its process has ended, also if its lease was given back.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId};

use super::super::HOST_PARTS;
use super::{Fact, Oracle, Role};
use crate::params::Time;

/// What is in use.
#[derive(Debug, Default)]
pub(crate) struct Room {
    asked: BTreeMap<LeaseId, u64>,
    /// Leases that clients have, and where.
    held: BTreeMap<LeaseId, NodeUid>,
    /// Isolated workers that run.
    isolated: BTreeMap<NodeUid, (LeaseId, NodeUid)>,
    /// Leases whose processes have ended.
    ended: BTreeSet<LeaseId>,
    /// Jobs and nodes that may take their leases with them.
    ending: BTreeSet<JobId>,
    leaving: BTreeSet<NodeUid>,
}

impl Oracle for Room {
    fn promise(&self) -> &'static str {
        "I11 what is in use is not given again"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::LeaseAsked { lease, parts } => {
                self.asked.insert(*lease, *parts);
            }
            Fact::LeaseGiven { lease, node, .. }
                if self.ending.contains(&lease.job) || self.leaving.contains(node) || self.ended.contains(lease) => {}
            Fact::LeaseGiven { lease, node, .. } => {
                self.held.insert(*lease, *node);
                return self.look(*node);
            }
            Fact::LeaseReturned { lease, .. } => {
                self.held.remove(lease);
            }
            Fact::Begins { process, node, role: Role::Isolated(lease), .. } => {
                self.isolated.insert(*process, (*lease, *node));
                return self.look(*node);
            }
            Fact::Ends { process, .. } => {
                if let Some((lease, _)) = self.isolated.remove(process) {
                    self.held.remove(&lease);
                    self.ended.insert(lease);
                }
            }
            Fact::JobMayEnd { job } | Fact::JobHasEnded { job } => {
                self.ending.insert(*job);
                self.held.retain(|lease, _| lease.job != *job);
            }
            Fact::NodeMayEnd { uid } | Fact::Down { uid, .. } => {
                self.leaving.insert(*uid);
                self.held.retain(|_, node| node != uid);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Room {
    fn look(&self, node: NodeUid) -> Result<(), String> {
        let held = self.held.iter().filter(|(_, at)| **at == node).map(|(lease, _)| *lease);
        let runs = self.isolated.values().filter(|(_, at)| *at == node).map(|(lease, _)| *lease);
        let leases: BTreeSet<LeaseId> = held.chain(runs).collect();
        let used: u64 = leases.iter().filter_map(|lease| self.asked.get(lease)).sum();
        if used > HOST_PARTS {
            return Err(format!("{used} ten-thousandths of cores are in use on {node}, which has {HOST_PARTS}"));
        }
        Ok(())
    }
}
