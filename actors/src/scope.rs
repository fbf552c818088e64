//! What the running code belongs to: its node, its actor, the call it serves. Kept per thread, since actors are.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use actix::Actor;
use mobula_core::{Deadline, ExitReason, Fence, MessageKey};
use parking_lot::{Mutex, RwLock};

use crate::ActorRef;
use crate::call_context::Caller;
use crate::cell::{AnyShared, Shared};
use crate::mailbox::Order;
use crate::node::{Node, NodeLink};
use crate::placing::Granted;
use crate::stuck::Activity;
use crate::waiting::{Beside, Stops, Tasks};

/// A node, and one of its actors if it is that actor's turn.
pub(crate) struct Place {
    node: Node,
    actor: Option<Arc<dyn AnyShared>>,
    pub(crate) tasks: Tasks,
    pub(crate) stops: Stops,
    /// The call of an actix response that has the actor to itself.
    alone: Mutex<Option<Call>>,
    /// Of the actor's thread.
    activity: OnceLock<Arc<Activity>>,
}

impl Place {
    pub(crate) fn of_node(node: Node) -> Arc<Self> {
        Arc::new(Place {
            node,
            actor: None,
            tasks: Tasks::default(),
            stops: Stops::default(),
            alone: Mutex::default(),
            activity: OnceLock::new(),
        })
    }

    /// A handler has the actor to itself from now on, until it ends or the actor's life does.
    pub(crate) fn exclusive_begun(&self) {
        if let Some(actor) = &self.actor {
            let message = self.activity.get().and_then(|activity| activity.message());
            self.node.watchdog().exclusive_begun(actor.id(), message);
        }
    }

    pub(crate) fn exclusive_ended(&self) {
        if let Some(actor) = &self.actor {
            self.node.watchdog().exclusive_ended(actor.id());
        }
    }

    /// A handler of its actor begins to run beside the others.
    pub(crate) fn begin_beside(&self) -> Option<Beside> {
        self.actor.clone().map(Beside::begin)
    }

    pub(crate) fn of_actor(node: Node, actor: Arc<dyn AnyShared>) -> Arc<Self> {
        Arc::new(Place {
            node,
            actor: Some(actor),
            tasks: Tasks::default(),
            stops: Stops::default(),
            alone: Mutex::default(),
            activity: OnceLock::new(),
        })
    }
}

thread_local! {
    static PLACE: RefCell<Option<Arc<Place>>> = const { RefCell::new(None) };
    static CALL: RefCell<Call> = const { RefCell::new(Call::NONE) };
    /// The handler that is served has returned a response that has the actor to itself.
    static BEGUN_ALONE: Cell<bool> = const { Cell::new(false) };
    /// An exclusive handler's future is polled.
    static EXCLUSIVE: Cell<bool> = const { Cell::new(false) };
    /// It is an actor's turn.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
    static HELD_TURNS: Cell<u32> = const { Cell::new(0) };
    static TOUCHED: RefCell<Vec<Arc<NodeLink>>> = const { RefCell::new(Vec::new()) };
}

static DEFAULT_NODE: OnceLock<RwLock<Option<Node>>> = OnceLock::new();

/// The node whose actor or connection runs on this thread, else the one this process started last.
pub fn current_node() -> Option<Node> {
    let scoped = PLACE.with_borrow(|place| place.as_ref().map(|place| place.node.clone()));
    scoped.or_else(|| DEFAULT_NODE.get().and_then(|node| node.read().clone()))
}

/// A reference to the actor whose handler runs on this thread; none outside of handlers, or in one of another type.
pub fn this<A: Actor<Context = actix::Context<A>>>() -> Option<ActorRef<A>> {
    this_shared().map(ActorRef::near)
}

pub(crate) fn this_shared<A: Actor<Context = actix::Context<A>>>() -> Option<Arc<Shared<A>>> {
    current_actor()?.into_any().downcast::<Shared<A>>().ok()
}

/// The actor whose turn it is on this thread.
pub(crate) fn current_actor() -> Option<Arc<dyn AnyShared>> {
    PLACE.with_borrow(|place| place.as_ref().and_then(|place| place.actor.clone()))
}

/// Ends the actor whose handler runs on this thread, with `error` as its reason: what the handler does it finishes, then
/// `stopping` and `stopped` run, and whoever monitors the actor is told
/// [`ExitReason::Error`](mobula_core::ExitReason::Error) with the error's text.
///
/// True if an actor's turn is under way here; elsewhere nothing happens.
pub fn stop_with(error: impl Display) -> bool {
    let Some(actor) = current_actor() else { return false };
    actor.order(Order::Stop(ExitReason::Error { text: error.to_string() }));
    true
}

/// To be called in `stopping`, which then returns [`Running::Continue`](actix::Running::Continue): the actor whose hook runs on
/// this thread has something to finish, and will end itself by `ctx.stop()` then.
///
/// A stop that `stopping` declines without this is forgotten, as if it had not been ordered. One that is put off holds: the
/// actor's end has the reason of that stop, and a panic before is the end, not a restart.
///
/// True if an actor's turn is under way here; elsewhere nothing happens.
pub fn put_off_stop() -> bool {
    PLACE.with_borrow(|place| match place {
        Some(place) if place.actor.is_some() => {
            place.stops.put_off();
            true
        }
        _ => false,
    })
}

