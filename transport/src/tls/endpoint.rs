//! One node's side of TLS: dials, accepts, and cuts off those that were revoked.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use mobula_core::NodeUid;
use parking_lot::Mutex;
use rustls::Connection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor as HelloReader;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::control::ControlStream;
use super::credentials::{Configs, Credentials, names, names_in};
use super::joining::JoinStream;
use super::limited::Limited;
use super::route::route;
use super::wire::{Shared, wire};
use super::{CONTROL_PROTOCOL, JOIN_PROTOCOL, TlsError, failed, node_name};
use crate::handshake::{self, Agreed, HandshakeError};
use crate::preface::{self, Acceptor, Dial, PrefaceError, Purpose, Secret};
use crate::resume::{self, Resume, Returned};
use crate::session::Lane;

/// Connections that the system may hold before they are accepted: as many as Linux allows by default. One more waits for its
/// sender's next attempt, which is a second later.
const BACKLOG: u32 = 4096;

/// A connection of a dialer, past its handshakes.
pub(super) type ClientStream = tokio_rustls::client::TlsStream<Limited>;

/// A node's side of every TLS connection it has.
pub struct Endpoint {
    uid: NodeUid,
    configs: Mutex<Arc<Configs>>,
    leads: bool,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    revoked: HashSet<NodeUid>,
    live: HashMap<NodeUid, Vec<Weak<Shared>>>,
}

impl Endpoint {
    /// The side of the node whose life is `uid`. One that `leads` also answers those who have no
    /// certificate yet, and those who talk of the cluster.
    ///
    /// # Errors
    /// [`TlsError::Credentials`], for one if the certificate is not one for `uid`.
    pub fn new(uid: NodeUid, credentials: &Credentials, leads: bool) -> Result<Self, TlsError> {
        let configs = Mutex::new(Arc::new(Configs::new(credentials, uid)?));
        Ok(Endpoint { uid, configs, leads, peers: Mutex::default() })
    }

