//! The command and drivers from homes in which no node runs: what a login lets them do, its file, its renewal and its end.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{Cluster, Ended, Program, job_program, mobula, outside, until};
use crate::failures::{answered, wait_for_round};

/// A home of a person, on the same host as the nodes but known to none of them.
struct Person {
    home: PathBuf,
}

impl Person {
    /// Somebody who has not logged in.
    fn of(cluster: &Cluster, name: &str) -> Person {
        Person { home: cluster.path(name) }
    }

    /// Somebody who has, with a token of that role.
    fn with(cluster: &Cluster, role: &str) -> Person {
        let person = Person::of(cluster, role);
        person.log_in(cluster, role, &[]).ok();
        person
    }

    fn log_in(&self, cluster: &Cluster, role: &str, options: &[&str]) -> Ended {
        let token = cluster.token(&["--role", role]);
        let address = cluster.head.address.to_string();
        let mut command = self.command(&["login", "--address", &address, "--role", role]);
        Program::start_with(command.args(options), Some(&token)).end()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mobula(&self.home);
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Program::start(&mut self.command(arguments)).end()
    }

    /// The job program, run by hand.
    fn drive(&self, arguments: &[&str]) -> Program {
        let mut command = outside(&self.home);
        Program::start(command.env_remove("MOBULA_ADDRESS").args(arguments))
    }

    /// What `cluster list` says of the only login.
    fn login(&self) -> Value {
        self.run(&["cluster", "list", "--json"]).json()[0].clone()
    }

    fn uid(&self) -> String {
        self.login()["uid"].as_str().expect("a text").to_owned()
    }

    /// The file of the only login.
    fn file(&self) -> PathBuf {
        self.home.join("logins").join(self.login()["name"].as_str().expect("a text"))
    }
}

fn program() -> String {
    job_program().display().to_string()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn a_client_asks_submits_and_drives_from_where_no_node_runs() {
    let cluster = Cluster::of(1);
    let address = cluster.head.address.to_string();
    let person = Person::of(&cluster, "laptop");
    person.run(&["status"]).fails(69, &["no node of yours runs on this host", "mobula login --address"]);
    let ask = ["--address", &address, "status"];
    person.run(&ask).fails(77, &["not logged in", &address, "mobula token create --role client", "mobula login"]);
    assert!(!person.home.exists(), "who only asks makes nothing");
    person.log_in(&cluster, "client", &[]).ok();
    let login = person.login();
    assert_eq!((&login["cluster"], &login["role"]), (&Value::from(&*cluster.head.cluster), &Value::from("client")));
    for place in [person.home.clone(), person.home.join("logins")] {
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o7777, 0o700, "{place:?}");
    }
    assert_eq!(fs::metadata(person.file()).expect("there").permissions().mode() & 0o7777, 0o600);

    // The flag stands before the command or behind it, and the environment says the same.
    assert!(person.run(&["status"]).ok().contains("2 of 2 nodes up"));
    assert!(person.run(&["--address", &address, "status"]).ok().contains("2 of 2 nodes up"));
    assert!(person.run(&["status", "--address", &address]).ok().contains("2 of 2 nodes up"));
    let by_variable = Program::start(person.command(&["summary"]).env("MOBULA_ADDRESS", &address)).end();
    assert!(by_variable.ok().contains("nodes up"), "{by_variable:?}");
    let list = ["nodes", "workers", "jobs", "placement-groups", "leases", "actors"];
    for what in list {
        person.run(&["list", what]).ok();
    }
    assert_eq!(person.run(&["get", "node-1"]).json()["name"], "node-1");
    let doctor = person.run(&["doctor"]);
    assert!(doctor.ok().contains("as client until") && doctor.stdout.contains("none of this user runs here"));

    let submit = ["job", "submit", &program(), "--", "sum", "100"];
    let ended = person.run(&submit);
    assert!(ended.ok().lines().any(|line| line == "sum: 338350"), "{ended:?}");
    assert_eq!(cluster.view()["jobs"][0]["submitter"], format!("client {}", person.uid()));
    assert!(person.run(&["logs", "job-1"]).ok().contains("the driver is done"));
    // A driver here: by the login, by the variable, and as its program says.
    let ended = person.drive(&["sum", "100"]).end();
    assert!(ended.ok().contains("nodes: head node-1") && ended.stdout.contains("sum: 338350"), "{ended:?}");
    assert!(ended.stderr.contains("on node-1) hello from node-1"), "{ended:?}");
    let by_variable = Program::start(outside(&person.home).env("MOBULA_ADDRESS", &address).args(["sum", "10"])).end();
    assert!(by_variable.ok().contains("nodes: head node-1"), "{by_variable:?}");
    let ended = person.drive(&["at", &address, "sum", "10"]).end();
    assert!(ended.ok().contains("nodes: head node-1"), "{ended:?}");
    let nonsense = Program::start(outside(&person.home).env("MOBULA_ADDRESS", "host:").args(["sum", "10"])).end();
    nonsense.fails(1, &["MOBULA_ADDRESS", "host:", "valid are HOST:PORT", "`auto`", "`local`"]);
    until("the jobs are over", || cluster.job_processes().is_empty().then_some(()));

    person.run(&["logout"]).ok();
    person.run(&["status"]).fails(69, &["mobula login"]);
}

