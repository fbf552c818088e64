//! A store in memory, whose process can be killed at any write.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use super::history::History;
use super::table::{Change, Clock, Table, Turn};
use super::{LeaseToken, MetadataStore, Snapshot, StoreError, Transaction, Watch};

/// When a process is killed, by the writes that it has done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kill {
    /// Before this write: nothing of it is on disk.
    Before(u64),
    /// After this write, and before its answer: all of it is on disk.
    After(u64),
    /// Within this write, by a store that breaks its promise: the first half of it is on disk. To see that tests notice.
    Within(u64),
}

/// A store in memory. Clones are the same store; what [`reopen`](Self::reopen) gives is what a process finds that starts after this one.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    history: Arc<History>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    writes: u64,
    kill: Option<Kill>,
    dead: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Self::with(Table::default(), clock)
    }

    fn with(table: Table, clock: Clock) -> Self {
        let history = History::new(table.revision);
        let state = State { table, ..State::default() };
        MemoryStore { inner: Arc::new(Inner { state: Mutex::new(state), history, clock }) }
    }

    /// Has it killed at a write; they are counted from 0, from when it was opened.
    pub fn kill_at(&self, kill: Kill) {
        self.inner.state.lock().kill = Some(kill);
    }

    /// Writes since it was opened.
    pub fn writes(&self) -> u64 {
        self.inner.state.lock().writes
    }

    /// What is on disk, for the next process; the one before it is dead.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let table = {
            let mut state = self.inner.state.lock();
            state.dead = true;
            state.table.clone()
        };
        self.inner.history.fail();
        Self::with(table, self.inner.clock.clone())
    }

    /// Something that may write.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Table, Duration) -> Result<(T, Change), StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.inner.state.lock();
        if state.dead {
            return Err(killed());
        }
        let now = self.inner.clock.now();
        let before = state.kill.is_some().then(|| state.table.clone());
        let Turn { answer, changes, wrote } = state.table.turn(now, change);
        if !wrote {
            return answer;
        }
        let at = state.writes;
        state.writes += 1;
        match (state.kill, before) {
            (Some(Kill::Before(number)), Some(before)) if number == at => (state.dead, state.table) = (true, before),
            (Some(Kill::After(number)), _) if number == at => state.dead = true,
            (Some(Kill::Within(number)), Some(mut half)) if number == at => {
                let events: Vec<_> = changes.iter().flat_map(|change| &change.events).collect();
                for event in events.iter().take(events.len() / 2) {
                    match state.table.rows.get(&event.key) {
                        Some(row) => drop(half.rows.insert(event.key.clone(), row.clone())),
                        None => drop(half.rows.remove(&event.key)),
                    }
                }
                (state.dead, state.table) = (true, half);
            }
            _ => {}
        }
        let (revision, dead) = (state.table.revision, state.dead);
        drop(state);
        if dead {
            self.inner.history.fail();
            return Err(killed());
        }
        self.inner.history.push(revision, changes.into_iter().flat_map(|change| change.events).collect());
        answer
    }
}

fn killed() -> StoreError {
    StoreError::Io { reason: "its process was killed".to_owned() }
}

impl MetadataStore for MemoryStore {
    fn lead(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let led = self.change(|table, _| {
            table.term += 1;
            Ok((table.term, Change::default()))
        });
        ready(led).boxed()
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        ready(self.change(|table, _| Ok((table.snapshot(prefix), Change::default())))).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<u64, StoreError>> {
        let done = self.change(|table, _| {
            table.check(&transaction)?;
            let change = table.apply(&transaction);
            Ok((table.revision, change))
        });
        ready(done).boxed()
    }

    fn watch(&self, prefix: &str, from: u64) -> BoxFuture<'_, Result<Watch, StoreError>> {
        ready(Ok(Watch::of(&self.inner.history, prefix, from))).boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseToken, StoreError>> {
        ready(self.change(|table, now| Ok(table.grant(ttl, now)))).boxed()
    }

    fn keep_alive(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.change(|table, now| Ok((table.keep_alive(lease, now)?, Change::default())))).boxed()
    }

    fn revoke(&self, lease: LeaseToken) -> BoxFuture<'_, Result<(), StoreError>> {
        let revoked = self.change(|table, _| {
            let mut change = Change::default();
            table.end_lease(lease, &mut change);
            Ok(((), change))
        });
        ready(revoked).boxed()
    }
}
