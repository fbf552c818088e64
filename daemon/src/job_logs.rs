//! What the jobs have printed, on the head's disk: a file a job, and the one before it once it has grown.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Nodes of which is known what they have sent; beyond, all are forgotten, and what comes twice is kept twice.
const NODES_MAX: usize = 65_536;

pub(crate) struct JobLogs {
    directory: Directory,
    /// The last that each node has sent.
    heard: Mutex<HashMap<NodeUid, u64>>,
    open: Mutex<HashMap<JobId, Open>>,
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
        JobLogs { directory, heard: Mutex::default(), open: Mutex::default(), file_bytes_max: FILE_BYTES_MAX }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log"))
    }

    fn earlier(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log.1"))
    }

    /// Adds what a process has printed. Its number is that of the microsecond, or the next one: so also those of another head, which has nothing of what
    /// this one has kept, are larger.
    pub(crate) fn append(&self, job: JobId, node: NodeUid, mut part: LogPart, now: SystemTime) -> io::Result<()> {
        let mut all = self.open.lock();
        let sent = part.number;
        let mut heard = self.heard.lock();
        if heard.get(&node).is_some_and(|last| sent <= *last) {
            return Ok(());
        }
        let open = self.opened(&mut all, job)?;
        let micros = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        part.number = u64::try_from(micros).unwrap_or(u64::MAX).max(open.last + 1);
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
        open.file.write_all(&record)?;
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
            all.retain(|_, open| open.changed.receiver_count() > 0);
        }
        match all.entry(job) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let file = create(&self.path(job))?;
                let bytes = file.metadata()?.len();
                let last = last_number(&self.path(job))?.max(last_number(&self.earlier(job)).unwrap_or(0));
                Ok(place.insert(Open { file, bytes, turned: 0, last, changed: watch::Sender::new(0) }))
            }
        }
    }
}

/// The largest number in a file that an earlier head has written, or this one before it had closed it.
fn last_number(path: &PathBuf) -> io::Result<u64> {
    let (file, changed) = (File::open(path)?, watch::channel(0).1);
    let mut reader = LogReader { files: vec![file], turned: 0, after: 0, buffer: Vec::new(), changed };
    let mut last = 0;
    loop {
        while let Some(part) = reader.part()? {
            last = part.number.max(last);
        }
        if reader.fill()? == 0 {
            return Ok(last);
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

    /// The clock stands: numbers grow all the same.
    const NOW: SystemTime = UNIX_EPOCH;

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
            logs.append(JobId(job), NODE, part("word\n"), NOW).expect("room");
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
        logs.append(JobId(1), NODE, part("one\n"), NOW).expect("room");
        let mut reader = logs.read(JobId(1), 0).expect("there");
        assert_eq!(rest(&logs, &mut reader), ["one\n"]);
        assert!(rest(&logs, &mut reader).is_empty());
        for word in ["two\n", "three\n", "four\n", "five\n"] {
            logs.append(JobId(1), NODE, part(word), NOW).expect("room");
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
            logs.append(JobId(1), NODE, part(word), NOW).expect("room");
        }
        let mut reader = logs.read(JobId(1), 0).expect("there");
        let mut numbers = Vec::new();
        while let Some(part) = logs.next(JobId(1), &mut reader).expect("readable") {
            numbers.push(part.number);
        }
        assert_eq!(numbers, [1, 2, 3]);
        // A node that has heard no answer sends it again.
        let twice = part("once\n");
        logs.append(JobId(2), NODE, twice.clone(), NOW).expect("room");
        logs.append(JobId(2), NODE, twice, NOW).expect("room");
        let mut once = logs.read(JobId(2), 0).expect("there");
        assert!(logs.next(JobId(2), &mut once).expect("readable").is_some());
        assert!(logs.next(JobId(2), &mut once).expect("readable").is_none());
        // The same head, started again, whose clock is where it was.
        let again = JobLogs { file_bytes_max: 200, ..JobLogs::new(directory) };
        let mut reader = again.read(JobId(1), 2).expect("there");
        again.append(JobId(1), NODE, part("four\n"), NOW).expect("room");
        assert_eq!(rest(&again, &mut reader), ["three\n", "four\n"]);
        // Another one has none of that, and a later clock.
        let other = JobLogs::new(Directory::create(parent.path().join("other")).expect("made"));
        let mut reader = other.read(JobId(1), 4).expect("there");
        other.append(JobId(1), NODE, part("five\n"), NOW + std::time::Duration::from_secs(1)).expect("room");
        assert_eq!(rest(&other, &mut reader), ["five\n"]);
    }
}
