//! Hosts: a daemon with the real lease of a node, and processes that do what their names say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use mobula_core::cluster::{
    Beat, DriverStatus, JobId, Labels, Refused, Registration, Revision, Running, RunningWorker, Usage,
};
use mobula_core::{LeaseTimes, NodeUid};
use mobula_head::NodeLease;

use super::fact::{Fact, Role};
use super::params::MS;
use super::{Branch, Event, HOST_PARTS, Reply, Request, World, parts};
use crate::params::Time;

/// A machine.
#[derive(Default)]
pub(super) struct Host {
    node: Option<Node>,
    /// Counts the lives of the daemon.
    pub(super) life: u64,
    /// The life before, all of whose processes are known to be dead.
    before: Option<NodeUid>,
    pub(super) frozen_until: Time,
    off_until: Time,
    /// What was answered last was sent then.
    pub(super) last_answered: Time,
    /// The last heartbeat was sent then, and what was answered last until then had been sent so long before.
    said: (Time, Time),
    /// The same of the heartbeat that was refused: the head may not know of an answer that came since.
    refused_after: Time,
    /// From then on a drained node may lose its workers.
    pub(super) may_end: Option<(NodeUid, Time)>,
}

/// A life of the daemon.
struct Node {
    uid: NodeUid,
    lease: NodeLease,
    registered: bool,
    ask_again: Time,
    seen: Revision,
    newest: Revision,
    leaving: bool,
    processes: BTreeMap<NodeUid, Process>,
    /// Ends that the head has not confirmed.
    ended: BTreeMap<NodeUid, End>,
    /// Everything that ever ran.
    ever: BTreeSet<NodeUid>,
}

struct Process {
    job: JobId,
    role: Role,
    ready_at: Time,
    dies_at: Time,
    /// It is going to die, and the daemon has only lost sight of it so far.
    lost: bool,
}

struct End {
    job: JobId,
    is_driver: bool,
    said_at: Time,
}

impl Host {
    /// The life that the host believes in.
    pub(super) fn believes(&self) -> Option<NodeUid> {
        self.node.as_ref().filter(|node| node.registered).map(|node| node.uid)
    }

    /// The life that it has, registered or not, or had last.
    pub(super) fn uid(&self) -> Option<NodeUid> {
        self.node.as_ref().map(|node| node.uid)
    }

    /// A process has not ended, whether its node lives or stands still.
    pub(super) fn has(&self, process: NodeUid) -> bool {
        self.node.as_ref().is_some_and(|node| node.processes.contains_key(&process))
    }

    /// A process may do something, at `local` by the host's clock.
    pub(super) fn runs(&self, process: NodeUid, local: Instant) -> bool {
        let node = self.node.as_ref().filter(|node| node.lease.holds(local));
        let running = node.and_then(|node| node.processes.get(&process));
        running.is_some_and(|running| !running.lost)
    }

    pub(super) fn processes(&self) -> BTreeMap<NodeUid, (JobId, Role)> {
        let of =
            |node: &Node| node.processes.iter().map(|(uid, process)| (*uid, (process.job, process.role))).collect();
        self.node.as_ref().map(of).unwrap_or_default()
    }
}

impl World {
    pub(super) fn host_wakes(&mut self, number: u32) {
        let at = number as usize;
        if self.hosts[at].off_until > self.now {
            let until = self.hosts[at].off_until;
            return self.at(until, Event::HostWakes(number));
        }
        let next = self.random.between(30, 90) * MS;
        self.after(next, Event::HostWakes(number));
        if self.hosts[at].node.is_none() {
            let uid = self.new_uid();
            let host = &mut self.hosts[at];
            host.life += 1;
            (host.last_answered, host.refused_after) = (self.now, 0);
            host.node = Some(Node {
                uid,
                lease: NodeLease::new(LeaseTimes::default()),
                registered: false,
                ask_again: 0,
                seen: Revision::default(),
                newest: Revision::default(),
                leaving: false,
                processes: BTreeMap::new(),
                ended: BTreeMap::new(),
                ever: BTreeSet::new(),
            });
        }
        let local = self.local(number, self.now);
        let Some(node) = &mut self.hosts[at].node else { return };
        if node.lease.fence(local) {
            let (uid, leaving) = (node.uid, node.leaving);
            let unanswered = (self.now - self.hosts[at].last_answered).max(self.hosts[at].refused_after);
            // One that was about to leave may hear that it has left.
            if !leaving {
                self.fact(Fact::Fenced { uid, unanswered });
            }
            let away = self.random.between(300, 2_000) * MS;
            return self.host_ends(number, self.now + away);
        }
        self.processes_end(number);
        self.talk(number);
    }

