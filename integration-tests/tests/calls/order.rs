//! What one sender sends to one actor arrives in the order of the calls.

use futures::future::try_join_all;
use mobula::{ActorRef, CallError, MailboxPolicy, RemoteActor};
use mobula_core::limits;
use mobula_integration_tests::actors::{Log, Probe, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    mixed_asks_and_tells_keep_their_order on [embedded, processes, memory];
    a_full_mailbox_keeps_the_order on [embedded, processes, memory];
    more_messages_than_credit_keep_their_order on [processes, memory];
    a_never_polled_ask_is_delivered on [embedded, processes, memory];
    a_never_polled_ask_that_finds_no_room_is_refused on [embedded, processes, memory];
    a_slow_ask_holds_up_no_other_actor on [embedded, processes, memory];
}

/// Sends the numbers from 1 to `last`, asks and tells by turns, and polls nothing before all are sent. The answer to
/// each ask is the log's length, so it tells the place in which the message was handled.
async fn send_by_turns(probe: &ActorRef<Probe>, last: u64) -> Vec<(u64, mobula::Ask<Record>)> {
    let mut asks = Vec::new();
    for number in 1..=last {
        match number % 3 {
            0 => drop(probe.tell(Record(number))),
            _ => asks.push((number, probe.ask(Record(number)))),
        }
    }
    asks
}

async fn check_order(probe: &ActorRef<Probe>, asks: Vec<(u64, mobula::Ask<Record>)>, last: u64) {
    // Polled in an order that has nothing to do with that of the calls.
    let answers = asks.into_iter().rev().map(|(number, ask)| async move { ask.await.map(|place| (number, place)) });
    for (number, place) in within(LONG, "the answers", try_join_all(answers)).await.expect("all are answered") {
        assert_eq!(place, number + 1, "message {number} was handled in another place");
    }
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, (0..=last).collect::<Vec<_>>());
}

async fn mixed_asks_and_tells_keep_their_order(stage: Stage) {
    let probe = stage.probe(0).await;
    let asks = send_by_turns(&probe, 600).await;
    check_order(&probe, asks, 600).await;
}

async fn a_full_mailbox_keeps_the_order(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(2)).await;
    let held = stage.hold(&probe).await;
    let asks = send_by_turns(&probe, 300).await;
    held.release().await;
    check_order(&probe, asks, 300).await;
}

async fn more_messages_than_credit_keep_their_order(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let last = 3 * u64::from(limits::CREDIT_MESSAGES) + 1;
    let asks = send_by_turns(&probe, last).await;
    held.release().await;
    check_order(&probe, asks, last).await;
}

async fn a_never_polled_ask_is_delivered(stage: Stage) {
    let probe = stage.probe(0).await;
    let never_polled = probe.ask(Record(7));
    eventually(LONG, "the message", async || {
        let log = probe.ask(Log).await.expect("it answers");
        (log == [0, 7]).then_some(())
    })
    .await;
    drop(never_polled);
}

async fn a_never_polled_ask_that_finds_no_room_is_refused(stage: Stage) {
    let spec = Probe::spec(0).mailbox(1).mailbox_policy(MailboxPolicy::Fail);
    let probe = stage.spawn(0, spec).await;
    let held = stage.hold(&probe).await;
    within(LONG, "room", probe.tell_acked(Record(1))).await.expect("there is room");
    let never_polled = probe.ask(Record(2));
    // Refused by the same mailbox, behind it.
    let behind = within(LONG, "an answer at once", probe.ask(Record(3))).await;
    assert_eq!(behind, Err(CallError::Full { limit: 1 }));
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1]));
    assert_eq!(within(LONG, "what it was told then", never_polled).await, Err(CallError::Full { limit: 1 }));
}

async fn a_slow_ask_holds_up_no_other_actor(stage: Stage) {
    let (slow, other) = (stage.probe(0).await, stage.probe(0).await);
    let held = stage.hold(&slow).await;
    let waits = slow.ask(Record(1));
    assert_eq!(within(LONG, "the other actor", other.ask(Record(1))).await, Ok(2));
    held.release().await;
    assert_eq!(within(LONG, "the slow actor", waits).await, Ok(2));
}
