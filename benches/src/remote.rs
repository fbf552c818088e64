//! Asks and tells to a counter in one node process on loopback, beside raw peers in a second process.
use std::time::Instant;

use anyhow::{Result, ensure};
use mobula::{ActorRef, Cluster};

use crate::Plan;
use crate::counter::{self, Add, Counter};
use crate::drive::{self, Span};
use crate::measure::{Line, Series};
use crate::raw::{self, Peer, Role};

/// Asks under way at any time.
const IN_FLIGHT: usize = 1000;

/// Tells between two looks at the clock.
const TELLS_PER_LOOK: i64 = 256;

pub(crate) async fn latency(plan: Plan) -> Result<Vec<Line>> {
    let far = Far::start().await?;
    let peer = Peer::start(Role::Pingpong)?;
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let span = plan.span;
        ours.push(drive::latency(span, async || far.counter.ask(Add { by: 1 }).await).await?);
        raw.push(peer.measure(async move |stream| raw::pingpong::latency(stream, span).await).await?);
    }
    far.cluster.shutdown().await;
    let reference = "ping-pong of frames over raw tokio";
    Ok(vec![Line { name: "remote-ask-latency", unit: "us", reference, ours, raw }])
}

pub(crate) async fn pipelined(plan: Plan) -> Result<Vec<Line>> {
    let far = Far::start().await?;
    let asks = Peer::start(Role::Ask)?;
    let echo = Peer::start(Role::Echo)?;
    let (mut ours, mut raw_asks, mut raw_echo) = (Series::default(), Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let span = plan.span;
        ours.push(far.pipelined(span).await?);
        raw_asks.push(asks.measure(async move |stream| raw::ask::rate(stream, span, IN_FLIGHT).await).await?);
        raw_echo.push(echo.measure(async move |stream| raw::echo::rate(stream, span, IN_FLIGHT as u64).await).await?);
    }
    far.cluster.shutdown().await;
    Ok(vec![
        Line {
            name: "remote-ask-pipelined",
            unit: "asks/s",
            reference: "ask().await over raw tokio and MessagePack",
            ours: ours.clone(),
            raw: raw_asks,
        },
        Line {
            name: "remote-ask-pipelined-raw",
            unit: "asks/s",
            reference: "batched echo of frames over raw tokio",
            ours,
            raw: raw_echo,
        },
    ])
}

pub(crate) async fn tell(plan: Plan) -> Result<Vec<Line>> {
    let far = Far::start().await?;
    let peer = Peer::start(Role::Stream)?;
    let (mut tells, mut asks, mut frames) = (Series::default(), Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let span = plan.span;
        tells.push(far.tells(span).await?);
        asks.push(far.pipelined(span).await?);
        frames.push(peer.measure(async move |stream| raw::stream::rate(stream, span).await).await?);
    }
    far.cluster.shutdown().await;
    Ok(vec![
        Line {
            name: "remote-tell",
            unit: "tells/s",
            reference: "our own remote-ask-pipelined",
            ours: tells.clone(),
            raw: asks,
        },
        Line {
            name: "remote-tell-raw",
            unit: "tells/s",
            reference: "one-way stream of frames over raw tokio",
            ours: tells,
            raw: frames,
        },
    ])
}

/// A counter in another process.
struct Far {
    cluster: Cluster,
    counter: ActorRef<Counter>,
}

impl Far {
    async fn start() -> Result<Far> {
        let cluster = Cluster::local(1).await?;
        let counter = counter::in_another_process(&cluster).await?;
        Ok(Far { cluster, counter })
    }

    async fn pipelined(&self, span: Span) -> Result<f64> {
        drive::pipelined(span, IN_FLIGHT, || self.counter.ask(Add { by: 1 })).await
    }

    /// Tells per second until an ask behind them says that all were counted.
    async fn tells(&self, span: Span) -> Result<f64> {
        let mut count = self.counter.ask(Add { by: 0 }).await?;
        let mut tells_for = async |time| {
            let begun = Instant::now();
            let before = count;
            while begun.elapsed() < time {
                for _ in 0..TELLS_PER_LOOK {
                    self.counter.tell(Add { by: 1 }).await?;
                }
                count += TELLS_PER_LOOK;
            }
            let counted = self.counter.ask(Add { by: 0 }).await?;
            let rate = (count - before) as f64 / begun.elapsed().as_secs_f64();
            ensure!(counted == count, "{counted} tells counted of {count}");
            Ok(rate)
        };
        tells_for(span.warm).await?;
        tells_for(span.run).await
    }
}
