//! What a head has said stays so for the next one; and nothing that was given is given to somebody else.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId};

use super::super::HOST_PARTS;
use super::{Fact, Oracle, Role};
use crate::params::Time;

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    jobs: BTreeSet<JobId>,
    leases: BTreeMap<LeaseId, (NodeUid, u64)>,
    returned: BTreeSet<LeaseId>,
    down: BTreeSet<NodeUid>,
    /// Jobs and nodes that may take their leases with them.
    ending: BTreeSet<JobId>,
    leaving: BTreeSet<NodeUid>,
    /// Processes of isolated leases, and those leases whose processes have ended.
    isolated: BTreeMap<NodeUid, LeaseId>,
    ended: BTreeSet<LeaseId>,
}

impl Oracle for Acknowledged {
    fn promise(&self) -> &'static str {
        "I11 acknowledged head state survives"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::JobGiven { job, .. } => {
                self.jobs.insert(*job);
            }
            Fact::LeaseGiven { lease, node, .. }
                if self.down.contains(node)
                    || self.ending.contains(&lease.job)
                    || self.leaving.contains(node)
                    || self.ended.contains(lease) => {}
            Fact::LeaseGiven { lease, node, parts } => {
                self.leases.insert(*lease, (*node, *parts));
                let on_node = self.leases.values().filter(|(at, _)| at == node);
                let used: u64 = on_node.map(|(_, parts)| parts).sum();
                if used > HOST_PARTS {
                    return Err(format!("{used} ten-thousandths of cores are given of {node}, which has {HOST_PARTS}"));
                }
            }
            Fact::LeaseReturned { lease, done } => {
                self.leases.remove(lease);
                if *done {
                    self.returned.insert(*lease);
                }
            }
            Fact::Begins { process, role: Role::Isolated(lease), .. } => {
                self.isolated.insert(*process, *lease);
            }
            Fact::Ends { process, .. } => {
                if let Some(lease) = self.isolated.get(process) {
                    self.ended.insert(*lease);
                    self.leases.remove(lease);
                }
            }
            Fact::JobMayEnd { job } | Fact::JobHasEnded { job } => {
                self.ending.insert(*job);
                self.leases.retain(|lease, _| lease.job != *job);
            }
            Fact::NodeMayEnd { uid } => {
                self.leaving.insert(*uid);
                self.leases.retain(|_, (node, _)| node != uid);
            }
            Fact::Down { uid, .. } => {
                self.down.insert(*uid);
                self.leases.retain(|_, (node, _)| node != uid);
            }
            Fact::HeadBegins { leases, jobs, .. } => {
                if let Some(job) = self.jobs.iter().find(|job| !jobs.contains_key(job)) {
                    return Err(format!("{job} is forgotten"));
                }
                return self.compare(leases);
            }
            Fact::Rest { leases, .. } => return self.compare(leases),
            _ => {}
        }
        Ok(())
    }
}

impl Acknowledged {
    fn compare(&self, leases: &BTreeMap<LeaseId, NodeUid>) -> Result<(), String> {
        for (lease, (node, _)) in &self.leases {
            if leases.get(lease) != Some(node) {
                return Err(format!("{lease} on {node} is forgotten: {:?}", leases.get(lease)));
            }
        }
        match self.returned.iter().find(|lease| leases.contains_key(lease)) {
            Some(lease) => Err(format!("{lease} is held after it was given back")),
            None => Ok(()),
        }
    }
}
