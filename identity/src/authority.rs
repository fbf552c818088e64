//! A cluster's authority: one key, made once, on the head alone, and the certificates that it gives.

use std::time::Duration;

use aws_lc_rs::digest;
use mobula_core::{NodeUid, codec, limits};
use mobula_transport::tls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use mobula_transport::tls::{Credentials, key_hash, node_name, role_name};
use mobula_transport::unix::Directory;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::IdentityError;
use crate::private_file;
use crate::role::Role;
use mobula_core::cluster::UnixTime;

const FILE: &str = "authority";
/// 10 years. An authority is replaced by founding the cluster anew.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Names a cluster: the SHA-256 of its authority's key, so nobody else can bear it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ClusterId(pub [u8; 32]);

impl std::fmt::Display for ClusterId {
    /// The first 16 digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The key of a cluster and its certificate. It never leaves the head.
pub struct Authority {
    key: Zeroizing<KeyPair>,
    certificate: CertificateDer<'static>,
    id: ClusterId,
    /// Of the certificates that it gives.
    life: Duration,
}

/// A certificate that was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// The life that it is for.
    pub uid: NodeUid,
    /// What its holder may do.
    pub role: Role,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Valid from.
    pub from: UnixTime,
    /// Valid until.
    pub until: UnixTime,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    certificate: Vec<u8>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Authority {
    /// A new authority, kept nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn make(now: UnixTime) -> Result<Self, IdentityError> {
        let key = Zeroizing::new(KeyPair::generate().map_err(certificate)?);
        let id = ClusterId(hash_of(&key)?);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("mobula cluster {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = now.before(limits::CLOCK_SKEW_MAX).system().into();
        params.not_after = now.after(AUTHORITY_LIFE).system().into();
        let certificate = params.self_signed(&*key).map_err(certificate)?.der().clone();
        Ok(Authority { key, certificate, id, life: limits::CERTIFICATE_LIFE })
    }

    /// The authority in `directory`; made there if there is none.
    ///
    /// # Errors
    /// [`IdentityError`]: a file that is not safe, or not an authority, is left as it is.
    pub fn open(directory: &Directory, now: UnixTime) -> Result<Self, IdentityError> {
        let path = directory.path().join(FILE);
        if let Some(bytes) = private_file::read(&path)? {
            return Authority::load(&bytes).map_err(|reason| IdentityError::Corrupt { path, reason });
        }
        let made = Authority::make(now)?;
        let (key, own) = (made.key.serialize_der(), made.certificate.to_vec());
        let stored = Stored { version: 1, key, certificate: own };
        let bytes = codec::encode(&stored).map_err(|error| IdentityError::Certificate { reason: error.to_string() })?;
        // Whoever makes one at the same moment: the second finds the file of the first, and fails.
        private_file::create(&path, &Zeroizing::new(bytes))?;
        Ok(made)
    }

    fn load(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored = codec::decode(bytes).map_err(|error| error.to_string())?;
        if stored.version != 1 {
            return Err(format!("it has version {}, this program reads version 1: use a newer one", stored.version));
        }
        let key = KeyPair::try_from(&stored.key[..]).map_err(|error| error.to_string())?;
        let key = Zeroizing::new(key);
        let certificate = CertificateDer::from(stored.certificate.clone());
        let id = hash_of(&key).map_err(|error| error.to_string())?;
        if key_hash(&certificate) != Some(id) {
            return Err("its key and its certificate are not of one another".to_owned());
        }
        Ok(Authority { key, certificate, id: ClusterId(id), life: limits::CERTIFICATE_LIFE })
    }

    /// Gives certificates of this life from now on, but of none that is shorter than [`limits::CERTIFICATE_LIFE_MIN`] or longer than
    /// [`limits::CERTIFICATE_LIFE`].
    pub(crate) fn set_certificate_life(&mut self, life: Duration) {
        self.life = life.clamp(limits::CERTIFICATE_LIFE_MIN, limits::CERTIFICATE_LIFE);
    }

    /// Of the certificates that it gives.
    pub(crate) fn certificate_life(&self) -> Duration {
        self.life
    }

    /// The cluster whose authority it is.
    pub fn cluster(&self) -> ClusterId {
        self.id
    }

    /// What members trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Gives a certificate for the life `uid` and one role. Only the key is the holder's choice.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        uid: NodeUid,
        role: Role,
        now: UnixTime,
    ) -> Result<Issued, IdentityError> {
        self.issue_with(key, uid, role, None, now)
    }

