//! An actor that can end the process that it is in, in every way that a process ends.

use mobula::{ActorRef, Cluster, Granted};
use serde::{Deserialize, Serialize};

/// How a process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum End {
    /// It aborts.
    Abort,
    /// It exits, with status 3.
    Exit,
    /// It is killed by a signal that it cannot handle.
    Kill,
}

/// Lives alone.
#[derive(Clone, Default)]
pub struct Hermit;

#[mobula::actor]
impl Hermit {
    /// One that has done nothing yet.
    pub fn new() -> Self {
        Hermit
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Which GPUs its process may see, if anybody has said so.
    pub fn devices(&self) -> Option<String> {
        std::env::var("CUDA_VISIBLE_DEVICES").ok()
    }

    /// What it has.
    pub fn granted(&self) -> Option<Granted> {
        mobula::granted()
    }

    /// Does not answer.
    pub async fn wait(&self) {
        std::future::pending::<()>().await;
    }

    /// Panics.
    pub fn panic(&mut self) {
        panic!("a hermit panics, as it was told to")
    }

    /// Ends its process.
    pub fn end(&mut self, how: End) {
        match how {
            End::Abort => std::process::abort(),
            End::Exit => std::process::exit(3),
            End::Kill => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }

    /// The process of another, asked from here.
    pub async fn pid_of(&self, other: ActorRef<Hermit>) -> Result<u32, String> {
        other.pid().await.map_err(|error| error.to_string())
    }

    /// Spawns another in a process of its own, which lives on without a reference, and gives its process.
    pub async fn found(&self) -> Result<u32, String> {
        let cluster = Cluster::connect().await.map_err(|error| error.to_string())?;
        let other = cluster.spawn(Hermit::actor().isolated()).await.map_err(|error| error.to_string())?;
        other.pid().await.map_err(|error| error.to_string())
    }

    /// Spawns another that may be anywhere, and gives its process.
    pub async fn found_anywhere(&self) -> Result<u32, String> {
        let cluster = Cluster::connect().await.map_err(|error| error.to_string())?;
        let other = cluster.spawn(Hermit::actor()).await.map_err(|error| error.to_string())?;
        other.pid().await.map_err(|error| error.to_string())
    }
}
