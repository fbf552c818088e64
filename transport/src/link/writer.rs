//! The writing half of a link, used by whichever thread sends.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use mobula_core::codec;
use mobula_core::frame::{self, Head};
use parking_lot::Mutex;

use super::now;
use crate::resume::{self, Kept, Resume, ResumeError};
use crate::session::Session;
use crate::wire::WireWrite;

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
    kept: Kept,
    /// Where the session puts what is to be sent; empty in between.
    batch: BytesMut,
    /// Acks and resumes: between the frames of the stream, and no part of it.
    aside: BytesMut,
    /// What the peer is to be told that has arrived.
    ack: Option<u64>,
}

impl Writer {
    pub(super) fn new(wire: Box<dyn WireWrite>, keeps: bool) -> Self {
        Writer { wire, kept: Kept::new(keeps), batch: BytesMut::new(), aside: BytesMut::new(), ack: None }
    }

    /// Bytes of the stream ever written, those that were written again not counted twice.
    pub(super) fn written_bytes(&self) -> u64 {
        self.kept.written_bytes()
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_writable(cx)
    }

    /// Says with the next write that so much has arrived.
    pub(super) fn ack(&mut self, received: u64) {
        self.ack = Some(received);
    }

    /// The peer has so much.
    pub(super) fn acked(&mut self, received: u64) -> Result<(), ResumeError> {
        self.kept.acked(received)
    }

    /// Closes the socket, although others still hold the link.
    pub(super) fn end(&mut self) {
        self.wire = Box::new(Ended);
        self.kept.clear();
        (self.batch, self.aside, self.ack) = (BytesMut::new(), BytesMut::new(), None);
    }

    /// The connection has broken: nothing is written until another takes its place.
    pub(super) fn pause(&mut self) {
        self.wire = Box::new(Absent);
        self.aside.clear();
        self.ack = None;
    }

    /// Goes on over `wire`, behind what the peer has received. `answer` tells it where this side stands.
    pub(super) fn resume(
        &mut self,
        wire: Box<dyn WireWrite>,
        received: u64,
        answer: Option<Resume>,
    ) -> Result<(), ResumeError> {
        self.wire = wire;
        self.ack = None;
        self.aside.clear();
        self.kept.resume(received)?;
        if let Some(answer) = answer {
            frame::write_bare(&mut self.aside, resume::head(answer));
        }
        Ok(())
    }

    /// Tells the peer that the stream cannot go on, as far as the wire takes it at once.
    pub(super) fn refuse(&mut self, reason: &str) {
        let mut goodbye = BytesMut::new();
        // A text of ours is small, and writing it cannot fail.
        let _ = frame::write(&mut goodbye, Head::Goodbye, |out| codec::encode_into(reason, out));
        let _ = self.wire.try_write(&goodbye);
    }

    /// Writes what is queued, as far as the wire takes it, up to [`DRAINED_BYTES_MAX`].
    pub(super) fn drain<R>(&mut self, session: &Mutex<Session<R>>) -> io::Result<Drained> {
        let mut written = self.kept.caught_up();
        let pause_at = self.written_bytes() + DRAINED_BYTES_MAX;
        loop {
            if self.aside.is_empty() && self.kept.unwritten().is_empty() {
                if let Some(received) = self.ack.take() {
                    frame::write_bare(&mut self.aside, Head::Ack { received });
                } else {
                    let full = self.kept.is_full();
                    let mut session = session.lock();
                    if written > 0 {
                        session.handle_written(written, now());
                        written = 0;
                    }
                    // With so much on its way, nothing more is taken on until the peer says what it has.
                    if !full {
                        session.take_transmit_into(&mut self.batch);
                    }
                    drop(session);
                    if self.batch.is_empty() {
                        return Ok(Drained::All);
                    }
                    self.kept.push(&mut self.batch);
                    if self.written_bytes() >= pause_at {
                        return Ok(Drained::Paused);
                    }
                }
            }
            let aside = !self.aside.is_empty();
            let bytes = if aside { &self.aside[..] } else { self.kept.unwritten() };
            match self.wire.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) if aside => self.aside.advance(count),
                Ok(count) => written += self.kept.wrote(count),
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

/// Between two connections.
struct Absent;

impl WireWrite for Absent {
    fn try_write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
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
