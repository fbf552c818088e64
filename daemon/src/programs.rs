//! The programs of jobs on this host's disk, by their BLAKE3 hash: nothing runs whose content is not what was named.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mobula_control::{Client, ControlError, GetExecutable, Part, Refusal, identify};
use mobula_core::cluster::Executable;
use mobula_core::limits;
use mobula_transport::unix::Directory;
use tokio::sync::Mutex;

/// Keeps programs in a directory that is this user's alone.
pub(crate) struct Programs {
    directory: Directory,
    /// One at a time fetches or takes in a program.
    busy: Mutex<HashMap<Executable, Arc<Mutex<()>>>>,
    kept_bytes_max: u64,
}

impl Programs {
    pub(crate) fn new(directory: Directory, kept_bytes_max: u64) -> Self {
        Programs { directory, busy: Mutex::default(), kept_bytes_max }
    }

    fn path(&self, executable: &Executable) -> PathBuf {
        self.directory.path().join(executable.hash.to_string())
    }

    fn draft(&self, executable: &Executable) -> PathBuf {
        self.directory.path().join(format!("{}.part", executable.hash))
    }

    /// Where a program is, if it is here.
    pub(crate) fn find(&self, executable: &Executable) -> Option<PathBuf> {
        let path = self.path(executable);
        let metadata = fs::symlink_metadata(&path).ok()?;
        (metadata.is_file() && metadata.len() == executable.bytes).then_some(path)
    }

    /// The part of a program that begins at `offset`.
    pub(crate) fn part(&self, executable: &Executable, offset: u64) -> Result<Part, Refusal> {
        let path = self.find(executable).ok_or_else(|| unknown(executable))?;
        let read = File::open(path).and_then(|mut file| Part::read(&mut file, offset));
        read.map_err(|error| Refusal::Failed(format!("the program cannot be read: {error}")))
    }

    /// Takes a part in; parts come in order. The last one makes the program whole, if its hash is what it should be.
    pub(crate) async fn take_in(&self, executable: &Executable, part: Part) -> Result<(), Refusal> {
        if self.find(executable).is_some() {
            return Ok(());
        }
        let lock = self.lock(executable).await;
        let _held = lock.lock().await;
        if self.find(executable).is_some() {
            return Ok(());
        }
        let (draft, path, executable) = (self.draft(executable), self.path(executable), *executable);
        let written = tokio::task::spawn_blocking(move || append(&draft, &path, &executable, &part)).await;
        let taken = written.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())));
        self.make_room(&executable);
        taken
    }

    /// Where a program is; fetched from the head if it is not here.
    pub(crate) async fn get(&self, executable: &Executable, head: &Client) -> Result<PathBuf, ControlError> {
        if let Some(path) = self.find(executable) {
            return Ok(path);
        }
        let lock = self.lock(executable).await;
        let _held = lock.lock().await;
        let (draft, path, executable) = (self.draft(executable), self.path(executable), *executable);
        let mut offset = 0;
        while self.find(&executable).is_none() {
            let part = head.ask(GetExecutable { executable, offset }).await?;
            offset += limits::EXECUTABLE_PART_BYTES as u64;
            let (draft, path) = (draft.clone(), path.clone());
            let written = tokio::task::spawn_blocking(move || append(&draft, &path, &executable, &part)).await;
            written.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))?;
        }
        self.make_room(&executable);
        Ok(path)
    }

    async fn lock(&self, executable: &Executable) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().await;
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(busy.entry(*executable).or_default())
    }

    /// The programs that were used longest ago go, until the rest keeps to the limit. What runs keeps its file until it ends.
    fn make_room(&self, keep: &Executable) {
        let Ok(entries) = fs::read_dir(self.directory.path()) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let metadata = entry.metadata().ok()?;
                let used = metadata.accessed().or_else(|_| metadata.modified()).ok()?;
                metadata.is_file().then(|| (used, metadata.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.kept_bytes_max {
                return;
            }
            if path != self.path(keep) && fs::remove_file(&path).is_ok() {
                total -= bytes;
            }
        }
    }
}

fn unknown(executable: &Executable) -> Refusal {
    Refusal::NotFound { what: format!("program {}", executable.hash) }
}

