//! Names of a node that loses its lease, in virtual time.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mobula_testkit::{TestCluster, eventually, virtual_time, within};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Named;

#[mobula::actor]
impl Named {
    fn new() -> Self {
        Named
    }
}

/// Node 1 keeps its names on node 0.
async fn with_a_head() -> TestCluster {
    let cluster = TestCluster::start(2).await;
    cluster.node(1).set_head(cluster.id(0));
    cluster
}

#[test]
fn named_actors_of_a_fenced_node_end_in_the_order_in_which_they_began() {
    virtual_time(async {
        let cluster = with_a_head().await;
        let mut ends = FuturesUnordered::new();
        let mut begun = Vec::new();
        for number in 0..20 {
            let actor = cluster.spawn(1, Named::actor().name(format!("n{number}"))).await;
            begun.push(actor.id());
            ends.push(cluster.seen_from(1, &actor).monitor());
        }
        let fenced = cluster.node(1).fenced();
        cluster.cut(0, 1);
        within(MINUTE, fenced).await;
        let mut ended = Vec::new();
        while let Some(down) = within(MINUTE, ends.next()).await {
            ended.push(down.actor);
        }
        assert_eq!(ended, begun);
    });
}

#[test]
fn names_are_free_two_leases_and_a_margin_after_the_last_answer() {
    virtual_time(async {
        let cluster = with_a_head().await;
        let actor = cluster.spawn(1, Named::actor().name("printer")).await;
        sleep(MINUTE).await;
        let is_free = async || cluster.node(0).find::<Named>("printer").await == Ok(None);
        let fenced = cluster.node(1).fenced();
        // The head hears of the node, and the node not of the head.
        cluster.cut_one_way(0, 1);
        let cut = Instant::now();
        within(MINUTE, fenced).await;
        assert!(cut.elapsed() <= 8 * SECOND, "{:?}", cut.elapsed());
        assert!(!is_free().await, "{actor:?} may have the answer to its last renewal");
        eventually(is_free, MINUTE).await;
        // A renewal is sent every half of a second.
        let free = cut.elapsed();
        assert!((17 * SECOND..=18 * SECOND + SECOND / 10).contains(&free), "{free:?}");
    });
}
