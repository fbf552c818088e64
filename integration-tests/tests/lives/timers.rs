//! Timers and reminders: what an actor sends to itself later.

use mobula::{ActorRef, CallError, RemoteActor};
use mobula_integration_tests::timekeeper::{
    CancelAll, Collapse, Every, Forget, Later, Load, Note, Notes, Remind, Reminders, Ticker, TickerRef, Timekeeper,
};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_timer_sends_once_in_the_order_of_the_times on [embedded, processes, memory];
    an_interval_goes_on_until_it_is_cancelled on [embedded, processes, memory];
    what_is_cancelled_is_not_begun_though_it_waits on [embedded, processes, memory];
    a_restart_ends_timers_and_keeps_reminders on [embedded, processes, memory];
    a_reminder_replaces_the_one_of_its_name on [embedded, processes, memory];
    what_a_timer_held_is_dropped_when_it_ends on [embedded, processes, memory];
    timers_work_in_the_macros_way on [embedded, processes, memory];
}

/// No test waits for it.
const FAR_OFF_MS: u64 = 3_600_000;

async fn keeper(stage: &Stage) -> ActorRef<Timekeeper> {
    stage.spawn(0, Timekeeper::spec(())).await
}

async fn notes(keeper: &ActorRef<Timekeeper>) -> Vec<u64> {
    within(LONG, "the notes", keeper.ask(Notes)).await.expect("it answers")
}

async fn noted(keeper: &ActorRef<Timekeeper>, count: usize) -> Vec<u64> {
    eventually(LONG, "the notes", async || Some(notes(keeper).await).filter(|notes| notes.len() >= count)).await
}

async fn a_timer_sends_once_in_the_order_of_the_times(stage: Stage) {
    let keeper = keeper(&stage).await;
    // Set behind a blocked arbiter they would all be due at once, and still come in their order.
    for (ms, number) in [(30, 3), (1, 1), (FAR_OFF_MS, 9), (30, 4), (15, 2)] {
        within(LONG, "a timer", keeper.ask(Later(ms, number))).await.expect("set");
    }
    assert_eq!(noted(&keeper, 4).await.len(), 4);
    let noted = notes(&keeper).await;
    let place = |number| noted.iter().position(|noted| *noted == number).expect("noted");
    assert!(place(3) < place(4), "set earlier for the same wait: {noted:?}");
    assert!(!noted.contains(&9));
    // One is left.
    assert_eq!(within(LONG, "the end", keeper.ask(CancelAll)).await, Ok(1));
}

async fn an_interval_goes_on_until_it_is_cancelled(stage: Stage) {
    let keeper = keeper(&stage).await;
    within(LONG, "an interval", keeper.ask(Every(1, 7))).await.expect("set");
    noted(&keeper, 5).await;
    assert_eq!(within(LONG, "the end", keeper.ask(CancelAll)).await, Ok(1));
    let count = notes(&keeper).await.len();
    // Time for several more, as another interval shows.
    within(LONG, "another", keeper.ask(Every(1, 8))).await.expect("set");
    let noted = noted(&keeper, count + 5).await;
    assert!(noted[..count].iter().all(|number| *number == 7));
    assert!(noted[count..].iter().all(|number| *number == 8), "it went on after its end");
}

async fn what_is_cancelled_is_not_begun_though_it_waits(stage: Stage) {
    let keeper = keeper(&stage).await;
    // In one turn: a timer that is due at once, and its end. In between it may reach the mailbox, but no handler.
    for round in 0..50 {
        let set = keeper.ask(Later(0, 1000 + round));
        let cancelled = keeper.ask(CancelAll);
        let marked = keeper.ask(Note(round));
        within(LONG, "a timer", set).await.expect("set");
        let ended = within(LONG, "its end", cancelled).await.expect("it answers");
        within(LONG, "a note", marked).await.expect("noted");
        let was_begun = notes(&keeper).await.contains(&(1000 + round));
        assert_eq!(ended == 0, was_begun, "round {round}");
    }
    // Whatever was cancelled in time does not come later.
    let begun = notes(&keeper).await;
    within(LONG, "a timer", keeper.ask(Later(1, 5000))).await.expect("set");
    let after = noted(&keeper, begun.len() + 1).await;
    assert_eq!(after[..begun.len()], begun);
    assert_eq!(after[begun.len()..], [5000]);
}

