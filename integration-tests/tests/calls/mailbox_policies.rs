//! What becomes of messages for which a mailbox has no room.

use std::sync::Arc;

use mobula::{ActorRef, CallError, MailboxPolicy, Outcome, RemoteActor, RestartPolicy};
use mobula_integration_tests::actors::{Log, Panic, Probe, Record};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};
use parking_lot::Mutex;

suites! {
    a_mailbox_that_fails_refuses_what_finds_no_room on [embedded, processes, memory];
    a_mailbox_that_drops_the_new_keeps_the_old on [embedded, processes, memory];
    a_mailbox_that_drops_the_old_takes_the_new on [embedded, processes, memory];
    a_full_mailbox_of_an_actor_that_rests_says_so on [embedded, processes, memory];
}

const FULL: CallError = CallError::Full { limit: 2 };

/// The reasons of the dead letters that the caller hears of.
fn reasons(stage: &Stage) -> Arc<Mutex<Vec<CallError>>> {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reasons);
    stage.caller().on_dead_letter(move |letter| heard.lock().push(letter.reason));
    reasons
}

async fn heard(reasons: &Mutex<Vec<CallError>>, expected: &[CallError]) {
    let all = async || (reasons.lock().len() >= expected.len()).then_some(());
    eventually(LONG, "the dead letters", all).await;
    assert_eq!(*reasons.lock(), expected);
}

/// A probe with room for two, which are there.
async fn full(stage: &Stage, policy: MailboxPolicy) -> (ActorRef<Probe>, mobula_integration_tests::Held) {
    let probe = stage.spawn(0, Probe::spec(0).mailbox(2).mailbox_policy(policy)).await;
    let held = stage.hold(&probe).await;
    for number in 1..=2 {
        within(LONG, "the mailbox", probe.tell_acked(Record(number))).await.expect("there is room");
    }
    (probe, held)
}

async fn a_mailbox_that_fails_refuses_what_finds_no_room(stage: Stage) {
    let reasons = reasons(&stage);
    let (probe, held) = full(&stage, MailboxPolicy::Fail).await;
    assert_eq!(within(LONG, "an answer at once", probe.tell_acked(Record(3))).await, Err(FULL));
    assert_eq!(within(LONG, "an answer at once", probe.ask(Record(4))).await, Err(FULL));
    let told = within(LONG, "an answer at once", probe.tell(Record(5))).await;
    if stage.is_near() {
        assert_eq!(told, Err(FULL));
        assert_eq!(probe.try_tell(Record(6)), Err(FULL));
    } else {
        // It was on its way, and comes back.
        assert_eq!(told, Ok(()));
        heard(&reasons, &[FULL]).await;
    }
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2]));
}

async fn a_mailbox_that_drops_the_new_keeps_the_old(stage: Stage) {
    let reasons = reasons(&stage);
    let (probe, held) = full(&stage, MailboxPolicy::DropNew).await;
    assert_eq!(within(LONG, "an answer at once", probe.tell(Record(3))).await, Ok(()), "its sender is not bothered");
    assert_eq!(within(LONG, "an answer at once", probe.tell_acked(Record(4))).await, Err(FULL));
    assert_eq!(within(LONG, "an answer at once", probe.ask(Record(5))).await, Err(FULL));
    heard(&reasons, &[FULL]).await;
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 1, 2]));
}

async fn a_mailbox_that_drops_the_old_takes_the_new(stage: Stage) {
    let reasons = reasons(&stage);
    let (probe, held) = full(&stage, MailboxPolicy::DropOld).await;
    assert_eq!(within(LONG, "an answer at once", probe.tell(Record(3))).await, Ok(()));
    heard(&reasons, &[FULL]).await;
    let oldest = probe.ask(Record(4));
    for number in 5..=6 {
        assert_eq!(within(LONG, "the mailbox", probe.tell_acked(Record(number))).await, Ok(()));
    }
    assert_eq!(within(LONG, "an answer at once", oldest).await, Err(FULL), "an ask is told, and is no dead letter");
    heard(&reasons, &[FULL, FULL, FULL]).await;
    held.release().await;
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 5, 6]));
}

async fn a_full_mailbox_of_an_actor_that_rests_says_so(stage: Stage) {
    let letters = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&letters);
    stage.caller().on_dead_letter(move |letter| heard.lock().push((letter.reason, letter.body.is_some())));
    // Longer than the test takes.
    let policy = RestartPolicy { backoff_min: LONG * 10, backoff_max: LONG * 10, ..RestartPolicy::default() };
    let spec = Probe::spec(0).mailbox(2).mailbox_policy(MailboxPolicy::Fail).restart_policy(policy);
    let probe = stage.spawn(0, spec).await;
    let panicked = within(LONG, "the panic", probe.ask(Panic("boom".to_owned()))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    for number in 1..=2 {
        within(LONG, "the mailbox", probe.tell_acked(Record(number))).await.expect("there is room");
    }
    // Its panic is answered before its life has ended.
    let refused = eventually(LONG, "the rest", async || match probe.ask(Record(3)).await {
        Err(CallError::Full { .. }) => None,
        answer => Some(answer),
    });
    let error = refused.await.expect_err("there is no room");
    assert_eq!((&error, error.outcome()), (&CallError::Restarting, Outcome::NotStarted));
    assert_eq!(within(LONG, "an answer at once", probe.tell_acked(Record(4))).await, Err(CallError::Restarting));
    if stage.is_near() {
        assert_eq!(probe.try_tell(Record(5)), Err(CallError::Restarting));
    }
    // Nobody looks at the error: then it comes back, with the message if that never left.
    drop(probe.tell(Record(6)));
    eventually(LONG, "the dead letter", async || (!letters.lock().is_empty()).then_some(())).await;
    assert_eq!(*letters.lock(), [(CallError::Restarting, stage.is_near())]);
}
