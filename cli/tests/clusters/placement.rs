//! Programs that ask a cluster of four nodes for resources: they have them, wait for each other, and give them back, whatever ends.

use crate::common::{Cluster, Process, Program, Signal, example, outside_with, until};
use serde_json::Value;

/// A job of the program, driven from outside on the head's host.
fn begin(cluster: &Cluster, arguments: &[&str]) -> Program {
    Program::start(outside_with(&cluster.head.home, &example("placement_program")).args(arguments))
}

/// `has 1 on node-2 in 4711`.
fn held(line: &str) -> Option<(String, u32)> {
    let (_, rest) = line.split_once(" on ")?;
    let (node, pid) = rest.split_once(" in ")?;
    Some((node.to_owned(), pid.parse().ok()?))
}

fn leases(cluster: &Cluster) -> Vec<Value> {
    cluster.run(&["list", "leases", "--json"]).json().as_array().expect("a list").clone()
}

/// A head and three nodes, each with two cores; node-2 and node-3 have a disk each.
fn with_disks() -> Cluster {
    let mut cluster = Cluster::head_with(&["--num-cpus", "2"]);
    cluster.join("node-1", &["--num-cpus", "2"]);
    cluster.join("node-2", &["--num-cpus", "2", "--resources", "disk=1"]);
    cluster.join("node-3", &["--num-cpus", "2", "--resources", "disk=1"]);
    cluster.wait_for_nodes(4);
    cluster
}

#[test]
fn jobs_share_what_there_is() {
    let cluster = with_disks();
    let over = cluster.path("over").display().to_string();
    // They wait, although there is room: on a busy machine a node may be under suspicion for a moment, and nothing is placed there.
    let mut first = begin(&cluster, &["take", "1", "60000", &over]);
    let mut second = begin(&cluster, &["take", "1", "60000", &over]);
    let one = held(&first.line("a disk", |line| line.starts_with("has"))).expect("a place");
    let other = held(&second.line("a disk", |line| line.starts_with("has"))).expect("a place");
    let mut nodes = [one.0.as_str(), other.0.as_str()];
    nodes.sort_unstable();
    assert_eq!(nodes, ["node-2", "node-3"]);
    assert_eq!(leases(&cluster).len(), 2);
    let status = cluster.run(&["status"]);
    assert!(status.ok().contains("2 disk"), "{status:?}");

    // One that does not wait is refused, as is one that never fits; another waits for its turn.
    let refused = begin(&cluster, &["take", "0.5", "100", &over]).end();
    assert!(refused.ok().contains("refused: no place for the actor: no room for 0.5 disk within 100ms"), "{refused:?}");
    let never = begin(&cluster, &["take", "1.5", "60000", &over]).end();
    assert!(never.ok().contains("no node can ever give 1.5 disk") && never.stdout.contains("1 disk"), "{never:?}");
    let free = begin(&cluster, &["free"]).end();
    assert!(free.ok().contains("all: 8 cpu") && free.stdout.contains("2 disk"), "{free:?}");
    let rest = free.stdout.lines().find(|line| line.starts_with("free:")).expect("a line");
    assert!(!rest.contains("disk"), "{free:?}");
    let mut third = begin(&cluster, &["take", "1", "60000", &over]);
    cluster.wait_for("it waits", |view| view["summary"]["waiting"] == 1);

    // The first job is killed: what it had is the next one's.
    first.kill();
    let next = held(&third.line("a disk", |line| line.starts_with("has"))).expect("a place");
    assert_eq!(next.0, one.0);
    std::fs::write(&over, "").expect("room");
    assert!(second.end().ok().contains("done") && third.end().ok().contains("done"));
    until("everything is given back", || leases(&cluster).is_empty().then_some(()));
}

#[test]
fn a_killed_worker_gives_back_what_its_actors_had() {
    let cluster = with_disks();
    let over = cluster.path("over").display().to_string();
    let mut driver = begin(&cluster, &["take", "1", "60000", &over]);
    let (_, pid) = held(&driver.line("a disk", |line| line.starts_with("has"))).expect("a place");
    for _ in 0..3 {
        let text = driver.stdout();
        let last = text.lines().filter_map(held).next_back().expect("a place");
        Process::of(last.1).signal(Signal::KILL);
        until("its next actor", || {
            let text = driver.stdout();
            let now = text.lines().filter_map(held).next_back()?;
            (now.1 != last.1).then_some(())
        });
        until("one lease", || (leases(&cluster).len() == 1).then_some(()));
    }
    assert!(!Process::found(pid).is_some_and(|process| process.is_running()), "it was killed");
    std::fs::write(&over, "").expect("room");
    assert!(driver.end().ok().contains("done"));
    until("everything is given back", || leases(&cluster).is_empty().then_some(()));
}

