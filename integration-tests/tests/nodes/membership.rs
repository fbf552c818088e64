//! What a cluster says of its nodes: up, suspect, down; and who watches them hears of each change.

use std::time::Duration;

use futures::StreamExt;
use mobula::{Cluster, NodeInfo, NodeState, RemoteActor};
use mobula_integration_tests::actors::{Fallen, Probe};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_killed_node_is_down_for_all_who_watch on [processes];
}

async fn next(events: &mut mobula::NodeEvents) -> NodeInfo {
    within(LONG, "an event", events.next()).await.expect("it does not end")
}

async fn a_killed_node_is_down_for_all_who_watch(stage: Stage) {
    let mut watching = [stage.cluster().watch_nodes(), stage.cluster().watch_nodes()];
    for events in &mut watching {
        for node in stage.cluster().nodes() {
            assert_eq!(next(events).await, node);
            assert_eq!((node.state, node.alive), (NodeState::Up, true));
        }
    }
    Process::of(stage.pid(0)).signal(Signal::KILL);
    for events in &mut watching {
        let down = next(events).await;
        assert_eq!((&down.id, down.state, down.alive), (stage.home(0), NodeState::Down, false));
    }
    assert_eq!(stage.cluster().nodes()[1].state, NodeState::Up);
    // Later it is told as it is.
    assert_eq!(next(&mut stage.cluster().watch_nodes()).await.state, NodeState::Down);
}

/// A later node connects to the earlier ones, which may know of it as a member before.
#[test]
fn a_node_sees_an_earlier_and_a_later_one_go_down() {
    run_plain(async {
        let cluster = Cluster::builder().nodes(3).executable(env!("CARGO_BIN_EXE_node_host"));
        let cluster = cluster.connect().await.expect("a cluster");
        let nodes = cluster.nodes();
        let middle = cluster.spawn(Probe::spec(0).node_affinity(&nodes[1].id)).await.expect("spawned");
        for down in [vec![&nodes[2]], vec![&nodes[0], &nodes[2]]] {
            Process::of(down[0].pid).signal(Signal::KILL);
            let expected: Vec<_> = down.iter().map(|node| node.id.clone()).collect();
            eventually(LONG, "the news", async || {
                let fallen = within(LONG, "an answer", middle.ask(Fallen)).await.expect("it answers");
                (fallen == expected).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_silent_node_is_suspected_and_then_down() {
    run_plain(async {
        let lease = Duration::from_secs(4);
        let builder = Cluster::builder().nodes(1).lease(lease).executable(env!("CARGO_BIN_EXE_node_host"));
        let cluster = builder.connect().await.expect("a cluster");
        let process = Process::of(cluster.nodes()[0].pid);
        let mut events = cluster.watch_nodes();
        let mut states = async || next(&mut events).await.state;
        assert_eq!(states().await, NodeState::Up);
        process.signal(Signal::STOP);
        assert_eq!(states().await, NodeState::Suspect);
        assert!(cluster.nodes()[0].alive);
        process.signal(Signal::CONT);
        assert_eq!(states().await, NodeState::Up);
        process.signal(Signal::STOP);
        assert_eq!(states().await, NodeState::Suspect);
        assert_eq!(states().await, NodeState::Down);
    });
}
