//! A process of a job, from its start to its reaping: a worker, with the socket over which it hears of its peers and gets its connections, or a driver.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use mobula_control::handover::{
    FromWorker, Keeper, Part, PeerWorker, Proof, Receiver, ToWorker, WORKER_VARIABLE, send,
};
use mobula_core::cluster::{DriverStatus, Launch};
use mobula_core::limits;
use mobula_identity::Revocations;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::net::unix::pipe;

use crate::cgroup::Group;

/// How long a node waits until a worker takes what is handed over; one that is stopped by a signal must not hold up the node.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// What happens in the life of a process, told by the thread that looks after it.
pub(crate) enum News {
    /// It runs. What it prints comes out of the pipes.
    Started { pid: u32, stdout: pipe::Receiver, stderr: pipe::Receiver },
    /// It takes connections.
    Ready,
    /// It was reaped, or could not be started.
    Ended(DriverStatus),
}

/// A process of a job. Dropping the handle does not end it.
pub(crate) struct Child {
    /// Its group, until it is reaped.
    group: Arc<Mutex<Option<Pid>>>,
    /// As long.
    cgroup: Arc<Mutex<Option<Group>>>,
    outgoing: Option<mpsc::SyncSender<ToSend>>,
}

enum ToSend {
    Peers(Vec<PeerWorker>),
    Connection(TcpStream),
    Renew(Box<Proof>),
    CutOff(Revocations),
    Leave { reason: String, within: Duration },
    Keepers(Vec<Keeper>),
}

