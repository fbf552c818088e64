//! The queue in front of an actor: first in, first out; bounded; control ahead of everything.
//!
//! A message has its place from the moment of the call. The first `capacity` places are the mailbox; whoever stands
//! behind them is in line, keeps the order, and is told when it has moved up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context};
use futures::task::AtomicWaker;
use mobula_core::{CallError, ExitReason, limits};
use mobula_transport::now;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::acceptance::Acceptance;
use crate::cell::Shared;
use crate::dead_letter::Undelivered;

/// What becomes of a message for which the mailbox has no room. It is the receiver's rule, for senders near and far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MailboxPolicy {
    /// Its sender waits, and the message keeps its place in line.
    #[default]
    Wait,
    /// It is refused with [`CallError::Full`], or [`CallError::Restarting`] while the actor rests after a failure.
    Fail,
    /// It is dropped: a tell is then a dead letter, and an ask is answered as by `Fail`.
    DropNew,
    /// The message that has waited longest is dropped in its stead.
    DropOld,
}

/// A message with its way back, ready to be handled by an `A`.
pub(crate) trait Letter<A: Actor<Context = Context<A>>>: Send {
    /// False while it cannot be delivered; whoever changes that wakes the mailbox. Those behind it wait.
    fn is_ready(&self) -> bool {
        true
    }
    /// Hands the message to the actor, unless nobody waits for it any more at `now`.
    fn deliver(self: Box<Self>, actor: &mut A, ctx: &mut Context<A>, shared: &Arc<Shared<A>>, now: Instant);
    /// Answers with an error; the message will not be handled. Comes back if there is nobody to answer: a dead letter.
    fn refuse(self: Box<Self>, error: CallError) -> Option<Undelivered>;
    /// Why nobody wants it handled any more at `now`, if that is so.
    fn unwanted(&self, _now: Instant) -> Option<CallError> {
        None
    }
    /// It gets no place within the mailbox yet. What has to hear when it does.
    fn stand_in_line(&mut self) -> Option<Arc<Acceptance>>;
}

/// What a cell is told from outside, ahead of all messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// End through `stopping` and `stopped`, for this reason.
    Stop(ExitReason),
    /// A linked actor has come to its end.
    Exit(ExitReason),
    /// End now; no hook runs.
    Kill,
    /// Of a supervisor: begin the next life.
    Begin,
    /// Of a supervisor: end for good, through `stopping` and `stopped`.
    Dismiss,
    /// Of a supervisor or of the node: end for good, now.
    Discard,
    /// The supervisor is lost: go on by the actor's own restart policy.
    Detach,
    /// The supervisor that seemed lost is heard again: it decides as before.
    Adopt,
}

pub(crate) struct Mailbox<A: Actor<Context = Context<A>>> {
    state: Mutex<State<A>>,
    cell: AtomicWaker,
}

struct State<A: Actor<Context = Context<A>>> {
    letters: VecDeque<Queued<A>>,
    capacity: usize,
    policy: MailboxPolicy,
    /// Letters ever taken out; the place of a new one is `taken + letters.len()`.
    taken: u64,
    /// Senders in line, by their letter's place.
    line: VecDeque<(u64, Arc<Acceptance>)>,
    /// Put aside by their handlers.
    stashed: Vec<Box<dyn Letter<A>>>,
    orders: VecDeque<Order>,
    /// A life has ended, and the next has not begun.
    resting: bool,
    closed: bool,
}

/// A letter in its place.
pub(crate) struct Queued<A: Actor<Context = Context<A>>> {
    pub(crate) letter: Box<dyn Letter<A>>,
    /// Of the runtime's own: no policy drops it.
    signal: bool,
}

/// Where a letter has found its place.
pub(crate) enum Placed {
    Inside,
    /// Behind those inside. With what hears when it has moved up, if anybody wants to.
    InLine(Option<Arc<Acceptance>>),
}

/// A letter that was not put into the mailbox, and why.
pub(crate) struct Refused<A: Actor<Context = Context<A>>> {
    pub(crate) letter: Box<dyn Letter<A>>,
    pub(crate) error: CallError,
    /// By a policy that does not bother the sender of a tell.
    pub(crate) dropped: bool,
}

/// Letters that nobody wants any more, and why.
type Unwanted<A> = Vec<(Box<dyn Letter<A>>, CallError)>;

/// A place, and the letter that had to leave for it.
pub(crate) type Put<A> = (Placed, Option<Box<dyn Letter<A>>>);

impl<A: Actor<Context = Context<A>>> State<A> {
    fn full(&self) -> CallError {
        CallError::Full { limit: self.capacity as u64 }
    }

