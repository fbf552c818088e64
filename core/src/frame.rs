//! Frames: what stands on the wire after the handshake. Integers are big-endian.
//!
//! | offset | bytes | field  | meaning                                                            |
//! |-------:|------:|--------|--------------------------------------------------------------------|
//! |      0 |     4 | length | bytes that follow, at least 2, within [`limits::FRAME_BYTES_MAX`]  |
//! |      4 |     1 | kind   | [`Kind`]; an unknown one closes the connection                     |
//! |      5 |     1 | flags  | 01: the body is [packed](mod@crate::packing); the rest reserved, 0 |
//! |      6 |     … | fields | fixed integers, as the kind says                                   |
//! |      … |  rest | body   | MessagePack, where the kind has one                                |
//!
//! | kind | name    | fields                                                       | body                     |
//! |-----:|---------|--------------------------------------------------------------|--------------------------|
//! |   01 | ping    | nonce u64                                                    |                          |
//! |   02 | pong    | nonce u64                                                    |                          |
//! |   03 | hello   |                                                              | who speaks, its limits   |
//! |   04 | goodbye |                                                              | text: why it closes      |
//! |   05 | ack     | received u64                                                 |                          |
//! |   06 | resume  | session u64, received u64, attempt u32                       |                          |
//! |   07 | go-away |                                                              | text: why it ends        |
//! |   10 | define  | index u32                                                    | name and schema          |
//! |   11 | ask     | request u64, target u64, message u32, budget u32 (ms left)   | the message              |
//! |   12 | tell    | target u64, message u32, budget u32                          | the message              |
//! |   13 | reply   | request u64                                                  | the handler's result     |
//! |   14 | failure | request u64                                                  | [`CallError`](crate::CallError) |
//! |   15 | cancel  | request u64                                                  |                          |
//! |   16 | credit  | target u64, count u32                                        |                          |
//! |   17 | post    | request u64, target u64, message u32, budget u32             | the message              |
//! |   18 | item    | request u64                                                  | one of many answers      |
//! |   19 | more    | request u64, count u32                                       |                          |
//! |   1a | undelivered | target u64, message u32                                  | [`CallError`](crate::CallError) |
//! |   20 | fragment | number u32                                                  | a piece of a large frame |
//! |   21 | fragment-end | number u32                                              | its last piece           |
//! |   22 | fragment-drop | number u32                                             |                          |
//!
//! Packed may be the bodies of asks, tells, posts, replies and items.
//!
//! The message's bytes stay outside any envelope, so that they are written once and read in place.

use bytes::{Buf, BytesMut};

use crate::codec::EncodeError;
use crate::limits;
use crate::packing;
use crate::{ActorId, Budget, RequestId};

/// The kind byte of a frame. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Ping = 0x01,
    Pong = 0x02,
    Hello = 0x03,
    Goodbye = 0x04,
    Ack = 0x05,
    Resume = 0x06,
    GoAway = 0x07,
    Define = 0x10,
    Ask = 0x11,
    Tell = 0x12,
    Reply = 0x13,
    Failure = 0x14,
    Cancel = 0x15,
    Credit = 0x16,
    Post = 0x17,
    Item = 0x18,
    More = 0x19,
    Undelivered = 0x1a,
    Fragment = 0x20,
    FragmentEnd = 0x21,
    FragmentDrop = 0x22,
}

/// The flag of a frame whose body is [packed](packing).
const PACKED: u8 = 0x01;

/// The place of a message type in the sender's table on one connection, introduced by a define frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MessageIndex(pub u32);

