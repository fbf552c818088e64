//! Stateful actors on several nodes, and what their callers see when things go wrong: counters are incremented from
//! many tasks at once; then one counter panics, and then the process of one node is killed.
//!
//! Run:    cargo run --release --bin counter
//! Prints: counter 0 on node-1 (process 4242): 25000
//!         counter 1 on node-2 (process 4243): 25000
//!         counter 2 on node-3 (process 4244): 25000
//!         counter 3 on node-1 (process 4242): 25000
//!         100000 increments by 4 tasks in 0.21 s, every total is right
//!         counter 0 panicked: .. ; its count went from 25000 back to 0
//!         node-1 was killed; the caller of counter 3 had its error after 1.3 ms: ..
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use mobula::prelude::*;
use mobula_examples::cli::{NODES_MAX, print_json, progress_bar, whole_number};
use serde::Serialize;

/// Where every counter begins, and begins again after a panic.
const START: i64 = 0;
/// Asks that one task has in flight.
const IN_FLIGHT: usize = 64;

struct Counter {
    count: i64,
}

#[mobula::actor]
impl Counter {
    fn new(start: i64) -> Self {
        Counter { count: start }
    }

    fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    fn get(&self) -> i64 {
        self.count
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn crash(&mut self) {
        panic!("asked to panic at {}", self.count)
    }
}

/// Increments counters across node processes, then shows a panic and the death of a node.
#[derive(Parser)]
#[command(name = "counter", version)]
struct Args {
    /// Node processes to start on this machine.
    #[arg(long, default_value = "3", value_parser = whole_number(1..=NODES_MAX), allow_hyphen_values = true)]
    nodes: u32,

    /// Counters, dealt to the nodes in turn.
    #[arg(long, default_value = "4", value_parser = whole_number(1..=10_000_usize), allow_hyphen_values = true)]
    counters: usize,

    /// Increments in all, dealt to the counters in turn.
    #[arg(long, default_value = "100000", value_parser = whole_number(0..=1_000_000_000_u64), allow_hyphen_values = true)]
    increments: u64,

    /// Tokio tasks that share the increments; each has up to 64 in flight.
    #[arg(long, default_value = "4", value_parser = whole_number(1..=1000_u64), allow_hyphen_values = true)]
    tasks: u64,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    nodes: u32,
    counters: Vec<Total>,
    increments: u64,
    tasks: u64,
    seconds: f64,
    panicked: Panicked,
    killed: Killed,
}

#[derive(Serialize)]
struct Total {
    node: String,
    pid: u32,
    count: i64,
}

#[derive(Serialize)]
struct Panicked {
    counter: usize,
    error: String,
    count_before: i64,
    count_after: i64,
}

#[derive(Serialize)]
struct Killed {
    node: String,
    pid: u32,
    counter: usize,
    error: String,
    milliseconds: f64,
    counters_left: usize,
}

#[mobula::main]
#[expect(clippy::disallowed_methods, reason = "a program that reports how long it took reads the clock")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cluster = Cluster::local(args.nodes as usize).await?;
    let nodes = cluster.nodes();
    let mut counters = Vec::new();
    for node in nodes.iter().cycle().take(args.counters) {
        counters.push(cluster.spawn(Counter::actor(START).node_affinity(&node.id)).await?);
    }

    let begun = Instant::now();
    increment_all(&counters, args.increments, args.tasks).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report {
        nodes: args.nodes,
        counters: check_totals(&counters, args.increments).await?,
        increments: args.increments,
        tasks: args.tasks,
        seconds,
        panicked: panic_one(&counters[0]).await?,
        killed: kill_a_node(&counters).await?,
    };
    cluster.shutdown().await;
    if args.json {
        print_json(&report)?
    } else {
        print_text(&report)
    }
    Ok(())
}

