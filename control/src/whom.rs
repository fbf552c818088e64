//! Which cluster a command or a program asks, where its user has said so, or has not.

use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::local::Home;
use crate::logins::{Login, LoginError, Logins};

/// Whom to ask.
#[non_exhaustive]
pub enum Whom {
    /// The node of this user on this host whose home it is.
    Here(PathBuf),
    /// The heads of a cluster to which this user has logged in.
    There(Box<Login>),
    /// Nobody: `local` was said.
    Nobody,
}

/// What `said` means for the user whose home is `home`. Where nothing is said it is the node of this user on this host; if none runs, the cluster that
/// this user has logged in to; if there is none, the node again, which will say how to start one.
///
/// # Errors
/// [`LoginError`]. Cancel-safe: nothing is changed.
pub async fn whom(said: Option<&Address>, home: &Path) -> Result<Whom, LoginError> {
    let there = |login| Ok(Whom::There(Box::new(login)));
    match said {
        Some(Address::Local) => Ok(Whom::Nobody),
        Some(Address::Auto) => Ok(Whom::Here(home.to_owned())),
        Some(Address::Home(path)) => Ok(Whom::Here(path.clone())),
        Some(Address::Heads(heads)) => match Logins::open(home)? {
            Some(logins) => there(logins.to_heads(heads).await?),
            None => Err(LoginError::NotLoggedIn { to: heads.join(",") }),
        },
        Some(Address::Login(name)) => match Logins::open(home)? {
            Some(logins) => there(logins.read(name)?),
            None => Err(LoginError::NoSuchLogin { name: name.clone() }),
        },
        None if Home::is_running(home) => Ok(Whom::Here(home.to_owned())),
        None => match Logins::open(home)?.map(|logins| logins.default()).transpose()?.flatten() {
            Some(login) => there(login),
            None => Ok(Whom::Here(home.to_owned())),
        },
    }
}
