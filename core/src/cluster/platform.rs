//! What a program was built for, and whether a host is that.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program was built for. A host says of itself what it is as text, `x86_64-linux-gnu` for one: processor, system, and the C library whose
/// programs it can start; with `gnu+musl` those of both.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, as [`std::env::consts::ARCH`] calls it.
    pub machine: String,
    /// The C library that it is linked to when it starts; none for a program that brings all that it needs.
    pub libc: Option<Libc>,
}

/// A C library.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Libc {
    /// glibc.
    Gnu,
    /// musl.
    Musl,
}

impl Platform {
    /// True if a host that calls itself `architecture` can start it, as far as that text says. A host that says nothing is believed to be able to.
    pub fn runs_on(&self, architecture: &str) -> bool {
        let mut parts = architecture.splitn(3, '-');
        let machine = parts.next().unwrap_or_default();
        let libraries = parts.nth(1).unwrap_or_default();
        let is_machine = machine.is_empty() || machine == self.machine;
        let has_library = |libc: Libc| libraries.is_empty() || libraries.split('+').any(|has| has == libc.name());
        is_machine && self.libc.is_none_or(has_library)
    }
}

impl Libc {
    fn name(self) -> &'static str {
        match self {
            Libc::Gnu => "gnu",
            Libc::Musl => "musl",
        }
    }
}

impl fmt::Display for Platform {
    /// As hosts say it: `x86_64-linux-gnu`, or `x86_64-linux` for a program that brings its C library.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-linux", self.machine)?;
        self.libc.map_or(Ok(()), |libc| write!(f, "-{}", libc.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_on_its_processor_with_its_library() {
        let platform = |machine: &str, libc| Platform { machine: machine.to_owned(), libc };
        let (gnu, musl) = (platform("x86_64", Some(Libc::Gnu)), platform("x86_64", Some(Libc::Musl)));
        let (alone, arm) = (platform("x86_64", None), platform("aarch64", Some(Libc::Gnu)));
        for (architecture, runs) in [
            ("x86_64-linux-gnu", [true, false, true, false]),
            ("x86_64-linux-musl", [false, true, true, false]),
            ("x86_64-linux-gnu+musl", [true, true, true, false]),
            ("aarch64-linux-gnu", [false, false, false, true]),
            ("x86_64", [true, true, true, false]),
            ("", [true, true, true, true]),
            ("-", [true, true, true, true]),
        ] {
            assert_eq!(
                [&gnu, &musl, &alone, &arm].map(|platform| platform.runs_on(architecture)),
                runs,
                "{architecture}"
            );
        }
        assert_eq!([gnu.to_string(), alone.to_string()], ["x86_64-linux-gnu", "x86_64-linux"]);
    }
}
