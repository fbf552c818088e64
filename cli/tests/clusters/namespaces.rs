//! A cluster over a network: each node in a network namespace of its own, with its own address. Takes root and iproute2.

use std::process::Command;

use crate::common::{Program, Root, job_program, until};
use serde_json::Value;

const NODES: usize = 4;

/// Namespaces on a switch, which is one, too. They go with this.
struct Network {
    prefix: String,
}

impl Network {
    /// None, with the reason, where this user or host cannot have one.
    fn make(nodes: usize) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces take root".to_owned());
        }
        let network = Network { prefix: format!("mobula{}", std::process::id()) };
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
        for number in 0..=NODES {
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
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let listens = fields.get(3) == Some(&"0A");
        listens.then(|| (address.to_owned(), u16::from_str_radix(port, 16).expect("a port")))
    };
    tables.lines().filter_map(of_line).collect()
}

#[test]
fn four_hosts_are_a_cluster_and_only_one_port_of_each_is_open() {
    let network = match Network::make(NODES) {
        Ok(network) => network,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let root = Root::new();
    let home = |node: usize| root.path().join(format!("node-{node}"));
    let mobula = |node: usize, arguments: &[&str]| {
        let mut command = network.command(node, env!("CARGO_BIN_EXE_mobula"));
        command.arg("--home").arg(home(node)).args(arguments);
        command
    };
    let ask = |arguments: &[&str]| Program::start(&mut mobula(1, arguments)).end();
    let ready = |program: &mut Program| {
        let line = program.line("that it is ready", |line| line.starts_with(r#"{"Ready""#));
        let told: Value = serde_json::from_str(&line).expect("JSON");
        told["Ready"]["address"].as_str().expect("an address").to_owned()
    };
    let start = |node: usize, how: &[&str], token: Option<&str>| {
        let (name, own) = (format!("node-{node}"), address(node));
        let mut command = mobula(node, &["start", "--block", "--json", "--num-cpus", "1", "--name", &name]);
        Program::start_with(command.args(["--advertise", &own]).args(how), token)
    };

    // Ports as they are by default.
    let mut nodes = vec![start(1, &["--head"], None)];
    let head = ready(&mut nodes[0]);
    assert_eq!(head, format!("{}:6379", address(1)));
    for node in 2..=NODES {
        let token = ask(&["token", "create"]).ok().to_owned();
        nodes.push(start(node, &["--address", &head, "--token-file", "-"], Some(&token)));
        assert_eq!(ready(nodes.last_mut().expect("just pushed")), format!("{}:6380", address(node)));
    }
    let view = until("four nodes are up", || {
        let view = ask(&["status", "--json"]).json();
        (view["summary"]["nodes_up"] == NODES).then_some(view)
    });
    for (number, node) in view["nodes"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(node["total"]["cpus"], 1, "{number}: {node}");
    }

    let program = job_program().display().to_string();
    let ended = ask(&["job", "submit", &program, "--", "sum", "1000"]);
    assert!(ended.ok().lines().any(|line| line == "nodes: node-1 node-2 node-3 node-4"), "{ended:?}");
    assert!(ended.ok().lines().any(|line| line == "sum: 333833500"), "{ended:?}");

    // While a job runs on all of them.
    let end = root.path().join("end").display().to_string();
    let mut job = Program::start(&mut mobula(1, &["job", "submit", &program, "--", "rounds", &end]));
    job.line("answers of all", |line| (1..=NODES).all(|node| line.contains(&format!("node-{node}="))));
    for node in 1..=NODES {
        let port = if node == 1 { 6379 } else { 6380 };
        let tables = Program::start(network.command(node, "cat").args(["/proc/net/tcp", "/proc/net/tcp6"])).end();
        assert_eq!(listening(tables.ok()), [("00000000".to_owned(), port)], "node-{node}");
        let datagrams = Program::start(network.command(node, "cat").args(["/proc/net/udp", "/proc/net/udp6"])).end();
        assert_eq!(datagrams.ok().lines().filter(|line| !line.contains("local_address")).count(), 0, "{datagrams:?}");
        // From another host of the network.
        let reach = |port: u16| {
            let script = format!("exec 3<>/dev/tcp/{}/{port}", address(node));
            Program::start(network.command(0, "bash").args(["-c", &script])).end().status.success()
        };
        assert!(reach(port), "node-{node}");
        let closed = [22, 80, 6378, 6381, 8265, 10001].map(reach);
        assert_eq!(closed, [false; 6], "node-{node}");
    }
    std::fs::write(&end, "").expect("room");
    job.end().ok();
    for node in (1..=NODES).rev() {
        Program::start(&mut mobula(node, &["stop"])).end().ok();
        nodes[node - 1].end().ok();
    }
}
