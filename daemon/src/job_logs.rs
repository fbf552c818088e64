//! What the jobs have printed, on the head's disk: a file a job, and the one before it once it has grown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mobula_control::LogPart;
use mobula_core::cluster::JobId;
use mobula_core::{NodeUid, codec, limits};
use mobula_transport::unix::Directory;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Files that are kept open beyond those that somebody reads.
const OPEN_MAX: usize = 256;

/// A head has so many bits for the parts of a job.
const TERM_SHIFT: u32 = 32;

/// Nodes of which is known what they have sent; beyond, all are forgotten, and what comes twice is kept twice.
const NODES_MAX: usize = 65_536;

pub(crate) struct JobLogs {
    directory: Directory,
    state: Mutex<State>,
    file_bytes_max: u64,
    bytes_max: u64,
}

#[derive(Default)]
struct State {
    /// The last that each node has sent, as far as it was heard or found in a file.
    heard: HashMap<NodeUid, u64>,
    open: HashMap<JobId, Open>,
    /// The numbers of the last parts of jobs whose files are closed.
    closed: HashMap<JobId, u64>,
    /// In all files.
    bytes: u64,
}

struct Open {
    file: File,
    bytes: u64,
    /// How often a file has made way.
    turned: u64,
    /// The number of the last part.
    last: u64,
    changed: watch::Sender<u64>,
}

/// A part, as it lies in a file: with what it was to the node that has sent it.
#[derive(Serialize, Deserialize)]
struct Kept {
    source: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    #[serde(default)]
    number: u64,
    /// Who has sent it, and which one of all that it was, if it said so.
    #[serde(default)]
    from: Option<(NodeUid, u64)>,
}

impl JobLogs {
    pub(crate) fn new(directory: Directory) -> Self {
        let files = fs::read_dir(directory.path()).into_iter().flatten();
        let bytes = files.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        let state = Mutex::new(State { bytes, ..State::default() });
        let (file_bytes_max, bytes_max) = (limits::JOB_LOG_BYTES_MAX, limits::JOB_LOGS_BYTES_MAX);
        JobLogs { directory, state, file_bytes_max, bytes_max }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log"))
    }

    fn earlier(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log.1"))
    }

    /// Adds what a process has printed, as the head of that term. Its number begins with the term: so those of another head, which has nothing of what
    /// this one has kept, are larger as well. What a node sends again is not kept again, also where the head has begun anew in between. True if it is time to
    /// [make room](Self::make_room).
    pub(crate) fn append(&self, job: JobId, node: NodeUid, part: LogPart, term: u64) -> io::Result<bool> {
        let state = &mut *self.state.lock();
        self.opened(state, job)?;
        let Some(open) = state.open.get_mut(&job) else { return Ok(false) };
        let sent = part.number;
        // Nodes of an earlier version give no numbers.
        if sent > 0 && state.heard.get(&node).is_some_and(|last| sent <= *last) {
            return Ok(false);
        }
        let number = (term << TERM_SHIFT).max(open.last + 1);
        let from = (sent > 0).then_some((node, sent));
        let kept = Kept { source: part.source, bytes: part.bytes, number, from };
        let mut record = vec![0; 4];
        record.extend_from_slice(&codec::encode(&kept).map_err(io::Error::other)?);
        let length = u32::try_from(record.len() - 4).map_err(io::Error::other)?;
        record[..4].copy_from_slice(&length.to_be_bytes());
        if open.bytes > 0 && open.bytes + record.len() as u64 > self.file_bytes_max {
            let freed = fs::metadata(self.earlier(job)).map_or(0, |earlier| earlier.len());
            fs::rename(self.path(job), self.earlier(job))?;
            state.bytes = state.bytes.saturating_sub(freed);
            open.turn(create(&self.path(job))?);
        }
        if let Err(error) = open.file.write_all(&record) {
            // Whatever is behind half a record could not be read.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        open.bytes += record.len() as u64;
        open.last = number;
        state.bytes += record.len() as u64;
        if state.heard.len() >= NODES_MAX {
            state.heard.clear();
        }
        state.heard.insert(node, sent);
        open.changed.send_modify(|version| *version += 1);
        Ok(state.bytes > self.bytes_max)
    }

    /// Keeps to the limit of all jobs together, with some room to go on. Jobs that are `over`, in their order, are forgotten first; then what others have printed
    /// longest ago, and earlier files before those that are written.
    pub(crate) fn make_room(&self, over: &[JobId]) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let over: HashMap<JobId, usize> = over.iter().enumerate().map(|(at, job)| (*job, at)).collect();
        let mut files = Vec::new();
        let mut bytes = 0;
        for entry in fs::read_dir(self.directory.path())? {
            let entry = entry?;
            let (Ok(metadata), path) = (entry.metadata(), entry.path()) else { continue };
            bytes += metadata.len();
            let Some(job) = job_of(&path) else { continue };
            let is_earlier = path.extension().is_some_and(|extension| extension == "1");
            let at = over.get(&job).copied();
            files.push((
                (at.is_none(), at, !is_earlier && at.is_none(), metadata.modified()?),
                metadata.len(),
                path,
                job,
            ));
        }
        files.sort();
        let enough = self.bytes_max - self.bytes_max / 16;
        for (_, length, path, job) in files {
            if bytes <= enough {
                break;
            }
            fs::remove_file(&path)?;
            bytes -= length;
            if path == self.path(job)
                && let Some(open) = state.open.get_mut(&job)
            {
                open.turn(create(&path)?);
            }
        }
        state.bytes = bytes;
        Ok(())
    }

