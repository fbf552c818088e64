//! When nothing goes wrong any more, what the head sees is what is, and every request has its answer.

use std::collections::BTreeMap;

use mobula_core::NodeUid;

use super::{Fact, Oracle};
use crate::params::Time;

/// Compares at rest.
#[derive(Debug)]
pub(crate) struct Views;

impl Oracle for Views {
    fn promise(&self) -> &'static str {
        "I12 views converge"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        let Fact::Rest { hosts, jobs, unanswered, .. } = fact else { return Ok(()) };
        if *unanswered > 0 {
            return Err(format!("{unanswered} requests have no answer"));
        }
        for host in hosts {
            let Some(uid) = host.uid.filter(|_| host.is_up) else {
                return Err(format!("machine {} is not up: {:?}", host.host, host.uid));
            };
            let workers = host.processes.iter().filter(|(_, (_, is_worker))| *is_worker);
            let real: BTreeMap<_, NodeUid> = workers.map(|(process, (job, _))| (*job, *process)).collect();
            let seen: BTreeMap<_, NodeUid> =
                jobs.iter().filter_map(|(job, workers)| Some((*job, *workers.get(&uid)?))).collect();
            if real != seen {
                return Err(format!("on {uid} run {real:?}, and the head sees {seen:?}"));
            }
            if seen.len() != jobs.len() {
                return Err(format!("on {uid} there are workers of {} jobs out of {}", seen.len(), jobs.len()));
            }
        }
        Ok(())
    }
}
