//! The frames that all raw peers exchange.
//!
//! | offset | bytes | field  | meaning                            |
//! |-------:|------:|--------|------------------------------------|
//! |      0 |     4 | length | big-endian; bytes that follow      |
//! |      4 |     8 | id     | big-endian; matches reply and call |
//! |     12 |  rest | body   | eight bytes, or MessagePack        |
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const PREFIX_BYTES: usize = 4;
const ID_BYTES: usize = 8;
const FRAME_BYTES_MAX: usize = 1024;

/// 256 KiB: several batches of a thousand frames for each system call.
const READ_BYTES: usize = 256 * 1024;

/// Appends a frame with a body of eight bytes.
pub(super) fn put(out: &mut Vec<u8>, id: u64, body: u64) {
    let mut frame = [0; PREFIX_BYTES + ID_BYTES + 8];
    frame[..4].copy_from_slice(&16u32.to_be_bytes());
    frame[4..12].copy_from_slice(&id.to_be_bytes());
    frame[12..].copy_from_slice(&body.to_be_bytes());
    out.extend_from_slice(&frame);
}

/// Appends a frame whose body is written in place by `write_body`.
pub(crate) fn put_with<E>(
    out: &mut Vec<u8>,
    id: u64,
    write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(&id.to_be_bytes());
    write_body(out)?;
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Reads as much as there is and hands out whole frames.
pub(crate) struct Frames {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Frames::of(FRAME_BYTES_MAX)
    }

    /// For frames of so many bytes at the most.
    pub(crate) fn of(frame_bytes_max: usize) -> Self {
        let bytes = vec![0; READ_BYTES.max(2 * frame_bytes_max)].into();
        Frames { bytes, start: 0, end: 0, frame_bytes_max }
    }

    /// One system call; `false` at the end of the stream.
    pub(crate) async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        // Most of a large frame is moved only to make room.
        if self.end - self.start < READ_BYTES / 4 || self.bytes.len() - self.end < READ_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let count = stream.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    /// The id and body of the next whole frame that was read.
    #[inline]
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let unread = &self.bytes[self.start..self.end];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if !(ID_BYTES..=self.frame_bytes_max).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let Some((id, body)) = rest[..length].split_first_chunk::<ID_BYTES>() else { return Ok(None) };
        self.start += PREFIX_BYTES + length;
        Ok(Some((u64::from_be_bytes(*id), body)))
    }
}

/// The eight bytes that `put` wrote.
#[inline]
pub(super) fn body(bytes: &[u8]) -> io::Result<u64> {
    let bytes = bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "body is not 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}
