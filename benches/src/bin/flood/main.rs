//! A flood of strangers against a node's TLS port: does an honest newcomer still come in, does the node stay small, and is no
//! session lost?
//!
//! ```text
//! cargo run --release -p mobula-benches --bin flood -- --seconds 120
//! ```
//! The node is another process, this program again. Strangers come from addresses of 127.1.0.0/16: those who connect and say nothing,
//! those who say a byte a second, and those who do the handshake of TLS without a certificate of the cluster. One who is dropped
//! comes back after a rest. Meanwhile an honest newcomer joins, connects and says hello, again and again, from 127.0.0.1; one that is
//! refused does not try again and counts as a failure. A session from before asks all the time. The exit code is not 0 if
//! a goal is missed.
#![allow(clippy::disallowed_methods, reason = "it measures, and paces what it sends")]

mod honest;
mod port;
mod strangers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::port::OtherProcess;
use crate::strangers::Strangers;

const MIB: u64 = 1024 * 1024;

#[derive(Clone, Parser)]
struct Args {
    /// How long the flood lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections that say nothing.
    #[arg(long, default_value_t = 10_000)]
    half_open: u32,
    /// Connections that say a byte a second.
    #[arg(long, default_value_t = 1_000)]
    slow: u32,
    /// Handshakes of TLS a second that end with no proof.
    #[arg(long, default_value_t = 500)]
    handshakes: u32,
    /// Addresses that the strangers have.
    #[arg(long, default_value_t = 100)]
    addresses: u32,
    /// The most that an honest newcomer may take, as the 99th of 100, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    join_millis: u64,
    /// Be the node that is flooded; it ends with its standard input.
    #[arg(long, hide = true)]
    serve: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    raise_descriptors();
    if args.serve {
        return port::serve();
    }
    actix::System::new().block_on(flood(args))
}

/// As many descriptors as the system lets us have.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Whoever may, lets itself have more.
    for maximum in [limit.maximum.map(|maximum| maximum.max(100_000)), limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            break;
        }
    }
}

async fn flood(args: Args) -> ExitCode {
    let node = OtherProcess::start();
    // What is made once is made before.
    for _ in 0..5 {
        honest::come_in(&node.door).await.expect("nobody else is there");
    }
    let session = honest::Session::open(&node.door).await;
    let asking = session.ask_all_the_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before_bytes = node.memory_bytes();

    let strangers = Strangers::let_loose(&args, node.door.address);
    let newcomers = honest::Newcomers::keep_coming(node.door.clone());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut most_bytes = before_bytes;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most_bytes = most_bytes.max(node.memory_bytes());
    }
    let joins = newcomers.stop().await;
    let asked = asking.stop().await;
    let seen = strangers.stop();

    let grown_mib = (most_bytes - before_bytes).div_ceil(MIB);
    println!(
        "strangers, {} addresses: {} connections that said nothing ({} at the most at once), {} slow ones, {} handshakes",
        args.addresses, seen.silent, seen.most_at_once, seen.slow, seen.handshakes
    );
    println!("newcomers: {joins}");
    println!("the session from before: {asked}");
    println!("memory of the node: {} MiB before, {grown_mib} MiB more at the most", before_bytes / MIB);
    let goals = [
        ("a newcomer was refused", joins.failed == 0 && joins.count() > 0),
        ("newcomers took too long", joins.percentile(99.0) < Duration::from_millis(args.join_millis)),
        ("the node's memory grew by 64 MiB or more", grown_mib < 64),
        ("the session was lost", asked.failed == 0 && asked.count() > 0),
    ];
    for (missed, _) in goals.iter().filter(|(_, reached)| !reached) {
        println!("MISSED: {missed}");
    }
    if goals.iter().all(|(_, reached)| *reached) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
