//! The head's process: it serves, writes before it answers, and is killed at its writes.

use futures::FutureExt;
use mobula_core::NodeUid;
use mobula_core::cluster::{DeathProof, JobId, JobPhase, Refused, UnixTime};
use mobula_head::store::{Clock, Kill, MemoryStore, MetadataStore, Transaction, take_over};
use mobula_head::{Effect, Head, HeadConfig, Moment};

use super::fact::Fact;
use super::params::MS;
use super::{Branch, Event, Peer, Reply, Request, World, seen};
use crate::params::{SECOND, Time};

/// The head's process, and its disk.
pub(super) struct HeadProcess {
    pub(super) head: Option<Head>,
    store: MemoryStore,
    /// Of this process; 0 before the first.
    pub(super) life: u64,
    pub(super) began: Time,
    pub(super) paused_until: Time,
    pub(super) kills: u64,
    /// It is to come back then.
    back_at: Time,
}

impl HeadProcess {
    pub(super) fn new() -> Self {
        let store = MemoryStore::new(Clock::new(|| std::time::Duration::ZERO));
        HeadProcess { head: None, store, life: 0, began: 0, paused_until: 0, kills: 0, back_at: 0 }
    }
}

impl HeadProcess {
    pub(super) fn job_phase(&self, job: JobId) -> Option<JobPhase> {
        self.head.as_ref()?.job(job).map(|row| row.phase)
    }

    /// It is not killed any more.
    pub(super) fn spare(&self) {
        self.store.kill_at(Kill::Before(u64::MAX));
    }
}

impl World {
    pub(super) fn head_begins(&mut self) {
        if self.head.head.is_some() || self.now < self.head.back_at {
            return;
        }
        self.head.life += 1;
        self.head.began = self.now;
        self.head.store = self.head.store.reopen();
        let moment = self.moment();
        let taken = take_over(&self.head.store, HeadConfig::default(), || moment).now_or_never();
        let head = match taken {
            Some(Ok(head)) => head,
            Some(Err(error)) => panic!("its own records: {error}"),
            None => panic!("a store in memory does not wait"),
        };
        let (term, rows, begins) = (head.term(), head.jobs(), seen::begins(&head));
        let nodes = head.nodes(self.head_time()).into_iter();
        let down: Vec<NodeUid> = nodes.filter(|node| node.death.is_some()).map(|node| node.uid).collect();
        self.head.head = Some(head);
        self.jobs_are_made(&rows);
        if self.params.kill_one_in > 0 && self.now < self.params.calm_at {
            let write = 1 + self.random.below(2 * self.params.kill_one_in);
            let kill = if self.random.one_in(2) { Kill::Before(write) } else { Kill::After(write) };
            self.head.store.kill_at(kill);
        }
        self.line(|| format!("term {term}"));
        // What the one before has written when it was killed, and told nobody.
        for uid in down.into_iter().filter(|uid| !self.down.contains(uid)).collect::<Vec<_>>() {
            self.node_is_down(uid, false, None);
        }
        self.ended.clone().into_iter().for_each(|uid| self.drivers_may_end(uid));
        self.fact(begins);
        self.settle();
        self.head_wakes();
    }

    fn node_is_down(&mut self, uid: NodeUid, silence: bool, undisturbed: Option<Time>) {
        self.down.insert(uid);
        self.fact(Fact::Down { uid, silence, undisturbed });
        self.drivers_may_end(uid);
    }

