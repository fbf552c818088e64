//! Finding a peer again over TCP, after a connection has broken.

use std::io;
use std::net::SocketAddr;

use mobula_core::NodeUid;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::{ConnectError, failed, loopback_only, wire};
use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Dial, Purpose, Secret};
use crate::resume::{self, Resume, Returned, Road, WayBack};
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
    resume::redial(TcpRoad { address, secret: secret.clone(), own: dialer, target, lane }, session, runtime)
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
    let secret = secret.clone();
    let road = move || Some(TcpRoad { address: address()?, secret: secret.clone(), own, target: dialer, lane });
    resume::ask_after(road, session, runtime)
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
struct TcpRoad {
    address: SocketAddr,
    secret: Secret,
    own: NodeUid,
    target: NodeUid,
    lane: Lane,
}

impl Road for TcpRoad {
    type Stream = TcpStream;

    async fn connect(self, purpose: Purpose) -> Result<(TcpStream, u16), HandshakeError> {
        loopback_only(self.address).map_err(io::Error::other)?;
        let dial = handshake::fresh(self.own, self.target, self.lane, preface::VERSIONS)?;
        let dial = Dial { purpose, ..dial };
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let version = handshake::dial(&mut stream, &self.secret, &dial).await?;
        Ok((stream, version))
    }

    fn returned(&self, stream: TcpStream, version: u16, resume: Resume) -> io::Result<Returned> {
        Ok(returned(stream.into_std()?, version, resume))
    }

    fn failed(&self, error: HandshakeError) -> String {
        failed("cannot connect to", self.address)(error).to_string()
    }
}
