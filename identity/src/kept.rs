//! What a member keeps of its own credential: a private file, from which a node comes back and a person's commands and programs ask the cluster.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use mobula_core::cluster::UnixTime;
use mobula_core::{NodeUid, codec, limits};
use mobula_transport::tls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use mobula_transport::tls::{Credentials, key_hash};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::authority::{ClusterId, hash_of};
use crate::error::IdentityError;
use crate::join::Joined;
use crate::private_file;
use crate::role::Role;
use crate::time::renew_after;

/// A credential that outlives its process.
pub struct Kept {
    /// What was given.
    pub joined: Joined,
    /// Where the heads of its cluster are, as `HOST:PORT`, the one to ask first in front.
    pub heads: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    uid: NodeUid,
    role: Role,
    heads: Vec<String>,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    certificate: Vec<u8>,
    #[serde(with = "serde_bytes")]
    authority: Vec<u8>,
    from: UnixTime,
    until: UnixTime,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Kept {
    /// What is kept in the file `path`; none if there is no such file. Its owner, mode and kind are checked, and that key and certificate are of
    /// one another; whether the certificate is over is not: see [`is_over`](Self::is_over).
    ///
    /// # Errors
    /// [`IdentityError::File`] with what is to be mended, [`IdentityError::Corrupt`], [`IdentityError::Io`]. The file is left as it is.
    pub fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = private_file::read(path)? else { return Ok(None) };
        Kept::load(&bytes).map(Some).map_err(|reason| IdentityError::Corrupt { path: path.to_owned(), reason })
    }

    /// Keeps it in the file `path`, of mode 0600, in one step: whoever reads sees the old one or this one. Several processes may do so at a time;
    /// the last one stays. The directory, which has to be this user's alone, gets a file `<path>.lock` as well. May block.
    ///
    /// # Errors
    /// [`IdentityError`]; the old file is there then.
    pub fn write(&self, path: &Path) -> Result<(), IdentityError> {
        self.write_locked(&KeptLock::take(path)?)
    }

    /// As [`write`](Self::write), for one who has the [`KeptLock`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_locked(&self, lock: &KeptLock) -> Result<(), IdentityError> {
        self.replace(&lock.path)
    }

    /// The cluster that it is of.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if its authority is no certificate.
    pub fn cluster(&self) -> Result<ClusterId, IdentityError> {
        let hash = key_hash(&self.joined.credentials.authority);
        hash.map(ClusterId).ok_or(IdentityError::Certificate { reason: "the authority has none".to_owned() })
    }

    /// True when another certificate is to be asked for: two thirds of its life are over.
    pub fn is_due(&self, now: UnixTime) -> bool {
        let given = self.joined.from.after(limits::CLOCK_SKEW_MAX);
        now >= given.after(renew_after(given, self.joined.until))
    }

    /// True when no head lets it in any more, nor renews it: a token is needed.
    pub fn is_over(&self, now: UnixTime) -> bool {
        now >= self.joined.until
    }

    fn replace(&self, path: &Path) -> Result<(), IdentityError> {
        let Joined { uid, role, credentials, from, until } = &self.joined;
        let certificate = credentials.chain.first().map(|own| own.to_vec()).unwrap_or_default();
        let stored = Stored {
            version: 1,
            uid: *uid,
            role: *role,
            heads: self.heads.clone(),
            key: credentials.key.secret_der().to_vec(),
            certificate,
            authority: credentials.authority.to_vec(),
            from: *from,
            until: *until,
        };
        let bytes = codec::encode(&stored).map_err(|error| IdentityError::Certificate { reason: error.to_string() })?;
        private_file::replace(path, &Zeroizing::new(bytes))
    }

    fn load(bytes: &[u8]) -> Result<Self, String> {
        let mut stored: Stored = codec::decode(bytes).map_err(|error| error.to_string())?;
        if stored.version != 1 {
            return Err(format!("it has version {}, this program reads version 1: use a newer one", stored.version));
        }
        let key = Zeroizing::new(KeyPair::try_from(&stored.key[..]).map_err(|error| error.to_string())?);
        let certificate = CertificateDer::from(std::mem::take(&mut stored.certificate));
        if key_hash(&certificate) != Some(hash_of(&key).map_err(|error| error.to_string())?) {
            return Err("its key and its certificate are not of one another".to_owned());
        }
        let authority = CertificateDer::from(std::mem::take(&mut stored.authority));
        if key_hash(&authority).is_none() {
            return Err("its authority is no certificate".to_owned());
        }
        let credentials = Credentials {
            chain: vec![certificate, authority.clone()],
            key: PrivatePkcs8KeyDer::from(std::mem::take(&mut stored.key)).into(),
            authority,
        };
        let Stored { uid, role, from, until, .. } = stored;
        let heads = std::mem::take(&mut stored.heads);
        Ok(Kept { joined: Joined { uid, role, credentials, from, until }, heads })
    }
}

/// The right to replace what is kept in a file, until it is dropped; among processes, too.
pub struct KeptLock {
    path: PathBuf,
    _file: File,
}

impl KeptLock {
    /// Takes the lock of the file `path`, and waits for it: whoever has it writes a file, or asks a head meanwhile. Blocks.
    ///
    /// # Errors
    /// [`IdentityError`] if the lock's file cannot be used.
    pub fn take(path: &Path) -> Result<Self, IdentityError> {
        let file = open_lock(path)?;
        file.lock().map_err(|error| failed(path, error))?;
        Ok(KeptLock { path: path.to_owned(), _file: file })
    }

