//! How fast Mobula is, always beside its limit or a peer measured in the same run.
//!
//! ```text
//! cargo run --release --bin bench                             # everything, as a table
//! cargo run --release --bin bench -- remote-tell --json       # one measure, as a JSON line
//! cargo run --release --bin bench -- --list                   # names, meanings, goals
//! ```
//! Rounds of Mobula and of its reference alternate, so that a noisy machine disturbs both alike; figures are the
//! medians of the rounds. This executable is also the node processes of its clusters and the raw peers: see [`raw`].
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod counter;
mod drive;
mod large;
mod local;
mod many;
mod measure;
mod memory;
mod primes;
mod raw;
mod remote;
mod slow;
mod start;
mod threads;
mod wires;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::drive::Span;
use crate::measure::Line;

fn main() -> ExitCode {
    if let Some(role) = raw::Role::of_this_process() {
        return role.serve();
    }
    if let Some(side) = many::Side::of_this_process() {
        return side.run();
    }
    // `{:#}` shows the whole chain of causes.
    mobula::run_main(async { run().await.map_err(|error| format!("{error:#}")) })
}

/// Measures Mobula beside raw tokio, actix and rayon.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Args {
    /// What to measure; everything if nothing is named.
    names: Vec<String>,
    /// Print a JSON object for each measure, one a line.
    #[arg(long)]
    json: bool,
    /// Say what can be measured, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Seconds for each side of each round, after a fifth of that to warm up. Measures of fixed work ignore it.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    seconds: Duration,
    /// Rounds of each side.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = Duration::try_from_secs_f64(text.parse()?)?;
    if seconds.is_zero() {
        bail!("a round needs some time");
    }
    Ok(seconds)
}

/// How much to measure.
#[derive(Clone, Copy)]
struct Plan {
    rounds: u32,
    span: Span,
}

struct Measure {
    name: &'static str,
    group: Group,
    about: &'static str,
    /// What the ratio should be, unless it says otherwise.
    goal: &'static str,
}

/// Measures whose rounds are taken together.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Group {
    RemoteLatency,
    RemotePipelined,
    RemoteTell,
    PingBesideLarge,
    SlowActor,
    LinkTcp,
    LinkSizes,
    LinkConnections,
    LinkSenders,
    LinkTls,
    LinkUnix,
    LinkPacked,
    LocalAsk,
    LocalAskAcross,
    ManyActors,
    Primes,
    ClusterStart,
}

impl Group {
    async fn measure(self, plan: Plan) -> Result<Vec<Line>> {
        match self {
            Group::RemoteLatency => remote::latency(plan).await,
            Group::RemotePipelined => remote::pipelined(plan).await,
            Group::RemoteTell => remote::tell(plan).await,
            Group::PingBesideLarge => large::ping_beside(plan).await,
            Group::SlowActor => slow::actor(plan).await,
            Group::LinkTcp => wires::tcp(plan).await,
            Group::LinkSizes => wires::sizes(plan).await,
            Group::LinkConnections => wires::connections(plan).await,
            Group::LinkSenders => wires::senders(plan).await,
            Group::LinkTls => wires::tls(plan).await,
            Group::LinkUnix => wires::unix(plan).await,
            Group::LinkPacked => wires::packed(plan).await,
            Group::LocalAsk => local::same_arbiter(plan).await,
            Group::LocalAskAcross => local::across(plan).await,
            Group::ManyActors => many::measure(plan).await,
            Group::Primes => primes::versus_rayon(plan).await,
            Group::ClusterStart => start::cluster(plan).await,
        }
    }
}

const GROUPS: [Group; 17] = [
    Group::RemoteLatency,
    Group::RemotePipelined,
    Group::RemoteTell,
    Group::PingBesideLarge,
    Group::SlowActor,
    Group::LinkTcp,
    Group::LinkSizes,
    Group::LinkConnections,
    Group::LinkSenders,
    Group::LinkTls,
    Group::LinkUnix,
    Group::LinkPacked,
    Group::LocalAsk,
    Group::LocalAskAcross,
    Group::ManyActors,
    Group::Primes,
    Group::ClusterStart,
];

