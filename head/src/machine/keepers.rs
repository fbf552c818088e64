//! Jobs that keep detached actors: one for each program, begun when it is first asked for, with the names of what it keeps.
//!
//! An actor and its resources are such a job's own business, as those of any job. Here is what reaches over jobs: which of them keeps the actors of
//! a program, who has a name, and which jobs may call whom.

use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{DetachedRow, JobId, JobKind, JobPhase, NewJob, Refused, Resources, WorkerPolicy};
use mobula_core::limits;
use mobula_core::planted::{self, Bug};

use super::Head;
use super::state::{Job, PastEnd};
use crate::Moment;
use crate::records::{Key, NameRecord};

/// Who submits the jobs that nobody has submitted.
const SUBMITTER: &str = "keeper";

impl Head {
    /// The job that keeps the detached actors of the program of `by`, which is begun if there is none. Processes of `by` may call its actors from
    /// now on. Asked again, it is the same, unless it has ended meanwhile.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::JobEnded`] for `by`; [`Refused::Full`]; [`Refused::Infeasible`] where no node takes anything new.
    pub fn open_keeper(&mut self, by: JobId, moment: Moment) -> Result<JobId, Refused> {
        self.tick(moment);
        let asker = self.live_job(by)?;
        let (executable, environment) = (asker.record.executable, asker.record.environment.clone());
        let platform = asker.record.platform.clone();
        let program = asker.record.entrypoint.split(' ').next().unwrap_or_default().to_owned();
        let is_it =
            |job: &&Job| job.record.keeper && job.record.outcome.is_none() && job.record.executable == executable;
        let keeper = match self.jobs.values().find(is_it).map(|job| job.record.id) {
            Some(known) => known,
            None => {
                let new = NewJob {
                    request: self.chance.bits(),
                    kind: JobKind::OnCluster { resources: Resources::new() },
                    entrypoint: format!("keeper of {program}"),
                    executable,
                    arguments: Vec::new(),
                    environment,
                    submitter: SUBMITTER.to_owned(),
                    workers: WorkerPolicy::EveryNode,
                    platform,
                };
                self.begin_job(new, true, moment)?
            }
        };
        self.admit_guest(by, keeper, moment.now);
        self.wind_up(moment);
        Ok(keeper)
    }

    /// The job that keeps the detached actor of this name, if there is one. Processes of `by` may call its actors from now on.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::JobEnded`] for `by`.
    pub fn find_detached(&mut self, by: JobId, name: &str, moment: Moment) -> Result<Option<JobId>, Refused> {
        self.tick(moment);
        self.live_job(by)?;
        let keeper = self.detached.get(name).map(|(keeper, _)| *keeper);
        let keeper = keeper.filter(|keeper| self.jobs.get(keeper).is_some_and(|job| job.record.outcome.is_none()));
        if let Some(keeper) = keeper {
            self.admit_guest(by, keeper, moment.now);
        }
        Ok(keeper)
    }

    /// An actor that `keeper` is about to create has this name in the whole cluster, until it is [given back](Self::release_name) under
    /// the same number, or the job is over. The same again is the same.
    ///
    /// # Errors
    /// [`Refused::NameHeld`], [`Refused::NotAKeeper`], [`Refused::TooLong`], [`Refused::Full`], [`Refused::OtherRequest`] for a number that has
    /// another name, or was given back; [`Refused::NoSuchJob`], [`Refused::JobEnded`].
    pub fn hold_name(&mut self, keeper: JobId, number: u64, name: &str, moment: Moment) -> Result<(), Refused> {
        self.tick(moment);
        let job = self.live_job(keeper)?;
        if !job.record.keeper {
            return Err(Refused::NotAKeeper { job: keeper });
        }
        if job.past_names.get(number).is_some() {
            return Err(Refused::OtherRequest);
        }
        if let Some(known) = self.names_held.get(&(keeper, number)) {
            return if known.name == name { Ok(()) } else { Err(Refused::OtherRequest) };
        }
        if let Some((holder, _)) = self.detached.get(name) {
            return Err(Refused::NameHeld { name: name.to_owned(), keeper: *holder });
        }
        let (bytes, limit) = (name.len() as u64, limits::NAME_BYTES_MAX as u64);
        if bytes > limit {
            return Err(Refused::TooLong { what: "the name of a detached actor".to_owned(), bytes, limit });
        }
        if self.names_held.len() >= limits::DETACHED_ACTORS_MAX {
            let limit = limits::DETACHED_ACTORS_MAX as u64;
            return Err(Refused::Full { what: "detached actors".to_owned(), limit });
        }
        self.enter_name(NameRecord { keeper, number, name: name.to_owned() });
        if !planted::is(Bug::NameUnwritten) {
            self.dirty(Key::Name(keeper, number));
        }
        self.changes.view = true;
        Ok(())
    }

