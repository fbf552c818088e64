//! Why a request was not done, and whether it may be tried again.

use std::io;
use std::net::SocketAddr;

use mobula_core::Outcome;
use mobula_core::cluster::Refused;
use mobula_transport::tls::TlsError;
use mobula_transport::unix::UnixError;
use serde::{Deserialize, Serialize};

use crate::elf::BadProgram;
use crate::logins::LoginError;

/// The answer of one who was asked and does not do it. Nothing has changed, but for [`Failed`](Self::Failed), [`InDoubt`](Self::InDoubt) and
/// [`AnswerTooLarge`](Self::AnswerTooLarge).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The asker's role may not.
    #[error("Unauthorized: the role {role} may not {what}; {needed}")]
    Unauthorized {
        /// What the asker is.
        role: String,
        /// What it wanted.
        what: String,
        /// Who may.
        needed: String,
    },
    /// The head does not do it.
    #[error(transparent)]
    Head(#[from] Refused),
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// With its name.
        what: String,
    },
    /// The request makes no sense, now or ever: the text says what would.
    #[error("{0}")]
    Invalid(String),
    /// The head that was asked is not the one that leads. A client goes on to another by itself.
    #[error("this head does not lead: {}", ask_where(leader.as_ref()))]
    NotLeading {
        /// Where the one is that does, if anybody does.
        leader: Option<SocketAddr>,
    },
    /// It cannot be done now; later it may.
    #[error("{0}; try again")]
    NotNow(String),
    /// The head ends in the middle of it: the next one knows whether it was done.
    #[error("{0}; whether it was done is not known")]
    InDoubt(String),
    /// It was begun and failed on the other side.
    #[error("{0}")]
    Failed(String),
    /// What there is to say is more than fits into an answer, however often it is asked for. What was asked for may have been done.
    #[error("AnswerTooLarge: the answer takes more than {limit} bytes, which is the limit; ask for less of it")]
    AnswerTooLarge {
        /// [`CONTROL_ANSWER_BYTES_MAX`](mobula_core::limits::CONTROL_ANSWER_BYTES_MAX).
        limit: u64,
    },
}

/// A request that was not answered as wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No cluster of this user runs here.
    #[error(
        "no node of yours runs on this host ({path}): start one with `mobula start --head`, say with MOBULA_HOME where its home is, or log in to a \
         cluster elsewhere with `mobula login --address HOST:PORT`"
    )]
    NoneHere {
        /// Where its socket would be.
        path: String,
    },
    /// What this user has does not let it ask.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// A program could not be read.
    #[error("cannot read the program {path}: {error}", path = path.display())]
    Executable {
        /// Where it is.
        path: std::path::PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// A file that is to run on the cluster is no program.
    #[error("{path} cannot run: {why}", path = path.display())]
    BadProgram {
        /// Where it is.
        path: std::path::PathBuf,
        /// What it is instead.
        why: BadProgram,
    },
    /// The local node was not reached.
    #[error(transparent)]
    Local(#[from] UnixError),
    /// The head was not reached, or has not proven to be the head.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The conversation broke.
    #[error("the conversation with {peer} broke: {error}")]
    Broken {
        /// With whom.
        peer: String,
        /// What came of it.
        error: io::Error,
        /// False if the request had not been sent whole.
        sent: bool,
    },
    /// There was no answer in time.
    #[error("no answer from {peer} within {after:?}")]
    Deadline {
        /// From whom.
        peer: String,
        /// The limit.
        after: std::time::Duration,
    },
}

impl ControlError {
    /// True if asking again is of no use: it was refused, and not only for the moment.
    pub fn is_final(&self) -> bool {
        match self {
            ControlError::Refused(Refusal::NotNow(_) | Refusal::NotLeading { .. } | Refusal::InDoubt(_)) => false,
            ControlError::Refused(_) | ControlError::BadProgram { .. } => true,
            _ => false,
        }
    }

    /// What is known of the request: whether it may be repeated.
    pub fn outcome(&self) -> Outcome {
        match self {
            ControlError::Refused(Refusal::Failed(_) | Refusal::InDoubt(_) | Refusal::AnswerTooLarge { .. }) => {
                Outcome::Unknown
            }
            ControlError::Refused(_) => Outcome::NotStarted,
            ControlError::Executable { .. }
            | ControlError::BadProgram { .. }
            | ControlError::NoneHere { .. }
            | ControlError::Login(_)
            | ControlError::Local(_)
            | ControlError::Tls(_) => Outcome::NotSent,
            ControlError::Broken { sent: false, .. } => Outcome::NotSent,
            ControlError::Broken { .. } | ControlError::Deadline { .. } => Outcome::Unknown,
        }
    }
}

fn ask_where(leader: Option<&SocketAddr>) -> String {
    match leader {
        Some(address) => format!("the one at {address} does, ask there"),
        None => "nobody does now; try again".to_owned(),
    }
}