/// One frame, its body borrowed from the read buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Frame<'a> {
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    Hello {
        body: &'a [u8],
    },
    Goodbye {
        body: &'a [u8],
    },
    Ack {
        received: u64,
    },
    Resume {
        session: u64,
        received: u64,
        attempt: u32,
    },
    GoAway {
        body: &'a [u8],
    },
    Define {
        index: MessageIndex,
        body: &'a [u8],
    },
    Ask {
        request: RequestId,
        target: ActorId,
        message: MessageIndex,
        budget: Budget,
        payload: &'a [u8],
    },
    Tell {
        target: ActorId,
        message: MessageIndex,
        budget: Budget,
        payload: &'a [u8],
    },
    Reply {
        request: RequestId,
        payload: &'a [u8],
    },
    Failure {
        request: RequestId,
        body: &'a [u8],
    },
    Cancel {
        request: RequestId,
    },
    Credit {
        target: ActorId,
        count: u32,
    },
    Post {
        request: RequestId,
        target: ActorId,
        message: MessageIndex,
        budget: Budget,
        payload: &'a [u8],
    },
    Item {
        request: RequestId,
        payload: &'a [u8],
    },
    More {
        request: RequestId,
        count: u32,
    },
    Undelivered {
        target: ActorId,
        message: MessageIndex,
        body: &'a [u8],
    },
    Fragment {
        number: u32,
        bytes: &'a [u8],
    },
    FragmentEnd {
        number: u32,
        bytes: &'a [u8],
    },
    FragmentDrop {
        number: u32,
    },
    /// A message, an answer or an item whose body is packed: [`decode_packed`] shows which. The bytes from the kind on.
    Packed {
        frame: &'a [u8],
    },
}

impl Frame<'_> {
    /// The kind byte of a frame that is newer than `version` of the protocol: there it has no meaning.
    #[inline]
    pub fn unknown_in(&self, version: u16) -> Option<u8> {
        if version >= 3 {
            return None;
        }
        let kind = match self {
            Frame::Ack { .. } => Kind::Ack,
            Frame::Resume { .. } => Kind::Resume,
            _ if version == 2 => return None,
            Frame::Post { .. } => Kind::Post,
            Frame::Item { .. } => Kind::Item,
            Frame::More { .. } => Kind::More,
            Frame::Undelivered { .. } => Kind::Undelivered,
            Frame::Fragment { .. } => Kind::Fragment,
            Frame::FragmentEnd { .. } => Kind::FragmentEnd,
            Frame::FragmentDrop { .. } => Kind::FragmentDrop,
            _ => return None,
        };
        Some(kind as u8)
    }
}

/// A frame breaks the rules; its connection is closed, others are not touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length prefix passes the limit. Nothing was allocated for it.
    #[error("FrameTooLarge: a frame of {declared} bytes was announced, at most {max} are accepted")]
    FrameTooLarge {
        /// The length prefix.
        declared: usize,
        /// The limit.
        max: usize,
    },
    /// The length prefix is 0 or 1: no room for kind and flags.
    #[error("EmptyFrame: a frame needs at least 2 bytes, {declared} were announced")]
    EmptyFrame {
        /// The length prefix.
        declared: usize,
    },
    /// No such kind in this version of the protocol.
    #[error("UnknownFrameKind: 0x{kind:02x}")]
    UnknownFrameKind {
        /// The kind byte.
        kind: u8,
    },
    /// A reserved flag is set.
    #[error("ReservedBits: flags 0x{flags:02x} of kind 0x{kind:02x} must be 0")]
    ReservedBits {
        /// The kind byte.
        kind: u8,
        /// The flags byte.
        flags: u8,
    },
    /// The frame is shorter than the fields of its kind.
    #[error("Truncated: kind 0x{kind:02x} needs {need} bytes of fields, the frame has {have}")]
    Truncated {
        /// The kind byte.
        kind: u8,
        /// Bytes that the fields take.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes after the last field of a kind without a body.
    #[error("TrailingBytes: kind 0x{kind:02x} has no body, {extra} bytes follow")]
    TrailingBytes {
        /// The kind byte.
        kind: u8,
        /// Bytes too many.
        extra: usize,
    },
    /// The connection ended within a frame.
    #[error("Truncated: the connection ended {have} bytes into a frame")]
    Cut {
        /// Bytes of the frame that had arrived.
        have: usize,
    },
}

