//! Monitors: being told, once, that an actor has come to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mobula_core::{ActorId, CallError, ExitReason, NodeId};
use parking_lot::Mutex;

use crate::ask::Ask;
use crate::control::{Control, ControlReply};
use crate::node::AnyActor;
use crate::reply::Slot;

/// The news of an actor's end: a future that is ready once.
///
/// The monitor is in force from the moment it was made, polled or not. A restart under supervision is not an end. What
/// the actor had sent to this node before its end was sent before the news.
/// # Cancel safety
/// Dropping it ends the monitoring, and nothing comes any more.
#[must_use = "dropping the monitor ends it"]
pub struct Monitor {
    node: NodeId,
    actor: ActorId,
    way: Way,
}

enum Way {
    Near(Watch),
    Far(Ask<Control>),
    Known(Option<ExitReason>),
}

/// What a [`Monitor`] tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Down {
    /// Where the actor lived.
    pub node: NodeId,
    /// Which actor it was.
    pub actor: ActorId,
    /// How it came to its end.
    pub reason: ExitReason,
}

impl Monitor {
    pub(crate) fn near(node: NodeId, actor: ActorId, watch: Watch) -> Self {
        Monitor { node, actor, way: Way::Near(watch) }
    }

    pub(crate) fn far(node: NodeId, actor: ActorId, sent: Result<Ask<Control>, CallError>) -> Self {
        let way = match sent {
            Ok(ask) => Way::Far(ask),
            Err(error) => Way::Known(Some(reason_of(error))),
        };
        Monitor { node, actor, way }
    }
}

impl Future for Monitor {
    type Output = Down;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Down> {
        let reason = match &mut self.way {
            Way::Near(watch) => ready!(Pin::new(watch).poll(cx)),
            Way::Far(ask) => match ready!(Pin::new(ask).poll(cx)) {
                Ok(ControlReply::Ended(reason)) => reason,
                Ok(_) => reason_of(crate::node::unexpected()),
                Err(error) => reason_of(error),
            },
            Way::Known(reason) => match reason.take() {
                Some(reason) => reason,
                None => return Poll::Pending,
            },
        };
        // Once only: whoever polls again waits for ever.
        self.way = Way::Known(None);
        Poll::Ready(Down { node: self.node.clone(), actor: self.actor, reason })
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Monitor({}@{})", self.actor, self.node)
    }
}

fn reason_of(error: CallError) -> ExitReason {
    match error {
        CallError::StaleIncarnation { .. } | CallError::NoSuchActor { .. } => ExitReason::NoProc,
        CallError::Unreachable { reason, .. } => ExitReason::NoConnection { reason },
        other => ExitReason::NoConnection { reason: other.to_string() },
    }
}

/// An actor's end, and those who want to hear of it.
#[derive(Debug, Default)]
pub(crate) struct End(Mutex<EndState>);

#[derive(Debug)]
enum EndState {
    Open(Vec<Arc<Slot<ExitReason>>>),
    Over,
}

impl Default for EndState {
    fn default() -> Self {
        EndState::Open(Vec::new())
    }
}

impl End {
    /// Tells everybody, once.
    pub(crate) fn publish(&self, reason: &ExitReason) {
        let before = std::mem::replace(&mut *self.0.lock(), EndState::Over);
        if let EndState::Open(watchers) = before {
            for watcher in watchers {
                watcher.put(Ok(reason.clone()));
            }
        }
    }

    /// None if the end is past.
    pub(crate) fn watch(&self) -> Option<Arc<Slot<ExitReason>>> {
        match &mut *self.0.lock() {
            EndState::Open(watchers) => {
                let slot = Slot::new();
                watchers.push(Arc::clone(&slot));
                Some(slot)
            }
            EndState::Over => None,
        }
    }

    pub(crate) fn unwatch(&self, slot: &Arc<Slot<ExitReason>>) {
        if let EndState::Open(watchers) = &mut *self.0.lock() {
            watchers.retain(|watcher| !Arc::ptr_eq(watcher, slot));
        }
    }
}

/// One watcher of an actor of this node.
pub(crate) struct Watch(Option<Watched>);

struct Watched {
    actor: Arc<dyn AnyActor>,
    slot: Arc<Slot<ExitReason>>,
}

impl Watch {
    /// Of an actor that may have ended, or may never have been.
    pub(crate) fn of(actor: Option<Arc<dyn AnyActor>>) -> Self {
        Watch(actor.and_then(|actor| {
            let slot = actor.end().watch()?;
            Some(Watched { actor, slot })
        }))
    }
}

impl Future for Watch {
    type Output = ExitReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExitReason> {
        match &self.0 {
            Some(Watched { slot, .. }) => slot.poll(cx).map(|reason| reason.unwrap_or(ExitReason::NoProc)),
            None => Poll::Ready(ExitReason::NoProc),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(Watched { actor, slot }) = &self.0 {
            actor.end().unwatch(slot);
        }
    }
}