    /// Why there is no room for a letter that comes.
    fn no_room(&self) -> CallError {
        if self.resting { CallError::Restarting } else { self.full() }
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub(crate) fn new(capacity: usize, policy: MailboxPolicy) -> Self {
        Mailbox {
            state: Mutex::new(State {
                letters: VecDeque::new(),
                // What a peer or a user asks for must not overflow a place's number.
                capacity: capacity.clamp(1, usize::MAX / 4),
                policy,
                taken: 0,
                line: VecDeque::new(),
                stashed: Vec::new(),
                orders: VecDeque::new(),
                resting: false,
                closed: false,
            }),
            cell: AtomicWaker::new(),
        }
    }

    /// Puts a letter at the end, as the policy says; without `may_wait`, one that finds no room is refused.
    pub(crate) fn put(&self, mut letter: Box<dyn Letter<A>>, may_wait: bool) -> Result<Put<A>, Refused<A>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused { letter, error: CallError::Stopped, dropped: false });
        }
        let waiting = state.letters.len();
        let (mut placed, mut evicted) = (Placed::Inside, None);
        if waiting >= state.capacity {
            match state.policy {
                MailboxPolicy::Wait | MailboxPolicy::DropNew if !may_wait => {
                    return Err(Refused { letter, error: state.no_room(), dropped: false });
                }
                MailboxPolicy::Wait if waiting < state.capacity + limits::LINE_MESSAGES_MAX => {
                    let waiter = letter.stand_in_line();
                    if let Some(waiter) = &waiter {
                        let place = state.taken + waiting as u64;
                        state.line.push_back((place, Arc::clone(waiter)));
                    }
                    placed = Placed::InLine(waiter);
                }
                MailboxPolicy::Wait | MailboxPolicy::Fail => {
                    return Err(Refused { letter, error: state.no_room(), dropped: false });
                }
                MailboxPolicy::DropNew => return Err(Refused { letter, error: state.no_room(), dropped: true }),
                MailboxPolicy::DropOld => {
                    let oldest = state.letters.iter().position(|queued| !queued.signal);
                    evicted = oldest.and_then(|at| state.letters.remove(at)).map(|queued| queued.letter);
                    state.taken += 1;
                }
            }
        }
        let first = state.letters.is_empty();
        state.letters.push_back(Queued { letter, signal: false });
        drop(state);
        // Whoever put the letters before it has woken the cell, and it takes mail until there is none.
        if first {
            self.cell.wake();
        }
        Ok((placed, evicted))
    }

    /// The error of a letter that was dismissed for want of room.
    pub(crate) fn full(&self) -> CallError {
        self.state.lock().full()
    }

    /// Puts a letter of the runtime's own at the end, however full the mailbox is: whoever asked for such mail has
    /// bounded it.
    pub(crate) fn put_signal(&self, letter: Box<dyn Letter<A>>) -> Result<(), Refused<A>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused { letter, error: CallError::Stopped, dropped: false });
        }
        state.letters.push_back(Queued { letter, signal: true });
        drop(state);
        self.cell.wake();
        Ok(())
    }

    /// Whether the actor rests between two lives: who finds no room meanwhile is told why.
    pub(crate) fn rest(&self, resting: bool) {
        self.state.lock().resting = resting;
    }

    pub(crate) fn order(&self, order: Order) {
        let mut state = self.state.lock();
        // The first of a kind holds, and a busy actor must not collect them without end.
        let kind = std::mem::discriminant(&order);
        let is_known = state.orders.iter().any(|known| std::mem::discriminant(known) == kind);
        if !state.closed && !is_known {
            state.orders.push_back(order);
            drop(state);
            self.cell.wake();
        }
    }

    /// The next letter, if it is ready; none while an order waits, which comes first also within a turn.
    pub(crate) fn take(&self) -> Option<Queued<A>> {
        let mut state = self.state.lock();
        if !state.orders.is_empty() || !state.letters.front()?.letter.is_ready() {
            return None;
        }
        let letter = state.letters.pop_front()?;
        state.taken += 1;
        let inside = state.taken + state.capacity as u64;
        let mut moved_up = None;
        if state.line.front().is_some_and(|(place, _)| *place < inside) {
            moved_up = state.line.pop_front();
        }
        drop(state);
        if let Some((_, waiter)) = moved_up {
            waiter.accept();
        }
        Some(letter)
    }

    /// Puts a letter aside that was taken and put off by its handler. When there is no room, those that nobody wants any
    /// more at `now` come back, each with the reason.
    fn stash(&self, letter: Box<dyn Letter<A>>, now: Instant) -> Result<Unwanted<A>, Refused<A>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused { letter, error: CallError::Stopped, dropped: false });
        }
        let mut unwanted = Vec::new();
        if state.stashed.len() >= limits::STASH_MESSAGES {
            for aside in std::mem::take(&mut state.stashed) {
                match aside.unwanted(now) {
                    Some(error) => unwanted.push((aside, error)),
                    None => state.stashed.push(aside),
                }
            }
        }
        if state.stashed.len() >= limits::STASH_MESSAGES {
            let error = CallError::Full { limit: limits::STASH_MESSAGES as u64 };
            return Err(Refused { letter, error, dropped: false });
        }
        state.stashed.push(letter);
        Ok(unwanted)
    }

    /// Puts what was put aside in front of all others, in its order. Returns how many these are.
    pub(crate) fn unstash_all(&self) -> usize {
        let mut state = self.state.lock();
        let stashed = std::mem::take(&mut state.stashed);
        let count = stashed.len();
        for letter in stashed.into_iter().rev() {
            // No policy drops what had found its place before.
            state.letters.push_front(Queued { letter, signal: true });
        }
        state.taken -= count as u64;
        drop(state);
        if count > 0 {
            self.cell.wake();
        }
        count
    }

    /// Puts a letter that was just taken back to the head of the queue.
    pub(crate) fn put_back(&self, letter: Queued<A>) {
        let mut state = self.state.lock();
        state.letters.push_front(letter);
        state.taken -= 1;
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        self.state.lock().orders.pop_front()
    }

    /// The cell has something else to look at.
    pub(crate) fn wake(&self) {
        self.cell.wake();
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.cell.register(waker);
    }

    /// Letters that wait for the actor.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state.lock();
        if state.closed { 0 } else { state.letters.len() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Closes the mailbox and orders the actor to stop, if nothing waits in it: so that nothing is refused that had found
    /// a place. False if something does.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        if !state.letters.is_empty() || !state.stashed.is_empty() || !state.orders.is_empty() || state.closed {
            return false;
        }
        state.closed = true;
        state.orders.push_back(Order::Stop(ExitReason::Normal));
        drop(state);
        self.cell.wake();
        true
    }

    /// Refuses whatever comes as [`CallError::Stopped`]. What is inside or in line comes back, to be refused.
    #[must_use = "whoever waits for these letters has to be told"]
    pub(crate) fn close(&self) -> impl Iterator<Item = Box<dyn Letter<A>>> + use<A> {
        let mut state = self.state.lock();
        state.closed = true;
        let letters = std::mem::take(&mut state.letters);
        let stashed = std::mem::take(&mut state.stashed);
        // Their letters tell them.
        let line = std::mem::take(&mut state.line);
        drop(state);
        drop(line);
        stashed.into_iter().chain(letters.into_iter().map(|queued| queued.letter))
    }
}

