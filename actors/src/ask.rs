//! The futures of calls. What they stand for was sent when they were made; they only wait.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mobula_core::{CallError, Deadline, RemoteMessage, RequestId, limits};
use mobula_transport::now;

use crate::node::{Node, NodeLink};
use crate::reply::{Pending, Slot};

/// The answer to an ask.
///
/// The message was sent when this future was made, even if it is never polled.
/// # Cancel safety
/// Dropping it gives the ask up: a message that its actor has not begun is skipped; a handler that runs goes on, and
/// its answer is dropped.
#[must_use = "the message is sent, but dropping the future gives the ask up"]
pub struct Ask<M: RemoteMessage> {
    slot: Arc<Slot<M::Reply>>,
    way: Way,
    over: bool,
}

enum Way {
    Near {
        deadline: Deadline,
        node: Node,
        /// Its row among the node's deadlines, once it has been waited for.
        row: Option<usize>,
    },
    Far {
        link: Arc<NodeLink>,
        request: RequestId,
    },
    /// Failed when it was sent; the slot has the reason.
    Failed,
}

pub(crate) fn default_deadline() -> Deadline {
    Deadline::after(now(), limits::ASK_DEADLINE)
}

impl<M: RemoteMessage> Ask<M> {
    pub(crate) fn near(slot: Arc<Slot<M::Reply>>, deadline: Deadline, node: Node) -> Self {
        Ask { slot, way: Way::Near { deadline, node, row: None }, over: false }
    }

    pub(crate) fn far(
        slot: Arc<Slot<M::Reply>>,
        link: &Arc<NodeLink>,
        sent: Result<RequestId, (CallError, Pending)>,
    ) -> Self {
        match sent {
            Ok(request) => Ask { slot, way: Way::Far { link: Arc::clone(link), request }, over: false },
            Err((error, _)) => {
                slot.put(Err(error));
                Ask { slot, way: Way::Failed, over: false }
            }
        }
    }

    pub(crate) fn failed(error: CallError) -> Self {
        let slot = Slot::new();
        slot.put(Err(error));
        Ask { slot, way: Way::Failed, over: false }
    }

    fn forget_deadline(&mut self) {
        if let Way::Near { node, row, .. } = &mut self.way
            && let Some(row) = row.take()
        {
            node.expiries().remove(row);
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
        if let Poll::Ready(answer) = this.slot.poll(cx) {
            this.over = true;
            this.forget_deadline();
            return Poll::Ready(answer);
        }
        // A connection keeps the deadlines of what it has sent; the node those of what it hands over itself.
        if let Way::Near { deadline, node, row: row @ None } = &mut this.way
            && let Some(at) = deadline.instant()
        {
            *row = Some(node.expiries().insert(at, Arc::clone(&this.slot) as _));
        }
        Poll::Pending
    }
}

impl<M: RemoteMessage> Drop for Ask<M> {
    fn drop(&mut self) {
        self.forget_deadline();
        if !self.over
            && self.slot.cancel()
            && let Way::Far { link, request } = &self.way
        {
            link.cancel(*request);
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
/// Dropping it does not take the message back.
pub struct Tell<M> {
    state: TellState,
    message: PhantomData<fn(M)>,
}

enum TellState {
    Known(Option<Result<(), CallError>>),
    InLine(Arc<Slot<()>>),
}

impl<M> Tell<M> {
    pub(crate) fn known(result: Result<(), CallError>) -> Self {
        Tell { state: TellState::Known(Some(result)), message: PhantomData }
    }

    pub(crate) fn in_line(slot: Arc<Slot<()>>) -> Self {
        Tell { state: TellState::InLine(slot), message: PhantomData }
    }
}

impl<M> Future for Tell<M> {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            TellState::Known(result) => result.take().map_or(Poll::Pending, Poll::Ready),
            TellState::InLine(slot) => slot.poll(cx),
        }
    }
}

impl<M> std::fmt::Debug for Tell<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}
