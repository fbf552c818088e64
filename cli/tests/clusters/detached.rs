//! Detached actors: they outlive the drivers that create them, and are found by jobs that come later.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Cluster, Ended, Process, Program, Signal, example, outside_with, until};

/// The program by hand, where the node of `home` is.
fn program(home: &Path) -> Command {
    outside_with(home, &example("detached_program"))
}

fn ask(cluster: &Cluster, arguments: &[&str]) -> Ended {
    Program::start(program(&cluster.head.home).args(arguments)).end()
}

fn create(cluster: &Cluster, name: &str, node: &str) -> (Program, Process) {
    create_as(cluster, "create", name, node)
}

fn create_as(cluster: &Cluster, how: &str, name: &str, node: &str) -> (Program, Process) {
    let mut driver = Program::start(program(&cluster.head.home).args([how, name, node]));
    let said = driver.line("that it is created", |line| line.starts_with("created on"));
    let (place, pid) = said.split_once(", process ").expect("both");
    assert_eq!(place, format!("created on {node}"));
    (driver, Process::of(pid.parse().expect("a number")))
}

fn names(cluster: &Cluster) -> Vec<String> {
    let rows = cluster.run(&["list", "detached", "--json"]).json();
    rows.as_array().expect("a list").iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// A program of other bytes, and so another one to the cluster, which does the same.
fn other_program(cluster: &Cluster) -> PathBuf {
    let path = cluster.path("other_program");
    std::fs::copy(example("detached_program"), &path).expect("room");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("it is ours");
    file.write_all(b"another").expect("room");
    path
}

#[test]
fn a_detached_actor_outlives_its_driver_and_the_head_and_is_found_by_others() {
    let mut cluster = Cluster::of(2);
    let (mut driver, process) = create(&cluster, "hits", "node-1");
    assert_eq!(names(&cluster), ["hits"]);
    driver.kill();
    cluster.wait_for_job("job-1", "failed");
    assert!(process.is_running());

    // Another driver of the same program, and all of its processes.
    assert_eq!(ask(&cluster, &["add", "hits", "1"]).ok(), "hits: 1\n");
    let said = ask(&cluster, &["everywhere", "hits"]);
    let mut told: Vec<&str> = said.ok().lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
    told.sort_unstable();
    assert_eq!(told, ["2", "3", "4"], "{said:?}");
    // Another program.
    let other = other_program(&cluster);
    let ended = Program::start(outside_with(&cluster.head.home, &other).args(["add", "hits", "10"])).end();
    assert_eq!(ended.ok(), "hits: 14\n", "{ended:?}");

    // What was on the head's host is gone with it, and comes back: the actor was elsewhere.
    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.wait_for_nodes(3);
    assert_eq!(names(&cluster), ["hits"]);
    assert_eq!(ask(&cluster, &["add", "hits", "1"]).ok(), "hits: 15\n");
    assert!(process.is_running());

    // The name is nobody else's, whatever the program, until the actor ends.
    for program in [other, example("detached_program")] {
        let ended = Program::start(outside_with(&cluster.head.home, &program).args(["create", "hits", "node-2"])).end();
        ended.fails(1, &["the name `hits` belongs to a detached actor that job-"]);
    }
    assert_eq!(ask(&cluster, &["stop", "hits"]).ok(), "stopped\n");
    until("its name is free", || names(&cluster).is_empty().then_some(()));
    ask(&cluster, &["add", "hits", "1"]).fails(1, &["nobody is called hits"]);
    // Nothing is left to be kept.
    let keepers_end = |view: &serde_json::Value| view["summary"]["jobs"] == 0;
    let view = cluster.wait_for("the keepers end", keepers_end);
    let jobs = view["jobs"].as_array().expect("a list").iter();
    let kept: Vec<_> = jobs.filter(|job| job["submitter"] == "keeper").map(|job| job["phase"].clone()).collect();
    assert!(!kept.is_empty() && kept.iter().all(|phase| phase == "succeeded"), "{view}");
    until("no process is left", || cluster.job_processes().is_empty().then_some(()));
}

#[test]
fn the_end_of_a_detached_actors_process_is_told_to_its_callers_and_frees_its_name() {
    let cluster = Cluster::of(1);
    let (mut driver, process) = create(&cluster, "hits", "node-1");
    driver.kill();
    let mut watcher = Program::start(program(&cluster.head.home).args(["watch", "hits"]));
    watcher.line("that it watches", |line| line == format!("watching process {}", process.pid));
    process.signal(Signal::KILL);
    let ended = watcher.end();
    assert!(ended.ok().contains("ended: "), "{ended:?}");
    until("its name is free", || names(&cluster).is_empty().then_some(()));
    let (_driver, again) = create(&cluster, "hits", "node-1");
    assert_ne!(again.pid, process.pid);

    // The job that keeps it is one that can be stopped.
    let keeper = cluster.run(&["list", "detached", "--json"]).json()[0]["keeper"].clone();
    cluster.run(&["job", "stop", keeper.as_str().expect("a job")]).ok();
    until("it ends with its keeper", || (!again.is_running()).then_some(()));
    until("its name is free", || names(&cluster).is_empty().then_some(()));
}

#[test]
fn a_detached_actor_with_a_process_of_its_own_takes_nobody_with_it() {
    let cluster = Cluster::of(1);
    let (mut driver, together) = create(&cluster, "together", "node-1");
    driver.kill();
    let (mut driver, alone) = create_as(&cluster, "create-alone", "alone", "node-1");
    driver.kill();
    assert_ne!(alone.pid, together.pid);
    let of_one_actor = |view: &serde_json::Value| {
        let workers = view["workers"].as_array().expect("a list").iter();
        workers.filter(|worker| worker["lease"].is_object()).map(|worker| worker["pid"].as_u64()).collect::<Vec<_>>()
    };
    cluster.wait_for("its jobs are over, and it is not", |view| {
        view["summary"]["jobs"] == 1 && of_one_actor(view) == [Some(u64::from(alone.pid))]
    });
    assert_eq!(ask(&cluster, &["add", "alone", "2"]).ok(), "hits: 2\n");
    alone.signal(Signal::KILL);
    until("its name is free", || (names(&cluster) == ["together"]).then_some(()));
    assert_eq!(ask(&cluster, &["add", "together", "1"]).ok(), "hits: 1\n");
    assert!(together.is_running());
    cluster.wait_for("its process is not started again", |view| of_one_actor(view).is_empty());
    let (_driver, again) = create_as(&cluster, "create-alone", "alone", "node-1");
    assert_ne!(again.pid, alone.pid);
    assert_eq!(ask(&cluster, &["stop", "alone"]).ok(), "stopped\n");
    until("its process ends with it", || (!again.is_running()).then_some(()));
}

#[test]
fn a_detached_actor_has_its_resources_as_long_as_it_lives() {
    let cluster = Cluster::of(1);
    let free = |cpus: u64| move |view: &serde_json::Value| view["summary"]["available"]["cpus"] == cpus;
    // Both nodes have one core.
    ask(&cluster, &["create-with", "one", "1"]).ok();
    cluster.wait_for_job("job-1", "succeeded");
    ask(&cluster, &["create-with", "two", "1"]).ok();
    cluster.wait_for("no core is free", free(0));
    ask(&cluster, &["create-with", "three", "1"]).fails(1, &["no room for 1 cpu"]);
    assert_eq!(names(&cluster), ["one", "two"]);
    assert_eq!(ask(&cluster, &["stop", "one"]).ok(), "stopped\n");
    cluster.wait_for("its core is free", free(1));
    ask(&cluster, &["create-with", "three", "1"]).ok();
    assert_eq!(names(&cluster), ["three", "two"]);
}

#[test]
fn what_cannot_be_detached_is_refused_and_a_jobs_own_actors_stay_its_own() {
    let cluster = Cluster::of(1);
    ask(&cluster, &["unnamed"]).fails(1, &["this actor cannot be detached", "give it one, with .name(..)"]);
    assert_eq!(cluster.view()["jobs"].as_array().map(Vec::len), Some(1), "no keeper for that");
    // No cluster that runs.
    let mut alone = program(&cluster.head.home);
    let ended = Program::start(alone.env("MOBULA_ADDRESS", "local").args(["create", "hits", "node-1"])).end();
    ended.fails(1, &["this actor cannot be detached", "mobula start --head"]);
    // Actors of a job that runs are found by nobody else.
    let mut attached = Program::start(program(&cluster.head.home).args(["attached", "mine"]));
    attached.line("that it is there", |line| line == "attached");
    ask(&cluster, &["add", "mine", "1"]).fails(1, &["nobody is called mine"]);
}
