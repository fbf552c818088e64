//! Methods that wait: beside all others on a clone, or alone with the state.

use std::time::Duration;

use mobula::{ActorRef, ActorSpec, Ask, CallError, ExitReason, Generation};
use mobula_integration_tests::actors::{DivideError, Entered, Log, Open, Probe};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::waiter::{
    Alone, Beside, PanicAlone, PanicByAddress, PlainWaiter, Waiter, WaiterRecordTwice, WaiterRef,
};
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    concurrent_methods_run_beside_all_others on [embedded, processes, memory];
    no_more_handlers_run_beside_each_other_than_allowed on [embedded, processes, memory];
    a_concurrent_method_sees_the_state_of_its_beginning on [embedded, memory];
    an_exclusive_method_holds_back_all_others on [embedded, processes, memory];
    a_panic_beside_answers_with_its_text_and_ends_no_life on [embedded, processes, memory];
    a_panic_alone_answers_with_its_text_and_ends_the_life on [embedded, processes, memory];
    the_end_of_a_life_ends_its_concurrent_methods on [embedded, processes, memory];
    a_stop_waits_for_an_exclusive_method on [embedded, processes, memory];
    a_stop_holds_although_the_exclusive_method_panics on [embedded, processes, memory];
    the_first_stop_says_why on [embedded, processes, memory];
    a_kill_does_not_wait_for_an_exclusive_method on [embedded, processes, memory];
    asking_oneself_is_answered on [embedded, processes, memory];
    telling_oneself_is_accepted_though_the_mailbox_is_full on [embedded, processes, memory];
    a_panic_behind_the_address_explains_no_other_call on [embedded, processes, memory];
    asks_after_an_await_inherit_the_deadline on [embedded, processes, memory];
    the_shapes_can_be_returned_by_plain_handlers on [embedded, processes, memory];
}

fn spec() -> ActorSpec<Waiter> {
    Waiter::actor(7, None).restarts(100).backoff(Duration::from_millis(1))
}

/// Waits until `count` have entered `gate` on the first home.
async fn entered(stage: &Stage, gate: &str, count: u32) {
    let entered = stage.keeper(0).await.ask(Entered { gate: gate.to_owned(), count });
    within(LONG, "those at the gate", entered).await.expect("the keeper answers");
}

async fn open(stage: &Stage, gate: String) {
    within(LONG, "the keeper", stage.keeper(0).await.ask(Open { gate })).await.expect("the keeper answers");
}

async fn concurrent_methods_run_beside_all_others(stage: Stage) {
    let waiter = stage.spawn(0, spec()).await;
    let gate = gates::fresh_name();
    let looks: Vec<_> = (0..20).map(|_| waiter.look(gate.clone())).collect();
    entered(&stage, &gate, 20).await;
    // All of them run, and the actor takes other messages.
    assert_eq!(within(LONG, "another message", waiter.begun()).await, Ok(20));
    open(&stage, gate).await;
    for look in looks {
        assert_eq!(within(LONG, "an answer", look).await, Ok(vec![7]));
    }
}

async fn no_more_handlers_run_beside_each_other_than_allowed(stage: Stage) {
    let waiter = stage.spawn(0, spec().concurrent_handlers(2)).await;
    let monitor = waiter.monitor();
    let gates = [(); 3].map(|()| gates::fresh_name());
    let mut looks: Vec<_> = gates.iter().map(|gate| waiter.look(gate.clone())).collect();
    let begun = waiter.begun();
    entered(&stage, &gates[0], 1).await;
    entered(&stage, &gates[1], 1).await;
    // With one of them done, the third begins, and with another the actor comes to what is behind that.
    open(&stage, gates[1].clone()).await;
    assert_eq!(within(LONG, "the second", looks.remove(1)).await, Ok(vec![7]));
    entered(&stage, &gates[2], 1).await;
    open(&stage, gates[0].clone()).await;
    assert_eq!(within(LONG, "the first", looks.remove(0)).await, Ok(vec![7]));
    assert_eq!(within(LONG, "the one behind", begun).await, Ok(3), "it had to wait for both");
    // A life that ends takes its handlers along, and the next has room for as many.
    let panicked = within(LONG, "the panic", waiter.panic_alone("boom".to_owned())).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    let gate = gates::fresh_name();
    let again = [(); 2].map(|()| waiter.look(gate.clone()));
    entered(&stage, &gate, 2).await;
    // Control does not wait for mail.
    within(LONG, "the order", waiter.kill()).await.expect("it arrives");
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Killed);
    drop((looks, again));
}

