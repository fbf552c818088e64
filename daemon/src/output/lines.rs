//! Which output waits for the head, what is given up for it, and what comes next: decisions without I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mobula_control::LogPart;
use mobula_core::cluster::JobId;
use mobula_core::limits;

/// 64 KiB: a line that is longer is cut into several, and short ones travel together.
pub(super) const PART_BYTES: usize = 64 * 1024;

/// What a part costs beside its bytes.
const PIECE_BYTES: usize = 64;

/// A line for each job, and none waits for another: they take turns, part by part. Where a job prints faster than it is sent, or more than the node has room
/// for waits, the oldest of the longest line is given up, and how much that was is said in its place.
pub(super) struct Lines {
    lines: HashMap<JobId, Line>,
    turns: VecDeque<JobId>,
    /// Whose part is on its way.
    sending: Option<JobId>,
    bytes: usize,
    job_bytes_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Line {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// What a process has printed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Piece {
    pub(super) source: Arc<str>,
    /// So much came before it and was given up.
    pub(super) lost: u64,
    /// Empty if this was given up as well, and nothing of the same process has come since.
    pub(super) bytes: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Self {
        Lines::with(limits::OUTPUT_WAITING_BYTES_MAX, limits::OUTPUT_WAITING_BYTES_MAX_TOTAL)
    }
}

impl Lines {
    fn with(job_bytes_max: usize, bytes_max: usize) -> Self {
        let (lines, turns) = (HashMap::new(), VecDeque::new());
        Lines { lines, turns, sending: None, bytes: 0, job_bytes_max, bytes_max }
    }

    /// Adds what a process has printed, [`PART_BYTES`] at most.
    pub(super) fn push(&mut self, job: JobId, source: &Arc<str>, bytes: &[u8]) {
        let line = self.lines.entry(job).or_insert_with(|| {
            self.turns.push_back(job);
            Line::default()
        });
        let before = line.bytes;
        match line.pieces.back_mut() {
            Some(last) if last.source == *source && last.bytes.len() + bytes.len() <= PART_BYTES => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => {
                line.bytes += PIECE_BYTES;
                line.pieces.push_back(Piece { source: Arc::clone(source), lost: 0, bytes: bytes.to_vec() });
            }
        }
        line.bytes += bytes.len();
        self.bytes += line.bytes - before;
        let is_too_long = |lines: &Lines| lines.lines.get(&job).is_some_and(|line| line.bytes > lines.job_bytes_max);
        while is_too_long(self) && self.give_up_oldest(job) {}
        while self.bytes > self.bytes_max {
            let longest = self.lines.iter().max_by_key(|(_, line)| line.bytes).map(|(job, _)| *job);
            if !longest.is_some_and(|job| self.give_up_oldest(job)) {
                return;
            }
        }
    }

    /// The next part, of whichever job's turn it is. Until [`sent`](Self::sent) it is on its way.
    pub(super) fn take(&mut self) -> Option<(JobId, Piece)> {
        let job = self.turns.pop_front()?;
        let line = self.lines.get_mut(&job)?;
        let piece = line.pieces.pop_front()?;
        let bytes = PIECE_BYTES + piece.bytes.len();
        line.bytes -= bytes;
        self.bytes -= bytes;
        match line.pieces.is_empty() {
            true => drop(self.lines.remove(&job)),
            false => self.turns.push_back(job),
        }
        self.sending = Some(job);
        Some((job, piece))
    }

    /// What was taken last has arrived, or never will.
    pub(super) fn sent(&mut self) {
        self.sending = None;
    }

    /// What was taken did not arrive: whatever the process prints next says so. If it prints nothing more, nobody does.
    pub(super) fn was_lost(&mut self, job: JobId, piece: &Piece) {
        let Some(line) = self.lines.get_mut(&job) else { return };
        if let Some(next) = line.pieces.iter_mut().find(|next| next.source == piece.source) {
            next.lost += piece.lost + piece.bytes.len() as u64;
        }
    }

    /// True if something of the job waits, or is on its way.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.sending == Some(job) || self.lines.contains_key(&job)
    }

    /// False if there is nothing to be given up.
    fn give_up_oldest(&mut self, job: JobId) -> bool {
        let Some(line) = self.lines.get_mut(&job) else { return false };
        let Some(oldest) = line.pieces.iter().position(|piece| !piece.bytes.is_empty()) else { return false };
        let given_up = std::mem::take(&mut line.pieces[oldest].bytes).len();
        line.pieces[oldest].lost += given_up as u64;
        let (lost, source) = (line.pieces[oldest].lost, Arc::clone(&line.pieces[oldest].source));
        let mut freed = given_up;
        let mut pieces = line.pieces.iter_mut().enumerate();
        if let Some((_, other)) = pieces.find(|(at, piece)| *at != oldest && piece.source == source) {
            other.lost += lost;
            line.pieces.remove(oldest);
            freed += PIECE_BYTES;
        }
        line.bytes -= freed;
        self.bytes -= freed;
        true
    }
}

