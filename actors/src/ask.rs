//! The futures of calls. What they stand for was sent when they were made; they only wait.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mobula_core::{CallError, Deadline, RemoteMessage, RequestId, limits};
use mobula_transport::now;

use crate::acceptance::Acceptance;
use crate::dead_letter::Unheard;
use crate::node::{Node, NodeLink};
use crate::reply::{Pending, Slot, Withdrawn};
use crate::way::{Expiry, Way};

/// The answer to an ask.
///
/// The message was sent when this future was made, even if it is never polled.
/// # Cancel safety
/// Dropping it gives the ask up: a message that its actor has not begun is skipped; a handler that runs goes on, and
/// its answer is dropped.
#[must_use = "the message is sent, but dropping the future gives the ask up"]
pub struct Ask<M: RemoteMessage> {
    /// Until it is dropped.
    slot: Option<Arc<Slot<M::Reply>>>,
    way: Way,
    over: bool,
}

pub(crate) fn default_deadline() -> Deadline {
    Deadline::after(now(), limits::ASK_DEADLINE)
}

impl<M: RemoteMessage> Ask<M> {
    pub(crate) fn near(slot: Arc<Slot<M::Reply>>, deadline: Deadline, node: Node) -> Self {
        Ask { slot: Some(slot), way: Way::near(node, deadline), over: false }
    }

    pub(crate) fn far(
        slot: Arc<Slot<M::Reply>>,
        link: &Arc<NodeLink>,
        sent: Result<RequestId, (CallError, Pending)>,
    ) -> Self {
        match sent {
            Ok(request) => Ask { slot: Some(slot), way: Way::far(link, request), over: false },
            Err((error, _)) => {
                slot.put(Err(error));
                Ask { slot: Some(slot), way: Way::Failed, over: false }
            }
        }
    }

    pub(crate) fn failed(error: CallError) -> Self {
        let slot = Slot::new();
        slot.put(Err(error));
        Ask { slot: Some(slot), way: Way::Failed, over: false }
    }

    /// As dropping it; it is never ready after this.
    pub(crate) fn give_up(&mut self) {
        drop(self.withdraw());
    }

    /// As [`give_up`](Self::give_up). Gives the answer, if there is one that was not picked up.
    pub(crate) fn withdraw(&mut self) -> Option<Result<M::Reply, CallError>> {
        self.way.forget_deadline();
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        match self.slot.as_ref().map_or(Withdrawn::Over, |slot| slot.withdraw()) {
            Withdrawn::Open => {
                self.way.cancel();
                None
            }
            Withdrawn::Answer(answer) => Some(answer),
            Withdrawn::Over => None,
        }
    }

    /// Where the reply is a `Result`: its error becomes [`CallError::Handler`], so that one `?` does for both.
    pub fn flatten<T, E>(self) -> FlatAsk<M>
    where
        M: RemoteMessage<Reply = Result<T, E>>,
    {
        FlatAsk(self)
    }
}

impl<M: RemoteMessage> Future for Ask<M> {
    type Output = Result<M::Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(slot) = &this.slot else { return Poll::Pending };
        if let Poll::Ready(answer) = slot.poll(cx) {
            this.over = true;
            this.way.forget_deadline();
            return Poll::Ready(answer);
        }
        this.way.arm(slot);
        Poll::Pending
    }
}

impl<M: RemoteMessage> Drop for Ask<M> {
    fn drop(&mut self) {
        self.give_up();
        if let Some(slot) = self.slot.take() {
            Slot::spare(slot);
        }
    }
}

impl<M: RemoteMessage> std::fmt::Debug for Ask<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ask({})", M::NAME)
    }
}

/// An [`Ask`] whose handler's own error is [`CallError::Handler`].
#[must_use = "the message is sent, but dropping the future gives the ask up"]
#[derive(Debug)]
pub struct FlatAsk<M: RemoteMessage>(Ask<M>);

impl<M, T, E> Future for FlatAsk<M>
where
    M: RemoteMessage<Reply = Result<T, E>>,
{
    type Output = Result<T, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CallError::Handler(error)),
            Err(error) => Err(error.widen()),
        })
    }
}

/// The acceptance of a tell: into the mailbox, or into the queue towards its node.
///
/// The message has its place since this future was made, even if it is never polled.
/// # Cancel safety
/// Dropping it does not take the message back. If it ends with an error that nobody has looked at, the message is a dead
/// letter; see [`Node::on_dead_letter`].
pub struct Tell<M> {
    state: TellState,
    message: PhantomData<fn(M)>,
}

enum TellState {
    Accepted,
    Refused(Unheard),
    Waiting {
        acceptance: Arc<Acceptance>,
        /// The deadline within the process, where no connection keeps it.
        expiry: Option<Expiry>,
    },
    Over,
}

impl<M> Tell<M> {
    pub(crate) fn accepted() -> Self {
        Self::new(TellState::Accepted)
    }

    pub(crate) fn refused(unheard: Unheard) -> Self {
        Self::new(TellState::Refused(unheard))
    }

    /// In line for a mailbox of `node`.
    pub(crate) fn near(acceptance: Arc<Acceptance>, deadline: Deadline, node: &Node) -> Self {
        let expiry = deadline.instant().map(|_| Expiry::new(node.clone(), deadline));
        Self::new(TellState::Waiting { acceptance, expiry })
    }

    /// In line for a connection, or posted over it.
    pub(crate) fn far(acceptance: Arc<Acceptance>) -> Self {
        Self::new(TellState::Waiting { acceptance, expiry: None })
    }

    fn new(state: TellState) -> Self {
        Tell { state, message: PhantomData }
    }
}

impl<M> Future for Tell<M> {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            TellState::Accepted => Ok(()),
            TellState::Refused(unheard) => match unheard.hear() {
                Some(error) => Err(error),
                None => return Poll::Pending,
            },
            TellState::Waiting { acceptance, expiry } => match acceptance.poll(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    if let Some(expiry) = expiry {
                        expiry.arm(acceptance);
                    }
                    return Poll::Pending;
                }
            },
            TellState::Over => return Poll::Pending,
        };
        self.state = TellState::Over;
        Poll::Ready(result)
    }
}

impl<M> Drop for Tell<M> {
    fn drop(&mut self) {
        if let TellState::Waiting { acceptance, .. } = &self.state {
            acceptance.abandon();
        }
    }
}

impl<M> std::fmt::Debug for Tell<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}
