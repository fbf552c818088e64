//! The outgoing half: what is written, and kept until the peer has it.

use std::collections::VecDeque;

use bytes::BytesMut;
use mobula_core::limits;
use mobula_core::planted::{self, Bug};

/// Batches up to this are copied behind one another, so that many small ones cost neither an allocation nor a buffer each;
/// larger ones are kept where they were written.
const COPIED_BYTES_MAX: usize = 4 * 1024;
/// Room for batches that are copied.
const CHUNK_BYTES: usize = 64 * 1024;
/// A buffer that a burst has made larger is not used again.
const SPARE_BYTES_MAX: usize = 1024 * 1024;
/// Buffers that are kept to be used again.
const SPARES_MAX: usize = 2;

/// The peer's word on what it has received cannot be true, or cannot be served.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// More than was ever written.
    #[error("AckOfNothing: the peer says that it has {received} bytes, {written} were written")]
    AckOfNothing {
        /// What the peer has, as it says.
        received: u64,
        /// What was written.
        written: u64,
    },
    /// It asks for what it had acknowledged, and what is therefore no longer kept.
    #[error("NotKept: the peer asks for what follows byte {received}, and had acknowledged {acked}")]
    NotKept {
        /// What the peer has, as it says.
        received: u64,
        /// What it had, as it said before.
        acked: u64,
    },
}

/// Bytes that are queued for the wire or were written to it, in the order of the stream. Positions count from the
/// stream's first byte.
#[derive(Debug)]
pub struct Kept {
    /// Without it, what is written is forgotten at once: the connection has no way back.
    keeps: bool,
    bytes_max: usize,
    chunks: VecDeque<BytesMut>,
    /// Where the first chunk begins.
    start: u64,
    /// The peer has all before this.
    acked: u64,
    /// All before this is known to have been written at least once.
    written: u64,
    /// All before this was offered to a wire. One that encrypts may have sent it before it says so.
    offered: u64,
    /// Where the stream ends so far.
    end: u64,
    /// What is written next: its position, and as a chunk and a place in it.
    position: u64,
    next: (usize, usize),
    spares: Vec<BytesMut>,
}

impl Kept {
    /// An empty stream. `keeps` only where a broken connection can be followed by another.
    pub fn new(keeps: bool) -> Self {
        Kept {
            keeps,
            bytes_max: limits::RESUME_BYTES_MAX,
            chunks: VecDeque::new(),
            start: 0,
            acked: 0,
            written: 0,
            offered: 0,
            end: 0,
            position: 0,
            next: (0, 0),
            spares: Vec::new(),
        }
    }

