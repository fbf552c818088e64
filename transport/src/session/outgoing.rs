//! Bytes on their way to the peer, and how many there may be before data has to wait.

use bytes::BytesMut;
use mobula_core::codec::EncodeError;
use mobula_core::frame::{self, Body, Head, WriteError};
use mobula_core::limits;
use mobula_core::planted::{self, Bug};

use super::body;
use super::types::{Lane, SessionConfig};

/// Pongs wait here only while the wire takes nothing. A peer that pings and never reads must not fill the memory;
/// it has had answers enough.
const URGENT_BYTES_MAX: usize = 4096;

/// What the head of an ask or of an answer takes at most, length prefix aside.
const AHEAD_HEAD_BYTES: usize = 32;

/// So much of the control lane's data goes to the driver at a time, but for the rest of a frame: what is urgent waits for that to
/// be written, and for what the system holds. Enough for a system call to be worth it.
const CONTROL_BATCH_BYTES: usize = 8 * 1024;

/// What became of a frame.
pub(super) enum Put {
    Queued,
    /// It is too large to go in one piece, and is handed back with its length prefix.
    Large(BytesMut),
}

pub(super) struct Outgoing {
    /// Frames that must not wait behind data: behind a 16 MiB reply a pong would look like a death.
    urgent: BytesMut,
    data: BytesMut,
    /// Up to here, `data` introduces types of messages.
    introduces_bytes: usize,
    /// How much data the driver gets at a time.
    batch_bytes: usize,
    /// Bytes in `urgent` and `data` and taken by the driver, not yet written.
    queued_bytes: usize,
    window_bytes: usize,
    /// What is larger goes in fragments.
    whole_bytes_max: usize,
    /// What is larger does not go at all.
    frame_bytes_max: usize,
}

impl Outgoing {
    /// Until the peer's hello says otherwise, it is taken for one that reads fragments.
    pub(super) fn new(config: &SessionConfig) -> Self {
        Outgoing {
            urgent: BytesMut::new(),
            data: BytesMut::new(),
            introduces_bytes: 0,
            batch_bytes: match config.lane {
                Lane::Control => CONTROL_BATCH_BYTES,
                Lane::Data => usize::MAX,
            },
            queued_bytes: 0,
            window_bytes: config.send_window_bytes,
            whole_bytes_max: config.fragment_bytes.min(limits::FRAME_BYTES_MAX),
            frame_bytes_max: config.message_bytes_max.min(limits::MESSAGE_BYTES_MAX),
        }
    }

    /// The peer reads no fragments.
    pub(super) fn never_fragment(&mut self) {
        self.whole_bytes_max = limits::FRAME_BYTES_MAX;
        self.frame_bytes_max = self.frame_bytes_max.min(limits::FRAME_BYTES_MAX);
    }

    /// What a frame may take, fragments or not.
    pub(super) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// True if `frame`, with its length prefix, does not go in one piece.
    pub(super) fn is_large(&self, frame: &[u8]) -> bool {
        frame.len() > 4 + self.whole_bytes_max
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// True if data has to wait until more has been written.
    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes >= self.window_bytes && !planted::is(Bug::WindowIgnored)
    }

    /// Takes a frame that may be large.
    pub(super) fn put(&mut self, head: Head, body: Body) -> Result<Put, WriteError> {
        if body.bytes().len() > self.whole_bytes_max {
            return Ok(Put::Large(body.into_frame(head, self.frame_bytes_max)?));
        }
        let before = self.data.len();
        body.append_to(&mut self.data, head, self.frame_bytes_max)?;
        body::spare(body);
        if self.is_large(&self.data[before..]) {
            return Ok(Put::Large(self.data.split_off(before)));
        }
        self.queued_bytes += self.data.len() - before;
        Ok(Put::Queued)
    }

    /// Puts a frame ahead of all data. Hands it back if so much is urgent already, if it is large, or if types are introduced
    /// among the data that the peer does not know yet.
    pub(super) fn put_ahead(&mut self, head: Head, body: Body) -> Result<Result<(), Body>, WriteError> {
        let large = body.bytes().len() + AHEAD_HEAD_BYTES > self.whole_bytes_max;
        if large || self.introduces_bytes > 0 || self.urgent.len() >= URGENT_BYTES_MAX {
            return Ok(Err(body));
        }
        let before = self.urgent.len();
        body.append_to(&mut self.urgent, head, self.frame_bytes_max)?;
        body::spare(body);
        self.queued_bytes += self.urgent.len() - before;
        Ok(Ok(()))
    }

    /// Introduces a type of messages: no message of that type may come before it.
    pub(super) fn put_introduction(
        &mut self,
        head: Head,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), WriteError> {
        self.put_small(head, body)?;
        self.introduces_bytes = self.data.len();
        Ok(())
    }

    /// Writes a frame of the protocol's own, which is never large.
    pub(super) fn put_small(
        &mut self,
        head: Head,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), WriteError> {
        let before = self.data.len();
        frame::write(&mut self.data, head, body)?;
        self.queued_bytes += self.data.len() - before;
        Ok(())
    }

    /// Writes a frame whose body is there already, within the limit.
    pub(super) fn put_bytes(&mut self, head: Head, bytes: &[u8]) {
        let body = |out: &mut BytesMut| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        // Copying cannot fail.
        let _ = self.put_small(head, body);
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

    /// True if there is anything that [`take`](Self::take) would give.
    pub(super) fn has_any(&self) -> bool {
        !self.urgent.is_empty() || !self.data.is_empty()
    }

    /// Moves the next bytes into `bytes`, which is empty, and goes on with its allocation: all, but on the control lane.
    pub(super) fn take(&mut self, bytes: &mut BytesMut) {
        bytes.clear();
        if self.data.len() > self.batch_bytes {
            return self.take_batch(bytes);
        }
        self.introduces_bytes = 0;
        if self.urgent.is_empty() {
            return std::mem::swap(bytes, &mut self.data);
        }
        bytes.extend_from_slice(&self.urgent);
        bytes.extend_from_slice(&self.data);
        self.urgent.clear();
        self.data.clear();
    }

    /// Moves whole frames, of which there are more than a batch takes.
    fn take_batch(&mut self, bytes: &mut BytesMut) {
        let mut end = 0_usize;
        while end < self.batch_bytes
            && let Some(prefix) = self.data.get(end..).and_then(|rest| rest.first_chunk::<4>())
        {
            end += 4 + u32::from_be_bytes(*prefix) as usize;
        }
        bytes.extend_from_slice(&self.urgent);
        bytes.extend_from_slice(&self.data.split_to(end.min(self.data.len())));
        self.urgent.clear();
        self.introduces_bytes = self.introduces_bytes.saturating_sub(end);
    }

    pub(super) fn written(&mut self, bytes: usize) {
        let forgotten = usize::from(planted::is(Bug::WrittenForgotten) && bytes.is_multiple_of(7));
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes - forgotten.min(bytes));
    }

    pub(super) fn clear(&mut self) {
        self.urgent.clear();
        self.data.clear();
        self.introduces_bytes = 0;
        self.queued_bytes = 0;
    }
}