#[test]
fn leases_and_groups_outlive_the_head() {
    let mut cluster = with_disks();
    let over = cluster.path("over").display().to_string();
    let mut driver = begin(&cluster, &["take", "1", "60000", &over]);
    let place = held(&driver.line("a disk", |line| line.starts_with("has"))).expect("a place");
    let mut group = begin(&cluster, &["spread", "3", &over]);
    group.line("where it is", |line| line.starts_with("spread:"));
    let before = leases(&cluster);
    assert_eq!(before.len(), 4, "{before:?}");
    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.wait_for_nodes(4);
    let mut others: Vec<Value> = before;
    // What was in the bundle on the head's host is over, as everything there.
    until("the head knows the leases of the other hosts", || {
        let after = leases(&cluster);
        others.retain(|lease| after.contains(lease));
        (others.len() >= 3 && after.iter().all(|lease| others.contains(lease) || others.len() == 3)).then_some(())
    });
    // What is in use stays in use, and what runs runs.
    let lasts = begin(&cluster, &["take", "1", "60000", &over]);
    let other = until("a place for another", || lasts.stdout().lines().find_map(held));
    assert_ne!(other.0, place.0, "{:?}", lasts.stderr());
    let refused = begin(&cluster, &["take", "1", "0", &over]).end();
    assert!(refused.ok().contains("no room for 1 disk"), "{refused:?}");
    assert!(Process::of(place.1).is_running());
    assert!(!driver.stdout().contains("lost"), "{}", driver.stdout());
    std::fs::write(&over, "").expect("room");
    assert!(driver.end().ok().contains("done"));
}

#[test]
fn a_strictly_spread_group_has_a_node_for_each_bundle() {
    let cluster = with_disks();
    let over = cluster.path("over").display().to_string();
    let mut four = begin(&cluster, &["spread", "4", &over]);
    let line = four.line("where it is", |line| line.starts_with("spread:"));
    assert_eq!(line, "spread: head node-1 node-2 node-3");
    let listed = cluster.run(&["list", "placement-groups"]);
    assert!(listed.ok().lines().any(|line| line.contains("ready") && line.contains("strict_spread")), "{listed:?}");
    assert!(listed.stdout.contains("head node-1 node-2 node-3"), "{listed:?}");
    let view = cluster.view();
    assert_eq!(view["placement_groups"][0]["phase"], "ready", "{view}");
    assert_eq!(view["summary"]["available"]["cpus"], 4, "{view}");
    // Ids are the same texts everywhere: as numbers some readers of JSON would change them.
    let is_hex = |id: &Value| id.as_str().is_some_and(|id| id.len() == 16 && u64::from_str_radix(id, 16).is_ok());
    assert_eq!(view["jobs"][0]["id"], "job-1", "{view}");
    assert_eq!(view["placement_groups"][0]["job"], "job-1", "{view}");
    assert!(is_hex(&view["placement_groups"][0]["id"]["number"]) && is_hex(&view["workers"][0]["uid"]), "{view}");
    assert_eq!(view["head"], cluster.head.uid.as_str(), "{view}");
    assert!(is_hex(&leases(&cluster)[0]["id"]["number"]));
    let token = cluster.run(&["token", "list", "--json"]).json();
    assert!(token.as_array().is_some_and(|tokens| tokens.iter().all(|token| is_hex(&token["id"]))), "{token}");
    let status = cluster.run(&["status"]);
    assert!(status.ok().contains("GROUP"), "{status:?}");
    let five = begin(&cluster, &["spread", "5", &over]).end();
    assert!(five.ok().contains("refused: no node can ever give"), "{five:?}");
    std::fs::write(&over, "").expect("room");
    assert!(four.end().ok().contains("removed"));
    until("it is gone", || cluster.view()["placement_groups"].as_array().is_some_and(Vec::is_empty).then_some(()));
    assert!(leases(&cluster).is_empty());
}
