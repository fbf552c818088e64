//! Monitors: being told, once, that an actor has come to its end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use actix::Message;
use mobula_core::{ActorId, CallError, ExitReason, NodeId, NodeUid, RemoteMessage, RequestId, codec, schema_hash};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::ask::Ask;
use crate::control::{self, Control, ControlReply};
use crate::node::{AnyActor, NodeLink};
use crate::recipient::Recipient;
use crate::reply::{Answer, Pending, Slot};
use crate::scope;

/// Which monitor: a fresh one each time, also for the same actor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct MonitorRef {
    /// The life of the node that monitors.
    node: NodeUid,
    number: u64,
}

impl MonitorRef {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let node = scope::current_node().map_or(NodeUid(0), |node| node.id().uid);
        MonitorRef { node, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for MonitorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, self.node)
    }
}

/// What a monitor tells, as the result of a [`Monitor`] or as a message to an actor: see
/// [`ActorRef::monitor_into`](crate::ActorRef::monitor_into).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Down {
    /// Whose news it is.
    pub monitor: MonitorRef,
    /// Where the actor lived.
    pub node: NodeId,
    /// Which actor it was.
    pub actor: ActorId,
    /// How it came to its end.
    pub reason: ExitReason,
}

impl Message for Down {
    type Result = ();
}

impl RemoteMessage for Down {
    const NAME: &'static str = "mobula::Down";
    const SCHEMA: u64 = schema_hash("1");
    type Reply = ();
}

/// The news of an actor's end: a future that is ready once.
///
/// The monitor is in force from the moment it was made, polled or not. A restart under supervision is not an end. What
/// the actor had sent to this node before its end was sent before the news.
/// # Cancel safety
/// Dropping it ends the monitoring, and nothing comes any more.
#[must_use = "dropping the monitor ends it"]
pub struct Monitor {
    id: MonitorRef,
    node: NodeId,
    actor: ActorId,
    way: Way,
}

enum Way {
    Near(Watch),
    Far(Ask<Control>),
    Known(Option<ExitReason>),
}

impl Monitor {
    pub(crate) fn near(node: NodeId, actor: ActorId, watch: Watch) -> Self {
        Monitor { id: MonitorRef::fresh(), node, actor, way: Way::Near(watch) }
    }

    pub(crate) fn far(node: NodeId, actor: ActorId, sent: Result<Ask<Control>, CallError>) -> Self {
        let way = match sent {
            Ok(ask) => Way::Far(ask),
            Err(error) => Way::Known(Some(reason_of(error))),
        };
        Monitor { id: MonitorRef::fresh(), node, actor, way }
    }

    /// Which monitor this is; its [`Down`] bears the same.
    pub fn id(&self) -> MonitorRef {
        self.id
    }
}

impl Future for Monitor {
    type Output = Down;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Down> {
        let reason = match &mut self.way {
            Way::Near(watch) => ready!(Pin::new(watch).poll(cx)),
            Way::Far(ask) => reason_told(ready!(Pin::new(ask).poll(cx))),
            Way::Known(reason) => match reason.take() {
                Some(reason) => reason,
                None => return Poll::Pending,
            },
        };
        // Once only: whoever polls again waits for ever.
        self.way = Way::Known(None);
        Poll::Ready(Down { monitor: self.id, node: self.node.clone(), actor: self.actor, reason })
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({}@{})", self.actor, self.node)
    }
}

/// A monitor whose news goes to an actor as a [`Down`].
///
/// Dropping it ends the monitoring; a [`Down`] that is in the mailbox already stays there, and [`flush`](Self::flush)
/// takes that back, too. An actor that keeps it in its state stops monitoring with each of its lives.
#[must_use = "dropping the guard ends the monitoring"]
pub struct MonitorGuard {
    mail: Arc<DownMail>,
    /// Held for its drop.
    _hold: Hold,
}

