//! The threads of a node: arbiters for actors, one of them home to the data links, and a control runtime that no
//! actor can block. Or none: then everything runs where the node was started.

use std::future::Future;
use std::io;

use actix_rt::{Arbiter, ArbiterHandle, System};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Where actors live and links are read. Everything that is handed over runs there, in the order of the calls.
#[derive(Clone)]
pub(crate) enum Thread {
    Arbiter(ArbiterHandle),
    /// The thread on which the node was started, and which it does not own.
    Here(mpsc::UnboundedSender<Job>),
}

type Job = Box<dyn FnOnce() + Send>;

impl Thread {
    /// The current thread; what is handed over runs on its current `LocalSet`.
    fn here() -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        tokio::task::spawn_local(async move {
            while let Some(job) = jobs.recv().await {
                job();
            }
        });
        Thread::Here(sender)
    }

    /// Runs `work` there. False if the thread has ended.
    pub(crate) fn spawn_fn(&self, work: impl FnOnce() + Send + 'static) -> bool {
        match self {
            Thread::Arbiter(arbiter) => arbiter.spawn_fn(work),
            Thread::Here(jobs) => jobs.send(Box::new(work)).is_ok(),
        }
    }

    /// Polls `work` there. False if the thread has ended.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        match self {
            Thread::Arbiter(arbiter) => arbiter.spawn(work),
            Thread::Here(jobs) => jobs.send(Box::new(move || drop(actix_rt::spawn(work)))).is_ok(),
        }
    }

    /// Ends a thread that was started for the node.
    pub(crate) fn stop(&self) {
        if let Thread::Arbiter(arbiter) = self {
            arbiter.stop();
        }
    }
}

pub(crate) struct Threads {
    /// Where actors live, unless they have a thread of their own.
    pub(crate) arbiters: Vec<Thread>,
    /// Where data links are read.
    pub(crate) home: Thread,
    /// Heartbeats, handshakes, requests to the node.
    pub(crate) control: Handle,
    /// Those of `arbiters` that were started for this node, and end with it.
    started: Vec<Thread>,
    /// The `System` that was started for this node, where the caller had none.
    own_system: Option<System>,
    /// The control thread, if there is one, ends when this is dropped.
    _control_alive: Option<oneshot::Sender<()>>,
}

impl Threads {
    /// Starts `count` arbiters and the control thread. A current actix thread becomes home, so that its callers need no
    /// other thread for an answer; with `use_current` it hosts actors, too. None if there is no thread for actors.
    pub(crate) fn start(count: usize, use_current: bool) -> io::Result<Option<Self>> {
        let current = Arbiter::try_current().map(Thread::Arbiter);
        let own_system = if System::is_registered() { None } else { Some(start_system()?) };
        // Arbiters belong to the `System` of the thread that starts them.
        let system = own_system.clone().unwrap_or_else(System::current);
        let mut arbiters = Vec::new();
        if use_current {
            arbiters.extend(current.clone());
        }
        let started = (0..count).map(|_| start_arbiter(&system)).collect::<io::Result<Vec<_>>>()?;
        arbiters.extend(started.iter().cloned());
        let Some(first) = arbiters.first() else { return Ok(None) };
        let home = current.unwrap_or_else(|| first.clone());
        let (control, control_alive) = start_control(system)?;
        Ok(Some(Threads { arbiters, home, control, started, own_system, _control_alive: Some(control_alive) }))
    }

    /// No thread: everything runs on the current one, which must be within a `LocalSet`.
    pub(crate) fn none() -> io::Result<Self> {
        let control = Handle::try_current().map_err(io::Error::other)?;
        let here = Thread::here();
        let (arbiters, started) = (vec![here.clone()], Vec::new());
        Ok(Threads { arbiters, home: here, control, started, own_system: None, _control_alive: None })
    }

    /// True if everything runs on the thread on which the node was started.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.home, Thread::Here(_))
    }

    /// A thread for one actor, if this node has threads.
    pub(crate) async fn start_own(&self) -> io::Result<Thread> {
        if self.is_none() {
            return Ok(self.home.clone());
        }
        let started = self.control.spawn(async { Arbiter::try_new().map(|arbiter| Thread::Arbiter(arbiter.handle())) });
        started.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for arbiter in &self.started {
            arbiter.stop();
        }
        if let Some(system) = &self.own_system {
            system.stop();
        }
    }
}

fn start_system() -> io::Result<System> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("mobula-system".to_owned()).spawn(move || {
        let runner = System::new();
        let _ = tell.send(System::current());
        let _ = runner.run();
    })?;
    told.recv().map_err(io::Error::other)
}

/// Starts an arbiter of `system` without making it the `System` of the calling thread.
fn start_arbiter(system: &System) -> io::Result<Thread> {
    let system = system.clone();
    let starter = std::thread::Builder::new().name("mobula-start".to_owned()).spawn(move || {
        System::set_current(system);
        Arbiter::try_new().map(|arbiter| Thread::Arbiter(arbiter.handle()))
    })?;
    starter.join().unwrap_or_else(|_| Err(io::Error::other("the arbiter's starter panicked")))
}

fn start_control(system: System) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (alive, ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name("mobula-control".to_owned()).spawn(move || {
        System::set_current(system);
        let _ = runtime.block_on(ended);
    })?;
    Ok((handle, alive))
}
