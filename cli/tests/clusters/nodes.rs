//! Nodes that come and go: stopped, drained, removed; and what lets them join.

use std::time::Duration;

use crate::common::{Cluster, LONG, Process, Program, Root, mobula, outside, until, wait_until};
use serde_json::Value;

/// What lists say of the node with that name; of several lives, of the one that is not over.
fn row(view: &Value, name: &str) -> Value {
    let nodes = view["nodes"].as_array().expect("a list").iter().filter(|node| node["name"] == name);
    nodes.min_by_key(|node| node["phase"] == "down").cloned().unwrap_or_default()
}

/// A driver that asks an actor on each node, and the nodes that have answered last.
fn rounds(cluster: &Cluster) -> Program {
    let mut command = outside(&cluster.head.home);
    Program::start(command.arg("rounds").arg(cluster.path("the-end")))
}

fn answered(driver: &Program) -> Vec<String> {
    let text = driver.stdout();
    let last = text.lines().rfind(|line| line.starts_with("answered:")).unwrap_or_default();
    last.split_whitespace().skip(1).filter_map(|word| Some(word.split_once('=')?.0.to_owned())).collect()
}

#[track_caller]
fn wait_for_answers(driver: &Program, names: &[&str]) {
    until(&format!("answers of {names:?}"), || (answered(driver) == names).then_some(()));
}

fn end(cluster: &Cluster, mut driver: Program) {
    std::fs::write(cluster.path("the-end"), "").expect("room");
    assert!(driver.end().ok().contains("the rounds are over"));
}

#[test]
fn a_node_that_is_stopped_goes_and_the_job_goes_on_without_it() {
    let mut cluster = Cluster::of(2);
    let driver = rounds(&cluster);
    wait_for_answers(&driver, &["head", "node-1", "node-2"]);
    let gone = cluster.node("node-1").job_processes();
    assert_eq!(gone.len(), 1);
    let stopped = cluster.node("node-1").run(&["stop"]);
    assert_eq!(stopped.ok(), "the node has ended\n");
    assert!(gone.iter().all(|process| !process.is_running()));
    cluster.node("node-1").end().ok();
    assert_eq!(row(&cluster.view(), "node-1")["phase"], "down");
    wait_for_answers(&driver, &["head", "node-2"]);
    // The same name may come again, as another life, and takes part at once.
    let before = row(&cluster.view(), "node-1")["uid"].clone();
    cluster.node("node-1").start_again(None);
    wait_for_answers(&driver, &["head", "node-1", "node-2"]);
    assert_ne!(row(&cluster.view(), "node-1")["uid"], before);
    end(&cluster, driver);
    let again = cluster.node("node-2").run(&["stop", "--json"]);
    assert_eq!(again.ok(), "{\"stopped\":true}\n");
    assert_eq!(cluster.node("node-2").run(&["stop"]).ok(), "no node of yours runs on this host\n");
}

#[test]
fn a_node_that_is_drained_goes_when_nothing_runs_on_it_any_more() {
    let mut cluster = Cluster::of(2);
    cluster.run(&["node", "drain", "node-1"]).ok();
    cluster.node("node-1").end().ok();
    cluster.wait_for("node-1 has gone", |view| row(view, "node-1")["phase"] == "down");

    // With a job on it, it has the time that it is given, and takes nothing new.
    let driver = rounds(&cluster);
    wait_for_answers(&driver, &["head", "node-2"]);
    cluster.run(&["node", "drain", "node-2", "--timeout", "1h"]).ok();
    let view = cluster.wait_for("node-2 is draining", |view| row(view, "node-2")["phase"] == "draining");
    assert_eq!(view["summary"]["workers"], 2, "{view}");
    assert_eq!(answered(&driver), ["head", "node-2"]);
    let ended = cluster.submit(&["sum", "10"]);
    assert!(ended.ok().lines().any(|line| line == "nodes: head"), "{ended:?}");
    cluster.run(&["node", "drain", "node-2", "--timeout", "1s"]).ok();
    cluster.node("node-2").end().ok();
    wait_for_answers(&driver, &["head"]);
    end(&cluster, driver);
    cluster.run(&["node", "drain", "nobody"]).fails(1, &["there is no node \"nobody\"; there are", "head"]);
}

