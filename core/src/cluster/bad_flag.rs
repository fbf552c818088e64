//! What is wrong with a value on the command line, or in a request that came from one.

use serde::{Deserialize, Serialize};

use crate::{limits, text};

/// A value that is not valid: which flag, what it was, why, and what is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{flag} {value:?}: {reason}; valid are {valid}")]
pub struct BadFlag {
    /// The flag, as in `--num-cpus`.
    pub flag: String,
    /// Its value, cut at [`limits::PEER_TEXT_BYTES_MAX`].
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// The form that is valid.
    pub valid: String,
}

impl BadFlag {
    /// Says so.
    pub fn new(flag: &str, value: &str, reason: &str, valid: &str) -> Self {
        BadFlag {
            flag: flag.to_owned(),
            value: text::cut(value, limits::PEER_TEXT_BYTES_MAX).to_owned(),
            reason: reason.to_owned(),
            valid: valid.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_letters() {
        let long = "ä".repeat(500);
        let error = BadFlag::new("--labels", &long, "too long", "a=b");
        assert_eq!(error.value, "ä".repeat(limits::PEER_TEXT_BYTES_MAX / 2));
        let odd = format!("x{long}");
        assert!(BadFlag::new("--labels", &odd, "too long", "a=b").value.len() < limits::PEER_TEXT_BYTES_MAX);
    }
}
