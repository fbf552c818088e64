//! Finding a peer again over its Unix socket, after a connection has broken.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;

use mobula_core::NodeUid;
use tokio::net::UnixStream;
use tokio::runtime::Handle;

use super::{Directory, UnixError, failed, own_peer, wire};
use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{Dial, Purpose, Secret, VERSIONS};
use crate::resume::{self, Resume, Returned, Road, WayBack};
use crate::session::Lane;

/// The way back of a connection that `dialer` [dialled](super::dial): it dials again, with handshakes on `runtime`.
///
/// # Errors
/// [`UnixError::PathTooLong`].
#[expect(clippy::too_many_arguments, reason = "what dialling takes, the session, and where")]
pub fn redial(
    directory: &Directory,
    name: &str,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> Result<WayBack, UnixError> {
    let path = directory.socket(name)?;
    Ok(resume::redial(UnixRoad { path, secret: secret.clone(), own: dialer, target, lane }, session, runtime))
}

/// The way back of a connection that `own` [accepted](super::Listener::accept): only its dialer can restore it, but it can be
/// asked whether that still lives, where `socket` knows at which one it listens.
pub fn ask_after(
    socket: impl Fn() -> Option<PathBuf> + Send + 'static,
    secret: &Secret,
    own: NodeUid,
    dialer: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    let secret = secret.clone();
    let road = move || Some(UnixRoad { path: socket()?, secret: secret.clone(), own, target: dialer, lane });
    resume::ask_after(road, session, runtime)
}

/// Hears where a dialer stands that was [accepted](super::Listener::accept) to [resume](Purpose::Resume) a session; for the
/// [link](crate::Link::come_back) that it belongs to.
///
/// # Errors
/// What the connection says, or that it was not in time. Cancel-safe: dropping the future closes the connection.
pub async fn hear_resume(agreed: Agreed<StdStream>) -> Result<Returned, UnixError> {
    let heard = handshake::in_time(async {
        let mut stream = UnixStream::from_std(agreed.stream)?;
        let resume = resume::hear_resume(&mut stream).await?;
        Ok((stream.into_std()?, resume))
    });
    let (stream, resume) = heard.await.map_err(failed("handshake on", "a socket that was accepted".as_ref()))?;
    Ok(returned(stream, agreed.version, resume))
}

fn returned(stream: StdStream, version: u16, resume: Resume) -> Returned {
    Returned { wire: Box::new(move || wire(Agreed { stream, version, session: resume.session })), resume }
}

/// Who is looked for, and by whom.
#[derive(Clone)]
struct UnixRoad {
    path: PathBuf,
    secret: Secret,
    own: NodeUid,
    target: NodeUid,
    lane: Lane,
}

impl Road for UnixRoad {
    type Stream = UnixStream;

    async fn connect(self, purpose: Purpose) -> Result<(UnixStream, u16), HandshakeError> {
        let dial = handshake::fresh(self.own, self.target, self.lane, VERSIONS)?;
        let dial = Dial { purpose, ..dial };
        let mut stream = UnixStream::connect(&self.path).await?;
        own_peer(&stream, &self.path).map_err(io::Error::other)?;
        let version = handshake::dial(&mut stream, &self.secret, &dial).await?;
        Ok((stream, version))
    }

    fn returned(&self, stream: UnixStream, version: u16, resume: Resume) -> io::Result<Returned> {
        Ok(returned(stream.into_std()?, version, resume))
    }

    fn failed(&self, error: HandshakeError) -> String {
        failed("cannot connect to", &self.path)(error).to_string()
    }

    /// The socket goes with its listener, unless that was killed: then nobody takes connections there.
    fn is_deserted(&self, error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
    }
}