#[test]
fn each_role_may_do_what_is_listed_for_it_from_anywhere() {
    let mut cluster = Cluster::of(1);
    let [observer, client, operator] = ["observer", "client", "operator"].map(|role| Person::with(&cluster, role));
    for person in [&observer, &client, &operator] {
        assert!(person.run(&["status"]).ok().contains("2 of 2 nodes up"));
    }
    let submit = ["job", "submit", "--no-wait", &program(), "--", "rounds", "/nonexistent"];
    observer.run(&submit).fails(77, &["Unauthorized", "observer", "SubmitJobs", "client, operator"]);
    observer.drive(&["sum", "10"]).end().fails(1, &["Unauthorized", "observer", "SubmitJobs"]);
    assert_eq!(client.run(&submit).ok(), "job-1\n");
    let theirs = cluster.submit_and_leave(&["rounds", "/nonexistent"]);
    assert_eq!(theirs, "job-2");
    observer.run(&["job", "stop", "job-1"]).fails(77, &["observer", "SubmitJobs"]);
    client.run(&["job", "stop", "job-2"]).fails(77, &["client", "job-2"]);
    client.run(&["job", "stop", "job-1"]).ok();
    operator.run(&["job", "stop", "job-2"]).ok();
    let uid = client.uid();
    let of_operators: [(&[&str], &str); 6] = [
        (&["token", "create"], "ManageTokens"),
        (&["token", "list"], "ManageTokens"),
        (&["credential", "list"], "ManageTokens"),
        (&["credential", "revoke", &uid], "ManageTokens"),
        (&["node", "drain", "node-1"], "ManageNodes"),
        (&["node", "remove", "node-1"], "ManageNodes"),
    ];
    for (command, capability) in of_operators {
        observer.run(command).fails(77, &["observer", capability, "operator"]);
        client.run(command).fails(77, &["client", capability, "operator"]);
    }
    let token = operator.run(&["token", "create"]).ok().trim().to_owned();
    assert!(operator.run(&["token", "list"]).ok().contains("worker"));
    let joined = cluster.try_join("node-2", &["--num-cpus", "1"], &token).unwrap_or_else(|ended| panic!("{ended:?}"));
    cluster.nodes.push(joined);
    operator.run(&["node", "drain", "node-2"]).ok();
    cluster.node("node-2").end().ok();
    operator.run(&["node", "remove", "node-1"]).ok();
    cluster.node("node-1").end().fails(70, &[]);
    // A node is ended where it runs.
    let address = cluster.head.address.to_string();
    operator.run(&["--address", &address, "stop"]).fails(2, &["--address", "this host"]);
    assert_eq!(operator.run(&["stop"]).ok(), "no node of yours runs on this host\n");
}

