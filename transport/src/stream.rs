//! Any byte stream as a connection, a simulated network's for example: the handshake of TCP and the wire to match.
//! Whether the stream may be trusted to keep its bytes private is the caller's affair.

mod back;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mobula_core::NodeUid;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Acceptor, Dial, Purpose, Secret};
use crate::session::Lane;
use crate::wire::{Wire, WireWrite};

pub use back::{Connecting, Parties, ask_after, hear_resume, redial};

/// A stream that can be written to without waiting.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Writes what fits now. `WouldBlock` if nothing does.
    ///
    /// # Errors
    /// Whatever ends the connection.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ready when [`try_write`](Self::try_write) is worth another try.
    ///
    /// # Errors
    /// Whatever ends the connection.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Proves over `stream` that we are `dialer`, to the life `target` at its other end. The `nonce` may never have been used before;
/// it names the session.
///
/// # Errors
/// What the stream says, or which rule of the handshake was broken. Takes no longer than
/// [`HANDSHAKE_DEADLINE`](mobula_core::limits::HANDSHAKE_DEADLINE).
pub async fn dial<S: Stream>(
    mut stream: S,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
    nonce: [u8; 32],
) -> io::Result<Agreed<S>> {
    let dial = Dial { dialer, target, lane, versions: preface::VERSIONS, purpose: Purpose::Open, nonce };
    let version = handshake::in_time(handshake::dial(&mut stream, secret, &dial)).await.map_err(failed)?;
    Ok(Agreed { stream, version, session: dial.session() })
}

/// Reads and answers a dialer's preface.
///
/// # Errors
/// As [`dial`]: the connection is to be dropped. Strangers got no byte.
pub async fn accept<S: Stream>(mut stream: S, acceptor: &Mutex<Acceptor>) -> io::Result<(Agreed<S>, Dial)> {
    let accepted = handshake::in_time(handshake::accept(&mut stream, acceptor, |_| Ok(())));
    let (dial, version) = accepted.await.map_err(failed)?;
    Ok((Agreed { stream, version, session: dial.session() }, dial))
}

fn failed(error: HandshakeError) -> io::Error {
    match error {
        HandshakeError::Io(error) => error,
        HandshakeError::Preface(error) => io::Error::other(error),
        HandshakeError::Deadline { after } => {
            io::Error::new(io::ErrorKind::TimedOut, format!("HandshakeDeadline: no proof within {} s", after.as_secs()))
        }
    }
}

/// The stream as a wire. Reading and writing share it, each for as long as a call takes.
pub fn wire(agreed: Agreed<impl Stream>) -> Wire {
    let stream = Arc::new(Mutex::new(agreed.stream));
    Wire::new(agreed.version, Read(Arc::clone(&stream)), Write(stream))
}

struct Read<S>(Arc<Mutex<S>>);

impl<S: Stream> AsyncRead for Read<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, out)
    }
}

struct Write<S>(Arc<Mutex<S>>);

impl<S: Stream> WireWrite for Write<S> {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().try_write(bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_writable(cx)
    }
}
