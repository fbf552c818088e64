//! Runs clusters from seeds and says which promise a seed breaks.
//! Run:    cargo run --release --bin simulate -- --seeds 1000
//! Replay: cargo run --release --bin simulate -- --seed 17
//! Whole nodes: the same with --tier 1
//! Prints: 1000 seeds, 0 failed; .. (see docs/testing.md)

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mobula_core::planted::{BUGS, Bug, HEAD_BUGS};
use mobula_simulation::campaign::{Failure, Summary, Tier};
use mobula_simulation::head;
use mobula_simulation::params::{Params, SECOND};
use mobula_simulation::shrink::shrink;

/// Whole clusters from a seed, in virtual time, under faults.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Args {
    /// What is real: 0, the decisions alone; 1, whole nodes on a simulated network.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    tier: u8,
    /// Which world, of tier 0: clusters of links and actors, or the head of a cluster of hosts.
    #[arg(long, value_enum, default_value_t = World::Links)]
    world: World,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop after so many minutes, whatever is left.
    #[arg(long)]
    minutes: Option<f64>,
    /// Replay this seed and print its trace.
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes"])]
    seed: Option<u64>,
    /// Threads; seeds are independent of each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Print how often each rare branch was taken.
    #[arg(long)]
    branches: bool,
    /// Switch a bug on (feature `planted`).
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Print how many seeds each planted bug needs, or the one that `--plant` names (feature `planted`).
    #[arg(long)]
    planted_table: bool,
}

/// A world of tier 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum World {
    /// Sessions, credits, names, leases, supervisors.
    Links,
    /// The head, nodes, jobs and placement.
    Head,
}

impl Args {
    fn tier(&self) -> Tier {
        if self.tier == 0 { Tier::Zero } else { Tier::One }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    // A panic is reported with its seed; the hook's own text would come once for each try to shrink it.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(name) = &args.plant {
        plant(Some(name))?;
    }
    if args.world == World::Head {
        return head_world(&args);
    }
    if args.planted_table {
        return planted_table(&args);
    }
    match args.seed {
        Some(seed) => replay(args.tier(), seed, args.json),
        None => campaign(&args),
    }
}

