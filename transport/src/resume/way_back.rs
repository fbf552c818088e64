//! How a link finds its peer again; filled in by whoever made its connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;

use bytes::BytesMut;
use mobula_core::codec;
use mobula_core::frame::{self, Head};
use mobula_core::limits;

use crate::wire::Wire;

/// What a dialer says when it comes back, and what it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resume {
    /// The session: the first 8 bytes of the nonce with which its first connection was [dialled](crate::preface::Dial).
    pub session: u64,
    /// Bytes of the other's stream that have arrived here.
    pub received: u64,
    /// Counts the dialer's attempts within the session, from 1. An attempt that was overtaken by a later one is refused.
    pub attempt: u32,
}

/// The way back of a connection that breaks. Without one, the end of the connection is the end of the session.
pub struct WayBack {
    /// The session that is to be resumed.
    pub session: u64,
    /// This side looks for the peer, and not the peer for this side: it dialled the first connection.
    pub dials: bool,
    /// Looks for the peer.
    pub seek: Box<dyn Seek>,
}

impl std::fmt::Debug for WayBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WayBack").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Looks for a peer whose connection has broken. The dialer dials again; the side that accepted can only ask whether the
/// dialer's process still lives.
pub trait Seek: Send + 'static {
    /// One attempt, which ends within a bounded time. Dropping the future gives it up.
    fn look(&mut self, resume: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>>;

    /// False if nothing can be found out: then the peer is waited for, but not for long.
    fn can_look(&self) -> bool {
        true
    }
}

/// What came of looking for a peer.
#[derive(Debug)]
pub enum Found {
    /// The connection is restored.
    Back(Returned),
    /// The peer's process has ended: nobody listens there, or another life does.
    Dead {
        /// How that was seen.
        reason: String,
    },
    /// The peer lives and does not know the session any more: what was under way is in doubt for ever.
    Refused {
        /// What it said.
        reason: String,
    },
    /// Nothing is known, or the peer lives and was only asked for that.
    NotYet {
        /// What happened.
        reason: String,
    },
}

/// A connection that takes the place of one that broke.
pub struct Returned {
    /// Makes the wire on the thread that will read it.
    pub wire: Box<dyn FnOnce() -> io::Result<Wire> + Send>,
    /// What the peer said: how much of our stream it has.
    pub resume: Resume,
}

impl Returned {
    /// Tells the peer that its session cannot go on. Has to be awaited where the [wire](Self::wire) can be made. If the wire
    /// breaks first, the peer asks again.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, perhaps before the peer was told.
    pub async fn refuse(self, reason: &str) {
        let mut goodbye = BytesMut::new();
        // A text is small, and writing it cannot fail.
        let _ = frame::write(&mut goodbye, Head::Goodbye, |out| codec::encode_into(reason, out));
        let Ok(mut wire) = (self.wire)() else { return };
        let told = async {
            while let Err(error) = wire.write.try_write(&goodbye) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    return;
                }
                if poll_fn(|cx| wire.write.poll_writable(cx)).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limits::HANDSHAKE_DEADLINE, told).await;
    }
}

impl std::fmt::Debug for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Returned").field("resume", &self.resume).finish_non_exhaustive()
    }
}
