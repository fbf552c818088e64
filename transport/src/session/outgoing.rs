//! Bytes on their way to the peer, and how many there may be before data has to wait.

use bytes::BytesMut;
use mobula_core::codec::EncodeError;
use mobula_core::frame::{self, Head, WriteError};
use mobula_core::planted::{self, Bug};

/// Pongs wait here only while the wire takes nothing. A peer that pings and never reads must not fill the memory;
/// it has had answers enough.
const URGENT_BYTES_MAX: usize = 4096;

pub(super) struct Outgoing {
    /// Frames that must not wait behind data: behind a 16 MiB reply a pong would look like a death.
    urgent: BytesMut,
    data: BytesMut,
    /// Bytes in `urgent` and `data` and taken by the driver, not yet written.
    queued_bytes: usize,
    window_bytes: usize,
}

impl Outgoing {
    pub(super) fn new(window_bytes: usize) -> Self {
        Outgoing { urgent: BytesMut::new(), data: BytesMut::new(), queued_bytes: 0, window_bytes }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// True if data has to wait until more has been written.
    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes >= self.window_bytes && !planted::is(Bug::WindowIgnored)
    }

    pub(super) fn put(
        &mut self,
        head: Head,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), WriteError> {
        let before = self.data.len();
        frame::write(&mut self.data, head, body)?;
        self.queued_bytes += self.data.len() - before;
        Ok(())
    }

    pub(super) fn put_bare(&mut self, head: Head) {
        let before = self.data.len();
        frame::write_bare(&mut self.data, head);
        self.queued_bytes += self.data.len() - before;
    }

    /// A frame that was written earlier and has stood in line.
    pub(super) fn put_frame(&mut self, frame: &[u8]) {
        self.data.extend_from_slice(frame);
        self.queued_bytes += frame.len();
    }

    /// The hello, ahead of everything.
    pub(super) fn put_hello(&mut self, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) {
        // A hello is plain data of bounded size: writing it cannot fail.
        let _ = frame::write(&mut self.urgent, Head::Hello, body);
        self.queued_bytes += self.urgent.len();
    }

    /// A ping, or the pong to one. Dropped if too many wait already.
    pub(super) fn put_urgent(&mut self, head: Head) {
        let before = self.urgent.len();
        if before < URGENT_BYTES_MAX {
            frame::write_bare(&mut self.urgent, head);
            self.queued_bytes += self.urgent.len() - before;
        }
    }

    /// Moves all into `bytes`, which is empty, and goes on with its allocation.
    pub(super) fn take(&mut self, bytes: &mut BytesMut) {
        bytes.clear();
        if self.urgent.is_empty() {
            return std::mem::swap(bytes, &mut self.data);
        }
        bytes.extend_from_slice(&self.urgent);
        bytes.extend_from_slice(&self.data);
        self.urgent.clear();
        self.data.clear();
    }

    pub(super) fn written(&mut self, bytes: usize) {
        let forgotten = usize::from(planted::is(Bug::WrittenForgotten) && bytes.is_multiple_of(7));
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes - forgotten.min(bytes));
    }

    pub(super) fn clear(&mut self) {
        self.urgent.clear();
        self.data.clear();
        self.queued_bytes = 0;
    }
}
