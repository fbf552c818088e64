//! What the jobs have printed, on the head's disk: a file a job, and the one before it once it has grown.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use mobula_control::LogPart;
use mobula_core::cluster::JobId;
use mobula_core::{NodeUid, codec};
use mobula_transport::unix::Directory;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Files that are kept open beyond those that somebody reads.
const OPEN_MAX: usize = 256;

/// 16 MiB: a file that is larger makes way for another; with the one before it a job takes twice as much.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A head has so many bits for the parts of a job.
const TERM_SHIFT: u32 = 40;

/// Nodes of which is known what they have sent; beyond, all are forgotten, and what comes twice is kept twice.
const NODES_MAX: usize = 65_536;

pub(crate) struct JobLogs {
    directory: Directory,
    /// The last that each node has sent.
    heard: Mutex<HashMap<NodeUid, u64>>,
    open: Mutex<HashMap<JobId, Open>>,
    /// The numbers of the last parts of jobs whose files are closed.
    closed: Mutex<HashMap<JobId, u64>>,
    file_bytes_max: u64,
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

impl JobLogs {
    pub(crate) fn new(directory: Directory) -> Self {
        let (heard, open, closed) = (Mutex::default(), Mutex::default(), Mutex::default());
        JobLogs { directory, heard, open, closed, file_bytes_max: FILE_BYTES_MAX }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log"))
    }

    fn earlier(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log.1"))
    }

    /// Adds what a process has printed, as the head of that term. Its number begins with the term: so those of another head, which has nothing of what
    /// this one has kept, are larger as well.
    pub(crate) fn append(&self, job: JobId, node: NodeUid, mut part: LogPart, term: u64) -> io::Result<()> {
        let mut all = self.open.lock();
        let sent = part.number;
        let mut heard = self.heard.lock();
        // Nodes of an earlier version give no numbers.
        if sent > 0 && heard.get(&node).is_some_and(|last| sent <= *last) {
            return Ok(());
        }
        let open = self.opened(&mut all, job)?;
        part.number = (term << TERM_SHIFT).max(open.last + 1);
        let mut record = vec![0; 4];
        record.extend_from_slice(&codec::encode(&part).map_err(io::Error::other)?);
        let length = u32::try_from(record.len() - 4).map_err(io::Error::other)?;
        record[..4].copy_from_slice(&length.to_be_bytes());
        if open.bytes > 0 && open.bytes + record.len() as u64 > self.file_bytes_max {
            fs::rename(self.path(job), self.earlier(job))?;
            *open = Open {
                file: create(&self.path(job))?,
                bytes: 0,
                turned: open.turned + 1,
                last: open.last,
                changed: open.changed.clone(),
            };
        }
        if let Err(error) = open.file.write_all(&record) {
            // Whatever is behind half a record could not be read.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        open.bytes += record.len() as u64;
        open.last = part.number;
        if heard.len() >= NODES_MAX {
            heard.clear();
        }
        heard.insert(node, sent);
        open.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Forgets what other jobs have printed, which the head has forgotten. One that is later than all of these is not known here yet.
    pub(crate) fn keep_only(&self, jobs: &BTreeSet<JobId>) {
        let Some(newest) = jobs.last() else { return };
        let is_kept = |job: &JobId| jobs.contains(job) || job > newest;
        let Ok(entries) = fs::read_dir(self.directory.path()) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let job = path.file_name().and_then(|name| name.to_str()?.split('.').next()?.parse().ok());
            if job.is_some_and(|job| !is_kept(&job)) {
                let _ = fs::remove_file(path);
            }
        }
        self.open.lock().retain(|job, _| is_kept(job));
        self.closed.lock().retain(|job, _| is_kept(job));
    }

    /// Reads what a job has printed, what has a larger number than `after`, and then what comes.
    pub(crate) fn read(&self, job: JobId, after: u64) -> io::Result<LogReader> {
        let mut all = self.open.lock();
        let open = self.opened(&mut all, job)?;
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
                if part.number <= reader.after && reader.after > 0 {
                    continue;
                }
                return Ok(Some(part));
            }
            if reader.fill()? > 0 {
                continue;
            }
            if reader.files.len() > 1 {
                reader.files.pop();
                continue;
            }
            let all = self.open.lock();
            match all.get(&job) {
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

    fn opened<'a>(&self, all: &'a mut HashMap<JobId, Open>, job: JobId) -> io::Result<&'a mut Open> {
        if all.len() >= OPEN_MAX && !all.contains_key(&job) {
            // Who prints again opens it again.
            let mut closed = self.closed.lock();
            all.retain(|job, open| {
                let is_read = open.changed.receiver_count() > 0;
                if !is_read {
                    closed.insert(*job, open.last);
                }
                is_read
            });
        }
        match all.entry(job) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let file = create(&self.path(job))?;
                let known = self.closed.lock().remove(&job);
                let (last, bytes) = match known {
                    Some(last) => (last, file.metadata()?.len()),
                    None => {
                        let (last, whole) = scan(&self.path(job))?;
                        // A head that was killed may have left half a record: whatever came behind it could not be read.
                        file.set_len(whole)?;
                        (last.max(scan(&self.earlier(job)).map_or(0, |(last, _)| last)), whole)
                    }
                };
                Ok(place.insert(Open { file, bytes, turned: 0, last, changed: watch::Sender::new(0) }))
            }
        }
    }
}

/// The largest number in a file that an earlier head has written, and how many bytes of it are whole records.
fn scan(path: &PathBuf) -> io::Result<(u64, u64)> {
    let (file, changed) = (File::open(path)?, watch::channel(0).1);
    let mut reader = LogReader { files: vec![file], turned: 0, after: 0, buffer: Vec::new(), changed };
    let (mut last, mut read) = (0, 0);
    loop {
        while let Ok(Some(part)) = reader.part() {
            last = part.number.max(last);
        }
        match reader.fill()? as u64 {
            0 => return Ok((last, read - reader.buffer.len() as u64)),
            count => read += count,
        }
    }
}

fn create(path: &PathBuf) -> io::Result<File> {
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
    fn part(&mut self) -> io::Result<Option<LogPart>> {
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
            assert!(logs.open.lock().len() <= OPEN_MAX);
        }
        assert!(logs.open.lock().contains_key(&JobId(1)), "somebody reads it");
        drop(reader);
        logs.keep_only(&BTreeSet::from([JobId(2), JobId(265)]));
        let mut left: Vec<_> = fs::read_dir(parent.path().join("logs"))
            .expect("there")
            .map(|entry| entry.expect("there").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["job-2.log", "job-265.log", "job-266.log"],
            "the last may be newer than what the head has said"
        );
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
            assert_eq!(again.opened(&mut again.open.lock(), JobId(1)).expect("readable").last, (3 << TERM_SHIFT) + 1);
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
}