    /// Shows a new certificate from now on. Connections that are open stay.
    ///
    /// # Errors
    /// [`TlsError::Credentials`]: the old one stays in use.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let configs = Arc::new(Configs::new(credentials, self.uid)?);
        *self.configs.lock() = configs;
        Ok(())
    }

    /// Cuts every connection with the life `uid` and makes no other. Its pending asks fail as if it had died.
    pub fn revoke(&self, uid: NodeUid) {
        let live = {
            let mut peers = self.peers.lock();
            peers.revoked.insert(uid);
            peers.live.remove(&uid).unwrap_or_default()
        };
        live.iter().filter_map(Weak::upgrade).for_each(|shared| shared.cut());
    }

    /// Connects to the life `target` at `address`, which has to show a certificate for it.
    /// The connection is returned bare, so that it can be moved to the thread that will read it; see [`wire`](super::wire).
    ///
    /// # Errors
    /// [`TlsError`]. Cancel-safe: dropping the future closes the connection.
    pub async fn dial(&self, address: SocketAddr, target: NodeUid, lane: Lane) -> Result<Secured, TlsError> {
        self.dial_after(&[], address, target, lane).await
    }

    /// As [`dial`](Self::dial), where the life `target` is behind a port that another process keeps; see [`route()`].
    ///
    /// # Errors
    /// As for [`dial`](Self::dial).
    pub async fn dial_through(&self, address: SocketAddr, target: NodeUid, lane: Lane) -> Result<Secured, TlsError> {
        self.dial_after(&route(target), address, target, lane).await
    }

    async fn dial_after(
        &self,
        first: &[u8],
        address: SocketAddr,
        target: NodeUid,
        lane: Lane,
    ) -> Result<Secured, TlsError> {
        if self.is_revoked(target) {
            return Err(TlsError::Revoked { address, uid: target });
        }
        let dialled = handshake::in_time(self.connect(first, address, target, lane, Purpose::Open)).await;
        let (stream, version, session) = dialled.map_err(failed("cannot connect to", address))?;
        self.dialled(address, target, stream, version, session)
    }

    /// Connects and proves who we are, for `purpose`. Gives the version to speak, and the session's name if this opens one.
    pub(super) async fn connect(
        &self,
        first: &[u8],
        address: SocketAddr,
        target: NodeUid,
        lane: Lane,
        purpose: Purpose,
    ) -> Result<(ClientStream, u16, u64), HandshakeError> {
        let connector = TlsConnector::from(Arc::clone(&self.configs.lock().node_client));
        let name = ServerName::try_from(node_name(target)).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(first).await?;
        let mut tls = connector.connect(name, Limited::new(stream)).await?;
        let secret =
            Secret::from_bytes(exported(|out, label| tls.get_ref().1.export_keying_material(out, label, None))?);
        let dial = handshake::fresh(self.uid, target, lane, preface::VERSIONS)?;
        let dial = Dial { purpose, ..dial };
        let version = handshake::dial(&mut tls, &secret, &dial).await?;
        Ok((tls, version, dial.session()))
    }

    /// A connection that this side made, to be moved to the thread that will read it.
    pub(super) fn dialled(
        &self,
        address: SocketAddr,
        target: NodeUid,
        stream: ClientStream,
        version: u16,
        session: u64,
    ) -> Result<Secured, TlsError> {
        let (Limited { stream, .. }, connection) = stream.into_inner();
        self.secured(address, target, Agreed { stream, version, session }, Connection::from(connection), None)
    }

    pub(super) fn is_revoked(&self, uid: NodeUid) -> bool {
        self.peers.lock().revoked.contains(&uid)
    }

    /// Reads who connects, and for what. The caller holds a place at the [`Door`](super::Door) meanwhile.
    ///
    /// # Errors
    /// [`TlsError`]: the connection is to be dropped. Without a certificate of the cluster the peer got an alert of TLS and
    /// nothing else. Cancel-safe in the same sense.
    pub async fn accept(&self, stream: TcpStream, address: SocketAddr) -> Result<Accepted, TlsError> {
        let configs = Arc::clone(&self.configs.lock());
        let accepted = handshake::in_time(async {
            stream.set_nodelay(true)?;
            let hello = LazyConfigAcceptor::new(HelloReader::default(), Limited::new(stream)).await?;
            let offers = |protocol: &[u8]| {
                hello.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == protocol))
            };
            if offers(CONTROL_PROTOCOL) {
                let tls = hello.into_stream(Arc::clone(&configs.control_server)).await?;
                return Ok(Proven::Controller(Box::new(tls)));
            }
            if offers(JOIN_PROTOCOL) {
                let tls = hello.into_stream(Arc::clone(&configs.join_server)).await?;
                return Ok(Proven::Joiner(Box::new(tls)));
            }
            let mut tls = hello.into_stream(Arc::clone(&configs.node_server)).await?;
            let connection = tls.get_ref().1;
            let secret =
                Secret::from_bytes(exported(|out, label| connection.export_keying_material(out, label, None))?);
            let certificate = peer_certificate(connection.peer_certificates())?;
            // Known to this connection alone, so there is no nonce to remember.
            let acceptor = Mutex::new(Acceptor::new(secret, self.uid, preface::VERSIONS));
            let check = |dial: &Dial| match names(&certificate, &node_name(dial.dialer)) {
                true => Ok(()),
                false => Err(PrefaceError::SpoofedSource { claimed: dial.dialer }),
            };
            let (dial, version) = handshake::accept(&mut tls, &acceptor, check).await?;
            let resume = match dial.purpose {
                Purpose::Resume => Some(resume::hear_resume(&mut tls).await?),
                _ => None,
            };
            let (Limited { stream, .. }, connection) = tls.into_inner();
            let agreed = Agreed { stream, version, session: dial.session() };
            Ok(Proven::Node(agreed, Box::new(Connection::from(connection)), dial, resume))
        });
        match accepted.await.map_err(failed("handshake with", address))? {
            Proven::Joiner(tls) if self.leads => Ok(Accepted::Joiner(JoinStream::new((*tls).into(), address))),
            Proven::Controller(tls) if self.leads => {
                Ok(Accepted::Controller(ControlStream::new((*tls).into(), address)))
            }
            Proven::Joiner(_) | Proven::Controller(_) => Err(TlsError::NotTheHead { address }),
            Proven::Node(agreed, connection, dial, resume) => {
                Ok(Accepted::Node(self.secured(address, dial.dialer, agreed, *connection, resume)?, dial))
            }
        }
    }

    fn secured(
        &self,
        address: SocketAddr,
        peer: NodeUid,
        Agreed { stream, version, session }: Agreed<TcpStream>,
        connection: Connection,
        resume: Option<Resume>,
    ) -> Result<Secured, TlsError> {
        let io_failed = |error: io::Error| failed("cannot use the connection to", address)(error.into());
        let certificate = peer_certificate(connection.peer_certificates()).map_err(io_failed)?;
        let stream = stream.into_std().map_err(io_failed)?;
        let shared = Arc::new(Shared::new(stream.try_clone().map_err(io_failed)?, connection));
        let mut peers = self.peers.lock();
        // Under the lock: whoever revokes now finds it in the list, or has been before.
        if peers.revoked.contains(&peer) {
            return Err(TlsError::Revoked { address, uid: peer });
        }
        let live = peers.live.entry(peer).or_default();
        live.retain(|shared| shared.strong_count() > 0);
        live.push(Arc::downgrade(&shared));
        drop(peers);
        Ok(Secured { stream, version, session, resume, shared, certificate })
    }
}

