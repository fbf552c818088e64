//! Actors that do not get on: seen by a watchdog on the control runtime, told to whoever subscribes, ended on request.
//!
//! [`StuckWatch`] decides. `activity` is how a thread shows what it does, `thread` what the system says about it.
mod activity;
mod thread;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use futures::Stream;
use mobula_core::{ActorAddress, ActorId, Busy, CallError, IdMap, NodeId, StuckWatch, Work, limits};
use mobula_transport::now;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

pub(crate) use activity::Activity;
pub use thread::ThreadLook;

use crate::control::{self, Control, ControlReply};
use crate::mailbox::Order;
use crate::node::{Load, Node, WeakNode, unexpected};

/// An actor that has not got on for longer than it may, see [`Node::watch_stuck`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StuckActor {
    /// Which.
    pub actor: ActorAddress,
    /// The registered name of its type.
    pub actor_type: String,
    /// Its own name, if it has one.
    pub name: Option<String>,
    /// The message that it handles. None in a hook, a timer's closure, or a future of the actor.
    pub message: Option<String>,
    /// A turn that does not end, or an exclusive handler that waits.
    pub work: Work,
    /// For how long it has been seen without progress.
    pub stuck_for: Duration,
    /// The thread that a turn holds, as the system sees it: no stack of the program itself. None for one that waits.
    pub thread: Option<ThreadLook>,
    /// It was ended for it, see [`ActorSpec::kill_when_stuck`](crate::ActorSpec::kill_when_stuck).
    pub killed: bool,
}

impl fmt::Display for StuckActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.actor_type, self.actor)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        let what = match self.work {
            Work::Turn => "holds its thread",
            Work::Exclusive => "waits, and handles nothing else,",
        };
        write!(f, " {what} for {:?}", self.stuck_for)?;
        match &self.message {
            Some(message) => write!(f, " in the handler of {message}")?,
            None => write!(f, " outside of a handler")?,
        }
        if let Some(thread) = &self.thread {
            write!(f, ": {thread}")?;
        }
        if self.killed { write!(f, "; it is ended for it") } else { Ok(()) }
    }
}

/// When an actor counts as stuck, and whether it is ended then.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct StuckPolicy {
    after_ms: u32,
    pub(crate) kill: bool,
}

impl Default for StuckPolicy {
    fn default() -> Self {
        StuckPolicy { after_ms: 0, kill: false }.after(limits::STUCK_AFTER)
    }
}

impl StuckPolicy {
    /// At least 1 ms; beyond 49 days, never.
    pub(crate) fn after(self, after: Duration) -> Self {
        let after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1);
        StuckPolicy { after_ms, ..self }
    }

    fn time(self) -> Duration {
        if self.after_ms == u32::MAX { Duration::MAX } else { Duration::from_millis(u64::from(self.after_ms)) }
    }
}

/// Events that are kept for whoever subscribes late.
const EVENTS_KEPT: usize = 64;

/// Of the shortest time in use: how often the watchdog looks.
const LOOKS: u32 = 4;

/// A node's watch over its actors.
pub(crate) struct Watchdog {
    /// True if all runs on one thread: a turn that does not end keeps the watchdog from looking.
    single_thread: bool,
    threads: Mutex<HashMap<ThreadId, Arc<Activity>>>,
    exclusive: Mutex<Exclusives>,
    /// The shortest time after which an actor of this node counts as stuck, in milliseconds.
    shortest_ms: AtomicU64,
    changed: Notify,
    events: Mutex<VecDeque<StuckActor>>,
    /// How many there have been.
    told: watch::Sender<u64>,
    /// Arbiters that are left to actors that were given up, until they return.
    left: Mutex<Vec<(Arc<Activity>, ActorId, Load)>>,
}

