//! Snapshots: the next life of an actor begins with what the last one saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mobula::{
    ActorRef, ActorSpec, CallError, Cluster, MemorySnapshots, RemoteActor, SnapshotError, SnapshotPolicy,
    SnapshotStore, SpawnError,
};
use mobula_integration_tests::ledger::{Enter, Entries, Ledger, Save, TearUp, Unregistered};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::{run_plain, start_node};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};
use parking_lot::Mutex;
use tempfile::TempDir;

suites! {
    a_restart_begins_with_the_last_snapshot on [embedded, processes, memory];
    snapshots_are_taken_after_so_many_messages on [embedded, processes, memory];
    snapshots_are_taken_after_a_time on [embedded, processes, memory];
    without_a_registration_the_spawn_says_so on [embedded, processes, memory];
}

async fn enter(ledger: &ActorRef<Ledger>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        within(LONG, "an entry", ledger.ask(Enter(number))).await.expect("entered");
    }
}

async fn entries(ledger: &ActorRef<Ledger>) -> Vec<u64> {
    within(LONG, "the entries", ledger.ask(Entries)).await.expect("it answers").1
}

async fn save(ledger: &ActorRef<Ledger>) -> Result<(), SnapshotError> {
    within(LONG, "the save", ledger.ask(Save)).await.expect("it answers")
}

async fn tear_up(ledger: &ActorRef<Ledger>) {
    let panicked = within(LONG, "the panic", ledger.ask(TearUp)).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
}

async fn a_restart_begins_with_the_last_snapshot(stage: Stage) {
    let ledger = stage.spawn(0, Ledger::spec(7).snapshots(SnapshotPolicy::on_demand())).await;
    enter(&ledger, [1, 2]).await;
    assert_eq!(save(&ledger).await, Ok(()));
    enter(&ledger, [3]).await;
    tear_up(&ledger).await;
    assert_eq!(within(LONG, "the entries", ledger.ask(Entries)).await, Ok((7, vec![1, 2])));
    // A state that cannot be taken is told, and the one before stays.
    enter(&ledger, [u64::MAX]).await;
    let failed = save(&ledger).await;
    assert!(
        matches!(&failed, Err(SnapshotError::Encode { reason }) if reason.contains("cannot be saved")),
        "{failed:?}"
    );
    tear_up(&ledger).await;
    assert_eq!(entries(&ledger).await, [1, 2]);
    // Without snapshots nothing is kept.
    let plain = stage.spawn(0, Ledger::spec(8)).await;
    enter(&plain, [1]).await;
    assert_eq!(save(&plain).await, Err(SnapshotError::NoSnapshots));
    tear_up(&plain).await;
    assert_eq!(within(LONG, "the entries", plain.ask(Entries)).await, Ok((8, vec![])));
}

async fn snapshots_are_taken_after_so_many_messages(stage: Stage) {
    let ledger = stage.spawn(0, Ledger::spec(0).snapshots(SnapshotPolicy::on_demand().every_messages(5))).await;
    enter(&ledger, 1..=13).await;
    tear_up(&ledger).await;
    assert_eq!(entries(&ledger).await, (1..=10).collect::<Vec<_>>());
}

async fn snapshots_are_taken_after_a_time(stage: Stage) {
    let policy = SnapshotPolicy::on_demand().every(Duration::from_millis(1));
    // Any panic may come before the first, so one is tried until it comes after.
    let spec = Ledger::spec(0).snapshots(policy).restarts(u32::MAX).backoff(Duration::from_millis(1));
    let ledger = stage.spawn(0, spec).await;
    enter(&ledger, [1]).await;
    eventually(LONG, "a snapshot", async || {
        tear_up(&ledger).await;
        if entries(&ledger).await == [1] {
            return Some(());
        }
        enter(&ledger, [1]).await;
        None
    })
    .await;
}