const MEASURES: [Measure; 34] = [
    Measure {
        name: "remote-ask-latency",
        group: Group::RemoteLatency,
        about: "median of one ask in flight to another process",
        goal: "at most 1.15",
    },
    Measure {
        name: "remote-ask-pipelined",
        group: Group::RemotePipelined,
        about: "asks with 1000 in flight on one connection, beside a hand-written ask API",
        goal: "at least 0.9",
    },
    Measure {
        name: "remote-ask-pipelined-raw",
        group: Group::RemotePipelined,
        about: "the same beside batches of frames that are only echoed",
        goal: "on the way to 0.6",
    },
    Measure {
        name: "remote-tell",
        group: Group::RemoteTell,
        about: "tells until all are counted, beside our own pipelined asks",
        goal: "at least 3",
    },
    Measure {
        name: "remote-tell-raw",
        group: Group::RemoteTell,
        about: "the same beside a one-way stream of frames",
        goal: "none",
    },
    Measure {
        name: "ping-beside-large",
        group: Group::PingBesideLarge,
        about: "p99 of one ask in flight while 100 MB go to another actor over the same connection",
        goal: "at most 2",
    },
    Measure {
        name: "slow-actor-memory",
        group: Group::SlowActor,
        about: "peak memory of a node whose actor is sent 1,000,000 tells by 8 senders on 2 nodes and cannot keep up",
        goal: "at most 1.1",
    },
    Measure {
        name: "slow-actor-senders",
        group: Group::SlowActor,
        about: "peak memory of the nodes of these senders",
        goal: "at most 1.1",
    },
    Measure {
        name: "link-ask-pipelined",
        group: Group::LinkTcp,
        about: "asks with 1000 in flight over a link without actors, on TCP",
        goal: "at least 0.9",
    },
    Measure {
        name: "link-echo-1mib",
        group: Group::LinkTcp,
        about: "1 MiB there and back over a link, on TCP",
        goal: "at least 0.7",
    },
    Measure {
        name: "link-echo-64b",
        group: Group::LinkSizes,
        about: "64 bytes there and back over a link, on TCP",
        goal: "none",
    },
    Measure {
        name: "link-echo-1kib",
        group: Group::LinkSizes,
        about: "1 KiB there and back over a link, on TCP",
        goal: "none",
    },
    Measure {
        name: "link-echo-16kib",
        group: Group::LinkSizes,
        about: "16 KiB there and back over a link, on TCP",
        goal: "none",
    },
    Measure {
        name: "link-echo-256kib",
        group: Group::LinkSizes,
        about: "256 KiB there and back over a link, on TCP",
        goal: "at least 0.7",
    },
    Measure {
        name: "link-echo-16mib",
        group: Group::LinkSizes,
        about: "16 MiB there and back over a link, on TCP",
        goal: "at least 0.7",
    },
    Measure {
        name: "link-connections-10",
        group: Group::LinkConnections,
        about: "asks with 1000 in flight over 10 links together, on TCP",
        goal: "at least 0.9",
    },
    Measure {
        name: "link-connections-100",
        group: Group::LinkConnections,
        about: "asks with 1000 in flight over 100 links together, on TCP",
        goal: "at least 0.9",
    },
    Measure {
        name: "link-connections-1000",
        group: Group::LinkConnections,
        about: "asks with 1000 in flight over 1000 links together, on TCP",
        goal: "at least 0.9",
    },
    Measure {
        name: "link-senders-8",
        group: Group::LinkSenders,
        about: "asks of eight threads, 1000 in flight together, over one link, on TCP",
        goal: "at least 0.9",
    },
    Measure {
        name: "tls-ask-pipelined",
        group: Group::LinkTls,
        about: "asks with 1000 in flight over a link, on TLS 1.3",
        goal: "at least 0.7",
    },
    Measure {
        name: "tls-echo-1mib",
        group: Group::LinkTls,
        about: "1 MiB there and back over a link, on TLS 1.3",
        goal: "at least 0.7",
    },
    Measure {
        name: "unix-ask-pipelined",
        group: Group::LinkUnix,
        about: "asks with 1000 in flight over a link, on a Unix socket",
        goal: "more than 1",
    },
    Measure {
        name: "unix-echo-1mib",
        group: Group::LinkUnix,
        about: "1 MiB there and back over a link, on a Unix socket",
        goal: "more than 1",
    },
    Measure {
        name: "unix-ask-latency",
        group: Group::LinkUnix,
        about: "median of one ask in flight over a link, on a Unix socket",
        goal: "less than 1",
    },
    Measure {
        name: "link-echo-1mib-lz4",
        group: Group::LinkPacked,
        about: "1 MiB of a log there and back over a link that packs, on TCP",
        goal: "none",
    },
    Measure {
        name: "link-echo-1mib-lz4-noise",
        group: Group::LinkPacked,
        about: "the same of bytes that do not get shorter",
        goal: "at least 0.9",
    },
    Measure {
        name: "tls-echo-1mib-lz4",
        group: Group::LinkPacked,
        about: "1 MiB of a log there and back over a link that packs, on TLS 1.3",
        goal: "none",
    },
    Measure {
        name: "tls-echo-1mib-lz4-noise",
        group: Group::LinkPacked,
        about: "the same of bytes that do not get shorter",
        goal: "at least 0.9",
    },
    Measure {
        name: "local-ask",
        group: Group::LocalAsk,
        about: "asks one at a time on the actor's own arbiter, beside Addr::send",
        goal: "at least 0.8",
    },
    Measure {
        name: "local-ask-across",
        group: Group::LocalAskAcross,
        about: "asks one at a time from another thread, beside Addr::send",
        goal: "at least 0.8",
    },
    Measure {
        name: "actors-100k-memory",
        group: Group::ManyActors,
        about: "memory of each of 100,000 actors on one node",
        goal: "at most 1024 bytes more",
    },
    Measure {
        name: "actors-100k-spawn",
        group: Group::ManyActors,
        about: "spawns a second on one node, until the last has started",
        goal: "at least 300 k",
    },
    Measure {
        name: "primes-vs-rayon",
        group: Group::Primes,
        about: "primes below 10^7 by trial on two node processes, beside two threads of rayon",
        goal: "at most 1.03",
    },
    Measure {
        name: "cluster-start",
        group: Group::ClusterStart,
        about: "from nothing to the first reply of two node processes, beside two bare processes",
        goal: "under 100 ms",
    },
];

async fn run() -> Result<()> {
    let args = Args::parse();
    if args.list {
        for Measure { name, about, goal, .. } in MEASURES {
            println!("{name:<25} {about} (goal: {goal})");
        }
        return Ok(());
    }
    for name in &args.names {
        if !MEASURES.iter().any(|measure| measure.name == name) {
            bail!("no measure is called {name}; --list names them");
        }
    }
    let chosen = |name: &str| args.names.is_empty() || args.names.iter().any(|known| known == name);
    let span = Span { warm: args.seconds / 5, run: args.seconds };
    let plan = Plan { rounds: args.rounds, span };

    if !args.json {
        println!("{}", measure::head());
    }
    for group in GROUPS {
        let wanted = MEASURES.iter().find(|measure| measure.group == group && chosen(measure.name));
        let Some(wanted) = wanted else { continue };
        let lines = group.measure(plan).await.with_context(|| format!("{} failed", wanted.name))?;
        for line in lines.iter().filter(|line| chosen(line.name)) {
            println!("{}", if args.json { line.json() } else { line.row() });
        }
    }
    Ok(())
}
