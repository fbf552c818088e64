//! What a process of another job may have a node do, and what not.

use std::time::Duration;

use mobula::prelude::*;
use mobula::{CallError, ExitReason};
use mobula_testkit::{TestCluster, virtual_time, within};
const MINUTE: Duration = Duration::from_secs(60);

struct Counter {
    count: u64,
}

#[mobula::actor]
impl Counter {
    fn new(count: u64) -> Self {
        Counter { count }
    }

    fn add(&mut self, by: u64) -> u64 {
        self.count += by;
        self.count
    }
}

fn is_refused<T>(answer: Result<T, CallError>) -> bool {
    matches!(answer, Err(CallError::Unauthorized { .. }))
}

#[test]
fn a_guest_calls_actors_and_asks_for_nothing_else() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let (host, guest) = (cluster.node(0), cluster.node(1));
        let counter = host.spawn(Counter::actor(1)).await.expect("room");
        let seen = guest.reference_to(&counter);
        host.admit_guest(guest.id().uid);

        assert_eq!(within(MINUTE, seen.add(2)).await.expect("it may call"), 3);
        let end = seen.monitor();
        let host_id = host.id();
        match guest.spawn_on(host_id, Counter::actor(0)).await {
            Err(SpawnError::Call(error)) => assert!(is_refused::<()>(Err(error))),
            other => panic!("a guest creates no actors: {other:?}"),
        }
        assert!(is_refused(guest.report_of(host_id).await) && is_refused(guest.tree_of(host_id).await));
        match guest.task_runners_of(host_id).await {
            Err(SpawnError::Call(error)) => assert!(is_refused::<()>(Err(error))),
            other => panic!("a guest runs no tasks: {other:?}"),
        }
        // Nothing of what it has said has done anything, and what it may do still works.
        assert_eq!(host.report().actors, 1);
        seen.stop().await.expect("it may end one that it knows");
        assert_eq!(within(MINUTE, end).await.reason, ExitReason::Shutdown);
    });
}

#[test]
fn a_host_asks_its_guests_for_nothing() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let (host, guest) = (cluster.node(0), cluster.node(1));
        guest.admit_host(host.id().uid);
        let guest_id = guest.id();
        match host.spawn_on(guest_id, Counter::actor(0)).await {
            Err(SpawnError::Call(error)) => assert!(is_refused::<()>(Err(error))),
            other => panic!("a host creates no actors at its guests: {other:?}"),
        }
        assert!(is_refused(host.report_of(guest_id).await) && is_refused(host.tree_of(guest_id).await));
        assert!(is_refused(host.find_detached::<Counter>(guest_id, "hits").await), "it is no keeper");
        // What it was given it may call, and it is called.
        let counter = guest.spawn(Counter::actor(1)).await.expect("room");
        assert_eq!(within(MINUTE, host.reference_to(&counter).add(2)).await.expect("it may call"), 3);
        let other = host.spawn(Counter::actor(5)).await.expect("room");
        assert_eq!(within(MINUTE, guest.reference_to(&other).add(1)).await.expect("it may call"), 6);
        // A guest as well, it asks as one.
        guest.admit_guest(host.id().uid);
        let found = host.find_detached::<Counter>(guest_id, "hits").await.expect("it may ask");
        assert!(found.is_none());
    });
}
