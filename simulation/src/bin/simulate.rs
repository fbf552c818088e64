//! Runs clusters from seeds and says which promise a seed breaks.
//! Run:    cargo run --release --bin simulate -- --seeds 1000
//! Replay: cargo run --release --bin simulate -- --seed 17
//! Whole nodes: the same with --tier 1
//! Prints: 1000 seeds, 0 failed; .. (see docs/testing.md)

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mobula_core::planted::{BUGS, Bug, HEAD_BUGS, IDENTITY_BUGS, NODE_BUGS};
use mobula_simulation::campaign::{Failure, Summary, Tier};
use mobula_simulation::kind::{self, Counts, Kind};
use mobula_simulation::params::{Params, SECOND};
use mobula_simulation::reach::{Branch, Branches, Reached};
use mobula_simulation::shrink::{shrink, shrink_kind};
use mobula_simulation::{Report, head, identity};

/// Whole clusters from a seed, in virtual time, under faults.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Args {
    /// What is real: 0, the decisions alone; 1, whole nodes on a simulated network.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    tier: u8,
    /// Which world: clusters of links and actors, the head of a cluster of hosts, or (tier 0 alone) who belongs to a cluster.
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

/// A world.
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
        World::Head if args.tier == 1 => return other_world::<head::tier1::Kind>(&args),
        World::Identity if args.tier == 1 => anyhow::bail!("the world of identities is one of tier 0"),
        World::Head => return other_world::<head::Kind>(&args),
        World::Identity => return other_world::<identity::Kind>(&args),
        World::Links => {}
    }
    if args.planted_table {
        return planted_table(&args);
    }
    match args.seed {
        Some(seed) => Ok(replay(args.tier(), seed, args.json)),
        None => campaign(&args),
    }
}

fn replay(tier: Tier, seed: u64, json: bool) -> ExitCode {
    let params = tier.draw(seed);
    let Report { violation, hash, lasted, facts, lines, .. } = tier.run_caught(&params, true);
    let report: kind::Report<(), Branch> =
        kind::Report { violation, hash, facts, lasted, counts: (), reached: Reached::default(), lines };
    show_trace(seed, report, json, || show_world(&params))
}