#[test]
fn a_credential_that_is_revoked_is_of_no_use_at_once_and_neither_are_its_drivers() {
    let cluster = Cluster::of(1);
    let (person, other) = (Person::with(&cluster, "client"), Person::with(&cluster, "observer"));
    let (uid, over) = (person.uid(), cluster.path("over"));
    let over = over.to_str().expect("text");
    let submit = ["job", "submit", "--no-wait", &program(), "--", "rounds", over];
    assert_eq!(person.run(&submit).ok(), "job-1\n");
    let mut driver = person.drive(&["rounds", over]);
    wait_for_round(&driver, &["head", "node-1"]);
    let mut following = Program::start(&mut person.command(&["logs", "--follow", "job-1"]));
    following.line("a round", |line| answered(line).is_some());

    let listed = cluster.run(&["credential", "list", "--json"]).json();
    let rows = listed.as_array().expect("a list");
    assert_eq!(rows.len(), 2, "{listed}");
    let row = rows.iter().find(|row| row["uid"] == *uid).expect("it is listed");
    assert!(row["role"] == "client" && row["from"].as_str().is_some_and(|from| from.starts_with("127.")), "{row}");
    cluster.run(&["credential", "revoke", "0123456789abcdef"]).fails(1, &["there is no credential"]);
    cluster.run(&["credential", "revoke", "job-1"]).fails(2, &["no uid", "mobula credential list"]);
    cluster.run(&["credential", "revoke", &uid]).ok();

    person.run(&["status"]).fails(77, &["client", "revoked", "new token"]);
    following.end().fails(77, &["revoked"]);
    // Its driver drives no more, and its workers end; what runs on the cluster by itself goes on.
    cluster.wait_for_job("job-2", "stopped");
    until("the driver hears nothing", || {
        let processes = cluster.job_processes().len();
        (driver.has_ended() || processes == 3).then_some(())
    });
    cluster.wait_for_job("job-1", "running");
    let listed = cluster.run(&["credential", "list", "--json"]).json();
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["role"]), (Some(1), &Value::from("observer")), "{listed}");
    other.run(&["status"]).ok();
    let audit = fs::read_to_string(cluster.head.home.join("identity/audit.log")).expect("there");
    assert!(audit.lines().any(|line| line.contains("credential revoked") && line.contains(&uid)), "{audit}");
    fs::write(over, "").expect("room");
    cluster.wait_for_job("job-1", "succeeded");
    // It comes back with a new token, as another life.
    person.log_in(&cluster, "client", &[]).ok();
    assert_ne!(person.uid(), uid);
    person.run(&["status"]).ok();
}

#[test]
fn a_credential_is_renewed_by_use_and_ends_without() {
    let cluster = Cluster::head_with(&["--num-cpus", "1", "--certificate-life", "10s"]);
    let person = Person::with(&cluster, "client");
    let until_of = |person: &Person| person.login()["until"].as_u64();
    let (first, uid) = (until_of(&person), person.uid());
    let over = cluster.path("over");
    let mut driver = person.drive(&["rounds", over.to_str().expect("text")]);
    wait_for_round(&driver, &["head"]);
    // By a driver, which asks for nothing else with it.
    until("it is renewed", || (until_of(&person) > first).then_some(()));
    let second = until_of(&person);
    until("it is renewed once more", || {
        // Several at a time: one of them renews it, and each reads a whole file.
        let many: Vec<_> = (0..4).map(|_| Program::start(&mut person.command(&["summary"]))).collect();
        for mut one in many {
            one.end().ok();
        }
        (until_of(&person) > second).then_some(())
    });
    assert_eq!(person.uid(), uid, "the same life");
    let credentials = cluster.run(&["credential", "list", "--json"]).json();
    assert_eq!((credentials.as_array().map(Vec::len), &credentials[0]["uid"]), (Some(1), &Value::from(&*uid)));
    // Who has logged out has a driver that renews its own, and goes on.
    person.run(&["logout"]).ok();
    let none = Value::Array(Vec::new());
    until("it is over", || (cluster.run(&["credential", "list", "--json"]).json() == none).then_some(()));
    cluster.wait_for_job("job-1", "running");
    fs::write(&over, "").expect("room");
    assert!(driver.end().ok().contains("the rounds are over"));
    cluster.wait_for_job("job-1", "succeeded");

    // Nobody asks for as long as it lives.
    person.log_in(&cluster, "client", &[]).ok();
    let uid = person.uid();
    let ended =
        until("it is over", || Some(person.run(&["cluster", "list"])).filter(|list| list.ok().contains("over")));
    assert!(ended.stdout.contains(&uid));
    let said = ["is over", "mobula token create --role client", "mobula login --address"];
    person.run(&["status"]).fails(77, &said);
    person.run(&["doctor"]).fails(1, &[]);
    person.drive(&["sum", "10"]).end().fails(1, &said);
    person.log_in(&cluster, "client", &[]).ok();
    person.run(&["status"]).ok();
    // One that was revoked is not renewed.
    cluster.run(&["credential", "revoke", &person.uid()]).ok();
    let refused = until("it is to be renewed", || {
        let ended = person.run(&["status"]);
        ended.fails(77, &["revoked"]);
        ended.stderr.contains("does not renew").then_some(ended)
    });
    refused.fails(77, &["audit log", "new token", "role client"]);
}

