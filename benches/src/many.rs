//! A hundred thousand actors on one node, beside as many bare actix actors. Each side is a process of its own, so that
//! neither finds memory that the other has given back.
use std::env;
use std::process::{Command, ExitCode};
use std::time::Instant;

use actix::{Actor, System};
use anyhow::{Context as _, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use mobula::{Cluster, RemoteActor};
use serde::{Deserialize, Serialize};

use crate::Plan;
use crate::counter::{Add, Counter};
use crate::measure::{Line, Series};
use crate::memory;

const ACTORS: usize = 100_000;

/// Spawns under way at any time.
const IN_FLIGHT: usize = 1000;

/// Set in a second process: which side it is.
const SIDE_VARIABLE: &str = "MOBULA_BENCH_MANY";

/// What one process holds.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Ours,
    Bare,
}

#[derive(Deserialize, Serialize)]
struct Figures {
    bytes_per_actor: f64,
    spawns_per_second: f64,
}

pub(crate) async fn measure(plan: Plan) -> Result<Vec<Line>> {
    let (mut bytes, mut bare_bytes) = (Series::default(), Series::default());
    let (mut spawns, mut bare_spawns) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let ours = Side::Ours.in_another_process()?;
        let bare = Side::Bare.in_another_process()?;
        bytes.push(ours.bytes_per_actor);
        spawns.push(ours.spawns_per_second);
        bare_bytes.push(bare.bytes_per_actor);
        bare_spawns.push(bare.spawns_per_second);
    }
    Ok(vec![
        Line {
            name: "actors-100k-memory",
            unit: "bytes",
            reference: "an actix actor on one arbiter, its Addr kept",
            ours: bytes,
            raw: bare_bytes,
        },
        Line {
            name: "actors-100k-spawn",
            unit: "1/s",
            reference: "Actor::start, on one arbiter",
            ours: spawns,
            raw: bare_spawns,
        },
    ])
}

impl Side {
    /// The side that this process was started for; `None` in the process that measures.
    pub(crate) fn of_this_process() -> Option<Side> {
        match env::var(SIDE_VARIABLE).ok()?.as_str() {
            "ours" => Some(Side::Ours),
            "bare" => Some(Side::Bare),
            _ => None,
        }
    }

    fn in_another_process(self) -> Result<Figures> {
        let name = match self {
            Side::Ours => "ours",
            Side::Bare => "bare",
        };
        let mut command = Command::new(env::current_exe().context("no path to this executable")?);
        let output = command.env(SIDE_VARIABLE, name).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the process of {ACTORS} actors: {}: {told}", output.status);
        serde_json::from_slice(&output.stdout).context("the figures of many actors")
    }

    /// Prints the figures of this side.
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Side::Ours => mobula::run_main(async { print(ours().await) }),
            Side::Bare => match print(System::new().block_on(bare())) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            },
        }
    }
}

fn print(figures: Result<Figures>) -> Result<(), String> {
    let figures = figures.map_err(|error| format!("{error:#}"))?;
    println!("{}", serde_json::to_string(&figures).map_err(|error| error.to_string())?);
    Ok(())
}

async fn ours() -> Result<Figures> {
    let cluster = Cluster::connect().await?;
    cluster.spawn(Counter::spec(0)).await?.ask(Add { by: 1 }).await?;
    let before = memory::resident_bytes()?;
    let begun = Instant::now();
    let counters: Vec<_> = stream::iter(0..ACTORS)
        .map(|_| cluster.spawn(Counter::spec(0)))
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await?;
    let figures = figures(before, begun)?;
    // They are all there: each answers, one among many is asked.
    for counter in counters.iter().step_by(ACTORS / 100) {
        ensure!(counter.ask(Add { by: 1 }).await? == 1, "a counter had counted before");
    }
    cluster.shutdown().await;
    Ok(figures)
}

async fn bare() -> Result<Figures> {
    Counter::new(0).start().send(Add { by: 1 }).await?;
    let before = memory::resident_bytes()?;
    let begun = Instant::now();
    let counters: Vec<_> = (0..ACTORS).map(|_| Counter::new(0).start()).collect();
    // Behind all the others on their arbiter: they have started when it answers.
    Counter::new(0).start().send(Add { by: 1 }).await?;
    let figures = figures(before, begun)?;
    for counter in counters.iter().step_by(ACTORS / 100) {
        ensure!(counter.send(Add { by: 1 }).await? == 1, "a counter had counted before");
    }
    Ok(figures)
}

fn figures(before: u64, begun: Instant) -> Result<Figures> {
    let spawns_per_second = ACTORS as f64 / begun.elapsed().as_secs_f64();
    let bytes_per_actor = (memory::resident_bytes()?.saturating_sub(before)) as f64 / ACTORS as f64;
    Ok(Figures { bytes_per_actor, spawns_per_second })
}
