//! The writing half of a link, used by whichever thread sends.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;

use super::now;
use crate::session::Session;
use crate::wire::WireWrite;

/// A buffer that a burst has made larger is not kept for the next.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Written in one go; then others on the thread get their turn. A large message on a fast wire has no other end.
const DRAINED_BYTES_MAX: u64 = 512 * 1024;

/// What came of writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Drained {
    /// Nothing is queued any more.
    All,
    /// The wire takes no more now.
    Full,
    /// There is more, and others come first.
    Paused,
}

pub(super) struct Writer {
    wire: Box<dyn WireWrite>,
    unsent: BytesMut,
    /// Bytes ever written.
    written_bytes: u64,
}

impl Writer {
    pub(super) fn new(wire: Box<dyn WireWrite>) -> Self {
        Writer { wire, unsent: BytesMut::new(), written_bytes: 0 }
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_writable(cx)
    }

    /// Closes the socket, although others still hold the link.
    pub(super) fn end(&mut self) {
        self.wire = Box::new(Ended);
        self.unsent = BytesMut::new();
    }

    /// Writes what is queued, as far as the wire takes it, up to [`DRAINED_BYTES_MAX`].
    pub(super) fn drain<R>(&mut self, session: &Mutex<Session<R>>) -> io::Result<Drained> {
        let mut written = 0;
        let pause_at = self.written_bytes + DRAINED_BYTES_MAX;
        loop {
            if self.unsent.is_empty() {
                let mut session = session.lock();
                if written > 0 {
                    session.handle_written(written, now());
                }
                if written > KEPT_BYTES_MAX {
                    self.unsent = BytesMut::new();
                }
                session.take_transmit_into(&mut self.unsent);
                written = 0;
                if self.unsent.is_empty() {
                    return Ok(Drained::All);
                }
                if self.written_bytes >= pause_at {
                    return Ok(Drained::Paused);
                }
            }
            match self.wire.try_write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.unsent.advance(count);
                    written += count;
                    self.written_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if written > 0 {
                        session.lock().handle_written(written, now());
                    }
                    return Ok(Drained::Full);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct Ended;

impl WireWrite for Ended {
    fn try_write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
