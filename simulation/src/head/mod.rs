//! The world of the head: the real head over a store whose process is killed at its writes, the real leases of nodes, and hosts, drivers and a
//! network that are made up. Cuts in one direction, pauses, crashes, clocks that differ, requests that come again.
//!
//! Start at [`run`]. `simulate --world head` runs many seeds. What must hold is in `oracles/`.
mod campaign;
mod clients;
mod fact;
mod head_process;
mod hosts;
mod judge;
mod keepers;
mod oracles;
mod params;
mod reach;
mod seen;
pub mod tier1;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use mobula_core::cluster::{
    Amount, Assignment, Beat, BeatAnswer, DriverStatus, JobId, JobRow, LeaseId, NewJob, Place, Placing, Refused,
    Registered, Registration, Resources, Revision, WorkerId,
};
use mobula_core::{NodeUid, limits};

pub use campaign::{Counts, Kind, Report, Summary};
pub use params::{Fault, Params, What};
pub use reach::Branch;

use self::clients::Client;
use self::fact::{Fact, RestHost};
use self::head_process::HeadProcess;
use self::hosts::Host;
use self::judge::Judge;
use self::keepers::Keeper;
use self::params::MS;
use self::seen::AtRest;
use crate::params::{SECOND, Time};
use crate::random::Random;
use crate::reach::Reached;

/// Cores of each host, in ten-thousandths.
const HOST_PARTS: u64 = 40_000;

/// How long after the last fault everything has to be in order: a lease and a margin, the time of a host to come back, and 5 s.
const CALM: Time = 24 * SECOND;

/// After so much silence a node is over for everybody: a lease and a quarter of it.
const LEASE_AND_MARGIN: Time = limits::LEASE.as_micros() as Time * 5 / 4;

/// Events of a world that does something else than going round in circles.
const EVENTS_MAX: u64 = 1_000_000;

/// Runs a world.
pub fn run(params: &Params, traced: bool) -> Report {
    let mut world = World::new(params.clone(), traced);
    world.begin();
    let end = params.calm_at + CALM;
    let mut events = 0_u64;
    while let Some(Reverse((at, _, event))) = world.queue.pop() {
        events += 1;
        if events > EVENTS_MAX {
            world.judge.accuse("I13 it gets on", format!("{events} events, the last {event:?}"), at);
        }
        if at > end || world.judge.violation.is_some() {
            break;
        }
        world.now = at;
        world.handle(event);
    }
    if world.judge.violation.is_none() {
        world.now = end;
        world.rest();
    }
    Report {
        violation: world.judge.violation,
        hash: world.judge.hash,
        facts: world.judge.facts,
        lasted: world.now,
        counts: Counts { kills: world.head.kills, leases: world.leases_given, names: world.names_given },
        reached: world.reached,
        lines: world.judge.lines.unwrap_or_default(),
    }
}

