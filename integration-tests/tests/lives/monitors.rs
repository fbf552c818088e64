//! Monitors: an actor's end is told once, with its reason; a restart is no end.

use futures::FutureExt;
use mobula::{ActorRef, CallError, Down, ExitReason, RemoteActor};
use mobula_integration_tests::actors::{Entered, Open, Panic, Probe, Record};
use mobula_integration_tests::mortals::{
    AllHeard, EndNow, Guard, GuardAndBlock, Heard, How, Mortal, Nurse, NurseRef, Sentry, Unguard,
};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    the_end_is_told_with_its_reason on [embedded, processes, memory];
    every_monitor_is_told_once on [embedded, processes, memory];
    a_restart_is_no_end on [embedded, processes, memory];
    used_up_restarts_are_an_end_with_the_last_panic on [embedded, processes, memory];
    monitoring_a_dead_actor_answers_at_once on [embedded, processes, memory];
    a_monitor_works_without_being_polled on [embedded, processes, memory];
    a_dropped_monitor_leaves_nothing_behind on [memory];
    a_killed_node_is_told_to_each_monitor_once on [processes];
    what_was_answered_before_the_end_is_there_before_the_news on [embedded, processes, memory];
    an_actor_ends_itself_with_an_error on [embedded, processes, memory];
    an_actor_hears_of_an_end_as_a_message on [embedded, processes, memory];
    what_was_told_before_the_end_comes_before_the_message on [embedded, processes, memory];
    each_monitor_is_a_fresh_one on [embedded, processes, memory];
    a_dead_actor_and_a_lost_node_are_told_as_messages on [processes];
    nothing_comes_after_a_flush on [embedded, processes, memory];
    a_dropped_guard_is_told_at_most_once on [embedded, processes, memory];
    a_full_mailbox_takes_the_news on [embedded, processes, memory];
}

async fn the_end_is_told_with_its_reason(stage: Stage) {
    let stopped = stage.probe(0).await;
    let monitor = stopped.monitor();
    stopped.stop().await.expect("the order arrives");
    let id = monitor.id();
    let down = within(LONG, "the news", monitor).await;
    assert_eq!(
        down,
        Down { monitor: id, node: stage.home(0).clone(), actor: stopped.id(), reason: ExitReason::Shutdown }
    );

    let killed = stage.probe(0).await;
    let monitor = killed.monitor();
    killed.kill().await.expect("the order arrives");
    assert_eq!(within(LONG, "the news", monitor).await.reason, ExitReason::Killed);
}

async fn every_monitor_is_told_once(stage: Stage) {
    let probe = stage.probe(0).await;
    let monitors: Vec<_> = (0..20).map(|_| probe.monitor()).collect();
    probe.stop().await.expect("the order arrives");
    for mut monitor in monitors {
        assert_eq!(within(LONG, "the news", &mut monitor).await.reason, ExitReason::Shutdown);
        assert_eq!((&mut monitor).now_or_never(), None, "told twice");
    }
}

async fn a_restart_is_no_end(stage: Stage) {
    let probe = stage.probe(0).await;
    let mut monitor = probe.monitor();
    let panicked = within(LONG, "the panic", probe.ask(Panic("once".to_owned()))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    // The next life has begun.
    within(LONG, "the next life", probe.ask(Record(1))).await.expect("it answers");
    assert_eq!((&mut monitor).now_or_never(), None);
    probe.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "the news", monitor).await.reason, ExitReason::Shutdown);
}

async fn used_up_restarts_are_an_end_with_the_last_panic(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).restarts(0)).await;
    let monitor = probe.monitor();
    let panicked = within(LONG, "the panic", probe.ask(Panic("the last".to_owned()))).await;
    assert!(panicked.is_err());
    let reason = within(LONG, "the news", monitor).await.reason;
    assert_eq!(reason, ExitReason::Panicked { text: "the last".to_owned() });
}

