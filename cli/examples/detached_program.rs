//! The program with which the tests of the command have detached actors. Its first argument says what its driver does:
//!
//! - `create NAME NODE`: a detached counter on that node; says where it is, and then waits to be killed.
//! - `create-alone NAME NODE`: the same, with a process of its own.
//! - `create-with NAME CPUS`: the same, with so many cores, anywhere.
//! - `add NAME BY`: finds it, and adds to it.
//! - `everywhere NAME`: hands a reference to it to an actor on each node, which adds one.
//! - `watch NAME`: finds it, and waits for its end.
//! - `stop NAME`: ends it, and waits until its name is free.
//! - `unnamed`: tries to detach an actor without a name.
//! - `attached NAME`: an actor that is not detached; says so, and then waits to be killed.

use std::process::ExitCode;
use std::time::Duration;

use mobula::prelude::*;

struct Hits {
    count: u64,
}

#[mobula::actor]
impl Hits {
    fn new(count: u64) -> Self {
        Hits { count }
    }

    fn add(&mut self, by: u64) -> u64 {
        self.count += by;
        self.count
    }

    fn process(&self) -> u32 {
        std::process::id()
    }
}

/// One that was handed a reference.
#[derive(Clone)]
struct Bearer {
    hits: ActorRef<Hits>,
}

#[mobula::actor]
impl Bearer {
    fn new(hits: ActorRef<Hits>) -> Self {
        Bearer { hits }
    }

    async fn pass(&self, by: u64) -> Result<u64, String> {
        self.hits.add(by).await.map_err(|error| error.to_string())
    }
}

#[mobula::main]
async fn main() -> mobula::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::connect().await?;
    match words[..] {
        [how @ ("create" | "create-alone"), name, node] => {
            let spec = Hits::actor(0).name(name).on_node(node).detached();
            let spec = if how == "create" { spec } else { spec.isolated() };
            let hits = cluster.spawn(spec).await?;
            println!("created on {}, process {}", hits.node().name, hits.process().await?);
            std::future::pending::<()>().await;
        }
        ["create-with", name, cpus] => {
            let cpus: u64 = cpus.parse()?;
            let spec = Hits::actor(0).name(name).cpus(cpus).place_within(Duration::ZERO);
            let hits = cluster.spawn(spec.detached()).await?;
            println!("created on {}", hits.node().name);
        }
        ["add", name, by] => println!("hits: {}", find(&cluster, name).await?.add(by.parse()?).await?),
        ["everywhere", name] => {
            let hits = find(&cluster, name).await?;
            for node in cluster.nodes() {
                let bearer = cluster.spawn(Bearer::actor(hits.clone()).node_affinity(&node.id)).await?;
                match bearer.pass(1).await {
                    Ok(hits) => println!("{}: {hits}", node.id.name),
                    Err(error) => println!("{}: {error:?}", node.id.name),
                }
            }
        }
        ["watch", name] => {
            let hits = find(&cluster, name).await?;
            let end = hits.monitor();
            println!("watching process {}", hits.process().await?);
            println!("ended: {}", end.await.reason);
        }
        ["stop", name] => {
            find(&cluster, name).await?.stop().await?;
            while cluster.find::<Hits>(name).await?.is_some() {
                tokio::task::yield_now().await;
            }
            println!("stopped");
        }
        ["unnamed"] => drop(cluster.spawn(Hits::actor(0).detached()).await?),
        ["attached", name] => {
            cluster.spawn(Hits::actor(0).name(name)).await?;
            println!("attached");
            std::future::pending::<()>().await;
        }
        _ => return Err(format!("{words:?} is nothing that this program does").into()),
    }
    cluster.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn find(cluster: &Cluster, name: &str) -> mobula::Result<ActorRef<Hits>> {
    Ok(cluster.find(name).await?.ok_or_else(|| format!("nobody is called {name}"))?)
}
