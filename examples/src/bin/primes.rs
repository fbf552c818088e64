//! Map-reduce over worker actors: the sum of the primes up to n, with chunks pulled by the workers.
//!
//! Run:    cargo run --release --bin primes
//! Prints: sum of the primes up to 100000000: 279209790387276
//!         count: 5761455
//!         seconds: 0.031
//!         chunks per worker: node-1 (process 4242) 22, node-2 (process 4243) 21, node-3 (process 4244) 21
use std::ops::Range;
use std::time::Instant;

use clap::Parser;
use mobula::prelude::*;
use mobula_examples::cli::{print_json, progress_bar};
use mobula_examples::primes::args::PrimesArgs;
use mobula_examples::primes::kernel::{Kernel, Part};
use mobula_examples::primes::plan;
use mobula_examples::primes::pull::pull;
use serde::Serialize;

struct Worker;

#[mobula::actor]
impl Worker {
    fn new() -> Self {
        Worker
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn compute(&self, kernel: Kernel, chunk: Range<u64>) -> Part {
        kernel.run(chunk)
    }
}

#[derive(Serialize)]
struct Report {
    n: u64,
    sum: u128,
    count: u64,
    nodes: usize,
    workers: usize,
    chunks: usize,
    seconds: f64,
    per_worker: Vec<WorkerShare>,
}

#[derive(Serialize)]
struct WorkerShare {
    node: String,
    pid: u32,
    chunks: u64,
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = PrimesArgs::parse().check().unwrap_or_else(|refusal| refusal.exit());
    let running = if args.may_join() { Cluster::running().await? } else { None };
    let cluster = match running {
        Some(running) => running,
        None => start_local(&args).await?,
    };
    let report = sum_of_primes(&cluster, &args).await?;
    cluster.shutdown().await;
    if args.json {
        print_json(&report)?
    } else {
        print_text(&report)
    }
    Ok(())
}

async fn start_local(args: &PrimesArgs) -> anyhow::Result<Cluster> {
    let mut builder = Cluster::builder().nodes(args.nodes_to_start() as usize).cpus_per_node(args.workers_per_node);
    if let Some(port) = args.port {
        builder = builder.base_port(port);
    }
    match (builder.connect().await, args.port) {
        (Err(error), Some(port)) if error.is_port_in_use() => {
            Err(anyhow::Error::new(error).context(format!("invalid value '{port}' for '--port <PORT>'")))
        }
        (connected, _) => Ok(connected?),
    }
}

#[expect(clippy::disallowed_methods, reason = "a program that reports how long it took reads the clock")]
async fn sum_of_primes(cluster: &Cluster, args: &PrimesArgs) -> anyhow::Result<Report> {
    let nodes = cluster.nodes();
    let mut workers = Vec::new();
    let mut per_worker = Vec::new();
    for node in &nodes {
        for _ in 0..args.workers_per_node {
            let worker = cluster.spawn(Worker::actor().own_thread().node_affinity(&node.id)).await?;
            per_worker.push(WorkerShare { node: node.id.name.to_string(), pid: worker.pid().await?, chunks: 0 });
            // A chunk may be long, and waits for the one before it; the default would give it up after 30 s.
            workers.push(worker.without_deadline());
        }
    }

    let begun = Instant::now();
    let chunks = plan::cut(args.n, args.chunks, args.kernel);
    let bar = progress_bar(chunks.len() as u64, "chunks");
    let mut total = Part::default();
    let pulled = pull(
        chunks.len(),
        workers.len(),
        |worker, chunk| workers[worker.0].compute(args.kernel, chunks[chunk.0].clone()),
        |_, part| {
            total += part;
            bar.inc(1);
        },
    )
    .await;
    bar.finish_and_clear();
    let pulled = pulled?;
    let seconds = begun.elapsed().as_secs_f64();

    for (worker, error) in pulled.lost {
        let WorkerShare { node, pid, .. } = &per_worker[worker.0];
        eprintln!("the worker on {node} (process {pid}) was lost, its chunks ran elsewhere: {error}");
    }
    for (share, chunks) in per_worker.iter_mut().zip(pulled.done_by_worker) {
        share.chunks = chunks;
    }
    Ok(Report {
        n: args.n,
        sum: total.sum,
        count: total.count,
        nodes: nodes.len(),
        workers: workers.len(),
        chunks: chunks.len(),
        seconds,
        per_worker,
    })
}

fn print_text(report: &Report) {
    println!("sum of the primes up to {}: {}", report.n, report.sum);
    println!("count: {}", report.count);
    println!("seconds: {:.3}", report.seconds);
    let shares: Vec<String> = report
        .per_worker
        .iter()
        .map(|worker| format!("{} (process {}) {}", worker.node, worker.pid, worker.chunks))
        .collect();
    println!("chunks per worker: {}", shares.join(", "));
}
