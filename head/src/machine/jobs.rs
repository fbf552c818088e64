//! Jobs begin and end.

use std::collections::BTreeSet;

use mobula_core::cluster::{Executable, JobId, JobKind, JobPhase, JobRow, NewJob, Platform, Refused};
use mobula_core::limits;
use mobula_core::planted::{self, Bug};
use mobula_core::text::cut;

use super::Head;
use super::state::Job;
use crate::Moment;
use crate::records::{JobRecord, Key};

impl Head {
    /// Begins a job, or gives the one that was begun by the same request of the same submitter.
    ///
    /// # Errors
    /// [`Refused::Infeasible`] if no node can ever run its driver, [`Refused::WrongPlatform`] if none can start its program, [`Refused::Full`], [`Refused::TooLong`], [`Refused::Bad`],
    /// [`Refused::UidInUse`] for the driver's uid, and [`Refused::OtherRequest`] if the number was used for another job.
    pub fn create_job(&mut self, new: NewJob, moment: Moment) -> Result<JobRow, Refused> {
        self.tick(moment);
        let request = (new.submitter.clone(), new.request);
        if let Some(known) = self.requests.get(&request).filter(|_| !planted::is(Bug::JobTwice)) {
            let row = self.jobs.get(known).map(|job| (job.record.executable, &job.record.entrypoint));
            let is_same = row.is_some_and(|(program, text)| program == new.executable && *text == new.entrypoint);
            return self.job(*known).filter(|_| is_same).ok_or(Refused::OtherRequest);
        }
        let id = self.begin_job(new, false, moment)?;
        self.wind_up(moment);
        self.job(id).ok_or(Refused::NoSuchJob { job: id })
    }

    /// A job that is new.
    pub(super) fn begin_job(&mut self, new: NewJob, keeper: bool, moment: Moment) -> Result<JobId, Refused> {
        self.check_job(&new)?;
        let request = (new.submitter.clone(), new.request);
        let id = JobId(self.meta.next_job.max(1));
        let driver = match &new.kind {
            JobKind::Outside { driver } => Some(*driver),
            _ => None,
        };
        let record = JobRecord {
            id,
            request: new.request,
            kind: new.kind,
            entrypoint: new.entrypoint,
            executable: new.executable,
            arguments: new.arguments,
            environment: new.environment,
            submitter: new.submitter,
            workers: new.workers,
            driver,
            driver_node: None,
            driver_over: false,
            outcome: None,
            over: false,
            next_order: 0,
            created: moment.unix,
            ended: None,
            keeper,
            keepers: Vec::new(),
            printed_on: BTreeSet::new(),
            platform: new.platform,
        };
        self.meta.next_job = id.0 + 1;
        self.dirty(Key::Meta);
        self.dirty(Key::Job(id));
        let driver_until = moment.now + self.config.times.lease;
        self.jobs.insert(id, Job::new(record, driver_until, moment.now));
        self.requests.insert(request, id);
        self.touch_job(id);
        if driver.is_some() {
            self.wake_at(driver_until);
            self.unsettle_job(id);
        } else {
            self.pending_drivers.insert(id);
            self.freed = true;
        }
        Ok(id)
    }

    /// Ends a job, with all that belongs to it. One that is over stays as it is.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`].
    pub fn stop_job(&mut self, id: JobId, moment: Moment) -> Result<JobRow, Refused> {
        self.tick(moment);
        if !self.jobs.contains_key(&id) {
            return Err(Refused::NoSuchJob { job: id });
        }
        self.end_job(id, JobPhase::Stopped, moment);
        self.wind_up(moment);
        self.job(id).ok_or(Refused::NoSuchJob { job: id })
    }

