//! Names: one holder in the whole cluster, free before the holder's end is told, and never served twice.
#![allow(clippy::disallowed_methods, reason = "it measures how long a name is kept")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use mobula::{ActorRef, CallError, Cluster, ClusterError, Node, RemoteActor, SpawnError};
use mobula_actors::{LeaseTimes, NodeConfig, NodeError};
use mobula_integration_tests::actors::{Probe, Record};
use mobula_integration_tests::holders::{Act, Holder, acts};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::{connect_by_memory, run_plain};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    a_name_has_one_holder_in_the_cluster on [embedded, processes, memory];
    of_many_claims_one_is_granted on [embedded, processes, memory];
    a_name_is_free_before_its_holders_end_is_told on [embedded, processes, memory];
    fencing_tokens_grow on [embedded, processes, memory];
    a_name_that_cannot_be_one_is_refused on [embedded, processes, memory];
    the_names_of_a_killed_process_are_free on [processes];
}

fn holder(name: &str) -> mobula::ActorSpec<Holder> {
    Holder::spec(String::new()).name(name)
}

async fn a_name_has_one_holder_in_the_cluster(stage: Stage) {
    let first = stage.spawn(0, holder("hits")).await;
    let expected = SpawnError::NameTaken { name: "hits".to_owned(), holder: first.id(), node: stage.home(0).clone() };
    for home in [0, 1] {
        // Another type makes no difference.
        let spawned = stage.caller().spawn_on(stage.home(home), Probe::spec(0).name("hits")).await;
        assert_eq!(spawned.expect_err("it is taken"), expected);
    }
    assert_eq!(stage.caller().spawn(holder("hits")).await.expect_err("it is taken"), expected);
    assert_eq!(stage.caller().find::<Holder>("hits").await, Ok(Some(first.clone())));
    within(LONG, "the order", first.stop()).await.expect("it arrives");
    within(LONG, "the end", first.monitor()).await;
    assert_eq!(stage.caller().find::<Holder>("hits").await, Ok(None));
}

async fn of_many_claims_one_is_granted(stage: Stage) {
    let claims = (0..20).map(|number| stage.caller().spawn_on(stage.home(number % 2), holder("hits")));
    let spawned = within(LONG, "the claims", join_all(claims)).await;
    let granted: Vec<&ActorRef<Holder>> = spawned.iter().filter_map(|spawned| spawned.as_ref().ok()).collect();
    assert_eq!(granted.len(), 1);
    for refused in spawned.iter().filter_map(|spawned| spawned.as_ref().err()) {
        assert!(matches!(refused, SpawnError::NameTaken { holder, .. } if *holder == granted[0].id()), "{refused}");
    }
}

async fn a_name_is_free_before_its_holders_end_is_told(stage: Stage) {
    for round in 0..20 {
        let holder = stage.spawn(round % 2, holder("baton")).await;
        let monitor = holder.monitor();
        let order = async { if round % 3 == 0 { holder.kill().await } else { holder.stop().await } };
        within(LONG, "the order", order).await.expect("it arrives");
        within(LONG, "the end", monitor).await;
        // At the first try, on whatever node.
    }
}

async fn fencing_tokens_grow(stage: Stage) {
    let nameless = stage.spawn(0, Holder::spec(String::new())).await;
    assert_eq!(within(LONG, "a call", nameless.ask(Act)).await, Ok(0));
    let mut last = 0;
    for round in 0..6 {
        let holder = stage.spawn(round % 2, holder("writer")).await;
        let token = within(LONG, "a call", holder.ask(Act)).await.expect("it answers");
        assert!(token > last, "{token} after {last}");
        last = token;
        let monitor = holder.monitor();
        within(LONG, "the order", holder.stop()).await.expect("it arrives");
        within(LONG, "the end", monitor).await;
    }
}

