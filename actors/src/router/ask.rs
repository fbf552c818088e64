//! An ask through a router: sent at once, and sent to another member where the first is gone and never began it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use mobula_core::{CallError, Deadline, RemoteMessage, codec};
use mobula_transport::now;
use tokio::task::JoinHandle;

use super::members::MemberId;
use super::routee::{Routee, Takes};
use super::{Shared, is_gone};
use crate::ask::Ask;
use crate::far::Wait;
use crate::node::Node;
use crate::scope;

/// The answer to an ask through a [`Router`](crate::Router).
///
/// The message was sent when this future was made, if there was a member to send it to. It is sent to another member,
/// if need be, when this future is polled.
/// # Cancel safety
/// As for [`Ask`]: dropping it gives the ask up.
#[must_use = "the message is sent, but dropping the future gives the ask up"]
pub struct RoutedAsk<M: RemoteMessage>(Way<M>);

enum Way<M: RemoteMessage> {
    Sent(BoxFuture<'static, Result<M::Reply, CallError>>),
    Pulled(Ask<M>),
}

impl<M: RemoteMessage> RoutedAsk<M> {
    pub(super) fn pulled(ask: Ask<M>) -> Self {
        RoutedAsk(Way::Pulled(ask))
    }
}

impl<M: RemoteMessage> Future for RoutedAsk<M> {
    type Output = Result<M::Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Way::Sent(ask) => ask.as_mut().poll(cx),
            Way::Pulled(ask) => Pin::new(ask).poll(cx),
        }
    }
}

impl<M: RemoteMessage> std::fmt::Debug for RoutedAsk<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RoutedAsk({})", M::NAME)
    }
}

/// A message that may have to be sent once more. Any message has an encoding, and few can be cloned.
pub(super) enum Spare<M> {
    Whole(M),
    Encoded(Vec<u8>),
    None,
}

impl<M: RemoteMessage> Spare<M> {
    pub(super) fn of(message: &M) -> Self {
        codec::encode(message).map_or(Spare::None, Spare::Encoded)
    }

    /// The message, for the last time. References in it belong to `node`.
    pub(super) fn into_message(self, node: Option<&Node>) -> Option<M> {
        match self {
            Spare::Whole(message) => Some(message),
            Spare::Encoded(bytes) => scope::on_node(node, || codec::decode(&bytes)).ok(),
            Spare::None => None,
        }
    }

    /// The message, and what is left for another time. References in it belong to `node`.
    pub(super) fn take(&mut self, node: Option<&Node>) -> Option<M> {
        match std::mem::replace(self, Spare::None) {
            Spare::Whole(message) => {
                *self = Spare::of(&message);
                Some(message)
            }
            Spare::Encoded(bytes) => {
                let message = scope::on_node(node, || codec::decode(&bytes)).ok()?;
                *self = Spare::Encoded(bytes);
                Some(message)
            }
            Spare::None => None,
        }
    }
}

/// An ask on its way to a member, which counts there until its answer arrives, or until this is dropped.
struct Attempt<R: Routee, M: RemoteMessage> {
    arrival: Arc<Arrival<R>>,
    /// Wakes `arrival`.
    waker: Waker,
    ask: Ask<M>,
    /// Arrived at once.
    answer: Option<Result<M::Reply, CallError>>,
}

impl<R: Routee, M: RemoteMessage> Attempt<R, M> {
    fn new(shared: Arc<Shared<R>>, member: MemberId, ask: Ask<M>) -> Self {
        let arrival =
            Arc::new(Arrival { shared, member, has_ended: AtomicBool::new(false), caller: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&arrival));
        let mut attempt = Attempt { arrival, waker, ask, answer: None };
        // From now on the answer is heard of, also if the caller never polls.
        if let Poll::Ready(answer) = attempt.poll_ask() {
            attempt.answer = Some(answer);
        }
        attempt
    }

    fn poll_ask(&mut self) -> Poll<Result<M::Reply, CallError>> {
        let answer = Pin::new(&mut self.ask).poll(&mut Context::from_waker(&self.waker));
        if answer.is_ready() {
            self.arrival.end();
        }
        answer
    }

    async fn answer(&mut self) -> Result<M::Reply, CallError> {
        poll_fn(|cx| {
            if let Some(answer) = self.answer.take() {
                return Poll::Ready(answer);
            }
            // Before the look, so that an answer that comes after it wakes the caller.
            self.arrival.caller.register(cx.waker());
            self.poll_ask()
        })
        .await
    }
}

