//! The end of an actor: what waits is answered, names are free again, its own thread goes with it.

use actix::{Actor, Context};
use mobula::{CallError, Cluster, ExitReason, Outcome, RemoteActor, SpawnError};
use mobula_integration_tests::actors::{
    Block, Counter, CounterRef, Entered, Grenade, Log, Open, Panic, Probe, Record, Whereabouts,
};
use mobula_integration_tests::process::Process;
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::stubborn::{Finish, Stubborn};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    stop_answers_queued_mail on [embedded, processes, memory];
    stop_finishes_the_handler_that_runs on [embedded, processes, memory];
    kill_answers_queued_mail on [embedded, processes, memory];
    stopping_twice_is_no_error on [embedded, processes, memory];
    a_stop_that_is_declined_is_forgotten on [embedded, processes, memory];
    a_stop_that_is_put_off_holds on [embedded, processes, memory];
    an_id_is_never_used_again on [embedded, processes, memory];
    a_name_is_held_by_one_actor on [embedded, processes, memory];
    a_name_finds_only_its_type on [embedded, processes, memory];
    the_cluster_finds_a_name_on_any_node on [embedded, processes];
    an_actor_with_its_own_thread_blocks_nobody on [embedded, processes, memory];
    an_actor_that_panics_while_it_stops_has_ended on [embedded];
    its_own_thread_ends_with_the_actor on [processes];
    a_message_that_panics_as_it_is_dropped_hides_no_end on [embedded];
}

fn is_over<T>(answer: &Result<T, CallError>) -> bool {
    let over = matches!(answer, Err(CallError::Stopped | CallError::NoSuchActor { .. }));
    let safe = answer.as_ref().is_err_and(|error| error.outcome() == Outcome::NotStarted);
    over && safe
}

async fn stop_answers_queued_mail(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let queued: Vec<_> = (0..10).map(|number| probe.ask(Record(number))).collect();
    within(LONG, "the order", probe.stop()).await.expect("it arrives");
    for queued in queued {
        assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    }
    let later = within(LONG, "later mail", probe.ask(Record(1))).await;
    assert!(is_over(&later), "{later:?}");
    // The handler that was under way has no answer to give.
    let cut_off = within(LONG, "the held handler", held.holding).await;
    assert!(cut_off.as_ref().is_err_and(|error| !error.outcome().is_retry_safe()), "{cut_off:?}");
}

async fn stop_finishes_the_handler_that_runs(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).own_thread()).await;
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let running = probe.ask(Block { gate: gate.clone() });
    within(LONG, "the handler", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it answers");
    let queued = probe.ask(Record(1));
    within(LONG, "the order", probe.stop()).await.expect("it arrives");
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    assert_eq!(within(LONG, "the running handler", running).await, Ok(()));
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
}

async fn kill_answers_queued_mail(stage: Stage) {
    let probe = stage.probe(0).await;
    let _held = stage.hold(&probe).await;
    let queued = probe.ask(Record(1));
    within(LONG, "the order", probe.kill()).await.expect("it arrives");
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
}

async fn stopping_twice_is_no_error(stage: Stage) {
    let probe = stage.probe(0).await;
    for _ in 0..3 {
        assert_eq!(within(LONG, "the order", probe.stop()).await, Ok(()));
    }
}

async fn an_id_is_never_used_again(stage: Stage) {
    let mut ids = std::collections::HashSet::new();
    for number in 0..20 {
        let probe = stage.probe(0).await;
        assert!(ids.insert(probe.id()), "{} again", probe.id());
        probe.stop().await.expect("it arrives");
        eventually(LONG, "its end", async || is_over(&probe.ask(Record(number)).await).then_some(())).await;
    }
}

async fn a_name_is_held_by_one_actor(stage: Stage) {
    let first = stage.spawn(0, Probe::spec(0).name("hits")).await;
    let second = stage.caller().spawn_on(stage.home(0), Probe::spec(0).name("hits")).await;
    let error = second.expect_err("the name is taken");
    let expected = SpawnError::NameTaken { name: "hits".to_owned(), holder: first.id(), node: stage.home(0).clone() };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("`hits` is taken by actor"), "{error}");
    first.stop().await.expect("it arrives");
    let third = eventually(LONG, "the name's end", async || {
        stage.caller().spawn_on(stage.home(0), Probe::spec(0).name("hits")).await.ok()
    })
    .await;
    assert_ne!(third.id(), first.id());
    let found = stage.caller().find::<Probe>("hits").await.expect("asked");
    assert_eq!(found, Some(third));
    // An earlier reference never reaches the later bearer of the name.
    let stale = within(LONG, "an answer", first.ask(Record(1))).await;
    assert!(is_over(&stale), "{stale:?}");
}

async fn a_name_finds_only_its_type(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).name("hits")).await;
    assert_eq!(stage.caller().find::<Probe>("hits").await, Ok(Some(probe)));
    assert_eq!(stage.caller().find::<Counter>("hits").await, Ok(None));
    assert_eq!(stage.caller().find::<Probe>("misses").await, Ok(None));
}

