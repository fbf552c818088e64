//! What a careful programmer writes by hand: MessagePack bodies and `ask().await`, with a oneshot for each
//! call and writes that coalesce. Bodies are laid out as arrays, without field names, and encoded in place.
//!
//! The caller runs under tokio's cooperative budget, as code that awaits oneshots does: after 128 replies it yields,
//! so writes carry about 128 asks. Under `tokio::task::unconstrained` they carry the whole window, nearly twice as fast.
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use slab::Slab;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};

use super::frame::{self, Frames};
use crate::drive::{self, Span};

#[derive(Deserialize, Serialize)]
struct Add {
    by: i64,
}

pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::new();
    let mut out = Vec::new();
    let mut count = 0i64;
    while frames.read(&mut reader).await? {
        while let Some((id, body)) = frames.next()? {
            let add: Add = rmp_serde::from_slice(body).map_err(io::Error::other)?;
            count += add.by;
            frame::put_with(&mut out, id, |out| rmp_serde::encode::write(out, &count)).map_err(io::Error::other)?;
        }
        writer.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

/// Replies per second with `in_flight` asks awaited at any time.
pub(crate) async fn rate(mut stream: TcpStream, span: Span, in_flight: usize) -> Result<f64> {
    let (reader, writer) = stream.split();
    let client = Client::default();
    tokio::select! {
        rate = drive::pipelined(span, in_flight, || client.ask(Add { by: 1 })) => rate,
        ended = client.receive(reader) => ended.and_then(|()| anyhow::bail!("the raw peer hung up")),
        ended = client.transmit(writer) => ended.and_then(|()| anyhow::bail!("the writer stopped")),
    }
}

/// A handle that could be cloned and sent to other threads, as an `ActorRef` can.
#[derive(Clone, Default)]
struct Client(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    queued: Notify,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    pending: Slab<oneshot::Sender<i64>>,
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, message: Add) -> oneshot::Receiver<i64> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let first = state.out.is_empty();
        let id = state.pending.insert(sender) as u64;
        let encoded = frame::put_with(&mut state.out, id, |out| rmp_serde::encode::write(out, &message));
        drop(state);
        if encoded.is_ok() && first {
            self.0.queued.notify_one();
        }
        receiver
    }

    async fn transmit(&self, mut writer: WriteHalf<'_>) -> Result<()> {
        let mut writing = Vec::new();
        loop {
            self.0.queued.notified().await;
            mem::swap(&mut writing, &mut self.state().out);
            writer.write_all(&writing).await?;
            writing.clear();
        }
    }

    async fn receive(&self, mut reader: ReadHalf<'_>) -> Result<()> {
        let mut frames = Frames::new();
        while frames.read(&mut reader).await? {
            let mut state = self.state();
            while let Some((id, body)) = frames.next()? {
                let reply = rmp_serde::from_slice(body)?;
                if let Some(sender) = state.pending.try_remove(id as usize) {
                    let _ = sender.send(reply);
                }
            }
        }
        Ok(())
    }
}
