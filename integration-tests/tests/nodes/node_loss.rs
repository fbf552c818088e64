//! A node process that is killed: who waits for it hears at once, everybody else goes on.
#![allow(clippy::disallowed_methods, reason = "it measures how long a caller waits for bad news")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use mobula::{CallError, Cluster, ExitReason, Outcome, Placement, RemoteActor, SpawnError};
use mobula_core::limits;
use mobula_integration_tests::actors::{Forward, Log, Probe, Record, Relay};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};
use mobula_transport::{Lane, memory};

suites! {
    pending_asks_to_a_killed_process_fail_at_once on [processes];
    what_never_left_was_not_sent on [processes];
    other_nodes_hear_of_a_killed_process on [processes];
    a_node_hears_of_the_end_of_one_that_connected_to_it on [processes];
    a_killed_node_is_known_to_be_down on [processes];
    shutdown_ends_a_stopped_node on [processes];
    a_node_that_shuts_down_fails_its_callers on [memory];
    the_end_of_a_second_link_is_not_the_end_of_the_node on [memory];
}

/// Bad news travels fast: pending asks fail within this time of the kill.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn pending_asks_to_a_killed_process_fail_at_once(stage: Stage) {
    let (probe, other) = (stage.probe(0).await, stage.probe(1).await);
    let held = stage.hold(&probe).await;
    let pending: Vec<_> = (0..100).map(|number| probe.ask(Record(number))).collect();
    // All of them have arrived, for this one has.
    assert_eq!(within(LONG, "its neighbour", stage.probe(0).await.ask(Record(1))).await, Ok(2));

    let killed = Instant::now();
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let running = within(AT_ONCE, "the running ask", held.holding).await.expect_err("its process is gone");
    let failed = within(AT_ONCE, "the pending asks", join_all(pending)).await;
    let took = killed.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    println!("kill -9 to the last of {} errors: {:.1} ms; {running}", failed.len() + 1, took.as_secs_f64() * 1000.0);
    for error in failed.into_iter().map(|failed| failed.expect_err("its process is gone")).chain([running]) {
        assert!(matches!(&error, CallError::Unreachable { node, sent: true, .. } if node == stage.home(0)), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    for _ in 0..3 {
        let later = within(AT_ONCE, "a later ask", probe.ask(Record(1))).await.expect_err("its process is gone");
        assert!(matches!(&later, CallError::Unreachable { sent: false, .. }), "{later}");
        assert_eq!(later.outcome(), Outcome::NotSent);
    }
    assert!(matches!(probe.try_tell(Record(1)), Err(CallError::Unreachable { sent: false, .. })));
    assert!(matches!(within(AT_ONCE, "an order", probe.stop()).await, Err(CallError::Unreachable { .. })));
    assert_eq!(within(LONG, "the other node", other.ask(Record(1))).await, Ok(2));
}

async fn what_never_left_was_not_sent(stage: Stage) {
    let probe = stage.probe(0).await;
    let _held = stage.hold(&probe).await;
    let credit = limits::CREDIT_MESSAGES as usize;
    let pending: Vec<_> = (0..credit + 100).map(|number| probe.ask(Record(number as u64))).collect();
    let in_line = probe.tell(Record(0));
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let failed = within(AT_ONCE, "the pending asks", join_all(pending)).await;
    for (number, failed) in failed.into_iter().enumerate() {
        // The held message has used one credit.
        let written = number < credit - 1;
        let error = failed.expect_err("its process is gone");
        assert!(matches!(&error, CallError::Unreachable { sent, .. } if *sent == written), "{number}: {error:?}");
    }
    let told = within(AT_ONCE, "the tell in line", in_line).await;
    assert!(matches!(told, Err(CallError::Unreachable { sent: false, .. })), "{told:?}");
}

async fn other_nodes_hear_of_a_killed_process(stage: Stage) {
    let probe = stage.probe(0).await;
    let relay = stage.spawn(1, Relay::spec(None)).await;
    let _held = stage.hold(&probe).await;
    let forwarded = relay.ask(Forward { to: probe.clone(), number: 1 });
    // It is under way between the two nodes: the relay has handled this later message.
    let other = stage.probe(1).await;
    let later = within(LONG, "the relay", relay.ask(Forward { to: other, number: 1 })).await.expect("it answers");
    assert_eq!(later.answer, Ok(2));
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let forwarded = within(AT_ONCE, "the relay", forwarded).await.expect("the relay lives");
    assert!(matches!(&forwarded.answer, Err(CallError::Unreachable { node, .. }) if node == stage.home(0)));
    let again = within(AT_ONCE, "the relay", relay.ask(Forward { to: probe, number: 1 })).await;
    let again = again.expect("the relay lives").answer;
    assert!(matches!(again, Err(CallError::Unreachable { sent: false, .. })), "{again:?}");
}

/// The later node has dialled the earlier one, which cannot dial it to go on, but can see that nobody listens there.
async fn a_node_hears_of_the_end_of_one_that_connected_to_it(stage: Stage) {
    let (probe, other) = (stage.probe(1).await, stage.probe(0).await);
    let relay = stage.spawn(0, Relay::spec(None)).await;
    let _held = stage.hold(&probe).await;
    let forwarded = relay.ask(Forward { to: probe, number: 1 });
    let later = within(LONG, "the relay", relay.ask(Forward { to: other, number: 1 })).await.expect("it answers");
    assert_eq!(later.answer, Ok(2));
    Process::of(stage.pid(1)).signal(Signal::KILL);
    let forwarded = within(AT_ONCE, "the relay", forwarded).await.expect("the relay lives");
    assert!(matches!(&forwarded.answer, Err(CallError::Unreachable { node, sent: true, .. }) if node == stage.home(1)));
}

async fn a_killed_node_is_known_to_be_down(stage: Stage) {
    let cluster = stage.cluster();
    assert!(cluster.nodes().iter().all(|node| node.alive));
    Process::of(stage.pid(0)).signal(Signal::KILL);
    eventually(AT_ONCE, "the bad news", async || (!cluster.nodes()[0].alive).then_some(())).await;
    assert!(cluster.nodes()[1].alive);
    let refused = cluster.spawn(Probe::spec(0).node_affinity(stage.home(0))).await.expect_err("it is down");
    assert!(matches!(&refused, SpawnError::NoSuchNode { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(&stage.home(0).to_string()) && text.contains(&stage.home(1).to_string()), "{text}");
    let report = within(AT_ONCE, "an answer", cluster.report(stage.home(0))).await;
    assert!(matches!(report, Err(CallError::Unreachable { sent: false, .. })), "{report:?}");
    // Everything else goes where something lives.
    for spec in [Probe::spec(0), Probe::spec(0).spread(), Probe::spec(0).spread()] {
        assert_ne!(*spec.placement(), Placement::Node(stage.home(0).clone()));
        let probe = cluster.spawn(spec).await.expect("one node is left");
        assert_eq!(probe.node(), stage.home(1));
        assert_eq!(within(LONG, "the probe", probe.ask(Log)).await, Ok(vec![0]));
    }
}

async fn shutdown_ends_a_stopped_node(stage: Stage) {
    let nodes = [Process::of(stage.pid(0)), Process::of(stage.pid(1))];
    nodes[0].signal(Signal::STOP);
    eventually(LONG, "a stopped node", async || nodes[0].is_stopped().then_some(())).await;
    within(LONG, "the shutdown", stage.cluster().shutdown()).await;
    assert!(nodes.iter().all(|node| !node.is_running()), "a node process outlives the shutdown");
}

async fn a_node_that_shuts_down_fails_its_callers(stage: Stage) {
    // Over memory there is no process to kill; the goodbye of a node has to do.
    let probe = stage.probe(0).await;
    let _held = stage.hold(&probe).await;
    let pending = probe.ask(Record(1));
    stage.node(0).shut_down("the test ends it");
    let failed = within(AT_ONCE, "the pending ask", pending).await.expect_err("its node has ended");
    // Either the actor's end came first, or the goodbye.
    assert!(matches!(&failed, CallError::Unreachable { sent: true, .. } | CallError::Stopped), "{failed}");
    let later = eventually(AT_ONCE, "the goodbye", async || match probe.ask(Record(1)).await {
        Err(error @ CallError::Unreachable { sent: false, .. }) => Some(error),
        _ => None,
    })
    .await;
    assert!(later.to_string().contains("the test ends it"), "{later}");
}

/// A reference from an earlier life of a node reaches nobody, though a node of that name lives.
#[test]
fn a_reference_to_an_earlier_life_is_stale() {
    run_plain(async {
        let builder = || Cluster::builder().nodes(1).executable(env!("CARGO_BIN_EXE_node_host"));
        let first = builder().connect().await.expect("a cluster");
        let probe = first.spawn(Probe::spec(0)).await.expect("spawned");
        let second = builder().connect().await.expect("another cluster");
        assert_eq!(probe.node().name, second.nodes()[0].id.name);
        assert_ne!(probe.node().uid, second.nodes()[0].id.uid);
        // A node of the second cluster is asked to reach the actor of the first.
        let relay = second.spawn(Relay::spec(None)).await.expect("spawned");
        let forwarded = within(LONG, "the relay", relay.ask(Forward { to: probe.clone(), number: 7 })).await;
        let answer = forwarded.expect("the relay lives").answer;
        assert_eq!(answer, Err(CallError::StaleIncarnation { node: probe.node().clone() }));
        assert_eq!(answer.expect_err("just seen").outcome(), Outcome::NotStarted);
        assert_eq!(within(LONG, "the first", probe.ask(Log)).await, Ok(vec![0]));
    });
}

#[test]
fn a_node_that_comes_back_on_its_port_is_another() {
    run_plain(async {
        // Free a moment ago; should another take it between, the error says so.
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("bound");
        let builder = || Cluster::builder().nodes(1).base_port(free.port()).executable(env!("CARGO_BIN_EXE_node_host"));
        let first = builder().connect().await.expect("a cluster");
        let probe = first.spawn(Probe::spec(0)).await.expect("spawned");
        assert_eq!(first.nodes()[0].address.expect("it listens").port(), free.port());
        first.shutdown().await;
        let second = builder().connect().await.expect("another cluster");
        assert_eq!(second.nodes()[0].address.expect("it listens").port(), free.port());
        let relay = second.spawn(Relay::spec(None)).await.expect("spawned");
        let forwarded = within(LONG, "the relay", relay.ask(Forward { to: probe.clone(), number: 7 })).await;
        let answer = forwarded.expect("the relay lives").answer;
        assert_eq!(answer, Err(CallError::StaleIncarnation { node: probe.node().clone() }));
    });
}

async fn the_end_of_a_second_link_is_not_the_end_of_the_node(stage: Stage) {
    let probe = stage.probe(0).await;
    let (caller, home) = (stage.caller(), stage.node(0));
    for lane in [Lane::Data, Lane::Control] {
        let (ours, theirs) = memory::pair(64 * 1024);
        let (second, other_end) = futures::future::try_join(
            caller.attach(lane, home.id().clone(), || Ok(ours)),
            home.attach(lane, caller.id().clone(), || Ok(theirs)),
        )
        .await
        .expect("both sides say hello");
        second.goodbye("one too many");
        within(LONG, "its end", second.closed()).await;
        within(LONG, "its end over there", other_end.closed()).await;
    }
    assert_eq!(within(LONG, "a call", probe.ask(Record(1))).await, Ok(2));
    assert!(caller.report_of(home.id()).await.is_ok());
}

/// Which of two lives is the later one a node cannot know: a monitor must not say of a living actor that there is none.
#[test]
fn a_monitor_of_another_life_says_no_connection() {
    run_plain(async {
        let builder = || Cluster::builder().nodes(1).executable(env!("CARGO_BIN_EXE_node_host"));
        let first = builder().connect().await.expect("a cluster");
        let second = builder().connect().await.expect("another cluster");
        // Started after everything that the first driver is connected to, under a name that it knows.
        let probe = second.spawn(Probe::spec(0)).await.expect("spawned");
        let from_there = first.node().reference_to(&probe);
        let down = within(LONG, "the news", from_there.monitor()).await;
        assert!(matches!(&down.reason, ExitReason::NoConnection { .. }), "{down:?}");
        assert_eq!(within(LONG, "the probe", probe.ask(Log)).await, Ok(vec![0]));
    });
}
