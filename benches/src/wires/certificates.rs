//! An authority that lives as long as the process, and certificates of it.
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use mobula_core::NodeUid;
use mobula_transport::tls::{Credentials, node_name, pki_types};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<&'static Authority> {
    static AUTHORITY: OnceLock<Option<Authority>> = OnceLock::new();
    let made = AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().ok()?).ok()
    });
    made.as_ref().context("no authority could be made")
}

pub(super) fn credentials(uid: NodeUid) -> Result<Credentials> {
    let (authority, key) = (authority()?, KeyPair::generate()?);
    let mut params = CertificateParams::new(vec![node_name(uid)])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let own = params.signed_by(&key, authority)?.der().clone();
    Ok(Credentials {
        chain: vec![own, authority.der().clone()],
        key: pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        authority: authority.der().clone(),
    })
}
