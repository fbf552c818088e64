//! The snapshots of one actor: taken on its turn, written off its thread, the latest first.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use mobula_core::panic_text;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::history::{Claimed, History};
use super::{SnapshotEntry, SnapshotError, SnapshotFailure, SnapshotPolicy};
use crate::node::Node;
use crate::scope;

/// An interval is no shorter than this.
const EVERY_MIN: Duration = Duration::from_millis(1);

/// The snapshots of one actor.
pub(crate) struct Keeper {
    entry: &'static SnapshotEntry,
    policy: SnapshotPolicy,
    identity: Option<String>,
    node: Node,
    state: Mutex<State>,
    written: watch::Receiver<Written>,
}

/// Where snapshots go.
#[derive(Clone)]
enum Way {
    /// To whoever writes them.
    Store(watch::Sender<Taken>),
    /// Nowhere: they stay in memory, and that is told at once.
    Memory(watch::Sender<Written>),
    /// The actor has ended.
    Closed,
}

struct State {
    way: Way,
    /// The newest, which the next life begins with.
    last: Option<Arc<Vec<u8>>>,
    taken: u64,
    messages: u32,
    wanted: bool,
    taken_at: Option<Instant>,
}

/// The newest snapshot, and its number.
#[derive(Clone, Default)]
struct Taken {
    number: u64,
    state: Option<Arc<Vec<u8>>>,
}

/// Up to which number all are written, or what became of the last attempt.
#[derive(Clone, Debug, Default)]
struct Written {
    number: u64,
    failed: Option<(u64, SnapshotError)>,
}

/// The snapshots of a new actor, with what its predecessor under the name has saved.
pub(crate) async fn open(
    node: &Node,
    actor_type: &'static str,
    policy: SnapshotPolicy,
    identity: Option<String>,
) -> Result<Keeper, SnapshotError> {
    let Some(entry) = SnapshotEntry::find(actor_type) else {
        return Err(SnapshotError::NotRegistered { actor_type: actor_type.to_owned() });
    };
    let (in_memory, mut written) = watch::channel(Written::default());
    let (mut way, mut last) = (Way::Memory(in_memory), None);
    if let (Some(identity), Some(store)) = (&identity, node.snapshot_store()) {
        let name = identity.clone();
        // The store may need a runtime with timers and threads, which the caller's need not be.
        let claimed = node.control_runtime().spawn(async move { History::claim(store, actor_type, &name).await });
        let claimed = claimed.await.map_err(|error| SnapshotError::Store { reason: error.to_string() })?;
        let Claimed { history, state, unreadable } = claimed?;
        for (snapshot, error) in unreadable {
            node.snapshot_failed(SnapshotFailure {
                actor_type,
                identity: Some(identity.clone()),
                snapshot: Some(snapshot),
                error,
            });
        }
        last = state.map(Arc::new);
        let (sender, taken) = watch::channel(Taken::default());
        let (tell, told) = watch::channel(Written::default());
        let (own, identity) = (node.clone(), identity.clone());
        node.control_runtime().spawn(write(history, taken, tell, own, actor_type, identity));
        (way, written) = (Way::Store(sender), told);
    }
    let state = Mutex::new(State { way, last, taken: 0, messages: 0, wanted: false, taken_at: None });
    Ok(Keeper { entry, policy, identity, node: node.clone(), state, written })
}

impl Keeper {
    /// Gives a new life of the actor the state that was saved last.
    pub(crate) fn restore(&self, actor: &mut dyn Any) {
        let last = self.state.lock().last.clone();
        let Some(last) = last else { return };
        if let Err(error) = scope::on_node(Some(&self.node), || (self.entry.restore)(actor, &last)) {
            self.failed(error);
        }
    }

    /// The actor has been handed a message.
    pub(crate) fn message(&self) {
        let mut state = self.state.lock();
        state.messages = state.messages.saturating_add(1);
    }