    /// Killed; back at `until`.
    pub(super) fn head_ends(&mut self, until: Time) {
        if self.head.head.take().is_some() {
            self.head.kills += 1;
            // Nothing reaches it any more.
            self.head.life += 1;
            self.fact(Fact::HeadEnds);
        }
        self.head.back_at = self.head.back_at.max(until);
        let back_at = self.head.back_at;
        self.at(back_at, Event::HeadBegins);
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.head_time(), unix: UnixTime(self.now / SECOND), chance: self.random.bits() }
    }

    /// Asks the head, and writes what has to be written. None if it was killed meanwhile.
    fn head_does<T>(&mut self, ask: impl FnOnce(&mut Head, Moment) -> T) -> Option<T> {
        let moment = self.moment();
        let answer = ask(self.head.head.as_mut()?, moment);
        self.settle().then_some(answer)
    }

    fn settle(&mut self) -> bool {
        let Some(head) = &mut self.head.head else { return false };
        let (term, effects) = (head.term(), head.take_effects());
        let Ok(effects) = effects else { panic!("plain data") };
        for effect in effects {
            match effect {
                Effect::Persist(writes) => {
                    let written = self.head.store.commit(Transaction::of_head(term, writes)).now_or_never();
                    if !matches!(written, Some(Ok(_))) {
                        let away = self.random.between(50, 9_000) * MS;
                        self.head_ends((self.now + away).min(self.params.calm_at.max(self.now)));
                        return false;
                    }
                }
                Effect::NodeDown { uid, proof } => {
                    let host = self.hosts.iter().find(|host| host.uid() == Some(uid));
                    let undisturbed = host.map(|host| self.now - host.last_answered);
                    self.node_is_down(uid, proof == DeathProof::Silence, undisturbed);
                }
                Effect::NodeChanged(uid) => {
                    let host = self.hosts.iter().position(|host| host.uid() == Some(uid));
                    if let Some(host) = host {
                        let life = self.hosts[host].life;
                        self.answer(host as Peer, life, self.now, Reply::LookAgain);
                    }
                }
                Effect::Decided(lease) => {
                    let client = self.clients.iter().position(|client| client.job == Some(lease.job));
                    if let Some(client) = client {
                        self.answer(self.params.hosts + client as Peer, 0, self.now, Reply::LookAgain);
                    }
                }
                _ => {}
            }
        }
        true
    }

    pub(super) fn head_wakes(&mut self) {
        self.head_does(|head, moment| head.tick(moment));
        let (life, began, rate) = (self.head.life, self.head.began, u128::from(self.params.rates[0]));
        let Some(next) = self.head.head.as_ref().and_then(Head::next_wakeup) else {
            // Whatever comes first sets it going again.
            self.after(SECOND, Event::HeadWakes(life));
            return;
        };
        let at = began + (next.as_micros() * 1_000_000 / rate) as Time + 2;
        self.at(at.clamp(self.now + 1, self.now + SECOND), Event::HeadWakes(life));
    }

    /// Serves a request. An answer leaves when what it depends on is on disk.
    pub(super) fn serve(&mut self, from: Peer, life: u64, sent: Time, request: Request) {
        self.line(|| format!("  peer {from} asks {request:?}"));
        let said = match &request {
            Request::Register(registration) => Some((registration.uid, registration.number, Branch::OldRegistration)),
            Request::Beat(uid, beat) => Some((*uid, beat.number, Branch::OldBeat)),
            _ => None,
        };
        let accepted = said.map(|(uid, number, branch)| {
            let newest = self.said.entry(uid).or_default();
            let (is_old, is_news) = (number < *newest, number > *newest);
            *newest = number.max(*newest);
            if is_old {
                self.reach(branch);
            }
            Fact::Accepted { uid, is_news }
        });
        if let Request::CloseKeeper(job, driver) = request {
            // A head that is killed over it may have written it.
            self.keeper_may_end(job, driver);
        }
        let reply = self.head_does(|head, moment| match request {
            Request::Register(new) => Reply::Registered(Box::new(head.register_node(*new, moment))),
            Request::Beat(uid, beat) => Reply::Beat(head.beat(uid, &beat, moment)),
            Request::Assignment(uid) => Reply::Assignment(head.assignment(uid).map(Box::new)),
            Request::WorkerEnded { uid, reaped } => {
                head.worker_ended(uid, "it has ended", reaped, moment);
                if reaped { Reply::Ended(uid) } else { Reply::LookAgain }
            }
            Request::DriverEnded { job, uid, status } => {
                // A job that is forgotten has ended as well.
                let _ = head.driver_ended(job, uid, status, moment);
                Reply::Ended(uid)
            }
            Request::Leave(uid) => {
                head.leave(uid, moment);
                Reply::Left
            }
            Request::Create(new) => {
                let number = new.request;
                Reply::Created(number, Box::new(head.create_job(*new, moment)))
            }
            Request::DriverBeat(job, uid) => Reply::Driver(head.driver_beat(job, uid, moment)),
            Request::DriverDone(job, uid) => {
                let done = head.driver_ended(job, uid, mobula_core::cluster::DriverStatus::Succeeded, moment);
                match done {
                    Ok(()) | Err(Refused::NoSuchJob { .. }) => Reply::Stopped(job),
                    Err(_) => Reply::LookAgain,
                }
            }
            Request::Place(place) => {
                let (lease, parts) = (place.lease, place.resources.cpus.as_parts());
                Reply::Place(lease, parts, Box::new(head.place(*place, moment)))
            }
            Request::Release(lease) => match head.release(lease, moment) {
                Ok(()) | Err(Refused::NoSuchJob { .. }) => Reply::Released(lease),
                Err(_) => Reply::LookAgain,
            },
            Request::Stop(job) => {
                let _ = head.stop_job(job, moment);
                Reply::Stopped(job)
            }
            Request::OpenKeeper(by, name) => Reply::Opened { by, name, answer: head.open_keeper(by, moment) },
            Request::FindDetached(by, name) => Reply::Found(by, head.find_detached(by, name, moment)),
            Request::HoldName { keeper, process, number, name } => {
                Reply::Held { keeper, process, number, name, answer: head.hold_name(keeper, number, name, moment) }
            }
            Request::ReleaseName { keeper, process, number } => {
                head.release_name(keeper, number, moment);
                Reply::NameFree { keeper, process, number }
            }
            Request::CloseKeeper(job, driver) => Reply::Closed(driver, head.close_keeper(job, driver, moment)),
        });
        let Some(reply) = reply else { return };
        self.reach_by_reply(&reply);
        self.keeper_is_answered(&reply);
        if let Reply::Created(request, answer) = &reply
            && let Ok(row) = &**answer
        {
            self.job_is_made(from - self.params.hosts, *request, row.id);
        }
        if matches!(&reply, Reply::Beat(Ok(_))) || matches!(&reply, Reply::Registered(answer) if answer.is_ok()) {
            accepted.into_iter().for_each(|fact| self.fact(fact));
        }
        self.line(|| format!("  and hears {reply:?}"));
        self.answer(from, life, sent, reply);
    }

    /// An operator, who is at the head's host, drains a node or removes it.
    pub(super) fn operator(&mut self, host: u32, drain: Option<std::time::Duration>) {
        let Some(uid) = self.hosts[host as usize].believes().filter(|_| self.head.paused_until <= self.now) else {
            return;
        };
        match drain {
            Some(deadline) => {
                let done = self.head_does(|head, moment| head.drain(uid, deadline, moment));
                // Told when it is time, by the fastest of clocks; a head that was killed may have written it.
                if done.is_none_or(|done| done.is_ok()) {
                    let spent = (deadline.as_micros() as Time * 9 / 10).saturating_sub(200 * MS);
                    let may_end = &mut self.hosts[host as usize].may_end;
                    let before = may_end.filter(|(node, _)| *node == uid).map_or(Time::MAX, |(_, at)| at);
                    let at = before.min(self.now + spent);
                    *may_end = Some((uid, at));
                    self.at(at, Event::DrainEnds(host));
                }
            }
            None => {
                self.fact(Fact::NodeMayEnd { uid });
                let jobs = self.jobs_driven_on(uid);
                jobs.into_iter().for_each(|job| self.fact(Fact::JobMayEnd { job }));
                self.head_does(|head, moment| head.remove(uid, moment));
            }
        }
    }
}
