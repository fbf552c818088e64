//! What keeps a cluster from starting, and that nothing is left of it then.

use std::net::{Ipv4Addr, TcpListener};

use mobula::{Cluster, ClusterError};
use mobula_integration_tests::actors::Counter;
use mobula_integration_tests::process::Process;
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::within;

fn builder(nodes: usize) -> mobula::ClusterBuilder {
    Cluster::builder().nodes(nodes).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_node_host"))
}

async fn refusal(builder: mobula::ClusterBuilder) -> ClusterError {
    within(LONG, "the refusal", builder.connect()).await.expect_err("it has to be refused")
}

#[test]
fn nodes_are_processes_of_their_own() {
    run_plain(async {
        let cluster = builder(3).connect().await.expect("a cluster");
        let nodes = cluster.nodes();
        let names: Vec<&str> = nodes.iter().map(|node| &*node.id.name).collect();
        assert_eq!(names, ["node-1", "node-2", "node-3"]);
        let mut pids: Vec<u32> = nodes.iter().map(|node| node.pid).collect();
        let children = Process::of(std::process::id()).children();
        for node in &nodes {
            assert!(children.contains(&Process::of(node.pid)), "{node:?}");
            assert!(node.address.is_some_and(|address| address.ip().is_loopback()), "{node:?}");
            assert_eq!(cluster.report(&node.id).await.expect("it answers").pid, node.pid);
        }
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 3);
        // Spread deals them out in turn.
        let mut placed = Vec::new();
        for _ in 0..6 {
            placed.push(cluster.spawn(Counter::actor(0).spread()).await.expect("spawned").node().clone());
        }
        let ids: Vec<_> = nodes.iter().map(|node| node.id.clone()).cycle().take(6).collect();
        assert_eq!(placed, ids);
    });
}

#[test]
fn numbers_out_of_range_are_refused() {
    run_plain(async {
        for (builder, texts) in [
            (builder(0), ["the number of nodes", "from 1 to 256", "0"]),
            (builder(257), ["the number of nodes", "from 1 to 256", "257"]),
            (builder(1).cpus_per_node(0), ["the task slots of a node", "from 1 to 4096", "0"]),
            (builder(1).cpus_per_node(4097), ["the task slots of a node", "from 1 to 4096", "4097"]),
            (builder(1).arbiters_per_node(0), ["the actor threads of a node", "from 1 to 1024", "0"]),
            (builder(3).base_port(65534), ["the port of the last node", "at most 65535", "65536"]),
        ] {
            let error = refusal(builder).await;
            assert!(matches!(error, ClusterError::BadNumber { .. }), "{error:?}");
            assert!(!error.is_port_in_use());
            let shown = error.to_string();
            assert!(texts.iter().all(|text| shown.contains(text)), "{shown}");
        }
        let error = Cluster::local(0).await.expect_err("it has to be refused");
        assert!(matches!(error, ClusterError::BadNumber { .. }), "{error:?}");
    });
}

#[test]
fn a_port_in_use_is_named() {
    run_plain(async {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("it is bound").port();
        let error = refusal(builder(1).base_port(port)).await;
        assert!(error.is_port_in_use(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("port {port} on 127.0.0.1 is in use")), "{text}");
        assert!(text.contains("choose another") && text.contains("node-1"), "{text}");
    });
}

#[test]
fn a_given_port_is_used() {
    run_plain(async {
        // Free a moment ago; should another take it between, the error says so.
        let free =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("bound").port();
        let cluster = builder(1).base_port(free).connect().await.expect("the port is free");
        assert_eq!(cluster.nodes()[0].address.expect("it listens").port(), free);
    });
}

#[test]
fn a_program_that_cannot_be_a_node_is_named() {
    run_plain(async {
        let error = refusal(builder(1).executable("/no/such/program")).await;
        assert!(
            matches!(&error, ClusterError::Start { executable, .. } if executable == "/no/such/program"),
            "{error}"
        );
        // It ends without a word.
        let error = refusal(builder(2).executable("/bin/true")).await;
        assert!(matches!(&error, ClusterError::NotReady { .. }), "{error}");
        assert!(error.to_string().contains("node-"), "{error}");
    });
}