#[test]
fn a_node_that_is_removed_is_cut_off_within_two_seconds_and_for_ever() {
    let mut cluster = Cluster::of(2);
    let driver = rounds(&cluster);
    wait_for_answers(&driver, &["head", "node-1", "node-2"]);
    let processes = cluster.node("node-1").job_processes();
    assert_eq!(processes.len(), 1);
    // By its uid, as lists show it.
    let uid = cluster.node("node-1").uid.clone();
    let mut removing = cluster.begin(&["node", "remove", &uid]);
    // Two seconds are promised; the rest is for a busy machine.
    let took = wait_until(LONG, "its processes end", || processes.iter().all(|process| !process.is_running()));
    println!("from the command to the end of its processes: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    removing.end().ok();
    cluster.node("node-1").end().fails(70, &["lost its lease", "start it again"]);
    wait_for_answers(&driver, &["head", "node-2"]);

    // One that hears nothing of it, since it hangs, is out all the same, and finds that out by itself. Nobody ends what runs on it, and nobody
    // talks to that any more.
    let processes = cluster.node("node-2").job_processes();
    cluster.node("node-2").freeze();
    let mut removing = cluster.begin(&["node", "remove", "node-2"]);
    let took = wait_until(LONG, "its worker is cut off", || answered(&driver) == ["head"]);
    println!("from the command to a round without its worker: {took:?}");
    assert!(took < Duration::from_secs(7), "{took:?} is near its lease");
    assert!(processes.iter().all(Process::is_running));
    removing.end().ok();
    cluster.wait_for("node-2 is down", |view| row(view, "node-2")["phase"] == "down");
    wait_for_answers(&driver, &["head"]);
    cluster.node("node-2").thaw();
    cluster.node("node-2").end().fails(70, &["lost its lease"]);
    let view = cluster.view();
    assert_eq!(view["summary"]["nodes_up"], 1, "{view}");
    end(&cluster, driver);
    cluster.run(&["node", "remove", "node-2"]).fails(1, &["there is no"]);
}

#[test]
fn a_name_is_waited_for_if_its_node_is_dead_and_given_up_if_it_lives() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--lease", "3s"]);
    cluster.join("node-1", &["--num-cpus", "1"]);
    let (uid, address) = (cluster.node("node-1").uid.clone(), cluster.node("node-1").address.to_string());
    let join = |cluster: &Cluster, home: &str| {
        let (head, token) = (cluster.head.address.to_string(), cluster.token(&[]));
        let mut command = mobula(&cluster.path(home));
        command.args(["start", "--listen", "127.0.0.1", "--advertise", "127.0.0.1", "--port", "0", "--name", "node-1"]);
        Program::start_with(command.args(["--block", "--address", &head, "--token-file", "-"]), Some(&token))
    };
    let words = ["the name node-1 is in use", &uid, &address, "--name", "mobula node drain"];
    join(&cluster, "another").end().fails(4, &words);
    assert_eq!(row(&cluster.view(), "node-1")["uid"], *uid, "who has it keeps it");
    cluster.node("node-1").kill();
    join(&cluster, "its-heir").line("that it is ready", |line| line.starts_with("node node-1 of cluster"));
    assert_ne!(row(&cluster.view(), "node-1")["uid"], *uid);
}

