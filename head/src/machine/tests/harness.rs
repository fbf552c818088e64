//! A head with a store that is a map, and a clock that is a number.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::cluster::{
    Amount, Beat, Executable, ExecutableHash, GroupId, HeadTime, JobId, JobKind, LeaseId, NewJob, Place, PlaceStrategy,
    Refused, Registered, Registration, Resources, Revision, Running, RunningWorker, UnixTime, WorkerPolicy,
};
use mobula_core::{NodeUid, SplitMix64};

use crate::{Effect, Head, HeadConfig, Moment, Write};

/// A head, what it has written, and the effects that nobody has looked at.
pub(super) struct House {
    pub(super) head: Head,
    pub(super) disk: BTreeMap<String, Vec<u8>>,
    pub(super) effects: Vec<Effect>,
    pub(super) now: Duration,
    pub(super) chance: SplitMix64,
    /// What each node has heard of the head.
    pub(super) heard: BTreeMap<NodeUid, HeadTime>,
}

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn cpus(count: u64) -> Resources {
    Resources::cpus(Amount::units(count))
}

pub(super) fn registration(number: u64, resources: Resources) -> Registration {
    Registration {
        uid: NodeUid(number),
        name: format!("node-{number}").into(),
        address: format!("10.0.0.{number}:6379"),
        resources,
        labels: Default::default(),
        cores: 8,
        version: "0.1.0".to_owned(),
        architecture: "x86_64-linux-gnu".to_owned(),
        running: Running::default(),
        replaces: None,
        number: 0,
    }
}

pub(super) fn new_job(request: u64, kind: JobKind) -> NewJob {
    NewJob {
        request,
        kind,
        entrypoint: "primes --n 100".to_owned(),
        executable: Executable { hash: ExecutableHash([7; 32]), bytes: 1000 },
        arguments: vec!["--n".to_owned(), "100".to_owned()],
        environment: BTreeMap::new(),
        submitter: "someone".to_owned(),
        workers: WorkerPolicy::EveryNode,
        platform: None,
    }
}

pub(super) fn place(job: JobId, number: u64, resources: Resources) -> Place {
    Place {
        lease: LeaseId { job, number },
        resources,
        strategy: PlaceStrategy::Default,
        near: None,
        wait: s(5),
        for_new_nodes: false,
        isolated: false,
    }
}

pub(super) fn group(job: JobId, number: u64) -> GroupId {
    GroupId { job, number }
}

impl House {
    pub(super) fn new() -> Self {
        House {
            head: Head::new(HeadConfig::default(), 1),
            disk: BTreeMap::new(),
            effects: Vec::new(),
            now: s(0),
            chance: SplitMix64::new(1),
            heard: BTreeMap::new(),
        }
    }

    pub(super) fn moment(&mut self) -> Moment {
        Moment { now: self.now, unix: UnixTime(1_000 + self.now.as_secs()), chance: self.chance.bits() }
    }

    /// Asks the head, and does what follows.
    pub(super) fn ask<T>(&mut self, ask: impl FnOnce(&mut Head, Moment) -> T) -> T {
        let moment = self.moment();
        let answer = ask(&mut self.head, moment);
        self.settle();
        answer
    }

    pub(super) fn settle(&mut self) {
        let effects = self.head.take_effects().expect("plain data");
        for (at, effect) in effects.iter().enumerate() {
            if let Effect::Persist(writes) = effect {
                assert_eq!(at, 0, "what is written comes first");
                write(&mut self.disk, writes);
            }
        }
        self.effects.extend(effects);
    }

    /// The effects since this was last asked, without what is written and what lists show.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        effects.retain(|effect| !matches!(effect, Effect::Persist(_) | Effect::ViewChanged(_)));
        effects
    }

    /// Time passes, and the head does what is due, each thing in its time.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.head.next_wakeup().filter(|next| *next <= end) {
            assert!(next >= self.now || self.head.next_wakeup() == Some(next));
            self.now = self.now.max(next);
            self.ask(|head, moment| head.tick(moment));
            assert!(self.head.next_wakeup().is_none_or(|next| next > self.now), "it does not get on");
        }
        self.now = end;
    }

    /// Time passes, and these nodes send their heartbeats, all running what they are told to.
    pub(super) fn live(&mut self, time: Duration, nodes: &[u64]) {
        let end = self.now + time;
        while self.now < end {
            self.pass(ms(500));
            nodes.iter().for_each(|node| self.beat(*node).expect("it lives"));
        }
    }

    pub(super) fn register(&mut self, number: u64, resources: Resources) -> Registered {
        let registered = self.ask(|head, moment| head.register_node(registration(number, resources), moment));
        let registered = registered.expect("a new node");
        self.heard.insert(NodeUid(number), registered.at);
        registered
    }

    /// A node that has registered and has been heard.
    pub(super) fn node(&mut self, number: u64, resources: Resources) -> NodeUid {
        self.register(number, resources);
        self.beat(number).expect("it lives");
        NodeUid(number)
    }

    /// A heartbeat of a node on which everything runs that is to run.
    pub(super) fn beat(&mut self, number: u64) -> Result<(), Refused> {
        let running = self.obedient(number);
        self.beat_with(number, running)
    }

    /// What runs where all is done as the head says.
    pub(super) fn obedient(&self, number: u64) -> Running {
        let Some(assignment) = self.head.assignment(NodeUid(number)) else { return Running::default() };
        let workers = assignment.workers.iter().map(|worker| RunningWorker { uid: worker.uid, ready: true, pid: 100 });
        Running {
            seen: assignment.revision,
            workers: workers.collect(),
            drivers: assignment.drivers.iter().map(|driver| driver.uid).collect(),
        }
    }

    pub(super) fn beat_with(&mut self, number: u64, running: Running) -> Result<(), Refused> {
        let uid = NodeUid(number);
        let beat = Beat { running, heard: self.heard.get(&uid).copied(), ..Beat::default() };
        let answer = self.ask(|head, moment| head.beat(uid, &beat, moment))?;
        self.heard.insert(uid, answer.at);
        Ok(())
    }

    /// A job whose driver is outside.
    pub(super) fn job(&mut self, request: u64) -> JobId {
        let kind = JobKind::Outside { driver: NodeUid(1_000_000 + request) };
        self.ask(|head, moment| head.create_job(new_job(request, kind), moment)).expect("a job").id
    }

    pub(super) fn driver_beats(&mut self, request: u64, job: JobId) {
        let driver = NodeUid(1_000_000 + request);
        self.ask(|head, moment| head.driver_beat(job, driver, moment)).expect("it drives");
    }

    /// The worker of a job that is to run on a node.
    pub(super) fn worker(&self, job: JobId, node: u64) -> Option<NodeUid> {
        let assignment = self.head.assignment(NodeUid(node))?;
        assignment.workers.iter().find(|worker| worker.job == job && worker.isolated.is_none()).map(|worker| worker.uid)
    }

    /// The head is killed, and another goes on from what is on the disk.
    pub(super) fn restart(&mut self) {
        self.now = s(0);
        let moment = self.moment();
        let records = self.disk.clone();
        let term = self.head.term() + 1;
        self.head = Head::recover(HeadConfig::default(), term, records, moment).expect("its own records");
        self.effects.clear();
        self.settle();
    }
}

/// One transaction.
pub(super) fn write(disk: &mut BTreeMap<String, Vec<u8>>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put { key, value } => disk.insert(key.clone(), value.clone()),
            Write::Delete { key } => disk.remove(key),
        };
    }
}

pub(super) fn nothing_seen() -> Running {
    Running { seen: Revision::default(), ..Running::default() }
}
