//! What goes into a session and what comes out of it.

use std::ops::Deref;
use std::time::Duration;

use bytes::BytesMut;
use mobula_core::frame::MessageIndex;
use mobula_core::packing::{self, PackError};
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, RequestId, limits};
use serde::{Deserialize, Serialize};

use crate::preface::VERSIONS;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Messages. Lives with the actors; silence on it means nothing, since a busy arbiter is not dead.
    Data,
    /// Heartbeats and requests to the node itself. Lives on its own runtime; silence on it is suspicious.
    Control,
}

/// The settings of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// The version of the protocol that both sides speak, as the handshake has agreed. Default: the newest of
    /// [`VERSIONS`]. A [`Link`](crate::Link) takes that of its wire.
    pub version: u16,
    /// What the connection is for. Only control sessions send and expect heartbeats.
    pub lane: Lane,
    /// Default [`limits::HEARTBEAT_INTERVAL`].
    pub heartbeat_interval: Duration,
    /// Default [`limits::DOWN_AFTER`].
    pub down_after: Duration,
    /// Default [`limits::HANDSHAKE_DEADLINE`]; here, the time until the peer's hello.
    pub hello_deadline: Duration,
    /// Bytes queued towards the peer before senders wait. Default [`limits::SEND_WINDOW_BYTES`].
    pub send_window_bytes: usize,
    /// Frames above this go in fragments of this size, to peers that [read](Hello::FRAGMENTS) them; at most
    /// [`limits::FRAME_BYTES_MAX`] less 6. Default [`limits::FRAGMENT_BYTES`].
    pub fragment_bytes: usize,
    /// Messages and answers above this are not sent. Default, and at most, [`limits::MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// Bodies above this are packed, where both ends have [said](Hello::LZ4) that they read them. Default
    /// [`limits::PACK_ABOVE_BYTES`].
    pub pack_above_bytes: usize,
}

impl SessionConfig {
    /// The defaults for `lane`.
    pub fn new(lane: Lane) -> Self {
        SessionConfig {
            version: VERSIONS.max,
            lane,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            down_after: limits::DOWN_AFTER,
            hello_deadline: limits::HANDSHAKE_DEADLINE,
            send_window_bytes: limits::SEND_WINDOW_BYTES,
            fragment_bytes: limits::FRAGMENT_BYTES,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            pack_above_bytes: limits::PACK_ABOVE_BYTES,
        }
    }
}

/// The first frame of each side: who speaks, and what it will take.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The speaker.
    pub node: NodeId,
    /// Its process id, for people.
    pub pid: u32,
    /// Features beyond the version, one bit each, as [`CAPABILITIES`](Hello::CAPABILITIES); unknown bits are ignored.
    pub capabilities: u64,
    /// Messages that the speaker takes for one of its actors before it returns credit; not 0. The speaker keeps
    /// this window with [`ReceiveCredit`](crate::ReceiveCredit). Default [`limits::CREDIT_MESSAGES`].
    pub credit_messages: u32,
}

impl Hello {
    /// Capability: the speaker reads fragments, so messages and answers to it may take up to
    /// [`limits::MESSAGE_BYTES_MAX`].
    pub const FRAGMENTS: u64 = 1;
    /// Capability: the speaker is to be told when its peer is about to [end](crate::Link::go_away).
    pub const GO_AWAY: u64 = 2;
    /// Capability: the speaker reads bodies that are packed with LZ4. Who says so itself packs what it sends to a peer that has said so.
    /// Not one of [`CAPABILITIES`](Hello::CAPABILITIES): it is announced where packing was asked for.
    pub const LZ4: u64 = 4;
    /// The capabilities of this build that are always announced.
    pub const CAPABILITIES: u64 = Hello::FRAGMENTS | Hello::GO_AWAY;

    /// True if the speaker has announced all of `capabilities`.
    pub fn can(&self, capabilities: u64) -> bool {
        self.capabilities & capabilities == capabilities
    }
}

