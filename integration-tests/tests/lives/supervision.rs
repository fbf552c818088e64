//! Trees of supervisors: who is started, stopped and restarted, in which order, and what is told at the end.

use std::time::Duration;

use futures::StreamExt;
use mobula::{
    ActorRef, AddChild, CallError, ChildError, ChildSpec, ChildState, Children, Cluster, DeleteChild, ExitReason,
    Generation, Orphans, Recipient, RemoteActor, RestartChild, Restarted, Strategy, Supervisor, SupervisorError,
    SupervisorSpec, TerminateChild,
};
use mobula_integration_tests::actors::{Log, Panic, Probe, Record};
use mobula_integration_tests::mortals::{EndNow, Greet, Hasty, How, Mortal, OneStart, Worker, WorkerArgs};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::tasks::square;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_failed_child_keeps_what_points_to_it on [embedded, processes, memory];
    children_start_in_order_and_stop_in_reverse on [embedded, processes, memory];
    one_for_all_restarts_all on [embedded, processes, memory];
    rest_for_one_restarts_those_behind on [embedded, processes, memory];
    each_type_of_child_restarts_after_its_ends on [embedded, processes, memory];
    a_child_that_does_not_stop_is_killed on [embedded, processes, memory];
    used_up_restarts_end_the_supervisor_with_the_cause on [embedded, processes, memory];
    a_nested_supervisor_is_restarted_and_its_cause_goes_up on [embedded, processes, memory];
    a_supervisor_that_is_killed_takes_its_children_with_it on [embedded, processes, memory];
    children_are_added_terminated_restarted_and_deleted on [embedded, processes, memory];
    a_child_of_another_node_is_restarted_there on [embedded, processes, memory];
    children_of_a_lost_supervisor_stop_or_go_on on [processes];
    a_child_of_a_lost_node_starts_elsewhere on [processes];
    the_tree_shows_who_supervises_whom on [embedded, processes];
    restarts_can_be_watched on [embedded, processes, memory];
    a_start_that_fails_again_backs_off_and_gives_up on [embedded, processes];
    a_panic_of_the_first_message_is_no_failed_start on [embedded, memory];
}

/// A supervisor on the first home, which restarts soon.
async fn supervise(stage: &Stage, spec: SupervisorSpec) -> ActorRef<Supervisor> {
    stage.spawn(0, Supervisor::spec(quick(spec))).await
}

fn quick(spec: SupervisorSpec) -> SupervisorSpec {
    spec.backoff(Duration::from_millis(1), Duration::from_millis(10))
}

async fn child<A: RemoteActor>(supervisor: &ActorRef<Supervisor>, id: &str) -> ActorRef<A> {
    let found = within(LONG, "the child", supervisor.child::<A>(id)).await.expect("the supervisor answers");
    found.unwrap_or_else(|| panic!("no child {id}"))
}

/// Workers 1, 2 and 3, which write into the log.
fn workers(strategy: Strategy, log: &ActorRef<Probe>) -> SupervisorSpec {
    (1..=3).fold(SupervisorSpec::new(strategy), |spec, number| {
        let worker = Worker::spec(WorkerArgs { number, log: log.clone().into(), stays: false });
        spec.child(ChildSpec::new(number.to_string(), worker))
    })
}

/// The log once it has so many numbers, its own first one not counted.
async fn logged(log: &ActorRef<Probe>, count: usize) -> Vec<u64> {
    eventually(LONG, "the log", async || {
        let log = log.ask(Log).await.expect("it answers");
        (log.len() > count).then(|| log[1..].to_vec())
    })
    .await
}

