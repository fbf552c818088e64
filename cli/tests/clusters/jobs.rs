//! Jobs on a cluster of four nodes, as a user of the command sees them.

use std::collections::BTreeSet;

use crate::common::{Cluster, Ended, Program, outside, until};
use serde_json::Value;

/// The sum of the squares of 1 to 100.
const SUM_OF_100: &str = "sum: 338350";

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

/// The JSON lines of `logs --json`: each source, and all that it has printed.
fn sources(ended: &Ended) -> Vec<(String, String)> {
    let part = |line: &str| -> (String, String) {
        let part: Value = serde_json::from_str(line).expect("JSON on each line");
        let text = |key: &str| part[key].as_str().expect("a text").to_owned();
        (text("source"), text("text"))
    };
    ended.ok().lines().map(part).collect()
}

#[test]
fn a_job_runs_on_all_nodes_and_prints_what_its_processes_print() {
    let cluster = Cluster::of(3);
    let view = cluster.view();
    let nodes = view["nodes"].as_array().expect("a list");
    let names: BTreeSet<_> = nodes.iter().map(|node| node["name"].as_str()).collect();
    assert_eq!(names.len(), 4, "{view}");
    assert_eq!(view["summary"]["total"]["cpus"], 4, "{view}");
    for node in nodes {
        assert_eq!((&node["phase"], &node["total"]["cpus"]), (&Value::from("up"), &Value::from(1)), "{node}");
    }

    let ended = cluster.submit(&["sum", "100"]);
    assert!(has_line(ended.ok(), "nodes: head node-1 node-2 node-3"), "{ended:?}");
    assert!(has_line(ended.ok(), SUM_OF_100), "{ended:?}");
    assert!(ended.stderr.contains("job-1 is submitted"), "{ended:?}");
    // What workers print has their names in front. Which number a node has is the head's choice.
    for node in ["head", "node-1", "node-2", "node-3"] {
        for said in [format!("on {node}) hello from {node}"), format!("on {node}) complaint from {node}")] {
            let line = ended.stdout.lines().find(|line| line.ends_with(&said));
            assert!(line.is_some_and(|line| line.starts_with("(worker-")), "{said}: {ended:?}");
        }
    }

    // Afterwards the same is there for everybody who asks.
    let row = cluster.wait_for_job("job-1", "succeeded");
    assert_eq!(row["submitter"], "local", "{row}");
    assert_eq!(row["entrypoint"], "job_program sum 100", "{row}");
    let logs = cluster.run(&["logs", "job-1"]);
    assert!(has_line(logs.ok(), SUM_OF_100) && has_line(logs.ok(), "the driver is done"), "{logs:?}");
    let parts = sources(&cluster.run(&["job", "logs", "1", "--json"]));
    let driver: String = parts.iter().filter(|(source, _)| source == "driver").map(|(_, text)| text.as_str()).collect();
    assert!(has_line(&driver, SUM_OF_100) && !driver.contains("hello"), "{parts:?}");
    let listed = cluster.run(&["job", "list"]);
    assert!(listed.ok().lines().any(|line| line.contains("job-1") && line.contains("succeeded")), "{listed:?}");
    until("its processes end", || cluster.job_processes().is_empty().then_some(()));
    assert_eq!(cluster.view()["workers"], Value::Array(Vec::new()));
}

#[test]
fn a_job_that_fails_ends_the_command_with_1_and_the_reason() {
    let cluster = Cluster::head();
    let ended = cluster.submit(&["panic"]);
    ended.fails(1, &["the job has failed: exit status 101"]);
    assert!(ended.stdout.contains("the driver was told to fail"), "{ended:?}");
    cluster.submit(&["exit", "3"]).fails(1, &["the job has failed: exit status 3"]);
    // An actor's panic is its caller's error, and no more.
    let ended = cluster.submit(&["worker-panic"]);
    assert!(ended.ok().contains("a guest that was told to fail"), "{ended:?}");
    let listed = cluster.run(&["job", "list"]);
    assert!(listed.ok().contains("failed: exit status 3"), "{listed:?}");

    let nothing = cluster.path("nothing");
    cluster.run(&["job", "submit", &nothing.display().to_string()]).fails(1, &["cannot read the program", "nothing"]);
    // What says that it is a program and cannot be started fails where that is tried.
    std::fs::write(&nothing, "#!/nonexistent\n").expect("room");
    cluster
        .run(&["job", "submit", &nothing.display().to_string()])
        .fails(1, &["the job has failed", "cannot be started"]);
    for command in [["job", "status", "job-77"], ["job", "stop", "job-77"], ["job", "logs", "job-77"]] {
        cluster.run(&command).fails(1, &["there is no job-77"]);
    }
    cluster.run(&["job", "status", "seven"]).fails(2, &["ids such as job-17"]);
    cluster.run(&["job", "submit", "x", "--env", "novalue"]).fails(2, &["--env", "NAME=VALUE"]);
}

