//! A cluster inside one process opens no network socket. In a file of its own, since it looks at its whole process.

use std::collections::HashSet;

use mobula::Cluster;
use mobula_integration_tests::actors::{Counter, CounterRef};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::tasks::square;

/// The network sockets of this process, as the system names them.
fn network_sockets() -> Vec<String> {
    let of_the_system: HashSet<String> = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"]
        .iter()
        .filter_map(|protocol| std::fs::read_to_string(format!("/proc/self/net/{protocol}")).ok())
        .flat_map(|table| {
            let inodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9).map(str::to_owned));
            inodes.collect::<Vec<_>>()
        })
        .collect();
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets = links.filter_map(|link| link.to_str().map(str::to_owned));
    let of_the_network = |socket: &String| {
        let inode = socket.strip_prefix("socket:[").and_then(|inode| inode.strip_suffix(']'));
        inode.is_some_and(|inode| of_the_system.contains(inode))
    };
    sockets.filter(of_the_network).collect()
}

#[test]
fn an_embedded_cluster_opens_no_network_socket() {
    // The look finds one that is there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    assert_eq!(network_sockets().len(), 1);
    drop(listener);
    assert!(network_sockets().is_empty());
    run_plain(async {
        let cluster = Cluster::connect().await.expect("a cluster");
        let counter = cluster.spawn(Counter::actor(5)).await.expect("spawned");
        assert!(counter.is_local());
        assert_eq!(counter.increment(1).await, Ok(6));
        assert_eq!(cluster.submit(square::task(4)).await, Ok(16));
        assert_eq!(cluster.nodes().len(), 1);
        assert_eq!(cluster.nodes()[0].pid, std::process::id());
        assert_eq!(cluster.nodes()[0].address, None);
        assert_eq!(network_sockets(), [] as [String; 0]);
        cluster.shutdown().await;
    });
}
