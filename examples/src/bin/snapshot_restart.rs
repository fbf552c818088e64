//! The state of an actor outlives a panic, and the process that it lived in.
//!
//! Run:    cargo run --release --bin snapshot_restart
//! Prints: three deposits are saved: the balance is 30
//!         after a panic it is 30, not 0
//!         node-1 was killed; on node-2 the balance is 30
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use anyhow::{Context as _, ensure};
use clap::Parser;
use mobula::prelude::*;
use mobula::{ActorSpec, Snapshot, SnapshotError, SnapshotPolicy, save_snapshot};
use mobula_examples::cli::print_json;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

struct Account {
    balance: i64,
}

impl Actor for Account {
    type Context = Context<Self>;
}

impl Snapshot for Account {
    type State = i64;

    fn snapshot(&self) -> i64 {
        self.balance
    }

    fn restore(&mut self, balance: i64) {
        self.balance = balance;
    }
}

mobula::remote_actor!(Account, args: (), create: |()| Account { balance: 0 }, messages: [Deposit, Balance, Collapse]);
mobula::register_snapshot!(Account);

/// Answered when the new balance is on disk.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<(), SnapshotError>")]
struct Deposit(i64);

impl Handler<Deposit> for Account {
    type Result = ResponseFuture<Result<(), SnapshotError>>;

    fn handle(&mut self, Deposit(amount): Deposit, _: &mut Context<Self>) -> Self::Result {
        self.balance += amount;
        Box::pin(save_snapshot())
    }
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "i64")]
struct Balance;

impl Handler<Balance> for Account {
    type Result = i64;

    fn handle(&mut self, _: Balance, _: &mut Context<Self>) -> i64 {
        self.balance
    }
}

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "()")]
struct Collapse;

impl Handler<Collapse> for Account {
    type Result = ();

    fn handle(&mut self, _: Collapse, _: &mut Context<Self>) {
        panic!("asked to")
    }
}

/// Deposits, makes the account panic, kills its node, and goes on elsewhere with the same balance.
#[derive(Parser)]
#[command(name = "snapshot_restart", version)]
struct Args {
    /// How much is deposited, three times.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    deposit: i64,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn account() -> ActorSpec<Account> {
    Account::spec(()).name("account").snapshots(SnapshotPolicy::on_demand())
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let directory = std::env::temp_dir().join(format!("mobula-snapshot-restart-{}", std::process::id()));
    let url = format!("file://{}", directory.display());
    // The name of a lost node's actor is given again when its lease is over.
    let builder = Cluster::builder().nodes(2).snapshots(url).lease(Duration::from_secs(1));
    let cluster = builder.connect().await?;
    let [first, second] = &cluster.nodes()[..] else { anyhow::bail!("not two nodes") };

    let till = cluster.spawn(account().node_affinity(&first.id)).await?;
    for _ in 0..3 {
        till.ask(Deposit(args.deposit)).flatten().await?;
    }
    let saved = till.ask(Balance).await?;
    ensure!(till.ask(Collapse).await.is_err(), "it did not panic");
    let restarted = till.ask(Balance).await?;

    let pid = Pid::from_raw(i32::try_from(first.pid)?).context("a process id")?;
    kill_process(pid, Signal::KILL)?;
    let again = async {
        loop {
            match cluster.spawn(account().node_affinity(&second.id)).await {
                Ok(again) => return again,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(20), again).await.context("the name stayed taken for 20 s")?;
    let moved = again.ask(Balance).await?;
    cluster.shutdown().await;
    std::fs::remove_dir_all(&directory)?;

    ensure!([restarted, moved] == [saved; 2], "balances {saved}, {restarted} and {moved}");
    if args.json {
        print_json(&serde_json::json!({ "saved": saved, "restarted": restarted, "moved": moved }))?;
    } else {
        println!("three deposits are saved: the balance is {saved}");
        println!("after a panic it is {restarted}, not 0");
        println!("{} was killed; on {} the balance is {moved}", first.id.name, second.id.name);
    }
    Ok(())
}
