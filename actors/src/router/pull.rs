//! Work pulling: messages wait in the router, and each member has one at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use mobula_core::{CallError, Deadline, RemoteMessage, limits};
use mobula_transport::now;

use super::ask::Spare;
use super::members::MemberId;
use super::routee::{Routee, Takes};
use super::{Shared, is_gone};
use crate::ask::Ask;
use crate::dead_letter::Unheard;
use crate::far::Wait;
use crate::node::Node;
use crate::reply::{ReplyTo, Slot};

/// What waits for a free member.
pub(super) struct Queue<R> {
    waiting: VecDeque<Box<dyn Job<R>>>,
    capacity: usize,
    /// Somebody hands out what waits.
    is_served: bool,
}

/// How a run ended; a job that its member never began comes back with the cause.
type RunEnd<R> = Result<(), (Box<dyn Job<R>>, CallError)>;

/// A message and its way back, its type forgotten.
pub(super) trait Job<R>: Send {
    /// False if nobody waits for it any more at `now`.
    fn is_wanted(&self, now: Instant) -> bool;
    /// Sends the message to `member` now; the future waits for the end. References in it belong to `node`.
    fn run(self: Box<Self>, member: &R, node: &Node) -> BoxFuture<'static, Ran<R>>;
    /// It will not run. An ask is answered with the error; a tell is a dead letter of `node` unless its sender hears of it.
    fn fail(self: Box<Self>, error: CallError, node: Option<&Node>) -> Option<Unheard>;
}

/// The end of a run, and whether its member is gone.
pub(super) struct Ran<R> {
    end: RunEnd<R>,
    gone: bool,
}

struct TypedJob<M: RemoteMessage> {
    message: Spare<M>,
    deadline: Deadline,
    /// None for a tell.
    reply: Option<ReplyTo<M::Reply>>,
}

impl<R: Takes<M>, M: RemoteMessage> Job<R> for TypedJob<M> {
    fn is_wanted(&self, now: Instant) -> bool {
        !self.deadline.is_over(now) && !self.reply.as_ref().is_some_and(ReplyTo::is_cancelled)
    }

    fn run(mut self: Box<Self>, member: &R, node: &Node) -> BoxFuture<'static, Ran<R>> {
        let done = Ran { end: Ok(()), gone: false };
        if self.reply.as_mut().is_some_and(|reply| !reply.begin()) {
            return Box::pin(std::future::ready(done));
        }
        let Some(message) = self.message.take(Some(node)) else {
            let reason = "it could not be encoded to be sent again".to_owned();
            drop(Job::<R>::fail(self, CallError::Encode { reason, reply: false }, Some(node)));
            return Box::pin(std::future::ready(done));
        };
        let left = self.deadline.instant().map(|at| at.saturating_duration_since(now()));
        let (asked, node) = (member.waiting(left).ask(message), node.clone());
        Box::pin(async move {
            match asked.await {
                Err(error) if is_gone(&error) && error.outcome().is_retry_safe() => {
                    Ran { end: Err((self, error)), gone: true }
                }
                answer => {
                    let gone = answer.as_ref().is_err_and(is_gone);
                    match (self.reply.take(), answer) {
                        (Some(reply), answer) => reply.send(answer),
                        (None, Err(error)) if error.outcome().is_retry_safe() => {
                            drop(Job::<R>::fail(self, error, Some(&node)));
                        }
                        (None, _) => {}
                    }
                    Ran { end: Ok(()), gone }
                }
            }
        })
    }

    fn fail(self: Box<Self>, error: CallError, node: Option<&Node>) -> Option<Unheard> {
        match self.reply {
            Some(reply) => {
                reply.send(Err(error));
                None
            }
            None => Some(Unheard::to_nobody(node, self.message.into_message(node), error)),
        }
    }
}

impl<R> Queue<R> {
    pub(super) fn new() -> Self {
        Queue { waiting: VecDeque::new(), capacity: limits::PULL_QUEUE_MESSAGES, is_served: false }
    }

    pub(super) fn set_capacity(&mut self, messages: usize) {
        self.capacity = messages.max(1);
    }
}

/// Puts an ask into the queue.
pub(super) fn ask<R: Takes<M>, M: RemoteMessage>(shared: &Arc<Shared<R>>, message: M, wait: Wait) -> Ask<M> {
    let (slot, deadline) = (Slot::new(), wait.of_ask());
    let reply = Some(ReplyTo::near(Arc::clone(&slot)));
    let job = TypedJob { message: Spare::Whole(message), deadline, reply };
    match put(shared, Box::new(job)) {
        Ok(node) => Ask::near(slot, deadline, node),
        Err((job, error)) => {
            drop(job.fail(error.clone(), shared.node.get()));
            Ask::failed(error)
        }
    }
}

