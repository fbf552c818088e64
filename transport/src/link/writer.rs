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

    /// Writes until nothing is queued (true) or the wire takes no more (false).
    pub(super) fn drain<R>(&mut self, session: &Mutex<Session<R>>) -> io::Result<bool> {
        let mut written = 0;
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
                    return Ok(true);
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
                    return Ok(false);
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
