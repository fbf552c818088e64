//! The actor under test, written the plain actix way; its references in `local` are the very same actor.
use std::thread;

use actix::{Actor, Context, Handler};
use anyhow::{Context as _, Result, ensure};
use mobula::{ActorRef, Cluster, RemoteActor, RemoteMessage};
use serde::{Deserialize, Serialize};

/// Counts what it is told to add.
pub(crate) struct Counter {
    count: i64,
}

impl Counter {
    pub(crate) fn new(start: i64) -> Self {
        Counter { count: start }
    }
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// Adds `by` and answers the new count.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "i64")]
pub(crate) struct Add {
    pub(crate) by: i64,
}

impl Handler<Add> for Counter {
    type Result = i64;

    fn handle(&mut self, message: Add, _: &mut Context<Self>) -> i64 {
        self.count += message.by;
        self.count
    }
}

/// Takes bytes and counts them.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "i64")]
pub(crate) struct Absorb(#[serde(with = "serde_bytes")] pub(crate) Vec<u8>);

impl Handler<Absorb> for Counter {
    type Result = i64;

    fn handle(&mut self, Absorb(bytes): Absorb, _: &mut Context<Self>) -> i64 {
        self.count += bytes.len() as i64;
        self.count
    }
}

/// Answers the name of the thread that the actor lives on, as this process knows it.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "String")]
pub(crate) struct WhichThread;

impl Handler<WhichThread> for Counter {
    type Result = String;

    fn handle(&mut self, _: WhichThread, _: &mut Context<Self>) -> String {
        this_thread()
    }
}

pub(crate) fn this_thread() -> String {
    format!("{:?}", thread::current().id())
}

mobula::remote_actor!(Counter, args: i64, create: |start| Counter::new(start), messages: [Add, Absorb, WhichThread]);

/// A counter on a node that is not this process.
pub(crate) async fn in_another_process(cluster: &Cluster) -> Result<ActorRef<Counter>> {
    let node = cluster
        .nodes()
        .into_iter()
        .find(|node| node.pid != std::process::id())
        .context("the cluster has no node in another process")?;
    let counter = cluster.spawn(Counter::spec(0).node_affinity(&node.id)).await?;
    ensure!(!counter.is_local(), "the counter did not land in another process");
    Ok(counter)
}
