//! A busy actor is not a dead node: heartbeats and requests to the node do not pass through its arbiters.

use std::time::Duration;

use mobula::Ask;
use mobula_core::limits;
use mobula_integration_tests::actors::{Block, Counter, Entered, Log};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Kind, Stage, gates, suites, within};
use mobula_transport::now;

suites! {
    a_blocked_actor_does_not_make_its_node_look_dead on [processes, memory];
    a_blocked_actor_does_not_keep_its_node_from_answering on [embedded, processes, memory];
}

/// Blocks the arbiter of the first home, which is its only one in a node process. Gives the gate that lets it go on.
async fn block(stage: &Stage) -> (Ask<Block>, String) {
    let (probe, gate) = (stage.probe(0).await, gates::fresh_name());
    // This one waits on its own thread, and its answer is sent before the arbiter is blocked, or from that thread.
    let entered = stage.keeper(0).await.ask(Entered { gate: gate.clone(), count: 1 });
    let blocked = probe.ask(Block { gate: gate.clone() });
    within(LONG, "the handler", entered).await.expect("the keeper answers");
    (blocked, gate)
}

async fn a_blocked_actor_does_not_make_its_node_look_dead(stage: Stage) {
    let (blocked, gate) = block(&stage).await;
    let control = stage.caller().control_link(stage.home(0)).expect("the nodes are connected");
    // For several heartbeats.
    let mut longest = Duration::ZERO;
    let end = now() + 4 * limits::HEARTBEAT_INTERVAL;
    while now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        longest = longest.max(now().saturating_duration_since(control.heard()));
    }
    println!("{:?}: heard at least every {longest:?} while the arbiter was blocked", stage.kind());
    assert!(longest < 3 * limits::HEARTBEAT_INTERVAL, "nothing heard for {longest:?}");
    if stage.kind() == Kind::Processes {
        assert!(stage.cluster().nodes().iter().all(|node| node.alive));
    }
    stage.force_open(0, &gate).await;
    assert_eq!(within(LONG, "the blocked handler", blocked).await, Ok(()));
}

async fn a_blocked_actor_does_not_keep_its_node_from_answering(stage: Stage) {
    let named = stage.spawn(0, Counter::actor(5).name("named")).await;
    let (blocked, gate) = block(&stage).await;
    let report = within(LONG, "the report", stage.caller().report_of(stage.home(0))).await.expect("it answers");
    assert_eq!(report.pid, stage.pid(0));
    let found = within(LONG, "the name", stage.caller().find::<Counter>("named")).await;
    assert_eq!(found, Ok(Some(named)));
    stage.force_open(0, &gate).await;
    assert_eq!(within(LONG, "the blocked handler", blocked).await, Ok(()));
    assert_eq!(within(LONG, "a later message", stage.probe(0).await.ask(Log)).await, Ok(vec![0]));
}
