//! Worker processes: for each job and node one at most for all actors there, started again when it has ended, and those of isolated leases.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::cluster::{JobId, Revision, Running, RunningWorker, WorkerId, WorkerPhase, WorkerPolicy, WorkerSpec};
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, backoff, limits, text};

use super::Head;
use super::state::Slot;
use crate::Moment;
use crate::records::{Key, SlotRecord, WorkerPlace};

impl Head {
    /// A worker accepts connections. A heartbeat says the same, later.
    pub fn worker_ready(&mut self, worker: RunningWorker, moment: Moment) {
        self.tick(moment);
        if let Some(place) = self.workers.get(&worker.uid).copied() {
            self.worker_runs(place, RunningWorker { ready: true, ..worker }, moment);
        }
        self.wind_up(moment);
    }

    /// A worker has ended: `reaped` if its node has seen the end of the process. Only then another may begin in its place; else it is
    /// shown as ended, and its place stays taken until it is reaped, or missing from what its node says is running. A repetition has no second effect.
    ///
    /// A node goes on listing a worker as running until the answer to this has come.
    pub fn worker_ended(&mut self, uid: WorkerId, reason: &str, reaped: bool, moment: Moment) {
        self.tick(moment);
        if let Some(place) = self.workers.get(&uid).copied() {
            let reason = text::cut(reason, limits::PEER_TEXT_BYTES_MAX);
            if reaped || planted::is(Bug::WorkerTwice) {
                self.worker_is_over(place, reason, moment);
            } else if let Some(slot) = self.slots.get_mut(&place) {
                slot.phase = WorkerPhase::Ended { reason: reason.to_owned() };
                self.touch_job(place.job);
            }
        }
        self.wind_up(moment);
    }

    /// What a node says is running.
    pub(super) fn node_says(&mut self, uid: NodeUid, running: &Running, moment: Moment) {
        let workers: BTreeMap<WorkerId, RunningWorker> =
            running.workers.iter().map(|worker| (worker.uid, *worker)).collect();
        let Some(node) = self.nodes.get(&uid) else { return };
        let places: Vec<WorkerPlace> = node.slots.iter().copied().collect();
        let drivers: Vec<(JobId, u64)> = node.drivers.iter().map(|(job, since)| (*job, *since)).collect();
        let acted_on = |number: u64| running.seen >= Revision { term: self.term, number };
        let (mut here, mut over) = (Vec::new(), Vec::new());
        for place in places {
            let Some(slot) = self.slots.get(&place) else { continue };
            let Some(worker) = slot.record.worker else { continue };
            match workers.get(&worker) {
                Some(running) => here.push((place, *running)),
                None if acted_on(slot.assigned) => over.push(place),
                None => {}
            }
        }
        let mut ended = Vec::new();
        for (job, since) in drivers {
            let driver = self.jobs.get(&job).and_then(|job| job.record.driver);
            if acted_on(since) && driver.is_none_or(|driver| !running.drivers.contains(&driver)) {
                ended.push(job);
            }
        }
        here.into_iter().for_each(|(place, running)| self.worker_runs(place, running, moment));
        over.into_iter().for_each(|place| self.worker_is_over(place, "its node does not have it any more", moment));
        for job in ended {
            self.driver_is_over(job, Some("its node does not have its driver any more".to_owned()), moment);
        }
    }

    fn worker_runs(&mut self, place: WorkerPlace, running: RunningWorker, moment: Moment) {
        let Some(slot) = self.slots.get_mut(&place) else { return };
        let is_news = slot.pid != Some(running.pid) || (running.ready && slot.phase == WorkerPhase::Starting);
        slot.pid = Some(running.pid);
        if running.ready && slot.phase == WorkerPhase::Starting {
            slot.phase = WorkerPhase::Ready;
            slot.ready_since = Some(moment.now);
        }
        if is_news {
            self.touch_job(place.job);
        }
    }

    /// The process of a worker is known to have ended.
    fn worker_is_over(&mut self, place: WorkerPlace, reason: &str, moment: Moment) {
        if let Some(lease) = place.lease_id() {
            self.isolated_is_over(place, lease, reason);
            return self.finish_job(place.job, moment);
        }
        let jitter = self.jitter();
        let Some(slot) = self.slots.get_mut(&place) else { return };
        let Some(worker) = slot.record.worker.take() else { return };
        slot.last = Some(worker);
        slot.phase = WorkerPhase::Ended { reason: reason.to_owned() };
        slot.pid = None;
        slot.restarts += 1;
        slot.rest_until = moment.now;
        if slot.wanted {
            let (min, max) = (limits::WORKER_BACKOFF_MIN, limits::WORKER_BACKOFF_MAX);
            if slot.ready_since.is_some_and(|since| moment.now.saturating_sub(since) >= max) {
                slot.failures = 0;
            }
            slot.rest_until += backoff(min, max, slot.failures, jitter);
            slot.failures = slot.failures.saturating_add(1);
        }
        slot.ready_since = None;
        self.workers.remove(&worker);
        self.dirty(Key::Slot(place));
        self.touch_node(place.node);
        self.touch_job(place.job);
        self.unsettled.insert(place);
        self.release_where_ended(place.job, place.node);
        self.finish_job(place.job, moment);
    }

    /// Every job looks again at this node.
    pub(super) fn unsettle_node(&mut self, node: NodeUid) {
        let running = self.jobs.values().filter(|job| job.is_running());
        let everywhere = running.filter(|job| job.record.workers == WorkerPolicy::EveryNode);
        self.unsettled.extend(everywhere.map(|job| WorkerPlace::shared(job.record.id, node)));
        let Some(here) = self.nodes.get(&node) else { return };
        self.unsettled.extend(here.slots.iter().copied());
    }