async fn the_cluster_finds_a_name_on_any_node(stage: Stage) {
    let cluster = stage.cluster();
    let first = cluster.spawn(Counter::actor(1).name("one").node_affinity(stage.home(0))).await.expect("spawned");
    let second = cluster.spawn(Counter::actor(2).name("two").node_affinity(stage.home(1))).await.expect("spawned");
    assert_eq!(cluster.find::<Counter>("one").await, Ok(Some(first)));
    let found = cluster.find::<Counter>("two").await.expect("asked").expect("found");
    assert_eq!(found, second);
    assert_eq!(within(LONG, "the found one", found.get()).await, Ok(2));
    assert_eq!(cluster.find::<Counter>("three").await, Ok(None));
}

async fn an_actor_with_its_own_thread_blocks_nobody(stage: Stage) {
    let (own, other) = (stage.spawn(0, Probe::spec(0).own_thread()).await, stage.probe(0).await);
    let places = (own.ask(Whereabouts).await.expect("it answers"), other.ask(Whereabouts).await.expect("it answers"));
    assert!(places.0.pid == places.1.pid && places.0.thread != places.1.thread, "{places:?}");
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let blocks = own.ask(Block { gate: gate.clone() });
    within(LONG, "the handler", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it answers");
    assert_eq!(within(LONG, "the other actor", other.ask(Record(1))).await, Ok(2));
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    assert_eq!(within(LONG, "the blocked handler", blocks).await, Ok(()));
    assert_eq!(own.ask(Log).await, Ok(vec![0]));
}

async fn its_own_thread_ends_with_the_actor(stage: Stage) {
    let node = Process::of(stage.pid(0));
    let before = node.threads();
    let mut actors = Vec::new();
    for _ in 0..5 {
        actors.push(stage.spawn(0, Probe::spec(0).own_thread()).await);
    }
    assert_eq!(node.threads(), before + 5);
    for actor in actors {
        actor.stop().await.expect("it arrives");
    }
    eventually(LONG, "the threads' end", async || (node.threads() == before).then_some(())).await;
}

/// Cannot even stop.
struct Clumsy;

impl Actor for Clumsy {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        panic!("stumbled");
    }
}

mobula::remote_actor!(Clumsy, args: (), create: |()| Clumsy, messages: []);

async fn an_actor_that_panics_while_it_stops_has_ended(stage: Stage) {
    let clumsy = stage.spawn(0, Clumsy::spec(())).await;
    let monitor = clumsy.monitor();
    within(LONG, "the order", clumsy.stop()).await.expect("it arrives");
    let down = within(LONG, "its end", monitor).await;
    assert_eq!(down.reason, ExitReason::Panicked { text: "stumbled".to_owned() });
}

#[test]
fn a_cluster_that_was_shut_down_creates_no_actor() {
    run_plain(async {
        let cluster = Cluster::connect().await.expect("a cluster");
        cluster.shutdown().await;
        let refused = within(LONG, "an answer", cluster.spawn(Probe::spec(0))).await;
        assert_eq!(refused.expect_err("it is over"), SpawnError::NodeEnding);
    });
}

async fn a_message_that_panics_as_it_is_dropped_hides_no_end(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let queued = [probe.ask(Record(1)), probe.ask(Record(2))];
    within(LONG, "room", probe.tell(Grenade { live: true })).await.expect("there is room");
    let behind = probe.ask(Record(3));
    let monitor = probe.monitor();
    probe.kill().await.expect("the order arrives");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Killed);
    for queued in queued.into_iter().chain([behind]) {
        assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    }
    drop(held);
}

async fn a_stop_that_is_declined_is_forgotten(stage: Stage) {
    let stubborn = stage.spawn(0, Stubborn::spec(false)).await;
    let monitor = stubborn.monitor();
    within(LONG, "the order", stubborn.stop()).await.expect("it arrives");
    assert_eq!(within(LONG, "an answer", stubborn.ask(Record(1))).await, Ok(1), "it goes on");
    let panicked = within(LONG, "the panic", stubborn.ask(Panic("boom".to_owned()))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    assert_eq!(within(LONG, "the next life", stubborn.ask(Record(2))).await, Ok(2), "a failure like any other");
    within(LONG, "an answer", stubborn.ask(Finish)).await.expect("it answers");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Normal, "it has stopped itself");
}

async fn a_stop_that_is_put_off_holds(stage: Stage) {
    for panics in [false, true] {
        let stubborn = stage.spawn(0, Stubborn::spec(true)).await;
        let monitor = stubborn.monitor();
        within(LONG, "the order", stubborn.stop()).await.expect("it arrives");
        assert_eq!(within(LONG, "an answer", stubborn.ask(Record(1))).await, Ok(1), "it has something to finish");
        let expected = if panics {
            let panicked = within(LONG, "the panic", stubborn.ask(Panic("boom".to_owned()))).await;
            assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
            ExitReason::Panicked { text: "boom".to_owned() }
        } else {
            within(LONG, "an answer", stubborn.ask(Finish)).await.expect("it answers");
            ExitReason::Shutdown
        };
        assert_eq!(within(LONG, "its end", monitor).await.reason, expected);
    }
}
