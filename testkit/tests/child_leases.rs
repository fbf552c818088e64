//! Leases of children on another node than their supervisor, in virtual time.

use std::time::Duration;

use mobula::prelude::*;
use mobula::{ChildSpec, ExitReason, Orphans, Strategy, Supervisor, SupervisorSpec};
use mobula_testkit::{TestCluster, eventually, virtual_time, within};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Tally(u64);

#[mobula::actor]
impl Tally {
    fn new() -> Self {
        Tally(0)
    }

    fn count(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn crash(&mut self) {
        panic!("as asked")
    }
}

/// A supervisor on node 0, and its child on node 1.
async fn supervised(cluster: &TestCluster, orphans: Orphans) -> (ActorRef<Supervisor>, ActorRef<Tally>) {
    let tally = Tally::actor().node_affinity(cluster.id(1));
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("tally", tally).orphans(orphans));
    let supervisor = cluster.spawn(0, Supervisor::spec(spec)).await;
    let tally = child(&supervisor).await;
    assert_eq!(tally.node(), cluster.id(1));
    (supervisor, tally)
}

async fn child(supervisor: &ActorRef<Supervisor>) -> ActorRef<Tally> {
    let found = within(MINUTE, supervisor.child("tally")).await;
    found.expect("the supervisor answers").expect("it has the child")
}

/// Neither node has given the other up.
fn are_connected(cluster: &TestCluster) -> bool {
    [(0, 1), (1, 0)].iter().all(|(one, other)| cluster.node(*one).control_link(cluster.id(*other)).is_some())
}

#[test]
fn a_child_that_is_cut_off_stops_before_its_node_is_given_up() {
    for ways in [&[(0, 1), (1, 0)][..], &[(0, 1)], &[(1, 0)]] {
        virtual_time(async {
            let cluster = TestCluster::start(2).await;
            let (supervisor, tally) = supervised(&cluster, Orphans::Stop).await;
            sleep(MINUTE).await;
            let end = cluster.seen_from(1, &tally).monitor();
            ways.iter().for_each(|(from, to)| cluster.cut_one_way(*from, *to));
            let begun = Instant::now();
            assert_eq!(within(MINUTE, end).await.reason, ExitReason::Shutdown);
            let passed = begun.elapsed();
            assert!((4 * SECOND..=8 * SECOND + SECOND / 10).contains(&passed), "{ways:?}: {passed:?}");
            assert!(are_connected(&cluster), "{ways:?}");
            // In time: the supervisor hears of the end, and starts another.
            cluster.heal(0, 1);
            eventually(async || child(&supervisor).await != tally, MINUTE).await;
            let next = child(&supervisor).await;
            assert_eq!(within(MINUTE, next.count()).await, Ok(1));
        });
    }
}

#[test]
fn a_detached_child_goes_on_and_is_found_again() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let (supervisor, tally) = supervised(&cluster, Orphans::Detach).await;
        assert_eq!(within(MINUTE, tally.count()).await, Ok(1));
        let beside = cluster.seen_from(1, &tally);
        cluster.cut(0, 1);
        // Before the lease is over its supervisor decides, who cannot be asked.
        assert!(within(MINUTE, beside.crash()).await.is_err());
        let mut waits = beside.count();
        assert!(tokio::time::timeout(SECOND, &mut waits).await.is_err());
        // From then on it begins again by itself.
        assert_eq!(within(8 * SECOND, waits).await, Ok(1));
        assert!(within(MINUTE, beside.crash()).await.is_err());
        assert_eq!(within(SECOND, beside.count()).await, Ok(1));
        assert!(are_connected(&cluster));
        cluster.heal(0, 1);
        assert_eq!(child(&supervisor).await, tally);
        sleep(5 * SECOND).await;
        // Only its supervisor ends it for good: told to stop by another, it begins again.
        within(MINUTE, beside.stop()).await.expect("it arrives");
        assert_eq!(within(MINUTE, beside.count()).await, Ok(1));
        let end = beside.monitor();
        within(MINUTE, supervisor.stop()).await.expect("it arrives");
        assert_eq!(within(MINUTE, end).await.reason, ExitReason::Shutdown);
    });
}

#[test]
fn a_detached_child_of_a_lost_supervisor_goes_on_for_good() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let (_supervisor, tally) = supervised(&cluster, Orphans::Detach).await;
        let beside = cluster.seen_from(1, &tally);
        cluster.cut(0, 1);
        sleep(MINUTE).await;
        assert!(!are_connected(&cluster));
        assert!(within(MINUTE, beside.crash()).await.is_err());
        assert_eq!(within(SECOND, beside.count()).await, Ok(1));
    });
}

#[test]
fn a_kept_child_stays_and_a_restarted_supervisor_keeps_its_new_ones() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let tally = Tally::actor().node_affinity(cluster.id(1));
        let inner = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("tally", tally));
        let outer = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::new("inner", Supervisor::spec(inner)));
        let outer = cluster.spawn(0, Supervisor::spec(outer)).await;
        let inner = outer.child::<Supervisor>("inner").await.expect("it answers").expect("it runs");
        let first = child(&inner).await;
        assert_eq!(within(MINUTE, first.count()).await, Ok(1));
        sleep(60 * MINUTE).await;
        assert_eq!(within(MINUTE, first.count()).await, Ok(2));
        let end = first.monitor();
        within(MINUTE, inner.kill()).await.expect("it arrives");
        assert_eq!(within(SECOND, end).await.reason, ExitReason::Killed);
        eventually(async || matches!(inner.child::<Tally>("tally").await, Ok(Some(next)) if next != first), MINUTE)
            .await;
        let second = child(&inner).await;
        assert_eq!(within(MINUTE, second.count()).await, Ok(1));
        sleep(60 * MINUTE).await;
        assert_eq!(within(MINUTE, second.count()).await, Ok(2));
    });
}
