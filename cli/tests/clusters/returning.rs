//! Nodes that come back without a token: after a stop, a kill, the end of their lease; and those that do not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Cluster, LONG, Node, Program, Root, mobula, wait_until};
use mobula_identity::{Kept, NextKey, come_back};
use serde_json::Value;

/// The life of a node that is up.
fn life(view: &Value, name: &str) -> Option<String> {
    let nodes = view["nodes"].as_array().expect("a list").iter();
    let mut up = nodes.filter(|node| node["name"] == name && node["phase"] == "up");
    up.next().and_then(|node| Some(node["uid"].as_str()?.to_owned()))
}

fn membership(node: &Node) -> PathBuf {
    node.home.join("membership")
}

fn audit(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.head.home.join("identity/audit.log")).expect("the head writes it")
}

const TAKES_A_TOKEN: [&str; 3] = ["takes a token", "mobula token create", "--token-file"];

#[test]
fn a_node_comes_back_without_a_token_however_it_ended() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--lease", "1s"]);
    cluster.join("node-1", &["--num-cpus", "1"]);
    cluster.wait_for_nodes(2);
    let kept = fs::metadata(membership(cluster.node("node-1"))).expect("it keeps it");
    assert_eq!(kept.mode() & 0o7777, 0o600);
    let mut lives = vec![cluster.node("node-1").uid.clone()];
    let is_back = |cluster: &mut Cluster, lives: &mut Vec<String>| {
        cluster.node("node-1").start_again(None);
        let uid = cluster.node("node-1").uid.clone();
        let view = cluster.wait_for_nodes(2);
        assert_eq!(life(&view, "node-1"), Some(uid.clone()), "{view}");
        assert!(!lives.contains(&uid), "{uid} is a life of its own");
        let line = format!("worker {uid}, which was {}", lives.last().expect("a first"));
        assert!(audit(cluster).contains(&line), "{line}: {}", audit(cluster));
        lives.push(uid);
    };
    cluster.node("node-1").run(&["stop"]).ok();
    cluster.node("node-1").end().ok();
    is_back(&mut cluster, &mut lives);
    cluster.node("node-1").kill();
    is_back(&mut cluster, &mut lives);
    // With its lease over, and in the time of another head. It knows where the head is.
    cluster.node("node-1").freeze();
    let last = lives.last().expect("it has come back").clone();
    cluster.wait_for("the node is down", |view| {
        let mut nodes = view["nodes"].as_array().expect("a list").iter();
        nodes.any(|node| node["uid"] == *last && node["phase"] == "down")
    });
    cluster.node("node-1").thaw();
    cluster.node("node-1").end().fails(70, &["lost its lease", "start it again"]);
    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.node("node-1").forget_flag("--address");
    is_back(&mut cluster, &mut lives);
    assert!(cluster.submit(&["sum", "10"]).ok().contains("nodes: head node-1"));
    // Nobody has made a second token, and the first was good once.
    assert_eq!(audit(&cluster).matches("token created").count(), 1);
}

#[test]
fn a_node_that_was_removed_does_not_come_back() {
    let mut cluster = Cluster::of(2);
    cluster.run(&["node", "remove", "node-1"]).ok();
    cluster.node("node-1").end().fails(70, &[]);
    let refused = |cluster: &mut Cluster, name: &str, reason: &str| {
        let (head, before) = (cluster.head.address.to_string(), audit(cluster).len());
        let said = ["JoinRejected", &head, "does not take this node back"];
        cluster.node(name).fails_to_start_again(None).fails(77, &[&said[..], &TAKES_A_TOKEN].concat());
        let audit = audit(cluster);
        assert!(audit[before..].contains("return refused") && audit[before..].contains(reason), "{audit}");
    };
    refused(&mut cluster, "node-1", "Revoked");
    // One that is stopped, and would come back.
    let copy = fs::read(membership(cluster.node("node-2"))).expect("its own");
    cluster.node("node-2").run(&["stop"]).ok();
    cluster.node("node-2").start_again(None);
    cluster.node("node-2").run(&["stop"]).ok();
    cluster.node("node-2").end().ok();
    cluster.run(&["node", "remove", "node-2"]).ok();
    refused(&mut cluster, "node-2", "Revoked");
    cluster.run(&["node", "remove", "node-2"]).fails(1, &["there is no"]);
    // Nor as the life before it.
    let path = membership(cluster.node("node-2"));
    fs::write(&path, copy).expect("ours");
    refused(&mut cluster, "node-2", "Superseded");
    cluster.head.kill();
    cluster.head.start_again(None);
    refused(&mut cluster, "node-1", "Revoked");
    // A token is another beginning, and wins over what was kept.
    let token = cluster.token(&[]);
    cluster.node("node-1").start_again(Some(&token));
    cluster.wait_for_nodes(2);
    cluster.node("node-1").kill();
    cluster.node("node-1").start_again(None);
}

