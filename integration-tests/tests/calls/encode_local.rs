//! Calls within a process that take the form they would have on the wire.

use futures::StreamExt;
use mobula::{ActorRef, CallError, Cluster, RemoteActor};
use mobula_integration_tests::fragile::{CountNotThree, Forgetful, IsLocal, Parrot, Repeat, RepeatNotThree};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::streamer::NotThree;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::within;

async fn parrot(encode: bool) -> (Cluster, ActorRef<Parrot>) {
    let cluster = Cluster::builder().encode_local_calls(encode).connect().await.expect("a cluster in this process");
    let parrot = cluster.spawn(Parrot::spec(())).await.expect("it starts");
    assert!(parrot.is_local());
    (cluster, parrot)
}

#[test]
fn without_the_switch_values_are_handed_over() {
    run_plain(async {
        let (_cluster, parrot) = parrot(false).await;
        assert_eq!(within(LONG, "the answer", parrot.ask(Forgetful { number: 7 })).await, Ok(7));
        assert_eq!(within(LONG, "the answer", parrot.ask(Repeat(NotThree(3)))).await, Ok(3));
        let items = within(LONG, "the items", parrot.ask_stream(CountNotThree).collect::<Vec<_>>()).await;
        assert_eq!(items.into_iter().filter(Result::is_ok).count(), 5);
    });
}

#[test]
fn with_the_switch_types_that_do_not_survive_the_wire_are_found() {
    run_plain(async {
        let (cluster, parrot) = parrot(true).await;
        assert_eq!(within(LONG, "the answer", parrot.ask(Forgetful { number: 7 })).await, Ok(0));
        let broken = within(LONG, "the answer", parrot.ask(Repeat(NotThree(3)))).await;
        assert!(matches!(broken, Err(CallError::Encode { reply: false, .. })), "{broken:?}");
        let told = within(LONG, "the answer", parrot.tell(Repeat(NotThree(3)))).await;
        assert!(matches!(told, Err(CallError::Encode { reply: false, .. })), "{told:?}");
        let tried = parrot.try_tell(Repeat(NotThree(3)));
        assert!(matches!(tried, Err(CallError::Encode { reply: false, .. })), "{tried:?}");
        let answer = within(LONG, "the answer", parrot.ask(RepeatNotThree(3))).await;
        assert!(matches!(answer, Err(CallError::Encode { reply: true, .. })), "{answer:?}");
        let items = within(LONG, "the items", parrot.ask_stream(CountNotThree).collect::<Vec<_>>()).await;
        assert!(matches!(items[..], [Ok(_), Ok(_), Err(CallError::Encode { reply: true, .. })]), "{items:?}");
        // What does survive is as it was, and the node has no fewer actors than before.
        assert_eq!(within(LONG, "the answer", parrot.ask(Repeat(NotThree(4)))).await, Ok(4));
        assert_eq!(within(LONG, "the answer", parrot.ask(IsLocal(parrot.clone()))).await, Ok(true));
        assert_eq!(cluster.node().report().dead_letters, 0, "all errors were looked at");
    });
}
