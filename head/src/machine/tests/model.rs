//! Random requests against a head that is killed at every write, and a naive model of what the world may see.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::cluster::{
    Amount, DetachedRow, DriverStatus, GroupStrategy, JobId, JobKind, JobRow, LeaseRow, NewGroup, NodePhase, Place,
    PlaceStrategy, PlacementGroupRow, Placing, Resources, Running, RunningWorker, WorkerPolicy,
};
use mobula_core::{NodeUid, SplitMix64};

use super::harness::{House, group, ms, new_job, place, s, write};
use crate::records::WorkerPlace;
use crate::{Effect, Head, HeadConfig};

/// A node as it is, not as the head believes it to be.
#[derive(Default)]
struct RealNode {
    processes: BTreeSet<NodeUid>,
    seen: mobula_core::cluster::Revision,
    dead: bool,
}

/// What has to survive.
#[derive(Debug, PartialEq)]
struct Durable {
    jobs: Vec<JobRow>,
    leases: Vec<LeaseRow>,
    groups: Vec<PlacementGroupRow>,
    detached: Vec<DetachedRow>,
    guests: BTreeMap<JobId, Vec<JobId>>,
    workers: BTreeMap<WorkerPlace, NodeUid>,
    nodes: BTreeSet<NodeUid>,
    gone: BTreeSet<NodeUid>,
}

fn durable(head: &Head, uids: &BTreeSet<NodeUid>) -> Durable {
    let nodes: BTreeSet<NodeUid> = uids.iter().copied().filter(|uid| head.assignment(*uid).is_some()).collect();
    let slots = head.slots.iter().filter_map(|(at, slot)| Some((*at, slot.record.worker?)));
    let is_down = |uid: &NodeUid| head.phase_of(*uid) == Some(NodePhase::Down);
    Durable {
        jobs: head.jobs(),
        leases: head.leases(),
        groups: head.groups(),
        detached: head.detached(),
        guests: head.jobs.iter().map(|(id, job)| (*id, job.record.keepers.clone())).collect(),
        workers: slots.collect(),
        nodes,
        gone: uids.iter().copied().filter(is_down).collect(),
    }
}

struct Model {
    house: House,
    random: SplitMix64,
    nodes: BTreeMap<u64, RealNode>,
    uids: BTreeSet<NodeUid>,
    /// Every worker that was ever to run, and where.
    lives: BTreeMap<NodeUid, WorkerPlace>,
    jobs: Vec<JobId>,
    next_node: u64,
    next_request: u64,
    next_number: u64,
    granted: BTreeMap<mobula_core::cluster::LeaseId, NodeUid>,
    restarts: u64,
    isolated_ends: u64,
    keepers: u64,
    names: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Model {
            house: House::new(),
            random: SplitMix64::new(seed),
            nodes: BTreeMap::new(),
            uids: BTreeSet::new(),
            lives: BTreeMap::new(),
            jobs: Vec::new(),
            next_node: 1,
            next_request: 1,
            next_number: 1,
            granted: BTreeMap::new(),
            restarts: 0,
            isolated_ends: 0,
            keepers: 0,
            names: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.bits() % end.max(1)
    }

    fn some_node(&mut self) -> Option<u64> {
        let at = self.below(self.nodes.len() as u64) as usize;
        self.nodes.keys().nth(at).copied()
    }

    fn some_job(&mut self) -> Option<JobId> {
        let at = self.below(self.jobs.len() as u64) as usize;
        self.jobs.get(at).copied()
    }

    fn resources(&mut self) -> Resources {
        let parts = self.below(4) * 5_000;
        let gpus = [0, 0, 2_500, 10_000][self.below(4) as usize];
        Resources::cpus(Amount::parts(parts)).with_gpus(Amount::parts(gpus))
    }

