//! Routers: several actors, near and far, behind one handle.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::join_all;
use mobula::{ActorRef, CallError, ExitReason, Outcome, Recipient, RemoteActor, Router};
use mobula_integration_tests::actors::{Hold, Log, Panic, Probe, Record};
use mobula_integration_tests::gates;
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};

suites! {
    round_robin_gives_each_its_turn on [embedded, processes, memory];
    recipients_can_be_members on [embedded, processes, memory];
    the_least_loaded_takes_the_next on [embedded, processes, memory];
    a_key_may_use_its_router on [embedded];
    a_key_stays_with_its_member on [embedded, processes, memory];
    chance_reaches_every_member on [embedded, processes, memory];
    a_member_that_has_ended_is_left_out on [embedded, processes, memory];
    what_a_member_never_began_goes_to_another on [embedded, processes, memory];
    what_may_have_run_is_not_sent_again on [processes];
    without_members_calls_fail_at_once on [embedded, processes, memory];
    a_routers_deadline_counts_for_all_attempts on [embedded, processes, memory];
    a_message_to_all_collects_all_answers on [embedded, processes, memory];
    pulled_work_goes_to_whoever_is_free on [embedded, processes, memory];
    pulled_work_that_was_not_begun_goes_to_another on [embedded, processes, memory];
    pulled_work_is_bounded on [embedded, processes, memory];
    pulled_work_that_nobody_waits_for_is_skipped on [embedded, processes, memory];
    a_graceful_stop_comes_behind_the_mail on [embedded, processes, memory];
}

/// One near and two at the homes.
async fn three(stage: &Stage) -> Vec<ActorRef<Probe>> {
    let near = within(LONG, "spawn", stage.caller().spawn(Probe::spec(0))).await.expect("spawned");
    vec![near, stage.probe(0).await, stage.probe(1).await]
}

async fn log(probe: &ActorRef<Probe>) -> Vec<u64> {
    within(LONG, "the log", probe.ask(Log)).await.expect("it answers")
}

