//! Builds that differ: what one side does not know, or knows otherwise, is refused with a text that helps.

use mobula::{CallError, Cluster, ClusterError, Outcome, RemoteActor, SpawnError, TaskError};
use mobula_integration_tests::actors::{Counter, CounterRef, DivideError, Probe, Record, Relay, Unlisted};
use mobula_integration_tests::process::Program;
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::tasks::{process_id, square};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, suites, within};

suites! {
    a_message_that_is_not_listed_is_refused on [processes, memory];
    a_handlers_own_error_is_kept on [embedded, processes, memory];
}

async fn a_message_that_is_not_listed_is_refused(stage: Stage) {
    let probe = stage.probe(0).await;
    let error = within(LONG, "the refusal", probe.ask(Unlisted)).await.expect_err("it is not listed");
    let expected = CallError::UnknownMessage {
        message: "mobula-integration-tests::Unlisted".to_owned(),
        actor_type: "mobula-integration-tests::Probe".to_owned(),
    };
    assert_eq!(error, expected);
    assert_eq!(error.outcome(), Outcome::NotStarted);
    let text = error.to_string();
    assert!(text.contains("::Unlisted") && text.contains("list it in `remote_actor!`"), "{text}");
    // A tell has nobody to answer to; neither harms what comes after.
    within(LONG, "room", probe.tell(Unlisted)).await.expect("it leaves");
    assert_eq!(within(LONG, "a known message", probe.ask(Record(1))).await, Ok(2));
    // At home nothing is decoded, and so nothing need be listed.
    let at_home = stage.caller().spawn(Probe::spec(0)).await.expect("spawned");
    assert_eq!(at_home.ask(Unlisted).await, Ok(7));
}

async fn a_handlers_own_error_is_kept(stage: Stage) {
    let counter = stage.spawn(0, Counter::actor(6)).await;
    assert_eq!(within(LONG, "the answer", counter.divide(2)).await, Ok(3));
    let error = within(LONG, "the error", counter.divide(0)).await.expect_err("nobody can");
    assert_eq!(error, CallError::Handler(DivideError { dividend: 6 }));
    assert_eq!(error.outcome(), Outcome::Done);
    assert_eq!(error.to_string(), "cannot divide 6 by zero");
    // It is an answer, not a failure: the same life goes on.
    assert_eq!(within(LONG, "the next", counter.increment(1)).await, Ok(7));
}

/// A cluster whose node runs another build of the same types.
async fn with_the_other_build() -> Cluster {
    let builder = Cluster::builder().nodes(1).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_other_build"));
    within(LONG, "the cluster", builder.connect()).await.expect("the builds differ in types only")
}

#[test]
fn an_unknown_actor_type_is_refused() {
    run_plain(async {
        let cluster = with_the_other_build().await;
        let error = cluster.spawn(Relay::spec(None)).await.expect_err("the other build has no relay");
        let node = cluster.nodes()[0].id.clone();
        let actor_type = "mobula-integration-tests::Relay".to_owned();
        assert_eq!(error, SpawnError::UnknownActorType { actor_type, node });
        let text = error.to_string();
        assert!(text.contains("::Relay") && text.contains("use that_crate as _;"), "{text}");
    });
}

#[test]
fn other_constructor_arguments_are_refused() {
    run_plain(async {
        let cluster = with_the_other_build().await;
        let error = cluster.spawn(Probe::spec(0)).await.expect_err("the other build makes it from a String");
        let SpawnError::SchemaMismatch { actor_type, ours, theirs, .. } = &error else { panic!("{error}") };
        assert_eq!(actor_type, "mobula-integration-tests::Probe");
        assert_eq!(*ours, <Probe as RemoteActor>::SCHEMA);
        assert_ne!(ours, theirs);
        let text = error.to_string();
        assert!(text.contains("run the same build everywhere") && text.contains("::Probe"), "{text}");
    });
}

#[test]
fn another_definition_of_a_message_is_refused() {
    run_plain(async {
        let cluster = with_the_other_build().await;
        let counter = cluster.spawn(Counter::actor(5)).await.expect("made from the same arguments");
        let error = within(LONG, "the refusal", counter.increment(1)).await.expect_err("there it takes an i32");
        assert!(matches!(&error, CallError::SchemaMismatch { name, .. } if name.ends_with("::CounterIncrement")));
        assert_eq!(error.outcome(), Outcome::NotStarted);
        let text = error.to_string();
        assert!(text.contains("defined differently") && text.contains("run the same build on both"), "{text}");
        // And one that the other build does not have.
        let error = within(LONG, "the refusal", counter.get()).await.expect_err("there is none");
        assert!(matches!(&error, CallError::UnknownMessage { message, .. } if message.ends_with("::CounterGet")));
    });
}

#[test]
fn another_definition_of_a_task_is_refused() {
    run_plain(async {
        let cluster = with_the_other_build().await;
        let refused = within(LONG, "the refusal", cluster.submit(square::task(4))).await.expect_err("there it is u32");
        let TaskError::Refused { task, cause, .. } = &refused else { panic!("{refused}") };
        assert_eq!(task, "mobula-integration-tests::square");
        assert!(matches!(cause, CallError::SchemaMismatch { .. }), "{cause}");
        let refused = within(LONG, "the refusal", cluster.submit(process_id::task())).await.expect_err("unknown there");
        assert!(matches!(refused, TaskError::Refused { cause: CallError::UnknownMessage { .. }, .. }), "{refused}");
    });
}

#[test]
fn two_registrations_under_one_name_refuse_to_start() {
    // As a driver ..
    let ended = Program::start(env!("CARGO_BIN_EXE_same_name"), [] as [&str; 0]).end(LONG);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let text = "two actor types are registered as `same_name::Counter`";
    assert!(ended.stderr.contains(text) && ended.stderr.contains("another name"), "{ended:?}");
    // .. and as a node.
    run_plain(async {
        let builder = Cluster::builder().nodes(1).executable(env!("CARGO_BIN_EXE_same_name"));
        let error = within(LONG, "the refusal", builder.connect()).await.expect_err("it refuses");
        assert!(matches!(&error, ClusterError::NotReady { reason, .. } if reason.contains(text)), "{error}");
    });
}