async fn monitoring_a_dead_actor_answers_at_once(stage: Stage) {
    let probe = stage.probe(0).await;
    let first = probe.monitor();
    probe.kill().await.expect("the order arrives");
    within(LONG, "the news", first).await;
    assert_eq!(within(LONG, "late news", probe.monitor()).await.reason, ExitReason::NoProc);
}

async fn a_monitor_works_without_being_polled(stage: Stage) {
    let probe = stage.probe(0).await;
    let monitor = probe.monitor();
    // Behind the monitor on the same road, so that it is in force when the actor ends.
    within(LONG, "a call", probe.ask(Record(1))).await.expect("it answers");
    probe.stop().await.expect("the order arrives");
    within(LONG, "a second monitor", probe.monitor()).await;
    assert_eq!(within(LONG, "the first monitor", monitor).await.reason, ExitReason::Shutdown);
}

async fn a_dropped_monitor_leaves_nothing_behind(stage: Stage) {
    let probe = stage.probe(0).await;
    let link = stage.caller().data_link(stage.home(0)).expect("a link");
    let monitors: Vec<_> = (0..100).map(|_| probe.monitor()).collect();
    assert_eq!(link.pending(), 100);
    drop(monitors);
    assert_eq!(link.pending(), 0);
    within(LONG, "a call", probe.ask(Record(1))).await.expect("the link goes on");
}

async fn a_killed_node_is_told_to_each_monitor_once(stage: Stage) {
    let probe = stage.probe(0).await;
    let monitors: Vec<_> = (0..10).map(|_| probe.monitor()).collect();
    within(LONG, "a call", probe.ask(Record(1))).await.expect("it answers");
    Process::of(stage.pid(0)).signal(Signal::KILL);
    for mut monitor in monitors {
        let reason = within(LONG, "the news", &mut monitor).await.reason;
        assert!(matches!(reason, ExitReason::NoConnection { .. }), "{reason}");
        assert_eq!((&mut monitor).now_or_never(), None, "told twice");
    }
    let reason = within(LONG, "late news", probe.monitor()).await.reason;
    assert!(matches!(reason, ExitReason::NoConnection { .. }), "{reason}");
}

async fn what_was_answered_before_the_end_is_there_before_the_news(stage: Stage) {
    let probe = stage.probe(0).await;
    let monitor = probe.monitor();
    let mut answers: Vec<_> = (0..100).map(|number| probe.ask(Record(number))).collect();
    // The order goes by another road than the messages, so it waits for the last of them.
    let last = answers.pop().expect("a hundred");
    within(LONG, "the last answer", last).await.expect("it answers");
    probe.stop().await.expect("the order arrives");
    within(LONG, "the news", monitor).await;
    for answer in answers {
        assert!(matches!(answer.now_or_never(), Some(Ok(_))), "an answer came after the news");
    }
}

async fn an_actor_ends_itself_with_an_error(stage: Stage) {
    let mortal = stage.spawn(0, Mortal::spec(())).await;
    let monitor = mortal.monitor();
    let ended = within(LONG, "the order", mortal.ask(EndNow::silently(How::Error("out of ink".to_owned())))).await;
    assert_eq!(ended, Ok(()), "the handler finishes");
    let reason = within(LONG, "the news", monitor).await.reason;
    assert_eq!(reason, ExitReason::Error { text: "out of ink".to_owned() });
    let stopped = stage.spawn(0, Mortal::spec(())).await;
    let monitor = stopped.monitor();
    within(LONG, "the order", stopped.ask(EndNow::silently(How::Stop))).await.expect("the handler finishes");
    assert_eq!(within(LONG, "the news", monitor).await.reason, ExitReason::Normal);
}

/// All that the sentry has heard, once it has heard of `downs` ends.
async fn heard(sentry: &ActorRef<Sentry>, downs: usize) -> Vec<Heard> {
    eventually(LONG, "the news", async || {
        let heard = sentry.ask(AllHeard).await.expect("it answers");
        let ends = heard.iter().filter(|heard| matches!(heard, Heard::Down(_))).count();
        (ends >= downs).then_some(heard)
    })
    .await
}

