//! The program that the tests of the command submit. Its first argument says what its driver does:
//!
//! - `sum N`: the sum of the squares of 1 to N, by tasks; an actor on each node says where it is, on standard output and standard error.
//! - `panic`, `exit CODE`: a driver that fails.
//! - `worker-panic`: an actor that fails, which its driver survives.
//! - `rounds FILE`: asks an actor on each node, again and again, until FILE is there; tells which nodes have answered whenever that changes.
//! - `asks FILE NODE`: asks an actor on each node but NODE, as fast as they answer, until FILE is there; tells how many answers there are, and which ask fails.
//! - `at ADDRESS ..`: the same as the rest says, on the cluster that is named.
//! - `strays FILE`: starts a process in a session of its own, here and on each node, says which, and waits until FILE is there.
//! - `env NAME`: what the environment says, here and on each node.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula::prelude::*;

struct Guest {
    node: String,
    asked: u64,
}

#[mobula::actor]
impl Guest {
    fn new(node: String) -> Self {
        Guest { node, asked: 0 }
    }

    /// How often it was asked, this time included.
    fn count(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn greet(&self) -> u32 {
        println!("hello from {}", self.node);
        eprintln!("complaint from {}", self.node);
        std::process::id()
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn stray(&self) -> std::result::Result<u32, String> {
        stray().map_err(|error| error.to_string())
    }

    fn variable(&self, name: String) -> Option<String> {
        std::env::var(name).ok()
    }

    fn fail(&self) {
        panic!("a guest that was told to fail")
    }
}

#[mobula::task]
fn square(x: u64) -> u64 {
    x * x
}

/// So long the driver gives an actor whose node may have gone.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

#[mobula::main]
async fn main() -> mobula::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (cluster, words) = match words.split_first_chunk() {
        Some((["at", address], words)) => (Cluster::builder().address(*address).connect().await?, words),
        _ => (Cluster::connect().await?, &words[..]),
    };
    match words[..] {
        ["sum", n] => sum(&cluster, n.parse()?).await?,
        ["panic"] => panic!("the driver was told to fail"),
        ["exit", code] => return Ok(ExitCode::from(code.parse::<u8>()?)),
        ["worker-panic"] => worker_panic(&cluster).await?,
        ["rounds", file] => rounds(&cluster, Path::new(file)).await,
        ["asks", file, but] => asks(&cluster, Path::new(file), but).await?,
        ["strays", file] => strays(&cluster, Path::new(file)).await?,
        ["env", name] => env(&cluster, name).await?,
        _ => return Err(format!("{words:?} is nothing that this program does").into()),
    }
    cluster.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn sum(cluster: &Cluster, n: u64) -> mobula::Result<()> {
    let mut names = Vec::new();
    for node in cluster.nodes() {
        let guest = cluster.spawn(Guest::actor(node.id.name.to_string()).node_affinity(&node.id)).await?;
        assert_eq!(guest.greet().await?, node.pid);
        names.push(node.id.name.to_string());
    }
    names.sort();
    println!("nodes: {}", names.join(" "));
    let mut sum = 0;
    for square in cluster.submit_all((1..=n).map(square::task)) {
        sum += square.await?;
    }
    println!("sum: {sum}");
    eprintln!("the driver is done");
    Ok(())
}

async fn worker_panic(cluster: &Cluster) -> mobula::Result<()> {
    let guest = cluster.spawn(Guest::actor("one".to_owned())).await?;
    match guest.fail().await {
        Err(error) => println!("the guest said: {error}"),
        Ok(()) => return Err("a guest that fails was well".into()),
    }
    Ok(())
}

async fn rounds(cluster: &Cluster, end: &Path) {
    let mut guests: BTreeMap<NodeId, ActorRef<Guest>> = BTreeMap::new();
    let mut told = String::new();
    while !end.exists() {
        let nodes: Vec<_> = cluster.nodes().into_iter().filter(|node| node.alive).collect();
        guests.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        for node in &nodes {
            if !guests.contains_key(&node.id) {
                let name = node.id.name.to_string();
                if let Ok(guest) = cluster.spawn(Guest::actor(name).node_affinity(&node.id)).await {
                    guests.insert(node.id.clone(), guest);
                }
            }
        }
        let mut answered = Vec::new();
        for (id, guest) in &guests {
            if let Ok(Ok(pid)) = tokio::time::timeout(PATIENCE, guest.pid()).await {
                answered.push(format!("{}={pid}", id.name));
            }
        }
        answered.sort();
        let now = format!("answered: {}", answered.join(" "));
        if now != told {
            println!("{now}");
            told = now;
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("the rounds are over");
}

/// What one caller has had so far.
#[derive(Default)]
struct Asked {
    answers: AtomicU64,
    longest_us: AtomicU64,
    is_over: AtomicBool,
}

async fn asks(cluster: &Cluster, end: &Path, but: &str) -> mobula::Result<()> {
    let (mut all, mut callers) = (BTreeMap::new(), Vec::new());
    while !end.exists() {
        let others = cluster.nodes().into_iter().filter(|node| node.alive && *node.id.name != *but);
        // Its first life on each: what comes later is another actor.
        for id in others.map(|node| node.id).filter(|id| !all.contains_key(&*id.name)).collect::<Vec<_>>() {
            let name = id.name.to_string();
            if let Ok(guest) = cluster.spawn(Guest::actor(name.clone()).node_affinity(&id)).await {
                let asked = Arc::new(Asked::default());
                callers.push(tokio::spawn(ask_on(name.clone(), guest, Arc::clone(&asked))));
                all.insert(name, asked);
            }
        }
        let counts = all.iter().map(|(name, asked)| format!("{name}={}", asked.answers.load(Ordering::Relaxed)));
        println!("asked: {}", counts.collect::<Vec<_>>().join(" "));
        tokio::time::sleep(PAUSE).await;
    }
    all.values().for_each(|asked| asked.is_over.store(true, Ordering::Relaxed));
    for caller in callers {
        caller.await?;
    }
    let longest = all.values().map(|asked| asked.longest_us.load(Ordering::Relaxed)).max().unwrap_or_default();
    println!("the longest ask took {longest} us");
    Ok(())
}

/// Asks one actor until it fails, or has forgotten how often it was asked.
#[expect(clippy::disallowed_methods, reason = "a measure reads the clock")]
async fn ask_on(name: String, guest: ActorRef<Guest>, asked: Arc<Asked>) {
    while !asked.is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answer = guest.count().await;
        let took = begun.elapsed();
        let expected = asked.answers.load(Ordering::Relaxed) + 1;
        match answer {
            Ok(count) if count == expected => {}
            Ok(count) => return println!("failed: {name} counts {count} and not {expected}"),
            Err(error) => return println!("failed: {name} after {} ms: {error}", took.as_millis()),
        }
        asked.answers.store(expected, Ordering::Relaxed);
        asked.longest_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // The machine is for others, too.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Its id.
fn stray() -> std::io::Result<u32> {
    use std::process::{Command, Stdio};
    let mut command = Command::new("setsid");
    let command = command.args(["sleep", "600"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?.id())
}

async fn strays(cluster: &Cluster, end: &Path) -> mobula::Result<()> {
    println!("stray: driver {} {}", std::process::id(), stray()?);
    for node in cluster.nodes() {
        let guest = cluster.spawn(Guest::actor(node.id.name.to_string()).node_affinity(&node.id)).await?;
        let stray = guest.stray().await.map_err(|error| format!("{error:?}"))?;
        println!("stray: {} {} {stray}", node.id.name, node.pid);
    }
    while !end.exists() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn env(cluster: &Cluster, name: &str) -> mobula::Result<()> {
    println!("driver: {:?}", std::env::var(name).ok());
    for node in cluster.nodes() {
        let guest = cluster.spawn(Guest::actor(node.id.name.to_string()).node_affinity(&node.id)).await?;
        println!("{}: {:?}", node.id.name, guest.variable(name.to_owned()).await?);
    }
    Ok(())
}
