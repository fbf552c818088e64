//! The threads of a node: arbiters for actors, one of them home to the data links, and a control runtime that no
//! actor can block.

use std::io;

use actix_rt::{Arbiter, ArbiterHandle, System};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) struct Threads {
    /// Where actors live, unless they have a thread of their own.
    pub(crate) arbiters: Vec<ArbiterHandle>,
    /// Where data links are read.
    pub(crate) home: ArbiterHandle,
    /// Heartbeats, handshakes, requests to the node.
    pub(crate) control: Handle,
    /// Those of `arbiters` that were started for this node, and end with it.
    started: Vec<ArbiterHandle>,
    /// The `System` that was started for this node, where the caller had none.
    own_system: Option<System>,
    /// The control thread ends when this is dropped.
    _control_alive: oneshot::Sender<()>,
}

impl Threads {
    /// Starts `count` arbiters and the control thread. A current actix thread becomes home, so that its callers need no
    /// other thread for an answer; with `use_current` it hosts actors, too. None if there is no thread for actors.
    pub(crate) fn start(count: usize, use_current: bool) -> io::Result<Option<Self>> {
        let current = Arbiter::try_current();
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
        Ok(Some(Threads { arbiters, home, control, started, own_system, _control_alive: control_alive }))
    }

    /// A thread for one actor.
    pub(crate) async fn start_own(&self) -> io::Result<ArbiterHandle> {
        let started = self.control.spawn(async { Arbiter::try_new().map(|arbiter| arbiter.handle()) });
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
fn start_arbiter(system: &System) -> io::Result<ArbiterHandle> {
    let system = system.clone();
    let starter = std::thread::Builder::new().name("mobula-start".to_owned()).spawn(move || {
        System::set_current(system);
        Arbiter::try_new().map(|arbiter| arbiter.handle())
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