    /// The actor is between two messages at `now`: takes what is due.
    pub(crate) fn between_messages(&self, actor: &dyn Any, now: Instant) {
        {
            let mut state = self.state.lock();
            let enough = self.policy.every_messages.is_some_and(|messages| state.messages >= messages.get());
            let since = *state.taken_at.get_or_insert(now);
            let long = self.interval().is_some_and(|every| now.saturating_duration_since(since) >= every);
            if !(state.wanted || enough || (long && state.messages > 0)) {
                return;
            }
            state.wanted = false;
            state.messages = 0;
            state.taken_at = Some(now);
        }
        let take = catch_unwind(AssertUnwindSafe(|| (self.entry.take)(actor)));
        let taken = take.unwrap_or_else(|panic| {
            Err(SnapshotError::Encode { reason: format!("`snapshot` panicked: {}", panic_text(&*panic)) })
        });
        let (bytes, error) = match taken {
            Ok(bytes) => (Some(Arc::new(bytes)), None),
            Err(error) => (None, Some(error)),
        };
        let (number, way) = {
            let mut state = self.state.lock();
            state.taken += 1;
            if let Some(bytes) = &bytes {
                state.last = Some(Arc::clone(bytes));
            }
            (state.taken, state.way.clone())
        };
        match way {
            // One that was not written yet is replaced: a slow store gets fewer, and holds nobody up.
            Way::Store(to_write) => drop(to_write.send_replace(Taken { number, state: bytes })),
            Way::Memory(tell) => tell.send_modify(|written| match &error {
                None => written.number = number,
                Some(error) => written.failed = Some((number, error.clone())),
            }),
            Way::Closed => {}
        }
        if let Some(error) = error {
            self.failed(error);
        }
    }

    /// The actor has ended: what was taken is written, and nothing more comes.
    pub(crate) fn close(&self) {
        let way = std::mem::replace(&mut self.state.lock().way, Way::Closed);
        drop(way);
    }

    /// How often it is to be looked at while no message comes.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.policy.every.map(|every| every.max(EVERY_MIN))
    }

    /// Has what is not saved yet saved, if there is anything.
    pub(crate) fn save_rest(&self) -> Option<SaveSnapshot> {
        let is_saved = {
            let state = self.state.lock();
            state.messages == 0 && self.written.borrow().number >= state.taken
        };
        (!is_saved).then(|| self.want())
    }

    fn want(&self) -> SaveSnapshot {
        let mut state = self.state.lock();
        state.wanted = true;
        SaveSnapshot(saved(self.written.clone(), state.taken + 1).boxed())
    }

    fn failed(&self, error: SnapshotError) {
        let (actor_type, identity) = (self.entry.actor_type, self.identity.clone());
        self.node.snapshot_failed(SnapshotFailure { actor_type, identity, snapshot: None, error });
    }
}

/// Writes the newest, and then the newest.
async fn write(
    mut history: History,
    mut taken: watch::Receiver<Taken>,
    tell: watch::Sender<Written>,
    node: Node,
    actor_type: &'static str,
    identity: String,
) {
    while taken.changed().await.is_ok() {
        let Taken { number, state } = taken.borrow_and_update().clone();
        let result = match state {
            Some(state) => history.save(state.to_vec()).await,
            // It could not be taken, which was told already.
            None => Err(SnapshotError::Encode { reason: "the state could not be taken".to_owned() }),
        };
        match result {
            Ok(()) => tell.send_modify(|written| {
                written.number = number;
                written.failed = None;
            }),
            Err(error) => {
                tell.send_modify(|written| written.failed = Some((number, error.clone())));
                let is_fenced = matches!(error, SnapshotError::Fenced { .. });
                let identity = Some(identity.clone());
                if !matches!(error, SnapshotError::Encode { .. }) {
                    node.snapshot_failed(SnapshotFailure { actor_type, identity, snapshot: None, error });
                }
                if is_fenced {
                    return;
                }
            }
        }
    }
}

async fn saved(mut written: watch::Receiver<Written>, number: u64) -> Result<(), SnapshotError> {
    loop {
        {
            let now = written.borrow_and_update();
            if now.number >= number {
                return Ok(());
            }
            if let Some((failed, error)) = &now.failed
                && *failed >= number
            {
                return Err(error.clone());
            }
        }
        if written.changed().await.is_err() {
            // A fenced writer has left its error.
            let failed = written.borrow().failed.clone();
            return Err(failed.map_or(SnapshotError::NoSnapshots, |(_, error)| error));
        }
    }
}

/// A snapshot that was asked for: ready when it, or a later one, is in the store; without a store, when it is taken.
///
/// # Cancel safety
/// Dropping it takes nothing back.
#[must_use = "the snapshot is taken anyway; this says when it is saved"]
pub struct SaveSnapshot(BoxFuture<'static, Result<(), SnapshotError>>);

impl Future for SaveSnapshot {
    type Output = Result<(), SnapshotError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for SaveSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaveSnapshot")
    }
}

/// Has a snapshot taken of the actor whose handler runs on this thread, once this message is handled. A handler that
/// answers with this future answers when the state is safe.
///
/// # Errors
/// [`SnapshotError`]; [`SnapshotError::NoSnapshots`] outside of handlers of actors with snapshots.
pub fn save_snapshot() -> SaveSnapshot {
    let keeper = scope::current_actor().and_then(|actor| actor.snapshots());
    match keeper {
        Some(keeper) => keeper.want(),
        None => SaveSnapshot(async { Err(SnapshotError::NoSnapshots) }.boxed()),
    }
}
