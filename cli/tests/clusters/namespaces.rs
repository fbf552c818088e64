//! A cluster over a network: each node in a network namespace of its own, with its own address. Takes root and iproute2.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Ended, LONG, Process, Program, Root, job_program, running_from, until, wait_until};
use crate::failures::asked;
use serde_json::Value;

const NODES: usize = 4;

/// Namespaces on a switch, which is one, too. They go with this.
struct Network {
    prefix: String,
    nodes: usize,
}

/// Networks of this process.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

impl Network {
    /// None, with the reason, where this user or host cannot have one.
    fn make(nodes: usize) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces take root".to_owned());
        }
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Network { prefix: format!("mobula{}n{number}", std::process::id()), nodes };
        let switch = network.name(0);
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &switch, "addr", "add", &format!("{}/24", address(0)), "dev", "switch"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        for node in 1..=nodes {
            let (name, port) = (network.name(node), format!("port{node}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "add", "wire", "type", "veth", "peer", "name", &port, "netns", &switch])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", address(node)), "dev", "wire"])?;
            ip(&["-n", &name, "link", "set", "wire", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// From now on nothing that `from` sends to `to` arrives, and nobody is told: it goes to a network card that is not there.
    fn cut(&self, from: usize, to: usize) {
        let (name, to) = (self.name(from), address(to));
        let neigh = ["-n", &name, "neigh", "replace", &to];
        let nobody = ["lladdr", "02:00:00:00:00:01", "dev", "wire", "nud", "permanent"];
        ip(&[&neigh[..], &nobody].concat()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// What `from` sends to `to` arrives again.
    fn heal(&self, from: usize, to: usize) {
        let known = ["-n", &self.name(from), "neigh", "del", &address(to), "dev", "wire"];
        ip(&known).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A command on a node; 0 is the switch, which is a host of the network as well.
    fn command(&self, node: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(node), program]);
        for name in ["MOBULA_ADDRESS", "MOBULA_DRIVER", "MOBULA_NODE", "MOBULA_HOME", "MOBULA_LOG"] {
            command.env_remove(name);
        }
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..=self.nodes {
            let _ = ip(&["netns", "del", &self.name(number)]);
        }
    }
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", 100 + number)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|error| format!("there is no ip: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("ip {}: {}", arguments.join(" "), said.trim())) }
}

/// Local addresses and ports, in the kernel's writing, at which something listens.
fn listening(tables: &str) -> Vec<(String, u16)> {
    in_state(tables, "0A")
}

/// The same, for connections that are open.
fn open(tables: &str) -> Vec<(String, u16)> {
    in_state(tables, "01")
}

fn in_state(tables: &str, state: &str) -> Vec<(String, u16)> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        (*fields.get(3)? == state).then(|| (address.to_owned(), u16::from_str_radix(port, 16).expect("a port")))
    };
    tables.lines().filter_map(of_line).collect()
}

/// Hosts of a network, some of which are the nodes of a cluster, each with a home of its own.
struct Hosts {
    nodes: Vec<Program>,
    network: Network,
    root: Root,
}

impl Hosts {
    /// The first `nodes` hosts of the network are a cluster, with ports as they are by default.
    fn start(network: Network, nodes: usize) -> Hosts {
        let mut hosts = Hosts { nodes: Vec::new(), network, root: Root::new() };
        hosts.join(1, &["--head"], None);
        let head = format!("{}:6379", address(1));
        for node in 2..=nodes {
            let token = hosts.ask(1, &["token", "create"]).ok().to_owned();
            hosts.join(node, &["--address", &head, "--token-file", "-"], Some(&token));
        }
        until("all nodes are up", || {
            let view = hosts.ask(1, &["status", "--json"]).json();
            (view["summary"]["nodes_up"] == nodes).then_some(())
        });
        hosts
    }

    fn home(&self, host: usize) -> PathBuf {
        self.root.path().join(format!("node-{host}"))
    }