/// Whoever has taken over a host comes back from there as often as it likes, and shows none of that to the cluster before its node is removed.
#[test]
fn a_life_in_hand_is_removed_with_the_node_that_has_got_it() {
    let mut cluster = Cluster::of(2);
    let path = membership(cluster.node("node-1"));
    let next = cluster.path("next");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for _ in 0..3 {
        let mut kept = Kept::read(&path).expect("safe").expect("its own");
        let key = NextKey::open(&next, &kept.joined).expect("room");
        kept.joined = runtime.block_on(come_back(cluster.head.address, &kept.joined, &key)).expect("its own");
        kept.write(&path).expect("room");
    }
    cluster.run(&["node", "remove", "node-1"]).ok();
    cluster.node("node-1").end().fails(70, &[]);
    let before = audit(&cluster).len();
    cluster.node("node-1").fails_to_start_again(None).fails(77, &["JoinRejected"]);
    assert!(audit(&cluster)[before..].contains("Revoked"), "{}", audit(&cluster));
    // Others are none the worse for it.
    cluster.node("node-2").kill();
    cluster.node("node-2").start_again(None);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "certificates end by the clock")]
fn a_node_that_was_away_for_too_long_takes_a_token() {
    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--certificate-life", "10s"]);
    cluster.join("node-1", &["--num-cpus", "1"]);
    let (begun, first) = (Instant::now(), fs::read(membership(cluster.node("node-1"))).expect("its own"));
    // It keeps each certificate: the last one is good when the first is over.
    let is_over = || begun.elapsed() > Duration::from_secs(11);
    wait_until(LONG, "the end of the first certificate", is_over);
    cluster.node("node-1").kill();
    let last = fs::read(membership(cluster.node("node-1"))).expect("its own");
    let path = membership(cluster.node("node-1"));
    fs::write(&path, first).expect("ours");
    let said = ["was away for longer than its certificate lasts"];
    cluster.node("node-1").fails_to_start_again(None).fails(77, &[&said[..], &TAKES_A_TOKEN].concat());
    fs::write(&path, last).expect("ours");
    cluster.node("node-1").start_again(None);
    cluster.wait_for_nodes(2);
}

#[test]
fn a_membership_that_is_not_safe_or_not_whole_is_left_alone() {
    let mut cluster = Cluster::of(1);
    cluster.node("node-1").kill();
    let path = membership(cluster.node("node-1"));
    let good = fs::read(&path).expect("its own");
    let name = path.display().to_string();
    let mut fails = |code, words: &[&str]| {
        let all = [&[name.as_str()][..], words].concat();
        cluster.node("node-1").fails_to_start_again(None).fails(code, &all);
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
    fails(77, &["its mode is 0644", "chmod 0600"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    for bad in [&b"garbage"[..], &good[..good.len() / 2], b""] {
        fs::write(&path, bad).expect("ours");
        fails(78, &["was left as it is"]);
        assert_eq!(fs::read(&path).expect("there"), bad);
    }
    fs::write(&path, &good).expect("ours");
    let elsewhere = path.with_extension("elsewhere");
    fs::rename(&path, &elsewhere).expect("ours");
    symlink(&elsewhere, &path).expect("room");
    fails(77, &["it is a symbolic link"]);
    fs::rename(&elsewhere, &path).expect("ours");
    cluster.node("node-1").start_again(None);
    cluster.wait_for_nodes(2);
}

#[test]
fn a_membership_is_good_in_its_own_cluster_alone() {
    let (mut one, other) = (Cluster::of(1), Cluster::head());
    one.node("node-1").kill();
    let home = one.node("node-1").home.clone();
    let elsewhere = other.head.address.to_string();
    let start = ["start", "--block", "--port", "0", "--listen", "127.0.0.1", "--address", &elsewhere];
    // Its own head is known as well, and takes it back once that is asked.
    one.head.freeze();
    Program::start(mobula(&home).args(start)).end().fails(69, &[]);
    one.head.thaw();
    assert_eq!(other.view()["summary"]["nodes"], 1);
    one.node("node-1").start_again(None);
    one.node("node-1").kill();
    // A token takes it there.
    let cluster = other.head.cluster.clone();
    assert_ne!(one.node("node-1").cluster, cluster);
    let token = other.token(&[]);
    let mut moved = Program::start_with(mobula(&home).args(start).args(["--token-file", "-"]), Some(&token));
    moved.line("that it is ready", |line| line.contains(&cluster));
    moved.kill();
    let mut back = Program::start(mobula(&home).args(["start", "--block", "--port", "0", "--listen", "127.0.0.1"]));
    back.line("that it is ready", |line| line.contains(&cluster));
}

#[test]
fn a_home_that_has_kept_nothing_says_how_to_begin() {
    let root = Root::new();
    let home = root.path().join("home");
    let start = |arguments: &[&str], words: &[&str]| {
        let all = [&["start"][..], arguments].concat();
        Program::start(mobula(&home).args(all)).end().fails(2, words);
        assert!(!home.exists());
    };
    start(&[], &["--head", "--address HOST:PORT", "token", "kept no membership"]);
    start(&["--address", "127.0.0.1:1"], &["--address takes a token", "mobula token create", "--token-file"]);
    start(&["--token-fd", "0"], &["--head", "--address HOST:PORT"]);
}
