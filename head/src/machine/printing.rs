//! Whose output a node may tell: that of the drivers and workers which it has, or has had.

use mobula_core::NodeUid;
use mobula_core::cluster::JobId;

use super::Head;
use super::state::Job;
use crate::records::{Key, WorkerPlace};

/// A process of a job that prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Printer {
    /// Its driver, on the cluster.
    Driver,
    /// The worker with this place among the workers of the job.
    Worker(u32),
}

impl Printer {
    /// What its lines are marked with, on the node of that name.
    pub fn source(self, node: &str) -> String {
        match self {
            Printer::Driver => "driver".to_owned(),
            Printer::Worker(order) => format!("worker-{order} on {node}"),
        }
    }

    /// Who marks its lines with that, on the node of that name.
    pub fn of_source(source: &str, node: &str) -> Option<Self> {
        let order = || source.strip_prefix("worker-")?.split(' ').next()?.parse().ok();
        let printer = order().map_or(Printer::Driver, Printer::Worker);
        // Only as it is written.
        (printer.source(node) == source).then_some(printer)
    }
}

impl Head {
    /// True if a node may say that a process has printed something: its driver, or a worker that the job has given a place to there, marked with the node's own
    /// name. Of what has ended as well, as long as the job is known: what was printed while the head was away comes late. A node whose life is over says nothing
    /// any more.
    ///
    /// Which of its own workers of a job it was is the node's word.
    pub fn may_print(&self, node: NodeUid, id: JobId, source: &str) -> bool {
        let (Some(life), Some(job)) = (self.nodes.get(&node), self.jobs.get(&id)) else { return false };
        match Printer::of_source(source, &life.record.name) {
            Some(Printer::Driver) => job.record.driver_node == Some(node),
            Some(Printer::Worker(order)) => {
                order < job.record.next_order && (has_slot(job, node) || job.record.printed_on.contains(&node))
            }
            None => false,
        }
    }

    /// The last place of a job on a node is no more; what its workers have printed may still be on its way.
    pub(super) fn has_had(&mut self, id: JobId, node: NodeUid) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if has_slot(job, node) || !self.nodes.contains_key(&node) || !job.record.printed_on.insert(node) {
            return;
        }
        let had = &mut job.record.printed_on;
        if had.len() > self.nodes.len() {
            had.retain(|node| self.nodes.contains_key(node));
        }
        self.dirty(Key::Job(id));
    }
}

fn has_slot(job: &Job, node: NodeUid) -> bool {
    job.slots.range(WorkerPlace::shared(job.record.id, node)..).next().is_some_and(|place| place.node == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for printer in [Printer::Driver, Printer::Worker(0), Printer::Worker(4_000_000_000)] {
            assert_eq!(Printer::of_source(&printer.source("node 2"), "node 2"), Some(printer));
        }
        for source in ["", "Driver", "driver ", "worker-1", "worker-1 on other", "worker-01 on node", "worker- on node"]
        {
            assert_eq!(Printer::of_source(source, "node"), None, "{source:?}");
        }
    }
}
