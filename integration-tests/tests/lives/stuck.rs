//! Actors that do not get on: who is told, and what becomes of them if they are to be ended.

use std::time::{Duration, Instant};

use futures::StreamExt;
use mobula::{
    ActorRef, Ask, CallError, ChildSpec, Children, ExitReason, RemoteActor, Strategy, StuckActor, Supervisor,
    SupervisorSpec, Work,
};
use mobula_actors::{Node, NodeConfig};
use mobula_integration_tests::actors::{Block, Entered, GateKeeper, Open, Probe, Record};
use mobula_integration_tests::gates;
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::waiter::{Waiter, WaiterRef};
use mobula_integration_tests::{Stage, eventually, suites, within};
use parking_lot::Mutex;

suites! {
    a_turn_that_does_not_end_is_told on [embedded, processes, memory];
    an_exclusive_handler_that_waits_is_told on [embedded, processes, memory];
    whoever_is_busy_for_less_is_not_stuck on [embedded];
    a_handler_that_waits_is_dropped_with_its_actor on [embedded, processes, memory];
    an_actor_that_holds_its_thread_is_declared_ended on [embedded, processes, memory];
    a_supervisor_goes_on_with_another on [embedded, processes];
}

const SOON: Duration = Duration::from_millis(50);

/// Long enough for what is sent meanwhile.
const LATER: Duration = Duration::from_millis(500);

/// A probe that blocks its thread.
struct Blocked {
    keeper: ActorRef<GateKeeper>,
    gate: String,
    blocks: Ask<Block>,
}

async fn block(stage: &Stage, home: usize, probe: &ActorRef<Probe>) -> Blocked {
    let (keeper, gate) = (stage.keeper(home).await, gates::fresh_name());
    let blocks = probe.ask(Block { gate: gate.clone() });
    let entered = keeper.ask(Entered { gate: gate.clone(), count: 1 });
    within(LONG, "the handler", entered).await.expect("the keeper answers");
    Blocked { keeper, gate, blocks }
}

impl Blocked {
    /// Lets it go on. Its caller is still answered.
    async fn release(self) {
        within(LONG, "the keeper", self.keeper.ask(Open { gate: self.gate })).await.expect("the keeper answers");
        within(LONG, "the handler", self.blocks).await.expect("it goes on");
    }
}

/// The next that gets stuck on a home.
async fn next_stuck(stage: &Stage, home: usize) -> StuckActor {
    let mut stuck = stage.caller().watch_stuck(stage.home(home)).expect("it can be reached");
    within(LONG, "the event", stuck.next()).await.expect("the node is there")
}

async fn a_turn_that_does_not_end_is_told(stage: Stage) {
    let probe = stage.spawn(1, Probe::spec(0).own_thread().stuck_after(SOON)).await;
    let held = block(&stage, 1, &probe).await;
    let stuck = next_stuck(&stage, 1).await;
    assert_eq!((&stuck.actor, stuck.work, stuck.killed), (&probe.address(), Work::Turn, false));
    assert_eq!(stuck.message.as_deref(), Some("mobula-integration-tests::Block"));
    assert!(stuck.stuck_for >= SOON && stuck.actor_type.ends_with("::Probe"), "{stuck}");
    let thread = stuck.thread.as_ref().expect("a turn has a thread");
    assert!(thread.number > 0 && !thread.name.is_empty() && thread.state == "S", "{stuck}");
    assert!(stuck.to_string().contains("holds its thread for"), "{stuck}");
    // It is told, and nothing else: the actor goes on when it can.
    held.release().await;
    assert_eq!(within(LONG, "a call", probe.ask(Record(1))).await, Ok(2));
}

