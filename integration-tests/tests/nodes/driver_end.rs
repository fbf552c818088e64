//! However a driver ends, its node processes end with it.

use std::time::Duration;

use mobula_integration_tests::process::{Ended, Process, Program, Signal, wait_until};
use mobula_integration_tests::wait::LONG;

/// Node processes outlive their driver by less than this.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// The driver in `scenario`, with its nodes, once it has said that all is as it should be.
fn driver(scenario: &str) -> (Program, Vec<Process>) {
    let mut driver = Program::start(env!("CARGO_BIN_EXE_driver"), [scenario, "3"]);
    let pids = driver.line(LONG);
    // Those of a driver that has ended by now may have ended, too.
    let nodes = pids.split(' ').map(|pid| Process::found(pid.parse().expect("a pid")));
    let nodes: Vec<_> = nodes.flatten().collect();
    (driver, nodes)
}

#[track_caller]
fn all_gone(nodes: &[Process], after: &str) {
    let took = wait_until(GONE_WITHIN, "the nodes' end", || nodes.iter().all(|node| !node.is_running()));
    println!("{} node processes gone {:.1} ms after {after}", nodes.len(), took.as_secs_f64() * 1000.0);
}

fn kill(scenario: &str, prepare: impl FnOnce(&[Process])) {
    let (driver, nodes) = driver(scenario);
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(Process::is_running));
    prepare(&nodes);
    driver.process().signal(Signal::KILL);
    all_gone(&nodes, &format!("kill -9 of an {scenario} driver"));
}

#[test]
fn kill_9_of_the_driver_leaves_no_process() {
    kill("idle", |_| {});
}

#[test]
fn kill_9_of_the_driver_ends_nodes_whose_actors_never_return() {
    kill("busy", |nodes| {
        // They do nothing but compute.
        wait_until(LONG, "busy nodes", || nodes.iter().all(|node| node.cpu_time() > Duration::from_millis(100)));
    });
}

#[test]
fn kill_9_of_the_driver_ends_a_stopped_node() {
    kill("idle", |nodes| {
        nodes[1].signal(Signal::STOP);
        wait_until(LONG, "a stopped node", || nodes[1].is_stopped());
    });
}

#[test]
fn sigterm_of_the_driver_leaves_no_process() {
    let (driver, nodes) = driver("idle");
    driver.process().signal(Signal::TERM);
    all_gone(&nodes, "SIGTERM of the driver");
}

fn run_to_the_end(scenario: &str) -> Ended {
    let (driver, nodes) = driver(scenario);
    let ended = driver.end(LONG);
    all_gone(&nodes, &format!("the driver's end by {scenario}"));
    ended
}

#[test]
fn a_driver_that_returns_leaves_no_process() {
    assert_eq!(run_to_the_end("return").status.code(), Some(0));
}

#[test]
fn a_driver_that_shuts_down_has_reaped_its_nodes() {
    let mut driver = Program::start(env!("CARGO_BIN_EXE_driver"), ["shutdown", "3"]);
    // It says so after the shutdown.
    let pids = driver.line(LONG);
    let left: Vec<_> = pids.split(' ').filter_map(|pid| Process::found(pid.parse().expect("a pid"))).collect();
    assert!(left.iter().all(|process| !process.is_running()), "{left:?}");
    assert_eq!(driver.end(LONG).status.code(), Some(0));
}

#[test]
fn a_driver_that_exits_or_panics_leaves_no_process() {
    assert_eq!(run_to_the_end("exit").status.code(), Some(3));
    let ended = run_to_the_end("panic");
    assert_eq!(ended.status.code(), Some(101));
    assert!(ended.stderr.contains("the driver panics"), "{ended:?}");
}

#[test]
fn a_worker_that_panics_leaves_no_process() {
    let ended = run_to_the_end("worker-panic");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}