/// What ends when the guard does.
enum Hold {
    Near { _watched: Watched },
    Far { link: Arc<NodeLink>, request: RequestId },
    Nothing,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Hold::Far { link, request } = self {
            link.cancel(*request);
        }
    }
}

impl MonitorGuard {
    pub(crate) fn near(
        node: NodeId,
        actor: ActorId,
        watched: Option<&Arc<dyn AnyActor>>,
        to: Recipient<Down>,
    ) -> MonitorGuard {
        let mail = DownMail::new(node, actor, to);
        let hold = match watched.and_then(|actor| Watched::new(actor, Arc::clone(&mail) as _)) {
            Some(watched) => Hold::Near { _watched: watched },
            None => {
                mail.send(ExitReason::NoProc);
                Hold::Nothing
            }
        };
        MonitorGuard { mail, _hold: hold }
    }

    pub(crate) fn far(
        node: NodeId,
        actor: ActorId,
        link: Result<Arc<NodeLink>, CallError>,
        to: Recipient<Down>,
    ) -> MonitorGuard {
        let mail = DownMail::new(node, actor, to);
        // Over the data link, behind what the actor has sent here.
        let sent = link.and_then(|link| {
            let waiter = Pending(Arc::clone(&mail) as _);
            let request = control::ask_for_ever(&link, &Control::AwaitEnd { actor, kept: false }, waiter)?;
            Ok(Hold::Far { link, request })
        });
        let hold = sent.unwrap_or_else(|error| {
            mail.send(reason_of(error));
            Hold::Nothing
        });
        MonitorGuard { mail, _hold: hold }
    }

    /// Which monitor this is; its [`Down`] bears the same.
    pub fn id(&self) -> MonitorRef {
        self.mail.monitor
    }

    /// Ends the monitoring. A [`Down`] that waits in the recipient's mailbox is taken back: none is handled after this,
    /// if the recipient lives on this node.
    pub fn flush(self) {
        let before = std::mem::replace(&mut *self.mail.state.lock(), MailState::Over);
        if let MailState::Sent(slot) = before {
            slot.cancel();
        }
    }
}

impl Drop for MonitorGuard {
    fn drop(&mut self) {
        let mut state = self.mail.state.lock();
        if matches!(*state, MailState::Armed) {
            *state = MailState::Over;
        }
    }
}

impl fmt::Debug for MonitorGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MonitorGuard({})", self.mail.monitor)
    }
}

/// A [`Down`] to be sent at most once.
struct DownMail {
    monitor: MonitorRef,
    node: NodeId,
    actor: ActorId,
    to: Recipient<Down>,
    state: Mutex<MailState>,
}

enum MailState {
    Armed,
    /// Cancelling the slot takes the mail back.
    Sent(Arc<Slot<()>>),
    Over,
}

impl DownMail {
    fn new(node: NodeId, actor: ActorId, to: Recipient<Down>) -> Arc<Self> {
        Arc::new(DownMail { monitor: MonitorRef::fresh(), node, actor, to, state: Mutex::new(MailState::Armed) })
    }

    fn send(&self, reason: ExitReason) {
        let slot = {
            let mut state = self.state.lock();
            if !matches!(*state, MailState::Armed) {
                return;
            }
            // Known to a flush before it is on its way.
            let slot = Slot::new();
            *state = MailState::Sent(Arc::clone(&slot));
            slot
        };
        let down = Down { monitor: self.monitor, node: self.node.clone(), actor: self.actor, reason };
        self.to.signal(down, slot);
    }
}

impl Watcher for DownMail {
    fn ended(&self, reason: &ExitReason) {
        self.send(reason.clone());
    }
}

impl Answer for DownMail {
    fn answer(&self, answer: Result<&[u8], CallError>) {
        let reply = answer.and_then(|bytes| {
            codec::decode::<ControlReply>(bytes)
                .map_err(|error| CallError::Decode { reason: error.to_string(), reply: true })
        });
        self.send(reason_told(reply));
    }

