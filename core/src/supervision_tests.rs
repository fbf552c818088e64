//! Cases by hand, and random schedules against what must hold in each.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use super::*;

const SHUTDOWN: Duration = Duration::from_secs(5);

fn policy() -> RestartPolicy {
    RestartPolicy::default()
}

fn boom() -> ExitReason {
    ExitReason::Panicked { text: "boom".to_owned() }
}

/// A supervisor of permanent children, all of them running.
fn running(strategy: Strategy, count: usize, now: Instant) -> (Supervision, Vec<ChildKey>) {
    let mut machine = Supervision::new(strategy, policy());
    let keys = machine.add(vec![(RestartType::Permanent, SHUTDOWN); count], now).expect("it runs");
    for key in &keys {
        assert_eq!(machine.poll_effects(), [Effect::Start(*key)], "each after the one before");
        machine.started(*key, now);
    }
    assert!(machine.is_settled() && machine.poll_effects().is_empty());
    (machine, keys)
}

#[test]
fn one_for_one_restarts_the_one_after_its_rest() {
    let now = Instant::now();
    let (mut machine, keys) = running(Strategy::OneForOne, 3, now);
    machine.ended(keys[1], boom(), now, 0.5);
    assert!(machine.poll_effects().is_empty());
    let at = now + Duration::from_millis(50);
    assert_eq!(machine.next_tick(), Some(at));
    machine.tick(at);
    assert_eq!(machine.poll_effects(), [Effect::Start(keys[1])]);
}

#[test]
fn one_for_all_stops_backwards_and_starts_forwards() {
    let now = Instant::now();
    let (mut machine, keys) = running(Strategy::OneForAll, 3, now);
    machine.ended(keys[1], boom(), now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Stop(keys[2])]);
    machine.ended(keys[2], ExitReason::Shutdown, now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Stop(keys[0])]);
    machine.ended(keys[0], ExitReason::Shutdown, now, 0.5);
    machine.tick(now + Duration::from_millis(50));
    for key in keys {
        assert_eq!(machine.poll_effects(), [Effect::Start(key)]);
        machine.started(key, now + Duration::from_millis(50));
    }
    assert!(machine.is_settled());
}

#[test]
fn rest_for_one_leaves_those_before_alone() {
    let now = Instant::now();
    let (mut machine, keys) = running(Strategy::RestForOne, 3, now);
    machine.ended(keys[1], boom(), now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Stop(keys[2])]);
    machine.ended(keys[2], ExitReason::Shutdown, now, 0.5);
    let now = now + Duration::from_millis(50);
    machine.tick(now);
    assert_eq!(machine.poll_effects(), [Effect::Start(keys[1])]);
    machine.started(keys[1], now);
    assert_eq!(machine.poll_effects(), [Effect::Start(keys[2])]);
    assert_eq!(machine.state_of(keys[0]), Some(ChildState::Running));
}

/// Seed 987 of the simulator: it was forgotten, neither started nor dismissed.
#[test]
fn a_temporary_child_that_has_not_begun_is_started_after_a_failure_before_it() {
    let now = Instant::now();
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut machine = Supervision::new(strategy, policy());
        let children = [(RestartType::Permanent, SHUTDOWN), (RestartType::Temporary, SHUTDOWN)];
        let keys = machine.add(children, now).expect("it runs");
        assert_eq!(machine.poll_effects(), [Effect::Start(keys[0])]);
        machine.ended(keys[0], boom(), now, 0.5);
        let now = machine.next_tick().expect("it rests");
        machine.tick(now);
        assert_eq!(machine.poll_effects(), [Effect::Start(keys[0])], "{strategy:?}");
        machine.started(keys[0], now);
        assert_eq!(machine.poll_effects(), [Effect::Start(keys[1])], "{strategy:?}");
        machine.started(keys[1], now);
        assert!(machine.is_settled(), "{strategy:?}");
    }
}

#[test]
fn who_restarts_after_which_end() {
    let now = Instant::now();
    for (restart, reason, returns) in [
        (RestartType::Permanent, ExitReason::Normal, true),
        (RestartType::Permanent, boom(), true),
        (RestartType::Transient, ExitReason::Normal, false),
        (RestartType::Transient, ExitReason::Shutdown, false),
        (RestartType::Transient, ExitReason::Killed, true),
        (RestartType::Temporary, boom(), false),
    ] {
        let mut machine = Supervision::new(Strategy::OneForOne, policy());
        let key = machine.add([(restart, SHUTDOWN)], now).expect("it runs")[0];
        machine.started(key, now);
        machine.poll_effects();
        machine.ended(key, reason.clone(), now, 0.5);
        let expected = if returns { vec![] } else { vec![Effect::Dismiss(key)] };
        assert_eq!(machine.poll_effects(), expected, "{restart:?} {reason}");
        let is_known = restart != RestartType::Temporary;
        assert_eq!(machine.state_of(key).is_some(), is_known, "{restart:?}");
    }
}

