//! Links without actors, over each wire, beside a hand-written loop over the same kind of connection. Both ends are threads
//! of this process, each with a runtime of its own.
mod certificates;
mod link;
mod raw;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use crate::Plan;
use crate::drive::Span;
use crate::measure::{Line, Series};
use crate::threads::{on_own_thread, runtime};

/// Small asks under way at any time.
const SMALL_IN_FLIGHT: usize = 1000;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Road {
    Tcp,
    Unix,
    Tls,
}

/// Which asks are made.
#[derive(Clone, Copy)]
struct Load {
    /// Bytes there, and as many back.
    bytes: usize,
    /// Under way at any time, on all connections together.
    in_flight: usize,
    connections: usize,
    /// Threads that ask, beside the one that reads the connection; none: that one asks.
    senders: usize,
    unit: Unit,
    content: Content,
    /// Both ends pack what gets shorter.
    packs: bool,
}

/// What the bytes are.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Content {
    /// One and the same.
    Same,
    /// Lines of a log.
    Log,
    /// Bytes that do not get shorter.
    Noise,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Unit {
    Asks,
    Bytes,
}

impl Load {
    const SMALL: Load = Load {
        bytes: 8,
        in_flight: SMALL_IN_FLIGHT,
        connections: 1,
        senders: 0,
        unit: Unit::Asks,
        content: Content::Same,
        packs: false,
    };

    /// So many bytes there and back, 4 MiB or two messages under way.
    const fn of(bytes: usize) -> Load {
        let fit = 4 * MIB / bytes;
        let in_flight = if fit > SMALL_IN_FLIGHT {
            SMALL_IN_FLIGHT
        } else if fit < 2 {
            2
        } else {
            fit
        };
        Load { bytes, in_flight, unit: Unit::Bytes, ..Load::SMALL }
    }

    /// Small ones, shared out to so many connections.
    const fn over(connections: usize) -> Load {
        Load { connections, ..Load::SMALL }
    }

    /// Small ones of so many threads on one connection.
    const fn from(senders: usize) -> Load {
        Load { senders, ..Load::SMALL }
    }

    fn payload(self) -> Vec<u8> {
        match self.content {
            Content::Same => vec![7; self.bytes],
            Content::Log => {
                let line = |n: u64| {
                    let took = n.wrapping_mul(2_654_435_761) % 10_007;
                    format!(
                        "2026-11-23T06:{:02}:{:02}Z INFO node-{} handled request {n} in {took} us\n",
                        n / 60 % 60,
                        n % 60,
                        n % 7
                    )
                };
                (0..).flat_map(|n| line(n).into_bytes()).take(self.bytes).collect()
            }
            Content::Noise => {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64;
                let next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 16) as u8
                };
                std::iter::repeat_with(next).take(self.bytes).collect()
            }
        }
    }

    /// What one ask counts for.
    fn worth(self) -> f64 {
        match self.unit {
            Unit::Asks => 1.0,
            Unit::Bytes => self.bytes as f64,
        }
    }

    fn unit(self) -> &'static str {
        match self.unit {
            Unit::Asks => "asks/s",
            Unit::Bytes => "bytes/s",
        }
    }
}

/// Payloads of all sizes, on TCP.
pub(crate) async fn sizes(plan: Plan) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, bytes) in [
        ("link-echo-64b", 64),
        ("link-echo-1kib", KIB),
        ("link-echo-16kib", 16 * KIB),
        ("link-echo-256kib", 256 * KIB),
        ("link-echo-16mib", 16 * MIB),
    ] {
        lines.push(beside_raw(name, Road::Tcp, Load::of(bytes), plan).await?);
    }
    Ok(lines)
}

/// Small asks over many connections.
pub(crate) async fn connections(plan: Plan) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, count) in [("link-connections-10", 10), ("link-connections-100", 100), ("link-connections-1000", 1000)] {
        lines.push(beside_raw(name, Road::Tcp, Load::over(count), plan).await?);
    }
    Ok(lines)
}

/// Small asks of several threads over one connection.
pub(crate) async fn senders(plan: Plan) -> Result<Vec<Line>> {
    Ok(vec![beside_raw("link-senders-8", Road::Tcp, Load::from(8), plan).await?])
}