async fn without_a_registration_the_spawn_says_so(stage: Stage) {
    let spec = Unregistered::spec(()).snapshots(SnapshotPolicy::on_demand());
    let refused =
        within(LONG, "spawn", stage.caller().spawn_on(stage.home(0), spec)).await.expect_err("not registered");
    assert!(matches!(&refused, SpawnError::Snapshot { error: SnapshotError::NotRegistered { .. }, .. }), "{refused}");
    assert!(refused.to_string().contains("register_snapshot!"), "{refused}");
}

fn spec(name: &str) -> ActorSpec<Ledger> {
    Ledger::spec(0).name(name).snapshots(SnapshotPolicy::on_demand())
}

fn url(directory: &TempDir) -> String {
    format!("file://{}", directory.path().display())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let mut files: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn a_named_actor_of_a_killed_node_goes_on_elsewhere() {
    run_plain(async {
        let directory = tempfile::tempdir().expect("a directory");
        let builder = Cluster::builder().nodes(2).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_node_host"));
        // The name is given again when the lease of the killed node is over.
        let builder = builder.snapshots(url(&directory)).lease(Duration::from_secs(1));
        let cluster = within(LONG, "the cluster", builder.connect()).await.expect("two processes");
        let nodes = cluster.nodes();
        let first = cluster.spawn(spec("till").node_affinity(&nodes[0].id)).await.expect("spawned");
        enter(&first, [1, 2, 3]).await;
        assert_eq!(save(&first).await, Ok(()));
        enter(&first, [4]).await;
        Process::of(nodes[0].pid).signal(Signal::KILL);
        let second =
            eventually(LONG, "the name", async || cluster.spawn(spec("till").node_affinity(&nodes[1].id)).await.ok())
                .await;
        assert_eq!(entries(&second).await, [1, 2, 3]);
        // Another name, another history.
        let other = cluster.spawn(spec("other")).await.expect("spawned");
        assert!(entries(&other).await.is_empty());
        cluster.shutdown().await;

        // A later cluster goes on, too, also within one process.
        let later = Cluster::builder().snapshots(url(&directory)).connect().await.expect("a cluster");
        let third = later.spawn(spec("till")).await.expect("spawned");
        assert_eq!(entries(&third).await, [1, 2, 3]);
    });
}

#[test]
fn a_corrupt_snapshot_is_told_left_alone_and_passed_over() {
    run_plain(async {
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::builder().snapshots(url(&directory)).connect().await.expect("a cluster");
        let failures = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&failures);
        cluster.node().on_snapshot_failure(move |failure| seen.lock().push(failure));
        let begin = async || {
            let ledger = within(LONG, "spawn", cluster.spawn(spec("till"))).await.expect("spawned");
            let monitor = ledger.monitor();
            (ledger, monitor)
        };
        let (first, monitor) = begin().await;
        for number in [1, 2] {
            enter(&first, [number]).await;
            assert_eq!(save(&first).await, Ok(()));
        }
        first.stop().await.expect("the order arrives");
        within(LONG, "its end", monitor).await;

        let newest = files(directory.path()).pop().expect("snapshots");
        let mut bytes = std::fs::read(&newest).expect("a snapshot");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&newest, &bytes).expect("writable");

        let (second, monitor) = begin().await;
        assert_eq!(entries(&second).await, [1], "the one before");
        {
            let failures = failures.lock();
            assert!(
                matches!(failures[..], [ref only] if matches!(only.error, SnapshotError::Corrupt { .. })),
                "{failures:?}"
            );
            let name = failures[0].snapshot.clone().expect("one is meant");
            assert!(newest.ends_with(&name), "{name}");
        }
        // What is saved later does not delete it.
        for number in 3..10 {
            enter(&second, [number]).await;
            assert_eq!(save(&second).await, Ok(()));
        }
        assert_eq!(std::fs::read(&newest).expect("it is there"), bytes, "the original is as it was");
        assert!(files(directory.path()).len() <= 5, "three, the corrupt one, and the one of the claim");
        second.stop().await.expect("the order arrives");
        within(LONG, "its end", monitor).await;

        // With nothing readable left, it begins from its arguments.
        for file in files(directory.path()) {
            std::fs::write(file, b"mobulasn\0\0\0\x09later").expect("writable");
        }
        failures.lock().clear();
        let (third, _) = begin().await;
        assert!(entries(&third).await.is_empty());
        let failures = failures.lock();
        assert!(!failures.is_empty());
        assert!(failures.iter().all(|failure| matches!(failure.error, SnapshotError::NewerFormat { version: 9, .. })));
    });
}

