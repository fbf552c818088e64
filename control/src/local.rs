//! Where the processes of one user's node lie on this host: its directory and what is in it.
//!
//! ```text
//! <home>/            mode 0700, of this user
//!   control          the socket on which the node is asked; control.lock holds the pid of the one that runs
//!   identity/        of a head: the authority, tokens, revocations, audit.log
//!   membership       of another node: its key and certificate, its cluster's authority, where heads are
//!   listening        the address on which it listens
//!   cgroup           where the cgroups of its jobs' processes are, or why there are none
//!   head.redb        of a head: what it has acknowledged
//!   executables/     by BLAKE3 hash
//!   logs/            what drivers and workers have printed, a file a job
//!   node.log         what the node itself has to say
//!   logins/          of a person: credentials for clusters, see [`Logins`](crate::Logins)
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use mobula_transport::unix::{Directory, UnixError};

/// The environment variable that says where the home is.
pub const HOME_VARIABLE: &str = "MOBULA_HOME";
/// The name of the socket in the home.
pub const SOCKET: &str = "control";

/// The home of a node of this user.
#[derive(Clone, Debug)]
pub struct Home(Directory);

impl Home {
    /// Where the home is, if nobody says otherwise: `MOBULA_HOME`, else `mobula` in `XDG_STATE_HOME`, else `.local/state/mobula` in the user's home, else
    /// `/tmp/mobula-<uid>`.
    pub fn default_path() -> PathBuf {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(home) = set(HOME_VARIABLE) {
            return home;
        }
        if let Some(state) = set("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
            return state.join("mobula");
        }
        match set("HOME").filter(|path| path.is_absolute()) {
            Some(home) => home.join(".local/state/mobula"),
            None => PathBuf::from(format!("/tmp/mobula-{}", rustix::process::geteuid().as_raw())),
        }
    }

    /// The home at `path`, made if there is none. Of its parents those that are missing are made, too.
    ///
    /// # Errors
    /// [`UnixError`]: it is not this user's alone, for one.
    pub fn create(path: &Path) -> Result<Self, UnixError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| UnixError::Io {
                what: "cannot make",
                path: parent.to_owned(),
                error,
            })?;
        }
        Directory::create(path).map(Home)
    }

    /// The home at `path`, which has to be there.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn open(path: &Path) -> Result<Self, UnixError> {
        Directory::open(path).map(Home)
    }

    /// True while a process has the home at `path`: a node of this user runs.
    pub fn is_running(path: &Path) -> bool {
        let Ok(file) = File::open(path.join(SOCKET).with_extension("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The directory.
    pub fn directory(&self) -> &Directory {
        &self.0
    }

    /// A directory in it, made if there is none, with the same care.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn inside(&self, name: &str) -> Result<Directory, UnixError> {
        Directory::create(self.0.path().join(name))
    }

    /// A file in it, whether it is there or not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_made_with_its_parents_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("a/b/mobula");
        let home = Home::create(&path).expect("made");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert_eq!(home.file("x"), path.join("x"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let error = Home::open(&path).expect_err("others may enter");
        assert!(error.to_string().contains("chmod 0700"), "{error}");
    }
}
