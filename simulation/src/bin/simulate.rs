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
use mobula_core::planted::{BUGS, Bug, HEAD_BUGS, IDENTITY_BUGS};
use mobula_simulation::campaign::{Failure, Summary, Tier};
use mobula_simulation::judge::Violation;
use mobula_simulation::params::{Params, SECOND};
use mobula_simulation::shrink::shrink;
use mobula_simulation::{head, identity};

/// Whole clusters from a seed, in virtual time, under faults.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Args {
    /// What is real: 0, the decisions alone; 1, whole nodes on a simulated network.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    tier: u8,
    /// Which world, of tier 0: clusters of links and actors, the head of a cluster of hosts, or who belongs to a cluster.
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
    /// Run every seed twice and compare the hashes of the traces, instead of one seed in 100.
    #[arg(long)]
    every_hash: bool,
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
    /// Join tokens, certificates, and those cut off.
    Identity,
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
    match args.world {
        World::Head => return head_world(&args),
        World::Identity => return identity_world(&args),
        World::Links => {}
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
        let head::Report { violation, hash, facts, lasted, lines, .. } = head::replay(seed);
        let told = Told { violation, hash, facts, lasted, lines };
        return Ok(told.show(args, seed, &format!("{:?}", head::Params::draw(seed))));
    }
    if args.planted_table {
        return planted_world(args, HEAD_BUGS, |seed| {
            let mut summary = head::Summary::default();
            summary.run_seed(seed);
            summary.failures.pop()
        });
    }
    let begun = now();
    let end = args.from.checked_add(args.seeds).context("--from and --seeds together pass the largest seed")?;
    let (next, mut sum) = (AtomicU64::new(args.from), head::Summary::default());
    let work = || {
        let mut summary = head::Summary { compares_all: args.every_hash, ..head::Summary::default() };
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
    let counted = [("heads_killed", sum.kills), ("leases", sum.leases)];
    let outcome = Outcome { seeds: sum.seeds, lasted: sum.lasted, facts: sum.facts, compared: sum.compared };
    Ok(outcome.show(args, took, sum.failures, &counted))
}

/// The same for the world of identities.
fn identity_world(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(seed) = args.seed {
        let identity::Report { violation, hash, facts, lasted, lines, .. } = identity::replay(seed);
        let told = Told { violation, hash, facts, lasted, lines };
        return Ok(told.show(args, seed, &format!("{:?}", identity::Params::draw(seed))));
    }
    if args.planted_table {
        return planted_world(args, IDENTITY_BUGS, |seed| {
            let mut summary = identity::Summary::default();
            summary.run_seed(seed);
            summary.failures.pop()
        });
    }
    let begun = now();
    let end = args.from.checked_add(args.seeds).context("--from and --seeds together pass the largest seed")?;
    let mut sum = identity::Summary { compares_all: args.every_hash, ..identity::Summary::default() };
    (args.from..end).for_each(|seed| sum.run_seed(seed));
    let took = now().duration_since(begun).as_secs_f64();
    let counted = [("joined", sum.joined), ("refused", sum.refused), ("connections_cut", sum.cut)];
    let outcome = Outcome { seeds: sum.seeds, lasted: sum.lasted, facts: sum.facts, compared: sum.compared };
    Ok(outcome.show(args, took, sum.failures, &counted))
}

/// One seed of a world that is no cluster of links.
struct Told {
    violation: Option<Violation>,
    hash: u64,
    facts: u64,
    lasted: u64,
    lines: Vec<String>,
}