async fn a_concurrent_method_sees_the_state_of_its_beginning(stage: Stage) {
    let waiter = stage.spawn(0, spec()).await;
    let gate = gates::fresh_name();
    let before = waiter.look(gate.clone());
    waiter.record(8).await.expect("it records");
    let after = waiter.look(gate.clone());
    open(&stage, gate).await;
    assert_eq!(within(LONG, "the first", before).await, Ok(vec![7]));
    assert_eq!(within(LONG, "the second", after).await, Ok(vec![7, 8]));
}

async fn an_exclusive_method_holds_back_all_others(stage: Stage) {
    let waiter = stage.spawn(0, spec()).await;
    let gate = gates::fresh_name();
    let alone = waiter.record_twice(gate.clone(), 1);
    entered(&stage, &gate, 1).await;
    let (mut plain, second) = (waiter.record(2), waiter.record_twice(gate.clone(), 3));
    let beside = waiter.look(gate.clone());
    let monitor = waiter.monitor();
    // A probe of the same home answers, so its messages would have, too.
    let probe = stage.probe(0).await;
    assert_eq!(within(LONG, "a neighbour", probe.ask(Log)).await, Ok(vec![0]));
    assert!(futures::poll!(&mut plain).is_pending());
    open(&stage, gate).await;
    assert_eq!(within(LONG, "the first", alone).await, Ok(3));
    assert_eq!(within(LONG, "the second", second).await, Ok(6));
    assert_eq!(within(LONG, "what came last", beside).await, Ok(vec![7, 1, 1, 2, 3, 3]));
    assert_eq!(within(LONG, "the quotient", waiter.divide(2)).await, Ok(3));
    let error = within(LONG, "its own error", waiter.divide(0)).await.expect_err("by zero");
    assert_eq!(error, CallError::Handler(DivideError { dividend: 6 }));
    waiter.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "the monitor", monitor).await.reason, ExitReason::Shutdown);
}

fn panicked<T: std::fmt::Debug>(answer: Result<T, CallError>) -> (String, Generation) {
    match answer {
        Err(CallError::Panicked { text, generation, .. }) => (text, generation),
        other => panic!("no panic: {other:?}"),
    }
}

async fn a_panic_beside_answers_with_its_text_and_ends_no_life(stage: Stage) {
    let (waiter, neighbour) = (stage.spawn(0, spec()).await, stage.probe(0).await);
    waiter.record(8).await.expect("it records");
    let gate = gates::fresh_name();
    let other = waiter.look(gate.clone());
    let panics: Vec<_> = (0..5).map(|number| waiter.panic_beside(format!("boom {number}"))).collect();
    for (number, panics) in panics.into_iter().enumerate() {
        let told = panicked(within(LONG, "the panic", panics).await);
        assert_eq!(told, (format!("boom {number}"), Generation(0)));
    }
    open(&stage, gate).await;
    // State, other calls and neighbours are as they were.
    assert_eq!(within(LONG, "the other call", other).await, Ok(vec![7, 8]));
    assert_eq!(within(LONG, "the state", waiter.list()).await, Ok(vec![7, 8]));
    assert_eq!(within(LONG, "a neighbour", neighbour.ask(Log)).await, Ok(vec![0]));
}

async fn a_panic_alone_answers_with_its_text_and_ends_the_life(stage: Stage) {
    let (waiter, neighbour) = (stage.spawn(0, spec()).await, stage.probe(0).await);
    waiter.record(8).await.expect("it records");
    let (panics, queued) = (waiter.panic_alone("boom".to_owned()), waiter.list());
    assert_eq!(panicked(within(LONG, "the panic", panics).await), ("boom".to_owned(), Generation(0)));
    // Queued mail is handled by the next life, whose state is built anew.
    assert_eq!(within(LONG, "queued mail", queued).await, Ok(vec![7]));
    assert_eq!(within(LONG, "a neighbour", neighbour.ask(Log)).await, Ok(vec![0]));
}

