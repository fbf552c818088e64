//! A node that has much asked of its head keeps its lease there.

use std::pin::pin;

use futures::future::{Either, select};
use mobula::{CallError, RemoteActor, SpawnError};
use mobula_actors::{Node, NodeConfig};
use mobula_integration_tests::actors::Probe;
use mobula_integration_tests::slow_start::SlowStart;
use mobula_integration_tests::stage::{connect_by_memory, run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{gates, within};

#[test]
fn a_renewal_is_no_work_that_counts() {
    run_plain(async {
        let config = NodeConfig { name: "head".to_owned(), control_requests_max: 1, ..NodeConfig::default() };
        let (head, member) = (Node::start(config).expect("a node"), start_node("member"));
        connect_by_memory(&head, &member).await;
        let gate = gates::fresh_name();
        let mut slow = pin!(member.spawn_on(head.id(), SlowStart::spec(gate.clone()).own_thread()));
        let entered = pin!(gates::entered(&gate, 1));
        let Either::Right(_) = select(slow.as_mut(), entered).await else { panic!("it cannot have started") };
        // The head works on all that it works on for one peer; and yet the lease begins, so that only the claim is refused.
        member.set_head(head.id());
        let claim = within(LONG, "an answer at once", member.spawn(Probe::spec(0).name("n"))).await;
        let error = claim.expect_err("one request is the most");
        assert!(matches!(&error, SpawnError::Call(CallError::Overloaded { limit: 1, .. })), "{error}");
        gates::open(&gate);
        within(LONG, "the spawn", slow).await.expect("it was begun");
        within(LONG, "the name", member.spawn(Probe::spec(0).name("n"))).await.expect("there is room again");
        [&head, &member].iter().for_each(|node| node.shut_down("the test is over"));
    });
}