async fn a_name_that_cannot_be_one_is_refused(stage: Stage) {
    for name in [String::new(), "n".repeat(513)] {
        let refused = stage.caller().spawn_on(stage.home(0), holder(&name)).await.expect_err("no name");
        assert!(matches!(refused, SpawnError::NoGrant(_)), "{refused}");
        assert!(refused.to_string().contains("1 to 512 bytes"), "{refused}");
    }
    stage.spawn(0, holder(&"n".repeat(512))).await;
}

async fn the_names_of_a_killed_process_are_free(stage: Stage) {
    let first = stage.spawn(0, holder("phoenix")).await;
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let killed = Instant::now();
    let second =
        eventually(LONG, "the name", async || stage.caller().spawn_on(stage.home(1), holder("phoenix")).await.ok())
            .await;
    // Its end was seen by whoever started it, so nobody waits for a lease to run out.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(stage.cluster().find::<Holder>("phoenix").await, Ok(Some(second.clone())));
    assert_ne!(first, second);
}

/// Long enough for a slow machine, short enough for a test.
const LEASE: Duration = Duration::from_secs(2);

async fn with_a_short_lease() -> Cluster {
    let builder = Cluster::builder().nodes(2).cpus_per_node(1).lease(LEASE).executable(env!("CARGO_BIN_EXE_node_host"));
    builder.connect().await.expect("a cluster")
}

/// A process that is frozen past its lease: its name goes to another node, not before its time; when the process goes
/// on it handles no more message under the name, and ends itself.
#[test]
fn a_node_that_was_frozen_past_its_lease_ends_itself() {
    run_plain(async {
        let directory = std::env::temp_dir().join(format!("mobula-names-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a place for files");
        let file = directory.join("acts").to_string_lossy().into_owned();
        let cluster = with_a_short_lease().await;
        let nodes = cluster.nodes();
        let frozen = Process::of(nodes[0].pid);
        let spec = |node: usize| Holder::spec(file.clone()).name("leader").node_affinity(&nodes[node].id);
        let first = cluster.spawn(spec(0)).await.expect("spawned");
        let old = within(LONG, "a call", first.ask(Act)).await.expect("it answers");

        frozen.signal(Signal::STOP);
        eventually(LONG, "a stopped node", async || frozen.is_stopped().then_some(())).await;
        let begun = Instant::now();
        // Mail that it finds when it wakes up.
        let waiting: Vec<_> = (0..10).map(|_| first.ask(Act)).collect();
        let refused = cluster.spawn(spec(1)).await.expect_err("it may be alive");
        assert!(matches!(&refused, SpawnError::NameTaken { node, .. } if *node == nodes[0].id), "{refused}");
        let second = eventually(LONG, "the name", async || cluster.spawn(spec(1)).await.ok()).await;
        // It renewed at most a heartbeat before it was stopped.
        let kept = begun.elapsed();
        assert!(kept > LEASE - LEASE / 4, "given again after {kept:?}");
        let new = within(LONG, "a call", second.ask(Act)).await.expect("it answers");
        assert!(new > old);

        frozen.signal(Signal::CONT);
        eventually(LONG, "its end", async || (!frozen.is_running()).then_some(())).await;
        for waiting in waiting {
            assert!(within(LONG, "its mail", waiting).await.is_err());
        }
        assert_eq!(within(LONG, "a call", second.ask(Act)).await, Ok(new));
        assert_eq!(acts(&file), [old, new, new], "served twice");
        assert_eq!(cluster.find::<Holder>("leader").await, Ok(Some(second)));
        std::fs::remove_dir_all(&directory).expect("ours");
    });
}

/// A pause below the lease ends nothing.
#[test]
fn a_short_pause_ends_nothing() {
    run_plain(async {
        let cluster = with_a_short_lease().await;
        let nodes = cluster.nodes();
        let paused = Process::of(nodes[0].pid);
        let holder = cluster.spawn(holder("patient").node_affinity(&nodes[0].id)).await.expect("spawned");
        for _ in 0..3 {
            paused.signal(Signal::STOP);
            eventually(LONG, "a stopped node", async || paused.is_stopped().then_some(())).await;
            let answer = holder.ask(Act);
            tokio::time::sleep(LEASE / 8).await;
            paused.signal(Signal::CONT);
            assert!(within(LONG, "a call", answer).await.expect("it answers") > 0);
        }
        assert_eq!(cluster.find::<Holder>("patient").await, Ok(Some(holder)));
    });
}

#[test]
fn a_lease_out_of_range_is_refused() {
    run_plain(async {
        for lease in [Duration::from_millis(99), Duration::from_secs(3601)] {
            let refused = Cluster::builder().lease(lease).connect().await.expect_err("out of range");
            assert!(matches!(refused, ClusterError::BadNumber { what: "the lease of a node", .. }), "{refused}");
        }
        let start = |lease| Node::start(NodeConfig { lease, ..NodeConfig::default() });
        for lease in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(3601)] {
            let refused = start(LeaseTimes::of(lease)).expect_err("out of range");
            assert!(matches!(refused, NodeError::Lease { lease: asked } if asked == lease), "{refused}");
            assert!(refused.to_string().ends_with("choose one from 100 ms to 3600 s"), "{refused}");
        }
        // What would ask without a pause, and what would come too late.
        for heartbeat in [Duration::ZERO, Duration::from_secs(5)] {
            let mut times = LeaseTimes::default();
            times.heartbeat = heartbeat;
            let refused = start(times).expect_err("no heartbeat");
            assert!(
                matches!(refused, NodeError::Heartbeat { heartbeat: asked, .. } if asked == heartbeat),
                "{refused}"
            );
        }
    });
}

