//! From nothing to the first reply of a cluster of two node processes.
use std::time::Instant;

use anyhow::Result;
use mobula::Cluster;

use crate::Plan;
use crate::counter::{self, Add};
use crate::measure::{Line, Series};
use crate::raw;

const NODES: usize = 2;

pub(crate) async fn cluster(plan: Plan) -> Result<Vec<Line>> {
    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        let cluster = Cluster::local(NODES).await?;
        let counter = counter::in_another_process(&cluster).await?;
        counter.ask(Add { by: 1 }).await?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        cluster.shutdown().await;

        let begun = Instant::now();
        raw::spawn_and_reap(NODES)?;
        raw.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let reference = "spawn and reap two bare processes";
    Ok(vec![Line { name: "cluster-start", unit: "ms", reference, ours, raw }])
}
