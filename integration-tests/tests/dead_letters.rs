//! What reaches no handler: told to whoever waits, counted where nobody does.

use std::time::Duration;

use mobula::{CallError, Outcome};
use mobula_integration_tests::actors::{Hold, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    tells_that_reach_no_handler_are_counted on [embedded, processes, memory];
    a_near_ask_that_was_not_begun_says_so on [embedded];
    a_handler_that_is_cut_off_by_a_stop_is_cancelled on [embedded, processes, memory];
}

/// The dead letters of the first home, once there are so many.
async fn counted(stage: &Stage, at_least: u64) -> u64 {
    let count = async || {
        let report = stage.caller().report_of(stage.home(0)).await.expect("the node answers");
        (report.dead_letters >= at_least).then_some(report.dead_letters)
    };
    eventually(LONG, "the dead letters", count).await
}

async fn tells_that_reach_no_handler_are_counted(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let hasty = probe.with_deadline(Duration::from_millis(20));
    for number in 0..3 {
        within(LONG, "room", hasty.tell(Record(number))).await.expect("there is room");
    }
    let expired = within(LONG, "the deadline", hasty.ask(Record(9))).await;
    assert!(expired.is_err());
    held.release().await;
    assert_eq!(counted(&stage, 3).await, 3, "tells that expired");

    let held = stage.hold(&probe).await;
    for number in 0..4 {
        within(LONG, "room", probe.tell(Record(number))).await.expect("there is room");
    }
    // Answered from the mailbox, unlike the tells before it.
    let queued = probe.ask(Record(9));
    probe.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    drop(held);
    assert_eq!(counted(&stage, 7).await, 7, "tells that were queued at the stop");
}

async fn a_near_ask_that_was_not_begun_says_so(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let queued = within(LONG, "the deadline", probe.with_deadline(Duration::from_millis(20)).ask(Record(1))).await;
    assert_eq!(queued, Err(CallError::DeadlineExceeded { started: false }));
    held.release().await;
    let gate = gates::fresh_name();
    let running = within(LONG, "the deadline", probe.with_deadline(Duration::from_millis(20)).ask(Hold { gate })).await;
    assert_eq!(running, Err(CallError::DeadlineExceeded { started: true }));
}

async fn a_handler_that_is_cut_off_by_a_stop_is_cancelled(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    probe.stop().await.expect("the order arrives");
    let cut_off = within(LONG, "the held handler", held.holding).await.expect_err("it has no answer to give");
    assert_eq!(cut_off, CallError::Cancelled { started: true });
    assert_eq!(cut_off.outcome(), Outcome::Unknown);
}