async fn an_actor_hears_of_an_end_as_a_message(stage: Stage) {
    let mortal = stage.spawn(0, Mortal::spec(())).await;
    let (sentry, nurse) = (stage.spawn(1, Sentry::spec(())).await, stage.spawn(0, Nurse::actor()).await);
    let monitor = within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");
    within(LONG, "the monitor", nurse.look_after(mortal.clone())).await.expect("it answers");
    within(LONG, "the end", mortal.ask(EndNow::silently(How::Error("tired".to_owned())))).await.expect("it answers");
    let reason = ExitReason::Error { text: "tired".to_owned() };
    let down = Down { monitor, node: mortal.node().clone(), actor: mortal.id(), reason: reason.clone() };
    assert_eq!(heard(&sentry, 1).await, [Heard::Down(down)]);
    let downs = eventually(LONG, "the news", async || {
        let downs = nurse.downs().await.expect("it answers");
        (!downs.is_empty()).then_some(downs)
    });
    let downs = downs.await;
    assert_eq!((downs.len(), &downs[0].reason), (1, &reason));
}

async fn what_was_told_before_the_end_comes_before_the_message(stage: Stage) {
    // On the same node and across two nodes.
    for home in [0, 1] {
        let (mortal, sentry) = (stage.spawn(home, Mortal::spec(())).await, stage.spawn(1, Sentry::spec(())).await);
        within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");
        let order = EndNow { how: How::Stop, to: Some(sentry.clone().into()), count: 100 };
        within(LONG, "the order", mortal.ask(order)).await.expect("it answers");
        let heard = heard(&sentry, 1).await;
        let numbers: Vec<_> = (0..100).map(Heard::Number).collect();
        assert_eq!(heard[..100], numbers);
        assert!(matches!(&heard[100..], [Heard::Down(down)] if down.reason == ExitReason::Normal), "{heard:?}");
    }
}

async fn each_monitor_is_a_fresh_one(stage: Stage) {
    let (mortal, sentry) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(1, Sentry::spec(())).await);
    let mut monitors = std::collections::BTreeSet::new();
    for _ in 0..5 {
        monitors.insert(within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers"));
    }
    let here = mortal.monitor();
    assert!(monitors.len() == 5 && !monitors.contains(&here.id()));
    mortal.stop().await.expect("the order arrives");
    let told: Vec<_> = heard(&sentry, 5).await;
    let told: std::collections::BTreeSet<_> = told
        .into_iter()
        .map(|heard| match heard {
            Heard::Down(down) => down.monitor,
            other => panic!("nobody told it {other:?}"),
        })
        .collect();
    assert_eq!(told, monitors);
}

async fn a_dead_actor_and_a_lost_node_are_told_as_messages(stage: Stage) {
    let (mortal, sentry) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(1, Sentry::spec(())).await);
    let first = mortal.monitor();
    mortal.kill().await.expect("the order arrives");
    within(LONG, "its end", first).await;
    within(LONG, "the monitor", sentry.ask(Guard(mortal))).await.expect("it answers");
    let told = heard(&sentry, 1).await;
    assert!(matches!(&told[..], [Heard::Down(down)] if down.reason == ExitReason::NoProc), "{told:?}");

    let mortal = stage.spawn(0, Mortal::spec(())).await;
    within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");
    Process::of(stage.pid(0)).signal(Signal::KILL);
    let told = heard(&sentry, 2).await;
    let is_lost = |heard: &Heard| matches!(heard, Heard::Down(Down { reason: ExitReason::NoConnection { .. }, .. }));
    assert!(told.len() == 2 && is_lost(&told[1]), "{told:?}");
    within(LONG, "the monitor", sentry.ask(Guard(mortal))).await.expect("it answers");
    let told = heard(&sentry, 3).await;
    assert!(told.len() == 3 && is_lost(&told[2]), "{told:?}");
}

