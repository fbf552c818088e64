//! A map and a sum over cores: tasks on two node processes beside rayon with two threads, same kernel, same chunks.
use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use mobula::Cluster;
use mobula_examples::primes::kernel::{Kernel, Part};
use mobula_examples::primes::plan;
use rayon::prelude::*;

use crate::Plan;
use crate::measure::{Line, Series};

/// Node processes with one worker each, and threads of rayon.
const WORKERS: usize = 2;

/// By trial, so that the work is arithmetic and nothing else: about half a second on two cores.
const KERNEL: Kernel = Kernel::Trial;
const LIMIT: u64 = 10_000_000;

/// As the program `primes` cuts by default, into shares of about equal cost.
const CHUNKS: usize = 64;

#[mobula::task]
fn primes_of(chunk: Range<u64>) -> Part {
    KERNEL.run(chunk)
}

pub(crate) async fn versus_rayon(measure: Plan) -> Result<Vec<Line>> {
    let cluster = Cluster::builder().nodes(WORKERS).cpus_per_node(1).connect().await?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    // The first task of a worker and the first job of a thread start it up.
    in_cluster(&cluster, LIMIT / 20).await?;
    in_pool(&pool, LIMIT / 20);

    let (mut ours, mut raw) = (Series::default(), Series::default());
    for _ in 0..measure.rounds {
        let begun = Instant::now();
        let from_cluster = in_cluster(&cluster, LIMIT).await?;
        ours.push(begun.elapsed().as_secs_f64());

        let begun = Instant::now();
        let from_pool = in_pool(&pool, LIMIT);
        raw.push(begun.elapsed().as_secs_f64());
        ensure!(from_cluster == from_pool, "the cluster found {from_cluster:?}, rayon {from_pool:?}");
    }
    cluster.shutdown().await;
    let reference = "rayon, 2 threads, same chunks";
    Ok(vec![Line { name: "primes-vs-rayon", unit: "s", reference, ours, raw }])
}

async fn in_cluster(cluster: &Cluster, limit: u64) -> Result<Part> {
    let mut total = Part::default();
    for part in cluster.submit_all(chunks(limit).into_iter().map(primes_of::task)) {
        total += part.await?;
    }
    Ok(total)
}

fn in_pool(pool: &rayon::ThreadPool, limit: u64) -> Part {
    let parts = pool.install(|| chunks(limit).into_par_iter().with_max_len(1).map(primes_of).collect::<Vec<_>>());
    let mut total = Part::default();
    for part in parts {
        total += part;
    }
    total
}

fn chunks(limit: u64) -> Vec<Range<u64>> {
    plan::cut(limit, CHUNKS, KERNEL)
}
