//! Finding a peer again over TCP, after a connection has broken.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use mobula_core::NodeUid;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{ConnectError, failed, loopback_only, wire};
use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Dial, PrefaceError, Purpose, Secret};
use crate::resume::{self, Answer, Found, Resume, Returned, Seek, WayBack};
use crate::session::Lane;

/// The way back of a connection that `dialer` [dialled](super::dial): it dials again, with handshakes on `runtime`.
pub fn redial(
    address: SocketAddr,
    secret: &Secret,
    dialer: NodeUid,
    target: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    let peer = Peer { secret: secret.clone(), own: dialer, target, lane };
    WayBack { session, dials: true, seek: Box::new(Redial { peer, address, runtime }) }
}

/// The way back of a connection that `own` [accepted](super::accept): only its dialer can restore it, but it can be asked
/// whether that still lives, where `address` knows at which address it listens.
pub fn ask_after(
    address: impl Fn() -> Option<SocketAddr> + Send + 'static,
    secret: &Secret,
    own: NodeUid,
    dialer: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    let peer = Peer { secret: secret.clone(), own, target: dialer, lane };
    WayBack { session, dials: false, seek: Box::new(AskAfter { peer, address: Box::new(address), runtime }) }
}

/// Hears where a dialer stands that was [accepted](super::accept) to [resume](Purpose::Resume) a session; for the
/// [link](crate::Link::come_back) that it belongs to.
///
/// # Errors
/// What the connection says, or that it was not in time. Cancel-safe: dropping the future closes the connection.
pub async fn hear_resume(agreed: Agreed<std::net::TcpStream>, address: SocketAddr) -> Result<Returned, ConnectError> {
    let heard = handshake::in_time(async {
        let mut stream = TcpStream::from_std(agreed.stream)?;
        let resume = resume::hear_resume(&mut stream).await?;
        Ok((stream.into_std()?, resume))
    });
    let (stream, resume) = heard.await.map_err(failed("handshake with", address))?;
    Ok(returned(stream, agreed.version, resume))
}

fn returned(stream: std::net::TcpStream, version: u16, resume: Resume) -> Returned {
    Returned { wire: Box::new(move || wire(Agreed { stream, version, session: resume.session })), resume }
}

/// Who is looked for, and by whom.
#[derive(Clone)]
struct Peer {
    secret: Secret,
    own: NodeUid,
    target: NodeUid,
    lane: Lane,
}

struct Redial {
    peer: Peer,
    address: SocketAddr,
    runtime: Handle,
}

impl Seek for Redial {
    fn look(&mut self, resume: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        let (peer, address) = (self.peer.clone(), self.address);
        on(&self.runtime, async move {
            let dialled = handshake::in_time(async {
                let (mut stream, version) = peer.dial(address, Purpose::Resume).await?;
                Ok((resume::ask_to_resume(&mut stream, resume).await?, stream.into_std()?, version))
            });
            match dialled.await {
                Ok((Answer::Resumed(theirs), stream, version)) => Found::Back(returned(stream, version, theirs)),
                Ok((Answer::Refused(reason), ..)) => Found::Refused { reason },
                Err(error) => not_found(address, error),
            }
        })
    }
}

struct AskAfter {
    peer: Peer,
    address: Box<dyn Fn() -> Option<SocketAddr> + Send>,
    runtime: Handle,
}

impl Seek for AskAfter {
    fn look(&mut self, _: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        let Some(address) = (self.address)() else {
            let reason = "its address is not known".to_owned();
            return Box::pin(std::future::ready(Found::NotYet { reason }));
        };
        let peer = self.peer.clone();
        on(&self.runtime, async move {
            match handshake::in_time(peer.dial(address, Purpose::Probe)).await {
                Ok(_) => Found::NotYet { reason: "it lives, and has not come back".to_owned() },
                Err(error) => not_found(address, error),
            }
        })
    }

    fn can_look(&self) -> bool {
        (self.address)().is_some()
    }
}

impl Peer {
    async fn dial(&self, address: SocketAddr, purpose: Purpose) -> Result<(TcpStream, u16), HandshakeError> {
        loopback_only(address).map_err(io::Error::other)?;
        let dial = handshake::fresh(self.own, self.target, self.lane, preface::VERSIONS)?;
        let dial = Dial { purpose, ..dial };
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let version = handshake::dial(&mut stream, &self.secret, &dial).await?;
        Ok((stream, version))
    }
}

/// Nobody listens there any more, or another life does: the one that was looked for has ended. All else may pass.
fn not_found(address: SocketAddr, error: HandshakeError) -> Found {
    let dead = match &error {
        HandshakeError::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        HandshakeError::Preface(error) => matches!(error, PrefaceError::StaleIncarnation { .. }),
        HandshakeError::Deadline { .. } => false,
    };
    let reason = failed("cannot connect to", address)(error).to_string();
    if dead { Found::Dead { reason } } else { Found::NotYet { reason } }
}

/// Runs `work` on `runtime`, for as long as somebody waits for it.
fn on(
    runtime: &Handle,
    work: impl Future<Output = Found> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Found> + Send>> {
    let mut task = Abort(runtime.spawn(work));
    Box::pin(async move {
        let reason = || "the runtime that looked for it has ended".to_owned();
        (&mut task.0).await.unwrap_or_else(|_| Found::NotYet { reason: reason() })
    })
}

struct Abort(JoinHandle<Found>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