async fn an_exclusive_handler_that_waits_is_told(stage: Stage) {
    let (waiter, keeper) = (stage.spawn(1, Waiter::actor(0, None).stuck_after(SOON)).await, stage.keeper(1).await);
    let gate = gates::fresh_name();
    let waits = waiter.record_twice(gate.clone(), 7);
    let stuck = next_stuck(&stage, 1).await;
    assert_eq!((&stuck.actor, stuck.work, stuck.killed), (&waiter.address(), Work::Exclusive, false));
    assert!(stuck.message.as_ref().is_some_and(|message| message.ends_with("::WaiterRecordTwice")), "{stuck}");
    assert_eq!(stuck.thread, None, "the thread is free");
    within(LONG, "the keeper", keeper.ask(Open { gate })).await.expect("it answers");
    assert_eq!(within(LONG, "the answer", waits).await, Ok(3));
}

async fn whoever_is_busy_for_less_is_not_stuck(stage: Stage) {
    // Much longer than anything below takes, so the watchdog has looked at these by the time that another is told.
    let patient = stage.spawn(0, Waiter::actor(0, None).stuck_after(10 * LONG)).await;
    let never = stage.spawn(0, Probe::spec(0).own_thread().stuck_after(Duration::MAX)).await;
    let gate = gates::fresh_name();
    let waits = patient.record_twice(gate.clone(), 7);
    let held = block(&stage, 0, &never).await;
    let other = stage.spawn(0, Probe::spec(0).own_thread().stuck_after(SOON)).await;
    let holds = block(&stage, 0, &other).await;
    assert_eq!(next_stuck(&stage, 0).await.actor, other.address());
    gates::open(&gate);
    held.release().await;
    holds.release().await;
    assert_eq!(within(LONG, "the answer", waits).await, Ok(3));
}

async fn a_handler_that_waits_is_dropped_with_its_actor(stage: Stage) {
    let spec = Waiter::actor(0, None).stuck_after(LATER).kill_when_stuck();
    let waiter = stage.spawn(1, spec).await;
    let monitor = waiter.monitor();
    let (waits, queued) = (waiter.record_twice(gates::fresh_name(), 7), waiter.list());
    assert_eq!(within(LONG, "the end", monitor).await.reason, ExitReason::Killed);
    assert_eq!(within(LONG, "its caller", waits).await, Err(CallError::Cancelled { started: true }));
    assert_eq!(within(LONG, "its mail", queued).await, Err(CallError::Stopped));
    assert!(next_stuck(&stage, 1).await.killed);
}

async fn an_actor_that_holds_its_thread_is_declared_ended(stage: Stage) {
    let spec = || Probe::spec(0).own_thread().stuck_after(LATER).kill_when_stuck().name("holder");
    let probe = stage.spawn(1, spec()).await;
    let monitor = probe.monitor();
    let held = block(&stage, 1, &probe).await;
    let queued = probe.ask(Record(1));
    assert_eq!(within(LONG, "the end", monitor).await.reason, ExitReason::Killed);
    assert_eq!(within(LONG, "its mail", queued).await, Err(CallError::Stopped));
    let refused = within(LONG, "a later call", probe.ask(Record(2))).await;
    assert!(matches!(refused, Err(CallError::Stopped | CallError::NoSuchActor { .. })), "{refused:?}");
    // Its name is free, though its thread is not.
    let next = stage.spawn(1, spec()).await;
    assert_eq!(within(LONG, "the next", next.ask(Record(1))).await, Ok(2));
    assert!(next_stuck(&stage, 1).await.killed);
    held.release().await;
    assert_eq!(within(LONG, "the next", next.ask(Record(1))).await, Ok(3));
}

async fn a_supervisor_goes_on_with_another(stage: Stage) {
    let probe = Probe::spec(0).own_thread().stuck_after(LATER).kill_when_stuck();
    let waiter = Waiter::actor(0, None).stuck_after(LATER).kill_when_stuck();
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .child(ChildSpec::new("probe", probe))
        .child(ChildSpec::new("waiter", waiter));
    let supervisor = stage.spawn(1, Supervisor::spec(spec)).await;
    let child = async || supervisor.child::<Probe>("probe").await.expect("it answers");
    let first = within(LONG, "the child", child()).await.expect("it runs");
    let held = block(&stage, 1, &first).await;
    // What holds a thread is left with it.
    let second = eventually(LONG, "another", async || child().await.filter(|next| *next != first)).await;
    assert_eq!(within(LONG, "the other", second.ask(Record(1))).await, Ok(2));
    held.release().await;
    // What waits begins again in its place.
    let found = within(LONG, "the child", supervisor.child::<Waiter>("waiter")).await.expect("it answers");
    let waiter: ActorRef<Waiter> = found.expect("it runs");
    let (waits, queued) = (waiter.record_twice(gates::fresh_name(), 7), waiter.list());
    assert!(matches!(within(LONG, "its caller", waits).await, Err(CallError::Cancelled { started: true })));
    assert_eq!(within(LONG, "its mail, in the next life", queued).await, Ok(vec![0]));
    assert_eq!(within(LONG, "the children", supervisor.ask(Children { settled: true })).await.expect("some").len(), 2);
}