fn two_nodes_of_this_process(lease: Duration) -> (Node, Node) {
    let start = |name: &str| {
        let lease = LeaseTimes::of(lease);
        let config = NodeConfig { name: name.to_owned(), lease, ..NodeConfig::default() };
        Node::start(config).expect("a node")
    };
    let (head, member) = (start("head"), start("member"));
    member.set_head(head.id());
    (head, member)
}

/// Not the thread that renews the lease ends a named actor, but the actor's own turn: it may be the first to run.
#[test]
fn a_named_actor_looks_at_the_lease_itself() {
    run_plain(async {
        let (head, member) = two_nodes_of_this_process(Duration::from_millis(500));
        connect_by_memory(&head, &member).await;
        let (named, nameless) = (member.spawn(holder("busy")).await, member.spawn(Probe::spec(0)).await);
        let (named, nameless) = (named.expect("spawned"), nameless.expect("spawned"));
        assert!(within(LONG, "a call", named.ask(Act)).await.expect("it answers") > 0);
        // The thread that keeps the lease does not get to it any more.
        let gate = gates::fresh_name();
        let blocked = gate.clone();
        member.control_runtime().spawn(async move { gates::pass_blocking(&blocked) });
        gates::entered(&gate, 1).await;
        let refused = eventually(LONG, "the end of the lease", async || named.ask(Act).await.err()).await;
        assert_eq!(refused, CallError::Stopped);
        assert_eq!(within(LONG, "a call", nameless.ask(Record(1))).await, Ok(2));
        gates::open(&gate);
        within(LONG, "the fence", member.fenced()).await;
        head.shut_down("the test is over");
    });
}

/// A member whose head is gone keeps acting to the end of its lease, and no longer.
#[test]
fn a_node_without_its_head_is_fenced_off() {
    run_plain(async {
        let (head, member) = two_nodes_of_this_process(Duration::from_secs(1));
        connect_by_memory(&head, &member).await;
        let holder = member.spawn(holder("orphan")).await.expect("spawned");
        let fenced = member.fenced();
        let monitor = holder.monitor();
        assert!(within(LONG, "a call", holder.ask(Act)).await.expect("it answers") > 0);
        head.shut_down("the test ends it");
        within(LONG, "the fence", fenced).await;
        within(LONG, "the end", monitor).await;
        let late = within(LONG, "an answer", holder.ask(Act)).await;
        assert!(matches!(late, Err(CallError::Stopped | CallError::NoSuchActor { .. })), "{late:?}");
        assert_eq!(member.spawn(Probe::spec(0)).await.expect_err("it is over"), SpawnError::NodeEnding);
    });
}