#[test]
fn every_token_that_is_not_good_gets_the_same_answer() {
    let cluster = Cluster::head();
    let rejected = |what: &str, token: &str| {
        let name = format!("joiner-{what}");
        let Err(ended) = cluster.try_join(&name, &[], token) else { panic!("{what}: it was let in") };
        ended.fails(77, &[]);
        let head = cluster.head.address;
        let last = ended.stderr.lines().last().unwrap_or_default().to_owned();
        assert_eq!(last, format!("error: JoinRejected: the head at {head} said no; its audit log says why"), "{what}");
    };
    let used = cluster.token(&["--uses", "1"]);
    let Ok(mut node) = cluster.try_join("node-1", &[], &used) else { panic!("it is good once") };
    rejected("used", &used);
    rejected("client", &cluster.token(&["--role", "client"]));
    rejected("changed", &with_another_seed(&cluster.token(&[])));

    let revoked = cluster.token(&[]);
    let listed = cluster.run(&["token", "list"]);
    let id = revoked.split('.').nth(2).expect("a token's id");
    assert!(listed.ok().contains(id), "{listed:?}");
    assert!(!listed.stdout.contains(revoked.split('.').nth(3).expect("a seed")), "a secret is listed");
    cluster.run(&["token", "revoke", id]).ok();
    cluster.run(&["token", "revoke", id]).fails(1, &["there is no token", id]);
    cluster.run(&["token", "revoke", "abc"]).fails(2, &["is no token id"]);
    rejected("revoked", &revoked);

    let expired = cluster.token(&["--ttl", "1s"]);
    let id = expired.split('.').nth(2).expect("a token's id");
    until("its time is over", || (!cluster.run(&["token", "list"]).ok().contains(id)).then_some(()));
    rejected("expired", &expired);
    // Who is in stays in.
    assert!(!node.has_ended());
    let audit = std::fs::read_to_string(cluster.head.home.join("identity/audit.log")).expect("the head writes it");
    for reason in ["WrongRole", "WrongSignature", "UnknownToken"] {
        assert!(audit.contains(reason), "{reason}: {audit}");
    }
}

#[test]
fn a_token_of_another_cluster_opens_nothing() {
    let (one, other) = (Cluster::head(), Cluster::head());
    let Err(ended) = one.try_join("joiner", &[], &other.token(&[])) else { panic!("it was let in") };
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    assert!(ended.stderr.contains("error: "), "{ended:?}");
    assert_eq!(one.view()["summary"]["nodes"], 1);
}

#[test]
fn a_node_in_the_background_is_ready_when_the_command_ends() {
    let root = Root::new();
    let home = root.path().join("home");
    let start = ["start", "--head", "--port", "0", "--listen", "127.0.0.1", "--advertise", "127.0.0.1", "--json"];
    let started = Program::start(mobula(&home).args(start)).end().json();
    let _guard = Guard(home.clone());
    assert!(started["Ready"]["pid"].is_number(), "{started}");
    let status = Program::start(mobula(&home).arg("status")).end();
    assert!(status.ok().contains("1 of 1 nodes up"), "{status:?}");
    // It fails as in the foreground.
    let pid = started["Ready"]["pid"].to_string();
    Program::start(mobula(&home).args(start)).end().fails(5, &["in use by process", &pid]);
    let doctor = Program::start(mobula(&home).arg("doctor")).end();
    assert!(doctor.ok().lines().all(|line| line.starts_with("ok ")), "{doctor:?}");
    assert_eq!(Program::start(mobula(&home).arg("stop")).end().ok(), "the node has ended\n");
    let log = std::fs::read_to_string(home.join("node.log")).expect("it has logged");
    assert!(log.contains("ready"), "{log}");
}

/// Stops the node of a home, whatever becomes of the test.
struct Guard(std::path::PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        Program::start(mobula(&self.0).arg("stop")).end();
    }
}

/// A well-formed token whose seed differs in one bit.
fn with_another_seed(token: &str) -> String {
    let (body, _) = token.rsplit_once('.').expect("a checksum");
    let mut body = body.to_owned().into_bytes();
    let last = body.last_mut().expect("a seed");
    // The digit that differs in the lowest bit.
    let digit = (*last as char).to_digit(16).expect("hexadecimal") ^ 1;
    *last = char::from_digit(digit, 16).expect("a digit") as u8;
    let crc = crc32(&body);
    format!("{}.{crc:08x}", String::from_utf8(body).expect("text"))
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