async fn panic_in<A>(actor: &ActorRef<A>)
where
    A: RemoteActor + actix::Handler<EndNow>,
{
    let panicked = within(LONG, "the panic", actor.ask(EndNow::silently(How::Panic("boom".to_owned())))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
}

async fn a_failed_child_keeps_what_points_to_it(stage: Stage) {
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("one", Probe::spec(1).name("phoenix")))
        .child(ChildSpec::new("two", Probe::spec(2)));
    let supervisor = supervise(&stage, spec).await;
    let (one, two) = (child::<Probe>(&supervisor, "one").await, child::<Probe>(&supervisor, "two").await);
    let mut monitor = one.monitor();
    assert_eq!(within(LONG, "a call", two.ask(Record(7))).await, Ok(2));
    let panicked = one.ask(Panic("boom".to_owned()));
    // Mail waits for the next life, as ever.
    let queued = one.ask(Record(5));
    let panicked = within(LONG, "the panic", panicked).await;
    assert!(matches!(panicked, Err(CallError::Panicked { generation: Generation(0), .. })), "{panicked:?}");
    assert_eq!(within(LONG, "the next life", queued).await, Ok(2));
    assert_eq!(one.ask(Log).await, Ok(vec![1, 5]));
    assert_eq!(two.ask(Log).await, Ok(vec![2, 7]), "the neighbour was not restarted");
    assert_eq!(child::<Probe>(&supervisor, "one").await, one);
    assert_eq!(stage.caller().find::<Probe>("phoenix").await, Ok(Some(one.clone())));
    assert_eq!(futures::FutureExt::now_or_never(&mut monitor), None, "a restart is no end");
    // Told to stop, a permanent child begins again: only its supervisor ends it for good.
    within(LONG, "the order", one.stop()).await.expect("it arrives");
    eventually(LONG, "a new life", async || (one.ask(Log).await == Ok(vec![1])).then_some(())).await;
    within(LONG, "the order", supervisor.stop()).await.expect("it arrives");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
}

async fn children_start_in_order_and_stop_in_reverse(stage: Stage) {
    let log = stage.probe(0).await;
    let supervisor = supervise(&stage, workers(Strategy::OneForOne, &log)).await;
    assert_eq!(logged(&log, 3).await, [1, 2, 3]);
    let monitor = supervisor.monitor();
    within(LONG, "the order", supervisor.stop()).await.expect("it arrives");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
    assert_eq!(logged(&log, 6).await, [1, 2, 3, 103, 102, 101]);
}

async fn one_for_all_restarts_all(stage: Stage) {
    let log = stage.probe(0).await;
    let supervisor = supervise(&stage, workers(Strategy::OneForAll, &log)).await;
    let (first, second) = (child::<Worker>(&supervisor, "1").await, child::<Worker>(&supervisor, "2").await);
    panic_in(&second).await;
    assert_eq!(logged(&log, 8).await, [1, 2, 3, 103, 101, 1, 2, 3]);
    assert_eq!(child::<Worker>(&supervisor, "1").await, first);
    assert_eq!(within(LONG, "the old reference", second.ask(Greet)).await, Ok(()));
}

async fn rest_for_one_restarts_those_behind(stage: Stage) {
    let log = stage.probe(0).await;
    let supervisor = supervise(&stage, workers(Strategy::RestForOne, &log)).await;
    panic_in(&child::<Worker>(&supervisor, "2").await).await;
    assert_eq!(logged(&log, 6).await, [1, 2, 3, 103, 2, 3]);
}

/// How a child is doing, once that is so.
async fn becomes(supervisor: &ActorRef<Supervisor>, id: &str, state: Option<ChildState>) {
    eventually(LONG, "the child", async || {
        let children = supervisor.ask(Children { settled: false }).await.expect("the supervisor answers");
        (children.iter().find(|child| child.id == id).map(|child| child.state) == state).then_some(())
    })
    .await;
}

