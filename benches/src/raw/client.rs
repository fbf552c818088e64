//! The asking side of a hand-written protocol: a oneshot for each call, and writes that coalesce.
//!
//! The caller runs under tokio's cooperative budget, as code that awaits oneshots does: after 128 replies it yields,
//! so writes carry about 128 asks. Under `tokio::task::unconstrained` they carry the whole window, nearly twice as fast.
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::frame::{self, Frames};

/// A handle that could be cloned and sent to other threads, as an `ActorRef` can.
pub(crate) struct Client<T>(Arc<Shared<T>>);

impl<T> Clone for Client<T> {
    fn clone(&self) -> Self {
        Client(Arc::clone(&self.0))
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    queued: Notify,
}

struct State<T> {
    out: Vec<u8>,
    pending: Slab<oneshot::Sender<T>>,
}

impl<T> Client<T> {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(State { out: Vec::new(), pending: Slab::new() });
        Client(Arc::new(Shared { state, queued: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame whose body `write_body` writes.
    pub(crate) fn ask<E>(&self, write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let first = state.out.is_empty();
        let id = state.pending.insert(sender) as u64;
        let encoded = frame::put_with(&mut state.out, id, write_body);
        drop(state);
        if encoded.is_ok() && first {
            self.0.queued.notify_one();
        }
        receiver
    }

    pub(crate) async fn transmit(&self, mut writer: impl AsyncWrite + Unpin) -> Result<()> {
        let mut writing = Vec::new();
        loop {
            self.0.queued.notified().await;
            mem::swap(&mut writing, &mut self.state().out);
            writer.write_all(&writing).await?;
            writer.flush().await?;
            writing.clear();
        }
    }

    /// Hands what `read_body` makes of each answer to its caller, until the peer hangs up.
    pub(crate) async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut frames: Frames,
        read_body: impl Fn(&[u8]) -> Result<T>,
    ) -> Result<()> {
        while frames.read(&mut reader).await? {
            let mut state = self.state();
            while let Some((id, body)) = frames.next()? {
                let reply = read_body(body)?;
                if let Some(sender) = state.pending.try_remove(id as usize) {
                    let _ = sender.send(reply);
                }
            }
        }
        Ok(())
    }
}