    /// Forgets what other jobs have printed.
    pub(crate) fn keep_only(&self, is_kept: impl Fn(JobId) -> bool) {
        let state = &mut *self.state.lock();
        let Ok(entries) = fs::read_dir(self.directory.path()) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if job_of(&path).is_some_and(|job| !is_kept(job)) {
                let length = entry.metadata().map_or(0, |metadata| metadata.len());
                if fs::remove_file(path).is_ok() {
                    state.bytes = state.bytes.saturating_sub(length);
                }
            }
        }
        state.open.retain(|job, _| is_kept(*job));
        state.closed.retain(|job, _| is_kept(*job));
    }

    /// Reads what a job has printed, what has a larger number than `after`, and then what comes.
    pub(crate) fn read(&self, job: JobId, after: u64) -> io::Result<LogReader> {
        let state = &mut *self.state.lock();
        let open = self.opened(state, job)?;
        let now = File::open(self.path(job))?;
        let files = match File::open(self.earlier(job)) {
            Ok(earlier) => vec![now, earlier],
            Err(_) => vec![now],
        };
        let changed = open.changed.subscribe();
        Ok(LogReader { files, turned: open.turned, after, buffer: Vec::new(), changed })
    }

    /// Reads on; none when there is nothing more for now.
    pub(crate) fn next(&self, job: JobId, reader: &mut LogReader) -> io::Result<Option<LogPart>> {
        loop {
            if let Some(part) = reader.part()? {
                let Kept { source, bytes, number, .. } = part;
                if number <= reader.after && reader.after > 0 {
                    continue;
                }
                return Ok(Some(LogPart { source, bytes, number }));
            }
            if reader.fill()? > 0 {
                continue;
            }
            if reader.files.len() > 1 {
                reader.files.pop();
                continue;
            }
            match self.state.lock().open.get(&job) {
                Some(open) if open.turned != reader.turned => {
                    // Between the end that was seen and the turn something may have been added: read to the end again, once.
                    let mut rest = Vec::new();
                    if let Some(file) = reader.files.last_mut() {
                        file.read_to_end(&mut rest)?;
                    }
                    reader.buffer.extend_from_slice(&rest);
                    reader.files = vec![File::open(self.path(job))?];
                    reader.turned = open.turned;
                }
                _ => return Ok(None),
            }
        }
    }

    fn opened<'a>(&self, state: &'a mut State, job: JobId) -> io::Result<&'a mut Open> {
        if state.open.len() >= OPEN_MAX && !state.open.contains_key(&job) {
            // Who prints again opens it again.
            state.open.retain(|job, open| {
                let is_read = open.changed.receiver_count() > 0;
                if !is_read {
                    state.closed.insert(*job, open.last);
                }
                is_read
            });
        }
        match state.open.entry(job) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let file = create(&self.path(job))?;
                let (last, bytes) = match state.closed.remove(&job) {
                    Some(last) => (last, file.metadata()?.len()),
                    None => {
                        let now = Scanned::of(&self.path(job))?;
                        let earlier = Scanned::of(&self.earlier(job)).unwrap_or_default();
                        // A head that was killed may have left half a record: whatever came behind it could not be read.
                        state.bytes = state.bytes.saturating_sub(file.metadata()?.len().saturating_sub(now.whole));
                        file.set_len(now.whole)?;
                        for (node, sent) in now.heard.into_iter().chain(earlier.heard) {
                            let heard = state.heard.entry(node).or_default();
                            *heard = sent.max(*heard);
                        }
                        (now.last.max(earlier.last), now.whole)
                    }
                };
                Ok(place.insert(Open { file, bytes, turned: 0, last, changed: watch::Sender::new(0) }))
            }
        }
    }
}