async fn each_type_of_child_restarts_after_its_ends(stage: Stage) {
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("permanent", Mortal::spec(())))
        .child(ChildSpec::new("transient", Mortal::spec(())).transient())
        .child(ChildSpec::new("temporary", Mortal::spec(())).temporary());
    let supervisor = supervise(&stage, spec).await;
    let permanent = child::<Mortal>(&supervisor, "permanent").await;
    within(LONG, "the end", permanent.ask(EndNow::silently(How::Stop))).await.expect("it answers");
    assert_eq!(within(LONG, "a new life", permanent.ask(Greet)).await, Ok(()));
    let transient = child::<Mortal>(&supervisor, "transient").await;
    within(LONG, "the end", transient.ask(EndNow::silently(How::Error("once".to_owned())))).await.expect("it answers");
    assert_eq!(within(LONG, "a new life", transient.ask(Greet)).await, Ok(()));
    let monitor = transient.monitor();
    within(LONG, "the end", transient.ask(EndNow::silently(How::Stop))).await.expect("it answers");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Normal);
    becomes(&supervisor, "transient", Some(ChildState::Off)).await;
    let temporary = child::<Mortal>(&supervisor, "temporary").await;
    let monitor = temporary.monitor();
    panic_in(&temporary).await;
    let reason = within(LONG, "its end", monitor).await.reason;
    assert_eq!(reason, ExitReason::Panicked { text: "boom".to_owned() });
    becomes(&supervisor, "temporary", None).await;
}

async fn a_child_that_does_not_stop_is_killed(stage: Stage) {
    let log = stage.probe(0).await;
    let stays = Worker::spec(WorkerArgs { number: 1, log: log.clone().into(), stays: true });
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("stays", stays).shutdown(Duration::from_millis(50)));
    let supervisor = supervise(&stage, spec).await;
    let monitors = [child::<Worker>(&supervisor, "stays").await.monitor(), supervisor.monitor()];
    within(LONG, "the order", supervisor.stop()).await.expect("it arrives");
    let [worker, supervisor] = monitors;
    assert_eq!(within(LONG, "its end", worker).await.reason, ExitReason::Killed);
    assert_eq!(within(LONG, "its end", supervisor).await.reason, ExitReason::Shutdown);
    assert_eq!(logged(&log, 1).await, [1], "none of its hooks ran");
}

async fn used_up_restarts_end_the_supervisor_with_the_cause(stage: Stage) {
    let log = stage.probe(0).await;
    let spec = workers(Strategy::OneForOne, &log).intensity(2, Duration::from_secs(60));
    let supervisor = supervise(&stage, spec).await;
    let second = child::<Worker>(&supervisor, "2").await;
    let (monitor, child_monitor) = (supervisor.monitor(), second.monitor());
    for _ in 0..3 {
        panic_in(&second).await;
    }
    let boom = ExitReason::Panicked { text: "boom".to_owned() };
    let reason = within(LONG, "its end", monitor).await.reason;
    assert_eq!(reason, ExitReason::child_failed("2".to_owned(), boom.clone()));
    assert_eq!(within(LONG, "the child's end", child_monitor).await.reason, boom);
    // The others were stopped, in reverse.
    assert_eq!(logged(&log, 7).await, [1, 2, 3, 2, 2, 103, 101]);
}

async fn a_nested_supervisor_is_restarted_and_its_cause_goes_up(stage: Stage) {
    let inner = SupervisorSpec::new(Strategy::OneForOne).intensity(0, Duration::from_secs(60));
    let inner = inner.child(ChildSpec::new("mortal", Mortal::spec(())));
    let outer = SupervisorSpec::new(Strategy::OneForOne).intensity(1, Duration::from_secs(60));
    let outer = supervise(&stage, outer.child(ChildSpec::new("inner", Supervisor::spec(inner)))).await;
    let monitor = outer.monitor();
    let inner = child::<Supervisor>(&outer, "inner").await;
    let mut mortals = Vec::new();
    for _ in 0..2 {
        let mortal = eventually(LONG, "the next mortal", async || {
            let found = inner.child::<Mortal>("mortal").await.ok().flatten()?;
            (mortals.last() != Some(&found)).then_some(found)
        })
        .await;
        panic_in(&mortal).await;
        mortals.push(mortal);
    }
    let reason = within(LONG, "its end", monitor).await.reason;
    let boom = ExitReason::Panicked { text: "boom".to_owned() };
    let expected = ExitReason::child_failed("mortal".to_owned(), boom.clone());
    assert_eq!(reason, ExitReason::child_failed("inner".to_owned(), expected));
    assert_eq!(reason.root_cause(), &boom);
    assert!(reason.to_string().contains("inner") && reason.to_string().ends_with("boom"), "{reason}");
}