/// What came of one seed, and before it the world, where people read it.
fn show_trace<C, B>(seed: u64, report: kind::Report<C, B>, json: bool, show_world: impl FnOnce()) -> ExitCode {
    let kind::Report { violation, hash, facts, lasted, lines, .. } = report;
    let broken = violation.is_some();
    if json {
        let object = serde_json::json!({
            "seed": seed,
            "hash": format!("{hash:016x}"),
            "lasted_s": lasted as f64 / SECOND as f64,
            "facts": facts,
            "promise": violation.as_ref().map(|violation| violation.promise),
            "violation": violation.map(|violation| violation.what),
            "trace": lines,
        });
        println!("{object}");
    } else {
        show_world();
        lines.iter().for_each(|line| println!("{line}"));
        println!("{facts} facts in {:.3} s, hash {hash:016x}", lasted as f64 / 1e6);
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The same for a world that is no cluster of links.
fn other_world<K: Kind>(args: &Args) -> anyhow::Result<ExitCode>
where
    K::Counts: Send,
    K::Branch: Send,
{
    if let Some(seed) = args.seed {
        let params = K::draw(seed);
        return Ok(show_trace(seed, K::run_caught(&params, true), args.json, || println!("{params:?}")));
    }
    if args.planted_table {
        return planted_world::<K>(args);
    }
    let begun = now();
    let next = seeds(args)?;
    let mut sum = kind::Summary::<K>::default();
    let work = || {
        let mut summary = kind::Summary::<K> { compares_all: args.every_hash, ..kind::Summary::default() };
        while let Some(seed) = next() {
            summary.run_seed(seed);
        }
        summary
    };
    on_threads(args.jobs, work, |summary| sum.add(summary))?;
    Ok(show_sum(args, now().duration_since(begun).as_secs_f64(), &sum))
}

fn show_sum<K: Kind>(args: &Args, took: f64, sum: &kind::Summary<K>) -> ExitCode {
    let (hours, speed) = (sum.lasted as f64 / 3.6e9, sum.lasted as f64 / 1e6 / took);
    let counted = sum.counts.named();
    let unreached = sum.unreached();
    if args.json {
        let mut object = serde_json::json!({
            "seeds": sum.seeds,
            "failures": in_order(&sum.failures).into_iter().map(failed).collect::<Vec<_>>(),
            "cluster_hours": hours,
            "facts": sum.facts,
            "seconds": took,
            "times_real_time": speed,
            "traces_compared": sum.compared,
            "branches": by_branch(&sum.reached),
            "never_reached": unreached,
        });
        counted.iter().for_each(|(name, count)| object[*name] = (*count).into());
        println!("{object}");
    } else {
        let counted: String =
            counted.iter().map(|(name, count)| format!("{count} {}, ", name.replace('_', " "))).collect();
        println!(
            "{} seeds, {} failed; {hours:.2} h of clusters, {counted}{} facts in {took:.1} s: {speed:.0} times real \
             time; {} traces compared",
            sum.seeds,
            sum.failures.len(),
            sum.facts,
            sum.compared,
        );
        show_branches(&sum.reached, &unreached, args.branches);
        show_failures(&sum.failures);
        if let Some(failure) = first(&sum.failures) {
            let (small, tries) = shrink_kind::<K>(&K::draw(failure.seed), failure.violation.promise);
            println!("\nseed {}, made smaller in {tries} tries:\n{small:?}", failure.seed);
            K::run_caught(&small, true).lines.iter().for_each(|line| println!("{line}"));
        }
    }
    if sum.failures.is_empty() && unreached.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show_branches<B: Branches>(reached: &Reached<B>, unreached: &[&str], all: bool) {
    if all {
        reached.counts().for_each(|(branch, count)| println!("{count:>10}  {branch}"));
    }
    unreached.iter().for_each(|branch| println!("never reached: {branch}"));
}

fn by_branch<B: Branches>(reached: &Reached<B>) -> std::collections::BTreeMap<&'static str, u64> {
    reached.counts().collect()
}

fn first(failures: &[Failure]) -> Option<&Failure> {
    failures.iter().min_by_key(|failure| failure.seed)
}

fn in_order(failures: &[Failure]) -> Vec<&Failure> {
    let mut failures: Vec<_> = failures.iter().collect();
    failures.sort_by_key(|failure| failure.seed);
    failures
}

fn show_failures(failures: &[Failure]) {
    for Failure { seed, violation } in in_order(failures).into_iter().take(20) {
        println!("seed {seed}: {}: {}", violation.promise, violation.what);
    }
}

fn failed(Failure { seed, violation }: &Failure) -> serde_json::Value {
    serde_json::json!({ "seed": seed, "promise": violation.promise, "violation": violation.what })
}

/// The seeds that were asked for, each given to one who asks.
fn seeds(args: &Args) -> anyhow::Result<impl Fn() -> Option<u64> + Sync> {
    let end = args.from.checked_add(args.seeds).context("--from and --seeds together pass the largest seed")?;
    let next = AtomicU64::new(args.from);
    Ok(move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end))
}

/// Does `work` on so many threads, and adds up what each gave.
fn on_threads<S: Send>(jobs: u16, work: impl Fn() -> S + Sync, mut add: impl FnMut(S)) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(&work)).collect();
        for thread in threads {
            add(thread.join().map_err(|_| anyhow::anyhow!("a thread of the simulator panicked"))?);
        }
        Ok(())
    })
}

