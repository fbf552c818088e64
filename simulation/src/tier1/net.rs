//! The simulated network's streams as the transport's.
//!
//! Each stream that a crash closes draws from the network when its end arrives. The runtime of a crashed host drops its
//! tasks in an order that depends on how many tasks this process has had so far; so it is not the tasks that close the streams,
//! but the first of them closes all, in the order in which they were opened.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use mobula_transport::stream::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::Sim;
use turmoil::net::TcpStream;

/// What passes between two hosts in one direction.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Way {
    Open,
    Held,
    /// What is sent is lost.
    Lost,
}

/// Makes the ways from `one` to `other` and back so. The network holds back both directions or none.
pub(crate) fn set_ways(sim: &Sim<'_>, one: &str, other: &str, (there, back): (Way, Way)) {
    sim.release(one, other);
    if there.max(back) == Way::Held {
        sim.hold(one, other);
    }
    if there == Way::Lost {
        sim.partition_oneway(one, other);
    }
    if back == Way::Lost {
        sim.partition_oneway(other, one);
    }
}

/// None once it is closed by a crash.
type Open = Mutex<Option<TcpStream>>;

/// A stream of one life of a host.
pub(crate) struct SimStream {
    life: Arc<Streams>,
    open: Arc<Open>,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.life.are_over() {
            self.life.close();
        }
    }
}

/// Those of one life, in the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<Vec<Weak<Open>>>,
    over: AtomicBool,
}

impl Streams {
    /// A stream that this life has opened or accepted.
    pub(crate) fn add(self: &Arc<Self>, stream: TcpStream) -> SimStream {
        let open = Arc::new(Mutex::new(Some(stream)));
        let mut all = self.open.lock();
        all.retain(|stream| stream.strong_count() > 0);
        all.push(Arc::downgrade(&open));
        SimStream { life: Arc::clone(self), open }
    }

    /// The host is about to be crashed.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn are_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn close(&self) {
        let all = std::mem::take(&mut *self.open.lock());
        all.iter().filter_map(Weak::upgrade).for_each(|open| drop(open.lock().take()));
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
        if self.life.are_over() || !turmoil::in_simulation() {
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
