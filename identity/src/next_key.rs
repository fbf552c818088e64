//! The key with which a life comes back, kept until its certificate is: an answer that is lost can be asked for again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::error::IdentityError;
use crate::join::Joined;
use crate::private_file;
use crate::process::KeyRequest;

/// A key in a private file, for a certificate that is not there yet. Shows itself in no log, and is overwritten in the end.
pub struct NextKey {
    path: PathBuf,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
}

impl NextKey {
    /// The key in the file `path`, which is checked as every private file; made there if there is none, or if it is the key of `last`: then it has
    /// served. May block.
    ///
    /// # Errors
    /// [`IdentityError`]; a file that is not safe, or holds no key, is left as it is.
    pub fn open(path: &Path, last: &Joined) -> Result<Self, IdentityError> {
        let corrupt = |error: rcgen::Error| IdentityError::Corrupt { path: path.to_owned(), reason: error.to_string() };
        if let Some(key) = private_file::read(path)?
            && key[..] != *last.credentials.key.secret_der()
        {
            Zeroizing::new(KeyPair::try_from(&key[..]).map_err(corrupt)?);
            return Ok(NextKey { path: path.to_owned(), key });
        }
        let made = KeyPair::generate().map_err(|error| IdentityError::Certificate { reason: error.to_string() })?;
        let key = Zeroizing::new(Zeroizing::new(made).serialize_der());
        private_file::replace(path, &key)?;
        Ok(NextKey { path: path.to_owned(), key })
    }

    /// The certificate for it is kept: its file goes. That it cannot be removed is no harm.
    pub fn has_served(self) {
        let _ = fs::remove_file(&self.path);
    }

    pub(crate) fn request(&self) -> io::Result<KeyRequest> {
        KeyRequest::of(Zeroizing::new(KeyPair::try_from(&self.key[..]).map_err(io::Error::other)?))
    }
}