    /// A drain is over, also for a host that stands still.
    pub(super) fn drain_ends(&mut self, number: u32) {
        let may_end = &mut self.hosts[number as usize].may_end;
        if let Some((uid, _)) = may_end.take_if(|(_, from)| self.now >= *from) {
            self.reach(Branch::SlowDrain);
            self.fact(Fact::NodeMayEnd { uid });
            self.ended.insert(uid);
            self.drivers_may_end(uid);
        }
    }

    /// The time of a node is over, and with it that of the drivers on it. A head that is away ends their jobs when it is back.
    pub(super) fn drivers_may_end(&mut self, uid: NodeUid) {
        let jobs = self.jobs_driven_on(uid);
        jobs.into_iter().for_each(|job| self.fact(Fact::JobMayEnd { job }));
    }

    /// What a daemon has to say.
    fn talk(&mut self, number: u32) {
        let now = self.now;
        let local = self.local(number, now);
        let host = &mut self.hosts[number as usize];
        let (before, Some(node)) = (host.before, &mut host.node) else { return };
        let uid = node.uid;
        let mut requests = Vec::new();
        let again = now >= node.ask_again;
        if again {
            node.ask_again = now + 400 * MS;
        }
        if !node.registered && again {
            let registration = Registration {
                uid,
                name: format!("host-{number}").into(),
                address: format!("10.0.0.{number}:6379"),
                resources: parts(HOST_PARTS),
                labels: Labels::new(),
                cores: 4,
                version: String::new(),
                architecture: String::new(),
                running: node.running(now),
                replaces: before,
                number: node.lease.register(),
            };
            requests.push(Request::Register(Box::new(registration)));
        }
        if node.registered && node.lease.next_beat().is_some_and(|next| local >= next) {
            host.said = (now, now - host.last_answered);
            let beat = Beat { running: node.running(now), used: Usage::default(), ..node.lease.beat(local) };
            requests.push(Request::Beat(uid, Box::new(beat)));
        }
        if node.registered && again && node.newest > node.seen {
            requests.push(Request::Assignment(uid));
        }
        for (process, end) in node.ended.iter_mut().filter(|(_, end)| now >= end.said_at + 300 * MS) {
            end.said_at = now;
            requests.push(if end.is_driver {
                let status = DriverStatus::Failed { reason: "signal 9".to_owned() };
                Request::DriverEnded { job: end.job, uid: *process, status }
            } else {
                Request::WorkerEnded { uid: *process, reaped: true }
            });
        }
        if node.leaving && node.processes.is_empty() && node.ended.is_empty() && again {
            requests.push(Request::Leave(uid));
        }
        requests.into_iter().for_each(|request| self.ask(number, request));
    }

