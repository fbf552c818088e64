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

/// Asks under way at any time.
const SMALL_IN_FLIGHT: usize = 1000;

const MIB: usize = 1024 * 1024;
const LARGE_IN_FLIGHT: usize = 4;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Road {
    Tcp,
    Unix,
    Tls,
}

/// Which asks are made.
#[derive(Clone, Copy)]
enum Load {
    /// A small message each, many in flight: asks a second.
    Small,
    /// 1 MiB there and back, few in flight: bytes a second.
    Large,
}

impl Load {
    fn in_flight(self) -> usize {
        match self {
            Load::Small => SMALL_IN_FLIGHT,
            Load::Large => LARGE_IN_FLIGHT,
        }
    }

    fn payload(self) -> Vec<u8> {
        match self {
            Load::Small => vec![7; 8],
            Load::Large => vec![7; MIB],
        }
    }

    /// What one ask counts for.
    fn worth(self) -> f64 {
        match self {
            Load::Small => 1.0,
            Load::Large => MIB as f64,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Load::Small => "asks/s",
            Load::Large => "bytes/s",
        }
    }
}

pub(crate) async fn unix(plan: Plan) -> Result<Vec<Line>> {
    let (mut unix, mut tcp) = (Series::default(), Series::default());
    let (mut unix_latency, mut tcp_latency) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        unix.push(both_ends(Road::Unix, Side::Link(Load::Small, plan.span)).await?);
        tcp.push(both_ends(Road::Tcp, Side::Link(Load::Small, plan.span)).await?);
        unix_latency.push(both_ends(Road::Unix, Side::Latency(plan.span)).await?);
        tcp_latency.push(both_ends(Road::Tcp, Side::Latency(plan.span)).await?);
    }
    let reference = "the same link over TCP on loopback";
    Ok(vec![
        Line { name: "unix-ask-pipelined", unit: "asks/s", reference, ours: unix, raw: tcp },
        Line { name: "unix-ask-latency", unit: "us", reference, ours: unix_latency, raw: tcp_latency },
    ])
}

pub(crate) async fn tls(plan: Plan) -> Result<Vec<Line>> {
    let asks = beside_raw("tls-ask-pipelined", Road::Tls, Load::Small, plan).await?;
    let bytes = beside_raw("tls-echo-1mib", Road::Tls, Load::Large, plan).await?;
    Ok(vec![asks, bytes])
}

pub(crate) async fn tcp(plan: Plan) -> Result<Vec<Line>> {
    let asks = beside_raw("link-ask-pipelined", Road::Tcp, Load::Small, plan).await?;
    let bytes = beside_raw("link-echo-1mib", Road::Tcp, Load::Large, plan).await?;
    Ok(vec![asks, bytes])
}

async fn beside_raw(name: &'static str, road: Road, load: Load, plan: Plan) -> Result<Line> {
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        ours.push(both_ends(road, Side::Link(load, plan.span)).await? * load.worth());
        raw.push(both_ends(road, Side::Raw(load, plan.span)).await? * load.worth());
    }
    let reference = match (road, load) {
        (Road::Tls, Load::Small) => "ask().await over raw tokio-rustls",
        (Road::Tls, Load::Large) => "frames of 1 MiB echoed over raw tokio-rustls",
        (_, Load::Small) => "ask().await over raw tokio",
        (_, Load::Large) => "frames of 1 MiB echoed over raw tokio",
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
                        Side::Link(..) | Side::Latency(_) => link::serve(road, address).await,
                        Side::Raw(..) => raw::serve(road, address).await,
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