impl<R: Routee, M: RemoteMessage> Drop for Attempt<R, M> {
    fn drop(&mut self) {
        // Given up first, so that whoever waits for the member to be idle does not come too early.
        self.ask.give_up();
        self.arrival.end();
    }
}

/// Hears that the answer has come, and tells the router and then the caller.
struct Arrival<R: Routee> {
    shared: Arc<Shared<R>>,
    member: MemberId,
    has_ended: AtomicBool,
    caller: AtomicWaker,
}

impl<R: Routee> Arrival<R> {
    fn end(&self) {
        if !self.has_ended.swap(true, Ordering::AcqRel) {
            self.shared.ended(self.member);
        }
    }
}

impl<R: Routee> Wake for Arrival<R> {
    fn wake(self: Arc<Self>) {
        self.end();
        self.caller.wake();
    }
}

/// A wait that ends with whoever waits.
struct Waiting<T>(JoinHandle<T>);

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Call<R, M> {
    shared: Arc<Shared<R>>,
    spare: Spare<M>,
    key: Option<u64>,
    deadline: Deadline,
    /// Members keep their own deadline if the router has none.
    own_deadline: bool,
}

pub(super) fn send<R, M>(shared: &Arc<Shared<R>>, message: M, wait: Wait) -> RoutedAsk<M>
where
    R: Takes<M>,
    M: RemoteMessage,
{
    let key = shared.key_of(&message);
    let own_deadline = matches!(wait, Wait::Default);
    let mut call = Call { shared: Arc::clone(shared), spare: Spare::None, key, deadline: wait.of_ask(), own_deadline };
    let first = match shared.choose(key) {
        Ok((id, member)) => {
            if call.is_worth_a_copy() {
                call.spare = Spare::of(&message);
            }
            Ok(call.attempt(id, &member, message))
        }
        Err(error) => {
            call.spare = Spare::Whole(message);
            Err(error)
        }
    };
    RoutedAsk(Way::Sent(Box::pin(call.finish(first))))
}

impl<R: Takes<M>, M: RemoteMessage> Call<R, M> {
    /// There is another member, or there may be one.
    fn is_worth_a_copy(&self) -> bool {
        self.shared.kept || self.shared.state.lock().members.open().nth(1).is_some()
    }

    fn attempt(&mut self, id: MemberId, member: &R, message: M) -> Attempt<R, M> {
        self.shared.state.lock().members.begun(id);
        let ask = if self.own_deadline { member.ask(message) } else { member.waiting(self.left()).ask(message) };
        Attempt::new(Arc::clone(&self.shared), id, ask)
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.instant().map(|at| at.saturating_duration_since(now()))
    }

    async fn finish(mut self, first: Result<Attempt<R, M>, CallError>) -> Result<M::Reply, CallError> {
        let mut next = first;
        loop {
            let error = match next {
                Ok(mut attempt) => match attempt.answer().await {
                    Ok(reply) => return Ok(reply),
                    Err(error) if !is_gone(&error) => return Err(error),
                    Err(error) => {
                        self.shared.close(attempt.arrival.member);
                        if !error.outcome().is_retry_safe() {
                            return Err(error);
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            // The first attempt may have had a longer deadline of its own.
            self.own_deadline = false;
            next = self.again(error).await?;
        }
    }

    /// Another attempt, once there is a member for it; `why` the one before has failed, if there can be none.
    async fn again(&mut self, why: CallError) -> Result<Result<Attempt<R, M>, CallError>, CallError> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            if self.deadline.is_over(now()) {
                return Err(CallError::DeadlineExceeded { started: false });
            }
            let node = self.shared.node.get().cloned();
            match self.shared.choose(self.key) {
                Ok((id, member)) => {
                    let Some(message) = self.spare.take(node.as_ref()) else { return Err(why) };
                    return Ok(Ok(self.attempt(id, &member, message)));
                }
                Err(_) if self.may_come() => {}
                Err(_) => return Err(why),
            }
            let Some(node) = node else { return Err(why) };
            // On the node's own runtime, for whoever polls this may have no timer.
            let at = self.deadline.instant();
            let mut news = Waiting(node.control_runtime().spawn(async move {
                match at {
                    Some(at) => drop(tokio::time::timeout_at(at.into(), changed.changed()).await),
                    None => drop(changed.changed().await),
                }
                changed
            }));
            let Ok(again) = (&mut news.0).await else { return Err(why) };
            changed = again;
        }
    }

    fn may_come(&self) -> bool {
        self.shared.kept && !self.shared.state.lock().shut
    }
}
