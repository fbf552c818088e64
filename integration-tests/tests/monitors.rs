//! Monitors: an actor's end is told once, with its reason; a restart is no end.

use futures::FutureExt;
use mobula::{CallError, Down, ExitReason, RemoteActor};
use mobula_integration_tests::actors::{Panic, Probe, Record};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};

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
}

async fn the_end_is_told_with_its_reason(stage: Stage) {
    let stopped = stage.probe(0).await;
    let monitor = stopped.monitor();
    stopped.stop().await.expect("the order arrives");
    let down = within(LONG, "the news", monitor).await;
    assert_eq!(down, Down { node: stage.home(0).clone(), actor: stopped.id(), reason: ExitReason::Shutdown });

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
