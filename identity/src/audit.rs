//! Who was let in, who was not, and why: a line of JSON each, in a file of mode 0600.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use mobula_core::{limits, text};
use mobula_transport::unix::Directory;
use parking_lot::Mutex;
use serde::Serialize;

use crate::error::IdentityError;
use crate::private_file;
use mobula_core::cluster::UnixTime;

/// The audit log of a head. It holds two files of [`limits::AUDIT_BYTES_MAX`] at most, and no secret.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    writing: Mutex<()>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: UnixTime,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SocketAddr>,
    detail: &'a str,
}

impl Audit {
    /// The log in `directory`.
    ///
    /// # Errors
    /// [`IdentityError`] if there is a file that is not safe.
    pub fn open(directory: &Directory) -> Result<Self, IdentityError> {
        let path = directory.path().join("audit.log");
        private_file::append(&path)?;
        Ok(Audit { path, writing: Mutex::new(()) })
    }

    /// Writes one line. `detail` is escaped and cut; it may come from a peer. That nothing can be written is logged, and stops nobody.
    pub fn record(&self, at: UnixTime, what: &str, from: Option<SocketAddr>, detail: &str) {
        let line = Line { at, what, from, detail: text::cut(detail, limits::PEER_TEXT_BYTES_MAX) };
        let written = serde_json::to_string(&line).map_err(|error| error.to_string()).and_then(|mut line| {
            line.push('\n');
            self.append(line.as_bytes()).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::error!(error, what, "the audit log cannot be written");
        }
    }

    fn append(&self, line: &[u8]) -> Result<(), IdentityError> {
        let _one_at_a_time = self.writing.lock();
        let failed = |error| IdentityError::Io { what: "cannot write", path: self.path.clone(), error };
        let mut file = private_file::append(&self.path)?;
        if file.metadata().map_err(failed)?.len() >= limits::AUDIT_BYTES_MAX {
            fs::rename(&self.path, self.path.with_extension("log.1")).map_err(failed)?;
            file = private_file::append(&self.path)?;
        }
        file.write_all(line).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged_or_made_long_by_a_peer() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("state")).expect("made");
        let audit = Audit::open(&directory).expect("opened");
        audit.record(UnixTime(1), "refused", Some(([127, 0, 0, 1], 5).into()), "x\n{\"what\":\"joined\"}\u{1b}[2J");
        audit.record(UnixTime(2), "refused", None, &"\u{e4}".repeat(1_000));
        let text = fs::read_to_string(directory.path().join("audit.log")).expect("there");
        let lines: Vec<&str> = text.lines().collect();
        let expected = r#"{"at":1,"what":"refused","from":"127.0.0.1:5","detail":"x\n{\"what\":\"joined\"}\u001b[2J"}"#;
        assert_eq!(lines[0], expected);
        assert_eq!((lines.len(), lines[1].matches('\u{e4}').count()), (2, limits::PEER_TEXT_BYTES_MAX / 2));
    }

    #[test]
    fn a_full_log_is_put_aside() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("state")).expect("made");
        let audit = Audit::open(&directory).expect("opened");
        let path = directory.path().join("audit.log");
        private_file::append(&path)
            .and_then(|file| {
                file.set_len(limits::AUDIT_BYTES_MAX).map_err(|error| IdentityError::Io {
                    what: "",
                    path: path.clone(),
                    error,
                })
            })
            .expect("ours");
        audit.record(UnixTime(1), "joined", None, "");
        assert!(fs::metadata(&path).expect("there").len() < 100);
        assert_eq!(fs::metadata(directory.path().join("audit.log.1")).expect("there").len(), limits::AUDIT_BYTES_MAX);
    }
}