    /// The command on a host.
    fn mobula(&self, host: usize, arguments: &[&str]) -> Command {
        let mut command = self.network.command(host, env!("CARGO_BIN_EXE_mobula"));
        command.arg("--home").arg(self.home(host)).args(arguments);
        command
    }

    fn ask(&self, host: usize, arguments: &[&str]) -> Ended {
        Program::start(&mut self.mobula(host, arguments)).end()
    }

    fn join(&mut self, node: usize, how: &[&str], token: Option<&str>) {
        let program = self.begin(node, how, token);
        self.nodes.push(program);
    }

    /// A node that is ready.
    fn begin(&self, node: usize, how: &[&str], token: Option<&str>) -> Program {
        let (name, own) = (format!("node-{node}"), address(node));
        let mut command = self.mobula(node, &["start", "--block", "--json", "--num-cpus", "1", "--name", &name]);
        let mut program = Program::start_with(command.args(["--advertise", &own]).args(how), token);
        let line = program.line("that it is ready", |line| line.starts_with(r#"{"Ready""#));
        let told: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(told["Ready"]["address"], format!("{own}:{}", if node == 1 { 6379 } else { 6380 }));
        program
    }

    /// What lists say of the newest life of a node.
    fn row(&self, node: usize) -> Value {
        let view = self.ask(1, &["status", "--json"]).json();
        let rows = view["nodes"].as_array().expect("a list").iter().filter(|row| row["name"] == format!("node-{node}"));
        rows.min_by_key(|row| row["phase"] == "down").cloned().unwrap_or_default()
    }

    /// What the kernel of a host says of its connections.
    fn sockets(&self, host: usize, tables: [&str; 2]) -> String {
        let ended = Program::start(self.network.command(host, "cat").args(tables)).end();
        ended.ok().to_owned()
    }

    fn stop(&mut self) {
        for node in (1..=self.nodes.len()).rev() {
            self.ask(node, &["stop"]).ok();
            self.nodes[node - 1].end().ok();
        }
    }
}

const TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
const UDP: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

#[test]
fn four_hosts_are_a_cluster_and_only_one_port_of_each_is_open() {
    let network = match Network::make(NODES) {
        Ok(network) => network,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut hosts = Hosts::start(network, NODES);
    let ask = |arguments: &[&str]| hosts.ask(1, arguments);
    let view = ask(&["status", "--json"]).json();
    for (number, node) in view["nodes"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(node["total"]["cpus"], 1, "{number}: {node}");
    }

    let program = job_program().display().to_string();
    let ended = ask(&["job", "submit", &program, "--", "sum", "1000"]);
    assert!(ended.ok().lines().any(|line| line == "nodes: node-1 node-2 node-3 node-4"), "{ended:?}");
    assert!(ended.ok().lines().any(|line| line == "sum: 333833500"), "{ended:?}");

    // While a job runs on all of them.
    let end = hosts.root.path().join("end").display().to_string();
    let mut job = Program::start(&mut hosts.mobula(1, &["job", "submit", &program, "--", "rounds", &end]));
    job.line("answers of all", |line| (1..=NODES).all(|node| line.contains(&format!("node-{node}="))));
    for node in 1..=NODES {
        let port = if node == 1 { 6379 } else { 6380 };
        assert_eq!(listening(&hosts.sockets(node, TCP)), [("00000000".to_owned(), port)], "node-{node}");
        let datagrams = hosts.sockets(node, UDP);
        assert_eq!(datagrams.lines().filter(|line| !line.contains("local_address")).count(), 0, "{datagrams:?}");
        // From another host of the network.
        let reach = |port: u16| {
            let script = format!("exec 3<>/dev/tcp/{}/{port}", address(node));
            Program::start(hosts.network.command(0, "bash").args(["-c", &script])).end().status.success()
        };
        assert!(reach(port), "node-{node}");
        let closed = [22, 80, 6378, 6381, 8265, 10001].map(reach);
        assert_eq!(closed, [false; 6], "node-{node}");
    }
    std::fs::write(&end, "").expect("room");
    job.end().ok();
    hosts.stop();
}

#[test]
fn a_host_that_is_no_node_asks_submits_and_drives_and_opens_no_port() {
    const LAPTOP: usize = 3;
    let network = match Network::make(LAPTOP) {
        Ok(network) => network,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut hosts = Hosts::start(network, 2);
    let head = format!("{}:6379", address(1));
    let token = hosts.ask(1, &["token", "create", "--role", "client"]).ok().to_owned();
    let mut login = hosts.mobula(LAPTOP, &["login", "--address", &head, "--name", "lab"]);
    Program::start_with(&mut login, Some(&token)).end().ok();
    assert!(hosts.ask(LAPTOP, &["status"]).ok().contains("2 of 2 nodes up"));
    assert!(hosts.ask(LAPTOP, &["credential", "list"]).stderr.contains("ManageTokens"));
    let seen = hosts.ask(1, &["credential", "list", "--json"]).json();
    assert!(seen[0]["from"].as_str().is_some_and(|from| from.starts_with(&address(LAPTOP))), "{seen}");

    let program = job_program().display().to_string();
    let ended = hosts.ask(LAPTOP, &["job", "submit", &program, "--", "sum", "1000"]);
    assert!(ended.ok().lines().any(|line| line == "nodes: node-1 node-2"), "{ended:?}");
    assert!(ended.ok().lines().any(|line| line == "sum: 333833500"), "{ended:?}");
    let drive = |arguments: &[&str]| {
        let mut command = hosts.network.command(LAPTOP, &program);
        command.env("MOBULA_HOME", hosts.home(LAPTOP)).env("MOBULA_ADDRESS", &head).args(arguments);
        Program::start(&mut command)
    };
    let ended = drive(&["sum", "1000"]).end();
    assert!(ended.ok().contains("nodes: node-1 node-2") && ended.stdout.contains("sum: 333833500"), "{ended:?}");
    assert!(ended.stderr.contains("on node-2) hello from node-2"), "{ended:?}");

    // While it drives, it has connections to both nodes, and no door of its own.
    let end = hosts.root.path().join("end").display().to_string();
    let mut driver = drive(&["rounds", &end]);
    let both = driver.line("answers of both", |line| line.contains("node-1=") && line.contains("node-2="));
    assert_eq!(listening(&hosts.sockets(LAPTOP, TCP)), []);
    // All of them break, and it connects again: its sessions go on, and no question is left without an answer.
    let before = open(&hosts.sockets(LAPTOP, TCP));
    assert!(before.len() >= 4, "two to each node: {before:?}");
    let cut = Program::start(hosts.network.command(LAPTOP, "ss").args(["--kill", "--tcp"])).end();
    if cut.status.success() && open(&hosts.sockets(LAPTOP, TCP)) != before {
        until("it has connected again", || {
            let now = open(&hosts.sockets(LAPTOP, TCP));
            (now.len() >= 4 && now.iter().all(|socket| !before.contains(socket))).then_some(())
        });
    } else {
        eprintln!("skipped: this host cannot end connections: {cut:?}");
    }
    let ended = hosts.ask(1, &["job", "status", "job-3", "--json"]);
    assert_eq!(ended.json()["phase"], "running", "{ended:?}");
    std::fs::write(&end, "").expect("room");
    let ended = driver.end();
    assert!(ended.ok().contains("the rounds are over"), "{ended:?}");
    // It says so whenever a question finds no answer.
    let since = ended.stdout.lines().skip_while(|line| *line != both).filter(|line| line.starts_with("answered:"));
    assert_eq!(since.count(), 1, "{ended:?}");
    hosts.ask(LAPTOP, &["logout"]).ok();
    hosts.ask(LAPTOP, &["status"]).fails(69, &["mobula login --address"]);
    hosts.stop();
}

/// Lease and margin as they are by default: so long after its last word a node is down at the latest.
const LEASE: Duration = Duration::from_secs(8);
const MARGIN: Duration = Duration::from_secs(2);
/// For a heartbeat that is under way, the command that looks, and a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// The third of three hosts is cut off from both others: what it sends is lost, or what is sent to it, or both.
#[expect(clippy::disallowed_methods, reason = "how long things take is told")]
fn a_cut_host_is_down_in_time(what: &str, out: bool, into: bool) {
    const CUT: usize = 3;
    let network = match Network::make(CUT) {
        Ok(network) => network,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut hosts = Hosts::start(network, CUT);
    let over = hosts.root.path().join("over");
    let mut command = hosts.network.command(1, &job_program().display().to_string());
    command.env("MOBULA_HOME", hosts.home(1)).env("MOBULA_ADDRESS", "auto");
    let mut driver = Program::start(command.arg("asks").arg(&over).arg("node-1"));
    let both = |counts: &[(String, u64)]| counts.len() == 2 && counts.iter().all(|(_, count)| *count > 0);
    until("answers of both", || asked(&driver).filter(|counts| both(counts)));
    let workers = running_from(&hosts.home(CUT));
    assert!(!workers.is_empty(), "a worker of the job");
    let before = hosts.row(CUT)["uid"].clone();

    let others = || 1..CUT;
    let begun = Instant::now();
    for other in others() {
        if out {
            hosts.network.cut(CUT, other);
        }
        if into {
            hosts.network.cut(other, CUT);
        }
    }
    let (mut down, mut told, mut fenced) = (None, None, None);
    wait_until(LONG, "it is down, its callers know, and it has ended what it ran", || {
        let now = Some(begun.elapsed());
        if fenced.is_none() && hosts.nodes[CUT - 1].has_ended() {
            fenced = now;
        }
        if told.is_none() && driver.stdout().lines().any(|line| line.starts_with("failed: node-3")) {
            told = now;
        }
        if down.is_none() && hosts.row(CUT)["phase"] == "down" {
            down = now;
        }
        down.is_some() && told.is_some() && fenced.is_some()
    });
    let text = driver.stdout();
    let failed: Vec<_> = text.lines().filter(|line| line.starts_with("failed: ")).collect();
    let [down, told, fenced] = [down, told, fenced].map(|at| at.expect("that was waited for"));
    println!("{what}: down after {down:?}, told to its caller after {told:?}, fenced after {fenced:?}; {failed:?}");
    assert!(down <= LEASE + MARGIN + SLACK, "down after {down:?}");
    // Two lives of it at a time are none: it has ended what it ran before others take over.
    assert!(fenced <= LEASE + SLACK, "fenced after {fenced:?}");
    assert!(told <= LEASE + MARGIN + SLACK, "told after {told:?}");
    hosts.nodes[CUT - 1].end().fails(70, &["lost its lease"]);
    until("its workers have ended", || (!workers.iter().any(Process::is_running)).then_some(()));
    // The caller knows what has become of its ask, and of others nothing was lost.
    assert!(matches!(failed[..], [line] if line.starts_with("failed: node-3 after ")), "{failed:?}");

    for other in others() {
        if out {
            hosts.network.heal(CUT, other);
        }
        if into {
            hosts.network.heal(other, CUT);
        }
    }
    hosts.nodes[CUT - 1] = hosts.begin(CUT, &[], None);
    let after = until("it is back", || Some(hosts.row(CUT)).filter(|row| row["phase"] == "up"));
    assert_ne!(after["uid"], before, "another life");
    let earlier = asked(&driver).expect("it tells");
    until("the other one answers", || asked(&driver).filter(|now| now[0].1 > earlier[0].1));
    std::fs::write(&over, "").expect("room");
    driver.end().ok();
    hosts.stop();
}

#[test]
fn a_host_whose_link_is_cut_is_down_in_time_and_comes_back_as_another_life() {
    a_cut_host_is_down_in_time("cut in both directions", true, true);
}

#[test]
fn a_host_that_is_not_heard_any_more_is_down_in_time_and_comes_back_as_another_life() {
    a_cut_host_is_down_in_time("cut on the way out", true, false);
}

#[test]
fn a_host_that_hears_nothing_any_more_is_down_in_time_and_comes_back_as_another_life() {
    a_cut_host_is_down_in_time("cut on the way in", false, true);
}