enum Proven {
    Node(Agreed<TcpStream>, Box<Connection>, Dial, Option<Resume>),
    Joiner(Box<tokio_rustls::server::TlsStream<Limited>>),
    Controller(Box<tokio_rustls::server::TlsStream<Limited>>),
}

/// Who has come in.
pub enum Accepted {
    /// A node of the cluster, which has proven what it says.
    Node(Secured, Dial),
    /// One who wants a certificate: without one it has proven nothing yet, see [`JoinStream::peer_is`].
    Joiner(JoinStream),
    /// One who talks of the cluster, and has shown a certificate of it.
    Controller(ControlStream),
}

/// A connection past its handshakes, not yet bound to a thread.
pub struct Secured {
    pub(super) stream: std::net::TcpStream,
    pub(super) version: u16,
    session: u64,
    /// Where the dialer stands, if it came to resume.
    resume: Option<Resume>,
    pub(super) shared: Arc<Shared>,
    certificate: CertificateDer<'static>,
}

impl Secured {
    /// The session that begins with the connection, as [`Dial::session`] names it.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The connection for the [link](crate::Link::come_back) that it belongs to, if its dialer came to
    /// [resume](Purpose::Resume) a session.
    ///
    /// # Errors
    /// With the connection handed back: it begins a session of its own.
    pub fn into_returned(self) -> Result<Returned, Secured> {
        match self.resume {
            Some(resume) => Ok(Returned { wire: Box::new(move || wire(self)), resume }),
            None => Err(self),
        }
    }

    /// True if the peer's certificate bears `name`; see [`role_name`](super::role_name).
    pub fn peer_is(&self, name: &str) -> bool {
        names(&self.certificate, name)
    }

    /// The names in the peer's certificate.
    pub fn peer_names(&self) -> Vec<String> {
        names_in(&self.certificate)
    }
}

/// Listens on `address`, any address; port 0 lets the system choose. Has to be called on the runtime that will accept.
///
/// # Errors
/// [`TlsError::PortInUse`], or what the system says.
pub fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, TlsError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => TlsError::PortInUse { address },
        _ => TlsError::Io { what: "cannot listen on", address, error },
    };
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)
}

fn exported(
    export: impl FnOnce([u8; 32], &[u8]) -> Result<[u8; 32], rustls::Error>,
) -> Result<[u8; 32], HandshakeError> {
    export([0; 32], b"EXPORTER-mobula-preface/1").map_err(|error| io::Error::other(error).into())
}

fn peer_certificate(chain: Option<&[CertificateDer<'_>]>) -> io::Result<CertificateDer<'static>> {
    // The verifiers let nobody through without one.
    let first = chain.and_then(<[_]>::first).ok_or_else(|| io::Error::other("the peer has shown no certificate"))?;
    Ok(first.clone().into_owned())
}
