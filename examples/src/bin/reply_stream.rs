//! An answer of many items: an endless stream of primes from an actor in another process. The reader takes as many as
//! it likes; while it does not read, nothing more is computed, and when it drops the stream, its producer ends.
//!
//! Run:    cargo run --release --bin reply_stream
//! Prints: 10 primes from 1000000000 on node-1: 1000000007 1000000009 1000000021 .. 1000000181
//!         computed: 74, at most 64 ahead of their reader
//!         the producer ended with its reader
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, MessageResult};
use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use mobula::limits::STREAM_WINDOW_ITEMS;
use mobula::prelude::*;
use mobula::{ReplyItems, StreamMessage};
use mobula_examples::cli::{print_json, whole_number};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Sieve {
    computed: Arc<AtomicU64>,
    /// Held by each producer.
    running: Arc<()>,
}

impl Actor for Sieve {
    type Context = Context<Self>;
}

/// All primes from here on.
#[derive(Deserialize, RemoteMessage, Serialize)]
struct PrimesFrom(u64);

impl StreamMessage for PrimesFrom {
    type Item = u64;
}

impl Handler<PrimesFrom> for Sieve {
    type Result = ReplyItems<u64>;

    fn handle(&mut self, PrimesFrom(start): PrimesFrom, _: &mut Context<Self>) -> ReplyItems<u64> {
        let (computed, running) = (Arc::clone(&self.computed), Arc::clone(&self.running));
        ReplyItems::produce(move |mut sender| async move {
            for prime in (start..).filter(|number| is_prime(*number)) {
                computed.fetch_add(1, Ordering::Relaxed);
                // Waits while the reader has enough.
                if sender.send(prime).await.is_err() {
                    break;
                }
            }
            drop(running);
        })
    }
}

/// How many primes were computed, and how many producers run.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "(u64, usize)")]
struct Report;

impl Handler<Report> for Sieve {
    type Result = MessageResult<Report>;

    fn handle(&mut self, _: Report, _: &mut Context<Self>) -> Self::Result {
        MessageResult((self.computed.load(Ordering::Relaxed), Arc::strong_count(&self.running) - 1))
    }
}

mobula::remote_actor!(Sieve, args: (), create: |()| Sieve::default(), messages: [PrimesFrom, Report]);

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

/// Reads the first primes of an endless stream from an actor in another process.
#[derive(Parser)]
#[command(name = "reply_stream", version)]
struct Args {
    /// Where to begin.
    #[arg(long, default_value = "1_000_000_000", value_parser = whole_number(0..=1_000_000_000_000_u64))]
    from: u64,

    /// How many to read.
    #[arg(long, default_value = "10", value_parser = whole_number(1..=100_000_usize))]
    take: usize,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[mobula::main]
async fn main() -> anyhow::Result<()> {
    let Args { from, take, json } = Args::parse();
    let cluster = Cluster::local(1).await?;
    let sieve = cluster.spawn(Sieve::spec(())).await?;
    let mut stream = sieve.ask_stream(PrimesFrom(from));
    let primes: Vec<u64> = stream.by_ref().take(take).try_collect().await?;
    let (computed, _) = sieve.ask(Report).await?;
    let ahead = computed.saturating_sub(take as u64);
    ensure!(ahead <= u64::from(STREAM_WINDOW_ITEMS) + 1, "{ahead} were computed ahead of their reader");
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), producer_has_ended(&sieve))
        .await
        .context("the producer did not end with its reader")??;
    let node = &sieve.node().name;
    if json {
        print_json(&serde_json::json!({ "primes": primes, "computed": computed, "node": node }))?;
    } else {
        println!("{take} primes from {from} on {node}: {}", shortened(&primes));
        println!("computed: {computed}, at most {STREAM_WINDOW_ITEMS} ahead of their reader");
        println!("the producer ended with its reader");
    }
    cluster.shutdown().await;
    Ok(())
}

async fn producer_has_ended(sieve: &ActorRef<Sieve>) -> Result<(), CallError> {
    while sieve.ask(Report).await?.1 > 0 {}
    Ok(())
}

fn shortened(primes: &[u64]) -> String {
    let words: Vec<String> = match primes {
        [first, second, third, .., last] if primes.len() > 4 => {
            [first, second, third].into_iter().map(u64::to_string).chain(["..".to_owned(), last.to_string()]).collect()
        }
        _ => primes.iter().map(u64::to_string).collect(),
    };
    words.join(" ")
}
