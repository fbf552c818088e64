//! What the running code belongs to: its node, its actor, the call it serves. Kept per thread, since actors are.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use actix::Actor;
use mobula_core::Deadline;
use parking_lot::RwLock;

use crate::ActorRef;
use crate::cell::Shared;
use crate::node::{Node, NodeLink};

thread_local! {
    static NODE: RefCell<Option<Node>> = const { RefCell::new(None) };
    static ACTOR: RefCell<Option<Arc<dyn Any + Send + Sync>>> = const { RefCell::new(None) };
    static DEADLINE: Cell<Deadline> = const { Cell::new(Deadline::NEVER) };
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
    static HELD_TURNS: Cell<u32> = const { Cell::new(0) };
    static TOUCHED: RefCell<Vec<Arc<NodeLink>>> = const { RefCell::new(Vec::new()) };
}

static DEFAULT_NODE: OnceLock<RwLock<Option<Node>>> = OnceLock::new();

/// The node whose actor or connection runs on this thread, else the one this process started last.
pub fn current_node() -> Option<Node> {
    let scoped = NODE.with_borrow(Clone::clone);
    scoped.or_else(|| DEFAULT_NODE.get().and_then(|node| node.read().clone()))
}

/// A reference to the actor whose handler runs on this thread; none outside of handlers, or in one of another type.
pub fn this<A: Actor<Context = actix::Context<A>>>() -> Option<ActorRef<A>> {
    let actor = ACTOR.with_borrow(Clone::clone)?;
    Some(ActorRef::near(actor.downcast::<Shared<A>>().ok()?))
}

pub(crate) fn set_default_node(node: Option<Node>) {
    *DEFAULT_NODE.get_or_init(RwLock::default).write() = node;
}

pub(crate) fn forget_default_node(node: &Node) {
    let mut default = DEFAULT_NODE.get_or_init(RwLock::default).write();
    if default.as_ref().is_some_and(|default| default.is(node)) {
        *default = None;
    }
}

/// Turns whose replies may be held back in a row, to go out in one write.
const HELD_TURNS_MAX: u32 = 16;

/// The actor's turn ends with mail left, and its next turn comes at once: what this one queued can go with that.
pub(crate) fn hold() {
    HELD_TURNS.set(HELD_TURNS.get() + 1);
}

/// Runs `turn` as a turn of an actor; what it queued on links is sent once, at the end.
pub(crate) fn turn<T>(node: &Node, actor: Arc<dyn Any + Send + Sync>, turn: impl FnOnce() -> T) -> T {
    let _guard = Entered {
        node: NODE.replace(Some(node.clone())),
        actor: ACTOR.replace(Some(actor)),
        in_turn: IN_TURN.replace(true),
        held_before: HELD_TURNS.get(),
    };
    turn()
}

struct Entered {
    node: Option<Node>,
    actor: Option<Arc<dyn Any + Send + Sync>>,
    in_turn: bool,
    held_before: u32,
}

impl Drop for Entered {
    fn drop(&mut self) {
        NODE.set(self.node.take());
        ACTOR.set(self.actor.take());
        IN_TURN.set(self.in_turn);
        let held = HELD_TURNS.get();
        if !self.in_turn && (held == self.held_before || held > HELD_TURNS_MAX) {
            HELD_TURNS.set(0);
            let mut touched = TOUCHED.take();
            for link in touched.drain(..) {
                link.kick();
            }
            // Keep the allocation for the next turn.
            TOUCHED.set(touched);
        }
    }
}

/// Something was queued on `link`: sent at the end of the actor's turn, or now if there is no turn.
pub(crate) fn touch(link: &Arc<NodeLink>) {
    if !IN_TURN.get() {
        return link.kick();
    }
    TOUCHED.with_borrow_mut(|touched| {
        if !touched.iter().any(|known| Arc::ptr_eq(known, link)) {
            touched.push(Arc::clone(link));
        }
    });
}

/// The deadline of the call that is being handled; what it calls in turn inherits it.
pub(crate) fn deadline() -> Deadline {
    DEADLINE.get()
}

/// Sets the deadline of the call that is handled now. Returns the one before.
pub(crate) fn set_deadline(deadline: Deadline) -> Deadline {
    DEADLINE.replace(deadline)
}

/// A future that is polled in the scope of a node: what it decodes belongs there.
pub(crate) struct Within<F> {
    pub(crate) node: Node,
    pub(crate) future: F,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = NODE.replace(Some(self.node.clone()));
        let result = Pin::new(&mut self.future).poll(cx);
        NODE.set(before);
        result
    }
}