#[derive(Default)]
struct Exclusives {
    begun: u64,
    running: IdMap<u64, (u64, Option<&'static str>)>,
}

impl Watchdog {
    pub(crate) fn new(single_thread: bool) -> Arc<Self> {
        Arc::new(Watchdog {
            single_thread,
            threads: Mutex::default(),
            exclusive: Mutex::default(),
            shortest_ms: AtomicU64::new(u64::MAX),
            changed: Notify::new(),
            events: Mutex::default(),
            told: watch::Sender::new(0),
            left: Mutex::default(),
        })
    }

    /// An actor of this node will be watched like this.
    pub(crate) fn expect(&self, policy: StuckPolicy) {
        let after_ms = u64::from(policy.after_ms);
        if self.shortest_ms.fetch_min(after_ms, Ordering::Relaxed) > after_ms {
            self.changed.notify_one();
        }
    }

    /// The activity of the current thread.
    pub(crate) fn here(&self) -> Arc<Activity> {
        let mut threads = self.threads.lock();
        // Those of threads that have ended are held by nobody else.
        threads.retain(|_, activity| Arc::strong_count(activity) > 1);
        Arc::clone(threads.entry(std::thread::current().id()).or_insert_with(Activity::here))
    }

    /// A handler of the actor waits, and has it to itself.
    pub(crate) fn exclusive_begun(&self, actor: ActorId, message: Option<&'static str>) {
        let mut exclusive = self.exclusive.lock();
        exclusive.begun += 1;
        let number = exclusive.begun;
        exclusive.running.insert(actor.0, (number, message));
        drop(exclusive);
        if self.single_thread {
            self.changed.notify_one();
        }
    }

    pub(crate) fn exclusive_ended(&self, actor: ActorId) {
        self.exclusive.lock().running.remove(&actor.0);
    }

