//! Certificates for tests, right ones and wrong ones.

use std::sync::OnceLock;
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_transport::tls::{Credentials, node_name, pki_types};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A cluster's authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) const NAME: &str = "the authority of the tests";

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// One for all tests of a program: making keys takes time.
    pub(crate) fn of_the_tests() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| Authority::named(Authority::NAME))
    }

    pub(crate) fn node(&self, uid: NodeUid) -> Credentials {
        self.sign(uid, |_| {})
    }

    /// Credentials for `uid` with something different about them.
    pub(crate) fn sign(&self, uid: NodeUid, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(uid, change).signed_by(&key, &self.0).expect("signed");
        self.credentials(certificate.der().clone(), &key)
    }

    /// Signed by nobody but itself, and trusting this authority.
    pub(crate) fn self_signed(&self, uid: NodeUid) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(uid, |_| {}).self_signed(&key).expect("signed");
        self.credentials(certificate.der().clone(), &key)
    }

    fn credentials(&self, own: pki_types::CertificateDer<'static>, key: &KeyPair) -> Credentials {
        let authority = self.0.der().clone();
        Credentials {
            chain: vec![own, authority.clone()],
            key: pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            authority,
        }
    }
}

fn params(uid: NodeUid, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(vec![node_name(uid)]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

/// A certificate that was valid until an hour ago.
pub(crate) fn expired(params: &mut CertificateParams) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(7200)).into();
    params.not_after = (now - Duration::from_secs(3600)).into();
}
