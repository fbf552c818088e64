//! Threads for callers that must not share one with an actor.
use std::io;
use std::thread;

use anyhow::{Result, anyhow};
use tokio::sync::oneshot;

/// Runs `work` on a new thread without blocking the caller's.
pub(crate) async fn on_own_thread<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let (done, figure) = oneshot::channel();
    thread::spawn(move || {
        let _ = done.send(work());
    });
    figure.await.map_err(|_| anyhow!("the measuring thread panicked"))?
}

/// A runtime for one thread.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