#[test]
fn an_idle_actor_is_saved_after_a_time() {
    run_plain(async {
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::builder().snapshots(url(&directory)).connect().await.expect("a cluster");
        let policy = SnapshotPolicy::on_demand().every(Duration::from_millis(50));
        let ledger = cluster.spawn(Ledger::spec(0).name("till").snapshots(policy)).await.expect("spawned");
        assert_eq!(files(directory.path()).len(), 1, "the claim");
        enter(&ledger, [1]).await;
        eventually(LONG, "a snapshot", async || (files(directory.path()).len() == 2).then_some(())).await;
    });
}

/// A store whose writes wait at a gate.
struct Slow {
    store: MemorySnapshots,
    gate: String,
}

impl SnapshotStore for Slow {
    fn create<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<bool, SnapshotError>> {
        async move {
            // The claim is not held up.
            if !name.ends_with("-0000000000000000.snapshot") {
                gates::pass(&self.gate).await;
            }
            self.store.create(folder, name, bytes).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxFuture<'a, Result<Vec<String>, SnapshotError>> {
        self.store.list(folder)
    }

    fn read<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, SnapshotError>> {
        self.store.read(folder, name)
    }

    fn delete<'a>(&'a self, folder: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), SnapshotError>> {
        self.store.delete(folder, name)
    }
}

#[test]
fn a_slow_store_holds_up_no_actor() {
    run_plain(async {
        let node = start_node("slow");
        let gate = gates::fresh_name();
        node.set_snapshot_store(Arc::new(Slow { store: MemorySnapshots::default(), gate: gate.clone() }));
        let policy = SnapshotPolicy::on_demand().every_messages(1);
        let ledger = node.spawn(Ledger::spec(0).name("till").snapshots(policy)).await.expect("spawned");
        enter(&ledger, 0..100).await;
        within(LONG, "a write", gates::entered(&gate, 1)).await;
        let mut saving = ledger.ask(Save);
        // Whatever is behind it is handled while the store is busy.
        enter(&ledger, 100..200).await;
        assert!((&mut saving).now_or_never().is_none(), "it is not safe yet");
        gates::open(&gate);
        assert_eq!(within(LONG, "the save", saving).await, Ok(Ok(())));
        node.shut_down("the test is over");
    });
}

#[test]
fn an_earlier_holder_of_a_name_overwrites_nothing() {
    run_plain(async {
        // Two nodes that know nothing of each other hold one name, as they would across a partition without a lease.
        let store = Arc::<MemorySnapshots>::default();
        let (one, other) = (start_node("one"), start_node("other"));
        for node in [&one, &other] {
            node.set_snapshot_store(Arc::clone(&store) as _);
        }
        let earlier = one.spawn(spec("till")).await.expect("spawned");
        enter(&earlier, [1]).await;
        assert_eq!(save(&earlier).await, Ok(()));
        let later = other.spawn(spec("till")).await.expect("spawned");
        assert_eq!(entries(&later).await, [1]);
        enter(&earlier, [2]).await;
        assert_eq!(save(&earlier).await, Err(SnapshotError::Fenced { own: 1, later: 2 }));
        enter(&later, [3]).await;
        assert_eq!(save(&later).await, Ok(()));
        for node in [one, other] {
            node.shut_down("the test is over");
        }
        let third = start_node("third");
        third.set_snapshot_store(store as _);
        let ledger = third.spawn(spec("till")).await.expect("spawned");
        assert_eq!(entries(&ledger).await, [1, 3]);
        third.shut_down("the test is over");
    });
}
