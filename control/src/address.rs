//! How a person says which cluster is meant: on the command line, in `MOBULA_ADDRESS`, or in a program.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// The environment variable that says which cluster to ask; its value is an [`Address`].
pub const ADDRESS_VARIABLE: &str = "MOBULA_ADDRESS";

/// Where a cluster is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Address {
    /// `auto`: that of this user on this host.
    Auto,
    /// `local`: none; a program gets one inside its process.
    Local,
    /// An absolute path: the home of the node to ask.
    Home(PathBuf),
    /// `HOST:PORT`, several with commas: where its heads are.
    Heads(Vec<String>),
    /// A word: the name under which this user has logged in, or the cluster's id.
    Login(String),
}

/// A text says nothing of where a cluster is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadAddress {
    text: String,
    reason: String,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadAddress { text, reason } = self;
        write!(f, "{text:?}: {reason}; valid are HOST:PORT such as 10.0.0.1:6379, several with commas")
    }
}

impl std::error::Error for BadAddress {}

impl BadAddress {
    pub(crate) fn new(text: &str, reason: impl fmt::Display) -> Self {
        BadAddress { text: text.to_owned(), reason: reason.to_string() }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match text {
            "auto" => Ok(Address::Auto),
            "local" => Ok(Address::Local),
            path if path.starts_with('/') => Ok(Address::Home(PathBuf::from(path))),
            name if is_name(name) => Ok(Address::Login(name.to_owned())),
            heads => {
                let heads = heads.split(',').map(|head| host_and_port(head).map(|()| head.to_owned()));
                heads.collect::<Result<_, _>>().map(Address::Heads)
            }
        }
    }
}

/// Looks the first address of `HOST:PORT` up. Blocks: names may take seconds.
///
/// # Errors
/// [`BadAddress`].
pub fn resolve(text: &str) -> Result<SocketAddr, BadAddress> {
    host_and_port(text)?;
    let mut found = text.to_socket_addrs().map_err(|error| BadAddress::new(text, error))?;
    found.next().ok_or_else(|| BadAddress::new(text, "there is no such host"))
}

/// True for what a login may be called: 1 to 64 letters, digits, `-` and `_`, the first a letter or digit.
pub(crate) fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() <= 64 && text.bytes().all(word) && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn host_and_port(text: &str) -> Result<(), BadAddress> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| BadAddress::new(text, "it has no port"))?;
    match (host.is_empty(), port.parse::<u16>().is_err()) {
        (true, _) => Err(BadAddress::new(text, "it has no host")),
        (_, true) => Err(BadAddress::new(text, "its port is none")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_looks_like() {
        let heads = |of: &[&str]| Ok(Address::Heads(of.iter().map(|head| (*head).to_owned()).collect()));
        assert_eq!("auto".parse(), Ok(Address::Auto));
        assert_eq!("local".parse(), Ok(Address::Local));
        assert_eq!("/var/lib/mobula".parse(), Ok(Address::Home(PathBuf::from("/var/lib/mobula"))));
        assert_eq!("10.0.0.1:6379".parse(), heads(&["10.0.0.1:6379"]));
        assert_eq!("head-1.example:6379,[::1]:7".parse(), heads(&["head-1.example:6379", "[::1]:7"]));
        assert_eq!("prod_2".parse(), Ok(Address::Login("prod_2".to_owned())));
        for bad in ["", "host:", ":6379", "a:1,", "a:1,b", "host:65536", "host:x", "a b", "-x", "../x", &"x".repeat(65)]
        {
            let error = bad.parse::<Address>().expect_err(bad).to_string();
            assert!(error.contains("valid are HOST:PORT"), "{error}");
        }
    }
}
