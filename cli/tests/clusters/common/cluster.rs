//! A cluster of nodes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{Ended, Node, Process, Program, Signal, job_program, mobula, until};

/// A head and the nodes that have joined it. Dropping it kills them all, and what is left of their jobs.
pub(crate) struct Cluster {
    /// The node that is the head.
    pub(crate) head: Node,
    /// The others, as they have come.
    pub(crate) nodes: Vec<Node>,
    root: Root,
}

impl Cluster {
    /// A new cluster of a head alone, of one core.
    pub(crate) fn head() -> Cluster {
        Cluster::head_with(&["--num-cpus", "1"])
    }

    /// A new cluster, whose head has these options.
    pub(crate) fn head_with(arguments: &[&str]) -> Cluster {
        let root = Root::new();
        let arguments: Vec<_> = ["--head"].iter().chain(arguments).copied().collect();
        let head = Node::start(root.path(), "head", &arguments, None).unwrap_or_else(|ended| panic!("{ended:?}"));
        Cluster { head, nodes: Vec::new(), root }
    }

    /// A head and `nodes` others, each of one core, all up.
    pub(crate) fn of(nodes: usize) -> Cluster {
        Cluster::head().and(nodes)
    }

    /// The same, with leases of half a minute: on a machine that is busy a head that is killed takes a while to be back.
    pub(crate) fn patient(nodes: usize) -> Cluster {
        Cluster::head_with(&["--num-cpus", "1", "--lease", "30s"]).and(nodes)
    }

    fn and(self, nodes: usize) -> Cluster {
        let mut cluster = self;
        for number in 1..=nodes {
            cluster.join(&format!("node-{number}"), &["--num-cpus", "1"]);
        }
        cluster.wait_for_nodes(nodes + 1);
        cluster
    }

    /// A node called `name` joins with a token of its own.
    pub(crate) fn join(&mut self, name: &str, arguments: &[&str]) -> &mut Node {
        let token = self.token(&[]);
        let joined = self.try_join(name, arguments, &token).unwrap_or_else(|ended| panic!("{ended:?}"));
        self.nodes.push(joined);
        self.nodes.last_mut().expect("just pushed")
    }

    /// A node called `name` tries to join with `token`.
    ///
    /// # Errors
    /// How it has ended instead.
    pub(crate) fn try_join(&self, name: &str, arguments: &[&str], token: &str) -> Result<Node, Ended> {
        let head = self.head.address.to_string();
        let arguments: Vec<_> = ["--address", &head].iter().chain(arguments).copied().collect();
        Node::start(self.root.path(), name, &arguments, Some(token))
    }

    /// A new token, made with these options of `token create`.
    pub(crate) fn token(&self, options: &[&str]) -> String {
        let arguments: Vec<_> = ["token", "create"].iter().chain(options).copied().collect();
        self.run(&arguments).ok().trim().to_owned()
    }

    /// A file or directory in the cluster's directory, which is nobody's home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The node with that name.
    pub(crate) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// The command, run on the head's host.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.head.run(arguments)
    }

    /// As [`run`](Self::run), without waiting for the end.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Program {
        self.head.begin(arguments)
    }

    /// `job submit` of the job program, with these arguments of the program, to its end.
    pub(crate) fn submit(&self, arguments: &[&str]) -> Ended {
        self.begin_job(arguments).end()
    }

    /// `job submit` of the job program, which goes on as long as the job runs.
    pub(crate) fn begin_job(&self, arguments: &[&str]) -> Program {
        let mut command = mobula(&self.head.home);
        Program::start(command.args(["job", "submit"]).arg(job_program()).arg("--").args(arguments))
    }

    /// `job submit --no-wait` of the job program. Gives the job's id.
    pub(crate) fn submit_and_leave(&self, arguments: &[&str]) -> String {
        let mut command = mobula(&self.head.home);
        let command = command.args(["job", "submit", "--no-wait"]).arg(job_program()).arg("--").args(arguments);
        Program::start(command).end().ok().trim().to_owned()
    }

    /// `status --json`.
    pub(crate) fn view(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    /// Waits until the view is as it should be.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.view()).filter(&wanted))
    }

    /// Waits until so many nodes are up.
    pub(crate) fn wait_for_nodes(&self, count: usize) -> Value {
        self.wait_for(&format!("{count} nodes are up"), |view| view["summary"]["nodes_up"] == count)
    }

    /// Waits until a job is in that phase, as lists show it: `running`, `succeeded`, `stopped`, or of a `failed: ..` the beginning.
    pub(crate) fn wait_for_job(&self, job: &str, phase: &str) -> Value {
        until(&format!("{job} is {phase}"), || {
            let row = self.run(&["job", "status", job, "--json"]).json();
            let found = match &row["phase"] {
                Value::String(phase) => phase.clone(),
                other => format!("failed: {}", other["failed"]["reason"].as_str().unwrap_or_default()),
            };
            found.starts_with(phase).then_some(row)
        })
    }

    /// The processes of all jobs on these nodes: what runs from their homes.
    pub(crate) fn job_processes(&self) -> Vec<Process> {
        running_from(self.root.path())
    }
}

/// The directory of all homes. What still runs from it ends before it goes: keep it longer than the nodes.
pub(crate) struct Root(TempDir);

impl Root {
    /// A new one.
    pub(crate) fn new() -> Root {
        // Short: the path of a socket has 107 bytes at most.
        Root(tempfile::Builder::new().prefix("mobula-").tempdir_in("/tmp").expect("a directory"))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        running_from(self.0.path()).iter().filter(|process| process.is_running()).for_each(|process| {
            // Between the look and the signal it may have ended.
            let pid = i32::try_from(process.pid).ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        });
    }
}

/// Processes whose program lies in `directory`, also if it has been removed.
pub(crate) fn running_from(directory: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        fs::read_link(entry.path().join("exe")).ok()?.starts_with(directory).then_some(pid)
    });
    pids.filter_map(Process::found).filter(Process::is_running).collect()
}
