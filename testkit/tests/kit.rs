//! What the kit promises, used as a program's tests would use it.

use std::time::Duration;

use mobula::prelude::*;
use mobula_testkit::{Probe, TestCluster, eventually, virtual_time, within};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Serialize, Deserialize, RemoteMessage)]
struct Note(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
struct Double(u64);

/// Sends what it is told on to others.
#[derive(Clone, Default)]
struct Sender;

#[mobula::actor]
impl Sender {
    fn new() -> Self {
        Sender
    }

    fn send(&mut self, numbers: Vec<u64>, to: Recipient<Note>) {
        for number in numbers {
            to.try_tell(Note(number)).expect("there is room");
        }
    }

    async fn double(&self, number: u64, by: Recipient<Double>) -> Result<u64, CallError> {
        by.ask(Double(number)).await
    }

    async fn wait(&self, time: Duration) -> u64 {
        tokio::time::sleep(time).await;
        7
    }

    fn crash(&mut self) {
        panic!("as asked")
    }
}

#[mobula::task]
fn square(x: u64) -> u64 {
    x * x
}

/// Runs `test` on a plain runtime, in real time.
fn in_real_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(within(MINUTE, test));
}

async fn probes_record() {
    let cluster = TestCluster::start(2).await;
    let sender = cluster.spawn(1, Sender::actor()).await;
    let mut probe = Probe::<Note>::start(cluster.node(0)).await;
    assert_eq!(probe.try_message(), None);
    sender.send(vec![1, 2, 3], probe.recipient()).await.expect("it sends");
    for number in 1..=3 {
        assert_eq!(probe.expect_message(MINUTE).await, Note(number));
    }
    probe.expect_no_message(Duration::from_millis(20)).await;
    let doubling = Probe::answering(cluster.node(0), |Double(number)| number * 2).await;
    assert_eq!(within(MINUTE, sender.double(21, doubling.recipient())).await, Ok(42));
    let monitor = probe.actor().monitor();
    drop(probe);
    assert_eq!(within(MINUTE, monitor).await.reason, mobula::ExitReason::Shutdown);
}

#[test]
fn a_probe_records_in_order_and_answers() {
    virtual_time(probes_record());
    in_real_time(probes_record());
}

#[test]
#[should_panic(expected = "kit.rs")]
fn a_message_that_does_not_come_is_a_panic_that_names_its_line() {
    virtual_time(async {
        let cluster = TestCluster::start(1).await;
        Probe::<Note>::start(cluster.node(0)).await.expect_message(MINUTE).await;
    });
}

#[test]
#[should_panic(expected = "where none was expected")]
fn a_message_that_should_not_come_is_a_panic() {
    virtual_time(async {
        let cluster = TestCluster::start(1).await;
        let mut probe = Probe::<Note>::start(cluster.node(0)).await;
        probe.recipient().tell(Note(1)).await.expect("there is room");
        probe.expect_no_message(MINUTE).await;
    });
}

#[test]
fn hours_pass_at_once() {
    let begun = std::time::SystemTime::now();
    let passed = virtual_time(async {
        let begun = tokio::time::Instant::now();
        let cluster = TestCluster::start(2).await;
        let sender = cluster.spawn(1, Sender::actor().restarts(100)).await;
        assert_eq!(sender.without_deadline().wait(60 * MINUTE).await, Ok(7));
        let late = sender.wait(60 * MINUTE).await;
        assert_eq!(late, Err(CallError::DeadlineExceeded { started: true }));
        for _ in 0..8 {
            // The rests between these lives come to more than 10 s.
            assert!(matches!(sender.crash().await, Err(CallError::Panicked { .. })));
        }
        assert_eq!(sender.wait(SECOND).await, Ok(7));
        begun.elapsed()
    });
    assert!(passed > 60 * MINUTE + 12 * SECOND, "{passed:?}");
    // Heartbeats of an hour are worked off meanwhile; a busy machine needs its time for that.
    assert!(begun.elapsed().expect("a clock that goes on") < 2 * MINUTE);
}