/// A message to be sent: to whom, as what, until when.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The receiving actor.
    pub target: ActorId,
    /// The message's key, and …
    pub key: MessageKey,
    /// … its registered name, and …
    pub name: &'static str,
    /// … the hash of its definition.
    pub schema: u64,
    /// After this, nobody waits.
    pub deadline: Deadline,
}

/// What became of a message that was handed to the session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// It is on its way.
    Queued,
    /// It stands in line for credit or for the byte window, and keeps its place.
    InLine,
}

/// What a received frame means to the driver.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Received<'a, R> {
    /// Dealt with inside the session.
    Nothing,
    /// The peer has so many bytes of what was sent to it.
    Ack { received: u64 },
    /// The peer introduced a message type; indices count up from 0.
    Define { index: MessageIndex, name: String, schema: u64 },
    /// A message for an actor here; with a `request` if something is to be said to it.
    Request {
        request: Option<RequestId>,
        /// What is wanted is no answer, only to hear that the message is in the mailbox.
        post: bool,
        target: ActorId,
        message: MessageIndex,
        deadline: Deadline,
        payload: Payload<'a>,
    },
    /// An answer to `to`.
    Reply { to: R, payload: Payload<'a> },
    /// The failure of `to`.
    Failure { to: R, error: CallError },
    /// One of many answers to `to`, which stays open.
    Item { to: R, payload: Payload<'a> },
    /// The peer no longer waits for this request.
    Cancel { request: RequestId },
    /// The peer has taken so many items of the answer to this request.
    More { request: RequestId, count: u32 },
    /// A tell to an actor of the peer reached no handler.
    Undelivered { target: ActorId, message: &'static str, error: CallError },
}

/// The body of a message or an answer.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// In the buffer that was read into.
    Whole(&'a [u8]),
    /// It came in fragments.
    Reassembled(BytesMut),
    /// In the buffer that was read into, packed. A [`Link`](crate::Link) [unpacks](Payload::unpacked) it before it hands it on.
    Packed(&'a [u8]),
    /// It came in fragments, and is packed.
    ReassembledPacked(BytesMut),
}

impl Payload<'_> {
    /// The body as it was before it was packed. It takes time for each byte, and should be done without the session's lock.
    ///
    /// # Errors
    /// [`PackError`]: the peer has broken a rule, and its session ends.
    pub fn unpacked(self) -> Result<Self, PackError> {
        let unpack = |packed: &[u8]| packing::unpack(packed, limits::MESSAGE_BYTES_MAX).map(Payload::Reassembled);
        match self {
            Payload::Packed(packed) => unpack(packed),
            Payload::ReassembledPacked(packed) => unpack(&packed),
            plain => Ok(plain),
        }
    }

    /// The same bytes, known to be packed.
    pub(super) fn marked_packed(self) -> Self {
        match self {
            Payload::Whole(bytes) => Payload::Packed(bytes),
            Payload::Reassembled(bytes) => Payload::ReassembledPacked(bytes),
            packed => packed,
        }
    }
}

/// Its bytes as they came.
impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Whole(bytes) | Payload::Packed(bytes) => bytes,
            Payload::Reassembled(bytes) | Payload::ReassembledPacked(bytes) => bytes,
        }
    }
}

impl<R> Received<'_, R> {
    /// The same, its payload known to be packed.
    pub(super) fn marked_packed(mut self) -> Self {
        if let Received::Request { payload, .. } | Received::Reply { payload, .. } | Received::Item { payload, .. } =
            &mut self
        {
            *payload = std::mem::replace(payload, Payload::Whole(&[])).marked_packed();
        }
        self
    }
}

/// What the session wants its driver to tell others.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event<R> {
    /// A tell that stood in line is on its way.
    Accepted { to: R },
    /// A call ends without an answer.
    Failed { to: R, error: CallError },
}
