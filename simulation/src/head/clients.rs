//! Clients: drivers outside, and users who submit jobs. They ask again until they have an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::cluster::{
    Executable, ExecutableHash, JobId, JobKind, JobRow, LeaseId, NewJob, Place, PlaceStrategy, Placing, Refused,
    WorkerPolicy,
};
use mobula_core::{NodeUid, limits};

use super::fact::Fact;
use super::keepers::NAMES;
use super::params::MS;
use super::{Branch, CALM, Event, Reply, Request, World, parts};
use crate::params::{SECOND, Time};
use crate::random::Random;

/// A client.
pub(super) struct Client {
    number: u32,
    uid: NodeUid,
    /// Its job's driver runs on the cluster.
    submits: bool,
    request: u64,
    next_number: u64,
    pub(super) job: Option<JobId>,
    /// What the head has made of its request, and since when: it may never hear of it.
    pub(super) made: Option<(JobId, Time)>,
    asked_at: Time,
    beat_at: Time,
    answered_at: Time,
    /// It does nothing more, as if it were killed.
    dead_until: Time,
    ends_at: Time,
    ending: bool,
    wants: BTreeMap<LeaseId, (Place, Time)>,
    has: BTreeMap<LeaseId, NodeUid>,
    gives_back: BTreeMap<LeaseId, Time>,
    /// It has asked for more isolated workers than a node may have.
    has_crowded: bool,
}

impl Client {
    pub(super) fn new(number: u32, random: &mut Random) -> Self {
        let mut client = Client {
            number,
            uid: NodeUid(0),
            submits: false,
            request: 0,
            next_number: 1,
            job: None,
            made: None,
            asked_at: 0,
            beat_at: 0,
            answered_at: 0,
            dead_until: 0,
            ends_at: 0,
            ending: false,
            wants: BTreeMap::new(),
            has: BTreeMap::new(),
            gives_back: BTreeMap::new(),
            has_crowded: false,
        };
        client.begins_anew(0, random);
        client
    }

    /// Another driver, for another job.
    fn begins_anew(&mut self, now: Time, random: &mut Random) {
        self.request += 1;
        self.uid = NodeUid(1_000_000 * u64::from(self.number + 1) + self.request);
        self.submits = random.one_in(3);
        (self.job, self.made) = (None, None);
        (self.asked_at, self.answered_at, self.ending) = (0, now, false);
        self.ends_at = now + random.between(2_000, 40_000) * MS;
        self.wants.clear();
        self.has.clear();
        self.gives_back.clear();
    }

    /// Requests that have no answer yet. What waits for room is answered in its time.
    pub(super) fn unanswered(&self) -> u32 {
        u32::from(self.job.is_none() && self.asked_at > 0) + self.gives_back.len() as u32
    }
}

impl World {
    pub(super) fn client_wakes(&mut self, number: u32) {
        let next = self.random.between(50, 150) * MS;
        self.after(next, Event::ClientWakes(number));
        let (now, calm, peer) = (self.now, self.now >= self.params.calm_at, self.params.hosts + number);
        let client = &mut self.clients[number as usize];
        if client.dead_until > now {
            return;
        }
        if client.dead_until > 0 {
            client.dead_until = 0;
            client.begins_anew(now, &mut self.random);
        }
        let Some(job) = client.job else {
            let unheard = client.made.filter(|(_, since)| !client.submits && now - since > 7_500 * MS);
            if let Some((job, _)) = unheard {
                // Its driver has never been heard.
                self.reach(Branch::Unheard);
                self.fact(Fact::JobMayEnd { job });
            }
            let client = &mut self.clients[number as usize];
            // Who has not begun when it is quiet stays quiet.
            if now >= client.asked_at + 600 * MS && (!calm || client.asked_at > 0) {
                client.asked_at = now;
                let new = client.new_job();
                self.ask(peer, Request::Create(Box::new(new)));
            }
            return;
        };
        if !client.submits && now - client.answered_at > 7_500 * MS {
            // For all that the head knows it is dead.
            self.fact(Fact::JobMayEnd { job });
        }
        let client = &mut self.clients[number as usize];
        if now >= client.ends_at && !client.ending && !calm {
            client.ending = true;
            let dies = self.random.one_in(3);
            self.fact(Fact::JobMayEnd { job });
            let client = &mut self.clients[number as usize];
            if dies {
                client.dead_until = now + 3 * SECOND;
                return;
            }
        }
        self.client_talks(number, job);
    }

