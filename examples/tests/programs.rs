//! The example programs as their users start them: real processes, from the command line to the exit code.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use mobula_integration_tests::process::{Ended, Process, Program, Signal, wait_until};
use serde_json::Value;

const PRIMES: &str = env!("CARGO_BIN_EXE_primes");
const COUNTER: &str = env!("CARGO_BIN_EXE_counter");
const SQUARE: &str = env!("CARGO_BIN_EXE_square");
const HELLO_ACTOR: &str = env!("CARGO_BIN_EXE_hello_actor");
const KEYED_ACCOUNTS: &str = env!("CARGO_BIN_EXE_keyed_accounts");
const CHAT_GROUPS: &str = env!("CARGO_BIN_EXE_chat_groups");

/// Longer than any of them takes, without optimization and on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

const SUM_TO_10_MILLION: u64 = 3_203_324_994_356;

fn start(program: &str, line: &str) -> Program {
    Program::start(program, line.split_whitespace())
}

/// What a program that succeeds prints.
#[track_caller]
fn prints(program: &str, line: &str) -> String {
    let ended = start(program, line).end(BOUND);
    assert_eq!(ended.status.code(), Some(0), "{line}: {ended:?}");
    assert_eq!(ended.stderr, "", "{line}");
    ended.stdout
}

#[track_caller]
fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Checks the report of a run up to ten million on three nodes. Gives the pids of the workers.
#[track_caller]
fn check_report(report: &Value) -> HashSet<u64> {
    assert_eq!(report["n"], 10_000_000, "{report}");
    assert_eq!(report["sum"], SUM_TO_10_MILLION, "{report}");
    assert_eq!(report["count"], 664_579, "{report}");
    assert_eq!(report["nodes"], 3, "{report}");
    let per_worker = report["per_worker"].as_array().expect("a list");
    assert_eq!(report["workers"], per_worker.len(), "{report}");
    assert!(report["seconds"].as_f64().expect("a number") > 0.0, "{report}");
    let chunks: u64 = per_worker.iter().map(|worker| worker["chunks"].as_u64().expect("a number")).sum();
    assert_eq!(report["chunks"], chunks, "{report}");
    let nodes: HashSet<&str> = per_worker.iter().map(|worker| worker["node"].as_str().expect("a name")).collect();
    assert_eq!(nodes, HashSet::from(["node-1", "node-2", "node-3"]));
    per_worker.iter().map(|worker| worker["pid"].as_u64().expect("a number")).collect()
}

#[test]
fn primes_are_summed_by_three_processes() {
    for (line, workers) in [("", 3), ("--kernel sieve --workers-per-node 2 --chunks 7", 6)] {
        let primes = start(PRIMES, &format!("--n 10000000 --nodes 3 --json {line}"));
        let driver = u64::from(primes.process().pid);
        let ended = primes.end(BOUND);
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{line}");
        let report = json(&ended.stdout);
        let pids = check_report(&report);
        assert_eq!(report["workers"], workers);
        assert_eq!(pids.len(), 3, "{report}");
        assert!(!pids.contains(&driver), "{report}");
    }
}

#[test]
fn the_sum_is_right_though_a_worker_process_is_killed() {
    let primes = start(PRIMES, "--n 10000000 --nodes 3 --kernel trial --json");
    let driver = primes.process();
    let mut nodes = Vec::new();
    wait_until(BOUND, "three node processes", || {
        nodes = driver.children();
        nodes.len() == 3
    });
    // It is in the middle of its third: that takes several times as long.
    wait_until(BOUND, "a busy node", || nodes[1].cpu_time() >= Duration::from_millis(120));
    nodes[1].signal(Signal::KILL);
    let ended = primes.end(BOUND);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lost = format!("(process {}) was lost, its chunks ran elsewhere", nodes[1].pid);
    assert!(ended.stderr.contains(&lost), "{ended:?}");
    let report = json(&ended.stdout);
    let pids = check_report(&report);
    assert!(pids.contains(&u64::from(nodes[1].pid)), "{report}");
    assert!(nodes.iter().all(|node| !node.is_running()), "a node process outlives its driver");
}

#[test]
fn kill_9_of_primes_leaves_no_process() {
    let primes = start(PRIMES, "--n 100000000 --nodes 3 --kernel trial");
    let driver = primes.process();
    let mut nodes = Vec::new();
    wait_until(BOUND, "three node processes", || {
        nodes = driver.children();
        nodes.len() == 3
    });
    wait_until(BOUND, "busy nodes", || nodes.iter().all(|node| node.cpu_time() > Duration::from_millis(100)));
    driver.signal(Signal::KILL);
    let took = wait_until(Duration::from_secs(2), "the nodes' end", || nodes.iter().all(|node| !node.is_running()));
    println!("node processes gone {:.1} ms after kill -9 of their driver", took.as_secs_f64() * 1000.0);
}

#[test]
fn keyed_accounts_keep_their_balances() {
    let ended = start(KEYED_ACCOUNTS, "--accounts 6 --json").end(BOUND);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = json(&ended.stdout);
    for balance in ["deposited", "restored", "moved"] {
        assert_eq!(report[balance], 55, "{report}");
    }
    assert!(report["lost"].as_u64().is_some_and(|lost| (1..=6).contains(&lost)), "{report}");
}

#[test]
fn a_chat_room_is_heard_by_its_members() {
    let ended = start(CHAT_GROUPS, "--room rust --json").end(BOUND);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = json(&ended.stdout);
    assert_eq!((&report["first"], &report["second"]), (&"ada, ben, cyd".into(), &"ada, cyd".into()), "{report}");
}

