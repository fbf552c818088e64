//! Nodes without a thread of their own: everything that a node does, it does on the thread that started it.

use std::time::Duration;

use mobula::{CallError, ExitReason, RemoteActor};
use mobula_actors::{Node, NodeConfig};
use mobula_integration_tests::actors::{Log, Panic, Place, Probe, Record, Whereabouts};
use mobula_integration_tests::stage::connect_by_memory;
use mobula_integration_tests::wait::{LONG, within};
use mobula_integration_tests::waiter::{Waiter, WaiterRef};

fn start(name: &str, seed: u64) -> Node {
    let config = NodeConfig { name: name.to_owned(), single_thread: true, seed: Some(seed), ..NodeConfig::default() };
    Node::start(config).expect("a node")
}

/// Runs `test` on a thread that knows tokio, and no actix `System`.
fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// The threads of this process that a node may have started.
fn threads_of_nodes() -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.starts_with("mobula") || name.starts_with("actix")).collect()
}

#[test]
fn a_node_without_threads_does_all_that_others_do() {
    on_one_thread(async {
        let (one, other) = (start("one", 1), start("other", 2));
        connect_by_memory(&one, &other).await;
        let here = format!("{:?}", std::thread::current().id());
        let spec = || Probe::spec(0).backoff(Duration::from_millis(1));
        let near = within(LONG, "near", one.spawn(spec())).await.expect("it starts");
        let far = within(LONG, "far", one.spawn_on(other.id(), spec())).await.expect("it starts");
        let own = within(LONG, "own thread", one.spawn(spec().own_thread())).await.expect("it starts");
        for probe in [&near, &far, &own] {
            assert_eq!(within(LONG, "an answer", probe.ask(Record(1))).await, Ok(2));
            let place: Place = within(LONG, "a place", probe.ask(Whereabouts)).await.expect("it answers");
            assert_eq!((&place.thread, &place.node), (&here, probe.node()));
            let panics = within(LONG, "a panic", probe.ask(Panic("boom".to_owned()))).await;
            assert!(matches!(panics, Err(CallError::Panicked { .. })), "{panics:?}");
            assert_eq!(within(LONG, "the next life", probe.ask(Log)).await, Ok(vec![0]));
            let monitor = probe.monitor();
            probe.stop().await.expect("the order arrives");
            assert_eq!(within(LONG, "the end", monitor).await.reason, ExitReason::Shutdown);
        }
        let waiter = within(LONG, "far", one.spawn_on(other.id(), Waiter::actor(3, None))).await.expect("it starts");
        assert_eq!(within(LONG, "alone", waiter.divide(1)).await, Ok(1));
        let runners = within(LONG, "task actors", one.task_runners_of(other.id())).await.expect("they start");
        assert_eq!(runners.len(), 1);
        let expired = within(LONG, "a deadline", near.with_deadline(Duration::ZERO).ask(Log)).await;
        assert!(expired.is_err(), "{expired:?}");
        assert_eq!(threads_of_nodes(), Vec::<String>::new());
        other.shut_down("the test is over");
        let gone = within(LONG, "the end of the other", waiter.list()).await;
        assert!(matches!(gone, Err(CallError::Unreachable { .. } | CallError::Stopped)), "{gone:?}");
        one.shut_down("the test is over");
    });
}

#[test]
fn a_seed_gives_the_same_identity_again() {
    on_one_thread(async {
        let uids: Vec<_> = [7, 7, 8].map(|seed| start("node", seed).id().uid).into();
        assert_eq!(uids[0], uids[1]);
        assert_ne!(uids[0], uids[2]);
    });
}