fn node(arbiters: usize) -> Node {
    Node::start(NodeConfig { arbiters, ..NodeConfig::default() }).expect("a node")
}

#[test]
fn an_arbiter_that_is_held_gets_no_new_actor() {
    run_plain(async {
        let node = node(2);
        let spec = Probe::spec(0).stuck_after(LATER).kill_when_stuck();
        let (probe, gate) = (node.spawn(spec).await.expect("spawned"), gates::fresh_name());
        let monitor = probe.monitor();
        let holds = probe.ask(Block { gate: gate.clone() });
        assert_eq!(within(LONG, "the end", monitor).await.reason, ExitReason::Killed);
        for _ in 0..10 {
            let other = within(LONG, "the spawn", node.spawn(Probe::spec(0))).await.expect("spawned");
            assert_eq!(within(LONG, "a call", other.ask(Record(1))).await, Ok(2));
        }
        gates::open(&gate);
        // The turn that was left to itself still has somebody who waits for it.
        assert_eq!(within(LONG, "its answer", holds).await, Ok(()));
        node.shut_down("the test is over");
    });
}

/// What the scribes of a test have written, in order.
static WRITTEN: Mutex<Vec<(&'static str, u64)>> = Mutex::new(Vec::new());

struct Scribe(u64, u64);

#[mobula::actor]
impl Scribe {
    fn new(id: u64, busy_ms: u64) -> Self {
        Scribe(id, busy_ms)
    }

    fn write(&mut self) {
        let test = if self.1 == 0 { "quick" } else { "slow" };
        WRITTEN.lock().push((test, self.0));
        #[expect(clippy::disallowed_methods, reason = "computes for a while")]
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(self.1) {
            std::hint::spin_loop();
        }
    }
}

/// How many messages a busy scribe handles before its neighbour gets its first turn, all of them on one thread.
async fn before_the_neighbour(test: &'static str, busy_ms: u64, messages: u64) -> usize {
    let node = node(1);
    let blocker = node.spawn(Probe::spec(0)).await.expect("spawned");
    let busy = node.spawn(Scribe::actor(1, busy_ms)).await.expect("spawned");
    let neighbour = node.spawn(Scribe::actor(2, busy_ms)).await.expect("spawned");
    let gate = gates::fresh_name();
    let holds = blocker.ask(Block { gate: gate.clone() });
    gates::entered(&gate, 1).await;
    let many: Vec<_> = (0..messages).map(|_| busy.write()).collect();
    let one = neighbour.write();
    gates::open(&gate);
    within(LONG, "all", async {
        holds.await.expect("it answers");
        one.await.expect("it answers");
        futures::future::try_join_all(many).await.expect("they answer");
    })
    .await;
    node.shut_down("the test is over");
    let written = WRITTEN.lock();
    let mut of_test = written.iter().filter(|(of, _)| *of == test);
    of_test.position(|(_, id)| *id == 2).expect("it has written")
}

#[test]
fn a_turn_ends_after_64_messages_or_5_ms() {
    run_plain(async {
        let before = before_the_neighbour("quick", 0, 300).await;
        assert!((1..=64).contains(&before), "{before}");
        // The third begins before 5 ms are over, the fourth does not.
        let before = before_the_neighbour("slow", 2, 20).await;
        assert!((1..=3).contains(&before), "{before}");
    });
}