async fn round_robin_gives_each_its_turn(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::round_robin(probes.clone());
    for number in 1..=3 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    for number in 4..=6 {
        within(LONG, "a tell", router.clone().tell(Record(number))).await.expect("there is room");
    }
    for number in 7..=9 {
        assert_eq!(router.try_tell(Record(number)), Ok(()));
    }
    for (probe, first) in probes.iter().zip(1..) {
        assert_eq!(log(probe).await, [0, first, first + 3, first + 6]);
    }
    assert_eq!(router.members(), probes);
    assert!(router.remove(&probes[0]) && !router.remove(&probes[0]));
    for number in [10, 11] {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    assert_eq!(log(&probes[0]).await.len(), 4);
    router.add(probes[0].clone());
    assert_eq!(router.members().len(), 3);
    assert!(probes.contains(&router.pick().expect("three members")));
}

async fn recipients_can_be_members(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::round_robin(probes.iter().cloned().map(Recipient::<Record>::from));
    for number in 1..=3 {
        assert_eq!(within(LONG, "an answer", router.ask(Record(number))).await, Ok(2));
    }
}

async fn the_least_loaded_takes_the_next(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::least_loaded(probes.clone());
    let gate = gates::fresh_name();
    // The first is occupied until the gate opens.
    let held = router.without_deadline().ask(Hold { gate: gate.clone() });
    for number in 1..=10 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    let shares = [log(&probes[1]).await.len(), log(&probes[2]).await.len()];
    assert_eq!(shares, [6, 6], "five and the first entry each");
    // Given up, it is not in flight any more.
    drop(held);
    gates::open(&gate);
    let _unread: Vec<_> = (0..3).map(|number| router.ask(Record(number))).collect();
    assert_eq!(log(&probes[0]).await, [0, 0], "it is its turn again");
}

async fn a_key_may_use_its_router(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::consistent_hash(probes);
    let same = router.clone();
    let router = router.key(move |Record(number): &Record| {
        let _ = same.clone().key(|_: &Log| 0);
        number % 50
    });
    within(LONG, "an answer", router.ask(Record(7))).await.expect("it answers");
}

async fn a_key_stays_with_its_member(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::consistent_hash(probes.clone()).key(|Record(number): &Record| number % 50);
    for number in 0..200 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    let owners = async || {
        let mut owners = HashMap::new();
        for (index, probe) in probes.iter().enumerate() {
            for number in log(probe).await.into_iter().skip(1) {
                assert_eq!(*owners.entry(number % 50).or_insert(index), index, "a key has two members");
            }
        }
        owners
    };
    let before = owners().await;
    let shares: Vec<_> = (0..3).map(|index| before.values().filter(|owner| **owner == index).count()).collect();
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    router.remove(&probes[2]);
    for number in (200..400).filter(|number| before[&(number % 50)] != 2) {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    assert_eq!(owners().await, before, "keys of members that stay have moved");
    // The keys of the one that went go to the others.
    for number in 400..450 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("it answers");
    }
    assert!(log(&probes[2]).await.iter().all(|number| *number < 400));
}

async fn chance_reaches_every_member(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::random(probes.clone());
    let asked: Vec<_> = (0..300).map(|number| router.ask(Record(number))).collect();
    for answer in within(LONG, "the answers", join_all(asked)).await {
        answer.expect("it answers");
    }
    for probe in &probes {
        // One in 10^15 runs has a share below 40 of 300.
        let share = log(probe).await.len() - 1;
        assert!(share > 40, "{share} of 300");
    }
}

async fn a_member_that_has_ended_is_left_out(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::round_robin(probes.clone());
    for probe in &probes[..2] {
        probe.kill().await.expect("the order arrives");
        within(LONG, "its end", probe.monitor()).await;
    }
    for number in 1..=10 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("one member lives");
    }
    assert_eq!(log(&probes[2]).await, (0..=10).collect::<Vec<_>>());
    assert_eq!(router.members(), probes[2..]);
}

async fn what_a_member_never_began_goes_to_another(stage: Stage) {
    let probes = vec![stage.probe(0).await, stage.probe(1).await];
    let router = Router::round_robin(probes.clone());
    let held = stage.hold(&probes[0]).await;
    let asked: Vec<_> = (1..=10).map(|number| router.ask(Record(number))).collect();
    // Every second waits in the mailbox of the one that is held.
    probes[0].kill().await.expect("the order arrives");
    for answer in within(LONG, "the answers", join_all(asked)).await {
        answer.expect("the other takes it");
    }
    let mut handled = log(&probes[1]).await;
    handled.sort_unstable();
    assert_eq!(handled, (0..=10).collect::<Vec<_>>(), "each once");
    assert_eq!(router.members(), probes[1..]);
    // What had begun was not the router's, and is not repeated by anyone.
    let cut_off = within(LONG, "the held handler", held.holding).await.expect_err("its actor was killed");
    assert!(!cut_off.outcome().is_retry_safe(), "{cut_off}");
}

async fn what_may_have_run_is_not_sent_again(stage: Stage) {
    let probes = vec![stage.probe(0).await, stage.probe(1).await];
    let router = Router::round_robin(probes.clone());
    let _held = stage.hold(&probes[0]).await;
    let asked: Vec<_> = (1..=10).map(|number| router.ask(Record(number))).collect();
    // All of the first have arrived, for this one has.
    within(LONG, "its neighbour", stage.probe(0).await.ask(Record(1))).await.expect("it answers");
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let answers = within(LONG, "the answers", join_all(asked)).await;
    let (to_lost, to_alive): (Vec<_>, Vec<_>) = answers.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    for (_, answer) in to_lost {
        assert_eq!(answer.expect_err("its node is lost").outcome(), Outcome::Unknown);
    }
    assert!(to_alive.iter().all(|(_, answer)| answer.is_ok()));
    // The lost one is left out, also by calls that are never polled.
    for number in 11..=20 {
        drop(router.tell(Record(number)));
    }
    assert_eq!(log(&probes[1]).await.len(), 1 + 5 + 10);
}

