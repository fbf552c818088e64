//! How an actor is doing, life after life: what its supervisor and others who watch it want to know.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::Stream;
use mobula_core::{ActorAddress, ExitReason, Generation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::control::{self, Control, ControlReply};
use crate::monitor::reason_told;
use crate::node::Node;
use crate::reply::Slot;

/// A life of an actor has ended, and the next one has begun.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Restarted {
    /// Which actor. A restart keeps its id, its references and its name.
    pub actor: ActorAddress,
    /// The life that has begun.
    pub generation: Generation,
    /// How the one before ended.
    pub reason: ExitReason,
}

/// The state of an actor's life, and a number that grows with each change of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct LifeNews {
    pub(crate) number: u64,
    pub(crate) generation: Generation,
    pub(crate) phase: Phase,
    /// The latest restarts: the generations that began, and how those before ended.
    pub(crate) restarts: VecDeque<(Generation, ExitReason)>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It has not begun yet.
    Unborn,
    Running,
    /// A life has ended, and another may follow.
    Between(ExitReason),
    /// None follows.
    Over(ExitReason),
}

impl LifeNews {
    fn over(reason: ExitReason) -> Self {
        LifeNews { number: u64::MAX, generation: Generation(0), phase: Phase::Over(reason), restarts: VecDeque::new() }
    }
}

/// Restarts that are remembered for whoever is slow to hear of them.
const RESTARTS_KEPT: usize = 8;

/// An actor's life as others see it. Costs nothing per message, and a box once anybody asks or anything goes wrong: most
/// actors begin, and nobody wants to know more.
#[derive(Default)]
pub(crate) struct Vitals(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unborn,
    /// In its first life.
    Running,
    Told(Box<Told>),
}

struct Told {
    news: LifeNews,
    waiters: Vec<Arc<Slot<LifeNews>>>,
}

impl State {
    /// The whole story, told from now on.
    fn told(&mut self) -> &mut Told {
        let (number, phase) = match self {
            State::Unborn => (0, Phase::Unborn),
            State::Running => (1, Phase::Running),
            State::Told(told) => return told,
        };
        let news = LifeNews { number, generation: Generation(0), phase, restarts: VecDeque::new() };
        *self = State::Told(Box::new(Told { news, waiters: Vec::new() }));
        self.told()
    }
}

impl Vitals {
    pub(crate) fn change(&self, generation: Generation, phase: Phase) {
        let mut state = self.0.lock();
        if let (State::Unborn, Generation(0), Phase::Running) = (&*state, generation, &phase) {
            *state = State::Running;
            return;
        }
        let told = state.told();
        if let (Phase::Between(reason), Phase::Running) = (&told.news.phase, &phase) {
            let reason = reason.clone();
            told.news.restarts.push_back((generation, reason));
            if told.news.restarts.len() > RESTARTS_KEPT {
                told.news.restarts.pop_front();
            }
        }
        told.news.number += 1;
        told.news.generation = generation;
        told.news.phase = phase;
        let waiters = std::mem::take(&mut told.waiters);
        let news = if waiters.is_empty() { None } else { Some(told.news.clone()) };
        drop(state);
        if let Some(news) = news {
            waiters.iter().for_each(|waiter| waiter.put(Ok(news.clone())));
        }
    }

    /// It has not begun yet.
    pub(crate) fn is_unborn(&self) -> bool {
        match &*self.0.lock() {
            State::Unborn => true,
            State::Running => false,
            State::Told(told) => told.news.phase == Phase::Unborn,
        }
    }

    /// The news once there is any later than `known`. Dropping the future leaves nothing behind.
    pub(crate) fn later_than(&self, known: u64) -> impl Future<Output = LifeNews> + Send + use<> {
        let slot = Slot::new();
        {
            let mut state = self.0.lock();
            let told = state.told();
            if told.news.number > known {
                slot.put(Ok(told.news.clone()));
            } else {
                told.waiters.retain(|waiter| !waiter.is_cancelled());
                told.waiters.push(Arc::clone(&slot));
            }
        }
        let slot = CancelOnDrop(slot);
        async move {
            let news = std::future::poll_fn(|cx| slot.0.poll(cx)).await;
            news.unwrap_or_else(|_| LifeNews::over(ExitReason::NoProc))
        }
    }
}

struct CancelOnDrop(Arc<Slot<LifeNews>>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// News of an actor of this node.
pub(crate) fn near(
    node: &Node,
    actor: mobula_core::ActorId,
    known: u64,
) -> futures::future::BoxFuture<'static, LifeNews> {
    match node.actor(actor) {
        Some(actor) => Box::pin(actor.vitals().later_than(known)),
        None => Box::pin(futures::future::ready(LifeNews::over(ExitReason::NoProc))),
    }
}

/// News of an actor anywhere, later than what is `known`. It is asked for when this is called, polled or not.
pub(crate) fn next(node: &Node, actor: &ActorAddress, known: u64) -> futures::future::BoxFuture<'static, LifeNews> {
    if actor.node == *node.id() {
        return near(node, actor.actor, known);
    }
    // Over the control link: a supervisor must hear also while the threads of actors are busy.
    let asked = node
        .control_link_to(&actor.node)
        .map(|link| control::request_for_ever(&link, &Control::NextLife { actor: actor.actor, known }));
    Box::pin(async move {
        match asked {
            Ok(asked) => match asked.await {
                Ok(ControlReply::Life(news)) => news,
                other => LifeNews::over(reason_told(other)),
            },
            Err(error) => LifeNews::over(reason_told(Err(error))),
        }
    })
}

/// The restarts of an actor from now on, each once, until its end.
pub(crate) fn restarts(node: Option<Node>, actor: ActorAddress) -> impl Stream<Item = Restarted> + Send + Unpin {
    struct Watching {
        node: Option<Node>,
        actor: ActorAddress,
        asked: Option<futures::future::BoxFuture<'static, LifeNews>>,
        /// Restarts up to this one are known, or were before the watch.
        seen: Option<Generation>,
        found: VecDeque<Restarted>,
    }
    let asked = node.as_ref().map(|node| next(node, &actor, 0));
    let watching = Watching { node, actor, asked, seen: None, found: VecDeque::new() };
    Box::pin(futures::stream::unfold(watching, |mut watching| async move {
        loop {
            if let Some(found) = watching.found.pop_front() {
                return Some((found, watching));
            }
            let news = watching.asked.take()?.await;
            let before = watching.seen.unwrap_or(news.generation);
            for (generation, reason) in news.restarts.into_iter().filter(|(generation, _)| *generation > before) {
                watching.found.push_back(Restarted { actor: watching.actor.clone(), generation, reason });
                watching.seen = Some(generation);
            }
            watching.seen = watching.seen.or(Some(before));
            if !matches!(news.phase, Phase::Over(_)) {
                watching.asked = watching.node.as_ref().map(|node| next(node, &watching.actor, news.number));
            }
        }
    }))
}
