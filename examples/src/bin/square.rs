//! Tasks: plain functions that run anywhere on the cluster. Squares are submitted at once, each is a future, and their
//! sum is checked; a second task then tells which processes the work was spread over.
//!
//! Run:    cargo run --release --bin square
//! Prints: sum of the squares 1..=1000: 333833500
//!         tasks by process: 4242 ran 500, 4243 ran 500
use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Parser;
use mobula::prelude::*;
use mobula_examples::cli::{NODES_MAX, print_json, progress_bar, whole_number};
use serde::Serialize;

#[mobula::task]
fn square(x: u64) -> u64 {
    x * x
}

#[mobula::task]
fn process_id() -> u32 {
    std::process::id()
}

/// With it the sum of squares is below 2^59.
const COUNT_MAX: u64 = 1_000_000;

/// Squares the numbers from 1 to count as tasks on a local cluster and adds them up.
#[derive(Parser)]
#[command(name = "square", version)]
struct Args {
    /// How many numbers to square: 1 to 1_000_000.
    #[arg(long, default_value = "1000", value_parser = whole_number(1..=COUNT_MAX), allow_hyphen_values = true)]
    count: u64,

    /// Node processes to start on this machine.
    #[arg(long, default_value = "2", value_parser = whole_number(1..=NODES_MAX), allow_hyphen_values = true)]
    nodes: u32,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    count: u64,
    nodes: u32,
    sum: u64,
    tasks_by_pid: BTreeMap<u32, u64>,
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let count = args.count;
    let cluster = Cluster::local(args.nodes as usize).await?;
    let bar = progress_bar(2 * count, "tasks");

    // The plain function stays callable: square(3). Its task, square::task(3), runs elsewhere.
    let mut sum = 0;
    for squared in cluster.submit_all((1..=count).map(square::task)) {
        sum += squared.await?;
        bar.inc(1);
    }
    ensure!(sum == count * (count + 1) * (2 * count + 1) / 6, "the squares add up to {sum}, which is wrong");

    let mut tasks_by_pid = BTreeMap::new();
    for pid in cluster.submit_all((0..count).map(|_| process_id::task())) {
        *tasks_by_pid.entry(pid.await?).or_default() += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    cluster.shutdown().await;

    let report = Report { count, nodes: args.nodes, sum, tasks_by_pid };
    if args.json {
        print_json(&report)?;
    } else {
        println!("sum of the squares 1..={count}: {sum}");
        let shares: Vec<String> = report.tasks_by_pid.iter().map(|(pid, tasks)| format!("{pid} ran {tasks}")).collect();
        println!("tasks by process: {}", shares.join(", "));
    }
    Ok(())
}