/// Reads the first frame of `buffer`. `Ok(None)` means that more bytes are needed. With the frame comes its length
/// in the buffer.
///
/// The length is checked before anything waits or is allocated for the rest.
/// # Errors
/// [`FrameError`]; the connection cannot go on after it.
#[inline]
pub fn decode(buffer: &[u8], frame_bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((prefix, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let declared = u32::from_be_bytes(*prefix) as usize;
    if declared > frame_bytes_max {
        return Err(FrameError::FrameTooLarge { declared, max: frame_bytes_max });
    }
    if declared < 2 {
        return Err(FrameError::EmptyFrame { declared });
    }
    let Some(frame) = rest.get(..declared) else { return Ok(None) };
    Ok(Some((decode_body(frame)?, 4 + declared)))
}

/// Reads a frame without its length prefix: what the fragments of a large one are, put together.
///
/// # Errors
/// [`FrameError`], as for [`decode`].
pub fn decode_unprefixed(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    match frame.len() {
        declared @ 0..2 => Err(FrameError::EmptyFrame { declared }),
        _ => decode_body(frame),
    }
}

#[inline]
fn decode_body(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (decoded, flags) = decode_fields(frame)?;
    if flags == 0 {
        return Ok(decoded);
    }
    decode_flagged(frame, &decoded, flags)
}

#[cold]
fn decode_flagged<'a>(frame: &'a [u8], decoded: &Frame<'_>, flags: u8) -> Result<Frame<'a>, FrameError> {
    match decoded {
        Frame::Ask { .. } | Frame::Tell { .. } | Frame::Post { .. } | Frame::Reply { .. } | Frame::Item { .. }
            if flags == PACKED =>
        {
            Ok(Frame::Packed { frame })
        }
        _ => Err(FrameError::ReservedBits { kind: frame[0], flags }),
    }
}

/// The frame of [`Frame::Packed`], with the packed body in place of its own.
///
/// # Errors
/// [`FrameError`], as for [`decode`].
pub fn decode_packed(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    match frame.len() {
        declared @ 0..2 => Err(FrameError::EmptyFrame { declared }),
        _ => decode_fields(frame).map(|(decoded, _)| decoded),
    }
}

/// The frame whatever its flags say, and what they are.
#[inline]
fn decode_fields(frame: &[u8]) -> Result<(Frame<'_>, u8), FrameError> {
    let kind = frame[0];
    let flags = frame[1];
    let mut fields = Fields { kind, rest: &frame[2..] };
    let decoded = match kind {
        0x01 => {
            let [nonce] = fields.take()?;
            fields.end()?;
            Frame::Ping { nonce }
        }
        0x02 => {
            let [nonce] = fields.take()?;
            fields.end()?;
            Frame::Pong { nonce }
        }
        0x03 => Frame::Hello { body: fields.rest },
        0x04 => Frame::Goodbye { body: fields.rest },
        0x05 => {
            let [received] = fields.take()?;
            fields.end()?;
            Frame::Ack { received }
        }
        0x06 => {
            let [session, received] = fields.take()?;
            let attempt = fields.u32()?;
            fields.end()?;
            Frame::Resume { session, received, attempt }
        }
        0x07 => Frame::GoAway { body: fields.rest },
        0x10 => Frame::Define { index: MessageIndex(fields.u32()?), body: fields.rest },
        0x11 => {
            let [request, target, message_budget] = fields.take()?;
            let (message, budget) = split(message_budget);
            let request = RequestId(request);
            Frame::Ask { request, target: ActorId(target), message, budget, payload: fields.rest }
        }
        0x12 => {
            let [target, message_budget] = fields.take()?;
            let (message, budget) = split(message_budget);
            Frame::Tell { target: ActorId(target), message, budget, payload: fields.rest }
        }
        0x13 => {
            let [request] = fields.take()?;
            Frame::Reply { request: RequestId(request), payload: fields.rest }
        }
        0x14 => {
            let [request] = fields.take()?;
            Frame::Failure { request: RequestId(request), body: fields.rest }
        }
        0x15 => {
            let [request] = fields.take()?;
            fields.end()?;
            Frame::Cancel { request: RequestId(request) }
        }
        0x16 => {
            let [target] = fields.take()?;
            let count = fields.u32()?;
            fields.end()?;
            Frame::Credit { target: ActorId(target), count }
        }
        0x17 => {
            let [request, target, message_budget] = fields.take()?;
            let (message, budget) = split(message_budget);
            let request = RequestId(request);
            Frame::Post { request, target: ActorId(target), message, budget, payload: fields.rest }
        }
        0x18 => {
            let [request] = fields.take()?;
            Frame::Item { request: RequestId(request), payload: fields.rest }
        }
        0x19 => {
            let [request] = fields.take()?;
            let count = fields.u32()?;
            fields.end()?;
            Frame::More { request: RequestId(request), count }
        }
        0x1a => {
            let [target] = fields.take()?;
            let message = MessageIndex(fields.u32()?);
            Frame::Undelivered { target: ActorId(target), message, body: fields.rest }
        }
        0x20 => Frame::Fragment { number: fields.u32()?, bytes: fields.rest },
        0x21 => Frame::FragmentEnd { number: fields.u32()?, bytes: fields.rest },
        0x22 => {
            let number = fields.u32()?;
            fields.end()?;
            Frame::FragmentDrop { number }
        }
        kind => return Err(FrameError::UnknownFrameKind { kind }),
    };
    Ok((decoded, flags))
}

struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl Fields<'_> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u64; N], FrameError> {
        let need = 8 * N;
        let mut values = [0; N];
        let mut rest = self.rest;
        for value in &mut values {
            let Some((bytes, after)) = rest.split_first_chunk::<8>() else {
                return Err(FrameError::Truncated { kind: self.kind, need, have: self.rest.len() });
            };
            *value = u64::from_be_bytes(*bytes);
            rest = after;
        }
        self.rest = rest;
        Ok(values)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(FrameError::Truncated { kind: self.kind, need: 4, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn end(&self) -> Result<(), FrameError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(FrameError::TrailingBytes { kind: self.kind, extra }),
        }
    }
}

fn split(message_budget: u64) -> (MessageIndex, Budget) {
    (MessageIndex((message_budget >> 32) as u32), Budget(message_budget as u32))
}

/// The body could not be written, or the frame would pass its limit. The buffer is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The value's `Serialize` failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The frame is too large for any peer.
    #[error("the frame takes {bytes} bytes, at most {max} fit; send large values in parts")]
    TooLarge {
        /// Bytes that it would take.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Appends a frame whose body is written in place by `body`. On an error `out` is left as it was.
///
/// # Errors
/// [`WriteError`] if the body fails or the frame is too large.
pub fn write(
    out: &mut BytesMut,
    head: Head,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), WriteError> {
    let (start, max) = (out.len(), limits::FRAME_BYTES_MAX);
    head.put(out);
    let written = body(out);
    let bytes = out.len() - start - 4;
    if let Err(error) = written {
        out.truncate(start);
        return Err(error.into());
    }
    if bytes > max {
        out.truncate(start);
        return Err(WriteError::TooLarge { bytes, max });
    }
    out[start..start + 4].copy_from_slice(&(bytes as u32).to_be_bytes());
    Ok(())
}

/// Appends a frame without a body.
pub fn write_bare(out: &mut BytesMut, head: Head) {
    let start = out.len();
    head.put(out);
    let bytes = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}

/// The fixed part of a frame to be written.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Head {
    Ping { nonce: u64 },
    Pong { nonce: u64 },
    Hello,
    Goodbye,
    Ack { received: u64 },
    Resume { session: u64, received: u64, attempt: u32 },
    GoAway,
    Define { index: MessageIndex },
    Ask { request: RequestId, target: ActorId, message: MessageIndex, budget: Budget },
    Tell { target: ActorId, message: MessageIndex, budget: Budget },
    Reply { request: RequestId },
    Failure { request: RequestId },
    Cancel { request: RequestId },
    Credit { target: ActorId, count: u32 },
    Post { request: RequestId, target: ActorId, message: MessageIndex, budget: Budget },
    Item { request: RequestId },
    More { request: RequestId, count: u32 },
    Undelivered { target: ActorId, message: MessageIndex },
    Fragment { number: u32 },
    FragmentEnd { number: u32 },
    FragmentDrop { number: u32 },
}

/// The largest head: length, kind, flags, and the fields of a post.
const HEAD_BYTES_MAX: usize = 30;

impl Head {
    #[inline]
    fn put(self, out: &mut BytesMut) {
        // One stack buffer and one append: the head of an ask is the hottest write of all.
        let mut head = [0_u8; HEAD_BYTES_MAX];
        let length = self.write(&mut head);
        out.extend_from_slice(&head[..length]);
    }

    /// Writes the head, with a length of zero. Returns how many bytes it takes.
    #[inline]
    fn write(self, head: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        let mut at = 6;
        let mut put_u64 = |head: &mut [u8; HEAD_BYTES_MAX], value: u64| {
            head[at..at + 8].copy_from_slice(&value.to_be_bytes());
            at += 8;
        };
        let kind = match self {
            Head::Ping { nonce } => {
                put_u64(head, nonce);
                Kind::Ping
            }
            Head::Pong { nonce } => {
                put_u64(head, nonce);
                Kind::Pong
            }
            Head::Hello => Kind::Hello,
            Head::Goodbye => Kind::Goodbye,
            Head::GoAway => Kind::GoAway,
            Head::Ack { received } => {
                put_u64(head, received);
                Kind::Ack
            }
            Head::Resume { session, received, .. } => {
                put_u64(head, session);
                put_u64(head, received);
                Kind::Resume
            }
            Head::Ask { request, target, message, budget } => {
                put_u64(head, request.0);
                put_u64(head, target.0);
                put_u64(head, u64::from(message.0) << 32 | u64::from(budget.0));
                Kind::Ask
            }
            Head::Tell { target, message, budget } => {
                put_u64(head, target.0);
                put_u64(head, u64::from(message.0) << 32 | u64::from(budget.0));
                Kind::Tell
            }
            Head::Reply { request } => {
                put_u64(head, request.0);
                Kind::Reply
            }
            Head::Failure { request } => {
                put_u64(head, request.0);
                Kind::Failure
            }
            Head::Cancel { request } => {
                put_u64(head, request.0);
                Kind::Cancel
            }
            Head::Credit { target, .. } => {
                put_u64(head, target.0);
                Kind::Credit
            }
            Head::Define { .. } => Kind::Define,
            Head::Post { request, target, message, budget } => {
                put_u64(head, request.0);
                put_u64(head, target.0);
                put_u64(head, u64::from(message.0) << 32 | u64::from(budget.0));
                Kind::Post
            }
            Head::Item { request } => {
                put_u64(head, request.0);
                Kind::Item
            }
            Head::More { request, .. } => {
                put_u64(head, request.0);
                Kind::More
            }
            Head::Undelivered { target, .. } => {
                put_u64(head, target.0);
                Kind::Undelivered
            }
            Head::Fragment { .. } => Kind::Fragment,
            Head::FragmentEnd { .. } => Kind::FragmentEnd,
            Head::FragmentDrop { .. } => Kind::FragmentDrop,
        };
        head[4] = kind as u8;
        let last = match self {
            Head::Define { index } => index.0,
            Head::Resume { attempt, .. } => attempt,
            Head::Credit { count, .. } | Head::More { count, .. } => count,
            Head::Undelivered { message, .. } => message.0,
            Head::Fragment { number } | Head::FragmentEnd { number } | Head::FragmentDrop { number } => number,
            _ => return at,
        };
        head[at..at + 4].copy_from_slice(&last.to_be_bytes());
        at + 4
    }
}

/// The body of a frame whose head is not known yet. It may so be written before anything is locked, and a large one is
/// never copied: in front of it there is room for its head.
#[derive(Debug)]
pub struct Body {
    bytes: BytesMut,
    packing: Packing,
}

#[derive(Clone, Copy, Debug)]
enum Packing {
    Untried,
    /// It does not get shorter, or is too small.
    AsItIs,
    /// It was so long before.
    Packed {
        unpacked_bytes: usize,
    },
}

impl Body {
    /// What `body` appends, in `buffer`, which is cleared first.
    ///
    /// # Errors
    /// [`EncodeError`], as `body` says.
    #[inline]
    pub fn write(
        mut buffer: BytesMut,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<Self, EncodeError> {
        // What stands there is written over.
        buffer.truncate(HEAD_BYTES_MAX);
        if buffer.len() < HEAD_BYTES_MAX {
            buffer.resize(HEAD_BYTES_MAX, 0);
        }
        body(&mut buffer)?;
        Ok(Body { bytes: buffer, packing: Packing::Untried })
    }

    /// The bytes of the body, packed if it is.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[HEAD_BYTES_MAX..]
    }

    /// Packs it, once, if it has more than `above` bytes and gets shorter. Only for a peer that reads it, and for the kinds of
    /// frames whose bodies may be packed.
    #[inline]
    #[must_use]
    pub fn packed(self, above: usize) -> Self {
        if !matches!(self.packing, Packing::Untried) || self.bytes().len() <= above { self } else { self.pack() }
    }

    #[cold]
    fn pack(mut self) -> Self {
        self.packing = Packing::AsItIs;
        if let Some(packed) = packing::pack(self.bytes(), HEAD_BYTES_MAX) {
            self.packing = Packing::Packed { unpacked_bytes: self.bytes().len() };
            self.bytes = packed;
        }
        self
    }

    /// True if it is packed.
    #[inline]
    pub fn is_packed(&self) -> bool {
        matches!(self.packing, Packing::Packed { .. })
    }

    /// Appends the frame. On an error `out` is left as it was.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if the frame is larger than `max`.
    #[inline]
    pub fn append_to(&self, out: &mut BytesMut, head: Head, max: usize) -> Result<(), WriteError> {
        let (head, length) = self.head(head, max)?;
        out.reserve(length + self.bytes().len());
        out.extend_from_slice(&head[..length]);
        out.extend_from_slice(self.bytes());
        Ok(())
    }

    /// The frame, where the body stands.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if the frame is larger than `max`.
    pub fn into_frame(mut self, head: Head, max: usize) -> Result<BytesMut, WriteError> {
        let (head, length) = self.head(head, max)?;
        self.bytes.advance(HEAD_BYTES_MAX - length);
        self.bytes[..length].copy_from_slice(&head[..length]);
        Ok(self.bytes)
    }

    /// The buffer, to be used again.
    #[inline]
    pub fn into_buffer(self) -> BytesMut {
        self.bytes
    }

    #[inline]
    fn head(&self, head: Head, max: usize) -> Result<([u8; HEAD_BYTES_MAX], usize), WriteError> {
        let mut bytes = [0_u8; HEAD_BYTES_MAX];
        let length = head.write(&mut bytes);
        // The length prefix does not count itself.
        let frame_bytes = length - 4 + self.bytes().len();
        // The peer has to hold it as it was.
        let held_bytes = match self.packing {
            Packing::Packed { unpacked_bytes } => length - 4 + unpacked_bytes,
            _ => frame_bytes,
        };
        if held_bytes > max {
            return Err(WriteError::TooLarge { bytes: held_bytes, max });
        }
        if self.is_packed() {
            bytes[5] = PACKED;
        }
        bytes[..4].copy_from_slice(&(frame_bytes as u32).to_be_bytes());
        Ok((bytes, length))
    }
}

/// Puts the time left into an ask, post or tell frame that has waited in line since it was written.
pub fn patch_budget(frame: &mut [u8], budget: Budget) {
    let at = match frame.get(4) {
        Some(0x11 | 0x17) => 26,
        Some(0x12) => 18,
        _ => return,
    };
    if let Some(field) = frame.get_mut(at..at + 4) {
        field.copy_from_slice(&budget.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn ask() -> Head {
        Head::Ask { request: RequestId(7), target: ActorId(3), message: MessageIndex(1), budget: Budget(30_000) }
    }

    fn post() -> Head {
        Head::Post { request: RequestId(7), target: ActorId(3), message: MessageIndex(1), budget: Budget(30_000) }
    }

    #[test]
    fn every_kind_comes_back_as_it_was_written() {
        let mut out = BytesMut::new();
        let body = |out: &mut BytesMut| codec::encode_into("hi", out);
        for head in [
            Head::Ping { nonce: 1 },
            Head::Pong { nonce: 2 },
            Head::Ack { received: 3 },
            Head::Resume { session: 4, received: 5, attempt: 6 },
            Head::Cancel { request: RequestId(8) },
            Head::Credit { target: ActorId(3), count: 512 },
            Head::More { request: RequestId(8), count: 16 },
            Head::FragmentDrop { number: 4 },
        ] {
            write_bare(&mut out, head);
        }
        for head in [
            Head::Hello,
            Head::Goodbye,
            Head::GoAway,
            Head::Define { index: MessageIndex(1) },
            ask(),
            Head::Tell { target: ActorId(3), message: MessageIndex(1), budget: Budget::NEVER },
            Head::Reply { request: RequestId(7) },
            Head::Failure { request: RequestId(7) },
            post(),
            Head::Item { request: RequestId(7) },
            Head::Undelivered { target: ActorId(3), message: MessageIndex(1) },
            Head::Fragment { number: 5 },
            Head::FragmentEnd { number: 5 },
        ] {
            write(&mut out, head, body).expect("small");
        }
        let payload = b"\xa2hi".as_slice();
        let expected = [
            Frame::Ping { nonce: 1 },
            Frame::Pong { nonce: 2 },
            Frame::Ack { received: 3 },
            Frame::Resume { session: 4, received: 5, attempt: 6 },
            Frame::Cancel { request: RequestId(8) },
            Frame::Credit { target: ActorId(3), count: 512 },
            Frame::More { request: RequestId(8), count: 16 },
            Frame::FragmentDrop { number: 4 },
            Frame::Hello { body: payload },
            Frame::Goodbye { body: payload },
            Frame::GoAway { body: payload },
            Frame::Define { index: MessageIndex(1), body: payload },
            Frame::Ask {
                request: RequestId(7),
                target: ActorId(3),
                message: MessageIndex(1),
                budget: Budget(30_000),
                payload,
            },
            Frame::Tell { target: ActorId(3), message: MessageIndex(1), budget: Budget::NEVER, payload },
            Frame::Reply { request: RequestId(7), payload },
            Frame::Failure { request: RequestId(7), body: payload },
            Frame::Post {
                request: RequestId(7),
                target: ActorId(3),
                message: MessageIndex(1),
                budget: Budget(30_000),
                payload,
            },
            Frame::Item { request: RequestId(7), payload },
            Frame::Undelivered { target: ActorId(3), message: MessageIndex(1), body: payload },
            Frame::Fragment { number: 5, bytes: payload },
            Frame::FragmentEnd { number: 5, bytes: payload },
        ];
        let mut rest = &out[..];
        for frame in expected {
            let (decoded, used) = decode(rest, limits::FRAME_BYTES_MAX).expect("own bytes").expect("whole");
            assert_eq!(decoded, frame);
            assert_eq!(decode_unprefixed(&rest[4..used]), Ok(frame));
            for cut in 0..used {
                assert_eq!(decode(&rest[..cut], limits::FRAME_BYTES_MAX), Ok(None), "cut at {cut}");
            }
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn limits_hold_at_the_border() {
        let frame = |declared: u32| declared.to_be_bytes().to_vec();
        assert_eq!(decode(&frame(0), 100), Err(FrameError::EmptyFrame { declared: 0 }));
        assert_eq!(decode(&frame(1), 100), Err(FrameError::EmptyFrame { declared: 1 }));
        assert_eq!(decode(&frame(99), 100), Ok(None));
        assert_eq!(decode(&frame(100), 100), Ok(None));
        assert_eq!(decode(&frame(101), 100), Err(FrameError::FrameTooLarge { declared: 101, max: 100 }));
        assert_eq!(
            decode(&frame(u32::MAX), limits::FRAME_BYTES_MAX),
            Err(FrameError::FrameTooLarge { declared: 0xffff_ffff, max: limits::FRAME_BYTES_MAX })
        );
    }

    #[test]
    fn broken_frames_get_their_own_error() {
        let decode = |bytes: &[u8]| decode(bytes, 100).map(|_| ());
        assert_eq!(decode(b"\0\0\0\x02\x77\0"), Err(FrameError::UnknownFrameKind { kind: 0x77 }));
        assert_eq!(
            decode(b"\0\0\0\x0a\x01\x80\0\0\0\0\0\0\0\x01"),
            Err(FrameError::ReservedBits { kind: 1, flags: 0x80 })
        );
        assert_eq!(
            decode(b"\0\0\0\x05\x13\0\x01\x02\x03"),
            Err(FrameError::Truncated { kind: 0x13, need: 8, have: 3 })
        );
        let cut_short = |kind: u8, need: usize, have: usize| {
            let mut frame = vec![0, 0, 0, 2 + have as u8, kind, 0];
            frame.resize(6 + have, 0);
            assert_eq!(decode(&frame), Err(FrameError::Truncated { kind, need, have }));
        };
        cut_short(0x05, 8, 7);
        cut_short(0x06, 16, 15);
        assert_eq!(
            decode(b"\0\0\0\x15\x06\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\x01"),
            Err(FrameError::Truncated { kind: 0x06, need: 4, have: 3 })
        );
        cut_short(0x17, 24, 23);
        cut_short(0x18, 8, 7);
        cut_short(0x19, 8, 7);
        cut_short(0x1a, 8, 7);
        assert_eq!(
            decode(b"\0\0\0\x0f\x19\0\0\0\0\0\0\0\0\x01\0\0\0\x01\x01"),
            Err(FrameError::TrailingBytes { kind: 0x19, extra: 1 })
        );
        assert_eq!(decode_unprefixed(b"\x01"), Err(FrameError::EmptyFrame { declared: 1 }));
        assert_eq!(
            decode(b"\0\0\0\x0b\x02\0\0\0\0\0\0\0\0\x01\x01"),
            Err(FrameError::TrailingBytes { kind: 2, extra: 1 })
        );
    }

    #[test]
    fn a_packed_body_is_marked_and_counts_as_what_it_was() {
        let body = |bytes: usize| {
            let write = |out: &mut BytesMut| {
                out.resize(out.len() + bytes, 7);
                Ok(())
            };
            Body::write(BytesMut::new(), write).expect("it can be written").packed(999)
        };
        assert!(!body(999).is_packed());
        for head in [ask(), post(), Head::Reply { request: RequestId(7) }, Head::Item { request: RequestId(7) }] {
            let frame = body(1000).into_frame(head, 2000).expect("it fits");
            let Ok(Some((Frame::Packed { frame: inner }, length))) = decode(&frame, 2000) else { panic!("{frame:?}") };
            assert_eq!((inner, length), (&frame[4..], frame.len()));
            assert_eq!(decode_unprefixed(inner), Ok(Frame::Packed { frame: inner }));
            let (Frame::Ask { payload, .. }
            | Frame::Post { payload, .. }
            | Frame::Reply { payload, .. }
            | Frame::Item { payload, .. }) = decode_packed(inner).expect("own bytes")
            else {
                panic!("{inner:?}")
            };
            assert_eq!(packing::unpack(payload, 1000).as_deref(), Ok(&[7; 1000][..]));
        }
        // The limit is that of the message, not of its packed form.
        let reply = Head::Reply { request: RequestId(7) };
        assert!(body(1000).append_to(&mut BytesMut::new(), reply, 1010).is_ok());
        let error = body(1000).append_to(&mut BytesMut::new(), reply, 1009);
        assert!(matches!(error, Err(WriteError::TooLarge { bytes: 1010, max: 1009 })), "{error:?}");
    }

    #[test]
    fn only_bodies_of_messages_and_answers_may_be_packed_and_no_other_flag_is_known() {
        for kind in 0..=u8::MAX {
            let mut frame = vec![0, 0, 0, 34, kind, 1];
            frame.resize(38, 0);
            let packed = matches!(decode(&frame, 100), Ok(Some((Frame::Packed { .. }, 38))));
            assert_eq!(packed, [0x11, 0x12, 0x13, 0x17, 0x18].contains(&kind), "{kind:x}");
            frame[5] = 3;
            assert!(decode(&frame, 100).is_err(), "{kind:x}");
        }
        assert_eq!(
            decode(b"\0\0\0\x03\x04\x01\xa0", 100),
            Err(FrameError::ReservedBits { kind: 4, flags: 1 }),
            "a goodbye is never packed"
        );
    }

    #[test]
    fn a_frame_that_is_too_large_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let error = write(&mut out, ask(), |out| {
            out.resize(out.len() + limits::FRAME_BYTES_MAX, 0);
            Ok(())
        });
        assert!(matches!(error, Err(WriteError::TooLarge { .. })));
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn the_budget_can_be_patched() {
        let mut out = BytesMut::new();
        write(&mut out, ask(), |out| codec::encode_into("hi", out)).expect("small");
        patch_budget(&mut out, Budget(1));
        let Ok(Some((Frame::Ask { budget, .. }, _))) = decode(&out, 100) else { panic!("an ask") };
        assert_eq!(budget, Budget(1));
        out.clear();
        write(&mut out, post(), |out| codec::encode_into("hi", out)).expect("small");
        patch_budget(&mut out, Budget(2));
        let Ok(Some((Frame::Post { budget, .. }, _))) = decode(&out, 100) else { panic!("a post") };
        assert_eq!(budget, Budget(2));
    }
}
