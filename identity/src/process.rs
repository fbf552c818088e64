//! Certificates for the processes of jobs: who they are is known before they begin, so they need no token.

use std::io;

use mobula_core::cluster::UnixTime;
use mobula_transport::tls::Credentials;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::authority::credentials;

const JOB_SUFFIX: &str = ".job.mobula";

/// The name in the certificates of the processes of a job: `job-7.job.mobula`.
pub fn job_name(job: &str) -> String {
    format!("{job}{JOB_SUFFIX}")
}

/// True for the [name](job_name) of a job, whichever.
pub fn is_job_name(name: &str) -> bool {
    name.strip_suffix(JOB_SUFFIX).is_some_and(|job| !job.is_empty())
}

/// A new key, and the request for its certificate.
pub struct KeyRequest {
    pub(crate) key: Zeroizing<KeyPair>,
    pub(crate) csr: Vec<u8>,
}

/// A certificate that was given for a request, and that of the authority.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// DER.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// DER.
    #[serde(with = "serde_bytes")]
    pub authority: Vec<u8>,
    /// The end of its life; see [`renew_after`](crate::renew_after).
    pub until: UnixTime,
}

impl KeyRequest {
    /// Makes a key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new() -> io::Result<Self> {
        KeyRequest::of(Zeroizing::new(KeyPair::generate().map_err(io::Error::other)?))
    }

    /// For a key that is there.
    pub(crate) fn of(key: Zeroizing<KeyPair>) -> io::Result<Self> {
        let csr = CertificateParams::default().serialize_request(&*key).map_err(io::Error::other)?;
        let csr = csr.der().to_vec();
        Ok(KeyRequest { key, csr })
    }

    /// PKCS#10, for its key alone: the names in it are not looked at.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The key with what was given for it. Whether they fit is seen when they are used.
    pub fn complete(self, certified: Certified) -> Credentials {
        credentials(certified.certificate.into(), &self.key, certified.authority.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_job_is_told_from_other_names() {
        assert!(is_job_name(&job_name("job-7")));
        for other in ["", ".job.mobula", "process.role.mobula", "0000000000000007.node.mobula", "job-7.job.mobula.x"] {
            assert!(!is_job_name(other), "{other}");
        }
    }
}
