//! What the processes of jobs print, on its way from the node to the head. Whoever prints is never kept waiting: what is too much is given up and counted.

mod lines;

use std::sync::Arc;
use std::time::Duration;

use mobula_control::{AppendLog, Client, ControlError, Refusal};
use mobula_core::NodeUid;
use mobula_core::cluster::JobId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use self::lines::{Lines, PART_BYTES};

/// The rest after the head could not be reached.
const RETRY: Duration = Duration::from_millis(200);

/// Sends what processes print to the head: that of a job in order, and no job waits for another.
#[derive(Clone)]
pub(crate) struct Output {
    lines: Arc<Mutex<Lines>>,
    more: watch::Sender<()>,
    /// Changes whenever a part has arrived, or never will.
    sent: watch::Receiver<()>,
}

impl Output {
    /// Begins to send, as the node `node`. Ends when the last of its clones is gone.
    pub(crate) fn start(client: Arc<Client>, node: NodeUid) -> Self {
        let (lines, (more, waits)) = (Arc::<Mutex<Lines>>::default(), watch::channel(()));
        let (tell, sent) = watch::channel(());
        tokio::spawn(send(Arc::clone(&lines), waits, tell, client, node));
        Output { lines, more, sent }
    }

    /// Resolves when nothing of the job waits or is on its way. Cancel-safe.
    pub(crate) async fn all_sent(&self, job: JobId) {
        let mut sent = self.sent.clone();
        // Whoever sends goes after this.
        let _ = sent.wait_for(|()| !self.lines.lock().has(job)).await;
    }

    /// Reads a pipe to its end, as fast as it comes, and hands over whole lines.
    pub(crate) async fn follow(self, job: JobId, source: String, mut pipe: impl AsyncRead + Unpin) {
        let source = Arc::from(source);
        let mut bytes = Vec::with_capacity(2 * PART_BYTES);
        loop {
            let read = pipe.read_buf(&mut bytes).await.unwrap_or(0);
            let whole = match (read, bytes.iter().rposition(|byte| *byte == b'\n')) {
                (0, _) => bytes.len(),
                (_, Some(end)) => end + 1,
                (_, None) if bytes.len() >= PART_BYTES => bytes.len(),
                _ => continue,
            };
            for part in bytes[..whole].chunks(PART_BYTES) {
                self.lines.lock().push(job, &source, part);
            }
            self.more.send_replace(());
            bytes.drain(..whole);
            if read == 0 {
                return;
            }
        }
    }
}

