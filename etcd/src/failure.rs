//! What etcd's client reports, as what a store says.

use etcd_client::Error;
use mobula_head::store::StoreError;

/// How a request has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or etcd cannot answer now. What was asked may have been done.
    Silent(String),
    /// etcd does not let this program do it. Nothing was done.
    Denied(String),
    /// The lease is not there. Nothing was done.
    NoLease,
    /// What was asked for is not known any more.
    Compacted,
    /// The answer is larger than is taken.
    AnswerTooLarge,
    /// The request is larger than etcd takes. Nothing was done.
    RequestTooLarge(String),
    /// It was refused for another reason. Nothing was done.
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // tonic's codes are not named: its crate would be one more dependency for a handful of numbers.
        const DEADLINE: i32 = 4;
        const NOT_FOUND: i32 = 5;
        const DENIED: i32 = 7;
        const OUT_OF_RANGE: i32 = 11;
        const UNAUTHENTICATED: i32 = 16;
        let Error::GRpcStatus(status) = &error else {
            return match &error {
                Error::InvalidArgs(_) | Error::InvalidUri(_) => Failure::Refused(error.to_string()),
                // What the client says of a stream that etcd has answered for a lease that is over.
                Error::LeaseKeepAliveError(text) if text.contains("not found") => Failure::NoLease,
                _ => Failure::Silent(error.to_string()),
            };
        };
        let (code, text) = (status.code() as i32, status.message().to_owned());
        let says = |words: &str| text.contains(words);
        match code {
            _ if says("compacted") => Failure::Compacted,
            OUT_OF_RANGE if says("decoded message") => Failure::AnswerTooLarge,
            NOT_FOUND if says("lease") => Failure::NoLease,
            _ if says("request is too large") || says("too many operations") || says("larger than max") => {
                Failure::RequestTooLarge(text)
            }
            DENIED | UNAUTHENTICATED => Failure::Denied(text),
            // Invalid arguments, failed preconditions, what is not implemented.
            3 | 6 | 9 | 12 => Failure::Refused(text),
            DEADLINE => Failure::Silent("it has taken too long".to_owned()),
            _ => Failure::Silent(text),
        }
    }
}

impl Failure {
    /// Whether asking again may help.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Failure::Silent(_))
    }

    /// For something that has changed nothing.
    pub(crate) fn of_reading(self) -> StoreError {
        match self {
            Failure::Denied(reason) => StoreError::Denied { reason },
            other => StoreError::Unavailable { reason: other.text() },
        }
    }

    /// In words.
    pub(crate) fn text(self) -> String {
        match self {
            Failure::Silent(text) | Failure::Denied(text) | Failure::RequestTooLarge(text) | Failure::Refused(text) => {
                text
            }
            Failure::NoLease => "the lease is over".to_owned(),
            Failure::Compacted => "what was asked for is not known any more".to_owned(),
            Failure::AnswerTooLarge => "its answer is too large".to_owned(),
        }
    }
}