    /// One step of anybody.
    fn step(&mut self) {
        match self.below(18) {
            0 if self.nodes.len() < 6 => {
                let number = self.next_node;
                self.next_node += 1;
                let total = Resources::cpus(Amount::units(1 + self.below(4))).with_gpus(Amount::units(self.below(3)));
                self.uids.insert(NodeUid(number));
                self.house.register(number, total);
                self.nodes.insert(number, RealNode::default());
            }
            1 if self.jobs.len() < 8 => {
                let request = self.next_request;
                self.next_request += 1;
                let on_cluster = self.below(2) == 0;
                let kind = if on_cluster {
                    JobKind::OnCluster { resources: Resources::cpus(Amount::parts(5_000)) }
                } else {
                    JobKind::Outside { driver: NodeUid(1_000_000 + request) }
                };
                let mut new = new_job(request, kind);
                new.workers = if self.below(2) == 0 { WorkerPolicy::EveryNode } else { WorkerPolicy::WhereLeased };
                let row = self.house.ask(|head, moment| head.create_job(new, moment));
                self.jobs.extend(row.map(|row| row.id));
            }
            2..=4 => {
                let (Some(job), resources) = (self.some_job(), self.resources()) else { return };
                let number = if self.below(4) == 0 { self.below(self.next_number) } else { self.next_number };
                self.next_number += 1;
                let strategy = match self.below(4) {
                    0 => PlaceStrategy::Spread,
                    1 => PlaceStrategy::Group { group: group(job, self.below(6)), bundle: None },
                    2 => PlaceStrategy::Node { node: NodeUid(self.below(self.next_node)), soft: self.below(2) == 0 },
                    _ => PlaceStrategy::Default,
                };
                let isolated = self.below(3) == 0;
                let request = Place { strategy, isolated, ..place(job, number, resources) };
                let lease = request.lease;
                if let Ok(Placing::Placed(placed)) = self.house.ask(|head, moment| head.place(request, moment)) {
                    let before = self.granted.insert(lease, placed.node);
                    assert!(before.is_none_or(|before| before == placed.node), "one lease in two places");
                }
            }
            5 | 6 => {
                let Some(job) = self.some_job() else { return };
                let lease = place(job, self.random.bits() % self.next_number, Resources::new()).lease;
                let _ = self.house.ask(|head, moment| head.release(lease, moment));
            }
            7 => {
                let Some(job) = self.some_job() else { return };
                let strategies = [
                    GroupStrategy::Pack,
                    GroupStrategy::Spread,
                    GroupStrategy::StrictPack,
                    GroupStrategy::StrictSpread,
                ];
                let strategy = strategies[self.below(4) as usize];
                let bundles = (0..1 + self.below(3)).map(|_| self.resources()).collect();
                let new = NewGroup { group: group(job, self.below(6)), bundles, strategy, for_new_nodes: true };
                let _ = self.house.ask(|head, moment| head.create_group(new, moment));
            }
            8 => {
                let Some(job) = self.some_job() else { return };
                let id = group(job, self.below(6));
                let _ = self.house.ask(|head, moment| head.remove_group(id, moment));
            }
            9 if self.below(3) == 0 => {
                let Some(job) = self.some_job() else { return };
                self.house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
            }
            10 if self.below(3) == 0 => self.end_of_node(),
            11 => {
                // A worker ends, and its node has seen it.
                let Some(number) = self.some_node() else { return };
                let Some(node) = self.nodes.get_mut(&number).filter(|node| !node.dead) else { return };
                let Some(process) = node.processes.pop_first() else { return };
                self.isolated_ends += u64::from(self.lives.get(&process).is_some_and(|place| place.lease.is_some()));
                self.house.ask(|head, moment| head.worker_ended(process, "signal 9", true, moment));
            }
            12 if self.below(3) == 0 => {
                let Some(job) = self.some_job() else { return };
                let Some(driver) = self.house.head.job(job).and_then(|row| row.driver) else { return };
                let status = DriverStatus::Failed { reason: "exit status 1".to_owned() };
                self.house.ask(|head, moment| head.driver_ended(job, driver, status, moment)).expect("its driver");
                for node in self.nodes.values_mut() {
                    node.processes.remove(&driver);
                }
            }
            13 => {
                let Some(job) = self.some_job() else { return };
                if let Ok(keeper) = self.house.ask(|head, moment| head.open_keeper(job, moment))
                    && !self.jobs.contains(&keeper)
                {
                    self.jobs.push(keeper);
                    self.keepers += 1;
                }
            }
            14 => {
                let Some(job) = self.some_job() else { return };
                // Few, so that they come again; a number that was given back is used up.
                let (number, name) = (self.names / 2 + self.below(6), format!("name-{}", self.below(4)));
                let keeper = self.house.head.jobs.values().rfind(|job| job.record.keeper).map(|job| job.record.id);
                let job = if self.below(4) == 0 { job } else { keeper.unwrap_or(job) };
                match self.below(4) {
                    0 => self.house.ask(|head, moment| head.release_name(job, number, moment)),
                    1 => drop(self.house.ask(|head, moment| head.find_detached(job, &name, moment))),
                    _ => {
                        let held = self.house.ask(|head, moment| head.hold_name(job, number, &name, moment));
                        self.names += u64::from(held.is_ok());
                    }
                }
            }
            _ => {
                let time = ms(self.below(900));
                self.house.pass(time);
                self.everybody_beats();
            }
        }
    }

