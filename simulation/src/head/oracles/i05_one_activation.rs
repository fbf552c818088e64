//! Of a job there is one worker on a machine, one of each order, one of each isolated lease, and one driver, whatever the head believes.

use std::collections::BTreeMap;

use mobula_core::NodeUid;
use mobula_core::cluster::JobId;

use super::{Fact, Oracle, Role};
use crate::params::Time;

/// Processes that run.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    live: BTreeMap<NodeUid, (JobId, u32, Role)>,
    /// Drivers that ever began.
    drivers: BTreeMap<JobId, NodeUid>,
}

impl Oracle for Activations {
    fn promise(&self) -> &'static str {
        "I5 no overlapping activations"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match fact {
            Fact::Begins { process, job, host, role, .. } => {
                if *role == Role::Driver
                    && let Some(other) = self.drivers.insert(*job, *process)
                {
                    return Err(format!("{job} has a second driver, {process} after {other}"));
                }
                let same = |(other, at, its): &(JobId, u32, Role)| {
                    let are_workers = matches!((role, its), (Role::Worker(_), Role::Worker(_)));
                    other == job && *role != Role::Driver && (its == role || (are_workers && at == host))
                };
                if let Some((other, _)) = self.live.iter().find(|(_, live)| same(live)) {
                    return Err(format!("{process} of {job} begins on machine {host} beside {other}, {role:?}"));
                }
                self.live.insert(*process, (*job, *host, *role));
                Ok(())
            }
            Fact::Ends { process, .. } => {
                self.live.remove(process);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
