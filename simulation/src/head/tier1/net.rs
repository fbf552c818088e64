//! Connections to the head over the simulated network. Who asks is said in the first bytes: there are no certificates here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mobula_control::private::{is_answer, peer};
use mobula_control::{Peer, Target};
use mobula_core::NodeUid;
use mobula_core::cluster::JobId;
use mobula_identity::Role;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use turmoil::net::TcpStream;

use super::state;
use crate::params::Time;
use crate::tier1::net::{SimStream, Streams};

/// The head's name in the network.
pub(super) const HEAD: &str = "head";
/// Where it listens.
pub(super) const PORT: u16 = 6379;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) role: Role,
    pub(super) life: NodeUid,
    pub(super) line: NodeUid,
    pub(super) job: Option<JobId>,
}

const HELLO_BYTES: usize = 32;

impl Who {
    fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let role = Role::ALL.iter().position(|role| *role == self.role).unwrap_or_default() as u64;
        let mut bytes = [0; HELLO_BYTES];
        let words = [role, self.life.0, self.line.0, self.job.map_or(0, |job| job.0)];
        for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn of_bytes(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let mut words =
            bytes.chunks_exact(8).map(|part| part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        let role = *Role::ALL.get(usize::try_from(words.next()?).ok()?)?;
        let (life, line, job) = (NodeUid(words.next()?), NodeUid(words.next()?), words.next()?);
        Some(Who { role, life, line, job: (job > 0).then_some(JobId(job)) })
    }
}

/// Reads who asks.
pub(super) async fn welcome(stream: &mut SimStream, address: SocketAddr) -> Option<Peer> {
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await.ok()?;
    let Who { role, life, line, job } = Who::of_bytes(&bytes)?;
    Some(peer(role, address, life, line, job.map(|job| job.to_string())))
}

/// The head, for one who asks. With `noted`, it is noted when it has answered that node.
pub(super) fn target(who: Who, streams: &Arc<Streams>, noted: Option<NodeUid>) -> Target {
    let streams = Arc::clone(streams);
    Target::Dialled(Arc::new(move || {
        let streams = Arc::clone(&streams);
        Box::pin(async move {
            let mut stream = streams.add(connect().await?);
            stream.write_all(&who.to_bytes()).await?;
            Ok(match noted {
                Some(node) => Box::new(Noted::new(stream, node)) as _,
                None => Box::new(stream) as _,
            })
        })
    }))
}

/// Until the head takes it or refuses it: what opens a connection is sent again, as by a kernel.
async fn connect() -> io::Result<TcpStream> {
    let mut wait = Duration::from_secs(1);
    loop {
        match timeout(wait, TcpStream::connect((HEAD, PORT))).await {
            Ok(connected) => return connected,
            Err(_) => wait *= 2,
        }
    }
}

/// Notes which questions of a node the head has answered, and not refused: what was sent before the answer came.
struct Noted {
    stream: SimStream,
    node: NodeUid,
    /// When the question was sent.
    asked: Time,
    /// It has been sent, and nothing of the answer has come.
    asks: bool,
    /// Of the answer, so far.
    answer: Vec<u8>,
}

impl Noted {
    fn new(stream: SimStream, node: NodeUid) -> Self {
        Noted { stream, node, asked: 0, asks: false, answer: Vec::new() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.asks = false;
        self.answer.extend_from_slice(bytes);
        while let Some((head, rest)) = self.answer.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            let Some(message) = rest.get(..length) else { return };
            if is_answer(message) {
                state::answered(self.node, self.asked);
            }
            self.answer.drain(..4 + length);
        }
    }
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        let heard = out.filled()[before..].to_vec();
        if !heard.is_empty() {
            self.hear(&heard);
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.asks, true) {
            self.asked = state::now();
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
