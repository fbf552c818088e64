//! What a node shows and what it trusts, made into TLS configurations: 1.3 only, no tickets, no early data.

use std::sync::Arc;

use mobula_core::NodeUid;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use zeroize::Zeroize;

use super::{CONTROL_PROTOCOL, JOIN_PROTOCOL, NODE_PROTOCOL, TlsError};

/// A node's certificate, its key, and the authority of its cluster. Shows itself in no log; the key is overwritten in the end.
pub struct Credentials {
    /// The node's certificate, then the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
    /// The one authority that is trusted.
    pub authority: CertificateDer<'static>,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The name in the certificate of the life `uid`: `0123456789abcdef.node.mobula`.
pub fn node_name(uid: NodeUid) -> String {
    format!("{:016x}.node.mobula", uid.0)
}

/// The name in the certificate of one who has this role: `head.role.mobula`.
pub fn role_name(role: &str) -> String {
    format!("{role}.role.mobula")
}

/// The cryptography, named explicitly: what a process has installed as its default is not asked.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The configurations for each kind of connection.
pub(super) struct Configs {
    pub(super) node_server: Arc<ServerConfig>,
    pub(super) node_client: Arc<ClientConfig>,
    /// For those who have no certificate yet.
    pub(super) join_server: Arc<ServerConfig>,
    /// For those who talk of the cluster.
    pub(super) control_server: Arc<ServerConfig>,
}

impl Configs {
    /// Checks that the certificate is one for `uid`.
    pub(super) fn new(credentials: &Credentials, uid: NodeUid) -> Result<Self, TlsError> {
        let wrong = |error: rustls::Error| TlsError::Credentials { reason: error.to_string() };
        let other = |error: String| TlsError::Credentials { reason: error };
        let Some(own) = credentials.chain.first() else {
            return Err(other("there is no certificate".to_owned()));
        };
        if !names(own, &node_name(uid)) {
            return Err(other(format!("the certificate is not one for {}", node_name(uid))));
        }
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority.clone()).map_err(wrong)?;
        let (roots, provider) = (Arc::new(roots), provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| other(error.to_string()))?;
        // Who renews a certificate shows the old one; who joins has none.
        let joiners = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| other(error.to_string()))?;
        let server = |clients: Arc<dyn ClientCertVerifier>, protocol: &[u8]| {
            let builder =
                ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13])?;
            let builder = builder.with_client_cert_verifier(clients);
            let mut config = builder.with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.max_early_data_size = 0;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(config))
        };
        let node_server = server(Arc::clone(&clients), NODE_PROTOCOL).map_err(wrong)?;
        let control_server = server(clients, CONTROL_PROTOCOL).map_err(wrong)?;
        let join_server = server(joiners, JOIN_PROTOCOL).map_err(wrong)?;

        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| other(error.to_string()))?;
        let mut node_client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong)?
            .with_webpki_verifier(servers)
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
            .map_err(wrong)?;
        node_client.resumption = Resumption::disabled();
        node_client.enable_early_data = false;
        // The name would travel in the clear.
        node_client.enable_sni = false;
        node_client.alpn_protocols = vec![NODE_PROTOCOL.to_vec()];
        Ok(Configs { node_server, node_client: Arc::new(node_client), join_server, control_server })
    }
}

/// True if a certificate that a verifier has let through bears this name.
pub(super) fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name)) else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

/// The names in a certificate that a verifier has let through.
pub(super) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok();
    parsed.map_or_else(Vec::new, |certificate| certificate.valid_dns_names().map(str::to_owned).collect())
}
