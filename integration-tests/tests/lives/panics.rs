//! A panic ends one life of one actor: its caller is told, its mail waits, its state is built anew.

use std::time::Duration;

use mobula::{ActorRef, CallError, Generation, Outcome, RemoteActor, SpawnError};
use mobula_integration_tests::actors::{
    Counter, CounterRef, Log, Panic, PanicInActorFuture, PanicInExclusiveFuture, PanicInFuture, Probe, Record,
};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_panic_answers_with_text_message_and_generation on [embedded, processes, memory];
    a_panic_keeps_queued_mail_and_rebuilds_the_state on [embedded, processes, memory];
    a_panic_leaves_neighbours_alone on [embedded, processes, memory];
    a_panic_in_an_async_handler_answers on [embedded, processes, memory];
    an_async_handler_names_the_life_in_which_it_panicked on [embedded, processes, memory];
    a_restarted_actor_keeps_reference_id_and_name on [embedded, processes, memory];
    an_actor_whose_restarts_are_used_up_has_stopped on [embedded, processes, memory];
    a_panic_in_the_constructor_answers_the_spawn on [embedded, processes, memory];
}

/// The text, the message's name and the generation of a panic.
#[track_caller]
fn panicked<T: std::fmt::Debug>(answer: Result<T, CallError>, actor: &ActorRef<Probe>) -> (String, String, u32) {
    match answer {
        Err(error @ CallError::Panicked { .. }) => {
            assert_eq!(error.outcome(), Outcome::Done);
            let CallError::Panicked { actor: id, message, text, generation: Generation(generation) } = error else {
                unreachable!("matched above")
            };
            assert_eq!(id, actor.id());
            (text, message, generation)
        }
        other => panic!("{other:?} is not a panic"),
    }
}

fn probe_that_restarts_soon() -> mobula::ActorSpec<Probe> {
    Probe::spec(0).backoff(Duration::from_millis(1)).restarts(100)
}

async fn a_panic_answers_with_text_message_and_generation(stage: Stage) {
    let probe = stage.spawn(0, probe_that_restarts_soon()).await;
    for life in 0..3 {
        let answer = within(LONG, "the panic", probe.ask(Panic(format!("boom {life}")))).await;
        let (text, message, generation) = panicked(answer, &probe);
        assert_eq!((text, generation), (format!("boom {life}"), life));
        assert!(message.ends_with("::Panic"), "{message}");
    }
    // The macro's way is the same thing.
    let counter = stage.spawn(0, Counter::actor(5)).await;
    let answer = within(LONG, "the panic", counter.crash("boom".to_owned())).await;
    let Err(CallError::Panicked { message, text, .. }) = &answer else { panic!("{answer:?}") };
    assert_eq!(text, "boom at 5");
    assert!(message.ends_with("::CounterCrash"), "{message}");
    let shown = answer.expect_err("a panic").to_string();
    assert!(shown.contains("boom at 5") && shown.contains("CounterCrash") && shown.contains("a retry runs"), "{shown}");
}

async fn a_panic_keeps_queued_mail_and_rebuilds_the_state(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(9)).await;
    assert_eq!(probe.ask(Record(1)).await, Ok(2));
    let held = stage.hold(&probe).await;
    let before = probe.ask(Record(2));
    let panics = probe.ask(Panic("boom".to_owned()));
    drop(probe.tell(Record(3)));
    let after = probe.ask(Record(4));
    held.release().await;
    assert_eq!(within(LONG, "the mail before", before).await, Ok(3));
    panicked(within(LONG, "the panic", panics).await, &probe);
    assert_eq!(within(LONG, "the mail after", after).await, Ok(3));
    // Made from its argument again; the failed message is not tried again, the others are where they were.
    assert_eq!(probe.ask(Log).await, Ok(vec![9, 3, 4]));
}

async fn a_panic_leaves_neighbours_alone(stage: Stage) {
    let neighbours = [stage.probe(0).await, stage.probe(0).await];
    let probe = stage.spawn(0, probe_that_restarts_soon()).await;
    let held = stage.hold(&neighbours[1]).await;
    let waits = neighbours[1].ask(Record(1));
    for turn in 1..=5 {
        assert_eq!(within(LONG, "a neighbour", neighbours[0].ask(Record(turn))).await, Ok(turn + 1));
        panicked(within(LONG, "the panic", probe.ask(Panic("boom".to_owned()))).await, &probe);
    }
    held.release().await;
    assert_eq!(within(LONG, "a neighbour", waits).await, Ok(2));
    assert_eq!(neighbours[0].ask(Log).await, Ok(vec![0, 1, 2, 3, 4, 5]));
    assert_eq!(neighbours[1].ask(Log).await, Ok(vec![0, 1]));
}

