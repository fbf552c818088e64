//! What can be seen of the head's state. Ask when the effects of what came before are done, or you see what may not survive.

use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    GroupId, GroupPhase, JobId, JobKind, JobRow, JobView, JobWorker, LeaseRow, NodePhase, NodeRow, PlacementGroupRow,
    Resources, Revision, Summary, WorkerRow,
};
use mobula_core::limits;
use mobula_core::text::cut;

use super::Head;
use super::state::{Group, Job, Node, Slot};

impl Head {
    /// Nodes by the order in which they came, then the latest of those that are down. `now` is the moment's.
    pub fn nodes(&self, now: Duration) -> Vec<NodeRow> {
        let mut nodes: Vec<&Node> = self.nodes.values().collect();
        nodes.sort_by_key(|node| node.record.joined);
        let live = nodes.into_iter().map(|node| self.node_row(node, now));
        let down = self.gone.latest().take(limits::DOWN_NODES_SHOWN).map(|gone| {
            let mut row = NodeRow::new(gone.uid, gone.name.clone(), NodePhase::Down);
            (row.death, row.since) = (Some(gone.proof), gone.at);
            row
        });
        live.chain(down).collect()
    }

    /// One node that is not down.
    pub fn node(&self, uid: NodeUid, now: Duration) -> Option<NodeRow> {
        self.nodes.get(&uid).map(|node| self.node_row(node, now))
    }

    /// The node that is not down and has this name.
    pub fn node_named(&self, name: &str) -> Option<NodeUid> {
        self.names.get(name).copied()
    }

    /// Worker processes, by job and order.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let mut rows: Vec<WorkerRow> = self.slots.values().filter_map(worker_row).collect();
        rows.sort_by_key(|row| (row.job, row.order));
        rows
    }

    /// Jobs, the first one first; of those that are over the latest [`limits::JOBS_KEPT`].
    pub fn jobs(&self) -> Vec<JobRow> {
        self.jobs.values().map(|job| self.job_row(job)).collect()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<JobRow> {
        self.jobs.get(&id).map(|job| self.job_row(job))
    }

    /// What a job's driver has to know.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let slots = job.slots.iter().filter_map(|place| self.slots.get(place));
        let workers = slots.filter_map(|slot| {
            let node = self.nodes.get(&slot.record.node)?;
            let (node_name, address) = (node.record.name.clone(), node.record.address.clone());
            let cpus = u32::try_from(node.record.resources.cpus.whole()).unwrap_or(u32::MAX).max(1);
            let (resources, labels) = (node.record.resources.clone(), node.record.labels.clone());
            Some(JobWorker { worker: worker_row(slot)?, node_name, address, cpus, resources, labels })
        });
        let mut workers: Vec<JobWorker> = workers.collect();
        workers.sort_by_key(|worker| worker.worker.order);
        let revision = Revision { term: self.term, number: job.view };
        let mut view = JobView::new(revision, id, job.phase(), job.record.driver, workers);
        view.keepers.clone_from(&job.record.keepers);
        Some(view)
    }

    /// Placement groups, by job. Those that were given back are not among them, also where what they had is not free yet.
    pub fn groups(&self) -> Vec<PlacementGroupRow> {
        self.groups.values().filter_map(group_row).collect()
    }

    /// One placement group that was not given back.
    pub fn group(&self, id: GroupId) -> Option<PlacementGroupRow> {
        self.groups.get(&id).and_then(group_row)
    }

    /// Leases, by job. Those that were given back are not among them, also where what they had is not free yet.
    pub fn leases(&self) -> Vec<LeaseRow> {
        let rows = self.leases.values().filter(|lease| !lease.record.released).map(|lease| {
            let record = &lease.record;
            LeaseRow::new(record.id, record.node, record.resources.clone(), record.gpus.clone(), record.bundle)
        });
        rows.collect()
    }

    /// What all nodes have that are not down.
    pub fn total(&self) -> Resources {
        let mut total = Resources::new();
        self.nodes.values().for_each(|node| total.put(&node.record.resources));
        total
    }

    /// What is free on nodes that take something new.
    pub fn available(&self) -> Resources {
        let mut free = Resources::new();
        self.nodes.values().filter(|node| node.takes_new()).for_each(|node| free.put(&node.room.free));
        free
    }

    /// The cluster in a few numbers.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::new();
        summary.nodes = self.nodes.len() as u32;
        summary.nodes_up = self.nodes.values().filter(|node| node.phase() == NodePhase::Up).count() as u32;
        summary.jobs = (self.jobs.len() - self.over.len()) as u32;
        summary.workers = self.workers.len() as u32;
        summary.leases = self.leases.len() as u32;
        summary.waiting = self.waiting.len() as u32;
        summary.groups = self.groups.values().filter(|group| !group.record.removed).count() as u32;
        summary.total = self.total();
        summary.available = self.available();
        summary
    }

    fn node_row(&self, node: &Node, now: Duration) -> NodeRow {
        let record = &node.record;
        let mut row = NodeRow::new(record.uid, record.name.clone(), node.phase());
        row.address.clone_from(&record.address);
        row.total = record.resources.clone();
        row.available = node.room.free.clone();
        row.labels = record.labels.clone();
        row.cores = record.cores;
        row.version.clone_from(&record.version);
        row.architecture.clone_from(&record.architecture);
        row.used = node.used;
        row.workers = node.slots.iter().filter(|place| self.runs(**place)).count() as u32;
        row.leases = node.leases.len() as u32;
        row.since = record.since;
        row.silent = now.saturating_sub(node.last);
        row
    }

    fn job_row(&self, job: &Job) -> JobRow {
        let record = &job.record;
        let mut row = JobRow::new(record.id, job.phase(), record.executable);
        cut(&record.entrypoint, limits::JOB_ROW_TEXT_BYTES_MAX).clone_into(&mut row.entrypoint);
        row.submitter.clone_from(&record.submitter);
        row.driver = record.driver;
        row.driver_node = record.driver_node.filter(|_| matches!(record.kind, JobKind::OnCluster { .. }));
        row.workers = job.slots.iter().filter(|place| self.runs(**place)).count() as u32;
        row.leases = job.leases.len() as u32;
        (row.created, row.ended) = (record.created, record.ended);
        row
    }
}

fn worker_row(slot: &Slot) -> Option<WorkerRow> {
    let record = &slot.record;
    let mut row = WorkerRow::new(slot.last?, record.job, record.node, record.order);
    row.phase = slot.phase.clone();
    row.pid = slot.pid;
    row.restarts = slot.restarts;
    row.lease = record.place().lease_id();
    Some(row)
}

fn group_row(group: &Group) -> Option<PlacementGroupRow> {
    let record = Some(&group.record).filter(|record| !record.removed)?;
    let placed = record.places.iter().flatten().count();
    let phase = match placed {
        0 => GroupPhase::Pending,
        _ if placed == record.places.len() => GroupPhase::Ready,
        _ => GroupPhase::Partial,
    };
    let nodes = record.places.iter().map(|place| place.as_ref().map(|place| place.node));
    let bundles = record.bundles.iter().cloned().zip(nodes).collect();
    Some(PlacementGroupRow::new(record.id, phase, record.strategy, bundles))
}
