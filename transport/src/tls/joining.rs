//! Connections to and from those who have no certificate yet, or whose certificate is about to end.
//!
//! A joiner knows one thing of the cluster: the hash of its authority's key. It connects twice. The first connection only looks which
//! certificates the other side shows, believes nothing, and is given up before a byte is sent. The second trusts
//! the one authority whose key has that hash, by the standard verifier, and wants the head.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::credentials::{Credentials, names, names_in, provider, role_name};
use super::limited::Limited;
use super::{JOIN_PROTOCOL, TlsError, failed};
use crate::handshake::{self, HandshakeError};

/// A connection for joining, of either side. It may be read up to [`limits::HANDSHAKE_BYTES_MAX`](mobula_core::limits::HANDSHAKE_BYTES_MAX); for
/// how long is its owner's to decide.
pub struct JoinStream {
    tls: Box<TlsStream<Limited>>,
    address: SocketAddr,
}

impl JoinStream {
    pub(super) fn new(tls: TlsStream<Limited>, address: SocketAddr) -> Self {
        JoinStream { tls: Box::new(tls), address }
    }

    /// The other side.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True if the other side has shown a certificate of the cluster that bears `name`.
    pub fn peer_is(&self, name: &str) -> bool {
        let chain = self.tls.get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).is_some_and(|certificate| names(certificate, name))
    }

    /// The names in the certificate of the cluster that the other side has shown; none without one.
    pub fn peer_names(&self) -> Vec<String> {
        let chain = self.tls.get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).map_or_else(Vec::new, names_in)
    }

    /// Bytes for `label` that only the two ends of this connection can know (RFC 5705).
    ///
    /// # Errors
    /// Never on a connection that is open.
    pub fn export(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        let exported = match &*self.tls {
            TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
            TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
        };
        exported.map_err(io::Error::other)
    }
}

/// The SHA-256 of the key that a certificate is about.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    digest::digest(&digest::SHA256, &parsed.subject_public_key_info()).as_ref().try_into().ok()
}

/// Finds the certificate of the authority whose key has the hash `pin` among those that the head at `address` shows.
///
/// # Errors
/// [`TlsError::WrongAuthority`] if it shows none such. Cancel-safe.
pub async fn find_authority(address: SocketAddr, pin: [u8; 32]) -> Result<CertificateDer<'static>, TlsError> {
    let look = Arc::new(Look { pin, found: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Credentials { reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&look) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    // It ends with an error in any case, for `Look` accepts nobody.
    let looked = connect(JOIN_PROTOCOL, address, config).await.err();
    match (look.found.lock().take(), looked) {
        (Some(authority), _) => Ok(authority),
        (None, Some(TlsError::Io { error, .. })) if error.kind() != io::ErrorKind::InvalidData => {
            Err(TlsError::Io { what: "cannot connect to", address, error })
        }
        (None, Some(error @ TlsError::Deadline { .. })) => Err(error),
        _ => Err(TlsError::WrongAuthority { address }),
    }
}

/// Connects to the head at `address`, which has to show a certificate of `authority` as the head. `own` is shown to it.
///
/// # Errors
/// [`TlsError`]. Cancel-safe: dropping the future closes the connection.
pub async fn dial_head(
    address: SocketAddr,
    authority: &CertificateDer<'static>,
    own: Option<&Credentials>,
) -> Result<JoinStream, TlsError> {
    Ok(JoinStream::new(dial_as(JOIN_PROTOCOL, address, authority, own).await?, address))
}

/// Connects to the head for what `protocol` says.
pub(super) async fn dial_as(
    protocol: &[u8],
    address: SocketAddr,
    authority: &CertificateDer<'static>,
    own: Option<&Credentials>,
) -> Result<TlsStream<Limited>, TlsError> {
    let wrong = |error: rustls::Error| TlsError::Credentials { reason: error.to_string() };
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(wrong)?;
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(wrong)?;
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(wrong)?,
        None => builder.with_no_client_auth(),
    };
    connect(protocol, address, config).await
}

async fn connect(
    protocol: &[u8],
    address: SocketAddr,
    mut config: ClientConfig,
) -> Result<TlsStream<Limited>, TlsError> {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![protocol.to_vec()];
    let tls = handshake::in_time(async {
        let name = ServerName::try_from(role_name("head")).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, HandshakeError>(TlsConnector::from(Arc::new(config)).connect(name, Limited::new(stream)).await?)
    });
    Ok(tls.await.map_err(failed("cannot connect to", address))?.into())
}

/// Looks at the certificates and accepts nobody: what it finds is a candidate, which the standard verifier then has to confirm.
#[derive(Debug)]
struct Look {
    pin: [u8; 32],
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = std::iter::once(own).chain(others).find(|certificate| key_hash(certificate) == Some(self.pin));
        *self.found.lock() = pinned.map(|certificate| certificate.clone().into_owned());
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for JoinStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, out)
    }
}

impl AsyncWrite for JoinStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
