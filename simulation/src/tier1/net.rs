//! The simulated network's streams as the transport's.
//!
//! Each stream that a crash closes draws from the network when its end arrives. The runtime of a crashed host drops its
//! tasks in an order that depends on how many tasks this process has had so far; so it is not the tasks that close the streams,
//! but the first of them closes all, in the order in which they were opened.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use mobula_transport::stream::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::state;
use crate::fact::LifeId;

/// None once it is closed by a crash.
type Open = Mutex<Option<TcpStream>>;

/// A stream of one life of a node.
pub(super) struct SimStream {
    life: LifeId,
    open: Arc<Open>,
}

impl SimStream {
    pub(super) fn new(life: LifeId, stream: TcpStream) -> Self {
        let open = Arc::new(Mutex::new(Some(stream)));
        state::stream_opened(life, &open);
        SimStream { life, open }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if !state::is_up(self.life) {
            state::streams_of(self.life).close();
        }
    }
}

/// Those of one life, in the order in which they were opened.
#[derive(Default)]
pub(super) struct Streams(Vec<Weak<Open>>);

impl Streams {
    pub(super) fn push(&mut self, open: &Arc<Open>) {
        self.0.retain(|stream| stream.strong_count() > 0);
        self.0.push(Arc::downgrade(open));
    }

    fn close(self) {
        let open = self.0.iter().filter_map(Weak::upgrade);
        open.for_each(|open| drop(open.lock().take()));
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self.open.lock() {
            Some(stream) => Pin::new(stream).poll_read(cx, out),
            None => Poll::Ready(Err(closed())),
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.open.lock() {
            Some(stream) => Pin::new(stream).poll_write(cx, bytes),
            None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.open.lock() {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.open.lock() {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Err(closed())),
        }
    }
}

impl Stream for SimStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever drops an actor or a node after its life, or after its network is gone, writes to nobody.
        if !state::is_up(self.life) || !turmoil::in_simulation() {
            return Err(closed());
        }
        self.open.lock().as_ref().map_or_else(|| Err(closed()), |stream| stream.try_write(bytes))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.open.lock() {
            // The waker stays registered when this future is dropped.
            Some(stream) => pin!(stream.writable()).poll(cx),
            None => Poll::Ready(Err(closed())),
        }
    }
}