async fn a_restart_ends_timers_and_keeps_reminders(stage: Stage) {
    let keeper = keeper(&stage).await;
    within(LONG, "an interval", keeper.ask(Every(1, 7))).await.expect("set");
    within(LONG, "a timer", keeper.ask(Later(0, 8))).await.expect("set");
    within(LONG, "a reminder", keeper.ask(Remind("often".to_owned(), 1, 1, 1))).await.expect("set");
    within(LONG, "a reminder", keeper.ask(Remind("once".to_owned(), FAR_OFF_MS, 0, 2))).await.expect("set");
    let panicked = within(LONG, "the panic", keeper.ask(Collapse)).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    let noted = noted(&keeper, 5).await;
    assert!(noted.iter().all(|number| *number == 1), "a timer of the life before: {noted:?}");
    let names = within(LONG, "the names", keeper.ask(Reminders)).await;
    assert_eq!(names, Ok(vec!["often".to_owned(), "once".to_owned()]));
    assert_eq!(within(LONG, "the end", keeper.ask(Forget("often".to_owned()))).await, Ok(true));
    assert_eq!(within(LONG, "the end", keeper.ask(Forget("often".to_owned()))).await, Ok(false));
    let count = notes(&keeper).await.len();
    within(LONG, "an interval", keeper.ask(Every(1, 3))).await.expect("set");
    let noted = self::noted(&keeper, count + 5).await;
    assert!(noted[count..].iter().all(|number| *number == 3), "it went on after its end: {noted:?}");
}

async fn a_reminder_replaces_the_one_of_its_name(stage: Stage) {
    let keeper = keeper(&stage).await;
    for number in 1..=3 {
        within(LONG, "a reminder", keeper.ask(Remind("a".to_owned(), FAR_OFF_MS, 0, number))).await.expect("set");
    }
    assert_eq!(within(LONG, "the names", keeper.ask(Reminders)).await, Ok(vec!["a".to_owned()]));
    within(LONG, "a reminder", keeper.ask(Remind("a".to_owned(), 1, 0, 4))).await.expect("set");
    assert_eq!(noted(&keeper, 1).await, [4]);
    eventually(LONG, "no reminder", async || keeper.ask(Reminders).await.expect("it answers").is_empty().then_some(()))
        .await;
}

async fn what_a_timer_held_is_dropped_when_it_ends(stage: Stage) {
    let keeper = keeper(&stage).await;
    let freed = within(LONG, "the timers", keeper.ask(Load)).await;
    assert_eq!(freed, Ok(true), "a cancelled timer keeps what it held");
    // The drop of the other one uses the timers and panics, and does neither block nor end the actor.
    let panicked = within(LONG, "the panic", keeper.ask(Collapse)).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    within(LONG, "a note", keeper.ask(Note(1))).await.expect("it is restarted");
    // The same at its end.
    within(LONG, "the timers", keeper.ask(Load)).await.expect("set");
    let monitor = keeper.monitor();
    keeper.kill().await.expect("the order arrives");
    within(LONG, "its end", monitor).await;
}

async fn timers_work_in_the_macros_way(stage: Stage) {
    let ticker = stage.spawn(0, Ticker::actor(0)).await;
    within(LONG, "the start", ticker.run()).await.expect("it answers");
    eventually(LONG, "ticks", async || (ticker.ticks().await.expect("it answers") > 3).then_some(())).await;
    // Outside of handlers there is nobody to set them.
    assert!(mobula::timers::<Ticker>().is_none());
}
