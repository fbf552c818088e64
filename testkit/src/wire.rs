//! The memory wire with switches: what passes from one node to another can be held up, or ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mobula_transport::{Wire, WireWrite, memory};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that a connection holds in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// All connections from one node to another, in that direction.
#[derive(Debug, Default)]
pub(crate) struct Switch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    position: Position,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Position {
    #[default]
    Open,
    /// Nothing arrives; what is sent is kept, as far as the connection holds it.
    Cut,
    /// Connections that were made before have ended.
    Severed,
}

impl Switch {
    pub(crate) fn set(&self, position: Position) {
        let mut state = self.0.lock();
        state.position = position;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn position(&self) -> Position {
        self.0.lock().position
    }

    /// The position, which is told to `cx` when it changes.
    fn watch(&self, cx: &Context<'_>) -> Position {
        let mut state = self.0.lock();
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        state.position
    }
}

/// A connection between two nodes; `to` is the way there, `back` the other.
pub(crate) fn pair(to: &Arc<Switch>, back: &Arc<Switch>) -> (Wire, Wire) {
    let (here, there) = memory::pair(PIPE_BYTES);
    (switched(here, to, back), switched(there, back, to))
}

fn switched(wire: Wire, outgoing: &Arc<Switch>, incoming: &Arc<Switch>) -> Wire {
    let read = Read { inner: wire.read, switch: Arc::clone(incoming), severed: false };
    let write = Write { inner: wire.write, switch: Arc::clone(outgoing), severed: false };
    Wire::new(wire.version, read, write)
}

struct Read {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    switch: Arc<Switch>,
    severed: bool,
}

impl AsyncRead for Read {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let position = this.switch.watch(cx);
        this.severed |= position == Position::Severed;
        match position {
            // Nothing read is the end of the connection.
            _ if this.severed => Poll::Ready(Ok(())),
            Position::Cut => Poll::Pending,
            Position::Open | Position::Severed => Pin::new(&mut this.inner).poll_read(cx, out),
        }
    }
}

struct Write {
    inner: Box<dyn WireWrite>,
    switch: Arc<Switch>,
    severed: bool,
}

impl WireWrite for Write {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.severed |= self.switch.position() == Position::Severed;
        match self.severed {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => self.inner.try_write(bytes),
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.severed |= self.switch.watch(cx) == Position::Severed;
        match self.severed {
            true => Poll::Ready(Ok(())),
            false => self.inner.poll_writable(cx),
        }
    }
}