async fn increment_all(counters: &[ActorRef<Counter>], increments: u64, tasks: u64) -> anyhow::Result<()> {
    let bar = progress_bar(increments, "increments");
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let share = (task..increments).step_by(tasks as usize);
            tokio::spawn(increment_share(counters.to_vec(), share, bar.clone()))
        })
        .collect();
    for task in running {
        task.await??;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn increment_share(
    counters: Vec<ActorRef<Counter>>,
    share: impl Iterator<Item = u64>,
    bar: ProgressBar,
) -> anyhow::Result<()> {
    // An ask is sent when `increment` is called; the stream calls it for 64 and then for each that is answered.
    stream::iter(share)
        .map(|turn| counters[turn as usize % counters.len()].increment(1))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| {
            bar.inc(1);
            async { Ok(()) }
        })
        .await?;
    Ok(())
}

async fn check_totals(counters: &[ActorRef<Counter>], increments: u64) -> anyhow::Result<Vec<Total>> {
    let mut totals = Vec::new();
    for (at, counter) in counters.iter().enumerate() {
        let (count, pid) = (counter.get().await?, counter.pid().await?);
        let expected = START + (at as u64..increments).step_by(counters.len()).count() as i64;
        ensure!(count == expected, "counter {at} stands at {count} instead of {expected}");
        totals.push(Total { node: counter.node().name.to_string(), pid, count });
    }
    Ok(totals)
}

/// The panic answers the call that caused it; the counter is rebuilt by its constructor and keeps its address.
async fn panic_one(counter: &ActorRef<Counter>) -> anyhow::Result<Panicked> {
    let count_before = counter.get().await?;
    let Err(error @ CallError::Panicked { .. }) = counter.crash().await else {
        bail!("the counter did not report its panic");
    };
    let count_after = counter.get().await?;
    ensure!(count_after == START, "after its restart the counter stands at {count_after} instead of {START}");
    Ok(Panicked { counter: 0, error: error.to_string(), count_before, count_after })
}

/// Kills the node of the last counter while that counter is being incremented.
#[expect(clippy::disallowed_methods, reason = "a program that reports how long it took reads the clock")]
async fn kill_a_node(counters: &[ActorRef<Counter>]) -> anyhow::Result<Killed> {
    let counter = counters.len() - 1;
    let victim = counters[counter].clone();
    let node = victim.node().clone();
    let pid = victim.pid().await?;

    let (incremented, mut increments) = tokio::sync::mpsc::unbounded_channel();
    let caller = tokio::spawn(async move {
        loop {
            match victim.increment(1).await {
                Ok(count) => drop(incremented.send(count)),
                Err(error) => return (error, Instant::now()),
            }
        }
    });
    increments.recv().await.context("the counter was not incremented once")?;
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a node has no pid")?;
    let killed_at = Instant::now();
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    let (error, failed_at) = tokio::time::timeout(Duration::from_secs(5), caller).await.context("no error came")??;

    let mut counters_left = 0;
    for counter in counters.iter().filter(|counter| *counter.node() != node) {
        counter.increment(1).await?;
        counters_left += 1;
    }
    let milliseconds = failed_at.saturating_duration_since(killed_at).as_secs_f64() * 1000.0;
    Ok(Killed { node: node.name.to_string(), pid, counter, error: error.to_string(), milliseconds, counters_left })
}

fn print_text(report: &Report) {
    for (at, Total { node, pid, count }) in report.counters.iter().enumerate() {
        println!("counter {at} on {node} (process {pid}): {count}");
    }
    let Report { increments, tasks, seconds, panicked, killed, .. } = report;
    println!("{increments} increments by {tasks} tasks in {seconds:.2} s, every total is right");
    let Panicked { counter, error, count_before, count_after } = panicked;
    println!("counter {counter} panicked: {error}; its count went from {count_before} back to {count_after}");
    let Killed { node, pid, counter, error, milliseconds, counters_left } = killed;
    println!(
        "{node} (process {pid}) was killed; the caller of counter {counter} had its error in {milliseconds:.1} ms: {error}"
    );
    println!("the {counters_left} counters on other nodes went on");
}
