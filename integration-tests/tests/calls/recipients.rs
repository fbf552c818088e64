//! Recipients: one message narrowed out of an actor's reference, which travels as the reference does.

use mobula::{CallError, Recipient, RemoteActor};
use mobula_integration_tests::actors::{Log, Record};
use mobula_integration_tests::switchboard::{PassOn, PassOnUnlisted, Switchboard};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};

suites! {
    a_recipient_reaches_its_actor_from_a_third_node on [embedded, processes, memory];
    a_recipient_at_home_is_the_actor_itself on [embedded, processes, memory];
    a_recipient_keeps_order_with_the_reference on [embedded, processes, memory];
    a_recipient_of_what_is_not_taken_from_afar_says_so on [processes, memory];
}

async fn a_recipient_reaches_its_actor_from_a_third_node(stage: Stage) {
    let probe = stage.probe(0).await;
    let switchboard = stage.spawn(1, Switchboard::spec(())).await;
    let to = Recipient::from(probe.clone());
    assert_eq!((to.node(), to.id()), (probe.node(), probe.id()));
    let passed = within(LONG, "the switchboard", switchboard.ask(PassOn { to, number: 7 })).await;
    assert_eq!(passed, Ok(Ok(2)), "the log's length");
    assert_eq!(within(LONG, "the log", probe.ask(Log)).await, Ok(vec![0, 7]));
}

async fn a_recipient_at_home_is_the_actor_itself(stage: Stage) {
    let probe = stage.probe(0).await;
    let switchboard = stage.spawn(0, Switchboard::spec(())).await;
    let to = Recipient::from(probe.clone());
    let passed = within(LONG, "the switchboard", switchboard.ask(PassOn { to: to.clone(), number: 1 })).await;
    assert_eq!(passed, Ok(Ok(2)));
    probe.kill().await.expect("the order arrives");
    within(LONG, "its end", probe.monitor()).await;
    let passed = within(LONG, "the switchboard", switchboard.ask(PassOn { to, number: 2 })).await;
    assert!(matches!(passed, Ok(Err(CallError::Stopped | CallError::NoSuchActor { .. }))), "{passed:?}");
}

async fn a_recipient_keeps_order_with_the_reference(stage: Stage) {
    let probe = stage.probe(0).await;
    let recipient = Recipient::<Record>::from(probe.clone());
    for number in (1..100).step_by(2) {
        drop(probe.tell(Record(number)));
        drop(recipient.tell(Record(number + 1)));
    }
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, (0..=100).collect::<Vec<_>>());
    assert_eq!(recipient.try_tell(Record(101)), Ok(()));
}

async fn a_recipient_of_what_is_not_taken_from_afar_says_so(stage: Stage) {
    let probe = stage.probe(0).await;
    let switchboard = stage.spawn(1, Switchboard::spec(())).await;
    let passed = within(LONG, "the switchboard", switchboard.ask(PassOnUnlisted { to: probe.into() })).await;
    assert!(matches!(&passed, Ok(Err(CallError::UnknownMessage { .. }))), "{passed:?}");
}