    /// The job is to end like this, unless it already is to end in another way.
    pub(super) fn end_job(&mut self, id: JobId, outcome: JobPhase, moment: Moment) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.record.outcome.is_some() {
            return;
        }
        // It may be a driver's own words.
        job.record.outcome = Some(match outcome {
            JobPhase::Failed { reason } => {
                JobPhase::Failed { reason: cut(&reason, limits::JOB_ROW_TEXT_BYTES_MAX).to_owned() }
            }
            outcome => outcome,
        });
        self.dirty(Key::Job(id));
        self.touch_job(id);
        self.pending_drivers.remove(&id);
        if planted::is(Bug::NameHeldTwice) {
            self.forget_keeper(id);
        }
        self.unsettle_job(id);
        if let Some(node) = self.jobs.get(&id).and_then(|job| job.record.driver_node) {
            self.touch_node(node);
        }
        let waiting: Vec<_> = self.waiting_by_lease.keys().filter(|lease| lease.job == id).copied().collect();
        for lease in waiting {
            self.stop_waiting(lease);
            self.changes.decided.insert(lease);
        }
        let leases = self.jobs.get(&id).map(|job| job.leases.clone()).unwrap_or_default();
        for lease in leases {
            // Where a worker still runs, what it uses is free when it has ended.
            if let Some(node) = self.leases.get(&lease).map(|lease| lease.record.node) {
                self.release_where_ended(id, node);
            }
        }
        self.finish_job(id, moment);
    }

    /// A job that is to end and of which nothing runs any more is over.
    pub(super) fn finish_job(&mut self, id: JobId, moment: Moment) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.record.outcome.is_none() || job.record.over {
            return;
        }
        let runs = job.slots.iter().any(|place| self.runs(*place));
        let drives = job.record.driver_node.is_some() && !job.record.driver_over;
        if runs || drives {
            return;
        }
        let (slots, leases, groups) = (job.slots.clone(), job.leases.clone(), job.groups.clone());
        if job.record.keeper {
            self.forget_keeper(id);
        }
        slots.into_iter().for_each(|place| self.drop_slot(place));
        leases.into_iter().for_each(|lease| self.end_lease(lease));
        groups.into_iter().for_each(|group| self.drop_group(group));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.record.over = true;
            job.record.ended = Some(moment.unix);
        }
        self.dirty(Key::Job(id));
        self.touch_job(id);
        self.over.push_back(id);
        if self.over.len() > limits::JOBS_KEPT
            && let Some(oldest) = self.over.pop_front()
            && let Some(job) = self.jobs.remove(&oldest)
        {
            self.requests.remove(&(job.record.submitter, job.record.request));
            self.dirty(Key::Job(oldest));
        }
    }

    fn check_job(&self, new: &NewJob) -> Result<(), Refused> {
        if self.jobs.len() - self.over.len() >= limits::JOBS_MAX {
            return Err(Refused::Full { what: "jobs".to_owned(), limit: limits::JOBS_MAX as u64 });
        }
        let text: usize = new.arguments.iter().map(|text| text.len() + 1).sum::<usize>()
            + new.environment.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>()
            + new.entrypoint.len();
        let texts = [
            ("the arguments and the environment of a job together", text, limits::JOB_TEXT_BYTES_MAX),
            ("the name of a submitter", new.submitter.len(), limits::NAME_BYTES_MAX),
        ];
        for (what, bytes, limit) in texts {
            if bytes > limit {
                return Err(Refused::TooLong { what: what.to_owned(), bytes: bytes as u64, limit: limit as u64 });
            }
        }
        self.check_platform(new.platform.as_ref())?;
        match &new.kind {
            JobKind::Outside { driver } if self.uid_is_known(*driver) => Err(Refused::UidInUse { uid: *driver }),
            JobKind::OnCluster { resources } => {
                resources.check()?;
                match self.infeasible(resources, &Default::default(), new.platform.as_ref()) {
                    // A cluster without nodes will have some.
                    Some(why) if why.node_count > 0 => Err(Refused::Infeasible(Box::new(why))),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Jobs that are over and still known, the oldest first.
    pub fn jobs_over(&self) -> impl Iterator<Item = JobId> {
        self.over.iter().copied()
    }

    /// Some node can start it. A cluster without nodes will have some.
    fn check_platform(&self, program: Option<&Platform>) -> Result<(), Refused> {
        let Some(program) = program else { return Ok(()) };
        let there = || self.nodes.values().filter(|node| node.has_a_future()).map(|node| &node.record.architecture);
        if there().next().is_none() || there().any(|architecture| program.runs_on(architecture)) {
            return Ok(());
        }
        let kinds: BTreeSet<&String> = there().collect();
        let nodes = kinds.into_iter().take(limits::SHORTFALLS_MAX).cloned().collect();
        Err(Refused::WrongPlatform { program: program.clone(), nodes })
    }

    /// The programs of jobs that are not over: nodes ask for them at any time.
    pub fn executables(&self) -> impl Iterator<Item = Executable> {
        self.jobs.values().filter(|job| !job.record.over).map(|job| job.record.executable)
    }
}