async fn the_end_of_a_life_ends_its_concurrent_methods(stage: Stage) {
    let waiter = stage.spawn(0, spec()).await;
    let gate = gates::fresh_name();
    let first = waiter.look(gate.clone());
    entered(&stage, &gate, 1).await;
    let panics = waiter.panic_alone("boom".to_owned());
    assert_eq!(panicked(within(LONG, "the panic", panics).await).0, "boom");
    // The panic that ended its life is why it has no answer.
    assert_eq!(panicked(within(LONG, "what ran in that life", first).await), ("boom".to_owned(), Generation(0)));
    let second = waiter.look(gate.clone());
    entered(&stage, &gate, 2).await;
    waiter.stop().await.expect("the order arrives");
    let cut_off = within(LONG, "what ran at the stop", second).await;
    assert_eq!(cut_off, Err(CallError::Cancelled { started: true }));
}

/// A waiter whose `stopped` tells the probe, and an exclusive call that it is held up by.
async fn held_alone(stage: &Stage, gate: &str) -> (ActorRef<Probe>, ActorRef<Waiter>, Ask<WaiterRecordTwice>) {
    let probe = stage.probe(0).await;
    let waiter = stage.spawn(0, Waiter::actor(7, Some(probe.clone()))).await;
    let alone = waiter.record_twice(gate.to_owned(), 1);
    entered(stage, gate, 1).await;
    (probe, waiter, alone)
}

async fn a_stop_waits_for_an_exclusive_method(stage: Stage) {
    let gate = gates::fresh_name();
    let (probe, waiter, alone) = held_alone(&stage, &gate).await;
    let (queued, monitor) = (waiter.record(2), waiter.monitor());
    waiter.stop().await.expect("the order arrives");
    assert_eq!(within(LONG, "a neighbour", probe.ask(Log)).await, Ok(vec![0]));
    open(&stage, gate).await;
    assert_eq!(within(LONG, "the method that ran", alone).await, Ok(3));
    assert_eq!(within(LONG, "queued mail", queued).await, Err(CallError::Stopped));
    assert_eq!(within(LONG, "the monitor", monitor).await.reason, ExitReason::Shutdown);
    // The hook saw the state, not the placeholder.
    eventually(LONG, "the hook", async || (probe.ask(Log).await == Ok(vec![0, 3])).then_some(())).await;
}

async fn a_stop_holds_although_the_exclusive_method_panics(stage: Stage) {
    let (waiter, gate) = (stage.spawn(0, spec()).await, gates::fresh_name());
    let panics = waiter.panic_at_gate(gate.clone(), "boom".to_owned());
    entered(&stage, &gate, 1).await;
    let monitor = waiter.monitor();
    waiter.stop().await.expect("the order arrives");
    open(&stage, gate).await;
    assert_eq!(panicked(within(LONG, "the panic", panics).await).0, "boom");
    let reason = within(LONG, "the monitor", monitor).await.reason;
    assert_eq!(reason, ExitReason::Panicked { text: "boom".to_owned() });
}

async fn the_first_stop_says_why(stage: Stage) {
    let (waiter, other) = (stage.spawn(0, spec()).await, stage.probe(0).await);
    within(LONG, "the link", waiter.link(&other)).await.expect("the node has it");
    let gate = gates::fresh_name();
    let ends = waiter.end_at_gate(gate.clone(), "tired".to_owned());
    entered(&stage, &gate, 1).await;
    let (monitor, news) = (waiter.monitor(), other.monitor());
    // A linked end that comes while it stops is not why it does.
    other.kill().await.expect("the order arrives");
    within(LONG, "the other's end", news).await;
    open(&stage, gate).await;
    assert_eq!(within(LONG, "the method that ran", ends).await, Ok(()));
    let reason = within(LONG, "the monitor", monitor).await.reason;
    assert_eq!(reason, ExitReason::Error { text: "tired".to_owned() });
}

