//! References travel inside messages and constructor arguments, and mean the same actor everywhere.

use mobula::RemoteActor;
use mobula_integration_tests::actors::{Forward, ForwardToFirst, Forwarded, Log, Myself, Record, Relay};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Kind, Stage, suites, within};

suites! {
    a_reference_in_a_message_works_from_a_third_process on [embedded, processes, memory];
    a_reference_is_local_at_home on [embedded, processes, memory];
    a_reference_in_an_answer_points_to_the_same_actor on [embedded, processes, memory];
    a_reference_in_constructor_arguments_works on [embedded, processes, memory];
}

async fn a_reference_in_a_message_works_from_a_third_process(stage: Stage) {
    let probe = stage.probe(0).await;
    let relay = stage.spawn(1, Relay::spec(None)).await;
    let forwarded = within(LONG, "the relay", relay.ask(Forward { to: probe.clone(), number: 7 })).await;
    let expected = Forwarded { via: stage.pid(1), was_local: stage.is_near(), answer: Ok(2) };
    assert_eq!(forwarded, Ok(expected));
    assert_eq!(probe.ask(Log).await, Ok(vec![0, 7]));
    if stage.kind() == Kind::Processes {
        let pids = [std::process::id(), stage.pid(0), stage.pid(1)];
        assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
    }
}

async fn a_reference_is_local_at_home(stage: Stage) {
    let probe = stage.probe(0).await;
    assert_eq!(probe.is_local(), stage.is_near());
    let relay = stage.spawn(0, Relay::spec(None)).await;
    let forwarded = within(LONG, "the relay", relay.ask(Forward { to: probe, number: 7 })).await.expect("it answers");
    assert!(forwarded.was_local);
    assert_eq!(forwarded.answer, Ok(2));
}

async fn a_reference_in_an_answer_points_to_the_same_actor(stage: Stage) {
    let probe = stage.probe(0).await;
    let itself = within(LONG, "the probe", probe.ask(Myself)).await.expect("it answers");
    assert_eq!(itself, probe);
    assert_eq!(itself.node(), stage.home(0));
    assert_eq!(itself.is_local(), stage.is_near());
    assert_eq!(within(LONG, "the probe", itself.ask(Record(7))).await, Ok(2));
    assert_eq!(probe.ask(Log).await, Ok(vec![0, 7]));
}

async fn a_reference_in_constructor_arguments_works(stage: Stage) {
    for (of_probe, of_relay) in [(0, 1), (1, 0)] {
        let probe = stage.probe(of_probe).await;
        let relay = stage.spawn(of_relay, Relay::spec(Some(probe.clone()))).await;
        let forwarded = within(LONG, "the relay", relay.ask(ForwardToFirst(7))).await;
        let expected = Forwarded { via: stage.pid(of_relay), was_local: stage.is_near(), answer: Ok(2) };
        assert_eq!(forwarded, Ok(expected));
        assert_eq!(probe.ask(Log).await, Ok(vec![0, 7]));
    }
}