#[test]
fn beyond_the_intensity_it_stops_all_and_ends_with_the_cause() {
    let mut now = Instant::now();
    let (mut machine, keys) = running(Strategy::OneForOne, 3, now);
    for _ in 0..3 {
        machine.ended(keys[1], boom(), now, 0.5);
        now = machine.next_tick().expect("it rests");
        machine.tick(now);
        assert_eq!(machine.poll_effects(), [Effect::Start(keys[1])]);
        machine.started(keys[1], now);
    }
    machine.ended(keys[1], boom(), now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Dismiss(keys[1]), Effect::Stop(keys[2])]);
    machine.ended(keys[2], ExitReason::Shutdown, now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Dismiss(keys[2]), Effect::Stop(keys[0])]);
    machine.ended(keys[0], ExitReason::Shutdown, now, 0.5);
    let end = Effect::End(Some((keys[1], boom())));
    assert_eq!(machine.poll_effects(), [Effect::Dismiss(keys[0]), end]);
    assert!(machine.is_over());
}

#[test]
fn who_does_not_stop_in_time_is_killed_and_then_given_up() {
    let now = Instant::now();
    let (mut machine, keys) = running(Strategy::OneForOne, 2, now);
    machine.stop(now);
    assert_eq!(machine.poll_effects(), [Effect::Stop(keys[1])]);
    let kill = now + SHUTDOWN;
    assert_eq!(machine.next_tick(), Some(kill));
    machine.tick(kill - Duration::from_millis(1));
    assert!(machine.poll_effects().is_empty());
    machine.tick(kill);
    assert_eq!(machine.poll_effects(), [Effect::Kill(keys[1])]);
    machine.tick(kill + limits::KILL_WAIT);
    let expected = [Effect::Abandon(keys[1]), Effect::Dismiss(keys[1]), Effect::Stop(keys[0])];
    assert_eq!(machine.poll_effects(), expected);
}

#[test]
fn children_come_and_go() {
    let now = Instant::now();
    let (mut machine, keys) = running(Strategy::OneForOne, 1, now);
    assert_eq!(machine.delete(keys[0]), Err(ChildError::Running));
    assert_eq!(machine.restart(keys[0], now), Err(ChildError::Running));
    machine.terminate(keys[0], now).expect("it runs");
    assert_eq!(machine.poll_effects(), [Effect::Stop(keys[0])]);
    machine.ended(keys[0], ExitReason::Shutdown, now, 0.5);
    assert_eq!(machine.poll_effects(), [Effect::Dismiss(keys[0])]);
    machine.restart(keys[0], now).expect("it is off");
    assert_eq!(machine.poll_effects(), [Effect::Start(keys[0])]);
    machine.started(keys[0], now);
    machine.terminate(keys[0], now).expect("it runs");
    machine.ended(keys[0], ExitReason::Shutdown, now, 0.5);
    machine.delete(keys[0]).expect("it is off");
    assert_eq!(machine.terminate(keys[0], now), Err(ChildError::Unknown));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)) % bound
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Real {
    Gone,
    Starting,
    Running,
    Stopping,
    Dead,
}

struct World {
    machine: Supervision,
    strategy: Strategy,
    real: BTreeMap<ChildKey, Real>,
    failures: Vec<Instant>,
    terminated: BTreeSet<ChildKey>,
    now: Instant,
    over: bool,
}

impl World {
    /// Takes the machine at its word, and checks it.
    fn obey(&mut self) {
        for effect in self.machine.poll_effects() {
            assert!(!self.over, "{effect:?} after the end");
            match effect {
                Effect::Start(key) => {
                    let starting = self.real.values().filter(|real| **real == Real::Starting).count();
                    assert!(self.strategy == Strategy::OneForOne || starting == 0, "two start at once");
                    let before = self.real.insert(key, Real::Starting);
                    assert!(matches!(before, None | Some(Real::Gone | Real::Dead)), "{before:?} is started");
                }
                Effect::Stop(key) => {
                    let stopping = self.real.values().filter(|real| **real == Real::Stopping).count();
                    assert!(self.strategy == Strategy::OneForOne || stopping <= 1, "all stop at once");
                    let before = self.real.insert(key, Real::Stopping);
                    assert!(matches!(before, Some(Real::Starting | Real::Running)), "{before:?} is stopped");
                }
                Effect::Kill(key) => assert_eq!(self.real[&key], Real::Stopping),
                Effect::Abandon(key) => {
                    assert_eq!(self.real.insert(key, Real::Gone), Some(Real::Stopping));
                }
                Effect::Dismiss(key) => {
                    let before = self.real.insert(key, Real::Gone);
                    assert!(matches!(before, None | Some(Real::Gone | Real::Dead)), "{before:?} is dismissed");
                }
                Effect::End(_) => {
                    assert!(self.real.values().all(|real| *real == Real::Gone), "{:?} at the end", self.real);
                    self.over = true;
                }
            }
        }
    }