async fn without_members_calls_fail_at_once(stage: Stage) {
    for router in [Router::round_robin([]), Router::work_pulling([])] {
        let _: &Router<ActorRef<Probe>> = &router;
        assert_eq!(router.ask(Record(1)).now_or_never(), Some(Err(CallError::Stopped)));
        assert_eq!(router.tell(Record(1)).now_or_never(), Some(Err(CallError::Stopped)));
        assert_eq!(router.try_tell(Record(1)), Err(CallError::Stopped));
        assert!(router.pick().is_none());
    }
    // Also when the last one ends with what it was sent.
    let probe = stage.probe(0).await;
    let held = stage.hold(&probe).await;
    for router in [Router::round_robin([probe.clone()]), Router::work_pulling([probe.clone()])] {
        let asked = [router.ask(Record(1)), router.ask(Record(2))];
        probe.kill().await.expect("the order arrives");
        for answer in within(LONG, "the answers", join_all(asked)).await {
            let error = answer.expect_err("nobody is left");
            assert!(error.outcome().is_retry_safe(), "{error}");
        }
    }
    drop(held);
}

async fn a_routers_deadline_counts_for_all_attempts(stage: Stage) {
    let probes = [stage.probe(0).await, stage.probe(1).await];
    let (first, second) = (stage.hold(&probes[0]).await, stage.hold(&probes[1]).await);
    for router in [Router::round_robin(probes.clone()), Router::work_pulling(probes.clone())] {
        let asked = router.with_deadline(std::time::Duration::from_millis(20)).ask(Record(1));
        let error = within(LONG, "the deadline", asked).await.expect_err("both are held");
        assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    }
    first.release().await;
    second.release().await;
}

async fn a_message_to_all_collects_all_answers(stage: Stage) {
    let probes = three(&stage).await;
    let router = Router::least_loaded(probes.clone());
    for (_, told) in router.tell_all(Record(1)) {
        within(LONG, "a tell", told).await.expect("there is room");
    }
    let answers = within(LONG, "the answers", router.ask_all(Log)).await;
    let expected: Vec<_> = probes.iter().map(|probe| (probe.clone(), Ok(vec![0, 1]))).collect();
    assert_eq!(answers, expected);
    // One that fails does not hide the others' answers.
    probes[1].kill().await.expect("the order arrives");
    within(LONG, "its end", probes[1].monitor()).await;
    let answers = within(LONG, "the answers", router.ask_all(Log)).await;
    assert_eq!(answers.iter().map(|(_, answer)| answer.is_ok()).collect::<Vec<_>>(), [true, false, true]);
}

async fn pulled_work_goes_to_whoever_is_free(stage: Stage) {
    let probes = [stage.probe(0).await, stage.probe(1).await];
    let router = Router::work_pulling(probes.clone());
    let held = stage.hold(&probes[0]).await;
    // One is sent to the slow one; all others pass it.
    let asked: Vec<_> = (1..=20).map(|number| router.ask(Record(number))).collect();
    let mut asked = asked.into_iter();
    let behind = asked.next().expect("twenty");
    for answer in within(LONG, "the answers", join_all(asked)).await {
        answer.expect("the free one takes it");
    }
    held.release().await;
    within(LONG, "the first", behind).await.expect("it answers");
    assert_eq!(log(&probes[0]).await, [0, 1]);
    assert_eq!(log(&probes[1]).await.len(), 20);
    // A handler's panic is an answer, and frees its member's place.
    for _ in 0..2 {
        let panicked = within(LONG, "the panic", router.ask(Panic("ill".to_owned()))).await;
        assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    }
    for number in 1..=4 {
        within(LONG, "an answer", router.ask(Record(number))).await.expect("both are back");
    }
}

