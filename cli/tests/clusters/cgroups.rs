//! What processes of jobs have started in sessions of their own, where no signal to a process group finds it.

use std::collections::BTreeMap;
use std::fs;

use crate::common::{Cluster, Node, Process, Program, Signal, until};

/// A driver or a worker, and what it has started.
struct Kin {
    process: Process,
    stray: Process,
}

/// True if the node may make cgroups here.
fn has_cgroups(node: &Node) -> bool {
    let checks = node.run(&["doctor", "--json"]).json();
    let mut checks = checks.as_array().expect("a list").iter();
    let check = checks.find(|check| check["what"] == "cgroups").expect("it is looked at");
    let found = check["found"].as_str().expect("a text");
    if !found.starts_with("each process of a job has one below ") {
        eprintln!("skipped: {found}");
        return false;
    }
    true
}

/// Starts the job, with the driver on `node-1`, and gives its processes by the names of their nodes.
fn begin(cluster: &Cluster) -> (Program, BTreeMap<String, Kin>) {
    let job = cluster.begin_job(&["strays", &cluster.path("over").display().to_string()]);
    let kin = until("the strays", || {
        let text = job.stdout();
        let of_line = |line: &str| {
            let words: Vec<&str> = line.strip_prefix("stray: ")?.split(' ').collect();
            let pid = |at: usize| words.get(at)?.parse().ok();
            Some((words.first()?.to_string(), pid(1)?, pid(2)?))
        };
        let found: Vec<(String, u32, u32)> = text.lines().filter_map(of_line).collect();
        (found.len() == 3).then_some(found)
    });
    let kin = kin.into_iter().map(|(name, pid, stray)| {
        let kin = Kin { process: Process::of(pid), stray: Process::of(stray) };
        (name, kin)
    });
    (job, kin.collect())
}

#[track_caller]
fn wait_for_end(what: &str, process: &Process) {
    until(what, || (!process.is_running()).then_some(()));
}

#[test]
fn what_a_process_of_a_job_has_started_ends_with_it_in_whatever_session() {
    let mut cluster = Cluster::of(1);
    if !has_cgroups(&cluster.head) || !has_cgroups(cluster.node("node-1")) {
        return;
    }
    let (mut job, kin) = begin(&cluster);
    assert_eq!(kin.keys().collect::<Vec<_>>(), ["driver", "head", "node-1"]);
    kin["head"].process.signal(Signal::KILL);
    wait_for_end("what the killed worker has started ends", &kin["head"].stray);
    for name in ["driver", "node-1"] {
        assert!(kin[name].stray.is_running(), "{name}");
    }
    fs::write(cluster.path("over"), "").expect("room");
    job.end().ok();
    for name in ["driver", "node-1"] {
        wait_for_end("what the others have started ends with them", &kin[name].stray);
    }
}

#[test]
fn what_a_killed_node_has_left_ends_when_it_starts_again() {
    let mut cluster = Cluster::of(1);
    if !has_cgroups(cluster.node("node-1")) {
        return;
    }
    let (_job, kin) = begin(&cluster);
    cluster.node("node-1").kill();
    // The kernel ends the workers with their node, and nobody these.
    wait_for_end("the worker ends with its node", &kin["node-1"].process);
    assert!(kin["node-1"].stray.is_running());
    cluster.node("node-1").start_again(None);
    for name in ["driver", "node-1"] {
        wait_for_end("what was left ends", &kin[name].stray);
    }
    // Its job has failed with the driver.
    wait_for_end("with its worker", &kin["head"].stray);
}
