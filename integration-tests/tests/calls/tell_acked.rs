//! Tells whose sender hears that they are in the mailbox.

use futures::poll;
use mobula::{CallError, Outcome, Recipient, RemoteActor};
use mobula_integration_tests::actors::{Log, Probe, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};

suites! {
    an_acked_tell_is_in_the_mailbox on [embedded, processes, memory];
    an_acked_tell_waits_for_room_in_the_mailbox on [embedded, processes, memory];
    acked_tells_keep_their_order_with_tells_and_asks on [embedded, processes, memory];
    an_acked_tell_that_nobody_waits_for_is_delivered on [embedded, processes, memory];
    an_acked_tell_to_an_ended_actor_is_refused on [embedded, processes, memory];
}

async fn an_acked_tell_is_in_the_mailbox(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    // Its handler has not run, and will not for as long as the probe holds.
    assert_eq!(within(LONG, "the mailbox", probe.tell_acked(Record(1))).await, Ok(()));
    let recipient = Recipient::<Record>::from(probe.clone());
    assert_eq!(within(LONG, "the mailbox", recipient.tell_acked(Record(2))).await, Ok(()));
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2]));
}

async fn an_acked_tell_waits_for_room_in_the_mailbox(stage: Stage) {
    let (probe, other) = (stage.spawn(0, Probe::spec(0).mailbox(2)).await, stage.probe(0).await);
    let held = stage.hold(&probe).await;
    for number in 1..=2 {
        within(LONG, "the mailbox", probe.tell_acked(Record(number))).await.expect("there is room");
    }
    let mut third = probe.tell_acked(Record(3));
    assert!(poll!(&mut third).is_pending());
    // An answer from the same node that was asked for later: had the third been accepted, that would be known.
    within(LONG, "the other probe", other.ask(Log)).await.expect("it answers");
    assert!(poll!(&mut third).is_pending(), "there is no room for it");
    held.release().await;
    assert_eq!(within(LONG, "room", third).await, Ok(()));
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2, 3]));
}

async fn acked_tells_keep_their_order_with_tells_and_asks(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(8)).await;
    let held = stage.hold(&probe).await;
    let (mut acked, mut asked, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for number in (1..3000).step_by(3) {
        acked.push(probe.tell_acked(Record(number)));
        asked.push(probe.ask(Record(number + 1)));
        told.push(probe.tell(Record(number + 2)));
    }
    held.release().await;
    // Polled in an order of their own.
    within(LONG, "the asks", futures::future::try_join_all(asked.into_iter().rev())).await.expect("they are answered");
    within(LONG, "the tells", futures::future::try_join_all(told)).await.expect("they are accepted");
    within(LONG, "the acked", futures::future::try_join_all(acked.into_iter().rev())).await.expect("they arrived");
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, (0..=3000).collect::<Vec<_>>());
}

async fn an_acked_tell_that_nobody_waits_for_is_delivered(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    drop(probe.tell_acked(Record(1)));
    let mut polled = probe.tell_acked(Record(2));
    let _ = poll!(&mut polled);
    drop(polled);
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2]));
}

async fn an_acked_tell_to_an_ended_actor_is_refused(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    within(LONG, "the mailbox", probe.tell_acked(Record(1))).await.expect("it is accepted, and will be a dead letter");
    probe.kill().await.expect("the order arrives");
    within(LONG, "its end", probe.monitor()).await;
    drop(held);
    let refused = within(LONG, "an answer", probe.tell_acked(Record(2))).await.expect_err("nobody is there");
    assert!(matches!(refused, CallError::Stopped | CallError::NoSuchActor { .. }), "{refused:?}");
    assert_eq!(refused.outcome(), Outcome::NotStarted);
}
