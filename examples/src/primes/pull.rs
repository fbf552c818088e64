//! Workers pull chunks: who may take one, and what happens to the chunks of a worker that is lost.
//!
//! [`ChunkQueue`] decides and knows neither clock nor cluster; [`pull`] asks the workers and tells it what came back.
use std::collections::VecDeque;
use std::fmt::Display;

use futures::stream::{FuturesUnordered, StreamExt};

/// A chunk's place in the plan.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChunkId(pub usize);

/// A worker's place in the list of workers.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkerId(pub usize);

/// Chunks that a worker may have at a time: one runs while the next waits in its mailbox, so it never idles for the
/// length of a round trip, and a slow worker holds back one waiting chunk at most. The last chunks, as many as there are
/// workers, go to idle workers only: a chunk held back at the end would run while others have nothing to do.
pub const OUTSTANDING_MAX: usize = 2;

/// Which chunks wait, which are with a worker, and how many each worker has done.
///
/// Every chunk is counted as done exactly once, whatever workers are lost on the way.
#[derive(Debug)]
pub struct ChunkQueue {
    waiting: VecDeque<ChunkId>,
    workers: Vec<Worker>,
    left: usize,
}

#[derive(Clone, Debug, Default)]
struct Worker {
    outstanding: Vec<ChunkId>,
    done: u64,
    lost: bool,
}

impl ChunkQueue {
    /// All `chunks` wait, and all `workers` are idle.
    pub fn new(chunks: usize, workers: usize) -> ChunkQueue {
        ChunkQueue {
            waiting: (0..chunks).map(ChunkId).collect(),
            workers: vec![Worker::default(); workers],
            left: chunks,
        }
    }

    /// Takes the next chunk for `worker`; `None` while it has [`OUTSTANDING_MAX`], or one and the last are reserved for
    /// idle workers, once it is lost, or if none waits.
    pub fn next_for(&mut self, worker: WorkerId) -> Option<ChunkId> {
        let reserved = self.workers.iter().filter(|worker| !worker.lost).count();
        let worker = &mut self.workers[worker.0];
        let ahead = !worker.outstanding.is_empty();
        if worker.lost || worker.outstanding.len() >= OUTSTANDING_MAX || (ahead && self.waiting.len() <= reserved) {
            return None;
        }
        let chunk = self.waiting.pop_front()?;
        worker.outstanding.push(chunk);
        Some(chunk)
    }

    /// Takes note of `worker`'s result for `chunk`; false if it must not be counted.
    ///
    /// That is so when the worker was given up before the result came: the chunk went back, and counts where it runs next.
    #[must_use = "a result that is not to be counted would be counted twice"]
    pub fn done(&mut self, worker: WorkerId, chunk: ChunkId) -> bool {
        let worker = &mut self.workers[worker.0];
        let Some(at) = worker.outstanding.iter().position(|outstanding| *outstanding == chunk) else {
            return false;
        };
        worker.outstanding.remove(at);
        worker.done += 1;
        self.left -= 1;
        true
    }

    /// Gives up on `worker` and puts its chunks back, ahead of the others; false if that was done before.
    pub fn worker_lost(&mut self, worker: WorkerId) -> bool {
        let worker = &mut self.workers[worker.0];
        for chunk in worker.outstanding.drain(..).rev() {
            self.waiting.push_front(chunk);
        }
        !std::mem::replace(&mut worker.lost, true)
    }

    /// Chunks that are not done, waiting or with a worker.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether no worker is left to run what waits.
    pub fn is_stranded(&self) -> bool {
        self.left > 0 && self.workers.iter().all(|worker| worker.lost)
    }

    /// How many chunks each worker has done, in the order of the workers.
    pub fn done_by_worker(&self) -> Vec<u64> {
        self.workers.iter().map(|worker| worker.done).collect()
    }
}

/// How a run ended in which every chunk was done.
#[derive(Debug)]
pub struct Pulled<E> {
    /// Chunks done by each worker, in the order of the workers.
    pub done_by_worker: Vec<u64>,
    /// The workers that were lost on the way, each with the error that showed it.
    pub lost: Vec<(WorkerId, E)>,
}

/// No worker was left before all chunks were done.
#[derive(Debug, thiserror::Error)]
#[error("no worker is left, with {chunks_left} of {chunks} chunks to do; the last to go: {last}")]
pub struct NoWorkerLeft {
    chunks: usize,
    chunks_left: usize,
    last: String,
}