async fn a_supervisor_that_is_killed_takes_its_children_with_it(stage: Stage) {
    let away = Mortal::spec(()).node_affinity(stage.home(1));
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("here", Mortal::spec(())))
        .child(ChildSpec::new("away", away));
    let supervisor = supervise(&stage, spec).await;
    for id in ["here", "away"] {
        let mortal = child::<Mortal>(&supervisor, id).await;
        assert_eq!(mortal.node(), stage.home(usize::from(id == "away")));
        assert_eq!(within(LONG, "the child", mortal.ask(Greet)).await, Ok(()));
    }
    let monitors =
        [child::<Mortal>(&supervisor, "here").await.monitor(), child::<Mortal>(&supervisor, "away").await.monitor()];
    supervisor.kill().await.expect("it arrives");
    for monitor in monitors {
        let reason = within(LONG, "its end", monitor).await.reason;
        assert!(matches!(reason, ExitReason::Killed | ExitReason::NoProc), "{reason}");
    }
}

async fn children_are_added_terminated_restarted_and_deleted(stage: Stage) {
    let supervisor = supervise(&stage, SupervisorSpec::new(Strategy::OneForOne)).await;
    let add = || AddChild(ChildSpec::new("mortal", Mortal::spec(())));
    let id = || "mortal".to_owned();
    assert_eq!(within(LONG, "an answer", supervisor.ask(add())).await, Ok(Ok(())));
    let taken = SupervisorError::Taken { id: id() };
    assert_eq!(within(LONG, "an answer", supervisor.ask(add())).await, Ok(Err(taken)));
    let mortal = child::<Mortal>(&supervisor, "mortal").await;
    let refused = |error| Ok(Err(SupervisorError::Child { id: id(), error }));
    let running = refused(ChildError::Running);
    assert_eq!(within(LONG, "an answer", supervisor.ask(DeleteChild(id()))).await, running);
    let monitor = mortal.monitor();
    assert_eq!(within(LONG, "an answer", supervisor.ask(TerminateChild(id()))).await, Ok(Ok(())));
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
    becomes(&supervisor, "mortal", Some(ChildState::Off)).await;
    assert_eq!(within(LONG, "an answer", supervisor.ask(RestartChild(id()))).await, Ok(Ok(())));
    let again = child::<Mortal>(&supervisor, "mortal").await;
    assert_ne!(again, mortal, "a new actor");
    assert_eq!(within(LONG, "the child", again.ask(Greet)).await, Ok(()));
    assert_eq!(within(LONG, "an answer", supervisor.ask(TerminateChild(id()))).await, Ok(Ok(())));
    becomes(&supervisor, "mortal", Some(ChildState::Off)).await;
    assert_eq!(within(LONG, "an answer", supervisor.ask(DeleteChild(id()))).await, Ok(Ok(())));
    let unknown = refused(ChildError::Unknown);
    assert_eq!(within(LONG, "an answer", supervisor.ask(TerminateChild(id()))).await, unknown);
}

