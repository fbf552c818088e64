//! What a handler knows of the call that it serves, before an `.await` and after.

use std::time::Duration;

use mobula::{ActorRef, CallError, RemoteActor};
use mobula_integration_tests::actors::{Entered, GateKeeper, Open};
use mobula_integration_tests::patient::{
    AskAlone, AskBeside, AskInside, Asked, AskedSoFar, AwaitCancel, ComputeUntilCancelled, HasCall, Patient, Witness,
};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    an_ask_after_an_await_inherits_the_deadline on [embedded, processes, memory];
    running_work_hears_that_its_caller_gave_up on [embedded, processes, memory];
    running_work_hears_that_its_deadline_passed on [embedded, processes, memory];
    running_work_hears_that_the_connection_ended on [processes, memory];
    a_handler_that_computes_can_look on [embedded, processes, memory];
    only_handlers_have_a_call on [embedded, processes, memory];
}

const SHORT: Duration = Duration::from_millis(200);

async fn ended(patient: &ActorRef<Patient>, count: usize) -> Asked {
    let last = async || {
        let mut asked = patient.ask(AskedSoFar).await.expect("it answers");
        (asked.len() == count).then(|| asked.pop().expect("they are so many"))
    };
    eventually(LONG, "the nested ask", last).await
}

async fn an_ask_after_an_await_inherits_the_deadline(stage: Stage) {
    let (patient, keeper) = (stage.spawn(1, Patient::spec(())).await, stage.keeper(0).await);
    let hasty = patient.with_deadline(SHORT);
    for shape in 1..=3 {
        // One after the other: each probe holds until its gate opens.
        let (to, gate) = (stage.probe(0).await, gates::fresh_name());
        let (probe, opens) = (to.clone(), gate.clone());
        let outer = match shape {
            1 => within(LONG, "beside", hasty.ask(AskBeside { to, gate })).await,
            2 => within(LONG, "inside", hasty.ask(AskInside { to, gate })).await,
            _ => within(LONG, "alone", hasty.ask(AskAlone { to, gate })).await,
        };
        assert!(matches!(outer, Ok(()) | Err(CallError::DeadlineExceeded { .. })), "{outer:?}");
        let asked = ended(&patient, shape).await;
        assert!(matches!(asked.answer, Err(CallError::DeadlineExceeded { .. })), "{shape}: {asked:?}");
        // By itself it would wait for 30 s.
        assert!(asked.knew_its_call && asked.after < LONG, "{shape}: {asked:?}");
        keeper.ask(Open { gate: opens }).await.expect("the keeper answers");
        drop(probe);
    }
    // What an exclusive future had is gone with it: this one has the default of 30 s, and outlasts the others'.
    let (has, _) = within(LONG, "the call", patient.ask(HasCall)).await.expect("it answers");
    assert!(has);
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

async fn running_work_hears_that_its_caller_gave_up(stage: Stage) {
    let (patient, keeper, work, cancelled) = waiting(&stage).await;
    let begun = work.begun.clone();
    let asked = patient.without_deadline().ask(work);
    entered(&keeper, begun).await;
    drop(asked);
    entered(&keeper, cancelled).await;
}

async fn running_work_hears_that_its_deadline_passed(stage: Stage) {
    let (patient, keeper, work, cancelled) = waiting(&stage).await;
    let late = within(LONG, "the deadline", patient.with_deadline(SHORT).ask(work)).await;
    assert_eq!(late, Err(CallError::DeadlineExceeded { started: true }));
    entered(&keeper, cancelled).await;
}

async fn running_work_hears_that_the_connection_ended(stage: Stage) {
    let (patient, keeper, work, cancelled) = waiting(&stage).await;
    let (begun, home) = (work.begun.clone(), stage.home(0).clone());
    // The keeper is asked in time: its answer is heard by nobody once the connection is gone. Another home hears it.
    let asked = patient.without_deadline().ask(work);
    entered(&keeper, begun).await;
    let witness = stage.spawn(1, Patient::spec(())).await;
    let heard = witness.ask(Witness { keeper, gate: cancelled });
    stage.caller().data_link(&home).expect("it is connected").close("the test cuts it");
    let lost = within(LONG, "the ask", asked).await;
    assert!(matches!(lost, Err(CallError::Unreachable { sent: true, .. })), "{lost:?}");
    within(LONG, "the witness", heard).await.expect("it is still connected");
}

async fn a_handler_that_computes_can_look(stage: Stage) {
    let (patient, keeper) = (stage.spawn(0, Patient::spec(()).own_thread()).await, stage.keeper(0).await);
    let begun = gates::fresh_name();
    keeper.ask(Open { gate: begun.clone() }).await.expect("the keeper answers");
    let computing = patient.without_deadline().ask(ComputeUntilCancelled { begun: begun.clone() });
    entered(&keeper, begun).await;
    drop(computing);
    within(LONG, "the next message", patient.ask(AskedSoFar)).await.expect("the handler has returned");
}

async fn only_handlers_have_a_call(stage: Stage) {
    assert!(mobula::current_call().is_none());
    let patient = stage.spawn(0, Patient::spec(())).await;
    assert_eq!(within(LONG, "the answer", patient.ask(HasCall)).await, Ok((true, false)));
}