/// Runs a program that has to refuse: it exits with an error, prints no result, and its message contains `texts`.
#[track_caller]
fn refuses(program: &str, line: &str, texts: &[&str]) {
    let Ended { status, stdout, stderr } = start(program, line).end(BOUND);
    // Neither a panic nor a signal.
    assert!(status.code().is_some_and(|code| (1..101).contains(&code)), "{line}: {status}");
    assert_eq!(stdout, "", "{line}");
    for text in texts {
        assert!(stderr.contains(text), "{line}: `{text}` is not in: {stderr}");
    }
}

#[test]
fn bad_input_is_refused_with_flag_and_valid_form() {
    for (line, texts) in [
        ("--n -5", ["--n", "'-5'", "from 0 to 1000000000000"]),
        ("--n 1e99", ["--n", "'1e99'", "plain digits"]),
        ("--nodes 0", ["--nodes", "'0'", "from 1 to 128"]),
        ("--nodes 129", ["--nodes", "'129'", "from 1 to 128"]),
        ("--chunks 0", ["--chunks", "'0'", "from 1 to 1000000"]),
        ("--workers-per-node 0", ["--workers-per-node", "'0'", "from 1 to 256"]),
        ("--kernel magic", ["--kernel", "'magic'", "trial, sieve"]),
        ("--port 65535 --nodes 3", ["--port", "'65535'", "the last one is 65535"]),
        ("--frobnicate", ["--frobnicate", "unexpected", "--help"]),
    ] {
        refuses(PRIMES, line, &texts);
    }
    refuses(COUNTER, "--nodes 0", &["--nodes", "'0'", "from 1 to"]);
    refuses(COUNTER, "--increments many", &["--increments", "'many'", "plain digits"]);
    refuses(SQUARE, "--count 0", &["--count", "'0'", "from 1 to"]);
    refuses(KEYED_ACCOUNTS, "--accounts 0", &["--accounts", "'0'", "from 1 to 1000"]);
    refuses(CHAT_GROUPS, "--rooms tea", &["--rooms", "--room"]);
    refuses(HELLO_ACTOR, "--nme Ada", &["--nme", "--name"]);
}

#[test]
fn a_port_in_use_is_refused_and_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    refuses(PRIMES, &format!("--n 10 --nodes 1 --port {port}"), &["error: ", &port, "in use", "--port"]);
}

#[test]
fn every_program_helps() {
    for (program, flag) in
        [(PRIMES, "--kernel"), (COUNTER, "--increments"), (SQUARE, "--count"), (HELLO_ACTOR, "--name")]
    {
        let help = prints(program, "--help");
        assert!(help.contains(flag) && help.contains("--json") && help.contains("Usage:"), "{help}");
    }
}

#[test]
fn hello_actor_greets_from_another_process() {
    let hello = start(HELLO_ACTOR, "--name Ada --json");
    let driver = hello.process();
    let report = json(&hello.end(BOUND).stdout);
    assert_eq!(report["greeting"], "Hello, Ada!");
    assert!(report["node"].as_str().is_some_and(|node| node.starts_with("node-")), "{report}");
    assert_ne!(report["pid"], driver.pid);
    let text = prints(HELLO_ACTOR, "");
    assert!(text.starts_with("Hello, Mobula! (said by process "), "{text}");
}

#[test]
fn square_spreads_its_tasks() {
    let square = start(SQUARE, "--count 100 --nodes 2 --json");
    let driver = square.process();
    let report = json(&square.end(BOUND).stdout);
    assert_eq!(report["sum"], 338_350);
    let tasks_by_pid = report["tasks_by_pid"].as_object().expect("a map");
    assert_eq!(tasks_by_pid.values().map(|tasks| tasks.as_u64().expect("a number")).sum::<u64>(), 100);
    assert!(!tasks_by_pid.contains_key(&driver.pid.to_string()), "{report}");
    assert!(prints(SQUARE, "--count 10").starts_with("sum of the squares 1..=10: 385\n"));
}

#[test]
fn counter_shows_a_panic_and_a_killed_node() {
    let counter = start(COUNTER, "--nodes 3 --counters 4 --increments 2000 --json");
    let driver = counter.process();
    let ended = counter.end(BOUND);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = json(&ended.stdout);
    let counters = report["counters"].as_array().expect("a list");
    assert_eq!(counters.iter().map(|counter| counter["count"].as_i64().expect("a number")).sum::<i64>(), 2000);
    let mut pids: HashSet<u64> = counters.iter().map(|counter| counter["pid"].as_u64().expect("a number")).collect();
    assert_eq!(pids.len(), 3, "{report}");
    assert!(pids.insert(driver.pid.into()), "{report}");
    assert_eq!((&report["panicked"]["count_before"], &report["panicked"]["count_after"]), (&500.into(), &0.into()));
    assert!(report["panicked"]["error"].as_str().is_some_and(|text| text.contains("panicked")), "{report}");
    let killed = &report["killed"];
    assert!(killed["error"].as_str().is_some_and(|text| text.contains("is unreachable")), "{report}");
    assert!(killed["milliseconds"].as_f64().is_some_and(|ms| ms < 1000.0), "{report}");
    assert_eq!(killed["counters_left"], 2, "{report}");
    let left: Vec<Process> = pids.iter().filter_map(|pid| Process::found(*pid as u32)).collect();
    assert!(left.iter().all(|process| !process.is_running()), "{left:?}");
}