fn replay(tier: Tier, seed: u64, json: bool) -> anyhow::Result<ExitCode> {
    let params = tier.draw(seed);
    let report = tier.run_caught(&params, true);
    if json {
        let violation = report.violation.as_ref();
        let object = serde_json::json!({
            "seed": seed,
            "hash": format!("{:016x}", report.hash),
            "lasted_s": report.lasted as f64 / SECOND as f64,
            "facts": report.facts,
            "promise": violation.map(|violation| violation.promise),
            "violation": violation.map(|violation| violation.what.clone()),
            "trace": report.lines,
        });
        println!("{object}");
    } else {
        show_world(&params);
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("{} facts in {:.3} s, hash {:016x}", report.facts, report.lasted as f64 / 1e6, report.hash);
    }
    Ok(if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The same for the world of the head.
fn head_world(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(seed) = args.seed {
        let report = head::replay(seed);
        println!("{:?}", head::Params::draw(seed));
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("{} facts in {:.3} s, hash {:016x}", report.facts, report.lasted as f64 / 1e6, report.hash);
        return Ok(if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if args.planted_table {
        return planted_head(args);
    }
    let begun = now();
    let end = args.from.checked_add(args.seeds).context("--from and --seeds together pass the largest seed")?;
    let (next, mut sum) = (AtomicU64::new(args.from), head::Summary::default());
    let work = || {
        let mut summary = head::Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return summary;
            }
            summary.run_seed(seed);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            sum.add(thread.join().map_err(|_| anyhow::anyhow!("a thread of the simulator panicked"))?);
        }
        anyhow::Ok(())
    })?;
    let took = now().duration_since(begun).as_secs_f64();
    println!(
        "{} seeds, {} failed; {:.2} h of clusters, {} heads killed, {} leases, {} facts in {took:.1} s: {:.0} times real \
         time; {} traces compared",
        sum.seeds,
        sum.failures.len(),
        sum.lasted as f64 / 3.6e9,
        sum.kills,
        sum.leases,
        sum.facts,
        sum.lasted as f64 / 1e6 / took,
        sum.compared,
    );
    sum.failures.sort_by_key(|failure| failure.seed);
    for Failure { seed, violation } in sum.failures.iter().take(20) {
        println!("seed {seed}: {}: {}", violation.promise, violation.what);
    }
    Ok(if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For each bug of the head: seeds until it is found.
fn planted_head(args: &Args) -> anyhow::Result<ExitCode> {
    println!("| bug | what it does | found by | after seeds |");
    println!("|---|---|---|---:|");
    let mut all_found = true;
    for (_, name, text) in BUGS.iter().filter(|(bug, ..)| HEAD_BUGS.contains(bug)) {
        plant(Some(name))?;
        let mut summary = head::Summary::default();
        let found = (args.from..args.from + args.seeds).find(|seed| {
            summary.run_seed(*seed);
            !summary.failures.is_empty()
        });
        plant(None)?;
        all_found &= found.is_some();
        let by = summary.failures.first().and_then(|failure| failure.violation.promise.split(' ').next());
        println!("| {name} | {text} | {} | {} |", by.unwrap_or("nobody"), summary.seeds);
    }
    Ok(if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn campaign(args: &Args) -> anyhow::Result<ExitCode> {
    let begun = now();
    let bar = if std::io::stderr().is_terminal() && !args.json {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}")?;
        ProgressBar::new(args.seeds).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let summary = run_seeds(args, &bar, false)?;
    bar.finish_and_clear();
    let took = now().duration_since(begun);
    let unreached = summary.unreached();
    if args.json {
        println!("{}", json(&summary, took, &unreached));
    } else {
        show(&summary, took, &unreached, args.branches);
        if let Some(failure) = summary.failures.iter().min_by_key(|failure| failure.seed) {
            show_shrunk(args.tier(), failure);
        }
    }
    let good = summary.failures.is_empty() && unreached.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the seeds on the threads that were asked for. With `first_only`, stops at a failure.
fn run_seeds(args: &Args, bar: &ProgressBar, first_only: bool) -> anyhow::Result<Summary> {
    let end = args.from.checked_add(args.seeds).context("--from and --seeds together pass the largest seed")?;
    let until = args.minutes.map(|minutes| now() + Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e9)));
    let (next, stop) = (AtomicU64::new(args.from), AtomicBool::new(false));
    let work = || {
        let mut summary = Summary::of(args.tier());
        while !stop.load(Ordering::Relaxed) && until.is_none_or(|until| now() < until) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            summary.run_seed(seed);
            bar.inc(1);
            if !summary.failures.is_empty() {
                bar.set_message(format!("{} failed", summary.failures.len()));
                stop.store(first_only, Ordering::Relaxed);
            }
        }
        summary
    };
    let mut sum = Summary::of(args.tier());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            sum.add(thread.join().map_err(|_| anyhow::anyhow!("a thread of the simulator panicked"))?);
        }
        Ok(sum)
    })
}

fn show(summary: &Summary, took: Duration, unreached: &[&str], branches: bool) {
    let speed = summary.lasted as f64 / 1e6 / took.as_secs_f64();
    println!(
        "{} seeds, {} failed; {:.2} h of clusters, {:.2} h of nodes, {} calls, {} facts in {:.1} s: {speed:.0} times real time; \
         {} traces compared",
        summary.seeds,
        summary.failures.len(),
        summary.lasted as f64 / 3.6e9,
        summary.node_time as f64 / 3.6e9,
        summary.calls,
        summary.facts,
        took.as_secs_f64(),
        summary.compared,
    );
    if branches {
        summary.reached.counts().for_each(|(branch, count)| println!("{count:>10}  {branch}"));
    }
    unreached.iter().for_each(|branch| println!("never reached: {branch}"));
    let mut failures: Vec<_> = summary.failures.iter().collect();
    failures.sort_by_key(|failure| failure.seed);
    for Failure { seed, violation } in failures.iter().take(20) {
        println!("seed {seed}: {}: {}", violation.promise, violation.what);
    }
}

