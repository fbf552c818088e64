//! Where etcd is, and what lets this program in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use mobula_core::limits;

/// Where etcd is, and how this head shows there.
#[derive(Clone)]
#[non_exhaustive]
pub struct EtcdOptions {
    /// `HOST:PORT` of its members.
    pub endpoints: Vec<String>,
    /// All keys begin with it and a slash. Clusters that share an etcd have one each; `mobula` by default.
    pub prefix: String,
    /// What others read of this head while it leads: where it is reached. Empty by default.
    pub name: String,
    /// How long after this head's end another may lead; whole seconds, 2 at least. [`limits::STORE_LEADER_TTL`] by default.
    pub ttl: Duration,
    /// For TLS: the authority of etcd's certificates.
    ca: Option<Vec<u8>>,
    /// For TLS: what this program proves itself with.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    user: Option<(String, String)>,
}

impl fmt::Debug for EtcdOptions {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions").field("at", &self.to_string()).field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

/// Why there is no store in etcd with these options.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdOptionsError {
    /// It is not the address of a store.
    #[error(
        "{url:?}: {reason}; valid is etcd://HOST:PORT,.. or etcd://HOST:PORT,../PREFIX, as in etcd://10.0.0.1:2379"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that a variable names cannot be read.
    #[error("{variable} names {}: {reason}", path.display())]
    File {
        /// Which variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable needs another one.
    #[error("{variable} is set without {needs}")]
    Variable {
        /// Which.
        variable: &'static str,
        /// The other.
        needs: &'static str,
    },
}

impl EtcdOptions {
    /// Reads `etcd://HOST:PORT,HOST:PORT/PREFIX`; the prefix may be left out.
    ///
    /// # Errors
    /// [`EtcdOptionsError::Url`].
    pub fn parse(url: &str) -> Result<Self, EtcdOptionsError> {
        let bad = |reason: &str| EtcdOptionsError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let rest = url.strip_prefix("etcd://").ok_or_else(|| bad("it does not begin with etcd://"))?;
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = if prefix.is_empty() { "mobula" } else { prefix.trim_end_matches('/') };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if prefix.is_empty() || prefix.len() > 256 || !prefix.bytes().all(is_plain) {
            return Err(bad("a prefix is of letters, digits, -, _, . and /, 256 at most"));
        }
        let mut endpoints = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = host.rsplit_once(':').ok_or_else(|| bad("a host has no port"))?;
            if name.is_empty() || name.contains(['/', '@', '?', '#']) || port.parse::<u16>().is_err() {
                return Err(bad("a host is none, or its port"));
            }
            endpoints.push(host.to_owned());
        }
        Ok(EtcdOptions {
            endpoints,
            prefix: prefix.to_owned(),
            name: String::new(),
            ttl: limits::STORE_LEADER_TTL,
            ca: None,
            identity: None,
            user: None,
        })
    }

