//! Creating actors: what is given up leaves nothing, whoever is found can be called, and too much at once is refused.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, Either, join_all, select};
use mobula::{
    CallError, MemorySnapshots, Outcome, RemoteActor, SnapshotError, SnapshotPolicy, SnapshotStore, SpawnError,
};
use mobula_actors::{Node, NodeConfig};
use mobula_integration_tests::actors::{Entered, Open, Probe, Record};
use mobula_integration_tests::ledger::{Enter, Ledger};
use mobula_integration_tests::slow_start::SlowStart;
use mobula_integration_tests::stage::{connect_by_memory, run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    a_spawn_that_is_given_up_leaves_no_actor on [embedded, processes, memory];
    a_spawn_whose_answer_nobody_picks_up_leaves_no_actor on [embedded, processes, memory];
    spawns_that_are_given_up_at_any_moment_leave_no_actor on [embedded, processes, memory];
}

/// The actors of the first home.
async fn actors(stage: &Stage) -> u64 {
    let report = stage.caller().report_of(stage.home(0));
    within(LONG, "the report", report).await.expect("the node answers").actors
}

async fn eventually_actors(stage: &Stage, expected: u64) {
    eventually(LONG, "the number of actors", async || (actors(stage).await == expected).then_some(())).await;
}

async fn a_spawn_that_is_given_up_leaves_no_actor(stage: Stage) {
    let keeper = stage.keeper(0).await;
    let before = actors(&stage).await;
    let gate = gates::fresh_name();
    {
        let spawn =
            pin!(stage.caller().spawn_on(stage.home(0), SlowStart::spec(gate.clone()).name("slow").own_thread()));
        let entered = pin!(within(LONG, "the constructor", keeper.ask(Entered { gate: gate.clone(), count: 1 })));
        let Either::Right(_) = select(spawn, entered).await else { panic!("it cannot have started") };
    }
    within(LONG, "the gate", keeper.ask(Open { gate })).await.expect("the keeper answers");
    eventually_actors(&stage, before).await;
    let again = stage.spawn(0, Probe::spec(0).name("slow")).await;
    within(LONG, "an answer", again.ask(Record(1))).await.expect("its name was free");
}

async fn a_spawn_whose_answer_nobody_picks_up_leaves_no_actor(stage: Stage) {
    let before = actors(&stage).await;
    for attempt in 0.. {
        let mut spawn = pin!(stage.caller().spawn_on(stage.home(0), Probe::spec(0)));
        match poll_fn(|cx| Poll::Ready(spawn.as_mut().poll(cx))).await {
            Poll::Pending => {
                // It starts, and its answer comes, though nobody looks.
                eventually_actors(&stage, before + 1).await;
                break;
            }
            // Another thread was quick, which happens only near.
            Poll::Ready(spawned) => {
                assert!(stage.is_near() && attempt < 1000, "never to be waited for");
                within(LONG, "the order", spawned.expect("it starts").kill()).await.expect("it arrives");
                eventually_actors(&stage, before).await;
            }
        }
    }
    eventually_actors(&stage, before).await;
}

async fn spawns_that_are_given_up_at_any_moment_leave_no_actor(stage: Stage) {
    let before = actors(&stage).await;
    for moment in 0..100 {
        let spawn = pin!(stage.caller().spawn_on(stage.home(0), Probe::spec(0)));
        let moment = pin!(tokio::time::sleep(Duration::from_micros(moment * 20)));
        if let Either::Left((spawned, _)) = select(spawn, moment).await {
            spawned.expect("it starts").kill().await.expect("the order arrives");
        }
    }
    eventually_actors(&stage, before).await;
}

/// A store that does not answer before a gate opens.
struct Gated {
    store: MemorySnapshots,
    gate: String,
}

impl SnapshotStore for Gated {
    fn create<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<bool, SnapshotError>> {
        self.store.create(folder, name, bytes)
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<String>, SnapshotError>> {
        Box::pin(async move {
            gates::pass(&self.gate).await;
            self.store.list(folder).await
        })
    }

    fn read<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, SnapshotError>> {
        self.store.read(folder, name)
    }

    fn delete<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), SnapshotError>> {
        self.store.delete(folder, name)
    }
}

#[test]
fn whoever_is_found_by_name_can_be_called() {
    run_plain(async {
        let (home, finder) = (start_node("home"), start_node("finder"));
        finder.set_head(home.id());
        connect_by_memory(&home, &finder).await;
        let gate = gates::fresh_name();
        home.set_snapshot_store(Arc::new(Gated { store: MemorySnapshots::default(), gate: gate.clone() }));
        let spec = Ledger::spec(1).name("books").snapshots(SnapshotPolicy::on_demand());
        let spawn = tokio::task::spawn_local({
            let home = home.clone();
            async move { home.spawn(spec).await }
        });
        within(LONG, "the store", gates::entered(&gate, 1)).await;
        // It bears its name, and has not begun.
        for node in [&home, &finder] {
            let found = within(LONG, "the head", node.find::<Ledger>("books")).await.expect("the head answers");
            let mut entry = found.expect("it bears the name").ask(Enter(7));
            let early = futures::future::poll_immediate(&mut entry).await;
            assert!(early.is_none(), "{early:?}");
            drop(entry);
        }
        let found = within(LONG, "the head", finder.find::<Ledger>("books")).await.expect("the head answers");
        let entry = found.expect("it bears the name").ask(Enter(8));
        // An answer from the same node, behind that: it was refused or is in the mailbox.
        let report = within(LONG, "the report", finder.report_of(home.id())).await.expect("the node answers");
        assert_eq!(report.actors, 1);
        gates::open(&gate);
        within(LONG, "the spawn", spawn).await.expect("it runs").expect("it starts");
        within(LONG, "what waited", entry).await.expect("it was kept");
        [&home, &finder].iter().for_each(|node| node.shut_down("the test is over"));
    });
}

#[test]
fn more_requests_than_a_node_takes_are_refused() {
    run_plain(async {
        let config = NodeConfig { name: "home".to_owned(), control_requests_max: 2, ..NodeConfig::default() };
        let (home, asker) = (Node::start(config).expect("a node"), start_node("asker"));
        connect_by_memory(&home, &asker).await;
        let gate = gates::fresh_name();
        let slow = || asker.spawn_on(home.id(), SlowStart::spec(gate.clone()).own_thread());
        let mut two = pin!(join_all([slow(), slow()]));
        let entered = pin!(gates::entered(&gate, 2));
        let Either::Right(_) = select(two.as_mut(), entered).await else { panic!("they cannot have started") };
        let error = within(LONG, "an answer at once", slow()).await.expect_err("two are the most");
        let SpawnError::Call(error) = error else { panic!("{error}") };
        assert!(matches!(&error, CallError::Overloaded { limit: 2, .. }), "{error}");
        assert!(error.outcome() == Outcome::NotStarted && error.to_string().contains("wait 100 ms"), "{error}");
        gates::open(&gate);
        for spawned in within(LONG, "both", two).await {
            spawned.expect("it was begun");
        }
        within(LONG, "one more", slow()).await.expect("there is room again");
        [&home, &asker].iter().for_each(|node| node.shut_down("the test is over"));
    });
}
