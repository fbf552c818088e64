//! What lists show, one by one with `mobula get`, and the whole cluster again and again with `mobula status --follow`.

use serde_json::Value;

use crate::common::{Cluster, Ended, Program, example, mobula, outside_with, until};

/// The words of the first column of a list, without its head.
fn first_column(ended: &Ended) -> Vec<String> {
    let lines = ended.ok().lines().skip(1);
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn whatever_a_list_shows_can_be_got_by_its_id() {
    let cluster = Cluster::of(1);
    let mut keeps = outside_with(&cluster.head.home, &example("detached_program"));
    let mut keeps = Program::start(keeps.args(["create", "hits", "node-1"]));
    keeps.line("its actor", |line| line.starts_with("created on"));
    let over = cluster.path("over");
    let mut spreads = outside_with(&cluster.head.home, &example("placement_program"));
    let mut spreads = Program::start(spreads.args(["spread", "1"]).arg(&over));
    spreads.line("its placement group", |line| line.starts_with("spread:"));
    for list in ["nodes", "jobs", "workers", "placement-groups", "leases", "actors", "detached"] {
        let ids = first_column(&cluster.run(&["list", list]));
        assert!(!ids.is_empty(), "{list}");
        for id in ids {
            let got = cluster.run(&["get", &id]).json();
            assert!(got.is_object(), "{list} {id}: {got}");
        }
    }
    assert_eq!(cluster.run(&["get", "hits"]).json()["name"], "hits");
    let words = ["no job, worker, placement group, lease, actor", "\"nothing\"", "node-1", "mobula list"];
    cluster.run(&["get", "nothing"]).fails(1, &words);
    std::fs::write(&over, "").expect("room");
    spreads.end().ok();
}

/// The number of nodes that are up, each time that it was shown.
fn nodes_up(follower: &Program) -> Vec<Value> {
    let text = follower.stdout();
    let views = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    views.map(|view| view["summary"]["nodes_up"].clone()).collect()
}

#[test]
fn the_status_is_followed_over_a_restart_of_the_head_until_one_may_not() {
    let mut cluster = Cluster::patient(1);
    let home = cluster.path("observer");
    let (address, token) = (cluster.head.address.to_string(), cluster.token(&["--role", "observer"]));
    let login = ["login", "--address", &address, "--role", "observer", "--name", "here"];
    Program::start_with(mobula(&home).args(login), Some(&token)).end().ok();
    let mut follower = Program::start(mobula(&home).args(["status", "--follow", "--json"]));
    let mut table = Program::start(mobula(&cluster.head.home).args(["status", "-f"]));
    follower.line("two nodes", |line| line.contains(r#""nodes_up":2"#));
    table.line("two nodes", |line| line.contains("2 of 2 nodes up"));

    cluster.join("node-2", &["--num-cpus", "1"]);
    follower.line("a third", |line| line.contains(r#""nodes_up":3"#));
    table.line("a third", |line| line.contains("3 of 3 nodes up"));

    cluster.head.kill();
    cluster.head.start_again(None);
    cluster.wait_for_nodes(3);
    let before = nodes_up(&follower).len();
    cluster.run(&["node", "drain", "node-2"]).ok();
    cluster.node("node-2").end().ok();
    until("what the new head says", || {
        let shown = nodes_up(&follower);
        (shown.len() > before && shown.last() == Some(&Value::from(2))).then_some(())
    });
    assert!(follower.stderr().contains("trying again"), "{}", follower.stderr());
    assert!(!table.has_ended());

    let credentials = cluster.run(&["credential", "list", "--json"]).json();
    let uid = credentials[0]["uid"].as_str().expect("a text").to_owned();
    cluster.run(&["credential", "revoke", &uid]).ok();
    follower.end().fails(77, &["revoked"]);
    // One who was never heard is not waited for.
    cluster.head.kill();
    Program::start(mobula(&cluster.head.home).args(["status", "--follow"])).end().fails(69, &["no node of yours"]);
}
