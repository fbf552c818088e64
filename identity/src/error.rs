//! What can go wrong on the head's side.

use std::io;
use std::path::PathBuf;

use mobula_transport::unix::UnixError;

use crate::private_file::FileFault;

/// The authority, the tokens or a file of theirs could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The state directory is not this user's alone.
    #[error(transparent)]
    Directory(#[from] UnixError),
    /// A file with secrets is not safe.
    #[error("{path} is not safe for secrets: {fault}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// The operating system says no.
    #[error("{what} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// A file does not hold what it should. It was left as it is.
    #[error("{path} cannot be read, and was left as it is: {reason}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot make a certificate: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// The system's random source fails.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// Tokens make no heads.
    #[error("a token cannot make a head: the role is one of worker, client, operator, observer")]
    TokenForHead,
    /// A token has to be good for something.
    #[error("a token needs at least one use and a time to live")]
    NoUses,
    /// There are too many tokens.
    #[error("there are {limit} tokens already: revoke one, or wait until one is over")]
    TooManyTokens {
        /// The limit.
        limit: usize,
    },
}

/// Why somebody may not join. For the audit log: on the wire every refusal is the same.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such token, or it was revoked.
    #[error("UnknownToken")]
    UnknownToken,
    /// The signature is not the token holder's over this connection and this request.
    #[error("WrongSignature")]
    WrongSignature,
    /// The token's time is over.
    #[error("Expired")]
    Expired,
    /// The token is for another role.
    #[error("WrongRole")]
    WrongRole,
    /// The token has no use left.
    #[error("UsedUp")]
    UsedUp,
    /// Who wants to renew is not the holder of a certificate for this life and one role.
    #[error("NotTheHolder")]
    NotTheHolder,
    /// The life was revoked.
    #[error("Revoked")]
    Revoked,
    /// There are too many people.
    #[error(
        "TooManyCredentials: there are {limit} credentials of people already: revoke some, or wait until they are over"
    )]
    TooManyCredentials {
        /// The limit.
        limit: usize,
    },
    /// The life has come back as another already: this is a copy of its credential, or an old one.
    #[error("Superseded")]
    Superseded,
    /// What it sent is not a request.
    #[error("BadRequest: {0}")]
    BadRequest(String),
    /// The head itself could not.
    #[error("HeadFailed: {0}")]
    HeadFailed(String),
}
