//! Full mailboxes and used-up credit: a sender waits or is told, and nothing is lost.

use futures::future::try_join_all;
use mobula::{CallError, Outcome, RemoteActor};
use mobula_core::limits;
use mobula_integration_tests::actors::{Log, Probe, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    try_tell_says_full_when_the_mailbox_is on [embedded];
    try_tell_says_full_when_the_credit_is_used_up on [processes, memory];
    tells_that_nobody_waits_for_are_bounded on [embedded];
    a_tell_waits_for_room on [embedded, processes, memory];
    one_full_actor_leaves_room_for_others on [embedded, processes, memory];
    credit_comes_back on [processes, memory];
}

async fn try_tell_says_full_when_the_mailbox_is(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(4)).await;
    let held = stage.hold(&probe).await;
    for number in 1..=4 {
        assert_eq!(probe.try_tell(Record(number)), Ok(()));
    }
    assert_eq!(probe.try_tell(Record(5)), Err(CallError::Full { limit: 4 }));
    assert_eq!(CallError::<mobula::Never>::Full { limit: 4 }.outcome(), Outcome::NotStarted);
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2, 3, 4]));
    assert_eq!(probe.try_tell(Record(6)), Ok(()));
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2, 3, 4, 6]));
}

async fn try_tell_says_full_when_the_credit_is_used_up(stage: Stage) {
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    let limit = u64::from(limits::CREDIT_MESSAGES);
    let accepted = (1..=2 * limit).take_while(|number| probe.try_tell(Record(*number)).is_ok()).count() as u64;
    // The held message has been taken up, but its credit returns with others.
    assert!(accepted == limit || accepted == limit - 1, "{accepted}");
    assert_eq!(probe.try_tell(Record(0)), Err(CallError::Full { limit }));
    held.release().await;
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, (0..=accepted).collect::<Vec<_>>());
    assert_eq!(probe.try_tell(Record(0)), Ok(()));
}

async fn a_tell_waits_for_room(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(4)).await;
    let held = stage.hold(&probe).await;
    let room = if stage.is_near() { 4 } else { u64::from(limits::CREDIT_MESSAGES) };
    let tells: Vec<_> = (1..=room + 10).map(|number| probe.tell(Record(number))).collect();
    let mut told = Box::pin(try_join_all(tells));
    assert!(futures::poll!(&mut told).is_pending(), "there is no room for all of them");
    held.release().await;
    within(LONG, "room", told).await.expect("there is room now");
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, (0..=room + 10).collect::<Vec<_>>());
}

/// Between processes, `flood.rs` does the same and measures the memory.
async fn tells_that_nobody_waits_for_are_bounded(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(4)).await;
    let held = stage.hold(&probe).await;
    let room = 4 + limits::LINE_MESSAGES_MAX;
    for number in 0..room {
        let told = futures::FutureExt::now_or_never(probe.tell(Record(1)));
        assert!(told.is_none() || (told == Some(Ok(())) && number < 4), "{number}: {told:?}");
    }
    assert_eq!(within(LONG, "an answer at once", probe.tell(Record(2))).await, Err(CallError::Full { limit: 4 }));
    assert_eq!(within(LONG, "an answer at once", probe.ask(Record(2))).await, Err(CallError::Full { limit: 4 }));
    held.release().await;
    let log = eventually(LONG, "the log", async || probe.ask(Log).await.ok()).await;
    assert_eq!(log.len(), 1 + room);
}

async fn one_full_actor_leaves_room_for_others(stage: Stage) {
    let (full, other) = (stage.spawn(0, Probe::spec(0).mailbox(4)).await, stage.probe(0).await);
    let held = stage.hold(&full).await;
    let waiting: Vec<_> = (0..3000).map(|number| full.tell(Record(number))).collect();
    assert!(full.try_tell(Record(0)).is_err());
    for number in 1..=10 {
        assert_eq!(other.try_tell(Record(number)), Ok(()));
        assert_eq!(within(LONG, "the other actor", other.ask(Record(number))).await, Ok(2 * number + 1));
    }
    held.release().await;
    within(LONG, "room", try_join_all(waiting)).await.expect("there is room now");
}

async fn credit_comes_back(stage: Stage) {
    let probe = stage.probe(0).await;
    for round in 0..5 {
        let held = stage.hold(&probe).await;
        let accepted = (0..2 * limits::CREDIT_MESSAGES).take_while(|_| probe.try_tell(Record(round)).is_ok()).count();
        // Returned in parts of a quarter: at most one part is under way.
        let least = limits::CREDIT_MESSAGES - limits::CREDIT_MESSAGES / 4;
        assert!(accepted >= least as usize && accepted <= limits::CREDIT_MESSAGES as usize, "{round}: {accepted}");
        held.release().await;
        within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    }
}
