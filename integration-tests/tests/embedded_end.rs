//! What is left of a cluster inside the process when it is dropped: nothing. In a file of its own, since it counts the
//! threads of its whole process.

use mobula::Cluster;
use mobula_integration_tests::actors::{Counter, CounterRef};
use mobula_integration_tests::eventually;
use mobula_integration_tests::process::Process;
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::tasks::square;
use mobula_integration_tests::wait::LONG;

#[test]
fn a_dropped_cluster_leaves_no_thread() {
    run_plain(async {
        let own = Process::of(std::process::id());
        let before = own.threads();
        for _ in 0..3 {
            let cluster = Cluster::connect().await.expect("a cluster");
            let counter = cluster.spawn(Counter::actor(5)).await.expect("spawned");
            assert_eq!(counter.increment(1).await, Ok(6));
            assert_eq!(cluster.submit(square::task(4)).await, Ok(16));
        }
        eventually(LONG, "the threads' end", async || (own.threads() <= before).then_some(())).await;
    });
}
