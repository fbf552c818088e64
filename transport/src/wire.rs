//! What a connection has to offer to a [`Link`](crate::Link).

use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use crate::resume::WayBack;

/// Both halves of an open connection.
pub struct Wire {
    /// The version of the protocol that both ends speak, of [`preface::VERSIONS`](crate::preface::VERSIONS).
    pub version: u16,
    /// Read by the driver, where the connection lives.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// Written from whatever thread has something to send.
    pub write: Box<dyn WireWrite>,
    /// How the session goes on when the connection breaks. Default none: then it ends.
    pub way_back: Option<WayBack>,
}

impl Wire {
    /// A connection whose end is the end of its session.
    pub fn new(version: u16, read: impl AsyncRead + Send + Unpin + 'static, write: impl WireWrite) -> Self {
        Wire { version, read: Box::new(read), write: Box::new(write), way_back: None }
    }

    /// The same, with a way back for when it breaks. The peer has to have one, too; below version 3 of the protocol there is
    /// none.
    pub fn with_way_back(self, way_back: WayBack) -> Self {
        let way_back = (self.version >= 3).then_some(way_back);
        Wire { way_back, ..self }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

/// The writing half: tries at once, from any thread, and never blocks.
pub trait WireWrite: Send + 'static {
    /// Writes what fits now. `WouldBlock` if nothing does. Whoever has offered bytes offers the same again, perhaps with more
    /// behind them, until they are written: a wire that encrypts may have them in hand already.
    ///
    /// # Errors
    /// Whatever ends the connection.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Ready when [`try_write`](Self::try_write) is worth another try. Called by the driver only.
    ///
    /// # Errors
    /// Whatever ends the connection.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
