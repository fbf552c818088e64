//! One node: `mobula start --block` in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Ended, Process, Program, Signal, mobula};

/// A node that runs, or has been killed. Dropping it kills it.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its home.
    pub(crate) home: PathBuf,
    /// Where it is reached.
    pub(crate) address: SocketAddr,
    /// Its life, as lists show it.
    pub(crate) uid: String,
    /// Its cluster.
    pub(crate) cluster: String,
    arguments: Vec<String>,
    program: Program,
}

impl Node {
    /// Starts a node called `name` with its home in `root`, and waits until it is ready. `token` comes on its standard input.
    ///
    /// # Errors
    /// How it has ended instead.
    pub(crate) fn start(root: &Path, name: &str, arguments: &[&str], token: Option<&str>) -> Result<Node, Ended> {
        let home = root.join(name);
        let all: Vec<String> = ["start", "--block", "--json", "--listen", "127.0.0.1", "--advertise", "127.0.0.1"]
            .iter()
            .chain(&["--name", name])
            .chain(arguments)
            .map(|word| (*word).to_owned())
            .collect();
        let ready = |line: &str| line.starts_with(r#"{"Ready""#);
        let mut program = Program::start_with(mobula(&home).args(&all).args(port(&all, 0)).args(reading(token)), token);
        let line = super::until("the node is ready, or ends", || {
            let ended = program.has_ended();
            let line = program.stdout().lines().find(|line| ready(line)).map(str::to_owned);
            if line.is_some() || ended { Some(line) } else { None }
        });
        let Some(line) = line else { return Err(program.end()) };
        let (name, arguments) = (name.to_owned(), all);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node { name, home, address, uid: String::new(), cluster: String::new(), arguments, program };
        node.learn(&line);
        Ok(node)
    }

    fn learn(&mut self, line: &str) {
        let told: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| told["Ready"][key].as_str().unwrap_or_else(|| panic!("no {key} in {told}")).to_owned();
        self.address = text("address").parse().expect("an address");
        (self.uid, self.cluster) = (text("uid"), text("cluster"));
        assert_eq!(text("name"), self.name);
    }

    /// Starts it again with the same home, port and options, as a new life. Without a token it comes back with what it has kept.
    pub(crate) fn start_again(&mut self, token: Option<&str>) {
        self.begin_again(token);
        let address = self.address;
        let line = self.program.line("that the node is ready", |line| line.starts_with(r#"{"Ready""#));
        self.learn(&line);
        assert_eq!(self.address, address);
    }

    /// Tries to start it again.
    ///
    /// # Panics
    /// If it is ready, and does not end.
    pub(crate) fn fails_to_start_again(&mut self, token: Option<&str>) -> Ended {
        self.begin_again(token);
        self.program.end()
    }

    fn begin_again(&mut self, token: Option<&str>) {
        self.program.kill();
        let mut command = mobula(&self.home);
        let command = command.args(&self.arguments).args(port(&self.arguments, self.address.port()));
        self.program = Program::start_with(command.args(reading(token)), token);
    }

    /// From now on it is started without this flag, and the word after it.
    pub(crate) fn forget_flag(&mut self, flag: &str) {
        let at = self.arguments.iter().position(|word| word == flag).expect("it has the flag");
        self.arguments.drain(at..at + 2);
    }

    /// The command, run against this node.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.begin(arguments).end()
    }

    /// As [`run`](Self::run), without waiting for the end.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Program {
        Program::start(mobula(&self.home).args(arguments))
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        self.program.process()
    }

    /// The processes of jobs on this node.
    pub(crate) fn job_processes(&self) -> Vec<Process> {
        super::cluster::running_from(&self.home)
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Stops its process as a whole, as a machine that hangs, until [`thaw`](Self::thaw).
    pub(crate) fn freeze(&self) {
        self.process().signal(Signal::STOP);
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.process().signal(Signal::CONT);
    }

    /// True once its process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.program.has_ended()
    }

    /// Waits for the end of its process.
    pub(crate) fn end(&mut self) -> Ended {
        self.program.end()
    }

    /// What the node has logged.
    pub(crate) fn log(&self) -> String {
        self.program.stderr()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}", self.name, self.program.stderr());
        }
    }
}

/// `--port`, unless the arguments have one.
fn port(arguments: &[String], port: u16) -> Vec<String> {
    if arguments.iter().any(|word| word == "--port") {
        return Vec::new();
    }
    vec!["--port".to_owned(), port.to_string()]
}

/// Where it is told to read the token, if there is one.
fn reading(token: Option<&str>) -> &'static [&'static str] {
    if token.is_some() { &["--token-file", "-"] } else { &[] }
}