#[test]
fn a_credential_that_others_could_have_read_ends_with_77_and_what_to_do() {
    let cluster = Cluster::head();
    let person = Person::with(&cluster, "client");
    let (file, address) = (person.file(), cluster.head.address.to_string());
    let name = file.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
    let fails = |code: i32, words: &[&str]| {
        for asked in [&["status"][..], &["--address", &address, "status"], &["--address", &name, "job", "list"]] {
            person.run(asked).fails(code, words);
        }
        person.drive(&["sum", "10"]).end().fails(1, words);
        person.run(&["doctor"]).fails(1, &[]);
    };
    for mode in [0o644, 0o640, 0o604, 0o700] {
        set_mode(&file, mode);
        fails(77, &[&name, &format!("its mode is {mode:04o}"), "chmod 0600"]);
    }
    set_mode(&file, 0o600);
    let aside = person.home.join("aside");
    fs::rename(&file, &aside).expect("ours");
    symlink(&aside, &file).expect("room");
    fails(77, &[&name, "it is a symbolic link"]);
    fs::remove_file(&file).expect("ours");
    fs::rename(&aside, &file).expect("ours");
    for place in [person.home.join("logins"), person.home.clone()] {
        set_mode(&place, 0o755);
        fails(77, &["its mode is 0755", "chmod 0700"]);
        set_mode(&place, 0o700);
    }
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(1), None).expect("root may");
        fails(77, &["it belongs to user 1", "chown it to 0"]);
        chown(&file, Some(0), None).expect("root may");
    } else {
        eprintln!("skipped: the file of another user takes root");
    }
    let good = fs::read(&file).expect("there");
    for bad in [&b"garbage"[..], &good[..good.len() / 2], &[]] {
        fs::write(&file, bad).expect("room");
        fails(78, &[&name, "was left as it is"]);
        assert_eq!(fs::read(&file).expect("there"), bad);
    }
    // It can be got rid of, and made anew.
    person.run(&["logout", &name]).ok();
    person.log_in(&cluster, "client", &[]).ok();
    person.run(&["status"]).ok();
}