    /// A node leaves, is removed, drained, or falls silent.
    fn end_of_node(&mut self) {
        let (Some(number), how) = (self.some_node(), self.below(4)) else { return };
        let uid = NodeUid(number);
        if how == 2 {
            let _ = self.house.ask(|head, moment| head.drain(uid, s(1), moment));
            return;
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.dead = true;
            node.processes.clear();
        }
        match how {
            0 => self.house.ask(|head, moment| head.leave(uid, moment)),
            1 => drop(self.house.ask(|head, moment| head.remove(uid, moment))),
            // Nobody hears of it any more.
            _ => {}
        }
    }

    /// Live nodes do what they are told, say so, and drivers live.
    fn everybody_beats(&mut self) {
        let alive: Vec<u64> = self.nodes.iter().filter(|(_, node)| !node.dead).map(|(number, _)| *number).collect();
        for number in alive {
            let Some(assignment) = self.house.head.assignment(NodeUid(number)) else { continue };
            let Some(node) = self.nodes.get_mut(&number) else { continue };
            let wanted: BTreeSet<NodeUid> = assignment.workers.iter().map(|worker| worker.uid).collect();
            let drivers: BTreeSet<NodeUid> = assignment.drivers.iter().map(|driver| driver.uid).collect();
            node.processes = wanted.union(&drivers).copied().collect();
            node.seen = assignment.revision;
            let workers = wanted.iter().map(|uid| RunningWorker { uid: *uid, ready: true, pid: 1 }).collect();
            let running = Running { seen: node.seen, workers, drivers: drivers.into_iter().collect() };
            if self.house.beat_with(number, running).is_err() {
                self.nodes.insert(number, RealNode { dead: true, ..RealNode::default() });
            }
        }
        for row in self.house.head.jobs() {
            if let (None, Some(driver)) = (row.driver_node, row.driver) {
                let _ = self.house.ask(|head, moment| head.driver_beat(row.id, driver, moment));
            }
        }
    }

