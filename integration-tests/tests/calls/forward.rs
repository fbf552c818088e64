//! Handlers that hand their caller on to another actor.

use std::time::Duration;

use mobula::{ActorRef, CallError, RemoteActor};
use mobula_integration_tests::actors::{Entered, GateKeeper, Log, Open};
use mobula_integration_tests::patient::{
    AwaitCancel, FrontDesk, PanicElsewhere, Patient, RecordElsewhere, WaitElsewhere,
};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    the_caller_gets_the_others_answer on [embedded, processes, memory];
    the_caller_gets_the_others_error_as_it_is on [embedded, processes, memory];
    the_deadline_goes_with_the_call on [embedded, processes, memory];
    the_other_hears_that_the_caller_gave_up on [embedded, processes, memory];
    a_tell_is_handed_on_as_well on [embedded, processes, memory];
}

async fn desk(stage: &Stage) -> ActorRef<FrontDesk> {
    stage.spawn(1, FrontDesk::spec(())).await
}

async fn the_caller_gets_the_others_answer(stage: Stage) {
    let (desk, to) = (desk(&stage).await, stage.probe(0).await);
    for number in 1..=3 {
        let answer = desk.ask(RecordElsewhere { to: to.clone(), number });
        assert_eq!(within(LONG, "the answer", answer).await, Ok(number + 1));
    }
    assert_eq!(within(LONG, "the log", to.ask(Log)).await, Ok(vec![0, 1, 2, 3]));
}

async fn the_caller_gets_the_others_error_as_it_is(stage: Stage) {
    let (desk, to) = (desk(&stage).await, stage.probe(0).await);
    let panicked = within(LONG, "the answer", desk.ask(PanicElsewhere { to: to.clone() })).await;
    let Err(CallError::Panicked { actor, text, message, .. }) = panicked else { panic!("{panicked:?}") };
    assert_eq!((actor, text.as_str()), (to.id(), "elsewhere"));
    assert!(message.ends_with("::Panic"), "{message}");
    to.kill().await.expect("the order arrives");
    within(LONG, "its end", to.monitor()).await;
    let gone = within(LONG, "the answer", desk.ask(RecordElsewhere { to, number: 1 })).await;
    assert!(matches!(gone, Err(CallError::Stopped | CallError::NoSuchActor { .. })), "{gone:?}");
}

/// A patient that waits for its call's end, the keeper of its gates, and the gate that says so.
async fn waiting(stage: &Stage) -> (ActorRef<Patient>, ActorRef<GateKeeper>, AwaitCancel, String) {
    let (patient, keeper) = (stage.spawn(0, Patient::spec(())).await, stage.keeper(0).await);
    let (begun, cancelled) = (gates::fresh_name(), gates::fresh_name());
    keeper.ask(Open { gate: begun.clone() }).await.expect("the keeper answers");
    (patient, keeper, AwaitCancel { begun, cancelled: cancelled.clone() }, cancelled)
}

async fn entered(keeper: &ActorRef<GateKeeper>, gate: String) {
    within(LONG, "the gate", keeper.ask(Entered { gate, count: 1 })).await.expect("the keeper answers");
}

async fn the_deadline_goes_with_the_call(stage: Stage) {
    let desk = desk(&stage).await;
    let (to, keeper, work, cancelled) = waiting(&stage).await;
    let hasty = desk.with_deadline(Duration::from_millis(200));
    let late = within(LONG, "the deadline", hasty.ask(WaitElsewhere { to, work })).await;
    assert_eq!(late, Err(CallError::DeadlineExceeded { started: true }));
    entered(&keeper, cancelled).await;
}

async fn the_other_hears_that_the_caller_gave_up(stage: Stage) {
    let desk = desk(&stage).await;
    let (to, keeper, work, cancelled) = waiting(&stage).await;
    let begun = work.begun.clone();
    let asked = desk.without_deadline().ask(WaitElsewhere { to, work });
    entered(&keeper, begun).await;
    drop(asked);
    entered(&keeper, cancelled).await;
}

async fn a_tell_is_handed_on_as_well(stage: Stage) {
    let (desk, to) = (desk(&stage).await, stage.probe(0).await);
    within(LONG, "room", desk.tell(RecordElsewhere { to: to.clone(), number: 7 })).await.expect("there is room");
    let log = async || (to.ask(Log).await == Ok(vec![0, 7])).then_some(());
    eventually(LONG, "the log", log).await;
}
