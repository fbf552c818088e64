//! `mobula doctor`: what it looks at, and what it says where something is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::common::{Cluster, Ended, Program, Root, mobula, until};

/// The checks by what they look at: state, what was found, and what mends it.
fn checks(ended: &Ended) -> BTreeMap<String, [String; 3]> {
    let checks: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = checks.as_array().expect("a list").iter();
    checks.map(|check| (text(check, "what"), ["state", "found", "mend"].map(|key| text(check, key)))).collect()
}

#[track_caller]
fn says(checks: &BTreeMap<String, [String; 3]>, what: &str, state: &str, words: &[&str]) {
    let check = checks.get(what).unwrap_or_else(|| panic!("{what} is not looked at: {checks:?}"));
    assert_eq!(check[0], state, "{what}: {check:?}");
    words.iter().for_each(|word| assert!(check[1..].iter().any(|text| text.contains(word)), "{word}: {check:?}"));
}

const ALL: [&str; 10] =
    ["home", "permissions", "descriptors", "cgroups", "port", "exposure", "node", "certificate", "clock", "versions"];

#[test]
fn a_head_and_a_node_that_are_well_are_looked_at_from_all_sides() {
    let mut cluster = Cluster::of(1);
    let head = cluster.run(&["doctor", "--json"]);
    head.ok();
    let of_head = checks(&head);
    assert_eq!(of_head.len(), ALL.len(), "{of_head:?}");
    ALL.iter().for_each(|what| says(&of_head, what, "ok", &[]));
    says(&of_head, "permissions", "ok", &["private files are this user's alone"]);
    says(&of_head, "port", "ok", &[&cluster.head.address.to_string()]);
    says(&of_head, "exposure", "ok", &["127.0.0.1", "loopback: only this host", "TLS both ways"]);
    says(&of_head, "clock", "ok", &["the head's"]);

    let node = cluster.node("node-1");
    let asked = node.run(&["doctor", "--json"]);
    asked.ok();
    let of_node = checks(&asked);
    ALL.iter().for_each(|what| says(&of_node, what, "ok", &[]));
    says(&of_node, "certificate", "ok", &["is good until", "is renewed"]);
    says(&of_node, "clock", "ok", &["the head's"]);
    says(&of_node, "versions", "ok", &["speaks with all"]);
    node.kill();
    let of_node = checks(&node.run(&["doctor", "--json"]));
    says(&of_node, "certificate", "ok", &["lets the node come back"]);
    says(&of_node, "exposure", "skipped", &["no node runs here", "--listen"]);
    cluster.head.kill();
    let of_node = checks(&cluster.node("node-1").run(&["doctor", "--json"]));
    says(&of_node, "clock", "skipped", &["no head has said"]);
    says(&of_node, "versions", "skipped", &["no head has answered"]);
}

#[test]
fn what_is_wrong_fails_with_what_mends_it() {
    let root = Root::new();
    let home = root.path().join("home");
    let doctor = |options: &[&str]| {
        let mut command = mobula(&home);
        Program::start(command.args(["doctor", "--json"]).args(options)).end()
    };
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let ended = doctor(&["--port", &port]);
    ended.fails(1, &["checks failed"]);
    let by = format!("in use by process {}", std::process::id());
    says(&checks(&ended), "port", "failed", &[&port, &by, "another --port"]);
    drop(taken);
    says(&checks(&doctor(&["--port", &port])), "port", "ok", &["is free"]);

    let mut cluster = Cluster::head_with(&["--num-cpus", "1", "--certificate-life", "10s"]);
    cluster.join("node-1", &["--num-cpus", "1"]);
    cluster.node("node-1").kill();
    let node = &cluster.nodes[0];
    let membership = node.home.join("membership");
    fs::set_permissions(&membership, fs::Permissions::from_mode(0o644)).expect("ours");
    let ended = node.run(&["doctor", "--json"]);
    ended.fails(1, &[]);
    let mend = format!("chmod 0600 {}", membership.display());
    says(&checks(&ended), "permissions", "failed", &["its mode is 0644", &mend]);
    says(&checks(&ended), "certificate", "failed", &["its mode is 0644"]);
    fs::set_permissions(&membership, fs::Permissions::from_mode(0o600)).expect("ours");
    until("its certificate is over", || {
        let ended = node.run(&["doctor", "--json"]);
        let checks = checks(&ended);
        if checks["certificate"][0] == "ok" {
            return None;
        }
        says(&checks, "certificate", "failed", &["is over", "--address", "mobula token create"]);
        ended.fails(1, &["checks failed"]);
        Some(())
    });
}
