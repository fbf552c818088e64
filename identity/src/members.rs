//! Where a head keeps its tokens and revocations: a file beside its authority, or where several heads find it.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::error::IdentityError;
use crate::private_file;

/// Keeps one text of bytes for a head. It has no secret in it: of tokens it has the public keys.
pub trait Members: Send + Sync {
    /// What was kept last; none if nothing was. May block.
    ///
    /// # Errors
    /// [`IdentityError`].
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError>;

    /// Keeps this instead, altogether or not at all. It is kept when this returns. May block.
    ///
    /// # Errors
    /// [`IdentityError`]: it may have been kept.
    fn replace(&self, bytes: &[u8]) -> Result<(), IdentityError>;

    /// For those who read what is wrong with it.
    fn place(&self) -> PathBuf;
}

/// A file in the head's directory.
pub(crate) struct MembersFile(pub(crate) PathBuf);

impl Members for MembersFile {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
        private_file::read(&self.0)
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), IdentityError> {
        private_file::replace(&self.0, bytes)
    }

    fn place(&self) -> PathBuf {
        self.0.clone()
    }
}
