//! What the processes of jobs print, on its way from the node to the head.

use std::sync::Arc;
use std::time::Duration;

use mobula_control::{AppendLog, Client, LogPart};
use mobula_core::NodeUid;
use mobula_core::cluster::JobId;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// A line that is longer is cut into several.
const PART_BYTES: usize = 64 * 1024;
/// Parts that may wait for the head; what is printed then waits in the pipe, and so does who prints.
const WAITING_MAX: usize = 64;

/// The rest after the head could not be reached.
const RETRY: Duration = Duration::from_millis(200);

/// Sends what processes print to the head, in order.
#[derive(Clone)]
pub(crate) struct Output(mpsc::Sender<(JobId, LogPart)>);

impl Output {
    /// Begins to send, as the node `node`. Ends when the last of its clones is gone.
    pub(crate) fn start(client: Arc<Client>, node: NodeUid) -> Self {
        let (sender, mut parts) = mpsc::channel::<(JobId, LogPart)>(WAITING_MAX);
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((job, mut part)) = parts.recv().await {
                number += 1;
                part.number = number;
                loop {
                    let append = AppendLog { node, job, part: part.clone() };
                    let Err(error) = client.ask(append).await else { break };
                    // A head that is away does not hold up what runs. One that is back knows by the number what it has.
                    if error.is_final() || parts.len() >= WAITING_MAX / 2 {
                        tracing::warn!(%job, %error, "output of the job is lost");
                        break;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Output(sender)
    }

    /// Reads a pipe to its end, and sends whole lines.
    pub(crate) async fn follow(self, job: JobId, source: String, mut pipe: impl AsyncRead + Unpin) {
        let mut bytes = Vec::with_capacity(4096);
        loop {
            let read = pipe.read_buf(&mut bytes).await.unwrap_or(0);
            let whole = match (read, bytes.iter().rposition(|byte| *byte == b'\n')) {
                (0, _) => bytes.len(),
                (_, Some(end)) => end + 1,
                (_, None) if bytes.len() >= PART_BYTES => bytes.len(),
                _ => continue,
            };
            let rest = bytes.split_off(whole);
            for part in bytes.chunks(PART_BYTES) {
                let part = LogPart { source: source.clone(), bytes: part.to_vec(), number: 0 };
                if self.0.send((job, part)).await.is_err() {
                    return;
                }
            }
            bytes = rest;
            if read == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_stay_whole_and_the_last_one_comes_without_its_end() {
        let (sender, mut parts) = mpsc::channel(WAITING_MAX);
        let text = [&b"one\ntwo\nth"[..], &b"ree"[..]].concat();
        let follow = Output(sender).follow(JobId(1), "driver".to_owned(), &text[..]);
        let (mut got, ()) = tokio::join!(
            async {
                let mut got = Vec::new();
                while let Some((_, part)) = parts.recv().await {
                    assert_eq!(part.source, "driver");
                    got.push(String::from_utf8(part.bytes).expect("text"));
                }
                got
            },
            follow
        );
        assert_eq!(got.pop().as_deref(), Some("three"));
        assert_eq!(got.concat(), "one\ntwo\n");
    }

    #[tokio::test]
    async fn an_endless_line_is_cut() {
        let (sender, mut parts) = mpsc::channel(1024);
        let text = vec![b'a'; 3 * PART_BYTES];
        Output(sender).follow(JobId(1), "driver".to_owned(), &text[..]).await;
        let mut bytes = 0;
        while let Some((_, part)) = parts.recv().await {
            assert!(part.bytes.len() <= PART_BYTES);
            bytes += part.bytes.len();
        }
        assert_eq!(bytes, text.len());
    }
}
