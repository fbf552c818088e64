//! The preface over any byte stream: who writes and reads what, and until when.

use std::io;
use std::time::Duration;

use mobula_core::{NodeUid, limits};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::preface::{self, ACCEPT_BYTES, Acceptor, DIAL_BYTES, Dial, PrefaceError, Purpose, Secret, Versions};
use crate::session::Lane;

/// A handshake failed; drivers add whose it was.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Io(io::Error),
    Preface(PrefaceError),
    Deadline { after: Duration },
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        HandshakeError::Io(error)
    }
}

impl From<PrefaceError> for HandshakeError {
    fn from(error: PrefaceError) -> Self {
        HandshakeError::Preface(error)
    }
}

/// A connection whose two ends have proven themselves, and the version of the protocol that both speak on it.
#[derive(Debug)]
pub struct Agreed<S> {
    /// The connection, at its first frame.
    pub stream: S,
    /// Of [`preface::VERSIONS`].
    pub version: u16,
    /// The session that begins with the connection, as [`Dial::session`] names it.
    pub session: u64,
}

/// Whether it says that the peer went away.
pub(crate) fn is_departure(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// What a dialer says, with a nonce that was never used.
pub(crate) fn fresh(dialer: NodeUid, target: NodeUid, lane: Lane, versions: Versions) -> io::Result<Dial> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    Ok(Dial { dialer, target, lane, versions, purpose: Purpose::Open, nonce })
}

/// Proves ourselves to the acceptor at the other end, and checks its answer. Returns the version to speak.
pub(crate) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    secret: &Secret,
    dial: &Dial,
) -> Result<u16, HandshakeError> {
    let sent = dial.encode(secret);
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut answer = [0; ACCEPT_BYTES];
    match stream.read_exact(&mut answer).await {
        // The acceptor closes without a byte when it does not trust us.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PrefaceError::Unauthorized.into()),
        read => read?,
    };
    Ok(preface::check_answer(secret, dial, &sent, &answer)?)
}

/// Reads a dialer's preface and answers it, unless a stranger sent it, or one whose claim `check` refuses: they get no
/// byte. With the dialer comes the version to speak.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    acceptor: &Mutex<Acceptor>,
    check: impl FnOnce(&Dial) -> Result<(), PrefaceError>,
) -> Result<(Dial, u16), HandshakeError> {
    let mut bytes = [0; DIAL_BYTES];
    // What cannot become a preface is not waited for: garbage is cut off at its first bytes.
    stream.read_exact(&mut bytes[..8]).await?;
    if !preface::is_magic(&bytes) {
        return Err(PrefaceError::NotMobula.into());
    }
    stream.read_exact(&mut bytes[8..]).await?;
    let (verdict, answer) = {
        let mut acceptor = acceptor.lock();
        let (verdict, answer) = acceptor.check(&bytes);
        (verdict.map(|dial| (dial, acceptor.agreed(&dial))), answer)
    };
    if let Ok((dial, _)) = &verdict {
        check(dial)?;
    }
    if let Some(answer) = answer {
        stream.write_all(&answer).await?;
        stream.flush().await?;
    }
    Ok(verdict?)
}

/// Gives a handshake as long as it may take, from the connecting on.
pub(crate) async fn in_time<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let after = limits::HANDSHAKE_DEADLINE;
    tokio::time::timeout(after, handshake).await.unwrap_or(Err(HandshakeError::Deadline { after }))
}
