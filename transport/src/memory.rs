//! Connections within one process, for tests and simulations. They carry the same bytes as a socket would.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

use crate::preface::VERSIONS;
use crate::wire::{Wire, WireWrite};

/// A connected pair of wires, each holding at most `capacity_bytes` that the other side has not read.
/// Dropping either side ends both directions, as closing a socket does.
pub fn pair(capacity_bytes: usize) -> (Wire, Wire) {
    let (a_to_b, b_to_a) = (Arc::new(Pipe::new(capacity_bytes)), Arc::new(Pipe::new(capacity_bytes)));
    let wire = |incoming: &Arc<Pipe>, outgoing: &Arc<Pipe>| {
        Wire::new(VERSIONS.max, Reader(Arc::clone(incoming)), Writer(Arc::clone(outgoing)))
    };
    (wire(&b_to_a, &a_to_b), wire(&a_to_b, &b_to_a))
}

struct Pipe {
    capacity_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(capacity_bytes: usize) -> Self {
        Pipe { capacity_bytes, state: Mutex::default() }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for waker in [state.reader.take(), state.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

struct Reader(Arc<Pipe>);

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.bytes.is_empty() {
            if state.closed {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = state.bytes.len().min(out.remaining());
        out.put_slice(&state.bytes[..count]);
        state.bytes.advance(count);
        if let Some(waker) = state.writer.take() {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Writer(Arc<Pipe>);

impl WireWrite for Writer {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(self.0.capacity_bytes - state.bytes.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes.extend_from_slice(&bytes[..count]);
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
        Ok(count)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.closed || state.bytes.len() < self.0.capacity_bytes {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.close();
    }
}