pub(crate) async fn unix(plan: Plan) -> Result<Vec<Line>> {
    let (mut unix, mut tcp) = (Series::default(), Series::default());
    let (mut unix_bytes, mut tcp_bytes) = (Series::default(), Series::default());
    let (mut unix_latency, mut tcp_latency) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        unix.push(both_ends(Road::Unix, Side::Link(Load::SMALL, plan.span)).await?);
        tcp.push(both_ends(Road::Tcp, Side::Link(Load::SMALL, plan.span)).await?);
        unix_bytes.push(both_ends(Road::Unix, Side::Link(Load::of(MIB), plan.span)).await? * MIB as f64);
        tcp_bytes.push(both_ends(Road::Tcp, Side::Link(Load::of(MIB), plan.span)).await? * MIB as f64);
        unix_latency.push(both_ends(Road::Unix, Side::Latency(plan.span)).await?);
        tcp_latency.push(both_ends(Road::Tcp, Side::Latency(plan.span)).await?);
    }
    let reference = "the same link over TCP on loopback";
    Ok(vec![
        Line { name: "unix-ask-pipelined", unit: "asks/s", reference, ours: unix, raw: tcp },
        Line { name: "unix-echo-1mib", unit: "bytes/s", reference, ours: unix_bytes, raw: tcp_bytes },
        Line { name: "unix-ask-latency", unit: "us", reference, ours: unix_latency, raw: tcp_latency },
    ])
}

/// Links that pack, beside the same links without.
pub(crate) async fn packed(plan: Plan) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, road, content) in [
        ("link-echo-1mib-lz4", Road::Tcp, Content::Log),
        ("link-echo-1mib-lz4-noise", Road::Tcp, Content::Noise),
        ("tls-echo-1mib-lz4", Road::Tls, Content::Log),
        ("tls-echo-1mib-lz4-noise", Road::Tls, Content::Noise),
    ] {
        let load = Load { content, ..Load::of(MIB) };
        let (mut ours, mut raw) = (Series::default(), Series::default());
        for _ in 0..plan.rounds {
            let packs = Load { packs: true, ..load };
            ours.push(both_ends(road, Side::Link(packs, plan.span)).await? * load.worth());
            raw.push(both_ends(road, Side::Link(load, plan.span)).await? * load.worth());
        }
        lines.push(Line { name, unit: load.unit(), reference: "the same link without packing", ours, raw });
    }
    Ok(lines)
}

pub(crate) async fn tls(plan: Plan) -> Result<Vec<Line>> {
    let asks = beside_raw("tls-ask-pipelined", Road::Tls, Load::SMALL, plan).await?;
    let bytes = beside_raw("tls-echo-1mib", Road::Tls, Load::of(MIB), plan).await?;
    Ok(vec![asks, bytes])
}

pub(crate) async fn tcp(plan: Plan) -> Result<Vec<Line>> {
    let asks = beside_raw("link-ask-pipelined", Road::Tcp, Load::SMALL, plan).await?;
    let bytes = beside_raw("link-echo-1mib", Road::Tcp, Load::of(MIB), plan).await?;
    Ok(vec![asks, bytes])
}

async fn beside_raw(name: &'static str, road: Road, load: Load, plan: Plan) -> Result<Line> {
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        ours.push(both_ends(road, Side::Link(load, plan.span)).await? * load.worth());
        raw.push(both_ends(road, Side::Raw(load, plan.span)).await? * load.worth());
    }
    let reference = match (road, load.unit) {
        (Road::Tls, Unit::Asks) => "ask().await over raw tokio-rustls",
        (Road::Tls, Unit::Bytes) => "the same frames echoed over raw tokio-rustls",
        (_, Unit::Asks) => "ask().await over raw tokio",
        (_, Unit::Bytes) => "the same frames echoed over raw tokio",
    };
    Ok(Line { name, unit: load.unit(), reference, ours, raw })
}

/// What is measured between two ends.
#[derive(Clone, Copy)]
enum Side {
    /// Asks a second over a link.
    Link(Load, Span),
    /// Microseconds of one ask at a time over a link.
    Latency(Span),
    /// Asks a second over a hand-written loop.
    Raw(Load, Span),
}

/// Runs a server on a thread, and the client of `side` on another, over a fresh connection.
async fn both_ends(road: Road, side: Side) -> Result<f64> {
    let (address, listening) = oneshot::channel();
    let (client_done, over) = oneshot::channel::<()>();
    let server = tokio::spawn(on_own_thread(move || {
        runtime()?.block_on(async move {
            tokio::select! {
                served = async {
                    match side {
                        Side::Link(load, _) => link::serve(road, load.packs, address).await,
                        Side::Latency(_) => link::serve(road, false, address).await,
                        Side::Raw(load, _) => raw::serve(road, load, address).await,
                    }
                } => served,
                _ = over => Ok(()),
            }
        })
    }));
    let address = match listening.await {
        Ok(address) => address,
        Err(_) => {
            server.await??;
            anyhow::bail!("the server ended before it listened");
        }
    };
    let figure = on_own_thread(move || {
        runtime()?.block_on(async move {
            match side {
                Side::Link(load, span) => link::rate(road, &address, load, span).await,
                Side::Latency(span) => link::latency(road, &address, span).await,
                Side::Raw(load, span) => raw::rate(road, &address, load, span).await,
            }
        })
    })
    .await
    .with_context(|| format!("{road:?}"))?;
    drop(client_done);
    server.await??;
    Ok(figure)
}

/// Where a server listens.
enum Address {
    Port(std::net::SocketAddr),
    Folder(tempfile::TempDir),
}