fn append(draft: &PathBuf, path: &PathBuf, executable: &Executable, part: &Part) -> Result<(), Refusal> {
    if executable.bytes > limits::EXECUTABLE_BYTES_MAX {
        let max = limits::EXECUTABLE_BYTES_MAX;
        return Err(Refusal::Invalid(format!(
            "ExecutableTooLarge: {} bytes, at most {max} are taken",
            executable.bytes
        )));
    }
    let bytes = part.bytes().map_err(|error| Refusal::Invalid(error.to_string()))?;
    let failed = |error: io::Error| Refusal::Failed(format!("the program cannot be kept: {error}"));
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o700);
    let mut file = open.open(draft).map_err(failed)?;
    let mut have = file.metadata().map_err(failed)?.len();
    if part.offset < have {
        // Another one hands the same program in, and is ahead; or has given up, and left something else.
        if is_there(&mut file, part.offset, &bytes).map_err(failed)? {
            return Ok(());
        }
        if part.offset == 0 {
            file.set_len(0).map_err(failed)?;
            have = 0;
        }
    }
    if have != part.offset || have + bytes.len() as u64 > executable.bytes {
        return Err(Refusal::Invalid(format!(
            "a part at {} comes next to {have} bytes of {}",
            part.offset, executable.bytes
        )));
    }
    file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&bytes)).map_err(failed)?;
    if have + (bytes.len() as u64) < executable.bytes {
        return if bytes.is_empty() { Err(Refusal::Invalid("an empty part".to_owned())) } else { Ok(()) };
    }
    let found = identify(&mut file).map_err(failed)?;
    if found != *executable {
        let _ = fs::remove_file(draft);
        return Err(Refusal::Invalid(format!("the program is not what was named: its hash is {}", found.hash)));
    }
    file.sync_all().map_err(failed)?;
    // A file that somebody has open for writing cannot be run.
    drop(file);
    fs::rename(draft, path).map_err(failed)
}

/// True if the file has these bytes there.
fn is_there(file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; bytes.len()];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut found) {
        Ok(()) => Ok(found == bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::cluster::ExecutableHash;

    use super::*;

    fn programs(kept_bytes_max: u64) -> (tempfile::TempDir, Programs) {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("executables")).expect("made");
        (parent, Programs::new(directory, kept_bytes_max))
    }

    fn program(fill: u8, bytes: usize) -> (Executable, Vec<Part>) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![fill; bytes]).expect("room");
        let executable = identify(&mut file).expect("readable");
        let offsets = (0..bytes as u64).step_by(limits::EXECUTABLE_PART_BYTES);
        (executable, offsets.map(|offset| Part::read(&mut file, offset).expect("readable")).collect())
    }

    #[tokio::test]
    async fn a_program_is_there_when_its_last_part_fits() {
        let (_parent, programs) = programs(u64::MAX);
        let (executable, parts) = program(1, 2 * limits::EXECUTABLE_PART_BYTES + 5);
        for part in &parts {
            assert!(programs.find(&executable).is_none());
            programs.take_in(&executable, part.clone()).await.expect("in order");
        }
        let path = programs.find(&executable).expect("whole");
        assert_eq!(fs::read(path).expect("readable").len() as u64, executable.bytes);
        let again = programs.part(&executable, parts[1].offset).expect("there").bytes().expect("own");
        assert_eq!(again, parts[1].bytes().expect("own"));
    }

    #[tokio::test]
    async fn two_may_hand_in_the_same_program_at_once() {
        let (_parent, programs) = programs(u64::MAX);
        let (executable, parts) = program(1, 3 * limits::EXECUTABLE_PART_BYTES + 5);
        // Each its own in order, now one ahead and now the other.
        for at in [0, 1, 0, 1, 2, 2, 3, 3] {
            programs.take_in(&executable, parts[at].clone()).await.expect("in its order");
        }
        assert!(programs.find(&executable).is_some());
        // What somebody has left there that is something else is replaced.
        let (other, parts) = program(2, 2 * limits::EXECUTABLE_PART_BYTES);
        let (_, wrong) = program(3, 2 * limits::EXECUTABLE_PART_BYTES);
        programs.take_in(&other, wrong[0].clone()).await.expect("it is not known yet");
        for part in &parts {
            programs.take_in(&other, part.clone()).await.expect("in order");
        }
        assert!(programs.find(&other).is_some());
    }

    #[tokio::test]
    async fn what_is_not_what_was_named_is_not_kept() {
        let (_parent, programs) = programs(u64::MAX);
        let (executable, parts) = program(1, 100);
        let other = Executable { hash: ExecutableHash([9; 32]), ..executable };
        let refused = programs.take_in(&other, parts[0].clone()).await.expect_err("another hash");
        assert!(refused.to_string().contains("not what was named"), "{refused}");
        assert!(programs.find(&other).is_none());
        let (executable, parts) = program(2, 2 * limits::EXECUTABLE_PART_BYTES);
        programs.take_in(&executable, parts[1].clone()).await.expect_err("the second first");
        let short = Executable { bytes: 10, ..executable };
        programs.take_in(&short, parts[0].clone()).await.expect_err("more than was announced");
        let huge = Executable { bytes: limits::EXECUTABLE_BYTES_MAX + 1, ..executable };
        let refused = programs.take_in(&huge, parts[0].clone()).await.expect_err("too large");
        assert!(refused.to_string().contains("ExecutableTooLarge"), "{refused}");
    }

    #[tokio::test]
    async fn old_programs_make_room() {
        let (_parent, programs) = programs(150);
        let (first, parts) = program(1, 100);
        programs.take_in(&first, parts[0].clone()).await.expect("kept");
        let (second, parts) = program(2, 100);
        programs.take_in(&second, parts[0].clone()).await.expect("kept");
        assert!(programs.find(&first).is_none() && programs.find(&second).is_some());
    }
}
