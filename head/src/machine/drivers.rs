//! Drivers: processes outside that are to be heard of, and processes on the cluster that are started once.

use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    DriverSpec, DriverStatus, JobId, JobKind, JobPhase, JobView, LabelRule, LabelSelector, Labels, LeaseId, Place,
    PlaceStrategy, Refused, Revision,
};

use super::Head;
use super::state::Job;
use crate::Moment;
use crate::records::Key;

/// The lease of a driver on the cluster. Nobody else gets it.
pub(super) const DRIVER_LEASE: u64 = u64::MAX;

impl Head {
    /// A driver sees its job, or sees it again after it or the head was away. Prolongs its lease.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::NotTheDriver`], [`Refused::JobEnded`].
    pub fn attach_driver(&mut self, id: JobId, driver: NodeUid, moment: Moment) -> Result<JobView, Refused> {
        self.driver_beat(id, driver, moment)?;
        self.job_view(id).ok_or(Refused::NoSuchJob { job: id })
    }

    /// A driver lives. One outside has to say so within each lease, and says it every heartbeat; of one on the cluster its node tells. Gives the
    /// newest revision of the job's view.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::NotTheDriver`], [`Refused::JobEnded`]: the driver is to end.
    pub fn driver_beat(&mut self, id: JobId, driver: NodeUid, moment: Moment) -> Result<Revision, Refused> {
        self.tick(moment);
        let (term, lease) = (self.term, self.config.times.lease);
        let job = self.jobs.get_mut(&id).ok_or(Refused::NoSuchJob { job: id })?;
        if job.record.driver != Some(driver) {
            return Err(Refused::NotTheDriver { job: id });
        }
        if job.record.outcome.is_some() {
            return Err(Refused::JobEnded { job: id });
        }
        job.driver_until = moment.now + lease;
        Ok(Revision { term, number: job.view })
    }

    /// A driver has ended, as it says itself, or the node that has reaped it. With it the job ends. A repetition has no second effect.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::NotTheDriver`].
    pub fn driver_ended(
        &mut self,
        id: JobId,
        driver: NodeUid,
        status: DriverStatus,
        moment: Moment,
    ) -> Result<(), Refused> {
        self.tick(moment);
        let job = self.jobs.get(&id).ok_or(Refused::NoSuchJob { job: id })?;
        if job.record.driver != Some(driver) {
            return Err(Refused::NotTheDriver { job: id });
        }
        let reason = match status {
            DriverStatus::Succeeded => None,
            DriverStatus::Failed { reason } => Some(reason),
            _ => Some("in a way that this head does not know".to_owned()),
        };
        self.driver_is_over(id, reason, moment);
        self.wind_up(moment);
        Ok(())
    }

    /// The process of a job's driver has ended: with status 0, or for a reason.
    pub(super) fn driver_is_over(&mut self, id: JobId, reason: Option<String>, moment: Moment) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(node) = job.record.driver_node
            && !std::mem::replace(&mut job.record.driver_over, true)
        {
            self.dirty(Key::Job(id));
            if let Some(node) = self.nodes.get_mut(&node) {
                node.drivers.remove(&id);
            }
            self.touch_node(node);
            self.end_lease(LeaseId { job: id, number: DRIVER_LEASE });
        }
        let outcome = reason.map_or(JobPhase::Succeeded, |reason| JobPhase::Failed { reason });
        self.end_job(id, outcome, moment);
        self.finish_job(id, moment);
    }

    /// A node for the driver, if there is one now.
    pub(super) fn start_driver(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let JobKind::OnCluster { resources } = &job.record.kind else { return };
        let resources = resources.clone();
        let lease = LeaseId { job: id, number: DRIVER_LEASE };
        // What runs on the head's host ends with it.
        let selector = LabelSelector::new().rule(Labels::HEAD, LabelRule::Missing);
        let elsewhere = PlaceStrategy::Labels { selector, soft: true };
        let place = Place {
            lease,
            resources,
            strategy: elsewhere,
            near: None,
            wait: Duration::ZERO,
            for_new_nodes: true,
            isolated: false,
        };
        let Some((node, bundle)) = self.find_room(&place) else { return };
        if self.grant(&place, node, bundle).is_none() {
            return;
        }
        let uid = self.new_uid();
        self.pending_drivers.remove(&id);
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.record.driver, job.record.driver_node) = (Some(uid), Some(node));
        }
        self.dirty(Key::Job(id));
        let since = self.touch_node(node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.drivers.insert(id, since);
        }
        self.touch_job(id);
        self.unsettle_job(id);
    }

    pub(super) fn expire_drivers(&mut self, moment: Moment) {
        let is_over = |job: &&Job| until(job).is_some_and(|until| moment.now >= until);
        let over: Vec<JobId> = self.jobs.values().filter(is_over).map(|job| job.record.id).collect();
        for id in over {
            let reason = format!("its driver was silent for {} ms", self.config.times.lease.as_millis());
            self.end_job(id, JobPhase::Failed { reason }, moment);
        }
    }

    pub(super) fn next_of_drivers(&self) -> Option<Duration> {
        self.jobs.values().filter_map(until).min()
    }

    pub(super) fn driver_spec(&self, id: JobId) -> Option<DriverSpec> {
        let record = &self.jobs.get(&id)?.record;
        if record.outcome.is_some() || record.driver_over {
            return None;
        }
        Some(DriverSpec { uid: record.driver?, job: id, executable: record.executable, keeper: record.keeper })
    }
}

/// When a driver outside is taken for dead.
fn until(job: &Job) -> Option<Duration> {
    let is_outside = matches!(job.record.kind, JobKind::Outside { .. });
    (is_outside && job.record.outcome.is_none()).then_some(job.driver_until)
}
