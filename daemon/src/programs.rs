//! The programs of jobs on this host's disk, by their BLAKE3 hash: nothing runs whose content is not what was named.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mobula_control::{Client, ControlError, GetExecutable, Part, Refusal, identify};
use mobula_core::cluster::{Executable, Refused};
use mobula_core::limits;
use mobula_transport::unix::Directory;
use tokio::sync::Mutex;

/// The time between two parts of a program, and between its last one and the job that names it, is shorter.
const IN_USE_FOR: Duration = Duration::from_secs(60);

/// Keeps programs in a directory that is this user's alone.
pub(crate) struct Programs {
    kept: Arc<Kept>,
    /// One at a time fetches or takes in a program.
    busy: Mutex<HashMap<Executable, Arc<Mutex<()>>>>,
}

/// Who needs programs on this host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Needs {
    /// The head: those of all jobs that are not over.
    Head,
    /// The node: those of what runs here or is about to.
    Node,
}

/// What lies on the disk.
struct Kept {
    directory: Directory,
    bytes_max: u64,
    /// What was used within this time is in use: a program that was handed in and that no job names yet, and one that comes part by part.
    in_use_for: Duration,
    needed: parking_lot::Mutex<HashMap<Needs, HashSet<Executable>>>,
    /// Held from finding room to taking it.
    room: parking_lot::Mutex<()>,
}

impl Programs {
    pub(crate) fn new(directory: Directory, bytes_max: u64) -> Self {
        let (needed, room) = (parking_lot::Mutex::default(), parking_lot::Mutex::default());
        let kept = Kept { directory, bytes_max, in_use_for: IN_USE_FOR, needed, room };
        Programs { kept: Arc::new(kept), busy: Mutex::default() }
    }

    /// These stay, until the same says otherwise.
    pub(crate) fn need(&self, whose: Needs, programs: impl IntoIterator<Item = Executable>) {
        let programs = programs.into_iter().collect();
        self.kept.needed.lock().insert(whose, programs);
    }

    /// Where a program is, if it is here. From then on it has been used.
    pub(crate) fn find(&self, executable: &Executable) -> Option<PathBuf> {
        self.kept.find(executable)
    }

    /// The part of a program that begins at `offset`.
    pub(crate) fn part(&self, executable: &Executable, offset: u64) -> Result<Part, Refusal> {
        let path = self.find(executable).ok_or_else(|| unknown(executable))?;
        let read = File::open(path).and_then(|mut file| Part::read(&mut file, offset));
        read.map_err(|error| Refusal::Failed(format!("the program cannot be read: {error}")))
    }

    /// Takes a part in; parts come in order. The last one makes the program whole, if its hash is what it should be. The first one takes the room of all: if there
    /// is none, it is [`Refused::Full`].
    pub(crate) async fn take_in(&self, executable: &Executable, part: Part) -> Result<(), Refusal> {
        if self.find(executable).is_some() {
            return Ok(());
        }
        let lock = self.lock(executable).await;
        let _held = lock.lock().await;
        if self.find(executable).is_some() {
            return Ok(());
        }
        self.append(executable, part).await
    }

    /// Where a program is; fetched from the head if it is not here.
    pub(crate) async fn get(&self, executable: &Executable, head: &Client) -> Result<PathBuf, ControlError> {
        if let Some(path) = self.find(executable) {
            return Ok(path);
        }
        let lock = self.lock(executable).await;
        let _held = lock.lock().await;
        let mut offset = 0;
        loop {
            if let Some(path) = self.find(executable) {
                return Ok(path);
            }
            let part = head.ask(GetExecutable { executable: *executable, offset }).await?;
            offset += limits::EXECUTABLE_PART_BYTES as u64;
            self.append(executable, part).await.map_err(|refusal| match refusal {
                Refusal::Head(Refused::Full { limit, .. }) => {
                    Refusal::Failed(format!("this node has {limit} bytes for the programs of all that runs on it"))
                }
                refusal => refusal,
            })?;
        }
    }

    async fn append(&self, executable: &Executable, part: Part) -> Result<(), Refusal> {
        let (kept, executable) = (Arc::clone(&self.kept), *executable);
        let written = tokio::task::spawn_blocking(move || kept.append(&executable, &part)).await;
        written.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
    }

    async fn lock(&self, executable: &Executable) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().await;
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(busy.entry(*executable).or_default())
    }
}