fn show_shrunk(tier: Tier, failure: &Failure) {
    let (small, tries) = shrink(tier, &tier.draw(failure.seed), failure.violation.promise);
    println!("\nseed {}, made smaller in {tries} tries:", failure.seed);
    show_world(&small);
    tier.run_caught(&small, true).lines.iter().for_each(|line| println!("{line}"));
}

fn show_world(params: &Params) {
    let Params { calls, faults, .. } = params;
    let bare = Params { calls: Vec::new(), faults: Vec::new(), ..params.clone() };
    println!("{bare:?}");
    calls.iter().for_each(|call| println!("  {call:?}"));
    faults.iter().for_each(|fault| println!("  {fault:?}"));
}

fn json(summary: &Summary, took: Duration, unreached: &[&str]) -> serde_json::Value {
    let failure = |failure: &Failure| {
        let Failure { seed, violation } = failure;
        serde_json::json!({ "seed": seed, "promise": violation.promise, "violation": violation.what })
    };
    serde_json::json!({
        "seeds": summary.seeds,
        "failures": summary.failures.iter().map(failure).collect::<Vec<_>>(),
        "cluster_hours": summary.lasted as f64 / 3.6e9,
        "node_hours": summary.node_time as f64 / 3.6e9,
        "calls": summary.calls,
        "facts": summary.facts,
        "seconds": took.as_secs_f64(),
        "times_real_time": summary.lasted as f64 / 1e6 / took.as_secs_f64(),
        "traces_compared": summary.compared,
        "branches": summary.reached.counts().collect::<std::collections::BTreeMap<_, _>>(),
        "never_reached": unreached,
    })
}

/// For each bug: runs of seeds from different beginnings, each until it is found.
fn planted_table(args: &Args) -> anyhow::Result<ExitCode> {
    const RUNS: u64 = 9;
    println!("| bug | what it does | found by | seeds: median | worst of {RUNS} |");
    println!("|---|---|---|---:|---:|");
    let mut all_found = true;
    let wanted = |bug: &Bug, name: &str| match &args.plant {
        Some(one) => one == name,
        None => !HEAD_BUGS.contains(bug),
    };
    for (_, name, text) in BUGS.iter().filter(|(bug, name, _)| wanted(bug, name)) {
        plant(Some(name))?;
        let (mut needed, mut finders) = (Vec::new(), std::collections::BTreeSet::new());
        for run in 0..RUNS {
            let mut summary = Summary::of(args.tier());
            let from = args.from + run * 1_000_000;
            let found = (from..from + args.seeds).find(|seed| {
                summary.run_seed(*seed);
                !summary.failures.is_empty()
            });
            needed.extend(found.map(|seed| seed - from + 1));
            finders.extend(summary.failures.iter().filter_map(|f| f.violation.promise.split(' ').next()));
        }
        plant(None)?;
        needed.sort_unstable();
        let finders: Vec<_> = finders.into_iter().collect();
        let finders = finders.join(", ");
        match (needed.len() as u64 == RUNS, needed.get(needed.len() / 2), needed.last()) {
            (true, Some(median), Some(worst)) => println!("| {name} | {text} | {finders} | {median} | {worst} |"),
            _ => {
                all_found = false;
                println!(
                    "| {name} | {text} | {finders} | found in {} of {RUNS} runs of {} seeds | |",
                    needed.len(),
                    args.seeds
                );
            }
        }
    }
    Ok(if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "planted")]
fn plant(name: Option<&str>) -> anyhow::Result<()> {
    let bug = match name {
        Some(name) => {
            let bug = BUGS.iter().find(|(_, known, _)| *known == name);
            let known = || BUGS.iter().map(|(_, known, _)| *known).collect::<Vec<_>>().join(", ");
            Some(bug.with_context(|| format!("no such bug: {name}; there are: {}", known()))?.0)
        }
        None => None,
    };
    mobula_core::planted::plant(bug);
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(_: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("this build has no planted bugs: add `--features planted`")
}

/// The wall clock, for the speed and for `--minutes`; no world sees it.
fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "how long the simulator itself takes")]
    Instant::now()
}
