//! How the command ends: with a text that helps, and a code that says which kind it is.

use std::fmt;

use mobula_control::{ControlError, LoginError, Refusal};
use mobula_daemon::DaemonError;
use mobula_identity::JoinError;

/// Why a command was not done.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    /// The command line makes no sense.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Failure { code: 2, text: text.to_string() }
    }

    /// It did not work.
    pub(crate) fn other(text: impl fmt::Display) -> Self {
        Failure { code: 1, text: text.to_string() }
    }

    /// A file says what makes no sense (EX_CONFIG of sysexits).
    pub(crate) fn not_configured(text: impl fmt::Display) -> Self {
        Failure { code: 78, text: text.to_string() }
    }

    /// A file or a user is not as it has to be.
    pub(crate) fn not_permitted(text: impl fmt::Display) -> Self {
        Failure { code: 77, text: text.to_string() }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        Failure { code: error.exit_code(), text: error.to_string() }
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Home(error) => DaemonError::from(error).into(),
            LoginError::Credential(error) => DaemonError::from(error).into(),
            LoginError::NotLoggedIn { .. } | LoginError::Over { .. } | LoginError::NotRenewed { .. } => {
                Failure::not_permitted(error)
            }
            LoginError::NoSuchLogin { .. }
            | LoginError::NoneIsCurrent { .. }
            | LoginError::OtherCluster { .. }
            | LoginError::BadName { .. } => Failure::usage(error),
            LoginError::Address(_) | LoginError::Tls(_) => Failure { code: 69, text: error.to_string() },
            error => Failure::other(error),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        DaemonError::from(error).into()
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::Refused(Refusal::Unauthorized { .. }) => 77,
            ControlError::Refused(_) | ControlError::Executable { .. } | ControlError::BadProgram { .. } => 1,
            // Nobody answers (EX_UNAVAILABLE of sysexits).
            _ => 69,
        };
        Failure { code, text: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::other(error)
    }
}