impl Piece {
    /// As it travels.
    pub(super) fn part(&self, number: u64) -> LogPart {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        if self.lost > 0 {
            let notice = format!("[mobula: {} bytes were printed here and not kept]\n", self.lost);
            bytes.extend_from_slice(notice.as_bytes());
        }
        bytes.extend_from_slice(&self.bytes);
        LogPart { source: self.source.to_string(), bytes, number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISY: JobId = JobId(1);
    const QUIET: JobId = JobId(2);

    fn source(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    fn text(piece: &Piece) -> String {
        String::from_utf8(piece.part(1).bytes).expect("text")
    }

    /// All that waits, part by part.
    fn all(lines: &mut Lines) -> Vec<(JobId, String)> {
        let mut all = Vec::new();
        while let Some((job, piece)) = lines.take() {
            assert!(lines.has(job));
            all.push((job, format!("{}: {}", piece.source, text(&piece))));
            lines.sent();
        }
        assert_eq!((lines.bytes, lines.lines.len(), lines.turns.len(), lines.has(NOISY)), (0, 0, 0, false));
        all
    }

    #[test]
    fn jobs_take_turns_and_short_lines_travel_together() {
        let mut lines = Lines::default();
        let driver = source("driver");
        for at in 0..3 {
            lines.push(NOISY, &driver, &vec![b'a' + at; PART_BYTES]);
        }
        lines.push(QUIET, &driver, b"one\n");
        lines.push(QUIET, &driver, b"two\n");
        let jobs: Vec<_> = all(&mut lines).iter().map(|(job, text)| (job.0, text.len())).collect();
        let (part, marked) = (PART_BYTES + "driver: ".len(), "driver: one\ntwo\n".len());
        assert_eq!(jobs, [(1, part), (2, marked), (1, part), (1, part)]);
    }

    #[test]
    fn a_full_line_gives_up_its_oldest_and_says_how_much() {
        let mut lines = Lines::with(3 * (PART_BYTES + PIECE_BYTES), usize::MAX);
        let (driver, worker) = (source("driver"), source("worker"));
        lines.push(NOISY, &worker, b"once\n");
        for at in 0..5 {
            lines.push(NOISY, &driver, &vec![b'a' + at; PART_BYTES]);
        }
        // The worker has printed nothing since: what it has lost is told in a part of its own.
        let all = all(&mut lines);
        assert_eq!(all[0].1, "worker: [mobula: 5 bytes were printed here and not kept]\n");
        let lost = 3 * PART_BYTES;
        let begins = format!("driver: [mobula: {lost} bytes were printed here and not kept]\nddd");
        assert!(all[1].1.starts_with(&begins), "{}", &all[1].1[..80]);
        assert_eq!(all.len(), 3, "{:?}", all.iter().map(|(_, text)| &text[..20]).collect::<Vec<_>>());
        assert!(all[2].1.starts_with("driver: eee"));
    }

    #[test]
    fn a_node_that_is_full_gives_up_of_the_longest_line() {
        let bytes_max = 4 * (PART_BYTES + PIECE_BYTES);
        let mut lines = Lines::with(usize::MAX, bytes_max);
        let driver = source("driver");
        lines.push(QUIET, &driver, b"before\n");
        for _ in 0..20 {
            lines.push(NOISY, &driver, &vec![b'a'; PART_BYTES]);
            assert!(lines.bytes <= bytes_max);
        }
        lines.push(QUIET, &driver, b"after\n");
        let quiet: String =
            all(&mut lines).into_iter().filter(|(job, _)| *job == QUIET).map(|(_, text)| text).collect();
        assert_eq!(quiet, "driver: before\nafter\n");
    }

    #[test]
    fn what_is_lost_on_its_way_is_told_with_what_comes_next() {
        let mut lines = Lines::default();
        let driver = source("driver");
        lines.push(NOISY, &driver, b"one\n");
        let (job, piece) = lines.take().expect("one");
        lines.push(NOISY, &driver, b"two\n");
        lines.was_lost(job, &piece);
        lines.sent();
        assert_eq!(
            all(&mut lines),
            [(NOISY, "driver: [mobula: 4 bytes were printed here and not kept]\ntwo\n".to_owned())]
        );
    }
}