    /// Takes the lock of the file `path`; none if another process has it, which is about to replace the file. Does not wait.
    ///
    /// # Errors
    /// [`IdentityError`] if the lock's file cannot be used.
    pub fn try_take(path: &Path) -> Result<Option<Self>, IdentityError> {
        let file = open_lock(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(KeptLock { path: path.to_owned(), _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(path, error)),
        }
    }
}

/// The lock is a file of its own: the other one is replaced. It is never removed, or two could have it.
fn open_lock(path: &Path) -> Result<File, IdentityError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    private_file::append(Path::new(&lock))
}

fn failed(path: &Path, error: io::Error) -> IdentityError {
    IdentityError::Io { what: "cannot lock", path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::Duration;

    use super::*;
    use crate::authority::{Authority, credentials};
    use crate::private_file::FileFault;
    use crate::process::KeyRequest;

    const NOW: UnixTime = UnixTime(1_700_000_000);

    fn kept(uid: u64) -> Kept {
        let authority = Authority::make(NOW).expect("made");
        let KeyRequest { key, .. } = KeyRequest::new().expect("random numbers");
        let issued = authority.issue(&*key, NodeUid(uid), Role::Client, NOW).expect("issued");
        let credentials = credentials(issued.certificate, &key, authority.certificate().clone());
        let joined = Joined { uid: issued.uid, role: issued.role, credentials, from: issued.from, until: issued.until };
        Kept { joined, heads: vec!["head.example:6379".to_owned(), format!("10.0.0.1:{uid}")] }
    }

    fn reason(path: &Path) -> String {
        match Kept::read(path) {
            Err(error @ IdentityError::Corrupt { .. }) => error.to_string(),
            other => panic!("corrupt: {:?}", other.map(|kept| kept.is_some())),
        }
    }

    #[test]
    fn a_credential_is_kept_whole_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credential");
        assert!(Kept::read(&path).expect("none is no error").is_none());
        let one = kept(7);
        one.write(&path).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        let read = Kept::read(&path).expect("safe").expect("there");
        assert_eq!((read.joined.uid, read.joined.role, &read.heads), (NodeUid(7), Role::Client, &one.heads));
        assert_eq!((read.joined.from, read.joined.until), (one.joined.from, one.joined.until));
        assert_eq!(read.joined.credentials.chain, one.joined.credentials.chain);
        assert_eq!(read.joined.credentials.key.secret_der(), one.joined.credentials.key.secret_der());
        assert_eq!(read.cluster().expect("a certificate"), one.cluster().expect("a certificate"));
        kept(8).write(&path).expect("replaced");
        assert_eq!(Kept::read(&path).expect("safe").expect("there").joined.uid, NodeUid(8));

        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
        let fault = FileFault::Mode { mode: 0o640 };
        assert!(matches!(Kept::read(&path), Err(IdentityError::File { fault: found, .. }) if found == fault));
    }

    #[test]
    fn what_is_no_credential_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credential");
        let (one, two) = (kept(1), kept(2));
        let stored = |version, key: &Kept, certificate: &Kept, authority: &[u8]| {
            codec::encode(&Stored {
                version,
                uid: NodeUid(1),
                role: Role::Client,
                heads: Vec::new(),
                key: key.joined.credentials.key.secret_der().to_vec(),
                certificate: certificate.joined.credentials.chain[0].to_vec(),
                authority: authority.to_vec(),
                from: NOW,
                until: NOW,
            })
            .expect("plain data")
        };
        let authority = &one.joined.credentials.authority;
        for (bytes, said) in [
            (Vec::new(), ""),
            (b"garbage".to_vec(), ""),
            (stored(2, &one, &one, authority), "version 2"),
            (stored(1, &one, &two, authority), "not of one another"),
            (stored(1, &one, &one, b"none"), "no certificate"),
        ] {
            private_file::replace(&path, &bytes).expect("written");
            assert!(reason(&path).contains(said), "{}", reason(&path));
            assert_eq!(fs::read(&path).expect("there"), bytes);
        }
        let whole = stored(1, &one, &one, authority);
        for length in (0..whole.len()).step_by(7) {
            private_file::replace(&path, &whole[..length]).expect("written");
            reason(&path);
        }
    }

    #[test]
    fn many_that_write_at_a_time_leave_a_whole_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credential");
        kept(0).write(&path).expect("written");
        std::thread::scope(|scope| {
            for uid in 1..=8 {
                let path = &path;
                scope.spawn(move || {
                    let own = kept(uid);
                    for _ in 0..20 {
                        own.write(path).expect("written");
                        let read = Kept::read(path).expect("whole").expect("there");
                        assert_eq!(read.heads[1], format!("10.0.0.1:{}", read.joined.uid.0));
                    }
                });
            }
        });
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credential");
        let lock = KeptLock::try_take(&path).expect("usable").expect("free");
        assert!(KeptLock::try_take(&path).expect("usable").is_none());
        kept(1).write_locked(&lock).expect("written");
        drop(lock);
        assert!(KeptLock::try_take(&path).expect("usable").is_some());
    }

    #[test]
    fn it_is_due_at_two_thirds_and_over_at_the_end() {
        let mut kept = kept(1);
        let life = limits::CERTIFICATE_LIFE;
        assert_eq!(kept.joined.until, NOW.after(life));
        let due = NOW.after(life / 3 * 2);
        assert!(!kept.is_due(NOW) && !kept.is_due(due.before(Duration::from_secs(1))) && kept.is_due(due));
        assert!(
            !kept.is_over(due) && !kept.is_over(UnixTime(kept.joined.until.0 - 1)) && kept.is_over(kept.joined.until)
        );
        kept.joined.until = NOW.after(Duration::from_secs(9));
        assert!(!kept.is_due(NOW.after(Duration::from_secs(5))) && kept.is_due(NOW.after(Duration::from_secs(6))));
    }
}