    pub(super) fn host_hears(&mut self, number: u32, life: u64, sent: Time, reply: Reply) {
        let (now, sent_local, local) = (self.now, self.local(number, sent), self.local(number, self.now));
        let host = &mut self.hosts[number as usize];
        if life != host.life || host.off_until > now {
            return;
        }
        let Some(node) = &mut host.node else { return };
        match reply {
            Reply::Registered(answer) => match *answer {
                Ok(registered) => {
                    if node.lease.registered(&registered, sent_local, local) {
                        node.registered = true;
                        host.last_answered = host.last_answered.max(sent);
                        self.obey(number, registered.assignment);
                    }
                }
                Err(refused) => {
                    node.lease.refused(&refused);
                    if matches!(refused, Refused::Gone { .. }) {
                        // A life that never had a lease ends as well.
                        let away = self.random.between(300, 1_000) * MS;
                        self.host_ends(number, now + away);
                    }
                }
            },
            Reply::Beat(Ok(answer)) if node.lease.answered(sent_local, answer.at, local) => {
                host.last_answered = host.last_answered.max(sent);
                node.newest = node.newest.max(answer.assignment);
            }
            Reply::Beat(Err(refused)) if node.lease.refused(&refused) => node.registered = false,
            Reply::Beat(Err(Refused::LeaseOver { .. })) if host.said.0 == sent => host.refused_after = host.said.1,
            Reply::Beat(_) => {}
            Reply::Assignment(Some(assignment)) => self.obey(number, *assignment),
            Reply::LookAgain => {
                let uid = node.uid;
                if node.registered {
                    self.ask(number, Request::Assignment(uid));
                }
            }
            Reply::Ended(process) => drop(node.ended.remove(&process)),
            Reply::Left if node.leaving => {
                let away = self.random.between(500, 3_000) * MS;
                self.host_ends(number, now + away);
            }
            reply => self.keeper_hears(number, reply),
        }
    }

    /// Brings what runs to what is to run.
    fn obey(&mut self, number: u32, assignment: mobula_core::cluster::Assignment) {
        let now = self.now;
        let Some(node) = &mut self.hosts[number as usize].node else { return };
        if assignment.revision <= node.seen {
            return;
        }
        if assignment.fenced {
            // As if a heartbeat had been refused: all of it ends at once, and not one by one.
            node.lease.refused(&Refused::LeaseOver { uid: node.uid });
            return;
        }
        node.seen = assignment.revision;
        node.newest = node.newest.max(assignment.revision);
        node.leaving = assignment.draining && assignment.workers.is_empty() && assignment.drivers.is_empty();
        let uid = node.uid;
        let workers = assignment.workers.iter().map(|worker| {
            let role = match &worker.isolated {
                Some(isolated) => Role::Isolated(isolated.lease),
                None => Role::Worker(worker.order),
            };
            (worker.uid, (worker.job, role))
        });
        let keepers = assignment.drivers.iter().filter(|driver| driver.keeper).map(|driver| driver.uid);
        let keepers: BTreeSet<NodeUid> = keepers.collect();
        let drivers = assignment.drivers.iter().map(|driver| (driver.uid, (driver.job, Role::Driver)));
        let wanted: BTreeMap<NodeUid, (JobId, Role)> = workers.chain(drivers).collect();
        let extra: Vec<NodeUid> =
            node.processes.keys().filter(|process| !wanted.contains_key(process)).copied().collect();
        for process in extra {
            self.process_ends(number, process, true);
        }
        for (process, (job, role)) in wanted {
            let (starts, lives) = (self.random.between(5, 150) * MS, self.random.between(300, 60_000) * MS);
            let forever = self.random.one_in(2);
            let life = self.hosts[number as usize].life;
            let Some(node) = &mut self.hosts[number as usize].node else { return };
            if !node.ever.insert(process) {
                continue;
            }
            let forever = forever || now + lives >= self.params.calm_at;
            let dies_at = if forever { Time::MAX } else { now + lives };
            node.processes.insert(process, Process { job, role, ready_at: now + starts, dies_at, lost: false });
            self.fact(Fact::Begins { process, node: uid, host: number, job, role });
            self.after(starts, Event::Acts { host: number, life, process });
            if keepers.contains(&process) {
                self.keeper_begins(process, job, number, starts);
            }
        }
    }

    /// A process does something, if its node's lease lets it.
    pub(super) fn process_acts(&mut self, number: u32, life: u64, process: NodeUid) {
        let local = self.local(number, self.now);
        let host = &self.hosts[number as usize];
        let Some(node) = host.node.as_ref().filter(|_| host.life == life) else { return };
        let Some(running) = node.processes.get(&process) else { return };
        let ends = running.dies_at <= self.now && !running.lost;
        if node.lease.holds(local) && !ends {
            self.fact(Fact::Acts { process });
        }
        let next = self.random.between(100, 400) * MS;
        self.after(next, Event::Acts { host: number, life, process });
    }