    fn client_talks(&mut self, number: u32, job: JobId) {
        let (now, calm, peer) = (self.now, self.now >= self.params.calm_at, self.params.hosts + number);
        let keepers = self.params.keepers;
        let crowds = number == 0 && !calm && self.params.crowd_at.is_some_and(|at| now >= at);
        let crowded = self.hosts[0].believes().filter(|_| crowds);
        let client = &mut self.clients[number as usize];
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        if now >= client.beat_at + 500 * MS {
            client.beat_at = now;
            if client.ending {
                let done = !client.submits && client.uid.0.is_multiple_of(2);
                requests.push(if done { Request::DriverDone(job, client.uid) } else { Request::Stop(job) });
            } else if !client.submits {
                requests.push(Request::DriverBeat(job, client.uid));
            }
        }
        if !client.submits && !client.ending && !calm && self.random.one_in(6) && client.wants.len() < 6 {
            let lease = LeaseId { job, number: client.next_number };
            client.next_number += 1;
            let strategy = if self.random.one_in(3) { PlaceStrategy::Spread } else { PlaceStrategy::Default };
            let place = Place {
                lease,
                resources: parts(self.random.pick(&[0, 2_500, 10_000, 25_000, 40_000])),
                strategy,
                near: None,
                wait: Duration::from_secs(self.random.below(8)),
                for_new_nodes: self.random.one_in(2),
                isolated: self.random.one_in(3),
            };
            asked.push((lease, place.resources.cpus.as_parts()));
            client.wants.insert(lease, (place, 0));
        }
        if let Some(node) = crowded.filter(|_| client.may_crowd()) {
            client.has_crowded = true;
            for _ in 0..=limits::ISOLATED_WORKERS_MAX {
                let lease = LeaseId { job, number: client.next_number };
                client.next_number += 1;
                asked.push((lease, 0));
                client.wants.insert(lease, (isolated_on(node, lease), 0));
            }
        }
        if keepers && !client.ending && !calm && client.wants_actors() && self.random.one_in(5) {
            let name = self.random.pick(&NAMES);
            let finds = self.random.one_in(4);
            requests.push(if finds { Request::FindDetached(job, name) } else { Request::OpenKeeper(job, name) });
        }
        for (place, asked_at) in client.wants.values_mut().filter(|(_, asked_at)| now >= asked_at + 800 * MS) {
            *asked_at = now;
            requests.push(Request::Place(Box::new(place.clone())));
        }
        for (lease, asked_at) in client.gives_back.iter_mut().filter(|(_, asked_at)| now >= **asked_at + 500 * MS) {
            *asked_at = now;
            requests.push(Request::Release(*lease));
        }
        // What is asked at the very end has no answer yet.
        let late = now + 2 * SECOND >= self.params.calm_at + CALM;
        let returns = !client.has.is_empty() && self.random.one_in(8) && !late;
        if let Some((lease, _)) = returns.then(|| client.has.pop_first()).flatten() {
            client.gives_back.insert(lease, 0);
            self.fact(Fact::LeaseReturned { lease, done: false });
        }
        asked.into_iter().for_each(|(lease, parts)| self.fact(Fact::LeaseAsked { lease, parts }));
        requests.into_iter().for_each(|request| self.ask(peer, request));
    }

