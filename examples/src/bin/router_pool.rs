//! A pool of workers on two nodes, used like one reference; a worker ends, and the pool replaces it.
//!
//! Run:    cargo run --release --bin router_pool
//! Prints: 40 jobs by 4 workers on 2 nodes: the sum is 22140
//!         a worker was killed; its successor is there, and 40 more jobs give 22140
//!         resized to 6 workers
use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use mobula::prelude::*;
use mobula_examples::cli::print_json;

struct Worker;

#[mobula::actor]
impl Worker {
    fn new() -> Self {
        Worker
    }

    fn square(&mut self, x: u64) -> u64 {
        x * x
    }
}

/// Starts a pool of workers whose members take the next job when they are free, kills one, and resizes the pool.
#[derive(Parser)]
#[command(name = "router_pool", version)]
struct Args {
    /// Workers, 1 to 64.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: u64,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

const JOBS: u64 = 40;

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let size = usize::try_from(args.workers)?;
    let cluster = Cluster::local(2).await?;
    let pool = cluster.pool(Worker::actor()).size(size).spread().work_pulling().start().await?;
    let nodes = pool.members().iter().map(|worker| worker.node().clone()).collect::<HashSet<_>>().len();
    let first = squares(&pool).await?;

    let victim = pool.pick().context("all workers are busy")?;
    victim.kill().await?;
    let replaced = async {
        loop {
            let members = pool.members();
            if members.len() == size && !members.contains(&victim) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), replaced).await.context("no successor within 20 s")?;
    let second = squares(&pool).await?;

    pool.resize(size + 2).await?;
    let resized = pool.members().len();
    ensure!(first == second && resized == size + 2, "sums {first} and {second}, {resized} workers");
    if args.json {
        print_json(&serde_json::json!({ "sum": first, "workers": size, "nodes": nodes, "resized": resized }))?;
    } else {
        println!("{JOBS} jobs by {size} workers on {nodes} nodes: the sum is {first}");
        println!("a worker was killed; its successor is there, and {JOBS} more jobs give {second}");
        println!("resized to {resized} workers");
    }
    pool.stop().await;
    cluster.shutdown().await;
    Ok(())
}

/// The sum of the squares up to the number of jobs, one job each.
async fn squares(pool: &Pool<Worker>) -> anyhow::Result<u64> {
    let answers = (1..=JOBS).map(|x| pool.ask(WorkerSquare { x }));
    Ok(try_join_all(answers).await?.into_iter().sum())
}