/// Lets a sentry monitor a mortal and end that only after the mortal is dead. Gives what the sentry has heard then.
async fn ends_while_guarded(stage: &Stage, mortal_home: usize, flush: bool) -> Vec<Heard> {
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(1).await);
    let mortal = stage.spawn(mortal_home, Mortal::spec(())).await;
    let sentry = stage.spawn(1, Sentry::spec(()).own_thread()).await;
    let blocked = sentry.ask(GuardAndBlock { mortal: mortal.clone(), gate: gate.clone(), flush });
    within(LONG, "the handler", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it answers");
    let monitor = mortal.monitor();
    mortal.kill().await.expect("the order arrives");
    within(LONG, "its end", monitor).await;
    within(LONG, "the gate", keeper.ask(Open { gate })).await.expect("it answers");
    within(LONG, "the handler", blocked).await.expect("it answers");
    // A message over the same road as the news, so that nothing can be on its way behind it.
    let last = EndNow { how: How::Stop, to: Some(sentry.clone().into()), count: 1 };
    let teller = stage.spawn(mortal_home, Mortal::spec(())).await;
    within(LONG, "the last", teller.ask(last)).await.expect("it answers");
    eventually(LONG, "the last", async || {
        let heard = sentry.ask(AllHeard).await.expect("it answers");
        heard.contains(&Heard::Number(0)).then_some(heard)
    })
    .await
}

async fn nothing_comes_after_a_flush(stage: Stage) {
    for home in [0, 1] {
        for _ in 0..5 {
            assert_eq!(ends_while_guarded(&stage, home, true).await, [Heard::Number(0)]);
        }
    }
}

async fn a_dropped_guard_is_told_at_most_once(stage: Stage) {
    for home in [0, 1] {
        let heard = ends_while_guarded(&stage, home, false).await;
        assert!(heard.len() <= 2 && heard.last() == Some(&Heard::Number(0)), "{heard:?}");
        // On one node the news was in the mailbox before the guard was dropped, and stays there.
        assert!(heard.len() == 2 || stage.home(home) != stage.home(1), "{heard:?}");
    }
    // Dropped before the end: nothing at all.
    let (mortal, sentry) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(0, Sentry::spec(())).await);
    within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");
    within(LONG, "the drop", sentry.ask(Unguard)).await.expect("it answers");
    let monitor = mortal.monitor();
    mortal.kill().await.expect("the order arrives");
    within(LONG, "its end", monitor).await;
    assert_eq!(sentry.ask(AllHeard).await, Ok(vec![]));
}

async fn a_full_mailbox_takes_the_news(stage: Stage) {
    let mortal = stage.spawn(0, Mortal::spec(())).await;
    let sentry = stage.spawn(1, Sentry::spec(()).mailbox(1).own_thread()).await;
    let (gate, keeper) = (gates::fresh_name(), stage.keeper(1).await);
    within(LONG, "the monitor", sentry.ask(Guard(mortal.clone()))).await.expect("it answers");
    let other = stage.spawn(1, Mortal::spec(())).await;
    let blocked = sentry.ask(GuardAndBlock { mortal: other, gate: gate.clone(), flush: true });
    within(LONG, "the handler", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it answers");
    let queued: Vec<_> = (0..5).map(|number| sentry.ask(Record(number))).collect();
    let monitor = mortal.monitor();
    mortal.kill().await.expect("the order arrives");
    within(LONG, "its end", monitor).await;
    within(LONG, "the gate", keeper.ask(Open { gate })).await.expect("it answers");
    within(LONG, "the handler", blocked).await.expect("it answers");
    for queued in queued {
        within(LONG, "queued mail", queued).await.expect("it is handled");
    }
    assert_eq!(heard(&sentry, 1).await.len(), 6);
}