impl Open {
    /// Goes on in a new file.
    fn turn(&mut self, file: File) {
        (self.file, self.bytes) = (file, 0);
        self.turned += 1;
    }
}

/// Whose file it is.
fn job_of(path: &Path) -> Option<JobId> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// What is found in a file that an earlier head has written.
#[derive(Default)]
struct Scanned {
    /// The largest number.
    last: u64,
    /// How many bytes are whole records.
    whole: u64,
    /// The last that each node has sent.
    heard: HashMap<NodeUid, u64>,
}

impl Scanned {
    fn of(path: &Path) -> io::Result<Self> {
        let (file, changed) = (File::open(path)?, watch::channel(0).1);
        let mut reader = LogReader { files: vec![file], turned: 0, after: 0, buffer: Vec::new(), changed };
        let (mut scanned, mut read) = (Scanned::default(), 0);
        loop {
            while let Ok(Some(kept)) = reader.part() {
                scanned.last = kept.number.max(scanned.last);
                if let Some((node, sent)) = kept.from {
                    let heard = scanned.heard.entry(node).or_default();
                    *heard = sent.max(*heard);
                }
            }
            match reader.fill()? as u64 {
                0 => {
                    scanned.whole = read - reader.buffer.len() as u64;
                    return Ok(scanned);
                }
                count => read += count,
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Where somebody is who reads a job's log.
pub(crate) struct LogReader {
    /// The one that is read is the last.
    files: Vec<File>,
    turned: u64,
    after: u64,
    buffer: Vec<u8>,
    changed: watch::Receiver<u64>,
}

impl LogReader {
    /// Resolves when there may be more. Cancel-safe.
    pub(crate) async fn more(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reads on in the file that is read: how many bytes there were.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(file) = self.files.last_mut() else { return Ok(0) };
        let mut bytes = [0; 16 * 1024];
        let count = file.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// What the buffer begins with, if it is whole.
    fn part(&mut self) -> io::Result<Option<Kept>> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let part = codec::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.buffer.drain(..4 + length);
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const NODE: NodeUid = NodeUid(7);
    static SENT: AtomicU64 = AtomicU64::new(1);

    fn part(text: &str) -> LogPart {
        LogPart {
            source: "driver".to_owned(),
            bytes: text.as_bytes().to_vec(),
            number: SENT.fetch_add(1, Ordering::Relaxed),
        }
    }

    #[test]
    fn what_the_head_has_forgotten_leaves_the_disk_and_open_files_are_bounded() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs::new(directory);
        let reader = logs.read(JobId(1), 0).expect("there");
        for job in 1..=OPEN_MAX as u64 + 10 {
            logs.append(JobId(job), NODE, part("word\n"), 0).expect("room");
            assert!(logs.state.lock().open.len() <= OPEN_MAX);
        }
        assert!(logs.state.lock().open.contains_key(&JobId(1)), "somebody reads it");
        drop(reader);
        logs.keep_only(|job| [2, 265].contains(&job.0));
        let mut left: Vec<_> = fs::read_dir(parent.path().join("logs"))
            .expect("there")
            .map(|entry| entry.expect("there").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["job-2.log", "job-265.log"]);
    }

    #[test]
    fn what_is_half_written_is_cut_off_and_nodes_without_numbers_are_heard() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs::new(directory.clone());
        let old = LogPart { number: 0, ..part("one\n") };
        logs.append(JobId(1), NodeUid(8), old.clone(), 3).expect("room");
        logs.append(JobId(1), NodeUid(8), old, 3).expect("room");
        let path = logs.path(JobId(1));
        let whole = fs::metadata(&path).expect("there").len();
        for torn in [&[0, 0][..], &[0, 0, 0, 9, 1], &[0, 0, 0, 1, 0xc1]] {
            OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(torn)).expect("room");
            let again = JobLogs::new(directory.clone());
            let state = &mut *again.state.lock();
            assert_eq!(again.opened(state, JobId(1)).expect("readable").last, (3 << TERM_SHIFT) + 1);
            assert_eq!(state.bytes, whole, "{torn:?}");
            assert_eq!(fs::metadata(&path).expect("there").len(), whole, "{torn:?}");
        }
        let again = JobLogs::new(directory);
        again.append(JobId(1), NODE, part("two\n"), 4).expect("room");
        let mut reader = again.read(JobId(1), 0).expect("there");
        assert_eq!(rest(&again, &mut reader), ["one\n", "one\n", "two\n"]);
    }

    fn rest(logs: &JobLogs, reader: &mut LogReader) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(part) = logs.next(JobId(1), reader).expect("readable") {
            all.push(String::from_utf8(part.bytes).expect("text"));
        }
        all
    }

    #[test]
    fn a_reader_sees_what_was_and_what_comes_over_a_turn_of_files() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs { file_bytes_max: 150, ..JobLogs::new(directory.clone()) };
        logs.append(JobId(1), NODE, part("one\n"), 0).expect("room");
        let mut reader = logs.read(JobId(1), 0).expect("there");
        assert_eq!(rest(&logs, &mut reader), ["one\n"]);
        assert!(rest(&logs, &mut reader).is_empty());
        for word in ["two\n", "three\n", "four\n", "five\n"] {
            logs.append(JobId(1), NODE, part(word), 0).expect("room");
        }
        assert_eq!(rest(&logs, &mut reader), ["two\n", "three\n", "four\n", "five\n"]);
        assert!(parent.path().join("logs/job-1.log.1").exists());
        let mut late = logs.read(JobId(1), 0).expect("there");
        assert_eq!(rest(&logs, &mut late).last().map(String::as_str), Some("five\n"));
        // Another head finds what this one has written.
        let again = JobLogs::new(directory);
        let mut reader = again.read(JobId(1), 0).expect("there");
        assert!(rest(&again, &mut reader).contains(&"five\n".to_owned()));
    }