async fn a_kill_does_not_wait_for_an_exclusive_method(stage: Stage) {
    let gate = gates::fresh_name();
    let (probe, waiter, alone) = held_alone(&stage, &gate).await;
    let monitor = waiter.monitor();
    waiter.stop().await.expect("the order arrives");
    waiter.kill().await.expect("the order arrives");
    assert_eq!(within(LONG, "the monitor", monitor).await.reason, ExitReason::Killed);
    let cut_off = within(LONG, "the method that ran", alone).await;
    assert_eq!(cut_off, Err(CallError::Cancelled { started: true }));
    assert_eq!(within(LONG, "no hook", probe.ask(Log)).await, Ok(vec![0]));
}

async fn asking_oneself_is_answered(stage: Stage) {
    let waiter = stage.spawn(0, spec()).await;
    assert_eq!(within(LONG, "beside", waiter.ask_itself_beside()).await, Ok(vec![7]));
    let alone = within(LONG, "alone", waiter.ask_itself_alone()).await;
    assert_eq!(alone, Err(CallError::Handler(CallError::Deadlock { actor: waiter.id() })));
    assert_eq!(within(LONG, "afterwards", waiter.list()).await, Ok(vec![7]));
}

async fn telling_oneself_is_accepted_though_the_mailbox_is_full(stage: Stage) {
    let waiter = stage.spawn(0, spec().mailbox(1)).await;
    let alone = within(LONG, "alone", waiter.tell_itself_alone(4)).await;
    assert_eq!(alone, Ok(()));
    assert_eq!(within(LONG, "afterwards", waiter.list()).await, Ok(vec![7, 0, 1, 2, 3]));
}

async fn a_panic_behind_the_address_explains_no_other_call(stage: Stage) {
    let plain: ActorRef<PlainWaiter> = stage.spawn(0, mobula::RemoteActor::spec(())).await;
    let behind = within(LONG, "the other panic", plain.ask(PanicByAddress("other".to_owned()))).await;
    assert_eq!(behind, Ok(true));
    let own = within(LONG, "its own panic", plain.ask(PanicAlone("own".to_owned()))).await;
    assert_eq!(panicked(own).0, "own");
}

async fn asks_after_an_await_inherit_the_deadline(stage: Stage) {
    let (heard, home) = (stage.spawn(0, spec()).await, stage.home(0).clone());
    let short = Duration::from_millis(200);
    for (alone, expected) in [(false, vec![7, 1]), (true, vec![7, 1, 1])] {
        let (waiter, probe, gate) = (stage.spawn(0, spec()).await, stage.probe(1).await, gates::fresh_name());
        let hasty = waiter.with_deadline(short);
        // The two asks end at the same deadline, so this one may have its answer or not.
        match alone {
            false => drop(within(LONG, "beside", hasty.ask_beside(probe, gate.clone(), heard.clone())).await),
            true => drop(within(LONG, "alone", hasty.ask_alone(probe, gate.clone(), heard.clone())).await),
        }
        eventually(LONG, "the nested ask's end", async || (heard.list().await == Ok(expected.clone())).then_some(()))
            .await;
        // Without a probe that holds, the node it saw is the actor's.
        let probe = stage.probe(1).await;
        stage.force_open(1, &gate).await;
        let here = within(LONG, "the node", waiter.ask_beside(probe, gate, heard.clone())).await;
        assert_eq!(here, Ok(home.clone()));
    }
}

async fn the_shapes_can_be_returned_by_plain_handlers(stage: Stage) {
    let plain = stage.spawn(0, mobula::RemoteActor::spec(())).await;
    let plain: &ActorRef<PlainWaiter> = &plain;
    let gate = gates::fresh_name();
    let beside = plain.ask(Beside(gate.clone(), 21));
    assert_eq!(within(LONG, "alone", plain.ask(Alone(1))).await, Ok(vec![1]));
    assert_eq!(within(LONG, "alone", plain.ask(Alone(2))).await, Ok(vec![1, 2]));
    open(&stage, gate).await;
    assert_eq!(within(LONG, "beside", beside).await, Ok(42));
}
