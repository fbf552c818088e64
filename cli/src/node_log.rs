//! What a node in the background has to say: a file in its home, and the one before it once that has grown.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_control::Home;

/// The file in the home to which a node in the background writes.
pub(crate) const LOG: &str = "node.log";
const EARLIER: &str = "node.log.1";

/// 16 MiB: a log that is larger makes way, when its node starts and while it runs. With the earlier one it takes about twice as much.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How often a node that runs looks at its log.
const LOOK: Duration = Duration::from_secs(30);

/// The log of the node of a home.
pub(crate) struct NodeLog {
    path: PathBuf,
    earlier: PathBuf,
    bytes_max: u64,
}

impl NodeLog {
    pub(crate) fn of(home: &Home) -> Self {
        NodeLog { path: home.file(LOG), earlier: home.file(EARLIER), bytes_max: LOG_BYTES_MAX }
    }

    /// To be added to, and read.
    pub(crate) fn open(&self) -> io::Result<File> {
        // The node tries it again.
        let _ = self.turn();
        OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(&self.path)
    }

    /// Keeps the log small, for ever. It stays the same file: whoever has it open for appending goes on at its new end.
    pub(crate) async fn keep_small(self) {
        self.look_every(LOOK).await;
    }

    async fn look_every(self, rest: Duration) {
        loop {
            tokio::time::sleep(rest).await;
            if let Err(error) = self.turn() {
                tracing::warn!(path = %self.path.display(), %error, "this node's log cannot make way");
            }
        }
    }

    /// Copies a log that is too large, and empties it. What is written in between is lost: moving the file would lose all that comes after, since the node has it open.
    fn turn(&self) -> io::Result<()> {
        let mut log = match File::options().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            log => log?,
        };
        // The node and another start in its home may both find it too large: one of them sees to it.
        match log.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            locked => locked?,
        }
        if log.metadata()?.len() <= self.bytes_max {
            return Ok(());
        }
        // A rest of an earlier one is not written over: who reads it goes on.
        remove(&self.earlier)?;
        let mut earlier = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.earlier)?;
        io::copy(&mut log, &mut earlier)?;
        log.set_len(0)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn small(place: &Path) -> NodeLog {
        NodeLog { path: place.join(LOG), earlier: place.join(EARLIER), bytes_max: 100 }
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_large_log_makes_way_when_its_node_starts() {
        let place = tempfile::tempdir().expect("a directory");
        let log = small(place.path());
        let mut file = log.open().expect("made");
        file.write_all(&[b'a'; 100]).expect("room");
        file = log.open().expect("there");
        assert_eq!((text(&log.path).len(), log.earlier.exists()), (100, false), "just as much as may be");
        file.write_all(b"a").expect("room");
        // Another start while the node runs: it goes on in the same file.
        drop(log.open().expect("there"));
        file.write_all(b"b").expect("room");
        assert_eq!((text(&log.path).as_str(), text(&log.earlier)), ("b", "a".repeat(101)));
    }

    #[tokio::test]
    async fn a_large_log_makes_way_while_its_node_runs_and_the_node_goes_on_at_its_new_end() {
        let place = tempfile::tempdir().expect("a directory");
        let log = small(place.path());
        let (path, earlier) = (log.path.clone(), log.earlier.clone());
        let mut file = log.open().expect("made");
        let looking = tokio::spawn(log.look_every(Duration::from_millis(1)));
        for round in ["c", "d"] {
            file.write_all(round.repeat(101).as_bytes()).expect("room");
            tokio::time::timeout(Duration::from_secs(60), async {
                while !text(&path).is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("it makes way");
            assert_eq!(text(&earlier), round.repeat(101));
        }
        file.write_all(b"next").expect("room");
        assert_eq!(text(&path), "next");
        looking.abort();
    }
}
