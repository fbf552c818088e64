//! What the jobs have printed, on the head's disk: a file a job, and the one before it once it has grown.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use mobula_control::LogPart;
use mobula_core::cluster::JobId;
use mobula_core::codec;
use mobula_transport::unix::Directory;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Files that are kept open beyond those that somebody reads.
const OPEN_MAX: usize = 256;

/// 16 MiB: a file that is larger makes way for another; with the one before it a job takes twice as much.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(crate) struct JobLogs {
    directory: Directory,
    open: Mutex<HashMap<JobId, Open>>,
    file_bytes_max: u64,
}

struct Open {
    file: File,
    bytes: u64,
    /// How often a file has made way.
    turned: u64,
    changed: watch::Sender<u64>,
}

impl JobLogs {
    pub(crate) fn new(directory: Directory) -> Self {
        JobLogs { directory, open: Mutex::default(), file_bytes_max: FILE_BYTES_MAX }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log"))
    }

    fn earlier(&self, job: JobId) -> PathBuf {
        self.directory.path().join(format!("{job}.log.1"))
    }

    /// Adds what a process has printed.
    pub(crate) fn append(&self, job: JobId, part: &LogPart) -> io::Result<()> {
        let mut record = vec![0; 4];
        record.extend_from_slice(&codec::encode(part).map_err(io::Error::other)?);
        let length = u32::try_from(record.len() - 4).map_err(io::Error::other)?;
        record[..4].copy_from_slice(&length.to_be_bytes());
        let mut all = self.open.lock();
        let open = self.opened(&mut all, job)?;
        if open.bytes > 0 && open.bytes + record.len() as u64 > self.file_bytes_max {
            fs::rename(self.path(job), self.earlier(job))?;
            *open = Open {
                file: create(&self.path(job))?,
                bytes: 0,
                turned: open.turned + 1,
                changed: open.changed.clone(),
            };
        }
        open.file.write_all(&record)?;
        open.bytes += record.len() as u64;
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

    /// Reads what a job has printed, from the start, and then what comes.
    pub(crate) fn read(&self, job: JobId) -> io::Result<LogReader> {
        let mut all = self.open.lock();
        let open = self.opened(&mut all, job)?;
        let now = File::open(self.path(job))?;
        let files = match File::open(self.earlier(job)) {
            Ok(earlier) => vec![now, earlier],
            Err(_) => vec![now],
        };
        Ok(LogReader { files, turned: open.turned, buffer: Vec::new(), changed: open.changed.subscribe() })
    }

    /// Reads on; none when there is nothing more for now.
    pub(crate) fn next(&self, job: JobId, reader: &mut LogReader) -> io::Result<Option<LogPart>> {
        loop {
            if let Some(part) = reader.part()? {
                return Ok(Some(part));
            }
            let Some(file) = reader.files.last_mut() else { return Ok(None) };
            let mut bytes = [0; 16 * 1024];
            let count = file.read(&mut bytes)?;
            reader.buffer.extend_from_slice(&bytes[..count]);
            if count > 0 {
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
                Ok(place.insert(Open { file, bytes, turned: 0, changed: watch::Sender::new(0) }))
            }
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
    use super::*;

    fn part(text: &str) -> LogPart {
        LogPart { source: "driver".to_owned(), bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn what_the_head_has_forgotten_leaves_the_disk_and_open_files_are_bounded() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(parent.path().join("logs")).expect("made");
        let logs = JobLogs::new(directory);
        let reader = logs.read(JobId(1)).expect("there");
        for job in 1..=OPEN_MAX as u64 + 10 {
            logs.append(JobId(job), &part("word\n")).expect("room");
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
        let logs = JobLogs { file_bytes_max: 100, ..JobLogs::new(directory.clone()) };
        logs.append(JobId(1), &part("one\n")).expect("room");
        let mut reader = logs.read(JobId(1)).expect("there");
        assert_eq!(rest(&logs, &mut reader), ["one\n"]);
        assert!(rest(&logs, &mut reader).is_empty());
        for word in ["two\n", "three\n", "four\n", "five\n"] {
            logs.append(JobId(1), &part(word)).expect("room");
        }
        assert_eq!(rest(&logs, &mut reader), ["two\n", "three\n", "four\n", "five\n"]);
        assert!(parent.path().join("logs/job-1.log.1").exists());
        let mut late = logs.read(JobId(1)).expect("there");
        assert_eq!(rest(&logs, &mut late).last().map(String::as_str), Some("five\n"));
        // Another head finds what this one has written.
        let again = JobLogs::new(directory);
        let mut reader = again.read(JobId(1)).expect("there");
        assert!(rest(&again, &mut reader).contains(&"five\n".to_owned()));
    }
}