    /// As with [`new`](Self::new), with this bound in place of [`limits::RESUME_BYTES_MAX`], for a connection that can be followed
    /// by another.
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Kept { bytes_max, ..Kept::new(true) }
    }

    /// Bytes ever written, each counted once.
    pub fn written_bytes(&self) -> u64 {
        self.written
    }

    /// True if no more may be pushed before an ack comes.
    pub fn is_full(&self) -> bool {
        self.end - self.acked >= self.bytes_max as u64
    }

    /// Bytes that the peer has not acknowledged.
    pub fn kept_bytes(&self) -> usize {
        (self.end - self.acked) as usize
    }

    /// Appends a batch of whole frames. `batch` comes back empty, with an allocation to be used again.
    pub fn push(&mut self, batch: &mut BytesMut) {
        self.end += batch.len() as u64;
        if !self.keeps || batch.len() > COPIED_BYTES_MAX {
            let empty = self.spares.pop().unwrap_or_default();
            self.chunks.push_back(std::mem::replace(batch, empty));
            return;
        }
        match self.chunks.back_mut() {
            Some(last) if last.capacity() - last.len() >= batch.len() => last.extend_from_slice(batch),
            _ => {
                let mut chunk = match self.spares.pop() {
                    Some(spare) if spare.capacity() >= CHUNK_BYTES => spare,
                    _ => BytesMut::with_capacity(CHUNK_BYTES),
                };
                chunk.extend_from_slice(batch);
                self.chunks.push_back(chunk);
            }
        }
        batch.clear();
    }

    /// What is to be written next, as far as it lies together. Until it is written it is offered again, perhaps with more
    /// behind it.
    pub fn unwritten(&mut self) -> &[u8] {
        let (chunk, at) = &mut self.next;
        while self.chunks.get(*chunk).is_some_and(|bytes| bytes.len() == *at) && *chunk + 1 < self.chunks.len() {
            (*chunk, *at) = (*chunk + 1, 0);
        }
        let unwritten = self.chunks.get(*chunk).map_or(&[][..], |bytes| &bytes[*at..]);
        self.offered = self.offered.max(self.position + unwritten.len() as u64);
        unwritten
    }

    /// Bytes that the peer turned out to have, as a connection was restored, and that were not known to be written.
    pub(crate) fn caught_up(&mut self) -> usize {
        let first = self.position.saturating_sub(self.written);
        self.written += first;
        first as usize
    }

    /// So many of the [unwritten](Self::unwritten) bytes were written. Returns how many of them for the first time.
    pub fn wrote(&mut self, bytes: usize) -> usize {
        self.next.1 += bytes;
        self.position += bytes as u64;
        self.offered = self.offered.max(self.position);
        let first = self.caught_up();
        if !self.keeps {
            self.forget(self.written);
        }
        first
    }

    /// The peer has all before `received`.
    ///
    /// # Errors
    /// [`ResumeError::AckOfNothing`].
    pub fn acked(&mut self, received: u64) -> Result<(), ResumeError> {
        if received > self.offered {
            return Err(ResumeError::AckOfNothing { received, written: self.offered });
        }
        // What was sent twice is acknowledged twice, and an old ack may come late.
        if self.keeps && received > self.acked {
            self.forget(received);
        }
        Ok(())
    }

    /// A new connection begins: the peer has all before `received`, and is sent what follows.
    ///
    /// # Errors
    /// [`ResumeError`]: the stream cannot go on.
    pub fn resume(&mut self, received: u64) -> Result<(), ResumeError> {
        if received < self.acked {
            return Err(ResumeError::NotKept { received, acked: self.acked });
        }
        let received = match () {
            () if planted::is(Bug::ResumedTwice) => self.acked,
            () if planted::is(Bug::ResumeSkips) => self.written,
            () => received,
        };
        self.acked(received)?;
        self.position = received;
        let mut from = received - self.start;
        self.next = (0, 0);
        for chunk in &self.chunks {
            let bytes = chunk.len() as u64;
            if from < bytes {
                break;
            }
            from -= bytes;
            self.next.0 += 1;
        }
        if self.next.0 == self.chunks.len() && self.next.0 > 0 {
            // At the very end: behind the last byte of the last chunk, where more is appended.
            self.next.0 -= 1;
            from = self.chunks.back().map_or(0, |last| last.len() as u64);
        }
        self.next.1 = from as usize;
        if planted::is(Bug::ResumeReordered)
            && let Some(chunk) = self.chunks.get_mut(self.next.0)
        {
            swap_frames(&mut chunk[self.next.1..]);
        }
        Ok(())
    }

    /// The stream has ended, and with it all use for what was kept.
    pub fn clear(&mut self) {
        let end = self.end;
        *self = Kept { start: end, acked: end, written: end, offered: end, end, position: end, ..Kept::new(false) };
    }

    fn forget(&mut self, received: u64) {
        self.acked = received;
        while let Some(first) = self.chunks.front() {
            let bytes = first.len() as u64;
            // What is being written, or was not even begun, stays.
            if self.start + bytes > received || (self.next.0 == 0 && (self.next.1 as u64) < bytes) {
                break;
            }
            let Some(mut chunk) = self.chunks.pop_front() else { break };
            self.start += bytes;
            match &mut self.next {
                (0, at) => *at = 0,
                (chunk, _) => *chunk -= 1,
            }
            if chunk.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
                chunk.clear();
                self.spares.push(chunk);
            }
        }
    }
}

/// Part of a [planted bug](Bug::ResumeReordered): the second frame comes before the first.
fn swap_frames(bytes: &mut [u8]) {
    let frame_bytes = |bytes: &[u8]| {
        let length = u32::from_be_bytes(*bytes.first_chunk()?);
        Some(4 + length as usize).filter(|whole| *whole <= bytes.len())
    };
    if let Some(first) = frame_bytes(bytes)
        && let Some(second) = frame_bytes(&bytes[first..])
    {
        bytes[..first + second].rotate_left(first);
    }
}