#[test]
fn a_cut_holds_up_and_a_heal_delivers() {
    virtual_time(async {
        let cluster = TestCluster::start(2).await;
        let sender = cluster.spawn(1, Sender::actor()).await;
        cluster.cut(0, 1);
        let held = sender.wait(Duration::ZERO);
        tokio::time::sleep(5 * SECOND).await;
        cluster.heal(0, 1);
        assert_eq!(within(SECOND, held).await, Ok(7));
        // One direction is enough to lose each other: no answer comes, and no heartbeat.
        cluster.cut_one_way(1, 0);
        let lost = within(MINUTE, sender.wait(Duration::ZERO)).await.expect_err("nothing comes back");
        assert_eq!(lost.outcome(), Outcome::Unknown);
        assert!(matches!(lost, CallError::Unreachable { sent: true, .. }), "{lost}");
    });
}

async fn a_killed_node(bound: Duration) {
    let mut cluster = TestCluster::start(3).await;
    let sender = cluster.spawn(1, Sender::actor()).await;
    let (monitor, waits) = (sender.monitor(), sender.wait(MINUTE));
    let before = cluster.id(1).clone();
    cluster.kill(1);
    let down = within(bound, monitor).await;
    assert!(matches!(down.reason, mobula::ExitReason::NoConnection { .. }), "{down:?}");
    assert!(matches!(within(bound, waits).await, Err(CallError::Unreachable { sent: true, .. })));
    let after = cluster.restart(1).await;
    assert!(after.name == before.name && after.uid != before.uid);
    let again = cluster.spawn(1, Sender::actor()).await;
    let from_2 = cluster.seen_from(2, &again);
    assert!(!from_2.is_local());
    assert_eq!(within(bound, from_2.wait(Duration::ZERO)).await, Ok(7));
    let stale = within(bound, sender.wait(Duration::ZERO)).await;
    assert!(stale.is_err(), "{stale:?}");
}

#[test]
fn a_killed_node_is_gone_at_once_and_comes_back_as_another_life() {
    virtual_time(a_killed_node(Duration::from_millis(10)));
    in_real_time(a_killed_node(MINUTE));
}

async fn a_cluster_handle() {
    let kit = TestCluster::start(3).await;
    let cluster = kit.cluster(0);
    assert_eq!(cluster.nodes().len(), 3);
    let spread = cluster.spawn(Sender::actor().node_affinity(kit.id(2)).name("far")).await.expect("it starts");
    assert_eq!(spread.node(), kit.id(2));
    let squares: Vec<_> = (0..10).map(|x| cluster.submit(square::task(x))).collect();
    for (x, square) in squares.into_iter().enumerate() {
        assert_eq!(within(MINUTE, square).await.expect("a result"), (x * x) as u64);
    }
    eventually(async || kit.node(2).report().actors > 0, MINUTE).await;
}

#[test]
fn code_that_takes_a_cluster_runs_on_the_kit() {
    virtual_time(a_cluster_handle());
    in_real_time(a_cluster_handle());
}

#[test]
fn virtual_time_does_the_same_each_time() {
    let run = || {
        virtual_time(async {
            let begun = tokio::time::Instant::now();
            let cluster = TestCluster::start(2).await;
            let sender = cluster.spawn(1, Sender::actor().restarts(100)).await;
            for _ in 0..5 {
                assert!(sender.crash().await.is_err());
            }
            assert_eq!(sender.wait(Duration::ZERO).await, Ok(7));
            (begun.elapsed(), cluster.id(0).clone(), cluster.id(1).clone())
        })
    };
    assert_eq!(run(), run());
}

#[test]
#[should_panic(expected = "still waits")]
fn what_waits_for_ever_is_a_panic() {
    virtual_time(std::future::pending::<()>());
}