    #[test]
    fn who_comes_back_hears_nothing_twice_also_of_another_head() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs { file_bytes_max: 200, ..JobLogs::new(directory.clone()) };
        for word in ["one\n", "two\n", "three\n"] {
            logs.append(JobId(1), NODE, part(word), 0).expect("room");
        }
        let mut reader = logs.read(JobId(1), 0).expect("there");
        let mut numbers = Vec::new();
        while let Some(part) = logs.next(JobId(1), &mut reader).expect("readable") {
            numbers.push(part.number);
        }
        assert_eq!(numbers, [1, 2, 3]);
        // A node that has heard no answer sends it again.
        let twice = part("once\n");
        logs.append(JobId(2), NODE, twice.clone(), 0).expect("room");
        logs.append(JobId(2), NODE, twice, 0).expect("room");
        let mut once = logs.read(JobId(2), 0).expect("there");
        assert!(logs.next(JobId(2), &mut once).expect("readable").is_some());
        assert!(logs.next(JobId(2), &mut once).expect("readable").is_none());
        // The same head, started again; that its term is another one does not matter.
        let again = JobLogs { file_bytes_max: 200, ..JobLogs::new(directory) };
        let mut reader = again.read(JobId(1), 2).expect("there");
        again.append(JobId(1), NODE, part("four\n"), 0).expect("room");
        assert_eq!(rest(&again, &mut reader), ["three\n", "four\n"]);
        // Another one has none of that, and a later term.
        let other = JobLogs::new(Directory::create(parent.path().join("other")).expect("made"));
        let mut reader = other.read(JobId(1), 4).expect("there");
        other.append(JobId(1), NODE, part("five\n"), 1).expect("room");
        assert_eq!(rest(&other, &mut reader), ["five\n"]);
    }

    #[test]
    fn what_is_sent_again_to_the_next_head_on_the_same_disk_is_not_kept_twice() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs { file_bytes_max: 100, ..JobLogs::new(directory.clone()) };
        let (first, other, last) = (part("first\n"), part("of another node\n"), part("last\n"));
        logs.append(JobId(1), NODE, first.clone(), 1).expect("room");
        logs.append(JobId(1), NodeUid(8), other.clone(), 1).expect("room");
        logs.append(JobId(1), NODE, last.clone(), 1).expect("room");
        assert!(logs.earlier(JobId(1)).exists(), "two files are looked through");
        // It was killed before the nodes had its answer.
        let again = JobLogs::new(directory);
        for (node, twice) in [(NODE, last), (NodeUid(8), other)] {
            again.append(JobId(1), node, twice, 2).expect("room");
        }
        again.append(JobId(1), NODE, part("next\n"), 2).expect("room");
        let mut reader = again.read(JobId(1), 0).expect("there");
        assert_eq!(rest(&again, &mut reader).last_chunk(), Some(&["last\n", "next\n"].map(str::to_owned)));
    }

    #[test]
    fn all_logs_together_are_bounded_and_jobs_that_ended_first_go_first() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let text = "x".repeat(1000);
        let small = |logs| JobLogs { file_bytes_max: 2500, bytes_max: 9200, ..logs };
        let logs = small(JobLogs::new(directory.clone()));
        let append = |logs: &JobLogs, job| logs.append(JobId(job), NODE, part(&text), 0).expect("room");
        for job in [1, 2, 3, 4, 4, 4, 5] {
            assert!(!append(&logs, job));
        }
        // Also what an earlier head has left counts.
        let logs = small(JobLogs::new(directory));
        let mut reader = logs.read(JobId(4), 0).expect("there");
        assert!(logs.next(JobId(4), &mut reader).expect("readable").is_some());
        assert!(!append(&logs, 4));
        assert!(append(&logs, 5), "there is more than may be");
        let there = |logs: &JobLogs| {
            let all = (1..=5).flat_map(|job| [logs.path(JobId(job)), logs.earlier(JobId(job))]);
            let names =
                all.filter(|path| path.exists()).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
            names.collect::<Vec<_>>()
        };
        logs.make_room(&[JobId(3), JobId(1)]).expect("removable");
        assert_eq!(there(&logs), ["job-1.log", "job-2.log", "job-4.log", "job-4.log.1", "job-5.log"]);
        // Of jobs that run those that have printed longest ago, their earlier files first.
        let logs = JobLogs { bytes_max: 4000, ..logs };
        logs.make_room(&[JobId(3), JobId(1)]).expect("removable");
        assert_eq!(there(&logs), ["job-4.log", "job-5.log"]);
        // Who reads what has gone hears what comes.
        let logs = JobLogs { bytes_max: 10, ..logs };
        logs.make_room(&[]).expect("removable");
        append(&logs, 4);
        let mut heard = Vec::new();
        while let Some(part) = logs.next(JobId(4), &mut reader).expect("readable") {
            heard.push(part.number);
        }
        assert_eq!(heard.last(), Some(&5), "{heard:?}");
    }
}
