//! Calls as users make them, and what becomes of them in the ledger's words.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mobula::{ActorRef, CallError, ExitReason, Node, Recipient};
use mobula_core::codec;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::worker::{Alone, Beside, Plain, Watcher, Work, Worker};
use super::{links, state, streams};
use crate::fact::{LifeId, News, Op, Verdict};
use crate::params::{CallParams, Kind};
use crate::reach::Branch;

/// Whom a call goes to.
pub(super) struct Target {
    pub(super) life: LifeId,
    pub(super) reference: ActorRef<Worker>,
}

impl Target {
    /// As `node` has it. None if the target's node was never up.
    pub(super) fn of(plan: &CallParams, node: &Node) -> Option<Self> {
        let reference: ActorRef<Worker> = codec::decode(&state::actor_for(plan)?).ok()?;
        Target::by(node.reference_to(&reference))
    }

    pub(super) fn by(reference: ActorRef<Worker>) -> Option<Self> {
        Some(Target { life: state::life_of(reference.node())?, reference })
    }

    pub(super) fn place(&self) -> (LifeId, u64) {
        (self.life, self.reference.id().0)
    }
}

pub(super) type Done = Pin<Box<dyn Future<Output = ()>>>;

/// Makes the call now. The future is done when the call has its outcome.
pub(super) fn make(
    plan: &Arc<CallParams>,
    caller: LifeId,
    node: &Node,
    target: Target,
    watcher: Option<&ActorRef<Watcher>>,
) -> Done {
    match plan.kind {
        Kind::Ask | Kind::Spawn => ask(plan, caller, node, &target),
        Kind::Tell => tell(plan, caller, node, &target),
        Kind::Stream => streams::ask(plan, caller, node, &target),
        Kind::Link | Kind::Unlink => links::change(plan, caller, node, &target),
        Kind::Stop => {
            let reference = target.reference;
            // Whether it arrives shows in what becomes of the actor.
            Box::pin(async move { drop(reference.stop().await) })
        }
        // Nothing else is drawn in this tier.
        _ => monitor(plan, caller, &target, watcher),
    }
}

/// What a message carries; some of it goes in fragments.
pub(super) fn padding_bytes(plan: &CallParams) -> usize {
    let is_large = plan.padding >= 600 && plan.burst <= 2;
    usize::from(plan.padding) * if is_large { 400 } else { 1 }
}

pub(super) fn work(op: Op, plan: &CallParams, node: &Node) -> Work {
    let nested = plan.nested.iter().map(|nested| Target::of(nested, node).map(|target| target.reference));
    Work { op, padding: vec![0x5a; padding_bytes(plan)], nested: nested.collect() }
}

fn ask(plan: &Arc<CallParams>, caller: LifeId, node: &Node, target: &Target) -> Done {
    let op = state::issue(plan, caller, target.place());
    let to = match plan.deadline {
        Some(after) => target.reference.with_deadline(Duration::from_micros(after)),
        None => target.reference.clone(),
    };
    let work = work(op, plan, node);
    let asked: Pin<Box<dyn Future<Output = Answer>>> = match plan.message % 3 {
        0 => Box::pin(to.ask(Plain(work))),
        1 => Box::pin(to.ask(Alone(work))),
        _ => Box::pin(to.ask(Beside(work))),
    };
    let (open, cancel_after) = (Open(op), plan.cancel_after);
    Box::pin(async move {
        let open = open;
        let answer = match cancel_after {
            Some(after) => timeout(Duration::from_micros(after), asked).await.ok(),
            None => Some(asked.await),
        };
        if let Some(answer) = answer {
            state::resolved(open.0, verdict(&answer));
        }
    })
}

type Answer = Result<Result<Op, Op>, CallError>;

fn verdict(answer: &Answer) -> Verdict {
    match answer {
        Ok(Ok(to)) => {
            state::reach(Branch::AskReplied);
            Verdict::Replied { to: *to }
        }
        Ok(Err(to)) => {
            state::reach(Branch::HandlerError);
            Verdict::HandlerError { to: *to }
        }
        Err(error) => failed(error),
    }
}

pub(super) fn failed(error: &CallError) -> Verdict {
    if let CallError::Panicked { text, .. } = error {
        state::reach(Branch::Panicked);
        if text != state::PLANNED_PANIC {
            let what = format!("a handler panics with {text:?}");
            state::accuse("I31 no peer input panics", what);
        }
    }
    Verdict::of(error)
}

/// A call that is dropped without an outcome was given up.
pub(super) struct Open(pub(super) Op);

impl Drop for Open {
    fn drop(&mut self) {
        state::given_up(self.0);
    }
}

fn tell(plan: &Arc<CallParams>, caller: LifeId, node: &Node, target: &Target) -> Done {
    let op = state::issue(plan, caller, target.place());
    let to = match plan.deadline {
        Some(after) => target.reference.with_deadline(Duration::from_micros(after)),
        None => target.reference.clone(),
    };
    let work = work(op, plan, node);
    let told: Pin<Box<dyn Future<Output = Result<(), CallError>>>> = match plan.message % 3 {
        0 => Box::pin(to.tell(Plain(work))),
        1 => Box::pin(to.tell(Alone(work))),
        _ => Box::pin(to.tell(Beside(work))),
    };
    let expires = plan.deadline.is_some();
    Box::pin(async move {
        match told.await {
            // One that expires later is no loss.
            Ok(()) if expires => {}
            Ok(()) => state::resolved(op, Verdict::Accepted),
            Err(error) => state::resolved(op, Verdict::of(&error)),
        }
    })
}

fn monitor(plan: &CallParams, caller: LifeId, target: &Target, watcher: Option<&ActorRef<Watcher>>) -> Done {
    let after = plan.cancel_after.map(Duration::from_micros);
    match watcher.filter(|_| plan.message == 0) {
        Some(watcher) => {
            let guard = target.reference.monitor_into(Recipient::from(watcher.clone()));
            state::monitor_set(caller, target.place(), Some(guard.id()));
            // For as long as its node lives.
            spawn_local(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            Box::pin(std::future::ready(()))
        }
        None => {
            let end = target.reference.monitor();
            let monitor = state::monitor_set(caller, target.place(), None);
            Box::pin(async move {
                let down = match after {
                    Some(after) => timeout(after, end).await.ok(),
                    None => Some(end.await),
                };
                match down {
                    Some(down) => state::monitor_fired(monitor, news(&down.reason)),
                    None => state::fact(crate::fact::Fact::MonitorDropped { monitor }),
                }
            })
        }
    }
}

pub(super) fn news(reason: &ExitReason) -> News {
    match reason {
        ExitReason::NoProc => News::NoProc,
        ExitReason::NoConnection { .. } | ExitReason::Quarantined { .. } => News::NoConnection,
        _ => News::Ended,
    }
}