    fn die(&mut self, key: ChildKey, reason: ExitReason) {
        let before = self.real.insert(key, Real::Dead);
        let by_itself = matches!(before, Some(Real::Starting | Real::Running));
        if by_itself && !self.machine.is_ending() {
            self.failures.push(self.now);
        }
        self.machine.ended(key, reason, self.now, 0.5);
        self.obey();
    }

    /// Everything that was asked for comes true, and nothing else happens.
    fn quiet(&mut self) {
        for _ in 0..10_000 {
            let open = self.real.iter().find(|(_, real)| matches!(real, Real::Starting | Real::Stopping));
            match open.map(|(key, real)| (*key, *real)) {
                Some((key, Real::Starting)) => {
                    self.real.insert(key, Real::Running);
                    self.machine.started(key, self.now);
                }
                Some((key, _)) => return_to(self, key),
                None => match self.machine.next_tick() {
                    Some(at) => {
                        self.now = self.now.max(at);
                        self.machine.tick(self.now);
                    }
                    None => return,
                },
            }
            self.obey();
        }
        panic!("it does not come to rest");
    }
}

fn return_to(world: &mut World, key: ChildKey) {
    world.real.insert(key, Real::Dead);
    world.machine.ended(key, ExitReason::Shutdown, world.now, 0.5);
}

fn schedule(seed: u64) {
    let mut random = Random(seed);
    let strategy = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne][random.below(3) as usize];
    let now = Instant::now();
    let mut world = World {
        machine: Supervision::new(strategy, policy()),
        strategy,
        real: BTreeMap::new(),
        failures: Vec::new(),
        terminated: BTreeSet::new(),
        now,
        over: false,
    };
    let types = [RestartType::Permanent, RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
    let mut kinds = BTreeMap::new();
    for _ in 0..1 + random.below(5) {
        let kind = types[random.below(4) as usize];
        let key = world.machine.add([(kind, SHUTDOWN)], now).expect("it runs")[0];
        kinds.insert(key, kind);
    }
    world.obey();
    for _ in 0..random.below(200) {
        let keys: Vec<_> = kinds.keys().copied().collect();
        let key = keys[random.below(keys.len() as u64) as usize];
        let real = world.real.get(&key).copied().unwrap_or(Real::Gone);
        match (random.below(12), real) {
            (0..4, Real::Starting) => {
                world.real.insert(key, Real::Running);
                world.machine.started(key, world.now);
            }
            (4, Real::Starting | Real::Running) => world.die(key, boom()),
            (0..5, Real::Stopping) => world.die(key, ExitReason::Shutdown),
            (5 | 6, _) => world.now += Duration::from_millis(random.below(8000)),
            (7 | 8, _) => {
                world.now += Duration::from_millis(random.below(500));
                world.machine.tick(world.now);
            }
            (9, _) if random.below(4) == 0 && world.machine.terminate(key, world.now).is_ok() => {
                world.terminated.insert(key);
            }
            (10, _) if world.machine.restart(key, world.now).is_ok() => {
                world.terminated.remove(&key);
            }
            (11, _) if random.below(40) == 0 => world.machine.stop(world.now),
            _ => {}
        }
        world.obey();
        let recent = world.failures.iter().filter(|at| world.now - **at < policy().window).count();
        let only_permanent = kinds.values().all(|kind| *kind == RestartType::Permanent);
        assert!(!only_permanent || recent <= 3 || world.machine.is_ending(), "{recent} failures, and it goes on");
    }
    world.quiet();
    assert_eq!(world.over, world.machine.is_ending(), "whoever ends comes to the end");
    for (key, kind) in kinds {
        let is_up = world.machine.state_of(key) == Some(ChildState::Running);
        if kind == RestartType::Permanent && !world.over && !world.terminated.contains(&key) {
            assert!(is_up, "a permanent child is off: {key:?}");
        }
    }
    world.machine.stop(world.now);
    world.obey();
    world.quiet();
    assert!(world.over && world.machine.is_over());
}

#[test]
fn any_schedule_keeps_the_promises() {
    for seed in 0..3000 {
        if std::panic::catch_unwind(|| schedule(seed)).is_err() {
            panic!("seed {seed}");
        }
    }
}
