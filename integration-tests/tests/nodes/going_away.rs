//! A node that is about to end on purpose says so: nothing new is started there, and what is in progress is finished.

use mobula::{CallError, RemoteActor, SpawnError};
use mobula_integration_tests::actors::{Hold, Log, Probe, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

fn is_turned_away<T>(answer: &Result<T, CallError>) -> bool {
    match answer {
        Err(error @ CallError::Unreachable { sent: false, reason, .. }) => {
            error.outcome().is_retry_safe() && reason.contains("about to end: a new kernel")
        }
        _ => false,
    }
}

async fn a_node_that_goes_away_finishes_what_it_has_and_takes_nothing_new(stage: Stage) {
    let (probe, other) = (stage.probe(0).await, stage.probe(1).await);
    let gate = gates::fresh_name();
    let holding = probe.ask(Hold { gate: gate.clone() });
    within(LONG, "the handler", gates::entered(&gate, 1)).await;
    let queued = probe.ask(Record(1));
    stage.node(0).go_away("a new kernel");
    // The news takes its way.
    eventually(LONG, "the news", async || is_turned_away(&probe.try_tell(Record(7))).then_some(())).await;
    assert!(is_turned_away(&within(LONG, "an ask", probe.ask(Record(8))).await));
    assert!(is_turned_away(&within(LONG, "a tell", probe.tell(Record(9))).await));
    let spawned = within(LONG, "a spawn", stage.caller().spawn_on(stage.home(0), Probe::spec(0))).await;
    assert!(matches!(spawned, Err(SpawnError::NodeEnding)), "{spawned:?}");
    // Elsewhere a retry finds its actor.
    assert_eq!(within(LONG, "another node", other.ask(Record(8))).await, Ok(2));
    // From there to here nothing is different, nor within the node.
    let near = stage.node(0).reference_to(&probe);
    let beside = near.ask(Record(2));
    gates::open(&gate);
    within(LONG, "the handler", holding).await.expect("it was in progress");
    assert!(within(LONG, "what was queued", queued).await.is_ok());
    assert!(within(LONG, "a call within the node", beside).await.is_ok());
    let log = within(LONG, "the log", near.ask(Log)).await.expect("it answers");
    assert!(log.contains(&1) && log.contains(&2) && !log.iter().any(|record| (8..=9).contains(record)), "{log:?}");
}

suites! {
    a_node_that_goes_away_finishes_what_it_has_and_takes_nothing_new on [memory];
}