async fn a_child_of_another_node_is_restarted_there(stage: Stage) {
    let away = Probe::spec(3).node_affinity(stage.home(1));
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("away", away));
    let supervisor = supervise(&stage, spec).await;
    let away = child::<Probe>(&supervisor, "away").await;
    assert_eq!(away.node(), stage.home(1));
    for _ in 0..2 {
        let panicked = within(LONG, "the panic", away.ask(Panic("boom".to_owned()))).await;
        assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
        assert_eq!(within(LONG, "the next life", away.ask(Record(1))).await, Ok(2));
    }
    assert_eq!(child::<Probe>(&supervisor, "away").await, away);
    let monitor = away.monitor();
    within(LONG, "the order", supervisor.stop()).await.expect("it arrives");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
}

async fn children_of_a_lost_supervisor_stop_or_go_on(stage: Stage) {
    let away = || Probe::spec(3).node_affinity(stage.home(1)).backoff(Duration::from_millis(1));
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("stops", away()))
        .child(ChildSpec::new("goes on", away()).orphans(Orphans::Detach));
    let supervisor = supervise(&stage, spec).await;
    let (stops, goes_on) = (child::<Probe>(&supervisor, "stops").await, child::<Probe>(&supervisor, "goes on").await);
    let monitor = stops.monitor();
    within(LONG, "a call", stops.ask(Record(1))).await.expect("it answers");
    Process::of(stage.pid(0)).signal(Signal::KILL);
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
    // Without a supervisor its own policy holds.
    let panicked = within(LONG, "the panic", goes_on.ask(Panic("boom".to_owned()))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    assert_eq!(within(LONG, "the next life", goes_on.ask(Record(1))).await, Ok(2));
}

async fn a_child_of_a_lost_node_starts_elsewhere(stage: Stage) {
    let spec = (0..2).fold(SupervisorSpec::new(Strategy::OneForOne), |spec, number| {
        spec.child(ChildSpec::new(number.to_string(), Probe::spec(number).spread()))
    });
    let supervisor = supervise(&stage, spec).await;
    let mut away = None;
    for id in ["0", "1"] {
        let probe = child::<Probe>(&supervisor, id).await;
        if probe.node() == stage.home(1) {
            away = Some((id, probe));
        }
    }
    let (id, lost) = away.expect("one of two is spread to the second node");
    Process::of(stage.pid(1)).signal(Signal::KILL);
    let moved = eventually(LONG, "the child elsewhere", async || {
        let found = supervisor.child::<Probe>(id).await.expect("the supervisor lives");
        found.filter(|found| *found != lost)
    })
    .await;
    assert_eq!(moved.node(), stage.home(0));
    assert_eq!(within(LONG, "the moved child", moved.ask(Record(1))).await, Ok(2));
}

async fn the_tree_shows_who_supervises_whom(stage: Stage) {
    let inner = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::new("away", Mortal::spec(()).node_affinity(stage.home(1))));
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("inner", Supervisor::spec(inner)));
    let outer = supervise(&stage, spec).await;
    let inner = child::<Supervisor>(&outer, "inner").await;
    let away = child::<Mortal>(&inner, "away").await;
    panic_in(&away).await;
    within(LONG, "the next life", away.ask(Greet)).await.expect("it answers");
    within(LONG, "a task", stage.cluster().submit(square::task(4))).await.expect("it runs");
    let tree = within(LONG, "the tree", stage.cluster().supervision_tree()).await.expect("the nodes answer");
    let children: Vec<_> = tree.children_of(&inner.address()).collect();
    assert!(matches!(&children[..], [child] if child.actor == away.address()), "{tree}");
    assert_eq!(children[0].generation, Generation(1));
    let line = format!("    away: mobula-integration-tests::Mortal {}, restarted 1x", away.address());
    let text = tree.to_string();
    assert!(text.lines().any(|shown| shown == line), "{text}");
    // Task actors stand in a tree as all others do.
    assert!(text.contains("  task-1: mobula::TaskRunner"), "{text}");
}