/// Has `workers` workers do `chunks` chunks; `ask` sends one, and `collect` gets each counted result, once per chunk.
///
/// Any error gives up the worker that answered it. Results reach `collect` in the order in which they arrive.
/// # Errors
/// [`NoWorkerLeft`] if every worker was lost, or there was none, and chunks remain.
/// # Cancel safety
/// Dropping the future drops the requests that are out; what was collected so far stays with the caller.
pub async fn pull<F, R, E>(
    chunks: usize,
    workers: usize,
    mut ask: impl FnMut(WorkerId, ChunkId) -> F,
    mut collect: impl FnMut(WorkerId, R),
) -> Result<Pulled<E>, NoWorkerLeft>
where
    F: Future<Output = Result<R, E>>,
    E: Display,
{
    let mut queue = ChunkQueue::new(chunks, workers);
    let mut lost: Vec<(WorkerId, E)> = Vec::new();
    let mut outstanding = FuturesUnordered::new();
    while queue.left() > 0 {
        // In turns: a chunk for every worker before anyone's second.
        for _ in 0..OUTSTANDING_MAX {
            for worker in (0..workers).map(WorkerId) {
                if let Some(chunk) = queue.next_for(worker) {
                    let reply = ask(worker, chunk);
                    outstanding.push(async move { (worker, chunk, reply.await) });
                }
            }
        }
        // A stranded queue waits for nobody: what is still out belongs to workers that were given up.
        let reply = if queue.is_stranded() { None } else { outstanding.next().await };
        match reply {
            Some((worker, chunk, Ok(result))) => {
                if queue.done(worker, chunk) {
                    collect(worker, result);
                }
            }
            Some((worker, _, Err(error))) => {
                if queue.worker_lost(worker) {
                    lost.push((worker, error));
                }
            }
            None => {
                let last = lost.last().map_or_else(|| "there was none".to_owned(), |(_, error)| error.to_string());
                return Err(NoWorkerLeft { chunks, chunks_left: queue.left(), last });
            }
        }
    }
    Ok(Pulled { done_by_worker: queue.done_by_worker(), lost })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    #[test]
    fn a_worker_has_two_chunks_at_most() {
        let mut queue = ChunkQueue::new(6, 2);
        assert_eq!(
            [queue.next_for(A), queue.next_for(A), queue.next_for(A)],
            [Some(ChunkId(0)), Some(ChunkId(1)), None]
        );
        assert!(queue.done(A, ChunkId(0)));
        assert_eq!(queue.next_for(A), Some(ChunkId(2)));
        assert_eq!(queue.next_for(B), Some(ChunkId(3)));
        assert_eq!(queue.left(), 5);
    }

    #[test]
    fn the_last_chunks_go_to_idle_workers() {
        let mut queue = ChunkQueue::new(4, 2);
        assert_eq!([queue.next_for(A), queue.next_for(A)], [Some(ChunkId(0)), Some(ChunkId(1))]);
        assert!(queue.done(A, ChunkId(0)));
        assert_eq!(queue.next_for(A), None, "it has one to run");
        assert_eq!([queue.next_for(B), queue.next_for(B)], [Some(ChunkId(2)), None]);
        assert!(queue.done(A, ChunkId(1)));
        assert_eq!(queue.next_for(A), Some(ChunkId(3)));
    }

    #[test]
    fn a_lost_workers_chunks_run_next_elsewhere() {
        let mut queue = ChunkQueue::new(4, 2);
        assert_eq!([queue.next_for(A), queue.next_for(A)], [Some(ChunkId(0)), Some(ChunkId(1))]);
        assert!(queue.worker_lost(A));
        assert!(!queue.worker_lost(A), "it can only be lost once");
        assert_eq!(queue.next_for(A), None, "a lost worker gets nothing");
        assert_eq!([queue.next_for(B), queue.next_for(B)], [Some(ChunkId(0)), Some(ChunkId(1))]);
        assert!(!queue.is_stranded());
    }

    #[test]
    fn a_late_result_of_a_lost_worker_does_not_count() {
        let mut queue = ChunkQueue::new(1, 2);
        assert_eq!(queue.next_for(A), Some(ChunkId(0)));
        queue.worker_lost(A);
        assert!(!queue.done(A, ChunkId(0)));
        assert_eq!(queue.next_for(B), Some(ChunkId(0)));
        assert!(!queue.done(A, ChunkId(0)), "the chunk is with another worker now");
        assert!(queue.done(B, ChunkId(0)));
        assert!(!queue.done(B, ChunkId(0)), "once only");
        assert_eq!((queue.left(), queue.done_by_worker()), (0, vec![0, 1]));
    }

    #[test]
    fn stranded_without_workers_unless_all_is_done() {
        let mut queue = ChunkQueue::new(1, 1);
        queue.worker_lost(A);
        assert!(queue.is_stranded());
        assert!(ChunkQueue::new(1, 0).is_stranded());
        assert!(!ChunkQueue::new(0, 0).is_stranded());
    }

    proptest! {
        /// Events: a worker's oldest chunk is done, its newest is done, or the worker is lost (but not the last one).
        #[test]
        fn every_chunk_counts_once(chunks in 0..40_usize, events in prop::collection::vec((0..4_usize, 0..6_u8), 0..80)) {
            let mut queue = ChunkQueue::new(chunks, 4);
            let mut counted: HashMap<ChunkId, u32> = HashMap::new();
            let mut out: Vec<Vec<ChunkId>> = vec![Vec::new(); 4];
            let rest = std::iter::repeat_n((0, 0), chunks + 1);
            for (worker, event) in events.into_iter().chain(rest) {
                while let Some(chunk) = queue.next_for(WorkerId(worker)) {
                    out[worker].push(chunk);
                    prop_assert!(out[worker].len() <= OUTSTANDING_MAX);
                }
                if event == 5 && worker > 0 {
                    queue.worker_lost(WorkerId(worker));
                    continue;
                }
                let chunk = if event % 2 == 0 { (!out[worker].is_empty()).then(|| out[worker].remove(0)) } else { out[worker].pop() };
                if let Some(chunk) = chunk && queue.done(WorkerId(worker), chunk) {
                    *counted.entry(chunk).or_default() += 1;
                }
            }
            // What the other workers still hold is lost with them, and the first worker does it.
            for worker in 1..4 {
                queue.worker_lost(WorkerId(worker));
            }
            loop {
                out[0].extend(std::iter::from_fn(|| queue.next_for(A)));
                let Some(chunk) = out[0].pop() else { break };
                if queue.done(A, chunk) {
                    *counted.entry(chunk).or_default() += 1;
                }
            }
            prop_assert_eq!(queue.left(), 0);
            prop_assert_eq!(counted.len(), chunks);
            prop_assert!(counted.values().all(|times| *times == 1));
        }
    }

    #[test]
    fn pull_does_every_chunk_though_a_worker_fails() {
        let mut asked_of_b = 0;
        let mut sum = 0;
        let pulled = block_on(pull(
            100,
            3,
            |worker, chunk| {
                let fails = worker == B && {
                    asked_of_b += 1;
                    asked_of_b > 3
                };
                async move { if fails { Err("gone") } else { Ok(chunk.0) } }
            },
            |_, result| sum += result,
        ))
        .unwrap();
        assert_eq!(sum, 99 * 100 / 2);
        assert_eq!(pulled.lost, [(B, "gone")]);
        assert_eq!(pulled.done_by_worker.iter().sum::<u64>(), 100);
    }

    #[test]
    fn idle_workers_take_over_when_one_fails_last() {
        let (give_up, given_up) = futures::channel::oneshot::channel::<()>();
        let (mut give_up, mut given_up) = (Some(give_up), Some(given_up));
        let mut done = 0;
        let pulled = block_on(pull(
            6,
            2,
            |worker, _| {
                // B sits on its first chunk until A has done all that was left for it.
                let stuck = (worker == B).then(|| given_up.take()).flatten();
                async move {
                    let Some(stuck) = stuck else { return Ok(()) };
                    stuck.await.map_err(|_| "never told")?;
                    Err("stopped")
                }
            },
            |_, ()| {
                done += 1;
                if done == 5 {
                    give_up.take().map(|give_up| give_up.send(()));
                }
            },
        ))
        .unwrap();
        assert_eq!((done, pulled.lost), (6, vec![(B, "stopped")]));
    }

    #[test]
    fn pull_fails_when_all_workers_are_gone() {
        let failed = block_on(pull(5, 2, |_, _| async { Err::<(), _>("node-1 is down") }, |_, ()| ())).unwrap_err();
        assert_eq!(failed.to_string(), "no worker is left, with 5 of 5 chunks to do; the last to go: node-1 is down");
        assert!(block_on(pull(1, 0, |_, _| async { Ok::<(), &str>(()) }, |_, ()| ())).is_err());
        assert!(block_on(pull(0, 0, |_, _| async { Ok::<(), &str>(()) }, |_, ()| ())).is_ok());
    }
}
