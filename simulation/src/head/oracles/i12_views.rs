//! When nothing goes wrong any more, what the head sees is what is, and every request has its answer.

use std::collections::BTreeMap;

use mobula_core::NodeUid;

use super::{Fact, Oracle, Role};
use crate::params::Time;

/// Compares at rest.
#[derive(Debug)]
pub(crate) struct Views;

impl Oracle for Views {
    fn promise(&self) -> &'static str {
        "I12 views converge"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        let Fact::Rest { hosts, jobs, leases, isolated, kept, served, unanswered, .. } = fact else { return Ok(()) };
        if *unanswered > 0 {
            return Err(format!("{unanswered} requests have no answer"));
        }
        if *served != kept.names {
            return Err(format!("actors are called {served:?}, and the head has {:?}", kept.names));
        }
        for host in hosts {
            let Some(uid) = host.uid.filter(|_| host.is_up) else {
                return Err(format!("machine {} is not up: {:?}", host.host, host.uid));
            };
            let workers = host.processes.iter().filter(|(_, (_, role))| matches!(role, Role::Worker(_)));
            let real: BTreeMap<_, NodeUid> = workers.map(|(process, (job, _))| (*job, *process)).collect();
            let seen: BTreeMap<_, NodeUid> =
                jobs.iter().filter_map(|(job, workers)| Some((*job, *workers.get(&uid)?))).collect();
            if real != seen {
                return Err(format!("on {uid} run {real:?}, and the head sees {seen:?}"));
            }
            if seen.len() != jobs.len() {
                return Err(format!("on {uid} there are workers of {} jobs out of {}", seen.len(), jobs.len()));
            }
            let own = host.processes.iter().filter_map(|(process, (_, role))| match role {
                Role::Isolated(lease) => Some((*lease, *process)),
                _ => None,
            });
            let own: BTreeMap<_, NodeUid> = own.collect();
            let here = isolated.iter().filter(|(_, (node, _))| *node == uid);
            let seen: BTreeMap<_, NodeUid> = here.map(|(lease, (_, process))| (*lease, *process)).collect();
            if own != seen {
                return Err(format!("on {uid} are alone {own:?}, and the head sees {seen:?}"));
            }
            if let Some(lease) = own.keys().find(|lease| leases.get(lease) != Some(&uid)) {
                return Err(format!("the process of {lease} on {uid} goes on without it"));
            }
        }
        Ok(())
    }
}