    /// Watches, as long as the node's control runtime runs.
    pub(crate) async fn watch(self: Arc<Self>, node: WeakNode) {
        let mut watch = StuckWatch::default();
        loop {
            let next = {
                let Some(node) = node.upgrade().filter(|node| !node.is_closed()) else { return };
                self.look(&node, &mut watch, now());
                let idle = self.single_thread && self.exclusive.lock().running.is_empty();
                let shortest = self.shortest_ms.load(Ordering::Relaxed);
                (!idle && shortest < u64::from(u32::MAX)).then(|| Duration::from_millis(shortest) / LOOKS)
            };
            match next {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait.max(Duration::from_millis(1)), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn look(&self, node: &Node, watch: &mut StuckWatch, now: Instant) {
        let activities: Vec<_> = self.threads.lock().values().cloned().collect();
        self.left.lock().retain(|(activity, actor, _)| activity.turn().is_some_and(|(now, _)| now == *actor));
        let mut busy: Vec<Busy> = Vec::new();
        let mut add = |actor, work, progress| {
            if let Some(policy) = node.actor(actor).map(|actor| actor.stuck_policy()) {
                busy.push(Busy { actor, work, progress, after: policy.time() });
            }
        };
        for (actor, progress) in activities.iter().filter_map(|activity| activity.turn()) {
            add(actor, Work::Turn, progress);
        }
        let exclusive: Vec<_> =
            self.exclusive.lock().running.iter().map(|(actor, (number, _))| (*actor, *number)).collect();
        for (actor, number) in exclusive {
            add(ActorId(actor), Work::Exclusive, number);
        }
        for (busy, since) in watch.look(busy, now) {
            let activity = activities.iter().find(|activity| activity.turn() == Some((busy.actor, busy.progress)));
            self.tell(node, busy, now.saturating_duration_since(since), activity);
        }
    }

    fn tell(&self, node: &Node, busy: Busy, stuck_for: Duration, activity: Option<&Arc<Activity>>) {
        let Some(actor) = node.actor(busy.actor) else { return };
        let Some(described) = actor.in_tree() else { return };
        let message = match busy.work {
            Work::Turn => activity.and_then(|activity| activity.message()),
            Work::Exclusive => self.exclusive.lock().running.get(&busy.actor.0).and_then(|(_, message)| *message),
        };
        let thread = match busy.work {
            Work::Turn => activity.and_then(|activity| activity.thread).map(ThreadLook::at),
            Work::Exclusive => None,
        };
        let killed = actor.stuck_policy().kill
            && match (busy.work, activity) {
                (Work::Exclusive, _) => {
                    actor.order(Order::Kill);
                    true
                }
                // It may just have got on.
                (Work::Turn, Some(activity)) => actor.abandon(&mut |mut load| {
                    load.weigh();
                    self.left.lock().push((Arc::clone(activity), busy.actor, load));
                }),
                (Work::Turn, None) => false,
            };
        let event = StuckActor {
            actor: described.actor,
            actor_type: described.actor_type,
            name: described.name,
            message: message.map(str::to_owned),
            work: busy.work,
            stuck_for,
            thread,
            killed,
        };
        tracing::warn!(%event, "an actor is stuck");
        let mut events = self.events.lock();
        events.push_back(event);
        if events.len() > EVENTS_KEPT {
            events.pop_front();
        }
        self.told.send_modify(|told| *told += 1);
    }

    /// The events that are kept, once there are more than `known`, and how many there have been.
    pub(crate) async fn later_than(self: Arc<Self>, known: u64) -> (u64, Vec<StuckActor>) {
        let mut told = self.told.subscribe();
        // The sender is held here, so waiting cannot fail.
        let _ = told.wait_for(|told| *told > known).await;
        let events = self.events.lock();
        // Under its lock nothing is added.
        let told = *self.told.borrow();
        let new = usize::try_from(told.saturating_sub(known)).unwrap_or(usize::MAX);
        let skip = events.len().saturating_sub(new);
        (told, events.iter().skip(skip).cloned().collect())
    }
}

impl Node {
    /// The actors of `node` that get stuck: first the last 64 that did, then each that does, in a stream that ends when the
    /// node cannot be reached any more.
    ///
    /// An actor is stuck that has been busy with one and the same thing for 30 s, or as
    /// [`ActorSpec::stuck_after`](crate::ActorSpec::stuck_after) says: a turn that does not end, or a handler that has the
    /// actor to itself and waits. It is also logged, as a warning. How long it has been stuck is known to a quarter of that
    /// time. On a node that was asked to start no thread, turns are not seen.
    ///
    /// # Errors
    /// [`CallError`] if the node cannot be asked.
    /// # Cancel safety
    /// Dropping the stream is harmless.
    pub fn watch_stuck(
        &self,
        node: &NodeId,
    ) -> Result<impl Stream<Item = StuckActor> + Send + Unpin + use<>, CallError> {
        if node != self.id() {
            self.control_link_to(node)?;
        }
        let (own, node) = (self.downgrade(), node.clone());
        Ok(Box::pin(futures::stream::unfold((0, VecDeque::new()), move |(mut known, mut found)| {
            let (own, node) = (own.clone(), node.clone());
            async move {
                while found.is_empty() {
                    let (told, events) = next(&own, &node, known).await.ok()?;
                    known = told;
                    found.extend(events);
                }
                Some((found.pop_front()?, (known, found)))
            }
        })))
    }
}

async fn next(own: &WeakNode, node: &NodeId, known: u64) -> Result<(u64, Vec<StuckActor>), CallError> {
    let gone = || CallError::Unreachable { node: node.clone(), sent: false, reason: "this node has ended".to_owned() };
    let own = own.upgrade().ok_or_else(gone)?;
    if node == own.id() {
        let later = Arc::clone(own.watchdog()).later_than(known);
        drop(own);
        return Ok(later.await);
    }
    let asked = control::request_for_ever(&own.control_link_to(node)?, &Control::NextStuck { known });
    drop(own);
    match asked.await? {
        ControlReply::Stuck { told, events } => Ok((told, events)),
        _ => Err(unexpected()),
    }
}
