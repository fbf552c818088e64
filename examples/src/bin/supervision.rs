//! A tree of supervisors: a worker that panics begins again where it was, and one that panics too often takes its
//! supervisor with it, whose end tells the root cause.
//!
//! Run:    cargo run --release --bin supervision
//! Prints: the tree with both workers; the restart of one; the tree with that restart; the end of the supervisor with
//!         its root cause
use std::time::Duration;

use clap::Parser;
use futures::StreamExt;
use mobula::prelude::*;
use mobula::{ChildSpec, Strategy, Supervisor, SupervisorSpec};
use mobula_examples::cli::{print_json, whole_number};

struct Worker {
    done: u64,
}

#[mobula::actor]
impl Worker {
    fn new() -> Self {
        Worker { done: 0 }
    }

    fn work(&mut self) -> u64 {
        self.done += 1;
        self.done
    }

    fn fail(&mut self, text: String) {
        panic!("{text} after {} pieces of work", self.done)
    }
}

/// Starts a tree of supervised actors on two node processes and lets one of them fail.
#[derive(Parser)]
#[command(name = "supervision", version)]
struct Args {
    /// Restarts that are allowed within a minute.
    #[arg(long, default_value = "2", value_parser = whole_number(0..=100_u32))]
    restarts: u32,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cluster = Cluster::local(2).await?;
    let away = cluster.nodes()[1].id.clone();
    let workers = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(args.restarts, Duration::from_secs(60))
        .child(ChildSpec::new("near", Worker::actor()))
        .child(ChildSpec::new("away", Worker::actor().node_affinity(&away)));
    let supervisor = cluster.spawn(Supervisor::spec(workers)).await?;
    let ended = supervisor.monitor();
    let near = supervisor.child::<Worker>("near").await?.ok_or_else(|| anyhow::anyhow!("no worker"))?;
    let mut restarts = near.watch_restarts();
    near.work().await?;
    let before = cluster.supervision_tree().await?;
    if !args.json {
        print!("{before}");
    }

    // With one failure more than is allowed the supervisor ends.
    let mut restarted = 0;
    while near.fail("out of ink".to_owned()).await.is_err_and(|error| matches!(error, CallError::Panicked { .. })) {
        let Some(news) = restarts.next().await else { break };
        restarted += 1;
        if !args.json && restarted == 1 {
            println!("restarted as generation {}: {}", news.generation, news.reason);
            print!("{}", cluster.supervision_tree().await?);
        }
    }
    let reason = ended.await.reason;
    if args.json {
        let root = reason.root_cause().to_string();
        print_json(&serde_json::json!({
            "supervised": before.actors.len(), "restarts": restarted, "root_cause": root,
        }))?;
    } else {
        println!("{restarted} restarts, then the supervisor ended: {reason}");
    }
    cluster.shutdown().await;
    Ok(())
}