    fn processes_end(&mut self, number: u32) {
        let now = self.now;
        let Some(node) = &mut self.hosts[number as usize].node else { return };
        let due: Vec<NodeUid> =
            node.processes.iter().filter(|(_, process)| now >= process.dies_at).map(|(uid, _)| *uid).collect();
        for process in due {
            let loses_sight = self.random.one_in(4);
            let Some(node) = &mut self.hosts[number as usize].node else { return };
            let Some(dying) = node.processes.get_mut(&process) else { continue };
            if loses_sight && !dying.lost && dying.role != Role::Driver {
                // Its connection breaks, and it still runs for a while.
                dying.lost = true;
                dying.dies_at = now + 700 * MS;
                self.ask(number, Request::WorkerEnded { uid: process, reaped: false });
            } else {
                self.process_ends(number, process, false);
            }
        }
    }

    pub(super) fn process_ends(&mut self, number: u32, process: NodeUid, told: bool) {
        let Some(node) = &mut self.hosts[number as usize].node else { return };
        let Some(ended) = node.processes.remove(&process) else { return };
        let is_driver = ended.role == Role::Driver;
        node.ended.insert(process, End { job: ended.job, is_driver, said_at: 0 });
        self.fact(Fact::Ends { process, told });
        if is_driver {
            self.fact(Fact::JobMayEnd { job: ended.job });
        }
    }

    /// The daemon's life ends, with all that runs; another begins at `until`.
    fn host_ends(&mut self, number: u32, until: Time) {
        let host = &mut self.hosts[number as usize];
        host.off_until = until;
        host.life += 1;
        host.may_end = None;
        let Some(node) = host.node.take() else { return };
        host.before = Some(node.uid);
        // A head that was killed may have written it, and told nobody.
        self.fact(Fact::NodeMayEnd { uid: node.uid });
        // Also those of which it has never heard.
        self.ended.insert(node.uid);
        self.drivers_may_end(node.uid);
        for (process, ended) in node.processes {
            self.fact(Fact::Ends { process, told: false });
            if ended.role == Role::Driver {
                self.fact(Fact::JobMayEnd { job: ended.job });
            }
        }
    }

    /// Switched off, and on at `until`.
    pub(super) fn host_crashes(&mut self, number: u32, until: Time) {
        self.host_ends(number, until);
        // Its disk may have forgotten who it was.
        if self.random.one_in(2) {
            self.hosts[number as usize].before = None;
        }
    }

    /// Jobs whose drivers ran on a node.
    pub(super) fn jobs_driven_on(&self, uid: NodeUid) -> Vec<JobId> {
        let Some(head) = &self.head.head else { return Vec::new() };
        let driven = head.jobs().into_iter().filter(|job| job.driver_node == Some(uid));
        driven.map(|job| job.id).collect()
    }
}

impl Node {
    /// What runs, as heartbeats say it: also what has ended, until the head knows.
    fn running(&self, now: Time) -> Running {
        let worker = |uid: &NodeUid, ready| RunningWorker { uid: *uid, ready, pid: uid.0 as u32 };
        let live = self.processes.iter().filter(|(_, process)| process.role != Role::Driver);
        let live = live.map(|(uid, process)| worker(uid, now >= process.ready_at));
        let ended = self.ended.iter().filter(|(_, end)| !end.is_driver).map(|(uid, _)| worker(uid, false));
        let drivers = self.processes.iter().filter(|(_, process)| process.role == Role::Driver).map(|(uid, _)| *uid);
        let over = self.ended.iter().filter(|(_, end)| end.is_driver).map(|(uid, _)| *uid);
        Running { seen: self.seen, workers: live.chain(ended).collect(), drivers: drivers.chain(over).collect() }
    }
}