impl Told {
    fn show(&self, args: &Args, seed: u64, world: &str) -> ExitCode {
        let violation = self.violation.as_ref();
        if args.json {
            let object = serde_json::json!({
                "seed": seed,
                "hash": format!("{:016x}", self.hash),
                "lasted_s": self.lasted as f64 / SECOND as f64,
                "facts": self.facts,
                "promise": violation.map(|violation| violation.promise),
                "violation": violation.map(|violation| violation.what.clone()),
                "trace": self.lines,
            });
            println!("{object}");
        } else {
            println!("{world}");
            self.lines.iter().for_each(|line| println!("{line}"));
            println!("{} facts in {:.3} s, hash {:016x}", self.facts, self.lasted as f64 / 1e6, self.hash);
        }
        if violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Many seeds of one.
struct Outcome {
    seeds: u64,
    lasted: u64,
    facts: u64,
    compared: u64,
}

impl Outcome {
    fn show(&self, args: &Args, took: f64, mut failures: Vec<Failure>, counted: &[(&str, u64)]) -> ExitCode {
        failures.sort_by_key(|failure| failure.seed);
        let (hours, speed) = (self.lasted as f64 / 3.6e9, self.lasted as f64 / 1e6 / took);
        if args.json {
            let failed = |Failure { seed, violation }: &Failure| serde_json::json!({ "seed": seed, "promise": violation.promise, "violation": violation.what });
            let mut object = serde_json::json!({
                "seeds": self.seeds,
                "failures": failures.iter().map(failed).collect::<Vec<_>>(),
                "cluster_hours": hours,
                "facts": self.facts,
                "seconds": took,
                "times_real_time": speed,
                "traces_compared": self.compared,
            });
            counted.iter().for_each(|(name, count)| object[*name] = (*count).into());
            println!("{object}");
        } else {
            let counted: String =
                counted.iter().map(|(name, count)| format!("{count} {}, ", name.replace('_', " "))).collect();
            println!(
                "{} seeds, {} failed; {hours:.2} h of clusters, {counted}{} facts in {took:.1} s: {speed:.0} times real \
                 time; {} traces compared",
                self.seeds,
                failures.len(),
                self.facts,
                self.compared,
            );
            for Failure { seed, violation } in failures.iter().take(20) {
                println!("seed {seed}: {}: {}", violation.promise, violation.what);
            }
        }
        if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// For each of these bugs: runs of seeds from different beginnings, each until it is found.
fn planted_world(args: &Args, bugs: &[Bug], run: impl Fn(u64) -> Option<Failure>) -> anyhow::Result<ExitCode> {
    let mut table = PlantedTable::begin();
    for (_, name, text) in BUGS.iter().filter(|(bug, ..)| bugs.contains(bug)) {
        plant(Some(name))?;
        let found = |from: u64| {
            let mut seeds = from..from + args.seeds;
            seeds.find_map(|seed| run(seed).map(|failure| (seed - from + 1, failure.violation.promise)))
        };
        table.line(args, name, text, found);
        plant(None)?;
    }
    Ok(table.end())
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
        let mut summary = Summary { compares_all: args.every_hash, ..Summary::of(args.tier()) };
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
    let wanted = |bug: &Bug, name: &str| match &args.plant {
        Some(one) => one == name,
        None => !HEAD_BUGS.contains(bug) && !IDENTITY_BUGS.contains(bug),
    };
    let mut table = PlantedTable::begin();
    for (_, name, text) in BUGS.iter().filter(|(bug, name, _)| wanted(bug, name)) {
        plant(Some(name))?;
        let found = |from: u64| {
            let mut summary = Summary::of(args.tier());
            let seed = (from..from + args.seeds).find(|seed| {
                summary.run_seed(*seed);
                !summary.failures.is_empty()
            })?;
            Some((seed - from + 1, summary.failures.first()?.violation.promise))
        };
        table.line(args, name, text, found);
        plant(None)?;
    }
    Ok(table.end())
}

/// How many seeds each planted bug needs, as a table.
struct PlantedTable {
    all_found: bool,
}

impl PlantedTable {
    const RUNS: u64 = 9;

    fn begin() -> Self {
        println!("| bug | what it does | found by | seeds: median | worst of {} |", Self::RUNS);
        println!("|---|---|---|---:|---:|");
        PlantedTable { all_found: true }
    }

    /// `found` runs seeds from one on, and says how many it took and which promise was broken.
    fn line(&mut self, args: &Args, name: &str, text: &str, found: impl Fn(u64) -> Option<(u64, &'static str)>) {
        let (mut needed, mut finders) = (Vec::new(), std::collections::BTreeSet::new());
        for run in 0..Self::RUNS {
            let Some((seeds, promise)) = found(args.from + run * 1_000_000) else { continue };
            needed.push(seeds);
            finders.extend(promise.split(' ').next());
        }
        needed.sort_unstable();
        let finders: Vec<_> = finders.into_iter().collect();
        let (finders, runs) = (finders.join(", "), needed.len() as u64);
        match (needed.get(needed.len() / 2), needed.last()) {
            (Some(median), Some(worst)) if runs == Self::RUNS => {
                println!("| {name} | {text} | {finders} | {median} | {worst} |");
            }
            _ => {
                self.all_found = false;
                println!(
                    "| {name} | {text} | {finders} | found in {runs} of {} runs of {} seeds | |",
                    Self::RUNS,
                    args.seeds
                );
            }
        }
    }

    fn end(&self) -> ExitCode {
        if self.all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
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