    /// The actor has ended, or was not created. The number is used up, also if its request is still on its way. A repetition has no second effect.
    pub fn release_name(&mut self, keeper: JobId, number: u64, moment: Moment) {
        self.tick(moment);
        if let Some(job) = self.jobs.get_mut(&keeper) {
            job.past_names.insert(number, PastEnd::Released);
        }
        self.drop_name(keeper, number);
        self.note_use(keeper, moment.now);
    }

    /// The driver of a job that keeps detached actors asks whether it may end. It may, and the job is about to end well, if it has kept none for
    /// [`limits::KEEPER_IDLE`], and nobody has asked for it.
    ///
    /// # Errors
    /// [`Refused::NoSuchJob`], [`Refused::NotTheDriver`], [`Refused::NotAKeeper`].
    pub fn close_keeper(&mut self, keeper: JobId, driver: NodeUid, moment: Moment) -> Result<bool, Refused> {
        self.tick(moment);
        let job = self.jobs.get(&keeper).ok_or(Refused::NoSuchJob { job: keeper })?;
        if !job.record.keeper {
            return Err(Refused::NotAKeeper { job: keeper });
        }
        if job.record.driver != Some(driver) {
            return Err(Refused::NotTheDriver { job: keeper });
        }
        let is_idle = moment.now.saturating_sub(job.used) >= limits::KEEPER_IDLE;
        let keeps = self.names_held.range((keeper, 0)..=(keeper, u64::MAX)).next().is_some();
        if (keeps && !planted::is(Bug::KeeperCutShort)) || !is_idle {
            return Ok(job.record.outcome.is_some());
        }
        self.end_job(keeper, JobPhase::Succeeded, moment);
        self.wind_up(moment);
        Ok(true)
    }

    /// True if processes of `job` may call those of `keeper`.
    pub fn may_call(&self, job: JobId, keeper: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.record.keepers.contains(&keeper))
    }

    /// Detached actors, by name.
    pub fn detached(&self) -> Vec<DetachedRow> {
        let row = |(name, (keeper, _)): (&String, &(JobId, u64))| {
            let driver_node = self.jobs.get(keeper).and_then(|job| job.record.driver_node);
            DetachedRow::new(name.clone(), *keeper, driver_node)
        };
        self.detached.iter().map(row).collect()
    }

    fn live_job(&self, id: JobId) -> Result<&Job, Refused> {
        let job = self.jobs.get(&id).ok_or(Refused::NoSuchJob { job: id })?;
        if job.record.outcome.is_some() { Err(Refused::JobEnded { job: id }) } else { Ok(job) }
    }

    /// Processes of `by` may call those of `keeper`, and have been about to.
    fn admit_guest(&mut self, by: JobId, keeper: JobId, now: Duration) {
        self.note_use(keeper, now);
        let Some(asker) = self.jobs.get_mut(&by) else { return };
        if by != keeper && !asker.record.keepers.contains(&keeper) {
            asker.record.keepers.push(keeper);
            self.dirty(Key::Job(by));
            self.touch_job(by);
        }
    }

    fn note_use(&mut self, keeper: JobId, now: Duration) {
        if let Some(job) = self.jobs.get_mut(&keeper) {
            job.used = now;
        }
    }

    pub(super) fn enter_name(&mut self, record: NameRecord) {
        let at = (record.keeper, record.number);
        self.detached.insert(record.name.clone(), at);
        self.names_held.insert(at, record);
    }

    fn drop_name(&mut self, keeper: JobId, number: u64) {
        let Some(record) = self.names_held.remove(&(keeper, number)) else { return };
        if !planted::is(Bug::NameKept) {
            self.detached.remove(&record.name);
        }
        self.dirty(Key::Name(keeper, number));
        self.changes.view = true;
    }

    /// Nothing of a keeper runs any more: its names are free, and nobody may call it.
    pub(super) fn forget_keeper(&mut self, keeper: JobId) {
        let held = self.names_held.range((keeper, 0)..=(keeper, u64::MAX));
        let held: Vec<u64> = held.map(|((_, number), _)| *number).collect();
        held.into_iter().for_each(|number| self.drop_name(keeper, number));
        let guests = self.jobs.values().filter(|job| job.record.keepers.contains(&keeper));
        let guests: Vec<JobId> = guests.map(|job| job.record.id).collect();
        for guest in guests {
            if let Some(job) = self.jobs.get_mut(&guest) {
                job.record.keepers.retain(|known| *known != keeper);
            }
            self.dirty(Key::Job(guest));
            self.touch_job(guest);
        }
    }
}