async fn restarts_can_be_watched(stage: Stage) {
    let own = stage.spawn(0, Probe::spec(0).backoff(Duration::from_millis(1))).await;
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("probe", Probe::spec(0)));
    let supervisor = supervise(&stage, spec).await;
    for probe in [own, child::<Probe>(&supervisor, "probe").await] {
        let mut restarts = probe.watch_restarts();
        // The watch goes by the control connection, this call by the other.
        stage.caller().report_of(probe.node()).await.expect("it answers");
        for life in 1..=2 {
            let text = format!("boom {life}");
            let panicked = within(LONG, "the panic", probe.ask(Panic(text.clone()))).await;
            assert!(panicked.is_err());
            let restarted = within(LONG, "the news", restarts.next()).await.expect("it goes on");
            let (actor, reason) = (probe.address(), ExitReason::Panicked { text });
            assert_eq!(restarted, Restarted { actor, generation: Generation(life), reason });
        }
        // The one that has no supervisor ends by this, the child by its supervisor's end.
        probe.stop().await.expect("it arrives");
        if let Ok(Some(child)) = supervisor.child::<Probe>("probe").await
            && child == probe
        {
            let restarted = within(LONG, "the news", restarts.next()).await.expect("it goes on");
            assert_eq!((restarted.generation, restarted.reason), (Generation(3), ExitReason::Shutdown));
            supervisor.stop().await.expect("it arrives");
        }
        assert_eq!(within(LONG, "the end", restarts.next()).await, None);
    }
}

async fn a_start_that_fails_again_backs_off_and_gives_up(stage: Stage) {
    let log = stage.probe(0).await;
    let to: Recipient<Record> = log.clone().into();
    let one = stage.spawn(0, OneStart::spec(to).backoff(Duration::from_millis(10)).restarts(3)).await;
    let monitor = one.monitor();
    let panicked = within(LONG, "the panic", one.ask(EndNow::silently(How::Stop))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    let reason = within(LONG, "its end", monitor).await.reason;
    assert_eq!(reason, ExitReason::Panicked { text: "no second start".to_owned() });
    // The first start, and three restarts.
    assert_eq!(logged(&log, 4).await, [0; 4]);
}

async fn a_panic_of_the_first_message_is_no_failed_start(stage: Stage) {
    let spec = Hasty::spec(()).backoff(Duration::from_millis(1)).restarts(2);
    let spawned = stage.caller().spawn_monitor(stage.home(0), spec);
    let (_, monitor) = within(LONG, "the spawn", spawned).await.expect("`started` returned");
    let reason = within(LONG, "its end", monitor).await.reason;
    assert_eq!(reason, ExitReason::Panicked { text: "too soon".to_owned() });
}

/// The node of the supervisor is frozen: no connection ends, and nothing is heard.
#[test]
fn a_child_of_a_frozen_supervisor_stops_when_its_lease_is_over() {
    run_plain(async {
        let builder = Cluster::builder().nodes(2).cpus_per_node(1).lease(Duration::from_secs(2));
        let cluster = builder.executable(env!("CARGO_BIN_EXE_node_host")).connect().await.expect("a cluster");
        let nodes = cluster.nodes();
        let away = |orphans| {
            ChildSpec::new(format!("{orphans:?}"), Probe::spec(3).node_affinity(&nodes[1].id)).orphans(orphans)
        };
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(away(Orphans::Stop)).child(away(Orphans::Detach));
        let supervisor = cluster.spawn(Supervisor::spec(spec).node_affinity(&nodes[0].id)).await.expect("spawned");
        let (stops, stays) = (child::<Probe>(&supervisor, "Stop").await, child::<Probe>(&supervisor, "Detach").await);
        let end = stops.monitor();
        let frozen = Process::of(nodes[0].pid);
        frozen.signal(Signal::STOP);
        assert_eq!(within(LONG, "the end", end).await.reason, ExitReason::Shutdown);
        assert_eq!(within(LONG, "the other", stays.ask(Record(1))).await, Ok(2));
        frozen.signal(Signal::CONT);
    });
}
