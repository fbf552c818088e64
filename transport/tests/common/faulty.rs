//! A wire that carries the same bytes less well: in pieces, with pauses, up to a point, or not to the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use mobula_transport::{Wire, WireWrite};
use tokio::io::{AsyncRead, ReadBuf};

/// What goes wrong with one half of a wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Pieces of any size, many of a byte, and pauses between them; drawn from this seed.
    Pieces(u64),
    /// Nothing wrong but a pause after so many bytes.
    Split(usize),
    /// After so many bytes the connection is reset.
    Reset(usize),
    /// After so many bytes nothing moves any more, and nobody is told.
    Stall(usize),
}

/// `wire` with these faults in its two halves, and how many bytes each has carried.
pub(crate) fn faulty(wire: Wire, read: Fault, write: Fault) -> (Wire, [Arc<AtomicUsize>; 2]) {
    let (read, write) = (Course::new(read), Course::new(write));
    let carried = [Arc::clone(&read.carried), Arc::clone(&write.carried)];
    let wire = Wire {
        version: wire.version,
        read: Box::new(Read { inner: wire.read, course: read }),
        write: Box::new(Write { inner: wire.write, course: write, paused: false }),
        way_back: wire.way_back,
    };
    (wire, carried)
}

/// What may happen next.
enum Step {
    Carry(usize),
    Pause,
    Stall,
    Reset,
}

struct Course {
    fault: Fault,
    carried: Arc<AtomicUsize>,
    paused: bool,
}

impl Course {
    fn new(fault: Fault) -> Self {
        Course { fault, carried: Arc::default(), paused: false }
    }

    fn step(&mut self) -> Step {
        let carried = self.carried.load(Ordering::Relaxed);
        match &mut self.fault {
            Fault::None => Step::Carry(usize::MAX),
            Fault::Pieces(seed) => {
                // xorshift: not random, but different each time.
                *seed ^= *seed << 13;
                *seed ^= *seed >> 7;
                *seed ^= *seed << 17;
                match *seed % 8 {
                    0 => Step::Pause,
                    1 => Step::Carry(1),
                    2 => Step::Carry(2 + (*seed >> 8) as usize % 40),
                    _ => Step::Carry(1 + (*seed >> 8) as usize % 40_000),
                }
            }
            Fault::Split(at) | Fault::Reset(at) | Fault::Stall(at) if carried < *at => Step::Carry(*at - carried),
            Fault::Split(_) if std::mem::replace(&mut self.paused, true) => Step::Carry(usize::MAX),
            Fault::Split(_) => Step::Pause,
            Fault::Reset(_) => Step::Reset,
            Fault::Stall(_) => Step::Stall,
        }
    }

    fn carried(&self, count: usize) {
        self.carried.fetch_add(count, Ordering::Relaxed);
    }
}

struct Read {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    course: Course,
}

impl AsyncRead for Read {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = match self.course.step() {
            Step::Carry(most) => most.min(out.remaining()),
            Step::Pause => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Step::Stall => return Poll::Pending,
            Step::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        };
        let mut bytes = vec![0; most];
        let mut piece = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut piece);
        self.course.carried(piece.filled().len());
        out.put_slice(piece.filled());
        polled
    }
}

struct Write {
    inner: Box<dyn WireWrite>,
    course: Course,
    paused: bool,
}

impl WireWrite for Write {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = match self.course.step() {
            Step::Carry(most) => most.min(bytes.len()),
            Step::Pause => {
                self.paused = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Step::Stall => return Err(io::ErrorKind::WouldBlock.into()),
            Step::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let count = self.inner.try_write(&bytes[..most])?;
        self.course.carried(count);
        Ok(count)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.course.fault {
            Fault::Stall(at) if self.course.carried.load(Ordering::Relaxed) >= at => Poll::Pending,
            _ => self.inner.poll_writable(cx),
        }
    }
}