    fn check(&mut self, seed: u64, step: u64) {
        let head = &self.house.head;
        // Nothing is given twice: all leases and bundles of a node fit into it, GPU by GPU.
        let now = self.house.now;
        let mut used: BTreeMap<NodeUid, (Resources, BTreeMap<u32, Amount>)> = BTreeMap::new();
        let plain = head.leases.values().filter(|lease| lease.record.bundle.is_none());
        let plain = plain.map(|lease| (lease.record.node, &lease.record.resources, &lease.record.gpus));
        let bundles = head.groups.values().flat_map(|group| {
            let places = group.record.places.iter().zip(&group.record.bundles);
            places.filter_map(|(place, bundle)| place.as_ref().map(|place| (place.node, bundle, &place.gpus)))
        });
        for (node, resources, gpus) in plain.chain(bundles) {
            let (all, by_gpu) = used.entry(node).or_default();
            all.put(resources);
            for share in gpus {
                let there = by_gpu.entry(share.index).or_default();
                *there = there.plus(share.amount);
            }
        }
        for (node, (all, gpus)) in &used {
            let row = head.node(*node, now).unwrap_or_else(|| panic!("seed {seed}.{step}: {node} is not there"));
            let mut rest = row.total.clone();
            assert!(rest.take(all), "seed {seed}.{step}: {all} of {}", row.total);
            rest.custom.retain(|_, amount| !amount.is_zero());
            assert_eq!(rest, row.available, "seed {seed}.{step}: what is free of {node}");
            assert!(gpus.values().all(|gpu| *gpu <= Amount::ONE), "seed {seed}.{step}: a GPU twice");
        }
        for lease in head.leases.values() {
            let Some((id, at)) = lease.record.bundle else { continue };
            let within = head.leases.values().filter(|other| other.record.bundle == Some((id, at)));
            let mut all = Resources::new();
            within.for_each(|other| all.put(&other.record.resources));
            let bundle = &head.groups[&id].record.bundles[at as usize];
            assert!(bundle.fits(&all), "seed {seed}.{step}: {all} in a bundle of {bundle}");
        }
        // A name has one holder, which is a keeper that is not over, and a program has one keeper.
        let of_programs = head.jobs.values().filter(|job| job.record.keeper && job.record.outcome.is_none());
        assert!(of_programs.count() <= 1, "seed {seed}.{step}: two keepers of one program");
        assert_eq!(head.detached.len(), head.names_held.len(), "seed {seed}.{step}");
        for row in head.detached() {
            let keeper = head.jobs.get(&row.keeper).filter(|job| job.record.keeper && !job.record.over);
            assert!(keeper.is_some(), "seed {seed}.{step}: {} outlives {}", row.name, row.keeper);
        }
        for keeper in head.jobs.values().flat_map(|job| &job.record.keepers) {
            assert!(
                head.jobs.get(keeper).is_some_and(|job| !job.record.over),
                "seed {seed}.{step}: guests of {keeper}"
            );
        }
        // One worker for a job and a node, and for an isolated lease, whose uid was never somebody else's, and none beside one that still runs.
        for (number, real) in &self.nodes {
            let uid = NodeUid(*number);
            let Some(assignment) = head.assignment(uid) else { continue };
            let mut places = BTreeSet::new();
            for worker in &assignment.workers {
                let lease = worker.isolated.as_ref().map(|isolated| isolated.lease.number);
                let place = WorkerPlace { job: worker.job, node: uid, lease };
                assert!(places.insert(place), "seed {seed}.{step}: two workers in {place:?}");
                let at = self.lives.entry(worker.uid).or_insert(place);
                assert_eq!(*at, place, "seed {seed}.{step}: {} came back", worker.uid);
                let of_another =
                    |process: &&NodeUid| **process != worker.uid && self.lives.get(process) == Some(&place);
                let other = real.processes.iter().find(of_another);
                assert_eq!(other, None, "seed {seed}.{step}: it has not been reaped, and {} begins", worker.uid);
                let is_held = |id| head.leases.get(&id).is_some_and(|lease| !lease.record.released);
                assert!(place.lease_id().is_none_or(is_held), "seed {seed}.{step}: {place:?} has no lease");
            }
        }
        for lease in head.leases.values().filter(|lease| lease.record.isolated) {
            assert!(head.runs(lease.record.worker_place()), "seed {seed}.{step}: {:?} has no process", lease.record);
        }
    }
}

/// As many as a debug build runs in some seconds.
const SEEDS: u64 = 40;

