//! Deadlines and cancellation: nobody waits for ever, and what nobody waits for does not run.

use std::time::Duration;

use mobula::{CallError, Outcome, RemoteActor};
use mobula_integration_tests::actors::{AskNested, Block, Entered, Hold, Log, NestedSoFar, Open, Probe, Record, Relay};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    an_ask_ends_at_its_deadline on [embedded, processes, memory];
    an_expired_message_never_runs on [embedded, processes, memory];
    a_deadline_that_is_over_sends_nothing on [processes, memory];
    a_nested_ask_inherits_the_deadline on [embedded, processes, memory];
    a_nested_ask_keeps_its_own_shorter_deadline on [embedded, processes, memory];
    a_dropped_ask_is_not_begun on [embedded, processes, memory];
    dropping_an_ask_does_not_stop_its_handler on [embedded, processes, memory];
    the_line_for_a_mailbox_forgets_dropped_asks on [processes, memory];
}

const SHORT: Duration = Duration::from_millis(60);

/// What a busy machine may add; without a deadline it would be 30 s.
const SLACK: Duration = Duration::from_secs(2);

async fn an_ask_ends_at_its_deadline(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let begun = tokio::time::Instant::now();
    let queued = within(LONG, "the deadline", probe.with_deadline(SHORT).ask(Record(1))).await;
    let took = begun.elapsed();
    let Err(error @ CallError::DeadlineExceeded { .. }) = queued else { panic!("{queued:?}") };
    // From here nobody can see how far it came, unless it never left.
    assert!(matches!(error.outcome(), Outcome::Unknown | Outcome::NotStarted));
    // On the wire it is cut to whole milliseconds, and a timer may fire up to one late.
    assert!(took + Duration::from_millis(2) >= SHORT && took < SHORT + SLACK, "{took:?}");
    held.release().await;

    // The handler runs: the same.
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let running = within(LONG, "the deadline", probe.with_deadline(SHORT).ask(Hold { gate: gate.clone() })).await;
    assert_eq!(running, Err(CallError::DeadlineExceeded { started: true }));
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    assert_eq!(within(LONG, "the next message", probe.ask(Log)).await, Ok(vec![0]));
}

async fn an_expired_message_never_runs(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let hasty = probe.with_deadline(SHORT);
    within(LONG, "room", hasty.tell(Record(1))).await.expect("there is room");
    hasty.try_tell(Record(2)).expect("there is room");
    // When this one has expired, those before it have, too.
    let expired = within(LONG, "the deadline", hasty.ask(Record(3))).await;
    assert!(matches!(expired, Err(CallError::DeadlineExceeded { .. })), "{expired:?}");
    let in_time = probe.ask(Record(4));
    held.release().await;
    assert_eq!(within(LONG, "what did not expire", in_time).await, Ok(2));
    assert_eq!(probe.ask(Log).await, Ok(vec![0, 4]));
}

async fn a_deadline_that_is_over_sends_nothing(stage: Stage) {
    let probe = stage.probe(0).await;
    let over = probe.with_deadline(Duration::ZERO);
    let asked = within(LONG, "an answer at once", over.ask(Record(1))).await;
    assert_eq!(asked, Err(CallError::DeadlineExceeded { started: false }));
    assert_eq!(asked.expect_err("just seen").outcome(), Outcome::NotStarted);
    assert_eq!(over.try_tell(Record(2)), Err(CallError::DeadlineExceeded { started: false }));
    assert_eq!(probe.ask(Log).await, Ok(vec![0]));
}

async fn a_nested_ask_inherits_the_deadline(stage: Stage) {
    let outer = Duration::from_millis(200);
    // By itself it would wait for 30 s.
    let after = nested_deadline(&stage, outer, None).await;
    assert!(after <= outer + SLACK, "{after:?}");
}

async fn a_nested_ask_keeps_its_own_shorter_deadline(stage: Stage) {
    let after = nested_deadline(&stage, LONG, Some(SHORT)).await;
    assert!(after + Duration::from_millis(2) >= SHORT && after <= SHORT + SLACK, "{after:?}");
}

/// After what time an ask ends at its deadline that a handler made, with a deadline of its own or none, while it
/// handled a message with the deadline `outer`.
async fn nested_deadline(stage: &Stage, outer: Duration, wait: Option<Duration>) -> Duration {
    let probe = stage.probe(0).await;
    let relay = stage.spawn(1, Relay::spec(None)).await;
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let asked = relay.with_deadline(outer).ask(AskNested { to: probe, gate: gate.clone(), wait });
    let nested = eventually(LONG, "the nested", async || relay.ask(NestedSoFar).await.expect("it answers").pop()).await;
    assert!(matches!(nested.answer, Err(CallError::DeadlineExceeded { .. })), "{nested:?}");
    drop(asked);
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    nested.after
}

async fn a_dropped_ask_is_not_begun(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    drop(probe.ask(Record(1)));
    let kept = probe.ask(Record(2));
    // One that was polled is no different.
    let mut polled = probe.ask(Record(3));
    assert!(futures::poll!(&mut polled).is_pending());
    drop(polled);
    held.release().await;
    assert_eq!(within(LONG, "what was kept", kept).await, Ok(2));
    assert_eq!(probe.ask(Log).await, Ok(vec![0, 2]));
}

async fn dropping_an_ask_does_not_stop_its_handler(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).own_thread()).await;
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(0).await);
    let running = probe.ask(Block { gate: gate.clone() });
    within(LONG, "the handler", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it answers");
    drop(running);
    let next = probe.ask(Record(1));
    keeper.ask(Open { gate }).await.expect("the keeper answers");
    // Its answer went nowhere, and took no other's place.
    assert_eq!(within(LONG, "the next message", next).await, Ok(2));
}

async fn the_line_for_a_mailbox_forgets_dropped_asks(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let asks: Vec<_> = (1..=5000).map(|number| (number, probe.ask(Record(number)))).collect();
    let (kept, dropped): (Vec<_>, Vec<_>) = asks.into_iter().partition(|(number, _)| number % 100 == 0);
    drop(dropped);
    held.release().await;
    for (at, (_, ask)) in kept.into_iter().enumerate() {
        assert_eq!(within(LONG, "what was kept", ask).await, Ok(at as u64 + 2));
    }
    assert_eq!(probe.ask(Log).await.expect("it answers").len(), 51);
}