    /// With what the environment says: `MOBULA_ETCD_CA`, `MOBULA_ETCD_CERT` and `MOBULA_ETCD_KEY` name PEM files for TLS, `MOBULA_ETCD_USER` a user whose
    /// password is in the file that `MOBULA_ETCD_PASSWORD_FILE` names. `look` looks up a variable.
    ///
    /// # Errors
    /// [`EtcdOptionsError`]: one is set without the others, or names a file that cannot be read.
    pub fn with_environment(mut self, look: impl Fn(&str) -> Option<String>) -> Result<Self, EtcdOptionsError> {
        let read = |variable: &'static str| {
            let Some(path) = look(variable).filter(|path| !path.is_empty()) else { return Ok(None) };
            let path = Path::new(&path);
            let wrong = |reason: String| EtcdOptionsError::File { variable, path: path.to_owned(), reason };
            std::fs::read(path).map(Some).map_err(|error| wrong(error.to_string()))
        };
        let (ca, certificate, key) = ("MOBULA_ETCD_CA", "MOBULA_ETCD_CERT", "MOBULA_ETCD_KEY");
        self.ca = read(ca)?;
        self.identity = match (read(certificate)?, read(key)?) {
            (Some(_), Some(_)) if self.ca.is_none() => {
                return Err(EtcdOptionsError::Variable { variable: certificate, needs: ca });
            }
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return Err(EtcdOptionsError::Variable { variable: certificate, needs: key }),
            (None, Some(_)) => return Err(EtcdOptionsError::Variable { variable: key, needs: certificate }),
            (None, None) => None,
        };
        let (user, password) = ("MOBULA_ETCD_USER", "MOBULA_ETCD_PASSWORD_FILE");
        self.user = match (look(user), read(password)?) {
            (Some(name), Some(bytes)) => {
                Some((name, String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned()))
            }
            (Some(_), None) => return Err(EtcdOptionsError::Variable { variable: user, needs: password }),
            (None, Some(_)) => return Err(EtcdOptionsError::Variable { variable: password, needs: user }),
            (None, None) => None,
        };
        Ok(self)
    }

    /// As etcd's client wants them.
    pub(crate) fn for_client(&self) -> ConnectOptions {
        // A member that has lost the others says so, instead of being silent. No faster pings: etcd cuts off who pings more often than every 5 s.
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(limits::STORE_REQUEST_DEADLINE)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(3))
            .with_auto_token_refresh(self.user.is_some());
        if let Some(ca) = &self.ca {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            if let Some((certificate, key)) = &self.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_its_prefix() {
        let options = EtcdOptions::parse("etcd://10.0.0.1:2379,[::1]:2380/teams/a/").expect("valid");
        assert_eq!(options.endpoints, ["10.0.0.1:2379", "[::1]:2380"]);
        assert_eq!((options.prefix.as_str(), options.ttl), ("teams/a", limits::STORE_LEADER_TTL));
        let plain = EtcdOptions::parse("etcd://etcd:2379").expect("valid");
        assert_eq!((plain.prefix.as_str(), plain.to_string().as_str()), ("mobula", "etcd://etcd:2379/mobula"));
        for url in [
            "",
            "http://a:1",
            "etcd://",
            "etcd://a",
            "etcd://:1",
            "etcd://a:b",
            "etcd://a:1,",
            "etcd://a:1/x y",
            "etcd://u@a:1",
        ] {
            let error = EtcdOptions::parse(url).expect_err("invalid").to_string();
            assert!(error.contains("etcd://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn what_is_half_said_in_the_environment_is_an_error_and_secrets_are_not_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "hunter2\n").expect("room");
        let path = file.path().display().to_string();
        let with = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|name| (*name).to_owned()).collect();
            let path = path.clone();
            let look = move |name: &str| set.iter().any(|set| set == name).then(|| path.clone());
            EtcdOptions::parse("etcd://a:1").expect("valid").with_environment(look)
        };
        for half in ["MOBULA_ETCD_CERT", "MOBULA_ETCD_KEY", "MOBULA_ETCD_USER", "MOBULA_ETCD_PASSWORD_FILE"] {
            let error = with(&[half]).expect_err("half").to_string();
            assert!(error.contains(half) && error.contains("without"), "{error}");
        }
        assert!(with(&["MOBULA_ETCD_CERT", "MOBULA_ETCD_KEY"]).is_err());
        let options = with(&["MOBULA_ETCD_USER", "MOBULA_ETCD_PASSWORD_FILE"]).expect("both");
        assert_eq!(options.user.as_ref().map(|(_, password)| password.as_str()), Some("hunter2"));
        assert!(!format!("{options:?} {options}").contains("hunter2"));
        let missing = EtcdOptions::parse("etcd://a:1").expect("valid");
        let missing = missing.with_environment(|name| (name == "MOBULA_ETCD_CA").then(|| "/nonexistent".to_owned()));
        assert!(missing.expect_err("no file").to_string().contains("MOBULA_ETCD_CA names /nonexistent"));
    }
}