#[test]
fn jobs_run_beside_each_other_and_one_is_stopped() {
    let mut cluster = Cluster::of(1);
    let (one, two) = (cluster.path("one"), cluster.path("two"));
    let first = cluster.submit_and_leave(&["rounds", &one.display().to_string()]);
    let mut second = cluster.begin_job(&["rounds", &two.display().to_string()]);
    assert_eq!(first, "job-1");
    second.line("an answer from both nodes", |line| line.contains("head=") && line.contains("node-1="));
    let view = cluster.wait_for("two workers of each job", |view| view["summary"]["workers"] == 4);
    assert_eq!(view["summary"]["jobs"], 2, "{view}");
    // A driver and two workers of each.
    until("six processes", || (cluster.job_processes().len() == 6).then_some(()));
    let workers = cluster.run(&["list", "workers"]);
    assert_eq!(workers.ok().lines().filter(|line| line.contains("ready")).count(), 4, "{workers:?}");

    actors_are_listed_by_job(&cluster);

    cluster.run(&["job", "stop", "job-1"]).ok();
    cluster.wait_for_job("job-1", "stopped");
    until("the other three go on", || (cluster.job_processes().len() == 3).then_some(()));
    let mut follower = cluster.begin(&["logs", "-f", "job-2"]);
    follower.line("an answer", |line| line.contains("answered:"));
    std::fs::write(&two, "").expect("room");
    assert!(has_line(second.end().ok(), "the rounds are over"));
    assert!(has_line(follower.end().ok(), "the rounds are over"));
    until("no process is left", || cluster.job_processes().is_empty().then_some(()));
    // Stopped while somebody waits for it.
    let mut third = cluster.begin_job(&["rounds", &one.display().to_string()]);
    third.line("an answer", |line| line.contains("answered:"));
    cluster.run(&["job", "stop", "job-3"]).ok();
    third.end().fails(1, &["the job was stopped"]);
    assert!(!cluster.node("node-1").has_ended());
}

/// Two jobs with an actor on each of two nodes.
fn actors_are_listed_by_job(cluster: &Cluster) {
    let list = |arguments: &[&str]| -> Value {
        let ended = cluster.run(&[&["list", "actors", "--json"], arguments].concat());
        serde_json::from_str(ended.ok()).expect("JSON")
    };
    let found = until("an actor on each node, for each job", || {
        let found = list(&[]);
        (found["actors"].as_array().map(Vec::len) == Some(4)).then_some(found)
    });
    assert_eq!((&found["left_out"], &found["silent"]), (&Value::from(0), &Value::Array(Vec::new())), "{found}");
    let found = list(&["--job", "job-2"]);
    let workers = cluster.view()["workers"].clone();
    let workers: Vec<_> = workers.as_array().expect("a list").iter().map(|worker| &worker["uid"]).collect();
    let mut nodes = BTreeSet::new();
    for actor in found["actors"].as_array().expect("a list") {
        assert_eq!(actor["job"], "job-2", "{actor}");
        assert!(actor["actor_type"].as_str().is_some_and(|name| name.ends_with("Guest")), "{actor}");
        assert!(workers.contains(&&actor["actor"]["node"]["uid"]), "{actor}: {workers:?}");
        nodes.insert(actor["actor"]["node"]["name"].as_str().expect("a name").to_owned());
    }
    assert_eq!(nodes, BTreeSet::from(["head".to_owned(), "node-1".to_owned()]));
    let some = cluster.run(&["list", "actors", "--limit", "1"]);
    assert_eq!(some.ok().lines().count(), 2, "{some:?}");
    assert!(some.stderr.contains("3 more are not listed"), "{some:?}");
    cluster.run(&["list", "actors", "--job", "job-77"]).fails(1, &["there is no job-77"]);
    cluster.run(&["list", "actors", "--limit", "1001"]).fails(2, &["--limit", "1..=1000"]);
}

#[test]
fn variables_reach_all_processes_of_a_job() {
    let cluster = Cluster::of(1);
    let program = crate::common::job_program().display().to_string();
    let ended = cluster.run(&["job", "submit", "--env", "COLOUR=dark=blue", &program, "--", "env", "COLOUR"]);
    for line in [r#"driver: Some("dark=blue")"#, r#"head: Some("dark=blue")"#, r#"node-1: Some("dark=blue")"#] {
        assert!(has_line(ended.ok(), line), "{ended:?}");
    }
}

#[test]
fn a_driver_from_outside_takes_its_workers_with_it_when_it_is_killed() {
    let cluster = Cluster::of(1);
    let ended = Program::start(outside(&cluster.head.home).args(["sum", "100"])).end();
    assert!(has_line(ended.ok(), "nodes: head node-1") && has_line(ended.ok(), SUM_OF_100), "{ended:?}");
    // What workers print comes to the driver's standard error.
    assert!(ended.stderr.contains("on node-1) hello from node-1"), "{ended:?}");
    cluster.wait_for_job("job-1", "succeeded");

    let never = cluster.path("never").display().to_string();
    let mut driver = Program::start(outside(&cluster.head.home).args(["rounds", &never]));
    driver.line("an answer from both", |line| line.contains("head=") && line.contains("node-1="));
    assert_eq!(cluster.job_processes().len(), 2);
    driver.kill();
    cluster.wait_for_job("job-2", "failed");
    until("its workers end", || cluster.job_processes().is_empty().then_some(()));
}
