//! Files with secrets: made new with mode 0600, checked whenever they are read, replaced in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::DumpableBehavior;
use zeroize::Zeroizing;

use crate::error::IdentityError;

/// 1 MiB: no file of ours comes near it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// It is a symbolic link.
    #[error("it is a symbolic link")]
    Symlink,
    /// It is a directory, a device or something else.
    #[error("it is not a regular file")]
    NotAFile,
    /// It belongs to somebody else.
    #[error("it belongs to user {owner}; chown it to {ours}")]
    Owner {
        /// Its owner.
        owner: u32,
        /// Our effective user id.
        ours: u32,
    },
    /// Others may read it.
    #[error("its mode is {mode:04o}; chmod 0600 it")]
    Mode {
        /// Its permission bits.
        mode: u32,
    },
    /// It is larger than it can be.
    #[error("it has {bytes} bytes, at most {FILE_BYTES_MAX} can be kept")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

/// Keeps the secrets of this process out of core dumps and away from debuggers of the same user.
///
/// # Errors
/// If the system refuses.
pub fn hide_from_dumps() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Reads a file with a secret after its owner, mode and kind were checked; none if there is none.
///
/// # Errors
/// [`IdentityError`] with what is to be mended.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
    read(path)
}

/// Writes a file with a secret, mode 0600, in one step: after a crash it is the old one or the new one.
///
/// # Errors
/// [`IdentityError`]; the old file is there then.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace(path, bytes)
}

/// Makes a file that must not exist. It is there whole or not at all.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let draft = draft(path, bytes)?;
    // Unlike a rename, a link does not replace what is there.
    let linked = fs::hard_link(&draft, path).map_err(failed("cannot make", path));
    let _ = fs::remove_file(&draft);
    linked?;
    sync_directory(path)
}

/// Replaces a file in one step: after a crash it is the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let draft = draft(path, bytes)?;
    fs::rename(&draft, path).map_err(failed("cannot replace", path))?;
    sync_directory(path)
}

/// Reads a file after its owner, mode and kind were checked; none if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
    let mut open = OpenOptions::new();
    // Without waiting, or a pipe of that name would be waited for.
    open.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = match open.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(not_opened(path, error)),
    };
    check(&file, path)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("cannot read", path))?;
    Ok(Some(bytes))
}

/// Opens a file to append to, made if need be, with the same checks.
pub(crate) fn append(path: &Path) -> Result<File, IdentityError> {
    let mut open = OpenOptions::new();
    open.append(true).create(true).mode(0o600).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = open.open(path).map_err(|error| not_opened(path, error))?;
    check_kind(&file, path)?;
    Ok(file)
}

/// What is wrong with a file that was to be opened without following links or waiting.
fn not_opened(path: &Path, error: io::Error) -> IdentityError {
    use rustix::io::Errno;
    let fault = match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => FileFault::Symlink,
        // A directory that is opened for writing, or a pipe that nobody reads.
        Some(Errno::ISDIR | Errno::NXIO) => FileFault::NotAFile,
        _ => return failed("cannot open", path)(error),
    };
    IdentityError::File { path: path.to_owned(), fault }
}

fn check(file: &File, path: &Path) -> Result<(), IdentityError> {
    match check_kind(file, path)? {
        bytes if bytes > FILE_BYTES_MAX => {
            Err(IdentityError::File { path: path.to_owned(), fault: FileFault::TooLarge { bytes } })
        }
        _ => Ok(()),
    }
}

fn check_kind(file: &File, path: &Path) -> Result<u64, IdentityError> {
    let metadata = file.metadata().map_err(failed("cannot look at", path))?;
    let (owner, mode, ours) = (metadata.uid(), metadata.mode() & 0o7777, rustix::process::geteuid().as_raw());
    let fault = if !metadata.is_file() {
        FileFault::NotAFile
    } else if owner != ours {
        FileFault::Owner { owner, ours }
    } else if mode & !0o600 != 0 {
        FileFault::Mode { mode }
    } else {
        return Ok(metadata.len());
    };
    Err(IdentityError::File { path: path.to_owned(), fault })
}

fn draft(path: &Path, bytes: &[u8]) -> Result<std::path::PathBuf, IdentityError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = std::path::PathBuf::from(draft);
    // Nobody would read it again.
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let fault = FileFault::TooLarge { bytes: bytes.len() as u64 };
        return Err(IdentityError::File { path: path.to_owned(), fault });
    }
    // Left by a crash.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("cannot remove", &draft)(error)),
        _ => {}
    }
    let mut open = OpenOptions::new();
    open.write(true).create_new(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = open.open(&draft).map_err(failed("cannot make", &draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("cannot write", &draft))?;
    Ok(draft)
}

fn sync_directory(path: &Path) -> Result<(), IdentityError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("cannot sync", directory))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |error| IdentityError::Io { what, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn fault(path: &Path) -> FileFault {
        match read(path) {
            Err(IdentityError::File { fault, .. }) => fault,
            other => panic!("a faulty file: {:?}", other.map(|bytes| bytes.is_some())),
        }
    }

    #[test]
    fn a_file_with_secrets_is_made_once_and_checked_on_each_load() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        assert!(read(&path).expect("none is no error").is_none());
        create(&path, b"secret").expect("made");
        assert!(matches!(create(&path, b"other"), Err(IdentityError::Io { .. })));
        assert_eq!(read(&path).expect("safe").as_deref().map(|bytes| &bytes[..]), Some(&b"secret"[..]));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1, "no draft is left");

        for mode in [0o644, 0o640, 0o604, 0o4600, 0o700] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            assert_eq!(fault(&path), FileFault::Mode { mode });
        }
        let link = directory.path().join("link");
        symlink(&path, &link).expect("a link");
        assert_eq!(fault(&link), FileFault::Symlink);
        let fault_of_log = |path: &Path| match append(path) {
            Err(IdentityError::File { fault, .. }) => fault,
            other => panic!("a faulty log: {:?}", other.map(drop)),
        };
        assert_eq!(fault_of_log(&link), FileFault::Symlink);
        assert_eq!(fault_of_log(directory.path()), FileFault::NotAFile);
        assert_eq!(fault(directory.path()), FileFault::NotAFile);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("root may");
            assert_eq!(fault(&path), FileFault::Owner { owner: 65_534, ours: 0 });
            std::os::unix::fs::chown(&path, Some(0), None).expect("root may");
        }
        let (largest, too_large) = (vec![7; FILE_BYTES_MAX as usize], vec![0; FILE_BYTES_MAX as usize + 1]);
        replace(&path, &largest).expect("written");
        // One that could not be read again is not written.
        let refused = replace(&path, &too_large).expect_err("too large");
        assert!(refused.to_string().contains("1048577 bytes, at most 1048576"), "{refused}");
        assert_eq!(read(&path).expect("safe").as_deref(), Some(&largest));
        fs::write(&path, too_large).expect("ours");
        assert_eq!(fault(&path), FileFault::TooLarge { bytes: FILE_BYTES_MAX + 1 });
    }

    #[test]
    fn what_a_crash_left_is_no_obstacle_and_no_way_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, draft) = (directory.path().join("key"), directory.path().join("key.new"));
        fs::write(&draft, b"half").expect("written");
        create(&path, b"whole").expect("made");
        // A link where the draft goes is removed, not followed.
        let victim = directory.path().join("victim");
        fs::write(&victim, b"precious").expect("written");
        symlink(&victim, &draft).expect("a link");
        replace(&path, b"new").expect("replaced");
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
        assert_eq!(fs::read(&path).expect("there"), b"new");
    }
}
