//! Files: the home is this user's alone, and so is each file with a secret in it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mobula_control::Home;
use mobula_identity::FileFault;
use mobula_transport::unix::{Directory, DirectoryFault, UnixError};

use super::Check;

/// Directories in the home whose files are secrets.
const PRIVATE_DIRECTORIES: [&str; 2] = ["identity", "logins"];
/// Directories without secrets, in which others must not put anything all the same.
const DIRECTORIES: [&str; 2] = ["executables", "logs"];
const PRIVATE_FILES: [&str; 2] = ["membership", "membership.next"];
/// The head's records are no secret, but nobody else writes them.
const RECORDS: &str = "head.redb";

pub(super) fn checks(home: &Path) -> Vec<Check> {
    if matches!(std::fs::symlink_metadata(home), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return vec![
            Check::ok("home", format!("{} is made by the first start", home.display())),
            Check::skipped("permissions", "there is no file yet"),
        ];
    }
    match Home::open(home) {
        Ok(_) => {
            vec![Check::ok("home", format!("{} is this user's alone", home.display())), permissions(home)]
        }
        Err(error) => vec![directory("home", error), Check::skipped("permissions", "the home has to be safe first")],
    }
}

fn permissions(home: &Path) -> Check {
    let mut looked_at = 0;
    let mut faults = Vec::new();
    let mut look = |path: PathBuf, mask: u32| match fault(&path, mask) {
        Ok(None) => looked_at += 1,
        Ok(Some(fault)) => faults.push((format!("{} {fault}", path.display()), mend(&path, fault))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => faults.push((format!("{}: {error}", path.display()), format!("look at {}", path.display()))),
    };
    PRIVATE_FILES.iter().for_each(|name| look(home.join(name), 0o600));
    look(home.join(RECORDS), 0o755);
    let mut directories = Vec::new();
    for name in PRIVATE_DIRECTORIES.iter().chain(&DIRECTORIES) {
        match Directory::open(home.join(name)) {
            Ok(open) if PRIVATE_DIRECTORIES.contains(name) => {
                let entries = std::fs::read_dir(open.path()).into_iter().flatten().flatten();
                entries.for_each(|entry| look(entry.path(), 0o600));
            }
            Err(error) if !is_missing(&error) => directories.push(directory("permissions", error)),
            _ => {}
        }
    }
    faults.extend(directories.into_iter().map(|check| (check.found, check.mend.unwrap_or_default())));
    if faults.is_empty() {
        return Check::ok("permissions", format!("{looked_at} private files are this user's alone"));
    }
    let (found, mends): (Vec<_>, Vec<_>) = faults.into_iter().unzip();
    Check::failed("permissions", found.join(", and "), mends.join(" && "))
}

/// What is wrong with a file that is to have no more bits than `mask` and is to be this user's.
fn fault(path: &Path, mask: u32) -> io::Result<Option<FileFault>> {
    let metadata = std::fs::symlink_metadata(path)?;
    let (owner, mode, ours) = (metadata.uid(), metadata.mode() & 0o7777, rustix::process::geteuid().as_raw());
    Ok(if metadata.file_type().is_symlink() {
        Some(FileFault::Symlink)
    } else if !metadata.is_file() {
        Some(FileFault::NotAFile)
    } else if owner != ours {
        Some(FileFault::Owner { owner, ours })
    } else if mode & !mask != 0 {
        Some(FileFault::Mode { mode })
    } else {
        None
    })
}

fn mend(path: &Path, fault: FileFault) -> String {
    let path = path.display();
    match fault {
        FileFault::Mode { .. } => format!("chmod 0600 {path}"),
        FileFault::Owner { ours, .. } => format!("chown {ours} {path}"),
        _ => format!("put the file itself at {path}, or move it away"),
    }
}

fn is_missing(error: &UnixError) -> bool {
    matches!(error, UnixError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
}

/// A directory that is not safe.
fn directory(what: &str, error: UnixError) -> Check {
    let mend = match &error {
        UnixError::Directory { path, fault: DirectoryFault::Mode { .. } } => format!("chmod 0700 {}", path.display()),
        UnixError::Directory { path, fault: DirectoryFault::Owner { ours, .. } } => {
            format!("chown {ours} {}", path.display())
        }
        _ => return Check::error(what, &error),
    };
    Check::failed(what, error.to_string(), mend)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::doctor::State;

    #[test]
    fn each_file_that_others_may_use_is_named_with_what_mends_it() {
        let place = tempfile::tempdir().expect("a directory");
        let home = Home::create(&place.path().join("home")).expect("made");
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        for name in PRIVATE_DIRECTORIES {
            home.inside(name).expect("room");
        }
        let root = home.directory().path().to_owned();
        let files = ["membership", "head.redb", "identity/authority", "logins/here"].map(|name| root.join(name));
        for file in &files {
            fs::write(file, "").expect("room");
            set_mode(file, 0o600);
        }
        set_mode(&files[1], 0o644);
        let good = permissions(&root);
        assert_eq!((good.state, good.found.as_str()), (State::Ok, "4 private files are this user's alone"));
        for (file, mode) in [(&files[0], 0o640), (&files[1], 0o664), (&files[2], 0o604), (&files[3], 0o700)] {
            let before = fs::metadata(file).expect("there").permissions();
            set_mode(file, mode);
            let bad = permissions(&root);
            assert_eq!(bad.state, State::Failed, "{bad:?}");
            assert!(bad.found.contains(&format!("its mode is {mode:04o}")), "{bad:?}");
            assert_eq!(bad.mend, Some(format!("chmod 0600 {}", file.display())));
            fs::set_permissions(file, before).expect("ours");
        }
        symlink(&files[0], root.join("identity/tokens")).expect("room");
        set_mode(&root.join("logins"), 0o750);
        let bad = permissions(&root);
        assert!(
            bad.found.contains("tokens it is a symbolic link") && bad.found.contains("its mode is 0750"),
            "{bad:?}"
        );
        assert!(bad.mend.is_some_and(|mend| mend.contains(&format!("chmod 0700 {}", root.join("logins").display()))));
        set_mode(&root, 0o755);
        let checks = checks(&root);
        assert_eq!(checks.iter().map(|check| check.state).collect::<Vec<_>>(), [State::Failed, State::Skipped]);
        assert_eq!(checks[0].mend, Some(format!("chmod 0700 {}", root.display())));
        set_mode(&root, 0o700);
    }
}