async fn pulled_work_that_was_not_begun_goes_to_another(stage: Stage) {
    let probes = [stage.probe(0).await, stage.probe(1).await];
    let router = Router::work_pulling(probes.clone());
    let (first, second) = (stage.hold(&probes[0]).await, stage.hold(&probes[1]).await);
    let mut asked: Vec<_> = (1..=10).map(|number| router.ask(Record(number))).collect();
    // Tells are handed out like asks.
    router.try_tell(Record(11)).expect("there is room");
    probes[0].kill().await.expect("the order arrives");
    within(LONG, "its end", probes[0].monitor()).await;
    second.release().await;
    for answer in within(LONG, "the answers", join_all(asked.drain(..))).await {
        answer.expect("the other takes it");
    }
    within(LONG, "the last in line", router.ask(Record(12))).await.expect("it answers");
    let mut handled = log(&probes[1]).await;
    handled.sort_unstable();
    assert_eq!(handled, (0..=12).collect::<Vec<_>>(), "each once");
    drop(first);
}

async fn pulled_work_is_bounded(stage: Stage) {
    let probe = stage.probe(0).await;
    let router = Router::work_pulling([probe.clone()]).queue(5);
    let held = stage.hold(&probe).await;
    let first = router.ask(Record(1));
    // Taken out of the queue, and on its way to the one that is held.
    let in_flight = async || {
        let mut told = 0;
        while router.try_tell(Record(2)).is_ok() {
            told += 1;
        }
        (told == 5).then_some(())
    };
    // Five fit behind the first, or four while it is still in line itself.
    let four = in_flight().await.is_none();
    if four {
        mobula_integration_tests::eventually(LONG, "room", async || router.try_tell(Record(2)).ok()).await;
    }
    assert_eq!(router.try_tell(Record(3)), Err(CallError::Full { limit: 5 }));
    assert_eq!(router.ask(Record(3)).now_or_never(), Some(Err(CallError::Full { limit: 5 })));
    held.release().await;
    within(LONG, "the first", first).await.expect("it answers");
    within(LONG, "the last", eventually_asked(&router)).await;
    assert_eq!(log(&probe).await, [0, 1, 2, 2, 2, 2, 2, 4]);
}

/// Asks until there is room.
async fn eventually_asked(router: &Router<ActorRef<Probe>>) {
    mobula_integration_tests::eventually(LONG, "room", async || router.ask(Record(4)).await.ok()).await;
}

async fn pulled_work_that_nobody_waits_for_is_skipped(stage: Stage) {
    let probe = stage.probe(0).await;
    let router = Router::work_pulling([probe.clone()]);
    let held = stage.hold(&probe).await;
    let first = router.ask(Record(1));
    drop(router.ask(Record(2)));
    let last = router.ask(Record(3));
    held.release().await;
    within(LONG, "the first", first).await.expect("it answers");
    within(LONG, "the last", last).await.expect("it answers");
    assert_eq!(log(&probe).await, [0, 1, 3]);
}

async fn a_graceful_stop_comes_behind_the_mail(stage: Stage) {
    let probe = stage.probe(0).await;
    let monitor = probe.monitor();
    let held = stage.hold(&probe).await;
    let before: Vec<_> = (1..=20).map(|number| probe.ask(Record(number))).collect();
    let told = probe.stop_gracefully();
    let after = probe.ask(Record(21));
    held.release().await;
    for answer in within(LONG, "what came before", join_all(before)).await {
        answer.expect("handled before the end");
    }
    assert_eq!(within(LONG, "what came after", after).await, Err(CallError::Stopped));
    assert_eq!(within(LONG, "the order", told).await, Ok(()));
    assert_eq!(within(LONG, "the news", monitor).await.reason, ExitReason::Shutdown);
}
