//! The program with which the tests of the command ask for resources. Its first argument says what its driver does:
//!
//! - `spread N`: a placement group of N cores, each on a node of its own, with an actor in each; tells where they are, and waits for its standard
//!   input or the end.
//! - `take AMOUNT MS FILE`: an actor that takes so much disk, for which it waits so long; tells where it is, and begins again when that has
//!   ended, until FILE is there.
//! - `free`: what the cluster has, and what of it is free.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mobula::prelude::*;
use mobula::{Amount, GroupStrategy, Resources};

struct Tenant;

#[mobula::actor]
impl Tenant {
    fn new() -> Self {
        Tenant
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

const PAUSE: Duration = Duration::from_millis(20);

#[mobula::main]
async fn main() -> mobula::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::connect().await?;
    match words[..] {
        ["spread", count, file] => spread(&cluster, count.parse()?, Path::new(file)).await?,
        ["take", amount, ms, file] => {
            take(&cluster, amount.parse()?, Duration::from_millis(ms.parse()?), Path::new(file)).await?;
        }
        ["free"] => {
            println!("all: {}", cluster.resources().await?);
            println!("free: {}", cluster.available_resources().await?);
            for node in cluster.node_resources().await? {
                println!("{}: {} of {}", node.name, node.available, node.total);
            }
        }
        _ => return Err(format!("{words:?} is nothing that this program does").into()),
    }
    cluster.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn spread(cluster: &Cluster, count: usize, end: &Path) -> mobula::Result<()> {
    let bundles = vec![Resources::cpus(Amount::ONE); count];
    let group = match cluster.placement_group(GroupStrategy::StrictSpread, bundles).await {
        Ok(group) => group,
        Err(error) => {
            println!("refused: {error}");
            return Ok(());
        }
    };
    group.ready(Duration::from_secs(60)).await?;
    let mut names = Vec::new();
    let mut tenants = Vec::new();
    for at in 0..count {
        let tenant = cluster.spawn(Tenant::actor().cpus(1).in_bundle(&group, u32::try_from(at)?)).await?;
        names.push(tenant.node().name.to_string());
        tenants.push(tenant);
    }
    names.sort();
    println!("spread: {}", names.join(" "));
    while !end.exists() {
        tokio::time::sleep(PAUSE).await;
    }
    group.remove().await?;
    for tenant in tenants {
        tenant.monitor().await;
    }
    println!("removed");
    Ok(())
}

async fn take(cluster: &Cluster, amount: f64, within: Duration, end: &Path) -> mobula::Result<()> {
    while !end.exists() {
        let spawned = cluster.spawn(Tenant::actor().resource("disk", amount).place_within(within)).await;
        let tenant = match spawned {
            Ok(tenant) => tenant,
            Err(error) => {
                println!("refused: {error}");
                return Ok(());
            }
        };
        println!("has {amount} on {} in {}", tenant.node().name, tenant.pid().await?);
        let monitor = tenant.monitor();
        tokio::pin!(monitor);
        while !end.exists() {
            if let Ok(down) = tokio::time::timeout(PAUSE, &mut monitor).await {
                println!("lost: {:?}", down.reason);
                break;
            }
        }
    }
    println!("done");
    Ok(())
}
