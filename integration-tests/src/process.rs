//! Other processes, seen through `/proc`, and programs started as a user would start them.
#![allow(clippy::disallowed_methods, reason = "bounded waits for processes, on threads that have no runtime")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A process; its start time tells it from a later one with the same pid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    started_ticks: u64,
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: char,
    parent: u32,
    cpu_ticks: u64,
    started_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may contain anything.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: number(1)? as u32,
            cpu_ticks: number(11)? + number(12)?,
            started_ticks: number(19)?,
        })
    }
}

impl Process {
    /// The process that has this pid now.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(pid: u32) -> Process {
        Process::found(pid).unwrap_or_else(|| panic!("no process {pid}"))
    }

    /// The process that has this pid now, if there is one.
    pub fn found(pid: u32) -> Option<Process> {
        Stat::of(pid).map(|stat| Process { pid, started_ticks: stat.started_ticks })
    }

    fn stat(&self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.started_ticks == self.started_ticks)
    }

    /// False once it has ended, reaped or not.
    pub fn is_running(&self) -> bool {
        self.stat().is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// True while it is stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// Processor time used so far, in all threads.
    pub fn cpu_time(&self) -> Duration {
        // A tick is a hundredth of a second on Linux.
        Duration::from_millis(self.stat().map_or(0, |stat| stat.cpu_ticks) * 10)
    }

    /// Bytes of memory in use.
    ///
    /// # Panics
    /// If it has ended.
    pub fn memory_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it is running");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process that has not ended");
        let kib: u64 = line.trim_end_matches("kB").trim().parse().expect("a number of kB");
        kib * 1024
    }

    /// Its threads.
    ///
    /// # Panics
    /// If it has ended.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it is running").count()
    }

    /// Processes that it has started and that run.
    pub fn children(&self) -> Vec<Process> {
        let entries = std::fs::read_dir("/proc").expect("Linux");
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children = pids.filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == self.pid));
        children.filter_map(Process::found).filter(Process::is_running).collect()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        assert!(self.is_running(), "process {} has ended", self.pid);
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }
}

/// Waits until `condition` holds. Gives the time that it took.
///
/// # Panics
/// If it takes longer than `bound`.
pub fn wait_until(bound: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < bound, "{what}: not within {bound:?}");
        thread::sleep(LOOK_EVERY);
    }
    begun.elapsed()
}

/// A program that was started as a user would start it. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    errors: Option<thread::JoinHandle<String>>,
    said: String,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Program {
    /// Starts `path` with `arguments`, its standard input empty.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start<S: AsRef<OsStr>>(path: impl AsRef<Path>, arguments: impl IntoIterator<Item = S>) -> Program {
        let path = path.as_ref();
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
        let (tell, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("it is piped");
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| tell.send(line).is_ok());
        });
        let mut stderr = child.stderr.take().expect("it is piped");
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Program { child, lines, errors: Some(errors), said: String::new() }
    }

    /// Its process.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// The next line of its standard output.
    ///
    /// # Panics
    /// If none comes within `bound`.
    pub fn line(&mut self, bound: Duration) -> String {
        match self.lines.recv_timeout(bound) {
            Ok(line) => {
                self.said += &line;
                self.said += "\n";
                line
            }
            Err(_) => {
                let _ = self.child.kill();
                let errors = self.errors.take().map(|errors| errors.join());
                panic!("no line of output within {bound:?}; before: {:?}; errors: {errors:?}", self.said);
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come within `bound`.
    pub fn end(mut self, bound: Duration) -> Ended {
        let mut status = None;
        wait_until(bound, "the end of the program", || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        // What still holds its output, a process that it left, is found by others.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.said += &line;
            self.said += "\n";
        }
        let stderr = self.errors.take().expect("only taken here").join().expect("it only reads");
        Ended { status: status.expect("it has ended"), stdout: std::mem::take(&mut self.said), stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
