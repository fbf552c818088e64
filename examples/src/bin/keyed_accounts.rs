//! Accounts that are there when somebody asks for them: one of each number in the whole cluster, and none is ever created.
//! Their balances outlive idleness, and the process that they lived in.
//!
//! Run:    cargo run --release --bin keyed_accounts
//! Prints: 12 accounts on 3 nodes took 120 deposits: each balance is 55
//!         node-1 has 5, node-2 has 4, node-3 has 3
//!         all of them were idle, and ended; each balance is 55
//!         node-1 was killed; its 5 accounts are elsewhere; each balance is 55
use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::future::try_join_all;
use mobula::prelude::*;
use mobula::{Outcome, Snapshot, SnapshotError, SnapshotPolicy, current_node, save_snapshot};
use mobula_examples::cli::{print_json, whole_number};
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

mobula::remote_actor!(Account, args: (), create: |()| Account { balance: 0 }, messages: [Deposit, Balance]);
mobula::register_snapshot!(Account);
// What the account of a number is made from is the same for all; what tells them apart is saved.
mobula::keyed_actor!(
    Account,
    |_number| (),
    idle: Duration::from_millis(300),
    snapshots: SnapshotPolicy::on_demand(),
);

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

/// The balance, and the node on which it was read.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "(i64, String)")]
struct Balance;

impl Handler<Balance> for Account {
    type Result = actix::MessageResult<Balance>;

    fn handle(&mut self, _: Balance, _: &mut Context<Self>) -> Self::Result {
        let node = current_node().map_or_else(String::new, |node| node.id().name.to_string());
        actix::MessageResult((self.balance, node))
    }
}

/// Deposits 1 to 10 into each account, lets all of them go idle, kills a node, and looks at the balances each time.
#[derive(Parser)]
#[command(name = "keyed_accounts", version)]
struct Args {
    /// How many accounts, from 1 to 1000.
    #[arg(long, default_value = "12", value_parser = whole_number::<u32>(1..=1000))]
    accounts: u32,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

const DEPOSITS: i64 = 10;

/// Something that takes a while on a slow machine is given up after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The balance of each account, which has to be the same for all, and how many accounts each node has.
async fn look(cluster: &Cluster, accounts: u32) -> anyhow::Result<(i64, BTreeMap<String, u32>)> {
    let asked = (0..accounts).map(|number| async move {
        let account = cluster.keyed::<Account>(&format!("account-{number}"));
        loop {
            match account.ask(Balance).await {
                // Its node has just been lost: reading twice does no harm.
                Err(error) if error.outcome() != Outcome::Done => tokio::time::sleep(Duration::from_millis(20)).await,
                answered => return answered,
            }
        }
    });
    let answers = tokio::time::timeout(PATIENCE, try_join_all(asked)).await.context("an account stayed away")??;
    let mut homes = BTreeMap::new();
    for (_, node) in &answers {
        *homes.entry(node.clone()).or_default() += 1;
    }
    let balance = answers[0].0;
    ensure!(answers.iter().all(|(other, _)| *other == balance), "the balances differ: {answers:?}");
    Ok((balance, homes))
}

/// Waits until no account is left.
async fn all_idle(cluster: &Cluster) -> anyhow::Result<()> {
    let idle = async {
        for node in cluster.nodes() {
            while cluster.report(&node.id).await?.actors > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, idle).await.context("an account stayed")?
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let directory = std::env::temp_dir().join(format!("mobula-keyed-accounts-{}", std::process::id()));
    let url = format!("file://{}", directory.display());
    // The keys of a lost node move when its lease is over.
    let cluster = Cluster::builder().nodes(3).snapshots(url).lease(Duration::from_secs(1)).connect().await?;

    let deposits = (0..args.accounts).flat_map(|number| {
        let account = cluster.keyed::<Account>(&format!("account-{number}"));
        (1..=DEPOSITS).map(move |amount| account.ask(Deposit(amount)).flatten())
    });
    try_join_all(deposits).await?;
    let (deposited, homes) = look(&cluster, args.accounts).await?;
    ensure!(deposited == DEPOSITS * (DEPOSITS + 1) / 2, "the balance is {deposited}");

    all_idle(&cluster).await?;
    let (restored, _) = look(&cluster, args.accounts).await?;

    // Not the driver: that is no node where accounts live.
    let nodes = cluster.nodes();
    let victim = nodes.iter().max_by_key(|node| homes.get(&*node.id.name).copied()).context("no node")?;
    let pid = Pid::from_raw(i32::try_from(victim.pid)?).context("a process id")?;
    kill_process(pid, Signal::KILL)?;
    let (moved, others) = look(&cluster, args.accounts).await?;
    cluster.shutdown().await;
    std::fs::remove_dir_all(&directory)?;

    ensure!([restored, moved] == [deposited; 2], "balances {deposited}, {restored} and {moved}");
    ensure!(!others.contains_key(&*victim.id.name), "a killed node answers");
    let lost = homes.get(&*victim.id.name).copied().unwrap_or_default();
    if args.json {
        let accounts = args.accounts;
        let report = serde_json::json!({
            "accounts": accounts, "deposited": deposited, "restored": restored, "moved": moved, "lost": lost,
        });
        print_json(&report)?;
    } else {
        let deposits = i64::from(args.accounts) * DEPOSITS;
        println!("{} accounts on 3 nodes took {deposits} deposits: each balance is {deposited}", args.accounts);
        let shares: Vec<_> = homes.iter().map(|(node, share)| format!("{node} has {share}")).collect();
        println!("{}", shares.join(", "));
        println!("all of them were idle, and ended; each balance is {restored}");
        println!("{} was killed; its {lost} accounts are elsewhere; each balance is {moved}", victim.id.name);
    }
    Ok(())
}