/// The fencing token of the actor whose handler runs on this thread, if it has a name.
///
/// The actors that bear a name one after the other have growing tokens. A handler that is under way while its node is
/// frozen or cut off may finish when the name is somebody else's already; a store that is sent the token with each write, and
/// refuses smaller ones than it has seen, is safe from it.
pub fn fence() -> Option<Fence> {
    current_actor()?.fence()
}

/// What the actor whose handler runs on this thread has of its node, if it has asked for [resources](crate::ActorSpec::cpus): above all,
/// which GPUs. An environment variable such as `CUDA_VISIBLE_DEVICES` is of the whole process, which other actors live in; so the indices are given
/// to whatever opens the device.
pub fn granted() -> Option<Granted> {
    current_actor()?.granted()
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
/// More would keep the peer idle meanwhile.
const HELD_TURNS_MAX: u32 = 3;

/// The actor's turn ends with mail left, and its next turn comes at once: what this one queued can go with that.
pub(crate) fn hold() {
    HELD_TURNS.set(HELD_TURNS.get() + 1);
}

/// Runs `turn` as a turn of the actor at `place`; what it queued on links is sent once, at the end.
pub(crate) fn turn<T>(place: &Arc<Place>, turn: impl FnOnce() -> T) -> T {
    let held_before = HELD_TURNS.get();
    let _busy = Busy::begin(place);
    let gathering = place.actor.is_some().then(Gathering::begin);
    let result = within(place, turn);
    drop(gathering);
    let held = HELD_TURNS.get();
    if held == held_before || held > HELD_TURNS_MAX {
        HELD_TURNS.set(0);
        send_touched();
    } else {
        // Between the two turns the connections have theirs.
        TOUCHED.with_borrow(|touched| touched.iter().for_each(|link| link.hold()));
    }
    result
}

/// What the turn answers is queued together; see [`mobula_transport::gather`].
struct Gathering {
    before: bool,
    _answers: mobula_transport::Gathering,
}

impl Gathering {
    fn begin() -> Self {
        Gathering { before: IN_TURN.replace(true), _answers: mobula_transport::gather() }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        IN_TURN.set(self.before);
    }
}

/// A turn of an actor, for whoever watches its thread.
struct Busy<'p>(Option<(&'p Activity, u64)>);

impl<'p> Busy<'p> {
    fn begin(place: &'p Place) -> Self {
        Busy(place.actor.as_ref().map(|actor| {
            let activity = &**place.activity.get_or_init(|| place.node.watchdog().here());
            (activity, activity.enter(actor.id()))
        }))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some((activity, before)) = self.0 {
            activity.leave(before);
        }
    }
}

/// Runs `work` in the scope of a node, if there is one: what it decodes belongs there.
pub(crate) fn on_node<T>(node: Option<&Node>, work: impl FnOnce() -> T) -> T {
    match node {
        Some(node) => within(&Place::of_node(node.clone()), work),
        None => work(),
    }
}

/// Runs `work` at `place`.
fn within<T>(place: &Arc<Place>, work: impl FnOnce() -> T) -> T {
    let _left = Left(PLACE.replace(Some(Arc::clone(place))));
    work()
}

/// The place before, to go back to even if the work panics.
struct Left(Option<Arc<Place>>);

impl Drop for Left {
    fn drop(&mut self) {
        PLACE.set(self.0.take());
    }
}

/// Sends what the turn has queued so far.
pub(crate) fn send_touched() {
    if TOUCHED.with_borrow(Vec::is_empty) {
        return;
    }
    let mut touched = TOUCHED.take();
    for link in touched.drain(..) {
        link.kick();
    }
    // Keep the allocation for the next turn.
    TOUCHED.set(touched);
}

/// Something was queued on `link`: sent at the end of the actor's turn, or now if there is no turn.
pub(crate) fn touch(link: &Arc<NodeLink>) {
    // The answers of a turn mostly go to one node.
    let known = |touched: &Vec<Arc<NodeLink>>| touched.last().is_some_and(|last| Arc::ptr_eq(last, link));
    if IN_TURN.get() && TOUCHED.with_borrow(known) {
        return;
    }
    let in_turn = PLACE.with_borrow(|place| place.as_ref().is_some_and(|place| place.actor.is_some()));
    if !in_turn {
        return link.kick();
    }
    TOUCHED.with_borrow_mut(|touched| {
        if !touched.iter().any(|known| Arc::ptr_eq(known, link)) {
            touched.push(Arc::clone(link));
        }
    });
}

/// What a handler's code knows of the call that it serves.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) deadline: Deadline,
    /// None outside of handlers.
    pub(crate) caller: Option<Caller>,
}

impl Call {
    const NONE: Call = Call { deadline: Deadline::NEVER, caller: None };
}

