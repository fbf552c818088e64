//! A process is told to end, and a job ends, only for a reason of its own: an outage of the head is none. A drained node keeps its workers until its time.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId};

use super::{Fact, Oracle, Role};
use crate::params::Time;

/// Reasons.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    jobs: BTreeSet<JobId>,
    nodes: BTreeSet<NodeUid>,
    leases: BTreeSet<LeaseId>,
    processes: BTreeMap<NodeUid, (JobId, NodeUid, Option<LeaseId>)>,
}

impl Oracle for Outages {
    fn promise(&self) -> &'static str {
        "I15 a head outage does not touch what runs; I24 a drain ends nothing before its time"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::JobMayEnd { job } => {
                self.jobs.insert(*job);
            }
            Fact::NodeMayEnd { uid } => {
                self.nodes.insert(*uid);
            }
            Fact::LeaseReturned { lease, .. } => {
                self.leases.insert(*lease);
            }
            Fact::Begins { process, node, job, role, .. } => {
                let lease = if let Role::Isolated(lease) = role { Some(*lease) } else { None };
                self.processes.insert(*process, (*job, *node, lease));
            }
            Fact::JobHasEnded { job } if !self.jobs.contains(job) => {
                return Err(format!("{job} has ended for nothing"));
            }
            Fact::Ends { process, told: true } => {
                let Some((job, node, lease)) = self.processes.get(process) else { return Ok(()) };
                let was_returned = lease.is_some_and(|lease| self.leases.contains(&lease));
                if !self.jobs.contains(job) && !self.nodes.contains(node) && !was_returned {
                    return Err(format!("{process} of {job} on {node} is told to end for nothing"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
