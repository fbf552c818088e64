//! Stashes: messages that an actor puts aside until it is ready for them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use mobula::{ActorRef, CallError, RemoteActor, RemoteMessage};
use mobula_core::limits::STASH_MESSAGES;
use mobula_integration_tests::timekeeper::{BeReady, Collapse, Note, Notes, Query, Timekeeper};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};
use parking_lot::Mutex;

suites! {
    what_was_put_aside_comes_first_and_in_its_order on [embedded, processes, memory];
    who_waits_for_a_stashed_message_waits_to_its_deadline on [embedded, processes, memory];
    a_stash_is_bounded on [embedded, processes, memory];
    who_gave_up_takes_no_place_in_a_stash on [embedded, processes, memory];
    a_tell_that_was_put_aside_comes_back_to_its_sender on [embedded, processes, memory];
    a_restart_takes_up_what_was_put_aside on [embedded, processes, memory];
    the_end_of_its_actor_answers_what_was_put_aside on [embedded, processes, memory];
}

async fn keeper(stage: &Stage) -> ActorRef<Timekeeper> {
    stage.spawn(0, Timekeeper::spec(())).await
}

async fn notes(keeper: &ActorRef<Timekeeper>) -> Vec<u64> {
    within(LONG, "the notes", keeper.ask(Notes)).await.expect("it answers")
}

async fn what_was_put_aside_comes_first_and_in_its_order(stage: Stage) {
    let keeper = keeper(&stage).await;
    let mut asked: Vec<_> = (1..=10).map(|number| keeper.ask(Query(number))).collect();
    drop(keeper.tell(Query(11)));
    // Handled while the others wait.
    assert_eq!(within(LONG, "a note", keeper.ask(Note(0))).await, Ok(1));
    assert!(asked.iter_mut().all(|ask| ask.now_or_never().is_none()), "answered too early");
    let ready = keeper.ask(BeReady);
    let after = keeper.ask(Note(12));
    assert_eq!(within(LONG, "the start", ready).await, Ok(11));
    for (answer, number) in within(LONG, "the answers", join_all(asked)).await.into_iter().zip(1..) {
        assert_eq!(answer, Ok(number));
    }
    assert_eq!(within(LONG, "a note", after).await, Ok(13));
    assert_eq!(notes(&keeper).await, (0..=12).collect::<Vec<_>>());
}

async fn who_waits_for_a_stashed_message_waits_to_its_deadline(stage: Stage) {
    let keeper = keeper(&stage).await;
    let hasty = keeper.with_deadline(Duration::from_millis(20)).ask(Query(1));
    let given_up = keeper.ask(Query(2));
    let patient = keeper.ask(Query(3));
    let error = within(LONG, "the deadline", hasty).await.expect_err("it was put aside");
    assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    if stage.is_near() {
        assert_eq!(error, CallError::DeadlineExceeded { started: true }, "its handler has run");
    }
    drop(given_up);
    within(LONG, "the start", keeper.ask(BeReady)).await.expect("it answers");
    assert_eq!(within(LONG, "the patient one", patient).await, Ok(3));
    assert_eq!(notes(&keeper).await, [3], "nobody waited for the others");
}

async fn a_stash_is_bounded(stage: Stage) {
    let keeper = keeper(&stage).await;
    let aside: Vec<_> = (0..STASH_MESSAGES as u64).map(|number| keeper.ask(Query(number))).collect();
    let one_more = within(LONG, "one more", keeper.ask(Query(0))).await;
    assert_eq!(one_more, Err(CallError::Full { limit: STASH_MESSAGES as u64 }));
    within(LONG, "the start", keeper.ask(BeReady)).await.expect("it answers");
    for answer in within(LONG, "the answers", join_all(aside)).await {
        answer.expect("it was put aside");
    }
    assert_eq!(notes(&keeper).await, (0..STASH_MESSAGES as u64).collect::<Vec<_>>());
}

async fn a_restart_takes_up_what_was_put_aside(stage: Stage) {
    let keeper = keeper(&stage).await;
    let asked = keeper.ask(Query(1));
    let panicked = within(LONG, "the panic", keeper.ask(Collapse)).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    // The new life puts it aside again.
    assert_eq!(within(LONG, "the start", keeper.ask(BeReady)).await, Ok(1));
    assert_eq!(within(LONG, "the answer", asked).await, Ok(1));
}

async fn the_end_of_its_actor_answers_what_was_put_aside(stage: Stage) {
    let keeper = keeper(&stage).await;
    let asked: Vec<_> = (0..3).map(|number| keeper.ask(Query(number))).collect();
    within(LONG, "a note", keeper.ask(Note(0))).await.expect("noted");
    keeper.stop().await.expect("the order arrives");
    for answer in within(LONG, "the answers", join_all(asked)).await {
        assert_eq!(answer, Err(CallError::Cancelled { started: true }), "its handler has run");
    }
}

async fn who_gave_up_takes_no_place_in_a_stash(stage: Stage) {
    let keeper = keeper(&stage).await;
    let given_up: Vec<_> = (0..STASH_MESSAGES as u64).map(|number| keeper.ask(Query(number))).collect();
    within(LONG, "a note", keeper.ask(Note(0))).await.expect("noted");
    drop(given_up);
    let aside = keeper.ask(Query(7));
    within(LONG, "the start", keeper.ask(BeReady)).await.expect("it answers");
    assert_eq!(within(LONG, "the answer", aside).await, Ok(7));
    assert_eq!(notes(&keeper).await, [0, 7]);
}

async fn a_tell_that_was_put_aside_comes_back_to_its_sender(stage: Stage) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&heard);
    stage.caller().on_dead_letter(move |letter| hook.lock().push((letter.actor, letter.message, letter.reason)));
    let keeper = keeper(&stage).await;
    within(LONG, "room", keeper.tell(Query(1))).await.expect("there is room");
    within(LONG, "room", keeper.tell_acked(Query(2))).await.expect("there is room");
    within(LONG, "a note", keeper.ask(Note(0))).await.expect("noted");
    keeper.stop().await.expect("the order arrives");
    eventually(LONG, "both dead letters", async || (heard.lock().len() >= 2).then_some(())).await;
    assert_eq!(*heard.lock(), [1, 2].map(|_| (keeper.id(), Query::NAME, CallError::Stopped)));
}
