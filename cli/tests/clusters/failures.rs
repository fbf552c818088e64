//! What is left of a cluster when its processes are killed or frozen: the head, a node, workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::common::{Cluster, LONG, Process, Program, Signal, outside, until, wait_until};

/// `answered: node-1=17 node-2=18`, without those that the test does not look at.
pub(crate) fn answered(line: &str) -> Option<Vec<(String, u32)>> {
    let words = line.strip_prefix("answered: ")?.split(' ');
    words.map(|word| word.split_once('=').and_then(|(node, pid)| Some((node.to_owned(), pid.parse().ok()?)))).collect()
}

/// Waits until the last word of the rounds is about exactly these nodes.
pub(crate) fn wait_for_round(program: &Program, nodes: &[&str]) -> Vec<(String, u32)> {
    until(&format!("a round of {nodes:?}"), || {
        let text = program.stdout();
        let last = text.lines().filter_map(answered).next_back()?;
        last.iter().map(|(node, _)| node.as_str()).eq(nodes.iter().copied()).then_some(last)
    })
}

#[test]
fn traffic_goes_on_while_the_head_is_dead_and_nothing_is_forgotten() {
    let mut cluster = Cluster::patient(2);
    let over = cluster.path("over");
    let mut driver = Program::start(outside(&cluster.head.home).arg("rounds").arg(&over));
    let before = wait_for_round(&driver, &["head", "node-1", "node-2"]);
    let job = cluster.view()["jobs"][0]["id"].clone();
    cluster.head.kill();
    // What ran on the head's host is gone with it; the others are the same processes, and answer.
    let without = wait_for_round(&driver, &["node-1", "node-2"]);
    assert_eq!(without[..], before[1..]);
    cluster.head.start_again(None);
    cluster.wait_for_nodes(3);
    let view = cluster.wait_for("the job is known", |view| view["jobs"][0]["phase"] == "running");
    assert_eq!(view["jobs"][0]["id"], job);
    let after = wait_for_round(&driver, &["head", "node-1", "node-2"]);
    assert_eq!(after[1..], before[1..], "{}\n{}", driver.stdout(), cluster.node("node-1").log());
    assert_ne!(after[0], before[0]);
    std::fs::write(&over, "").expect("writable");
    assert!(driver.end().ok().contains("the rounds are over"));
    cluster.wait_for("the job is over", |view| view["jobs"][0]["phase"] == "succeeded");
}

/// So long the head is away, unless this says otherwise.
const ABSENCE: (&str, u64) = ("MOBULA_TEST_ABSENCE_MS", 5_000);

