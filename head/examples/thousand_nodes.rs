//! The head of 1,000 nodes in one process: how fast they join, what they cost, and how long it takes to place 10,000 actors.
//! Run:    cargo run --release -p mobula-head --example thousand_nodes
//! Prints: 1000 nodes joined at .. a second, .. bytes each; 10000 actors placed in .. ms

use std::alloc::System;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mobula_core::NodeUid;
use mobula_core::cluster::{
    Amount, Beat, Executable, ExecutableHash, JobKind, LeaseId, NewJob, Place, PlaceStrategy, Placing, Registration,
    Resources, Running, RunningWorker, UnixTime, WorkerPolicy,
};
use mobula_head::store::{Clock, MetadataStore, RedbStore, Transaction};
use mobula_head::{Effect, Head, HeadConfig, Moment};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NODES: u64 = 1_000;
const ACTORS: u64 = 10_000;
/// Requests whose writes share one transaction, as they do when they come together.
const BATCH: u64 = 100;

#[expect(clippy::disallowed_methods, reason = "what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn registration(number: u64) -> Registration {
    Registration {
        uid: NodeUid(number),
        name: format!("node-{number}").into(),
        address: format!("10.0.{}.{}:6379", number / 256, number % 256),
        resources: Resources::cpus(Amount::units(16)).with_memory(Amount::units(64 << 30)),
        labels: Default::default(),
        cores: 16,
        version: "0.1.0".to_owned(),
        architecture: "x86_64-linux-gnu".to_owned(),
        running: Running::default(),
        replaces: None,
        number: 0,
    }
}

/// Writes what has to be written. Gives the bytes.
async fn settle(head: &mut Head, store: Option<&RedbStore>) -> anyhow::Result<()> {
    for effect in head.take_effects()? {
        if let (Effect::Persist(writes), Some(store)) = (effect, store) {
            store.commit(Transaction::of_head(head.term(), writes)).await?;
        }
    }
    Ok(())
}

async fn measure(name: &str, store: Option<&RedbStore>) -> anyhow::Result<()> {
    let mut chance = 0;
    let mut moment = || {
        chance += 1;
        Moment { now: Duration::from_millis(chance / 100), unix: UnixTime(0), chance }
    };
    let term = match store {
        Some(store) => store.lead().await?,
        None => 1,
    };
    let region = Region::new(ALLOCATOR);
    let mut head = Head::new(HeadConfig::default(), term);
    let begun = now();
    for number in 1..=NODES {
        head.register_node(registration(number), moment())?;
        if number.is_multiple_of(BATCH) {
            settle(&mut head, store).await?;
        }
    }
    for number in 1..=NODES {
        head.beat(NodeUid(number), &Beat::default(), moment())?;
    }
    settle(&mut head, store).await?;
    let joined = begun.elapsed();
    let change = region.change();
    let per_node = (change.bytes_allocated - change.bytes_deallocated) as u64 / NODES;

    let job = head.create_job(
        NewJob {
            request: 1,
            kind: JobKind::Outside { driver: NodeUid(1 << 40) },
            entrypoint: "actors".to_owned(),
            executable: Executable { hash: ExecutableHash([1; 32]), bytes: 1 },
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            submitter: "bench".to_owned(),
            workers: WorkerPolicy::EveryNode,
            platform: None,
        },
        moment(),
    )?;
    settle(&mut head, store).await?;
    let begun = now();
    for number in 0..ACTORS {
        let place = Place {
            lease: LeaseId { job: job.id, number },
            resources: Resources::cpus(Amount::ONE),
            strategy: PlaceStrategy::Default,
            near: None,
            wait: Duration::ZERO,
            for_new_nodes: false,
            isolated: false,
        };
        let placing = head.place(place, moment())?;
        anyhow::ensure!(matches!(placing, Placing::Placed(_)), "{placing:?}");
        if (number + 1).is_multiple_of(BATCH) {
            settle(&mut head, store).await?;
        }
    }
    let placed = begun.elapsed();

    let begun = now();
    for number in 1..=NODES {
        let uid = NodeUid(number);
        let Some(assignment) = head.assignment(uid) else { anyhow::bail!("node {number} is not there") };
        let workers = assignment.workers.iter().map(|worker| RunningWorker { uid: worker.uid, ready: true, pid: 1 });
        let running = Running { seen: assignment.revision, workers: workers.collect(), drivers: Vec::new() };
        head.beat(uid, &Beat { running, ..Beat::default() }, moment())?;
    }
    settle(&mut head, store).await?;
    let beats = begun.elapsed();
    println!(
        "{name}: {NODES} nodes joined at {:.0} a second, {per_node} bytes each; {ACTORS} actors placed in {:.0} ms; \
         {:.1} us a heartbeat",
        NODES as f64 / joined.as_secs_f64(),
        placed.as_secs_f64() * 1e3,
        beats.as_secs_f64() * 1e6 / NODES as f64,
    );
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    measure("decisions and encoded records", None).await?;
    let folder = tempfile::tempdir()?;
    let store = RedbStore::open(&folder.path().join("head"), Clock::new(|| Duration::ZERO))?;
    measure(&format!("with a file, {BATCH} requests a transaction"), Some(&store)).await
}