async fn send(
    lines: Arc<Mutex<Lines>>,
    mut more: watch::Receiver<()>,
    tell: watch::Sender<()>,
    client: Arc<Client>,
    node: NodeUid,
) {
    let mut number = 0;
    loop {
        let taken = lines.lock().take();
        let Some((job, piece)) = taken else {
            match more.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        number += 1;
        // A head that is back knows by the number what it has.
        while let Err(error) = client.ask(AppendLog { node, job, part: piece.part(number) }).await {
            if error.is_final() {
                tracing::warn!(%job, source = %piece.source, %error, "output of the job is lost");
                if matches!(error, ControlError::Refused(Refusal::Failed(_))) {
                    lines.lock().was_lost(job, &piece);
                }
                break;
            }
            if more.has_changed().is_err() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
        lines.lock().sent();
        tell.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use mobula_control::{Home, LogPart, Peer, Reply, Request, SOCKET, Service, Target};
    use mobula_core::limits;
    use mobula_transport::unix::Listener;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::local_door;

    const NODE: NodeUid = NodeUid(7);

    async fn within<F: Future>(what: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(60), what).await.expect("came in time")
    }

    /// A head that takes output while it is let, and is silent else.
    struct Slow {
        lets: watch::Receiver<bool>,
        kept: Arc<Mutex<Vec<(JobId, LogPart)>>>,
    }

    impl Service for Slow {
        async fn serve(&self, _peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
            let Request::AppendLog(append) = request else {
                return reply.refuse(Refusal::Invalid(String::new())).await;
            };
            let _ = self.lets.clone().wait_for(|lets| *lets).await;
            self.kept.lock().push((append.job, append.part));
            reply.answer::<AppendLog>(Ok(())).await
        }
    }

    struct House {
        _place: tempfile::TempDir,
        output: Output,
        lets: watch::Sender<bool>,
        kept: Arc<Mutex<Vec<(JobId, LogPart)>>>,
    }

    impl House {
        fn open(lets: bool) -> Self {
            let place = tempfile::tempdir().expect("a directory");
            let home = Home::create(&place.path().join("home")).expect("made");
            let socket = Listener::bind(home.directory(), SOCKET).expect("a socket");
            let (lets, let_in) = watch::channel(lets);
            let kept = Arc::<Mutex<Vec<_>>>::default();
            tokio::spawn(local_door::keep(socket, Arc::new(Slow { lets: let_in, kept: Arc::clone(&kept) })));
            let client = Client::new(Target::Local(home.directory().path().to_owned()));
            House { output: Output::start(Arc::new(client), NODE), lets, kept, _place: place }
        }

        async fn prints(&self, job: JobId, text: &[u8]) {
            within(self.output.clone().follow(job, "driver".to_owned(), text)).await;
        }

        fn printed(&self, job: JobId) -> Vec<u8> {
            self.kept.lock().iter().filter(|(of, _)| *of == job).flat_map(|(_, part)| part.bytes.clone()).collect()
        }
    }

    #[tokio::test]
    async fn lines_stay_whole_and_the_last_one_comes_without_its_end() {
        let house = House::open(true);
        let (mut writer, pipe) = tokio::io::duplex(64);
        let follow = tokio::spawn(house.output.clone().follow(JobId(1), "driver".to_owned(), pipe));
        writer.write_all(b"one\ntwo\nth").await.expect("read");
        // The third is not whole yet.
        within(async {
            while house.printed(JobId(1)).len() < 8 {
                house.output.sent.clone().changed().await.expect("it sends");
            }
        })
        .await;
        assert_eq!(house.printed(JobId(1)), b"one\ntwo\n");
        writer.write_all(b"ree").await.expect("read");
        drop(writer);
        within(follow).await.expect("no panic");
        within(house.output.all_sent(JobId(1))).await;
        assert_eq!(house.printed(JobId(1)), b"one\ntwo\nthree");
        assert!(house.kept.lock().iter().all(|(_, part)| part.source == "driver"));
        let numbers: Vec<u64> = house.kept.lock().iter().map(|(_, part)| part.number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }

    #[tokio::test]
    async fn an_endless_line_is_cut() {
        let house = House::open(true);
        house.prints(JobId(1), &vec![b'a'; 3 * PART_BYTES]).await;
        within(house.output.all_sent(JobId(1))).await;
        assert_eq!(house.printed(JobId(1)).len(), 3 * PART_BYTES);
        assert!(house.kept.lock().iter().all(|(_, part)| part.bytes.len() <= PART_BYTES));
    }

    #[tokio::test]
    async fn a_silent_head_stops_nobody_who_prints_and_what_is_not_kept_is_counted() {
        let house = House::open(false);
        let (mut writer, pipe) = tokio::io::duplex(4096);
        let follow = tokio::spawn(house.output.clone().follow(JobId(1), "driver".to_owned(), pipe));
        let line = [b"0123456789abcde\n".repeat(1024), vec![]].concat();
        let total = 4 * limits::OUTPUT_WAITING_BYTES_MAX;
        within(async {
            for _ in 0..total / line.len() {
                writer.write_all(&line).await.expect("somebody reads");
            }
            drop(writer);
        })
        .await;
        within(follow).await.expect("no panic");
        // A quiet job comes between.
        house.prints(JobId(2), b"a word\n").await;
        house.lets.send_replace(true);
        within(house.output.all_sent(JobId(1))).await;
        within(house.output.all_sent(JobId(2))).await;
        let at = house.kept.lock().iter().position(|(job, _)| *job == JobId(2)).expect("kept");
        assert!(at <= 2, "the quiet one comes after {at} parts of the noisy one");
        assert_eq!(house.printed(JobId(2)), b"a word\n");
        let printed = String::from_utf8(house.printed(JobId(1))).expect("text");
        let notices: Vec<&str> = printed.lines().filter(|line| line.starts_with("[mobula:")).collect();
        let [notice] = notices[..] else { panic!("{notices:?}") };
        let lost: usize = notice.split(' ').nth(1).expect("a number").parse().expect("a number");
        assert_eq!(printed.len() - (notice.len() + 1) + lost, total);
        assert!(lost > 2 * limits::OUTPUT_WAITING_BYTES_MAX, "{lost}");
    }
}
