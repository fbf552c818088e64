//! What a head sees: when it begins, and when everything is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, JobPhase, JobRow, LeaseId, NodePhase};
use mobula_head::Head;

use super::fact::{Fact, Kept};

/// Who has asked for the jobs that keep actors.
const KEEPER: &str = "keeper";

/// A head has begun with these records.
pub(super) fn begins(head: &Head) -> Fact {
    let leases = head.leases().into_iter().map(|lease| (lease.id, lease.node)).collect();
    let (rows, kept) = (head.jobs(), kept(head));
    let jobs = rows.iter().filter(|row| row.submitter != KEEPER).map(|row| (row.id, ends(row))).collect();
    Fact::HeadBegins { leases, jobs, kept }
}

/// The job is over or about to be.
fn ends(row: &JobRow) -> bool {
    row.phase.is_over() || row.phase == JobPhase::Stopping
}

/// What a head knows of detached actors.
fn kept(head: &Head) -> Kept {
    let rows = head.jobs();
    let keepers: BTreeMap<JobId, bool> =
        rows.iter().filter(|row| row.submitter == KEEPER).map(|row| (row.id, ends(row))).collect();
    let names = head.detached().into_iter().map(|row| (row.name, row.keeper)).collect();
    let pairs = rows.iter().flat_map(|row| keepers.keys().map(|keeper| (row.id, *keeper)));
    let guests = pairs.filter(|(by, keeper)| head.may_call(*by, *keeper)).collect();
    Kept { keepers, names, guests }
}

/// What a head has to say at rest, as in [`Fact::Rest`].
pub(super) struct AtRest {
    /// Nodes that are up.
    pub(super) up: BTreeSet<NodeUid>,
    pub(super) jobs: BTreeMap<JobId, BTreeMap<NodeUid, NodeUid>>,
    pub(super) leases: BTreeMap<LeaseId, NodeUid>,
    pub(super) isolated: BTreeMap<LeaseId, (NodeUid, NodeUid)>,
    pub(super) kept: Kept,
    pub(super) given: BTreeMap<NodeUid, (u64, u64)>,
}

impl AtRest {
    pub(super) fn of(head: &Head, now: Duration) -> Self {
        let mut jobs: BTreeMap<JobId, BTreeMap<NodeUid, NodeUid>> = BTreeMap::new();
        for row in head.jobs().into_iter().filter(|row| row.phase == JobPhase::Running) {
            jobs.insert(row.id, BTreeMap::new());
        }
        let mut isolated = BTreeMap::new();
        for row in head.workers() {
            if let Some(lease) = row.lease {
                isolated.insert(lease, (row.node, row.uid));
            } else if let Some(workers) = jobs.get_mut(&row.job) {
                workers.insert(row.node, row.uid);
            }
        }
        let leases = head.leases();
        let on_node = |node| leases.iter().filter(move |lease| lease.node == node);
        let rows = head.nodes(now);
        let up = rows.iter().filter(|row| row.phase == NodePhase::Up);
        let given = up.map(|row| {
            let taken = row.total.cpus.as_parts() - row.available.cpus.as_parts();
            (row.uid, (taken, on_node(row.uid).map(|lease| lease.resources.cpus.as_parts()).sum()))
        });
        let given: BTreeMap<_, _> = given.collect();
        let up = given.keys().copied().collect();
        let leases = leases.iter().map(|lease| (lease.id, lease.node)).collect();
        let mut kept = kept(head);
        kept.keepers.retain(|keeper, _| jobs.contains_key(keeper));
        AtRest { up, jobs, leases, isolated, kept, given }
    }
}