impl Kept {
    fn path(&self, executable: &Executable) -> PathBuf {
        self.directory.path().join(executable.hash.to_string())
    }

    /// A program that is not whole yet. Its name says how much it will be: that is taken from the start.
    fn draft(&self, executable: &Executable) -> PathBuf {
        self.directory.path().join(format!("{}.{}.part", executable.hash, executable.bytes))
    }

    fn find(&self, executable: &Executable) -> Option<PathBuf> {
        let path = self.path(executable);
        let metadata = fs::symlink_metadata(&path).ok()?;
        let is_it = metadata.is_file() && metadata.len() == executable.bytes;
        if is_it {
            // File systems note reads late or not at all.
            let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        is_it.then_some(path)
    }

    fn append(&self, executable: &Executable, part: &Part) -> Result<(), Refusal> {
        if executable.bytes > limits::EXECUTABLE_BYTES_MAX {
            let max = limits::EXECUTABLE_BYTES_MAX;
            return Err(Refusal::Invalid(format!(
                "ExecutableTooLarge: {} bytes, at most {max} are taken",
                executable.bytes
            )));
        }
        let bytes = part.bytes().map_err(|error| Refusal::Invalid(error.to_string()))?;
        let (draft, path) = (self.draft(executable), self.path(executable));
        let opened = {
            let _held = self.room.lock();
            if part.offset == 0 {
                self.make_room(executable, &draft)?;
            }
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(part.offset == 0).truncate(false).mode(0o700).open(&draft)
        };
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(out_of_order(part, 0, executable)),
            Err(error) => return Err(not_kept(error)),
        };
        write_part(&mut file, executable, part, &bytes)?;
        if file.metadata().map_err(not_kept)?.len() < executable.bytes {
            return if bytes.is_empty() { Err(Refusal::Invalid("an empty part".to_owned())) } else { Ok(()) };
        }
        let found = identify(&mut file).map_err(not_kept)?;
        if found != *executable {
            let _ = fs::remove_file(draft);
            let text = format!("the program is not what was named: its hash is {}", found.hash);
            return Err(Refusal::Invalid(text));
        }
        file.sync_all().map_err(not_kept)?;
        // A file that somebody has open for writing cannot be run.
        drop(file);
        fs::rename(draft, path).map_err(not_kept)
    }

