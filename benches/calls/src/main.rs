//! A number of calls from one node to another, all on one thread, so that what they cost can be counted: instructions by
//! callgrind, system calls by strace, and the time of the processor, which other programs on the machine disturb less than
//! they disturb a clock. `benches/count-instructions` makes a table of it.
//!
//! ```text
//! cargo run --release --bin calls -- ask 100000              # over the memory wire
//! cargo run --release --bin calls -- ask 1000000 --tcp       # over loopback TCP
//! ```
mod counter;
mod nodes;

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use mobula_actors::{ActorRef, RemoteActor};

use crate::counter::{Absorb, Add, Counter};
use crate::nodes::{Road, Two};

/// Asks under way at any time, where there is more than one.
const IN_FLIGHT: usize = 1000;

/// Makes calls, and says what they cost.
#[derive(Parser)]
#[command(name = "calls", version)]
struct Args {
    /// Which calls.
    kind: Kind,
    /// How many.
    count: u64,
    /// Over loopback TCP instead of the memory wire.
    #[arg(long)]
    tcp: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Asks with 1000 in flight, to another node.
    Ask,
    /// One ask at a time, to another node.
    AskOne,
    /// Tells to another node.
    Tell,
    /// Asks of 1 KiB with 1000 in flight, to another node.
    Ask1k,
    /// Asks of 1 MiB, four in flight, to another node.
    Ask1m,
    /// Asks with 1000 in flight, within the node.
    Near,
    /// One ask at a time, within the node.
    NearOne,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let road = if args.tcp { Road::Tcp } else { Road::Memory };
    actix::System::new().block_on(async move {
        let two = Two::start(road).await?;
        let spec = Counter::spec(0);
        let counter = match args.kind {
            Kind::Near | Kind::NearOne => two.caller.spawn(spec).await?,
            _ => two.caller.spawn_on(two.home.id(), spec).await?,
        };
        let before = cpu_time()?;
        calls(args.kind, args.count, &counter).await?;
        let spent = cpu_time()?.saturating_sub(before);
        let each = spent.as_nanos() as f64 / args.count as f64;
        println!("{} calls, {:.0} ns of processor each", args.count, each);
        two.end();
        Ok(())
    })
}

async fn calls(kind: Kind, count: u64, counter: &ActorRef<Counter>) -> Result<()> {
    let add = || counter.ask(Add { by: 1 });
    match kind {
        Kind::Ask | Kind::Near => pipelined(count, IN_FLIGHT, add).await?,
        Kind::AskOne | Kind::NearOne => pipelined(count, 1, add).await?,
        Kind::Tell => {
            for _ in 0..count {
                counter.tell(Add { by: 1 }).await?;
            }
        }
        Kind::Ask1k => pipelined(count, IN_FLIGHT, || counter.ask(Absorb(vec![7; 1024]))).await?,
        Kind::Ask1m => pipelined(count, 4, || counter.ask(Absorb(vec![7; 1024 * 1024]))).await?,
    }
    let counted = counter.ask(Add { by: 0 }).await?;
    let expected = match kind {
        Kind::Ask1k => count * 1024,
        Kind::Ask1m => count * 1024 * 1024,
        _ => count,
    };
    ensure!(counted as u64 == expected, "{counted} counted of {expected}");
    Ok(())
}

/// The oldest call is awaited and replaced by a new one.
async fn pipelined<T, E, F>(count: u64, in_flight: usize, mut call: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut window = VecDeque::with_capacity(in_flight);
    for _ in 0..count {
        if window.len() == in_flight
            && let Some(oldest) = window.pop_front()
        {
            oldest.await?;
        }
        window.push_back(call());
    }
    for rest in window {
        rest.await?;
    }
    Ok(())
}

/// Processor time of this process, in user mode and in the kernel.
fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").context("this system keeps no schedstat")?;
    let nanos = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