impl Child {
    /// Starts `program` as the worker that `part` says, in `cgroup`.
    pub(crate) fn worker(
        mut command: Command,
        part: Part,
        cgroup: Option<Group>,
        tell: impl Fn(News) + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(SEND_DEADLINE))?;
        command.env(WORKER_VARIABLE, &*part.id.name).stdin(Stdio::from(OwnedFd::from(theirs)));
        let (sender, to_send) = mpsc::sync_channel(limits::HANDED_CONNECTIONS_MAX);
        let writer = ours.try_clone()?;
        let child = Child { group: Arc::default(), cgroup: Arc::new(Mutex::new(cgroup)), outgoing: Some(sender) };
        child.begin(command, tell, move |tell| {
            // It does nothing before it has its part: until then it has got into its cgroup.
            let hand_over = move || hand_over(&writer, part, &to_send);
            let begun = std::thread::Builder::new().name("mobula-hand".to_owned()).spawn(hand_over);
            begun.map_err(|error| format!("it cannot be handed its part: {error}"))?;
            // Whatever it does instead of getting ready, its end is seen.
            let _ = ours.set_read_timeout(Some(limits::NODE_START_DEADLINE));
            match Receiver::of_worker(&ours).receive() {
                Ok(FromWorker::Ready) => {
                    tell(News::Ready);
                    Ok(ours)
                }
                Ok(FromWorker::Failed(reason)) => Err(reason),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    Err(format!(
                        "it was not ready within {} s: does its `main` begin with `#[mobula::main]` or `mobula::run_main`?",
                        limits::NODE_START_DEADLINE.as_secs()
                    ))
                }
                // Its end says more.
                Err(_) => Ok(ours),
            }
        })?;
        Ok(child)
    }

    /// Starts `program` as a driver, in `cgroup`.
    pub(crate) fn driver(
        mut command: Command,
        cgroup: Option<Group>,
        tell: impl Fn(News) + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = Child { group: Arc::default(), cgroup: Arc::new(Mutex::new(cgroup)), outgoing: None };
        child.begin(command, tell, |_| {
            // The end of its standard input is what it waits for (`run_main`): it has got into its cgroup.
            drop(ours);
            Ok(())
        })?;
        Ok(child)
    }

    /// The kernel ends the process with the thread that started it, so that thread stays to reap it.
    fn begin<K>(
        &self,
        mut command: Command,
        tell: impl Fn(News) + Send + 'static,
        get_ready: impl FnOnce(&dyn Fn(News)) -> Result<K, String> + Send + 'static,
    ) -> io::Result<()> {
        command.process_group(0);
        let (group, cgroup) = (Arc::clone(&self.group), Arc::clone(&self.cgroup));
        let runtime = tokio::runtime::Handle::current();
        let life = move || {
            let _entered = runtime.enter();
            let started = output(&mut command).and_then(|pipes| Ok((command.spawn()?, pipes)));
            // Its ends of the pipes are the process's alone now.
            drop(command);
            let (mut process, (stdout, stderr)) = match started {
                Ok(started) => started,
                Err(error) => {
                    leave_nothing(&cgroup);
                    return tell(News::Ended(DriverStatus::Failed {
                        reason: format!("it cannot be started: {error}"),
                    }));
                }
            };
            *group.lock() = Some(Pid::from_child(&process));
            if let Some(cgroup) = &*cgroup.lock() {
                cgroup.enter(process.id());
            }
            tell(News::Started { pid: process.id(), stdout, stderr });
            let status = match get_ready(&tell) {
                Ok(kept) => {
                    let status = reap(&mut process, &group);
                    drop(kept);
                    status
                }
                Err(reason) => {
                    end(&group);
                    reap(&mut process, &group);
                    DriverStatus::Failed { reason }
                }
            };
            leave_nothing(&cgroup);
            tell(News::Ended(status));
        };
        std::thread::Builder::new().name("mobula-child".to_owned()).spawn(life)?;
        Ok(())
    }

    /// Tells a worker who its peers are now. False if it cannot be told now.
    pub(crate) fn peers(&self, peers: Vec<PeerWorker>) -> bool {
        self.send(ToSend::Peers(peers))
    }

    /// Tells a worker whose detached actors it may call. False if it cannot be told now.
    pub(crate) fn keepers(&self, keepers: Vec<Keeper>) -> bool {
        self.send(ToSend::Keepers(keepers))
    }

    /// Hands over what proves from now on who it is. False if it cannot be handed over now.
    pub(crate) fn renew(&self, proof: Proof) -> bool {
        self.send(ToSend::Renew(Box::new(proof)))
    }

    /// Tells a worker who is cut off. False if it cannot be told now.
    pub(crate) fn cut_off(&self, list: Revocations) -> bool {
        self.send(ToSend::CutOff(list))
    }

    /// Hands a connection over, or closes it if too many are on their way.
    pub(crate) fn connection(&self, stream: TcpStream) {
        match self.outgoing.as_ref().map(|outgoing| outgoing.try_send(ToSend::Connection(stream))) {
            Some(Err(mpsc::TrySendError::Full(_))) => {
                tracing::warn!(
                    max = limits::HANDED_CONNECTIONS_MAX,
                    "a worker takes no connections: one more was closed"
                );
            }
            // Its peers try until they hear of its end.
            Some(Err(mpsc::TrySendError::Disconnected(_))) => {
                tracing::debug!("a connection to a worker that has ended")
            }
            Some(Ok(())) | None => {}
        }
    }

    /// Tells a worker to end in order, within that time. False if it cannot be told now.
    pub(crate) fn leave(&self, reason: &str, within: Duration) -> bool {
        self.send(ToSend::Leave { reason: reason.to_owned(), within })
    }

    fn send(&self, what: ToSend) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.try_send(what).is_ok())
    }

    /// Ends the process and what it has started, at once.
    pub(crate) fn kill(&self) {
        end(&self.group);
        if let Some(cgroup) = &*self.cgroup.lock() {
            cgroup.kill();
        }
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_end(&self) {
        if let Some(group) = *self.group.lock() {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

fn end(group: &Mutex<Option<Pid>>) {
    // Under the lock: what was reaped has no group any more, and its number may be another's.
    if let Some(group) = *group.lock() {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Ends what a process has started that is not of its group any more.
fn leave_nothing(cgroup: &Mutex<Option<Group>>) {
    let cgroup = cgroup.lock().take();
    if let Some(cgroup) = cgroup {
        cgroup.end();
    }
}

/// Waits for the end, ends what is left of the group, and reaps.
fn reap(process: &mut Process, group: &Mutex<Option<Pid>>) -> DriverStatus {
    let pid = Pid::from_child(process);
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
    end(group);
    *group.lock() = None;
    match process.wait() {
        Ok(status) if status.success() => DriverStatus::Succeeded,
        Ok(status) => DriverStatus::Failed { reason: describe(status) },
        Err(error) => DriverStatus::Failed { reason: format!("it cannot be reaped: {error}") },
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

fn output(command: &mut Command) -> io::Result<(pipe::Receiver, pipe::Receiver)> {
    let (out, stdout) = pipe::pipe()?;
    let (err, stderr) = pipe::pipe()?;
    command.stdout(out.into_blocking_fd()?).stderr(err.into_blocking_fd()?);
    Ok((stdout, stderr))
}

/// Sends what a worker is to have, in order. One that takes nothing for [`SEND_DEADLINE`] gets nothing more.
fn hand_over(socket: &UnixStream, part: Part, to_send: &mpsc::Receiver<ToSend>) {
    if send(socket, &ToWorker::Begin(Box::new(part)), None).is_err() {
        return;
    }
    while let Ok(next) = to_send.recv() {
        let sent = match next {
            ToSend::Peers(peers) => send(socket, &ToWorker::Peers(peers), None),
            ToSend::Connection(stream) => send(socket, &ToWorker::Connection, Some(stream.as_fd())),
            ToSend::Renew(proof) => send(socket, &ToWorker::Renew(proof), None),
            ToSend::CutOff(list) => send(socket, &ToWorker::CutOff(list), None),
            ToSend::Leave { reason, within } => send(socket, &ToWorker::Leave { reason, within }, None),
            ToSend::Keepers(keepers) => send(socket, &ToWorker::Keepers(keepers), None),
        };
        if let Err(error) = sent {
            match error.kind() {
                // It has ended, which is told by who reaps it.
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {}
                // Nothing of it was sent: what comes next is understood.
                io::ErrorKind::InvalidInput => {
                    tracing::warn!(%error, "a worker cannot be told something");
                    continue;
                }
                _ => tracing::warn!(%error, "a worker does not take what it is handed"),
            }
            return;
        }
    }
}

/// The command of a process of a job.
pub(crate) fn command(program: &Path, launch: &Launch) -> Command {
    let mut command = Command::new(program);
    command.args(&launch.arguments);
    for name in ["MOBULA_ADDRESS", "MOBULA_DRIVER", "MOBULA_NODE", WORKER_VARIABLE] {
        command.env_remove(name);
    }
    command.envs(&launch.environment);
    command
}