    /// Sees to it that all of a program has room. What nobody needs or uses goes for it, what was used longest ago first.
    fn make_room(&self, executable: &Executable, draft: &Path) -> Result<(), Refusal> {
        let needed: HashSet<String> =
            self.needed.lock().values().flatten().map(|program| program.hash.to_string()).collect();
        let (mut stays, mut may_go) = (executable.bytes, Vec::new());
        for entry in fs::read_dir(self.directory.path()).map_err(not_kept)? {
            let entry = entry.map_err(not_kept)?;
            // Somebody else has removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if !metadata.is_file() || path == draft {
                continue;
            }
            let announced = name.strip_suffix(".part").and_then(|name| name.split_once('.')?.1.parse().ok());
            let bytes = announced.unwrap_or(0).max(metadata.len());
            let used = metadata.modified().map_err(not_kept)?;
            // A time to come is of a clock that was wrong.
            let is_used = used.elapsed().unwrap_or_default() < self.in_use_for;
            if needed.contains(&name) || is_used {
                stays += bytes;
            } else {
                may_go.push((used, bytes, path));
            }
        }
        if stays > self.bytes_max {
            let what = "bytes for the programs of jobs that are not over".to_owned();
            return Err(Refusal::Head(Refused::Full { what, limit: self.bytes_max }));
        }
        may_go.sort();
        let mut total = stays + may_go.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        for (_, bytes, path) in may_go {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(&path).map_err(not_kept)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// Adds a part to what there is of a program.
fn write_part(file: &mut File, executable: &Executable, part: &Part, bytes: &[u8]) -> Result<(), Refusal> {
    let mut have = file.metadata().map_err(not_kept)?.len();
    if part.offset < have {
        // Another one hands the same program in, and is ahead; or has given up, and left something else.
        // That keeps nothing in use: who says the same again and again takes no room from others.
        if is_there(file, part.offset, bytes).map_err(not_kept)? {
            return Ok(());
        }
        if part.offset == 0 {
            file.set_len(0).map_err(not_kept)?;
            have = 0;
        }
    }
    if have != part.offset || have + bytes.len() as u64 > executable.bytes {
        return Err(out_of_order(part, have, executable));
    }
    file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(bytes)).map_err(not_kept)
}

fn not_kept(error: io::Error) -> Refusal {
    Refusal::Failed(format!("the program cannot be kept: {error}"))
}

fn out_of_order(part: &Part, have: u64, executable: &Executable) -> Refusal {
    Refusal::Invalid(format!("a part at {} comes next to {have} bytes of {}", part.offset, executable.bytes))
}

fn unknown(executable: &Executable) -> Refusal {
    Refusal::NotFound { what: format!("program {}", executable.hash) }
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

    /// Those that are not in use go at once.
    fn small(kept_bytes_max: u64) -> (tempfile::TempDir, Programs) {
        let (parent, mut programs) = programs(kept_bytes_max);
        Arc::get_mut(&mut programs.kept).expect("its own").in_use_for = Duration::ZERO;
        (parent, programs)
    }

    async fn hand_in(programs: &Programs, fill: u8, bytes: usize) -> Result<Executable, Refusal> {
        let (executable, parts) = program(fill, bytes);
        for part in parts {
            programs.take_in(&executable, part).await?;
        }
        Ok(executable)
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room_and_what_jobs_need_does_not() {
        let (_parent, programs) = small(350);
        let first = hand_in(&programs, 1, 100).await.expect("room");
        let second = hand_in(&programs, 2, 100).await.expect("room");
        let third = hand_in(&programs, 3, 100).await.expect("room");
        let old = SystemTime::now() - Duration::from_secs(1000);
        for program in [first, second, third] {
            File::open(programs.kept.path(&program)).and_then(|file| file.set_modified(old)).expect("its own");
        }
        programs.need(Needs::Head, [first]);
        // Whoever reads of it uses it.
        programs.part(&second, 0).expect("there");
        let fourth = hand_in(&programs, 4, 100).await.expect("the third makes room");
        let there = |program| programs.kept.path(program).exists();
        assert!(there(&first) && there(&second) && !there(&third) && there(&fourth));
        // What stays is for the head or for the node.
        programs.need(Needs::Node, [second, fourth]);
        let refused = hand_in(&programs, 5, 100).await.expect_err("all the others are needed");
        assert!(matches!(refused, Refusal::Head(Refused::Full { limit: 350, .. })), "{refused}");
        assert!(there(&first) && there(&second) && there(&fourth));
        programs.need(Needs::Head, []);
        hand_in(&programs, 5, 100).await.expect("no job needs the first any more");
        assert!(!there(&first) && there(&second) && there(&fourth));
    }

    #[tokio::test]
    async fn what_comes_part_by_part_has_its_room_from_the_start() {
        let part = limits::EXECUTABLE_PART_BYTES;
        let (_parent, programs) = programs(3 * part as u64);
        let (first, parts) = program(1, 2 * part);
        programs.take_in(&first, parts[0].clone()).await.expect("room for both");
        // The other half of it is taken, though it is not there yet.
        let refused = hand_in(&programs, 2, part + 1).await.expect_err("no room");
        assert!(matches!(refused, Refusal::Head(Refused::Full { .. })), "{refused}");
        let other = hand_in(&programs, 3, part).await.expect("just room enough");
        programs.take_in(&first, parts[1].clone()).await.expect("its room");
        assert!(programs.find(&first).is_some() && programs.find(&other).is_some());
        // No job names either of them yet; they were handed in for one.
        let refused = hand_in(&programs, 4, 1).await.expect_err("both were used just now");
        assert!(refused.to_string().contains("safe to try again later"), "{refused}");
    }

    #[tokio::test]
    async fn a_program_whose_parts_have_stopped_coming_makes_room() {
        let part = limits::EXECUTABLE_PART_BYTES;
        let (_parent, programs) = small(3 * part as u64);
        let (left, parts) = program(1, 2 * part);
        programs.take_in(&left, parts[0].clone()).await.expect("room");
        hand_in(&programs, 2, 2 * part).await.expect("room");
        assert!(!programs.kept.draft(&left).exists());
        let refused = programs.take_in(&left, parts[1].clone()).await.expect_err("it begins anew");
        assert!(refused.to_string().contains("comes next to 0 bytes"), "{refused}");
    }
}
