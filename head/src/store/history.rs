//! The latest changes of an embedded store, and those who watch them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use mobula_core::limits;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Event, StoreError};

/// The latest changes; bounded, whoever watches or does not.
#[derive(Debug)]
pub(super) struct History {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Event>,
    /// All changes after this revision are in it.
    since: u64,
    latest: u64,
    /// The store is no more.
    failed: bool,
}

impl History {
    /// Begins at a revision.
    pub(super) fn new(revision: u64) -> Arc<Self> {
        let state = State { events: VecDeque::new(), since: revision, latest: revision, failed: false };
        Arc::new(History { state: Mutex::new(state), changed: Notify::new() })
    }

    /// A revision, with what it has changed.
    pub(super) fn push(&self, revision: u64, events: Vec<Event>) {
        {
            let mut state = self.state.lock();
            state.latest = revision;
            state.events.extend(events);
            while state.events.len() > limits::STORE_HISTORY_EVENTS {
                if let Some(event) = state.events.pop_front() {
                    state.since = event.revision;
                }
            }
            // Of a revision there is all or nothing.
            while state.events.front().is_some_and(|event| event.revision <= state.since) {
                state.events.pop_front();
            }
        }
        self.changed.notify_waiters();
    }

    /// Nothing more will come.
    pub(super) fn fail(&self) {
        self.state.lock().failed = true;
        self.changed.notify_waiters();
    }

    fn after(&self, from: u64, prefix: &str) -> Result<(u64, Vec<Event>), StoreError> {
        let state = self.state.lock();
        if state.failed {
            return Err(StoreError::Io { reason: "the store is not open any more".to_owned() });
        }
        if from < state.since {
            return Err(StoreError::Compacted { from, oldest: state.since });
        }
        let new = state.events.iter().filter(|event| event.revision > from && event.key.starts_with(prefix));
        Ok((state.latest, new.cloned().collect()))
    }
}

/// Changes under a prefix, in their order, each once.
pub struct Watch {
    source: Source,
}

enum Source {
    History { history: Arc<History>, prefix: String, from: u64 },
    Stream(BoxStream<'static, Result<Vec<Event>, StoreError>>),
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// For a store outside of this process: what `changes` gives, which keeps what [`next`](Self::next) promises and does not end.
    pub fn of_stream(changes: BoxStream<'static, Result<Vec<Event>, StoreError>>) -> Self {
        Watch { source: Source::Stream(changes) }
    }

    pub(super) fn of(history: &Arc<History>, prefix: &str, from: u64) -> Self {
        Watch { source: Source::History { history: Arc::clone(history), prefix: prefix.to_owned(), from } }
    }

    /// The next changes, one at least; all those of a revision come together. Waits for ever if nothing changes.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the reader was too slow, or asked from too long ago: it reads all, and watches from there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        let (history, prefix, from) = match &mut self.source {
            Source::History { history, prefix, from } => (history, prefix, from),
            Source::Stream(changes) => {
                let over = || Err(StoreError::Unavailable { reason: "nothing more will be told".to_owned() });
                return changes.next().await.unwrap_or_else(over);
            }
        };
        loop {
            // Enlisted before it looks, so that nothing that comes between is missed.
            let changed = history.changed.notified();
            let (latest, events) = history.after(*from, prefix)?;
            *from = (*from).max(latest);
            if !events.is_empty() {
                return Ok(events);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64) -> Event {
        Event { revision, key: "a".to_owned(), value: None }
    }

    #[test]
    fn a_revision_is_there_altogether_or_not_at_all() {
        let history = History::new(0);
        history.push(1, vec![event(1), event(1)]);
        let many = limits::STORE_HISTORY_EVENTS - 1;
        history.push(2, (0..many).map(|_| event(2)).collect());
        // One of the first revision would have fitted.
        assert_eq!(history.after(0, ""), Err(StoreError::Compacted { from: 0, oldest: 1 }));
        let (latest, events) = history.after(1, "").expect("known");
        assert_eq!((latest, events.len()), (2, many));
    }
}
