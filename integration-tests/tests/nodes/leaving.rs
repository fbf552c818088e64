//! A node that ends in order: it says so, finishes what it has, and goes; nobody is left in doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mobula::CallError;
use mobula_integration_tests::actors::{Bytes, Hold, Open, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

fn is_turned_away<T>(answer: &Result<T, CallError>) -> bool {
    match answer {
        Err(error @ CallError::Unreachable { sent: false, reason, .. }) => {
            error.outcome().is_retry_safe() && reason.contains("a new kernel")
        }
        _ => false,
    }
}

async fn a_node_that_leaves_answers_what_it_has_and_then_ends(stage: Stage) {
    let probe = stage.probe(0).await;
    let gate = gates::fresh_name();
    let holding = probe.ask(Hold { gate: gate.clone() });
    within(LONG, "the handler", gates::entered(&gate, 1)).await;
    let queued = probe.ask(Record(1));
    drop(probe.tell(Record(2)));
    let large = probe.ask(Bytes(3_000_000));
    let node = stage.node(0).clone();
    let left = tokio::spawn(async move { node.leave("a new kernel", LONG).await });
    // New calls fail at once, and may be made elsewhere.
    eventually(LONG, "the news", async || is_turned_away(&probe.try_tell(Record(7))).then_some(())).await;
    assert!(is_turned_away(&within(LONG, "an ask", probe.ask(Record(8))).await));
    assert!(!left.is_finished(), "it has not answered yet");
    let elsewhere = stage.probe(1).await;
    assert_eq!(within(LONG, "another node", elsewhere.ask(Record(8))).await, Ok(2));
    gates::open(&gate);
    within(LONG, "the handler", holding).await.expect("it was in progress");
    assert_eq!(within(LONG, "what was queued", queued).await, Ok(2));
    assert_eq!(within(LONG, "a large answer", large).await.map(|bytes| bytes.len()), Ok(3_000_000));
    assert!(within(LONG, "the end", left).await.expect("no panic"), "nothing was in progress any more");
    // It is known to have ended on purpose, and nobody waits for it.
    eventually(LONG, "the end of the node", async || stage.caller().data_link(stage.home(0)).is_none().then_some(()))
        .await;
    let after = within(LONG, "an ask", probe.ask(Record(9))).await;
    assert!(is_turned_away(&after), "{after:?}");
}

async fn at_the_end_of_its_time_a_node_leaves_all_the_same(stage: Stage) {
    let probe = stage.probe(0).await;
    let gate = gates::fresh_name();
    let holding = probe.without_deadline().ask(Hold { gate: gate.clone() });
    within(LONG, "the handler", gates::entered(&gate, 1)).await;
    let left = stage.node(0).leave("a new kernel", Duration::from_millis(50));
    assert!(!within(LONG, "the end", left).await, "the handler was in progress");
    let Err(CallError::Unreachable { sent: true, reason, .. }) = within(LONG, "the ask", holding).await else {
        panic!("it cannot know")
    };
    assert!(reason.contains("a new kernel"), "{reason}");
    gates::open(&gate);
}

/// Many callers that go on and on, and a node that leaves among them: each call is answered, or was certainly not begun.
async fn no_call_to_a_node_that_leaves_ends_in_doubt(stage: Stage) {
    let probe = stage.probe(0).await;
    let (asked, answered, over) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0), AtomicBool::new(false));
    let callers = (0..50_u64).map(|caller| {
        let (probe, asked, answered, over) = (&probe, &asked, &answered, &over);
        async move {
            while !over.load(Ordering::Relaxed) {
                let bytes = if caller % 10 == 0 { 200_000 } else { 10 };
                asked.fetch_add(1, Ordering::Relaxed);
                match probe.ask(Bytes(bytes)).await {
                    Ok(answer) => assert_eq!(answer.len() as u64, bytes),
                    Err(error) => {
                        assert!(error.outcome().is_retry_safe(), "{error:?}");
                        return;
                    }
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let node = stage.node(0).clone();
    let leaving = async {
        eventually(LONG, "many calls", async || (answered.load(Ordering::Relaxed) > 500).then_some(())).await;
        let left = tokio::spawn(async move { node.leave("a new kernel", LONG).await });
        let left = within(LONG, "the end", left).await.expect("no panic");
        over.store(true, Ordering::Relaxed);
        left
    };
    let (left, _) = within(LONG, "all calls", futures::future::join(leaving, futures::future::join_all(callers))).await;
    assert!(left, "all that was asked was answered");
}

/// Messages that nobody waits for are handled, too.
async fn tells_to_a_node_that_leaves_are_handled_before_it_ends(stage: Stage) {
    let keeper = stage.keeper(0).await;
    let gates: Vec<_> = (0..200).map(|_| gates::fresh_name()).collect();
    for gate in &gates {
        within(LONG, "a tell", keeper.tell(Open { gate: gate.clone() })).await.expect("accepted");
    }
    assert!(within(LONG, "the end", stage.node(0).leave("a new kernel", LONG)).await);
    for gate in &gates {
        within(LONG, "a gate that a tell has opened", gates::pass(gate)).await;
    }
}

suites! {
    a_node_that_leaves_answers_what_it_has_and_then_ends on [memory];
    at_the_end_of_its_time_a_node_leaves_all_the_same on [memory];
    no_call_to_a_node_that_leaves_ends_in_doubt on [memory];
    tells_to_a_node_that_leaves_are_handled_before_it_ends on [memory];
}