/// Puts a tell into the queue.
pub(super) fn tell<R: Takes<M>, M: RemoteMessage>(
    shared: &Arc<Shared<R>>,
    message: M,
    wait: Wait,
) -> Result<(), Unheard> {
    let job = TypedJob { message: Spare::Whole(message), deadline: wait.of_tell(), reply: None };
    match put(shared, Box::new(job)) {
        Ok(_) => Ok(()),
        Err((job, error)) => job.fail(error, shared.node.get()).map_or(Ok(()), Err),
    }
}

type Refused<R> = (Box<dyn Job<R>>, CallError);

fn put<R: Routee>(shared: &Arc<Shared<R>>, job: Box<dyn Job<R>>) -> Result<Node, Refused<R>> {
    let Some(node) = shared.node.get() else { return Err((job, CallError::Stopped)) };
    let begin = {
        let mut state = shared.state.lock();
        if state.shut || (!shared.kept && state.members.open().next().is_none()) {
            return Err((job, CallError::Stopped));
        }
        let limit = state.pull.capacity;
        if state.pull.waiting.len() >= limit {
            return Err((job, CallError::Full { limit: limit as u64 }));
        }
        state.pull.waiting.push_back(job);
        !std::mem::replace(&mut state.pull.is_served, true)
    };
    shared.changed.send_replace(());
    if begin {
        let (shared, own) = (Arc::clone(shared), node.clone());
        node.spawn_at_home(async move { serve(&shared, &own).await });
    }
    Ok(node.clone())
}

/// Whoever hands out what waits. If that ends with its node, what waits is answered, and does not wait for ever.
struct Serving<'a, R: Routee>(&'a Shared<R>);

impl<R: Routee> Drop for Serving<'_, R> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();
            state.pull.is_served = false;
            std::mem::take(&mut state.pull.waiting)
        };
        left.into_iter().for_each(|job| drop(job.fail(CallError::Stopped, self.0.node.get())));
    }
}

/// Hands out what waits, until nothing waits and nothing runs.
async fn serve<R: Routee>(shared: &Shared<R>, node: &Node) {
    let serving = Serving(shared);
    let mut running: FuturesUnordered<BoxFuture<'static, (MemberId, Ran<R>)>> = FuturesUnordered::new();
    let mut changed = shared.changed.subscribe();
    let mut cause = CallError::Stopped;
    loop {
        changed.mark_unchanged();
        while let Some((job, id, member)) = next(shared, &mut cause) {
            let run = job.run(&member, node);
            running.push(Box::pin(async move { (id, run.await) }));
        }
        let (hopeless, done) = {
            let mut state = shared.state.lock();
            let none_will_come = state.shut || (!shared.kept && state.members.open().next().is_none());
            let hopeless = if none_will_come { std::mem::take(&mut state.pull.waiting) } else { VecDeque::new() };
            let done = running.is_empty() && state.pull.waiting.is_empty();
            if done {
                // Under the lock, so that what is put in from now on has somebody else to hand it out.
                state.pull.is_served = false;
            }
            (hopeless, done)
        };
        hopeless.into_iter().for_each(|job| drop(job.fail(cause.clone(), Some(node))));
        if done {
            std::mem::forget(serving);
            return;
        }
        tokio::select! {
            Some((id, ran)) = running.next(), if !running.is_empty() => {
                let forgotten = {
                    let mut state = shared.state.lock();
                    let closed = if ran.gone { state.members.close(id) } else { None };
                    let ended = state.members.ended(id);
                    if let Err((job, why)) = ran.end {
                        // Ahead of those that were never sent.
                        state.pull.waiting.push_front(job);
                        cause = why;
                    }
                    (closed, ended)
                };
                drop(forgotten);
                shared.changed.send_replace(());
            }
            _ = changed.changed() => {}
        }
    }
}

/// The next job that is wanted, with a free member for it.
fn next<R: Routee>(shared: &Shared<R>, cause: &mut CallError) -> Option<(Box<dyn Job<R>>, MemberId, R)> {
    loop {
        let job = shared.state.lock().pull.waiting.pop_front()?;
        if !job.is_wanted(now()) {
            drop(job.fail(CallError::DeadlineExceeded { started: false }, shared.node.get()));
            continue;
        }
        return match shared.choose(None) {
            Ok((id, member)) => {
                shared.state.lock().members.begun(id);
                Some((job, id, member))
            }
            Err(why) => {
                // Only busy, if it does not say more.
                if why != CallError::Stopped {
                    *cause = why;
                }
                shared.state.lock().pull.waiting.push_front(job);
                None
            }
        };
    }
}
