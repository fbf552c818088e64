//! Finding a peer again over TLS, after a connection has broken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mobula_core::NodeUid;
use rustls::CertificateError;
use tokio::runtime::Handle;

use super::endpoint::{ClientStream, Endpoint};
use super::route::route;
use super::{TlsError, failed, wire};
use crate::handshake::HandshakeError;
use crate::preface::Purpose;
use crate::resume::{self, Resume, Returned, Road, WayBack};
use crate::session::Lane;

/// The way back of a connection that `endpoint` [dialled](Endpoint::dial): it dials again, with handshakes on `runtime`. It
/// shows the certificate that the endpoint has then, and ends at once when the peer is [revoked](Endpoint::revoke).
pub fn redial(
    endpoint: &Arc<Endpoint>,
    address: SocketAddr,
    target: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    resume::redial(TlsRoad::to(endpoint, address, false, target, lane), session, runtime)
}

/// As [`redial`], of a connection that was dialled [through](Endpoint::dial_through) a port that another process keeps. While
/// that keeps it, nobody can be seen not to listen, so a peer whose process has ended is waited for as one that is silent.
pub fn redial_through(
    endpoint: &Arc<Endpoint>,
    address: SocketAddr,
    target: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    resume::redial(TlsRoad::to(endpoint, address, true, target, lane), session, runtime)
}

/// The way back of a connection that `endpoint` [accepted](Endpoint::accept): only its dialer can restore it, but it can be
/// asked whether that still lives, where `address` knows at which address it listens.
pub fn ask_after(
    endpoint: &Arc<Endpoint>,
    address: impl Fn() -> Option<SocketAddr> + Send + 'static,
    dialer: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    let endpoint = Arc::clone(endpoint);
    let road = move || Some(TlsRoad::to(&endpoint, address()?, false, dialer, lane));
    resume::ask_after(road, session, runtime)
}

/// As [`ask_after`], where the dialer listens behind a port that another process keeps.
pub fn ask_after_through(
    endpoint: &Arc<Endpoint>,
    address: impl Fn() -> Option<SocketAddr> + Send + 'static,
    dialer: NodeUid,
    lane: Lane,
    session: u64,
    runtime: Handle,
) -> WayBack {
    let endpoint = Arc::clone(endpoint);
    let road = move || Some(TlsRoad::to(&endpoint, address()?, true, dialer, lane));
    resume::ask_after(road, session, runtime)
}

/// Who is looked for, and by whom.
#[derive(Clone)]
struct TlsRoad {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    /// Behind a port that another process keeps.
    through: bool,
    target: NodeUid,
    lane: Lane,
}

impl TlsRoad {
    fn to(endpoint: &Arc<Endpoint>, address: SocketAddr, through: bool, target: NodeUid, lane: Lane) -> Self {
        TlsRoad { endpoint: Arc::clone(endpoint), address, through, target, lane }
    }
}

impl Road for TlsRoad {
    type Stream = ClientStream;

    async fn connect(self, purpose: Purpose) -> Result<(ClientStream, u16), HandshakeError> {
        let route = route(self.target);
        let first = if self.through { &route[..] } else { &[] };
        let (stream, version, _) = self.endpoint.connect(first, self.address, self.target, self.lane, purpose).await?;
        Ok((stream, version))
    }

    fn returned(&self, stream: ClientStream, version: u16, resume: Resume) -> io::Result<Returned> {
        let secured = self.endpoint.dialled(self.address, self.target, stream, version, resume.session);
        let secured = secured.map_err(io::Error::other)?;
        Ok(Returned { wire: Box::new(move || wire(secured)), resume })
    }

    fn failed(&self, error: HandshakeError) -> String {
        failed("cannot connect to", self.address)(error).to_string()
    }

    fn is_over(&self) -> Option<String> {
        let revoked = self.endpoint.is_revoked(self.target);
        revoked.then(|| TlsError::Revoked { address: self.address, uid: self.target }.to_string())
    }

    /// Whoever shows a certificate of the cluster for another life listens where the life was that is looked for.
    fn is_deserted(&self, error: &io::Error) -> bool {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let another_life = matches!(
            tls,
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        another_life || error.kind() == io::ErrorKind::ConnectionRefused
    }
}