    /// The head has a job for a client that may not know it.
    pub(super) fn job_is_made(&mut self, number: u32, request: u64, job: JobId) {
        let client = &mut self.clients[number as usize];
        if client.job.is_none() && client.request == request {
            client.made.get_or_insert((job, self.now));
        }
    }

    /// A head has begun, with jobs among its records of which their clients may never have heard.
    pub(super) fn jobs_are_made(&mut self, jobs: &[JobRow]) {
        for number in 0..self.params.clients {
            let (own, request) = (format!("client-{number}"), self.clients[number as usize].request);
            let last = jobs.iter().filter(|job| *job.submitter == own && !job.phase.is_over()).max_by_key(|job| job.id);
            if let Some(job) = last {
                self.job_is_made(number, request, job.id);
            }
        }
    }

    pub(super) fn client_hears(&mut self, number: u32, sent: Time, reply: Reply) {
        let client = &mut self.clients[number as usize];
        if client.dead_until > self.now {
            return;
        }
        match reply {
            Reply::Created(request, answer) => {
                let Ok(row) = *answer else { return };
                if request == client.request && client.job.is_none() {
                    client.job = Some(row.id);
                    client.answered_at = client.answered_at.max(sent);
                }
                self.fact(Fact::JobGiven { client: number, request, job: row.id });
            }
            Reply::Driver(Ok(_)) => client.answered_at = client.answered_at.max(sent),
            Reply::Driver(Err(refused)) => {
                let ended = match refused {
                    Refused::JobEnded { job } | Refused::NoSuchJob { job } => Some(job),
                    _ => None,
                };
                if let Some(job) = ended.filter(|job| client.job == Some(*job)) {
                    client.begins_anew(self.now, &mut self.random);
                    self.fact(Fact::JobHasEnded { job });
                }
            }
            Reply::Place(lease, parts, answer) => match *answer {
                // Whatever comes late of a request that is withdrawn is no news.
                Ok(Placing::Placed(placed)) if client.wants.contains_key(&lease) => {
                    client.wants.remove(&lease);
                    client.has.insert(lease, placed.node);
                    self.fact(Fact::LeaseGiven { lease, node: placed.node, parts });
                }
                Err(_) => drop(client.wants.remove(&lease)),
                _ => {}
            },
            Reply::Released(lease) if client.gives_back.remove(&lease).is_some() => {
                self.fact(Fact::LeaseReturned { lease, done: true });
            }
            Reply::Opened { by, name, answer: Ok(keeper) } if client.job == Some(by) => {
                let way = self.random.between(1, 50) * MS;
                self.after(way, Event::ToKeeper(keeper, name));
            }
            Reply::Stopped(job) if client.job == Some(job) && client.ending => {
                client.begins_anew(self.now, &mut self.random);
            }
            _ => {}
        }
    }
}

/// A process of its own on this very node, which takes nothing else.
fn isolated_on(node: NodeUid, lease: LeaseId) -> Place {
    Place {
        lease,
        resources: parts(0),
        strategy: PlaceStrategy::Node { node, soft: false },
        near: None,
        wait: Duration::from_secs(4),
        for_new_nodes: false,
        isolated: true,
    }
}

impl Client {
    fn may_crowd(&self) -> bool {
        !self.has_crowded && !self.submits && !self.ending
    }

    /// Not every job does, so that keepers have some rest.
    fn wants_actors(&self) -> bool {
        !(self.request + u64::from(self.number)).is_multiple_of(3)
    }

    fn new_job(&self) -> NewJob {
        let kind = if self.submits {
            JobKind::OnCluster { resources: parts(0) }
        } else {
            JobKind::Outside { driver: self.uid }
        };
        NewJob {
            request: self.request,
            kind,
            entrypoint: String::new(),
            executable: Executable { hash: ExecutableHash([(self.number % 2) as u8; 32]), bytes: 0 },
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            submitter: format!("client-{}", self.number),
            workers: WorkerPolicy::EveryNode,
            platform: None,
        }
    }
}
