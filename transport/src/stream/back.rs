//! Finding a peer again over any byte stream, after a connection has broken; as `tcp::redial` and its like, without their
//! runtime: the search runs where the connection is read.

use std::future::Future;
use std::io;
use std::pin::Pin;

use mobula_core::NodeUid;

use super::{Stream, wire};
use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Dial, PrefaceError, Purpose, Secret};
use crate::resume::{self, Answer, Found, Resume, Returned, Seek, WayBack};
use crate::session::Lane;

/// A stream to the peer, or what the network says. Dropping it gives it up.
pub type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Who looks for whom.
#[derive(Clone, Debug)]
pub struct Parties {
    /// The cluster's.
    pub secret: Secret,
    /// Who looks.
    pub own: NodeUid,
    /// The life that is looked for.
    pub peer: NodeUid,
    /// What the connection is for.
    pub lane: Lane,
}

/// The way back of a connection that was [dialled](super::dial): it dials again, over what `connect` gives.
pub fn redial<S: Stream>(
    connect: impl Fn() -> Connecting<S> + Send + 'static,
    parties: Parties,
    session: u64,
) -> WayBack {
    WayBack { session, dials: true, seek: Box::new(Finder { connect, parties, dials: true }) }
}

/// The way back of a connection that was [accepted](super::accept): only its dialer can restore it, but it can be asked, over
/// what `connect` gives, whether that still lives.
pub fn ask_after<S: Stream>(
    connect: impl Fn() -> Connecting<S> + Send + 'static,
    parties: Parties,
    session: u64,
) -> WayBack {
    WayBack { session, dials: false, seek: Box::new(Finder { connect, parties, dials: false }) }
}

/// Hears where a dialer stands that was [accepted](super::accept) to [resume](Purpose::Resume) a session; for the
/// [link](crate::Link::come_back) that it belongs to.
///
/// # Errors
/// What the stream says, or that it was not in time. Cancel-safe: dropping the future closes the connection.
pub async fn hear_resume<S: Stream>(mut agreed: Agreed<S>) -> io::Result<Returned> {
    let heard = handshake::in_time(async { Ok(resume::hear_resume(&mut agreed.stream).await?) });
    let resume = heard.await.map_err(super::failed)?;
    Ok(returned(agreed.stream, agreed.version, resume))
}

fn returned<S: Stream>(stream: S, version: u16, resume: Resume) -> Returned {
    Returned { wire: Box::new(move || Ok(wire(Agreed { stream, version, session: resume.session }))), resume }
}

struct Finder<C> {
    connect: C,
    parties: Parties,
    dials: bool,
}

impl<S: Stream, C: Fn() -> Connecting<S> + Send + 'static> Seek for Finder<C> {
    fn look(&mut self, resume: Resume) -> Pin<Box<dyn Future<Output = Found> + Send>> {
        let (connecting, parties, dials) = ((self.connect)(), self.parties.clone(), self.dials);
        Box::pin(async move {
            let purpose = if dials { Purpose::Resume } else { Purpose::Probe };
            let dialled = handshake::in_time(async {
                let Parties { secret, own, peer, lane } = parties;
                let mut stream = connecting.await?;
                let dial = Dial { purpose, ..handshake::fresh(own, peer, lane, preface::VERSIONS)? };
                let version = handshake::dial(&mut stream, &secret, &dial).await?;
                if !dials {
                    return Ok(None);
                }
                Ok(Some((resume::ask_to_resume(&mut stream, resume).await?, stream, version)))
            });
            match dialled.await {
                Ok(None) => Found::NotYet { reason: "it lives, and has not come back".to_owned() },
                Ok(Some((Answer::Resumed(theirs), stream, version))) => Found::Back(returned(stream, version, theirs)),
                Ok(Some((Answer::Refused(reason), ..))) => Found::Refused { reason },
                Err(error) => not_found(error),
            }
        })
    }
}

/// Nobody listens there any more, or another life does: the one that was looked for has ended. All else may pass.
fn not_found(error: HandshakeError) -> Found {
    let dead = match &error {
        HandshakeError::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        HandshakeError::Preface(error) => matches!(error, PrefaceError::StaleIncarnation { .. }),
        HandshakeError::Deadline { .. } => false,
    };
    let reason = super::failed(error).to_string();
    if dead { Found::Dead { reason } } else { Found::NotYet { reason } }
}