impl<A: Actor<Context = Context<A>>> Shared<A> {
    /// Refuses a letter with `error`. If nobody hears of that, it is a dead letter.
    pub(crate) fn dismiss(&self, letter: Box<dyn Letter<A>>, error: CallError) {
        if let Some(undelivered) = letter.refuse(error) {
            self.node.undelivered(self.id, undelivered);
        }
    }

    /// Puts a letter aside.
    pub(crate) fn stash(&self, letter: Box<dyn Letter<A>>) {
        match self.mailbox.stash(letter, now()) {
            Ok(unwanted) => unwanted.into_iter().for_each(|(letter, error)| self.dismiss(letter, error)),
            Err(Refused { letter, error, .. }) => self.dismiss(letter, error),
        }
    }

    /// Puts a letter into the mailbox; one that has to leave for it is dismissed.
    pub(crate) fn put(&self, letter: Box<dyn Letter<A>>) -> Result<Placed, Refused<A>> {
        let (placed, evicted) = self.mailbox.put(letter, true)?;
        self.evict(evicted);
        Ok(placed)
    }

    /// As [`put`](Self::put), if there is room at once.
    pub(crate) fn try_put(&self, letter: Box<dyn Letter<A>>) -> Result<(), Refused<A>> {
        let (_, evicted) = self.mailbox.put(letter, false)?;
        self.evict(evicted);
        Ok(())
    }

    fn evict(&self, evicted: Option<Box<dyn Letter<A>>>) {
        if let Some(evicted) = evicted {
            self.dismiss(evicted, self.mailbox.full());
        }
    }
}
