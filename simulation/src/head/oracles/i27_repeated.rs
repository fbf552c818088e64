//! A request that comes again has one effect.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId};

use super::{Fact, Oracle};
use crate::params::Time;

/// The answers so far.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    jobs: BTreeMap<(u32, u64), JobId>,
    owners: BTreeMap<JobId, (u32, u64)>,
    leases: BTreeMap<LeaseId, NodeUid>,
    returned: BTreeSet<LeaseId>,
}

impl Oracle for Repeated {
    fn promise(&self) -> &'static str {
        "I27 a repeated request has one effect"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::JobGiven { client, request, job } => {
                let asked = (*client, *request);
                let before = self.jobs.insert(asked, *job);
                let owner = self.owners.insert(*job, asked);
                if before.is_some_and(|before| before != *job) || owner.is_some_and(|owner| owner != asked) {
                    return Err(format!("request {request} of client {client} has made {job}, and {before:?} before"));
                }
            }
            Fact::LeaseGiven { lease, node, .. } => {
                let before = self.leases.insert(*lease, *node);
                if before.is_some_and(|before| before != *node) {
                    return Err(format!("{lease} is on {node}, and was on {before:?}"));
                }
                if self.returned.contains(lease) {
                    return Err(format!("{lease} is given after it was given back"));
                }
            }
            Fact::LeaseReturned { lease, done: true } => {
                self.returned.insert(*lease);
            }
            // Two jobs of one request, of which the client has only seen one.
            Fact::HeadBegins { jobs, .. } if jobs.len() > self.jobs.len() + UNSEEN => {
                return Err(format!("{} jobs of {} requests", jobs.len(), self.jobs.len()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Requests of jobs whose answers may be on their way.
const UNSEEN: usize = 3;
