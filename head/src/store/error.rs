//! What goes wrong with a store.

use std::path::PathBuf;

use mobula_core::Outcome;

use super::LeaseToken;

/// What goes wrong with a store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another head leads. Whoever is told so has to end.
    #[error("term {term} is over: the store is led {}; nothing was written", in_term(*current))]
    Fenced {
        /// The term of the one who asked.
        term: u64,
        /// The newest; 0 while nobody leads.
        current: u64,
    },
    /// An entry is not what it was to be.
    #[error("{key} was last written by revision {found}, not {expected}; nothing was written")]
    Conflict {
        /// Which.
        key: String,
        /// The revision that was expected.
        expected: u64,
        /// The one that it has; 0 if it is not there.
        found: u64,
    },
    /// What happened so long ago is not known any more: read all, and watch from there.
    #[error(
        "changes since revision {from} are not known any more, only those since {oldest}: read all, and watch from there"
    )]
    Compacted {
        /// From where was asked.
        from: u64,
        /// From where can be asked.
        oldest: u64,
    },
    /// The lease is over, or was never given.
    #[error("there is no lease {:x}: it is over; nothing was written", lease.0)]
    NoSuchLease {
        /// Which.
        lease: LeaseToken,
    },
    /// A value is too large.
    #[error("{key} has {bytes} bytes, {limit} are the most; nothing was written")]
    TooLarge {
        /// Which.
        key: String,
        /// How large it is.
        bytes: usize,
        /// [`limits::STORE_VALUE_BYTES_MAX`](mobula_core::limits::STORE_VALUE_BYTES_MAX).
        limit: usize,
    },
    /// A transaction is too large for the store.
    #[error(
        "{writes} writes of {bytes} bytes together are more than the store takes at once: {reason}; nothing was written"
    )]
    TransactionTooLarge {
        /// How many writes it has.
        writes: usize,
        /// Keys and values together.
        bytes: usize,
        /// What the store says of it.
        reason: String,
    },
    /// More is in the store than is read at once.
    #[error("under {prefix:?} are more than {limit} bytes: they are not read; nothing was changed")]
    TooMuch {
        /// What was read.
        prefix: String,
        /// [`limits::STORE_SNAPSHOT_BYTES_MAX`](mobula_core::limits::STORE_SNAPSHOT_BYTES_MAX).
        limit: usize,
    },
    /// Something is in the store that no head has put there.
    #[error("{key} in the store is not what a head writes: {reason}; nothing was changed")]
    Foreign {
        /// Which key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be asked. It may be asked again.
    #[error("the store cannot be asked: {reason}; nothing was written")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The store does not let this program in, or not do this.
    #[error("the store refuses: {reason}; nothing was written")]
    Denied {
        /// Why.
        reason: String,
    },
    /// A newer program has written the file.
    #[error("{} has format {found}, this program reads {known}: start a newer one; the file was not changed", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// The file, or a record in it, is not what was written.
    #[error("{} is corrupt: {reason}; the file was not changed", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Reading or writing failed. A write may have been done. The store is not used again: it is opened anew.
    #[error("the store failed: {reason}; what was to be written may have been")]
    Io {
        /// How.
        reason: String,
    },
}

impl StoreError {
    /// Whether a write may have been done.
    pub fn outcome(&self) -> Outcome {
        match self {
            StoreError::Io { .. } => Outcome::Unknown,
            _ => Outcome::NotStarted,
        }
    }
}

fn in_term(current: u64) -> String {
    match current {
        0 => "by nobody now".to_owned(),
        term => format!("in term {term}"),
    }
}