    fn accepted(&self) {}
}

pub(crate) fn reason_told(answer: Result<ControlReply, CallError>) -> ExitReason {
    match answer {
        Ok(ControlReply::Ended(reason)) => reason,
        Ok(_) => reason_of(crate::node::unexpected()),
        Err(error) => reason_of(error),
    }
}

pub(crate) fn reason_of(error: CallError) -> ExitReason {
    match error {
        CallError::NoSuchActor { .. } => ExitReason::NoProc,
        // Lives of a node bear no order. The reference may be to a later life than the one that this node is connected to,
        // whose actor lives: all that is known is that it cannot be reached.
        stale @ CallError::StaleIncarnation { .. } => ExitReason::NoConnection { reason: stale.to_string() },
        CallError::Unreachable { reason, .. } => ExitReason::NoConnection { reason },
        CallError::Quarantined { reason, .. } => ExitReason::Quarantined { reason },
        other => ExitReason::NoConnection { reason: other.to_string() },
    }
}

/// Whoever is told of an actor's end.
pub(crate) trait Watcher: Send + Sync {
    /// Called once, with no lock held.
    fn ended(&self, reason: &ExitReason);
}

impl Watcher for Slot<ExitReason> {
    fn ended(&self, reason: &ExitReason) {
        self.put(Ok(reason.clone()));
    }
}

/// An actor's end, and those who want to hear of it.
#[derive(Default)]
pub(crate) struct End(Mutex<EndState>);

enum EndState {
    Open(Slab<Arc<dyn Watcher>>),
    Over,
}

impl Default for EndState {
    fn default() -> Self {
        EndState::Open(Slab::new())
    }
}

impl End {
    /// Tells everybody, once.
    pub(crate) fn publish(&self, reason: &ExitReason) {
        let before = std::mem::replace(&mut *self.0.lock(), EndState::Over);
        if let EndState::Open(watchers) = before {
            for (_, watcher) in watchers {
                watcher.ended(reason);
            }
        }
    }

    /// The watcher's row. None if the end is past.
    fn watch(&self, watcher: Arc<dyn Watcher>) -> Option<usize> {
        match &mut *self.0.lock() {
            EndState::Open(watchers) => Some(watchers.insert(watcher)),
            EndState::Over => None,
        }
    }

    fn unwatch(&self, row: usize) {
        let mut state = self.0.lock();
        let watcher = match &mut *state {
            EndState::Open(watchers) => watchers.try_remove(row),
            EndState::Over => None,
        };
        drop(state);
        drop(watcher);
    }
}

/// One watcher's place at an actor of this node; leaves it when dropped.
pub(crate) struct Watched {
    actor: Arc<dyn AnyActor>,
    row: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.actor.end().unwatch(self.row);
    }
}

/// Waits for the end of an actor of this node.
pub(crate) struct Watch(Option<(Watched, Arc<Slot<ExitReason>>)>);

impl Watched {
    /// Tells `watcher` of the actor's end. None if that is past.
    pub(crate) fn new(actor: &Arc<dyn AnyActor>, watcher: Arc<dyn Watcher>) -> Option<Self> {
        let row = actor.end().watch(watcher)?;
        Some(Watched { actor: Arc::clone(actor), row })
    }
}

impl Watch {
    /// Of an actor that may have ended, or may never have been.
    pub(crate) fn of(actor: Option<&Arc<dyn AnyActor>>) -> Self {
        Watch(actor.and_then(|actor| {
            let slot = Slot::new();
            let watched = Watched::new(actor, Arc::clone(&slot) as _)?;
            Some((watched, slot))
        }))
    }
}

impl Future for Watch {
    type Output = ExitReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExitReason> {
        match &self.0 {
            Some((_, slot)) => slot.poll(cx).map(|reason| reason.unwrap_or(ExitReason::NoProc)),
            None => Poll::Ready(ExitReason::NoProc),
        }
    }
}