async fn a_panic_in_an_async_handler_answers(stage: Stage) {
    let probe = stage.spawn(0, probe_that_restarts_soon()).await;
    let beside = within(LONG, "beside the actor", probe.ask(PanicInFuture("one".to_owned()))).await;
    let (text, message, _) = panicked(beside, &probe);
    assert_eq!(text, "one");
    assert!(message.ends_with("::PanicInFuture"), "{message}");
    let within_it = within(LONG, "within the actor", probe.ask(PanicInActorFuture("two".to_owned()))).await;
    let (text, message, _) = panicked(within_it, &probe);
    assert_eq!(text, "two");
    assert!(message.ends_with("::PanicInActorFuture"), "{message}");
    let exclusive = within(LONG, "exclusively", probe.ask(PanicInExclusiveFuture("three".to_owned()))).await;
    let (text, message, _) = panicked(exclusive, &probe);
    assert_eq!(text, "three");
    assert!(message.ends_with("::PanicInExclusiveFuture"), "{message}");
    assert_eq!(within(LONG, "the next life", probe.ask(Record(1))).await, Ok(2));
}

async fn an_async_handler_names_the_life_in_which_it_panicked(stage: Stage) {
    let probe = stage.spawn(0, probe_that_restarts_soon()).await;
    for life in 0..2 {
        let exclusive = within(LONG, "exclusively", probe.ask(PanicInExclusiveFuture("boom".to_owned()))).await;
        assert_eq!(panicked(exclusive, &probe).2, life);
    }
    // Beside the actor, the panic is not one of the actor's: it has its own text, and no life ends.
    for _ in 0..2 {
        let beside = within(LONG, "beside the actor", probe.ask(PanicInFuture("quiet".to_owned()))).await;
        let (text, _, generation) = panicked(beside, &probe);
        assert_eq!(text, "quiet");
        assert_eq!(generation, 2);
    }
    // A plain handler still knows its life.
    assert_eq!(panicked(within(LONG, "plainly", probe.ask(Panic("boom".to_owned()))).await, &probe).2, 2);
}

async fn a_restarted_actor_keeps_reference_id_and_name(stage: Stage) {
    let probe = stage.spawn(0, probe_that_restarts_soon().name("phoenix")).await;
    let known = stage.caller().find::<Probe>("phoenix").await.expect("asked").expect("found");
    panicked(within(LONG, "the panic", probe.ask(Panic("boom".to_owned()))).await, &probe);
    assert_eq!(within(LONG, "the next life", probe.ask(Record(1))).await, Ok(2));
    let found = stage.caller().find::<Probe>("phoenix").await.expect("asked").expect("found");
    assert!(found == probe && known == probe);
    assert_eq!(within(LONG, "the old reference", known.ask(Record(2))).await, Ok(3));
}

async fn an_actor_whose_restarts_are_used_up_has_stopped(stage: Stage) {
    let spec = Probe::spec(0).restarts(2).backoff(Duration::from_millis(1)).name("fragile");
    let probe = stage.spawn(0, spec).await;
    let held = stage.hold(&probe).await;
    let panics: Vec<_> = (0..3).map(|life| probe.ask(Panic(format!("boom {life}")))).collect();
    let queued = probe.ask(Record(1));
    held.release().await;
    for (life, panics) in panics.into_iter().enumerate() {
        let (text, _, generation) = panicked(within(LONG, "the panic", panics).await, &probe);
        assert_eq!((text, generation), (format!("boom {life}"), life as u32));
    }
    // Two restarts were allowed: the third panic is the end, for what waits and for what comes.
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    let later = within(LONG, "later mail", probe.ask(Record(2))).await;
    assert!(matches!(later, Err(CallError::Stopped | CallError::NoSuchActor { .. })), "{later:?}");
    // The name goes with the actor.
    eventually(LONG, "the name's end", async || {
        let found = stage.caller().find::<Probe>("fragile").await.expect("asked");
        found.is_none().then_some(())
    })
    .await;
}

async fn a_panic_in_the_constructor_answers_the_spawn(stage: Stage) {
    let before = stage.caller().report_of(stage.home(0)).await.expect("it answers").actors;
    let spawned = stage.caller().spawn_on(stage.home(0), Counter::actor(-1).name("unborn")).await;
    let Err(SpawnError::Panicked { text }) = spawned else { panic!("{spawned:?}") };
    assert_eq!(text, "a counter cannot start at -1");
    let report = stage.caller().report_of(stage.home(0)).await.expect("it answers");
    assert_eq!(report.actors, before);
    assert_eq!(stage.caller().find::<Counter>("unborn").await, Ok(None));
    stage.spawn(0, Counter::actor(1).name("unborn")).await;
}
