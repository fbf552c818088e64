//! How an actor came to its end, as those who monitor it learn it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an actor is no more. The reasons are Erlang's, where it has them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It stopped itself.
    Normal,
    /// It was told to stop, or its node shut down in order.
    Shutdown,
    /// It was killed: none of its hooks ran.
    Killed,
    /// It ended itself with an error.
    Error {
        /// What it said.
        text: String,
    },
    /// It panicked, and its restarts were used up.
    Panicked {
        /// The last panic's text.
        text: String,
    },
    /// There was no such actor when the monitor was set up.
    NoProc,
    /// Its node was lost. What became of the actor is not known; for the monitor it is the end.
    NoConnection {
        /// How the loss was noticed.
        reason: String,
    },
}

impl ExitReason {
    /// True for every end that an actor does not come to by itself and in order.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, ExitReason::Normal)
    }
}

impl std::error::Error for ExitReason {}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("it stopped"),
            ExitReason::Shutdown => f.write_str("it was told to stop"),
            ExitReason::Killed => f.write_str("it was killed"),
            ExitReason::Error { text } => write!(f, "it ended with an error: {text}"),
            ExitReason::Panicked { text } => write!(f, "it panicked, and its restarts were used up: {text}"),
            ExitReason::NoProc => f.write_str("there was no such actor"),
            ExitReason::NoConnection { reason } => write!(f, "its node was lost: {reason}"),
        }
    }
}