    /// This job looks again at every node.
    pub(super) fn unsettle_job(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.record.workers == WorkerPolicy::EveryNode && job.is_running() {
            self.unsettled.extend(self.nodes.keys().map(|node| WorkerPlace::shared(id, *node)));
        }
        self.unsettled.extend(job.slots.iter().copied());
    }

    /// Brings the place of a job's worker to what it should be.
    pub(super) fn settle_slot(&mut self, place: WorkerPlace, moment: Moment) {
        let WorkerPlace { job, node, lease } = place;
        if !self.nodes.contains_key(&node) || !self.jobs.contains_key(&job) {
            return;
        }
        let slot = self.slots.get(&place);
        let worker = slot.and_then(|slot| slot.record.worker);
        let is_wanted = self.wants_worker(place, worker.is_some());
        match slot {
            // That of an isolated lease comes and goes with it.
            None if is_wanted && lease.is_none() => {
                self.add_slot(place);
                self.start_worker(place);
            }
            Some(slot) if worker.is_none() && is_wanted => {
                if moment.now >= slot.rest_until {
                    self.start_worker(place);
                } else {
                    let rest_until = slot.rest_until;
                    self.wake_at(rest_until);
                }
            }
            Some(_) if worker.is_none() => {
                // Its order is kept for it as long as it may come back.
                let runs = self.jobs.get(&job).is_some_and(|job| job.is_running());
                if !runs || self.nodes.get(&node).is_none_or(|node| !node.has_a_future()) {
                    self.drop_slot(place);
                }
            }
            Some(slot) if slot.wanted && !is_wanted => {
                if let Some(slot) = self.slots.get_mut(&place) {
                    slot.wanted = false;
                }
                self.touch_node(node);
                self.touch_job(job);
            }
            _ => {}
        }
    }

    /// A place for a worker, with an order of its own.
    pub(super) fn add_slot(&mut self, place: WorkerPlace) {
        let WorkerPlace { job: id, node, lease } = place;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.slots.insert(place);
        let order = job.record.next_order;
        job.record.next_order += 1;
        self.dirty(Key::Job(id));
        self.slots.insert(place, Slot::new(SlotRecord { job: id, node, order, worker: None, lease }));
        if let Some(node) = self.nodes.get_mut(&node) {
            node.slots.insert(place);
        }
    }

    fn wants_worker(&self, place: WorkerPlace, has_one: bool) -> bool {
        let (Some(job), Some(node)) = (self.jobs.get(&place.job), self.nodes.get(&place.node)) else { return false };
        if !job.is_running() || node.lost || node.record.removed || !node.starts(&job.record) {
            return false;
        }
        if node.record.drain.is_some() && (!has_one || node.drain_over) {
            return false;
        }
        if let Some(lease) = place.lease_id() {
            // Once, and never again.
            return has_one && self.leases.get(&lease).is_some_and(|lease| !lease.record.released);
        }
        match job.record.workers {
            WorkerPolicy::WhereLeased => {
                let needs_it = |lease: &_| self.leases.get(lease).is_some_and(|l| l.record.worker_place() == place);
                node.leases.iter().any(needs_it)
            }
            _ => true,
        }
    }

    pub(super) fn start_worker(&mut self, place: WorkerPlace) {
        let uid = self.new_uid();
        let assigned = self.touch_node(place.node);
        let Some(slot) = self.slots.get_mut(&place) else { return };
        slot.record.worker = Some(uid);
        slot.last = Some(uid);
        slot.assigned = assigned;
        slot.wanted = true;
        slot.phase = WorkerPhase::Starting;
        self.workers.insert(uid, place);
        self.dirty(Key::Slot(place));
        self.touch_job(place.job);
    }

    /// The place is no more, and whatever was in it is over.
    pub(super) fn drop_slot(&mut self, place: WorkerPlace) {
        let Some(slot) = self.slots.remove(&place) else { return };
        if let Some(worker) = slot.record.worker {
            self.workers.remove(&worker);
        }
        if let Some(job) = self.jobs.get_mut(&place.job) {
            job.slots.remove(&place);
        }
        if let Some(node) = self.nodes.get_mut(&place.node) {
            node.slots.remove(&place);
        }
        self.has_had(place.job, place.node);
        self.dirty(Key::Slot(place));
        self.touch_node(place.node);
        self.touch_job(place.job);
    }

    /// True if there is a worker in that place that is not known to have ended.
    pub(super) fn runs(&self, place: WorkerPlace) -> bool {
        self.slots.get(&place).is_some_and(|slot| slot.record.worker.is_some())
    }

    pub(super) fn wake_slots(&mut self, moment: Moment) {
        let rested = |slot: &Slot| slot.record.worker.is_none() && moment.now >= slot.rest_until;
        let rested = self.slots.iter().filter(|(_, slot)| rested(slot)).map(|(at, _)| *at);
        self.unsettled.extend(rested);
    }

    pub(super) fn next_of_slots(&self) -> Option<Duration> {
        let waits = |(place, slot): (&WorkerPlace, &Slot)| {
            let waits = slot.record.worker.is_none() && self.wants_worker(*place, false);
            waits.then_some(slot.rest_until)
        };
        self.slots.iter().filter_map(waits).min()
    }

    pub(super) fn worker_spec(&self, place: WorkerPlace) -> Option<WorkerSpec> {
        let slot = self.slots.get(&place).filter(|slot| slot.wanted)?;
        let record = &self.jobs.get(&place.job)?.record;
        Some(WorkerSpec {
            uid: slot.record.worker?,
            job: place.job,
            order: slot.record.order,
            executable: record.executable,
            isolated: self.isolated_spec(place),
            keeper: record.keeper,
        })
    }
}