    /// As [`issue`](Self::issue), with one more name, of a job or of a line.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub(crate) fn issue_with(
        &self,
        key: &impl PublicKeyData,
        uid: NodeUid,
        role: Role,
        besides: Option<String>,
        now: UnixTime,
    ) -> Result<Issued, IdentityError> {
        let (from, until) = (now.before(limits::CLOCK_SKEW_MAX), now.after(self.life));
        let name = |text: String| Ia5String::try_from(text).map(SanType::DnsName).map_err(certificate);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{role} {uid}"));
        params.subject_alt_names = vec![name(node_name(uid))?, name(role_name(role.name()))?];
        if let Some(besides) = besides {
            params.subject_alt_names.push(name(besides)?);
        }
        params.not_before = from.system().into();
        params.not_after = until.system().into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role.is_node() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key).map_err(certificate)?;
        let signed = params.signed_by(key, &issuer).map_err(certificate)?;
        Ok(Issued { uid, role, certificate: signed.der().clone(), from, until })
    }

    /// Makes a key and a certificate for it: the head's own.
    pub(crate) fn credentials(&self, uid: NodeUid, role: Role, now: UnixTime) -> Result<Credentials, IdentityError> {
        let key = Zeroizing::new(KeyPair::generate().map_err(certificate)?);
        let issued = self.issue(&*key, uid, role, now)?;
        Ok(credentials(issued.certificate, &key, self.certificate.clone()))
    }
}

pub(crate) fn credentials(
    own: CertificateDer<'static>,
    key: &KeyPair,
    authority: CertificateDer<'static>,
) -> Credentials {
    Credentials {
        chain: vec![own, authority.clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        authority,
    }
}

pub(crate) fn hash_of(key: &KeyPair) -> Result<[u8; 32], IdentityError> {
    let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    hash.as_ref().try_into().map_err(|_| IdentityError::Certificate { reason: "no SHA-256".to_owned() })
}

fn certificate(error: rcgen::Error) -> IdentityError {
    IdentityError::Certificate { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("state")).expect("made");
        let made = Authority::open(&directory, NOW).expect("made");
        let found = Authority::open(&directory, NOW).expect("found");
        assert_eq!((made.cluster(), made.certificate()), (found.cluster(), found.certificate()));
        assert_eq!(key_hash(made.certificate()), Some(made.cluster().0));
        let other = Authority::make(NOW).expect("made");
        assert_ne!(other.cluster(), made.cluster());
    }

    #[test]
    fn what_is_not_an_authority_is_left_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("state")).expect("made");
        let path = directory.path().join(FILE);
        let other = |version, own: &Authority, certificate: &Authority| {
            let key = own.key.serialize_der();
            codec::encode(&Stored { version, key, certificate: certificate.certificate.to_vec() }).expect("plain data")
        };
        let (one, two) = (Authority::make(NOW).expect("made"), Authority::make(NOW).expect("made"));
        for (bytes, reason) in [
            (b"garbage".to_vec(), ""),
            (Vec::new(), ""),
            (other(2, &one, &one), "version 2"),
            (other(1, &one, &two), "not of one another"),
        ] {
            private_file::replace(&path, &bytes).expect("written");
            let error = Authority::open(&directory, NOW).err().expect("corrupt");
            assert!(matches!(&error, IdentityError::Corrupt { .. }) && error.to_string().contains(reason), "{error}");
            assert_eq!(std::fs::read(&path).expect("there"), bytes);
        }
    }
}