/// A request to the head.
#[derive(Clone, Debug)]
enum Request {
    Register(Box<Registration>),
    Beat(NodeUid, Box<Beat>),
    Assignment(NodeUid),
    WorkerEnded {
        uid: WorkerId,
        reaped: bool,
    },
    DriverEnded {
        job: JobId,
        uid: NodeUid,
        status: DriverStatus,
    },
    Leave(NodeUid),
    Create(Box<NewJob>),
    DriverBeat(JobId, NodeUid),
    DriverDone(JobId, NodeUid),
    Place(Box<Place>),
    Release(LeaseId),
    Stop(JobId),
    /// Of a job, which wants an actor of this name.
    OpenKeeper(JobId, &'static str),
    FindDetached(JobId, &'static str),
    HoldName {
        keeper: JobId,
        process: NodeUid,
        number: u64,
        name: &'static str,
    },
    ReleaseName {
        keeper: JobId,
        process: NodeUid,
        number: u64,
    },
    /// Of a job, by its driver.
    CloseKeeper(JobId, NodeUid),
}

/// An answer of the head.
#[derive(Clone, Debug)]
enum Reply {
    Registered(Box<Result<Registered, Refused>>),
    Beat(Result<BeatAnswer, Refused>),
    Assignment(Option<Box<Assignment>>),
    /// A worker or a driver is known to have ended.
    Ended(NodeUid),
    Left,
    Created(u64, Box<Result<JobRow, Refused>>),
    Driver(Result<Revision, Refused>),
    Place(LeaseId, u64, Box<Result<Placing, Refused>>),
    Released(LeaseId),
    Stopped(JobId),
    Opened {
        by: JobId,
        name: &'static str,
        answer: Result<JobId, Refused>,
    },
    Found(JobId, Result<Option<JobId>, Refused>),
    Held {
        keeper: JobId,
        process: NodeUid,
        number: u64,
        name: &'static str,
        answer: Result<(), Refused>,
    },
    NameFree {
        keeper: JobId,
        process: NodeUid,
        number: u64,
    },
    Closed(NodeUid, Result<bool, Refused>),
    /// Nobody asked: it is worth to look again.
    LookAgain,
}

/// Who talks to the head: hosts, then clients.
type Peer = u32;

#[derive(Clone, Debug)]
enum Event {
    /// What reaches a head of this life, from a peer in its life `of`.
    ToHead {
        life: u64,
        from: Peer,
        of: u64,
        sent: Time,
        request: Request,
    },
    /// What reaches a peer, in the life that it had when it asked.
    ToPeer {
        to: Peer,
        life: u64,
        sent: Time,
        reply: Reply,
    },
    HostWakes(u32),
    DrainEnds(u32),
    ClientWakes(u32),
    HeadWakes(u64),
    HeadBegins,
    KeeperWakes(NodeUid),
    /// A process of another job wants an actor of a keeper's.
    ToKeeper(JobId, &'static str),
    /// Nothing goes wrong any more.
    Calm,
    Acts {
        host: u32,
        life: u64,
        process: NodeUid,
    },
    Fault(usize),
    Heals(usize),
}

struct World {
    params: Params,
    random: Random,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Event)>>,
    next_event: u64,
    base: Instant,
    head: HeadProcess,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    /// Cuts: from, to; how many of each are in force.
    cuts: Vec<(u32, u32)>,
    /// For each fault in force that ends in a comparison: the host's life when it began, and the head's.
    begun: BTreeMap<usize, (NodeUid, u64)>,
    next_uid: u64,
    /// Nodes whose drains are over, and those that have ended.
    ended: BTreeSet<NodeUid>,
    /// Nodes of which the head has said, or written, that they are down.
    down: BTreeSet<NodeUid>,
    /// The drivers of keepers.
    keepers: BTreeMap<NodeUid, Keeper>,
    /// When jobs that keep actors were last asked for, or had a name.
    used: BTreeMap<JobId, Time>,
    judge: Judge,
    leases_given: u64,
    names_given: u64,
    reached: Reached<Branch>,
    /// The number of the newest registration or heartbeat of each life that has come to the head.
    said: BTreeMap<NodeUid, u64>,
}

// The order of events at one time is that of their numbers.
impl PartialEq for Event {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    fn new(params: Params, traced: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do: only differences matter")]
        let base = Instant::now();
        let mut random = Random::new(params.seed ^ 0x6865_6164);
        World {
            head: HeadProcess::new(),
            hosts: (0..params.hosts).map(|_| Host::default()).collect(),
            clients: (0..params.clients).map(|number| Client::new(number, &mut random)).collect(),
            cuts: vec![(0, 0); (params.hosts + params.clients) as usize],
            begun: BTreeMap::new(),
            random,
            now: 0,
            queue: BinaryHeap::new(),
            next_event: 0,
            base,
            next_uid: 1,
            ended: BTreeSet::new(),
            down: BTreeSet::new(),
            judge: Judge::new(traced),
            leases_given: 0,
            names_given: 0,
            keepers: BTreeMap::new(),
            used: BTreeMap::new(),
            reached: Reached::default(),
            said: BTreeMap::new(),
            params,
        }
    }

    fn begin(&mut self) {
        self.at(0, Event::HeadBegins);
        for host in 0..self.params.hosts {
            let after = self.random.below(1_000) * MS;
            self.at(after, Event::HostWakes(host));
        }
        for client in 0..self.params.clients {
            let after = self.random.below(3_000) * MS;
            self.at(after, Event::ClientWakes(client));
        }
        self.at(self.params.calm_at, Event::Calm);
        for (number, fault) in self.params.faults.clone().iter().enumerate() {
            self.at(fault.at, Event::Fault(number));
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((at.max(self.now), self.next_event, event)));
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ToHead { life, from, of, sent, request } => {
                let paused = self.head.paused_until;
                if paused > self.now {
                    self.at(paused, Event::ToHead { life, from, of, sent, request });
                } else if self.now - sent > SECOND && self.cuts[from as usize].0 > 0 {
                    // What is stuck does not get through a cut.
                } else if life == self.head.life {
                    // What was sent to a head before is lost with its connections.
                    if self.now - sent > SECOND {
                        self.reach(Branch::Stuck);
                    }
                    self.serve(from, of, sent, request);
                }
            }
            Event::ToPeer { to, life, sent, reply } => match self.frozen_until(to) {
                Some(thaws) => self.at(thaws, Event::ToPeer { to, life, sent, reply }),
                None if to < self.params.hosts => self.host_hears(to, life, sent, reply),
                None => self.client_hears(to - self.params.hosts, sent, reply),
            },
            Event::HostWakes(host) => match self.frozen_until(host) {
                Some(thaws) => self.at(thaws, Event::HostWakes(host)),
                None => self.host_wakes(host),
            },
            Event::DrainEnds(host) => self.drain_ends(host),
            Event::Acts { host, life, process } => match self.frozen_until(host) {
                // A thawed process may be the first to run.
                Some(thaws) => self.at(thaws, Event::Acts { host, life, process }),
                None => self.process_acts(host, life, process),
            },
            Event::ClientWakes(client) => self.client_wakes(client),
            Event::HeadWakes(life) => {
                let paused = self.head.paused_until;
                if paused > self.now {
                    self.at(paused, Event::HeadWakes(life));
                } else if life == self.head.life {
                    self.head_wakes();
                }
            }
            Event::HeadBegins => self.head_begins(),
            Event::KeeperWakes(process) => self.keeper_wakes(process),
            Event::ToKeeper(job, name) => self.keeper_is_asked(job, name),
            Event::Calm => self.head.spare(),
            Event::Fault(number) => self.fault(number),
            Event::Heals(number) => self.heals(number),
        }
    }

    fn frozen_until(&self, peer: Peer) -> Option<Time> {
        self.hosts.get(peer as usize).map(|host| host.frozen_until).filter(|until| *until > self.now)
    }

    /// A message is on its way, or lost.
    fn delay(&mut self, peer: Peer, to_head: bool) -> Option<Time> {
        let (from, to) = self.cuts[peer as usize];
        if (to_head && from > 0) || (!to_head && to > 0) {
            return None;
        }
        let slow = self.random.one_in(50);
        Some(if slow { self.random.between(20, 400) * MS } else { self.random.between(100, 5_000) })
    }

    fn ask(&mut self, from: Peer, request: Request) {
        let sent = self.now;
        let of = self.hosts.get(from as usize).map_or(0, |host| host.life);
        // Now and then it comes twice.
        let rare = match request {
            Request::Register(_) => 3,
            Request::Beat(..) => 4,
            _ => 30,
        };
        let times = if self.random.one_in(rare) { 2 } else { 1 };
        for _ in 0..times {
            if let Some(mut delay) = self.delay(from, true) {
                let life = self.head.life;
                // One of the two may have been stuck somewhere for long.
                if times == 2 && self.random.one_in(4) {
                    delay += self.random.between(500, 25_000) * MS;
                    // When nothing goes wrong any more, nothing is stuck any more but what is numbered: an old one is no news.
                    let is_numbered = matches!(request, Request::Register(_) | Request::Beat(..));
                    if self.now + delay > self.params.calm_at && !is_numbered {
                        continue;
                    }
                }
                self.after(delay, Event::ToHead { life, from, of, sent, request: request.clone() });
            }
        }
    }

    fn answer(&mut self, to: Peer, life: u64, sent: Time, reply: Reply) {
        if let Some(delay) = self.delay(to, false) {
            self.after(delay, Event::ToPeer { to, life, sent, reply });
        }
    }

    /// The time by a host's clock.
    fn local(&self, host: u32, at: Time) -> Instant {
        let rate = u128::from(self.params.rates[host as usize + 1]);
        self.base + Duration::from_micros((u128::from(at) * rate / 1_000_000) as u64)
    }

    /// The time by the head's clock, since its start.
    fn head_time(&self) -> Duration {
        let since = u128::from(self.now - self.head.began);
        Duration::from_micros((since * u128::from(self.params.rates[0]) / 1_000_000) as u64)
    }

    fn new_uid(&mut self) -> NodeUid {
        self.next_uid += 1;
        NodeUid(self.next_uid)
    }

    fn fact(&mut self, fact: Fact) {
        self.reach_by_fact(&fact);
        if let Fact::LeaseGiven { .. } = &fact {
            self.leases_given += 1;
        }
        self.judge.fact(&fact, self.now);
    }

    /// Text for the trace only.
    fn line(&mut self, text: impl FnOnce() -> String) {
        self.judge.line(self.now, text);
    }

    fn fault(&mut self, number: usize) {
        let Fault { lasts, what, .. } = self.params.faults[number];
        // What begins late ends with everything else.
        let until = (self.now + lasts).min(self.params.calm_at);
        self.line(|| format!("fault until {:.3}: {what:?}", until as f64 / 1e6));
        match what {
            What::Cut { peer, from, to } => {
                self.cuts[peer as usize].0 += u32::from(from);
                self.cuts[peer as usize].1 += u32::from(to);
                if let Some(uid) = self.hosts.get(peer as usize).and_then(Host::believes) {
                    self.begun.insert(number, (uid, self.head.life));
                }
                self.at(until, Event::Heals(number));
            }
            What::Pause { host } => {
                let host = &mut self.hosts[host as usize];
                host.frozen_until = host.frozen_until.max(until);
            }
            What::PauseHead => self.head.paused_until = self.head.paused_until.max(until),
            What::Crash { host } => self.host_crashes(host, until),
            What::CrashHead => self.head_ends(until),
            What::KillKeepers => self.keepers_end(),
            // A head that comes back gives the whole time again; it has to pass before the end.
            What::Drain { host } => self.operator(host, Some(Duration::from_micros(lasts.min(6 * SECOND)))),
            What::Remove { host } => self.operator(host, None),
        }
    }

    fn heals(&mut self, number: usize) {
        let Fault { at, what, .. } = self.params.faults[number];
        let What::Cut { peer, from, to } = what else { return };
        self.cuts[peer as usize].0 -= u32::from(from);
        self.cuts[peer as usize].1 -= u32::from(to);
        let Some((node, life)) = self.begun.remove(&number) else { return };
        // One that thaws at this moment has not looked at its lease yet.
        let frozen = self.hosts[peer as usize].frozen_until >= self.now;
        let lives_on = self.hosts[peer as usize].believes() == Some(node) && !frozen;
        let head_was_there = self.head.life == life && self.head.head.is_some() && self.head.paused_until <= at;
        let believed = self.head.head.as_ref().is_some_and(|head| head.assignment(node).is_some());
        self.fact(Fact::Heals { node, lasted: self.now - at, lives_on, believed, head_was_there });
    }

    fn rest(&mut self) {
        let now = self.head_time();
        let Some(head) = &self.head.head else {
            return self.judge.accuse("I13", "there is no head".to_owned(), self.now);
        };
        let AtRest { up, jobs, leases, isolated, kept, given } = AtRest::of(head, now);
        let hosts = self.hosts.iter().enumerate().map(|(number, host)| RestHost {
            host: number as u32,
            uid: host.believes(),
            is_up: host.believes().is_some_and(|uid| up.contains(&uid)),
            processes: host.processes(),
        });
        let hosts = hosts.collect();
        let served = self.served();
        let unanswered = self.clients.iter().map(Client::unanswered).sum::<u32>() + self.keepers_unanswered();
        self.fact(Fact::Rest { hosts, jobs, leases, isolated, kept, served, given, unanswered });
    }
}

fn parts(parts: u64) -> Resources {
    Resources::cpus(Amount::parts(parts))
}