#[test]
fn nothing_is_given_twice_and_nothing_that_was_acknowledged_is_lost() {
    let (mut restarts, mut granted, mut lives, mut isolated, mut ends) = (0, 0, 0, 0, 0);
    let (mut keepers, mut names) = (0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        for step in 0..250 {
            let (before, disk) = (durable(&model.house.head, &model.uids), model.house.disk.clone());
            model.house.effects.clear();
            model.step();
            model.check(seed, step);
            swept(&mut model, before, disk, seed, step);
        }
        restarts += model.restarts;
        granted += model.granted.len();
        lives += model.lives.len();
        isolated += model.lives.values().filter(|place| place.lease.is_some()).count();
        ends += model.isolated_ends;
        keepers += model.keepers;
        names += model.names;
    }
    assert!(keepers > SEEDS && names > SEEDS, "{keepers} keepers, {names} names");
    assert!(
        restarts > SEEDS && granted as u64 > 5 * SEEDS && lives as u64 > 10 * SEEDS,
        "{restarts} restarts, {granted} leases, {lives} lives"
    );
    assert!(isolated as u64 > SEEDS && ends > 0, "{isolated} isolated workers, {ends} have ended by themselves");
}

/// The head is killed before and after each of the writes of a step: each time another finds what was there.
fn swept(model: &mut Model, before: Durable, mut disk: BTreeMap<String, Vec<u8>>, seed: u64, step: u64) {
    let after = durable(&model.house.head, &model.uids);
    let writes: Vec<Effect> = model.house.effects.clone();
    let batches: Vec<_> = writes
        .iter()
        .filter_map(|effect| if let Effect::Persist(writes) = effect { Some(writes) } else { None })
        .collect();
    let moment = model.house.moment();
    let moment = crate::Moment { now: s(0), ..moment };
    for at in 0..=batches.len() {
        let head = Head::recover(HeadConfig::default(), 100 + seed, disk.clone(), moment);
        let head = head.unwrap_or_else(|error| panic!("seed {seed}.{step}, write {at}: {error}"));
        let found = durable(&head, &model.uids);
        let expected = if at == 0 {
            Some(&before)
        } else if at == batches.len() {
            Some(&after)
        } else {
            None
        };
        if let Some(expected) = expected {
            same(expected, &found, seed, step);
        }
        if let Some(batch) = batches.get(at) {
            write(&mut disk, batch);
        }
    }
    assert_eq!(disk, model.house.disk);
    if model.below(60) == 0 {
        model.house.restart();
        model.restarts += 1;
        model.house.heard.clear();
        // Of those that are over the next head knows nothing.
        let held: BTreeSet<_> = model.house.head.leases().into_iter().map(|lease| lease.id).collect();
        model.granted.retain(|lease, _| held.contains(lease));
    }
}

fn same(expected: &Durable, found: &Durable, seed: u64, step: u64) {
    let at = format!("seed {seed}.{step}");
    // Rests are forgotten, so there may be more workers; none is another.
    let ids = |jobs: &[JobRow]| jobs.iter().map(|job| (job.id, job.phase.clone(), job.driver)).collect::<Vec<_>>();
    assert_eq!(ids(&expected.jobs), ids(&found.jobs), "{at}");
    assert_eq!(expected.leases, found.leases, "{at}");
    assert_eq!(expected.groups, found.groups, "{at}");
    assert_eq!((&expected.detached, &expected.guests), (&found.detached, &found.guests), "{at}");
    assert_eq!((&expected.nodes, &expected.gone), (&found.nodes, &found.gone), "{at}");
    for (place, worker) in &expected.workers {
        assert_eq!(found.workers.get(place), Some(worker), "{at}");
    }
    let isolated = |all: &Durable| all.workers.keys().filter(|place| place.lease.is_some()).count();
    assert_eq!(isolated(expected), isolated(found), "{at}: an isolated worker is started once");
}