/// The deadline of the call that is being handled; what it calls in turn inherits it.
pub(crate) fn deadline() -> Deadline {
    CALL.with_borrow(|call| call.deadline)
}

/// The call that is being handled.
pub(crate) fn call() -> Call {
    CALL.with_borrow(Clone::clone)
}

/// Runs `handler` for `call`. Gives what it gives, and the call that runs on its own afterwards, if the handler's response
/// has [begun to](begin_alone).
pub(crate) fn serve<T>(call: Call, message: (MessageKey, &'static str), handler: impl FnOnce() -> T) -> T {
    with_activity(|activity| activity.handles(message.0, message.1));
    let served = {
        let _before = Restore::with(call, false);
        handler()
    };
    with_activity(Activity::handled);
    if BEGUN_ALONE.take()
        && let Some(call) = alone()
    {
        CALL.set(call);
    }
    served
}

fn with_activity(step: impl FnOnce(&Activity)) {
    PLACE.with_borrow(|place| {
        if let Some(activity) = place.as_ref().and_then(|place| place.activity.get()) {
            step(activity);
        }
    });
}

/// The call of the exclusive response that holds the actor of this turn, if one does.
fn alone() -> Option<Call> {
    PLACE.with_borrow(|place| place.as_ref().and_then(|place| place.alone.lock().clone()))
}

/// From now on, all that the actor's context polls belongs to the call that is being handled.
pub(crate) fn begin_alone() {
    let call = call();
    PLACE.with_borrow(|place| {
        if let Some(place) = place {
            *place.alone.lock() = Some(call);
            place.exclusive_begun();
        }
    });
    BEGUN_ALONE.set(true);
}

/// That call is done.
pub(crate) fn end_alone() {
    let ended = PLACE.with_borrow(|place| {
        let place = place.as_ref()?;
        let ended = place.alone.lock().take();
        if ended.is_some() {
            place.exclusive_ended();
        }
        ended
    });
    // It may be the last to hold the caller's slot.
    drop(ended);
    CALL.set(Call::NONE);
}

/// Polls the context of the actor whose turn it is.
pub(crate) fn poll_context<T>(poll: impl FnOnce() -> T) -> T {
    let _before = Restore::with(alone().unwrap_or(Call::NONE), false);
    let _ended = EndsInPanic;
    poll()
}

/// A panic ends the life, and with it the exclusive response.
struct EndsInPanic;

impl Drop for EndsInPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end_alone();
        }
    }
}

/// What a handler's code belongs to, for a future that is polled when the handler has long returned.
pub(crate) struct Scope {
    place: Option<Arc<Place>>,
    call: Call,
}

impl Scope {
    pub(crate) fn current() -> Self {
        Scope { place: PLACE.with_borrow(Clone::clone), call: call() }
    }

    /// None outside of cells and connections.
    pub(crate) fn place(&self) -> Option<Arc<Place>> {
        self.place.clone()
    }

    /// Runs `work` here, as a turn of the actor.
    pub(crate) fn turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let _before = Restore::with(self.call.clone(), false);
        match &self.place {
            Some(place) => turn(place, work),
            None => work(),
        }
    }

    /// Runs `work` for the call, within the actor's turn.
    pub(crate) fn call<T>(&self, work: impl FnOnce() -> T) -> T {
        let _before = Restore::with(self.call.clone(), false);
        work()
    }

    /// Runs `work` within the actor's turn, as part of a handler that has the actor to itself.
    pub(crate) fn exclusively<T>(&self, work: impl FnOnce() -> T) -> T {
        let _before = Restore::with(self.call.clone(), true);
        work()
    }
}

/// The call and the mark before, to go back to even if the work panics.
struct Restore {
    call: Option<Call>,
    exclusive: bool,
}

impl Restore {
    fn with(call: Call, exclusive: bool) -> Self {
        Restore { call: Some(CALL.replace(call)), exclusive: EXCLUSIVE.replace(exclusive) }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let ended = self.call.take().map(|before| CALL.replace(before));
        // It may be the last to hold the caller's slot.
        drop(ended);
        EXCLUSIVE.set(self.exclusive);
    }
}

/// True if `actor` is the one whose exclusive handler runs: it could not answer before that has its answer.
pub(crate) fn is_exclusive<T>(actor: &Arc<T>) -> bool {
    let target = Arc::as_ptr(actor).cast::<()>();
    EXCLUSIVE.get()
        && PLACE.with_borrow(|place| {
            let own = place.as_ref().and_then(|place| place.actor.as_ref());
            own.is_some_and(|own| Arc::as_ptr(own).cast::<()>() == target)
        })
}

/// A future that is polled in the scope of a node: what it decodes belongs there.
pub(crate) struct Within<F> {
    place: Arc<Place>,
    future: F,
}

impl<F> Within<F> {
    pub(crate) fn new(node: Node, future: F) -> Self {
        Within { place: Place::of_node(node), future }
    }
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        within(&this.place, || Pin::new(&mut this.future).poll(cx))
    }
}
