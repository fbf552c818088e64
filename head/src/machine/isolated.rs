//! Worker processes of one lease alone: they begin with it and end with it, and a lease with its process. What it has is free when that was reaped.

use mobula_core::cluster::{IsolatedWorker, LeaseId, Place, Refused};
use mobula_core::limits;
use mobula_core::planted::{self, Bug};

use super::Head;
use super::state::{Node, PastEnd};
use crate::records::{Key, WorkerPlace};

/// More than any job has had, and what a record may say.
pub(super) const ORDERS_MAX: u32 = u32::MAX / 2;

impl Head {
    /// Refuses an isolated lease for which there is room, if only the number of processes is against it.
    pub(super) fn check_isolated(&self, place: &Place) -> Result<(), Refused> {
        if !place.isolated {
            return Ok(());
        }
        let full = |what: &str, limit: u64| Err(Refused::Full { what: what.to_owned(), limit });
        if self.jobs.get(&place.lease.job).is_some_and(|job| job.record.next_order >= ORDERS_MAX) {
            return full("worker processes in the life of one job", u64::from(ORDERS_MAX));
        }
        let shared = Place { isolated: false, ..place.clone() };
        if self.find_room(place).is_none() && self.find_room(&shared).is_some() {
            return full("isolated workers on each node with room", limits::ISOLATED_WORKERS_MAX as u64);
        }
        Ok(())
    }

    /// What is asked for may be on this node, as far as the number of processes is concerned.
    pub(super) fn takes_process(place: &Place, node: &Node) -> bool {
        !place.isolated || node.takes_isolated()
    }

    /// The worker of an isolated lease that was just entered.
    pub(super) fn start_isolated(&mut self, place: WorkerPlace) {
        self.add_slot(place);
        self.start_worker(place);
    }

    /// A lease is given back: true if its worker has to end first.
    pub(super) fn release_isolated(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get(&id).filter(|lease| lease.record.isolated) else { return false };
        let place = lease.record.worker_place();
        if !self.runs(place) {
            return false;
        }
        if !planted::is(Bug::IsolatedKept)
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.record.released = true;
        }
        self.dirty(Key::Lease(id));
        self.changes.view = true;
        self.unsettled.insert(place);
        true
    }

    /// The process of an isolated lease was reaped.
    pub(super) fn isolated_is_over(&mut self, place: WorkerPlace, lease: LeaseId, reason: &str) {
        let was_held = self.leases.get(&lease).is_some_and(|lease| !lease.record.released);
        self.end_lease(lease);
        self.drop_slot(place);
        if was_held && let Some(job) = self.jobs.get_mut(&lease.job) {
            job.past.insert(lease.number, PastEnd::ProcessEnded(reason.to_owned()));
        }
    }

    pub(super) fn isolated_spec(&self, place: WorkerPlace) -> Option<IsolatedWorker> {
        let lease = place.lease_id()?;
        let gpus = self.leases.get(&lease).map(|lease| lease.record.gpus.clone()).unwrap_or_default();
        Some(IsolatedWorker { lease, gpus })
    }
}
