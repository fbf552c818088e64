//! Small asks beside a large message: one connection, another actor of the same node.
use std::time::Instant;

use anyhow::{Context as _, Result};
use mobula::{ActorRef, Cluster};

use crate::Plan;
use crate::counter::{self, Absorb, Add, Counter};
use crate::drive;
use crate::measure::{Line, Series};
use crate::threads::{on_own_thread, runtime};

const LARGE_BYTES: usize = 100_000_000;

pub(crate) async fn ping_beside(plan: Plan) -> Result<Vec<Line>> {
    let cluster = Cluster::local(1).await?;
    let (pinged, filled) = (counter::in_another_process(&cluster).await?, counter::in_another_process(&cluster).await?);
    let (mut beside, mut alone) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        alone.push(drive::latency_at(99.0, plan.span, async || pinged.ask(Add { by: 1 }).await).await?);
        // Three large messages a round, the first to warm up: what counts is the time while one is on its way.
        let mut micros = Vec::new();
        for round in 0..3 {
            // On a thread of its own: what the sender's own thread does with its value is the sender's affair.
            let filled = filled.clone();
            let sent = tokio::spawn(on_own_thread(move || {
                runtime()?.block_on(filled.ask(Absorb(vec![7; LARGE_BYTES]))).context("the large message")
            }));
            micros.extend(pings_until_done(&pinged, sent).await?.into_iter().filter(|_| round > 0));
        }
        beside.push(crate::measure::percentile(&mut micros, 99.0));
    }
    cluster.shutdown().await;
    let reference = "p99 of the same asks with nothing else on the connection";
    Ok(vec![Line { name: "ping-beside-large", unit: "us", reference, ours: beside, raw: alone }])
}

/// Microseconds of each ask that was answered before `sent` was.
async fn pings_until_done(pinged: &ActorRef<Counter>, sent: tokio::task::JoinHandle<Result<i64>>) -> Result<Vec<f64>> {
    let mut micros = Vec::new();
    while !sent.is_finished() {
        let before = Instant::now();
        pinged.ask(Add { by: 1 }).await?;
        micros.push(before.elapsed().as_secs_f64() * 1e6);
    }
    sent.await??;
    Ok(micros)
}