#[test]
fn a_login_that_makes_no_sense_says_what_would_and_spends_no_token() {
    let (cluster, other) = (Cluster::head(), Cluster::head());
    let person = Person::of(&cluster, "laptop");
    let address = cluster.head.address.to_string();
    let login = |arguments: &[&str], token: &str| {
        let mut command = person.command(&["login"]);
        Program::start_with(command.args(arguments), Some(token)).end()
    };
    let token = cluster.token(&["--role", "client"]);
    for bad in ["host:", "host", ":6379", "127.0.0.1:99999", "a:1,b"] {
        person.run(&["--address", bad, "status"]).fails(2, &[bad.split(',').next_back().expect("one"), "HOST:"]);
        login(&["--address", bad], &token).fails(2, &["HOST:PORT"]);
    }
    person.run(&["--address", "host:", "status"]).fails(2, &["--address \"host:\"", "valid are HOST:PORT"]);
    let variable = Program::start(person.command(&["status"]).env("MOBULA_ADDRESS", "host:")).end();
    variable.fails(2, &["MOBULA_ADDRESS \"host:\"", "valid are HOST:PORT"]);
    let variable = Program::start(person.command(&["status"]).env("MOBULA_ADDRESS", "local")).end();
    variable.fails(2, &["MOBULA_ADDRESS local", "no cluster to ask"]);
    person.run(&["login"]).fails(2, &["--address HOST:PORT"]);
    person.run(&["login", "--address", &address]).fails(2, &["not a token"]);
    login(&["--address", &address, "--token", "abc"], "").fails(2, &["visible to others"]);
    login(&["--address", &address, "--role", "worker"], &token)
        .fails(2, &["--role worker", "client, operator and observer"]);
    for name in ["..", "a/b", "auto", "current", ""] {
        login(&["--address", &address, "--name", name], &token).fails(2, &["valid are 1 to 64 letters"]);
    }
    login(&["--address", &address, "--role", "operator"], &token)
        .fails(77, &["JoinRejected", "another role than operator"]);
    let elsewhere = other.head.address.to_string();
    login(&["--address", &elsewhere], &token).fails(69, &["WrongAuthority", &elsewhere]);
    assert_eq!(person.run(&["cluster", "list", "--json"]).json(), Value::Array(Vec::new()));
    login(&["--address", &address, "--name", "prod"], &token).ok();
    // The name is another cluster's: that is seen before the token is spent.
    let theirs = other.token(&["--role", "client"]);
    login(&["--address", &elsewhere, "--name", "prod"], &theirs).fails(2, &["prod", &cluster.head.cluster, "--name"]);
    login(&["--address", &elsewhere, "--name", "test"], &theirs).ok();
    login(&["--address", &elsewhere, "--name", "again"], &theirs).fails(77, &["JoinRejected"]);
}

#[test]
fn a_person_asks_several_clusters_one_of_which_is_current() {
    let (first, second) = (Cluster::head(), Cluster::head());
    let person = Person::of(&first, "laptop");
    person.log_in(&first, "client", &["--name", "prod"]).ok();
    person.log_in(&second, "operator", &["--name", "test"]).ok();
    let asked = |arguments: &[&str]| {
        let all: Vec<_> = arguments.iter().chain(&["status", "--json"]).copied().collect();
        person.run(&all).json()["cluster"].as_str().expect("a text").to_owned()
    };
    let (one, two) = (first.head.cluster.clone(), second.head.cluster.clone());
    assert_eq!(asked(&[]), two, "the last login is the current one");
    assert_eq!(asked(&["--address", "prod"]), one);
    assert_eq!(asked(&["--address", &one]), one, "by its id");
    assert_eq!(asked(&["--address", &first.head.address.to_string()]), one);
    // An address that was never named: the head there shows whose it is.
    let port = first.head.address.port();
    assert_eq!(asked(&["--address", &format!("localhost:{port}")]), one);
    person.run(&["cluster", "use", "prod"]).ok();
    assert_eq!(asked(&[]), one);
    let list = person.run(&["cluster", "list"]);
    let current: Vec<_> = list.ok().lines().filter(|line| line.ends_with("current")).collect();
    assert!(current.len() == 1 && current[0].starts_with("prod"), "{list:?}");
    person.run(&["cluster", "use", "third"]).fails(2, &["third", "mobula cluster list"]);
    // A node of this user on this host comes before the logins.
    let operator = Person { home: second.head.home.clone() };
    operator.log_in(&first, "client", &["--name", "prod"]).ok();
    assert_eq!(operator.run(&["status", "--json"]).json()["cluster"], *two);
    assert_eq!(operator.run(&["--address", "prod", "status", "--json"]).json()["cluster"], *one);

    assert_eq!(person.run(&["logout"]).ok(), "logged out of cluster prod\n");
    assert_eq!(asked(&[]), two, "the only one that is left");
    person.run(&["--address", "prod", "status"]).fails(2, &["prod"]);
    person.run(&["--address", &first.head.address.to_string(), "status"]).fails(77, &["not logged in"]);
    person.run(&["logout", &two]).ok();
    person.run(&["logout"]).fails(1, &["not logged in to any cluster"]);
}