#[test]
#[expect(clippy::disallowed_methods, reason = "the head is away for a time")]
fn calls_go_on_while_the_head_is_away_for_five_seconds() {
    let absence = std::env::var(ABSENCE.0).ok().and_then(|text| text.parse().ok()).unwrap_or(ABSENCE.1);
    let absence = Duration::from_millis(absence);
    // Leases as they are by default.
    let mut cluster = Cluster::of(2);
    let over = cluster.path("over");
    let mut driver = Program::start(outside(&cluster.head.home).arg("asks").arg(&over).arg("head"));
    let both = |counts: &[(String, u64)]| counts.len() == 2 && counts.iter().all(|(_, count)| *count > 0);
    until("answers of both nodes", || asked(&driver).filter(|counts| both(counts)));
    let token = cluster.token(&[]);
    let job = cluster.view()["jobs"][0]["id"].clone();
    cluster.head.kill();
    let (killed, before) = (Instant::now(), asked(&driver).expect("it tells"));
    // While it is away all are asked, and none is silent for long.
    let (mut last, mut rose) = (before.clone(), vec![Instant::now(); 2]);
    wait_until(LONG, "the time is over", || {
        let now = asked(&driver).expect("it tells");
        for (at, (count, known)) in now.iter().zip(&last).enumerate() {
            if count.1 > known.1 {
                rose[at] = Instant::now();
            }
        }
        last = now;
        assert!(rose.iter().all(|at| at.elapsed() < Duration::from_secs(4)), "silent: {last:?}");
        killed.elapsed() >= absence
    });
    cluster.head.start_again(None);
    let back = killed.elapsed();
    cluster.wait_for_nodes(3);
    let whole = killed.elapsed();
    let during: u64 = last.iter().zip(&before).map(|(now, before)| now.1 - before.1).sum();
    // What was acknowledged is known, and the job is the same.
    let id = token.split('.').nth(2).expect("a token's id");
    assert!(cluster.run(&["token", "list"]).ok().contains(id));
    let view = cluster.wait_for("the job is known", |view| view["jobs"][0]["phase"] == "running");
    assert_eq!(view["jobs"][0]["id"], job);
    let after = asked(&driver).expect("it tells");
    until("they go on", || asked(&driver).filter(|now| now.iter().zip(&after).all(|(now, after)| now.1 > after.1)));
    std::fs::write(&over, "").expect("writable");
    let ended = driver.end();
    let failed: Vec<_> = ended.ok().lines().filter(|line| line.starts_with("failed: ")).collect();
    let longest = ended.stdout.lines().find(|line| line.starts_with("the longest ask took")).expect("it tells");
    println!(
        "the head was away for {back:?}, all nodes were up after {whole:?}: {during} asks meanwhile, {} failed, {longest}",
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(during > 0);
}

/// How many answers the driver of `asks` has had of each node.
pub(crate) fn asked(driver: &Program) -> Option<Vec<(String, u64)>> {
    let text = driver.stdout();
    let line = text.lines().filter_map(|line| line.strip_prefix("asked: ")).next_back()?;
    line.split(' ')
        .map(|word| word.split_once('=').and_then(|(node, n)| Some((node.to_owned(), n.parse().ok()?))))
        .collect()
}

/// What an operator copies of a head's home.
const COPIED: [&str; 3] = ["identity/authority", "identity/members", "head.redb"];

#[test]
fn a_head_that_begins_with_an_older_copy_keeps_the_nodes_and_ends_what_it_does_not_know() {
    let mut cluster = Cluster::patient(2);
    cluster.run(&["stop"]).ok();
    cluster.head.end().ok();
    let copy = cluster.path("copy");
    std::fs::create_dir_all(copy.join("identity")).expect("room");
    let lives = |cluster: &Cluster| {
        let view = cluster.view();
        let nodes = view["nodes"].as_array().expect("a list").iter();
        let up = nodes.filter(|node| node["phase"] == "up" && node["name"] != "head");
        up.map(|node| (node["name"].to_string(), node["uid"].to_string())).collect::<BTreeMap<_, _>>()
    };
    for name in COPIED {
        std::fs::copy(cluster.head.home.join(name), copy.join(name)).expect("it was written");
    }
    // Nodes hear of a later term than the copy knows, and start what it knows nothing of.
    cluster.head.start_again(None);
    cluster.wait_for_nodes(3);
    let (before, over) = (lives(&cluster), cluster.path("over"));
    let mut unknown = Program::start(outside(&cluster.head.home).arg("rounds").arg(&over));
    wait_for_round(&unknown, &["head", "node-1", "node-2"]);
    let processes: Vec<_> = cluster.nodes.iter().flat_map(|node| node.job_processes()).collect();
    assert_eq!(processes.len(), 2);
    cluster.head.kill();
    for name in COPIED {
        std::fs::copy(copy.join(name), cluster.head.home.join(name)).expect("room");
    }
    cluster.head.start_again(None);
    cluster.wait_for_nodes(3);
    until("what it does not know has ended", || (!processes.iter().any(Process::is_running)).then_some(()));
    std::fs::write(&over, "").expect("writable");
    unknown.end().ok();
    assert_eq!(lives(&cluster), before, "the same lives");
    // The number is given again, and all nodes do what they are told.
    let ended = cluster.submit(&["sum", "10"]);
    assert!(ended.ok().contains("nodes: head node-1 node-2"), "{ended:?}");
    assert_eq!(cluster.view()["jobs"][0]["id"], "job-1");
}

#[test]
fn nodes_outlive_the_head_with_jobs_whose_variables_are_more_than_a_message() {
    const JOBS: usize = 6;
    // As much as the command line takes in one word, twice.
    let (first, second) = (format!("FIRST={}", "x".repeat(100 * 1024)), format!("SECOND={}", "y".repeat(100 * 1024)));
    let mut cluster = Cluster::patient(1);
    let program = crate::common::job_program().display().to_string();
    let over = cluster.path("over").display().to_string();
    let submit = ["job", "submit", "--no-wait", "--env", &first, "--env", &second, &program, "--", "rounds", &over];
    for _ in 0..JOBS {
        cluster.run(&submit).ok();
    }
    let all_ready = |view: &serde_json::Value| {
        let ready = view["workers"].as_array().expect("a list").iter().filter(|worker| worker["phase"] == "ready");
        ready.count() == 2 * JOBS
    };
    cluster.wait_for("a worker of each job on both nodes", all_ready);
    let pids = |cluster: &mut Cluster| -> std::collections::BTreeSet<u32> {
        cluster.node("node-1").job_processes().iter().map(|process| process.pid).collect()
    };
    let before = pids(&mut cluster);
    assert_eq!(before.len(), 2 * JOBS, "a worker and a driver of each: {}", cluster.node("node-1").log());

    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.wait_for_nodes(2);
    cluster.wait_for("a worker of each job on both nodes again", all_ready);
    assert_eq!(pids(&mut cluster), before, "{}", cluster.node("node-1").log());
    std::fs::write(&over, "").expect("writable");
    for job in 1..=JOBS {
        cluster.wait_for_job(&format!("job-{job}"), "succeeded");
    }
}

#[test]
fn a_command_that_waits_for_a_job_goes_on_when_the_head_is_back() {
    let mut cluster = Cluster::patient(2);
    let over = cluster.path("over");
    let mut submit = cluster.begin_job(&["rounds", &over.display().to_string()]);
    let all = wait_for_round(&submit, &["head", "node-1", "node-2"]);
    cluster.head.kill();
    cluster.head.start_again(None);
    // It was printed while there was no head, or soon after, and has waited for it.
    submit.line("what was printed without a head", |line| answered(line).is_some_and(|round| round == all[1..]));
    cluster.wait_for_nodes(3);
    std::fs::write(&over, "").expect("writable");
    let ended = submit.end();
    assert!(ended.ok().contains("the rounds are over"), "{ended:?}");
    let told: Vec<_> = ended.stdout.lines().filter_map(answered).collect();
    assert!(told.windows(2).all(|two| two[0] != two[1]), "a line came twice: {ended:?}");
}

#[test]
fn a_killed_worker_is_told_to_its_callers_and_started_again() {
    let cluster = Cluster::of(2);
    // More for a figure: the time does not depend on how many there are.
    let jobs = std::env::var("MOBULA_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut told = Vec::new();
    for _ in 0..jobs {
        let program = std::env::current_exe().expect("Linux");
        let built = program.parent().and_then(|deps| deps.parent()).expect("a build directory");
        let program = built.join("examples/kill_program");
        let mut command = crate::common::mobula(&cluster.head.home);
        let ended = Program::start(command.args(["job", "submit"]).arg(program)).end();
        let lines = ended.ok().lines().filter_map(|line| line.split_once("told after "));
        told.extend(lines.filter_map(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok()));
    }
    assert_eq!(told.len(), 3 * jobs);
    told.sort_unstable();
    let (median, p99) = (told[told.len() / 2], told[(told.len() * 99 / 100).min(told.len() - 1)]);
    println!("{} kills: median {median} us, p99 {p99} us, worst {:?} us", told.len(), told.last());
    // Of a few one that waits for the processor says nothing of the others.
    let promised = if told.len() >= 100 { Duration::from_millis(200) } else { LONG };
    assert!(u128::from(p99) < promised.as_micros(), "p99 of {} kills: {p99} us", told.len());
}

#[test]
fn a_killed_node_takes_its_workers_along_and_is_down_after_its_lease() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--lease", "1s"]);
    cluster.join("node-1", &[]);
    cluster.join("node-2", &[]);
    cluster.wait_for_nodes(3);
    let over = cluster.path("over");
    let mut driver = Program::start(outside(&cluster.head.home).arg("rounds").arg(&over));
    let before = wait_for_round(&driver, &["head", "node-1", "node-2"]);
    let worker = Process::of(before[1].1);
    cluster.node("node-1").kill();
    wait_for_round(&driver, &["head", "node-2"]);
    until("the worker of the killed node has ended", || (!worker.is_running()).then_some(()));
    cluster.wait_for("the node is down", |view| {
        view["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "node-1" && node["phase"] == "down"))
    });
    std::fs::write(&over, "").expect("writable");
    assert!(driver.end().ok().contains("the rounds are over"));
}

#[test]
fn a_node_that_was_frozen_past_its_lease_ends_itself_and_all_that_ran_on_it() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--lease", "1s"]);
    cluster.join("node-1", &[]);
    cluster.wait_for_nodes(2);
    let over = cluster.path("over");
    let mut driver = Program::start(outside(&cluster.head.home).arg("rounds").arg(&over));
    let before = wait_for_round(&driver, &["head", "node-1"]);
    let worker = Process::of(before[1].1);
    cluster.node("node-1").freeze();
    cluster.wait_for("the node is down", |view| {
        view["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "node-1" && node["phase"] == "down"))
    });
    // The head gives it up; the driver stops to use its worker.
    wait_for_round(&driver, &["head"]);
    cluster.node("node-1").thaw();
    let ended = cluster.node("node-1").end();
    ended.fails(70, &["lease"]);
    until("its worker has ended", || (!worker.is_running()).then_some(()));
    std::fs::write(&over, "").expect("writable");
    assert!(driver.end().ok().contains("the rounds are over"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "certificates end by the clock")]
fn a_job_outlives_the_certificates_of_its_processes() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--certificate-life", "10s"]);
    cluster.join("node-1", &["--num-cpus", "1"]);
    cluster.wait_for_nodes(2);
    let over = cluster.path("over");
    let begun = Instant::now();
    let mut driver = Program::start(outside(&cluster.head.home).arg("rounds").arg(&over));
    let before = wait_for_round(&driver, &["head", "node-1"]);
    let is_over = || begun.elapsed() > Duration::from_secs(11);
    wait_until(LONG, "the end of the first certificates", is_over);
    // Another process takes its place: it lets the driver in, and is let in by the worker of the head.
    Process::of(before[1].1).signal(Signal::KILL);
    until("a round with another process", || {
        let round = wait_for_round(&driver, &["head", "node-1"]);
        (round[1].1 != before[1].1 && round[0] == before[0]).then_some(())
    });
    // The node and the driver are let in by the head.
    assert!(cluster.submit(&["sum", "5"]).ok().contains("nodes: head node-1"));
    std::fs::write(&over, "").expect("writable");
    assert!(driver.end().ok().contains("the rounds are over"));
    cluster.wait_for("the jobs are over", |view| {
        view["jobs"].as_array().is_some_and(|jobs| jobs.iter().all(|job| job["phase"] == "succeeded"))
    });
}