/// For each bug of a kind of worlds: runs of seeds from different beginnings, each until it is found.
fn planted_world<K: Kind>(args: &Args) -> anyhow::Result<ExitCode> {
    let mut table = PlantedTable::begin();
    for (_, name, text) in BUGS.iter().filter(|(bug, ..)| K::BUGS.contains(bug)) {
        plant(Some(name))?;
        table.line(args, name, text, |from| {
            let mut summary = kind::Summary::<K>::default();
            until_found(args, from, |seed| {
                summary.run_seed(seed);
                summary.failures.first().map(|failure| failure.violation.promise)
            })
        });
        plant(None)?;
    }
    Ok(table.end())
}

/// How many seeds it takes from one on, and which promise is broken.
fn until_found(
    args: &Args,
    from: u64,
    mut run: impl FnMut(u64) -> Option<&'static str>,
) -> Option<(u64, &'static str)> {
    (from..from + args.seeds).find_map(|seed| Some((seed - from + 1, run(seed)?)))
}

fn campaign(args: &Args) -> anyhow::Result<ExitCode> {
    let begun = now();
    let bar = if std::io::stderr().is_terminal() && !args.json {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}")?;
        ProgressBar::new(args.seeds).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let summary = run_seeds(args, &bar)?;
    bar.finish_and_clear();
    let took = now().duration_since(begun);
    let unreached = summary.unreached();
    if args.json {
        println!("{}", json(&summary, took, &unreached));
    } else {
        show(&summary, took, &unreached, args.branches);
        if let Some(failure) = first(&summary.failures) {
            show_shrunk(args.tier(), failure);
        }
    }
    let good = summary.failures.is_empty() && unreached.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the seeds on the threads that were asked for.
fn run_seeds(args: &Args, bar: &ProgressBar) -> anyhow::Result<Summary> {
    let until = args.minutes.map(|minutes| now() + Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e9)));
    let next = seeds(args)?;
    let work = || {
        let mut summary = Summary { compares_all: args.every_hash, ..Summary::of(args.tier()) };
        while until.is_none_or(|until| now() < until) {
            let Some(seed) = next() else { break };
            summary.run_seed(seed);
            bar.inc(1);
            if !summary.failures.is_empty() {
                bar.set_message(format!("{} failed", summary.failures.len()));
            }
        }
        summary
    };
    let mut sum = Summary::of(args.tier());
    on_threads(args.jobs, work, |summary| sum.add(summary))?;
    Ok(sum)
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
    show_branches(&summary.reached, unreached, branches);
    show_failures(&summary.failures);
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
    serde_json::json!({
        "seeds": summary.seeds,
        "failures": summary.failures.iter().map(failed).collect::<Vec<_>>(),
        "cluster_hours": summary.lasted as f64 / 3.6e9,
        "node_hours": summary.node_time as f64 / 3.6e9,
        "calls": summary.calls,
        "facts": summary.facts,
        "seconds": took.as_secs_f64(),
        "times_real_time": summary.lasted as f64 / 1e6 / took.as_secs_f64(),
        "traces_compared": summary.compared,
        "branches": by_branch(&summary.reached),
        "never_reached": unreached,
    })
}

/// For each bug: runs of seeds from different beginnings, each until it is found.
fn planted_table(args: &Args) -> anyhow::Result<ExitCode> {
    let wanted = |bug: &Bug, name: &str| match &args.plant {
        Some(one) => one == name,
        None if args.tier() == Tier::One => NODE_BUGS.contains(bug),
        None => ![HEAD_BUGS, IDENTITY_BUGS, NODE_BUGS].iter().any(|others| others.contains(bug)),
    };
    let mut table = PlantedTable::begin();
    for (_, name, text) in BUGS.iter().filter(|(bug, name, _)| wanted(bug, name)) {
        plant(Some(name))?;
        table.line(args, name, text, |from| {
            let mut summary = Summary::of(args.tier());
            until_found(args, from, |seed| {
                summary.run_seed(seed);
                summary.failures.first().map(|failure| failure.violation.promise)
            })
        });
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
