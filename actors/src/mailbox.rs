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
use parking_lot::Mutex;

use crate::cell::Shared;
use crate::reply::Slot;

/// A message with its way back, ready to be handled by an `A`.
pub(crate) trait Letter<A: Actor<Context = Context<A>>>: Send {
    /// Hands the message to the actor, unless nobody waits for it any more at `now`.
    fn deliver(self: Box<Self>, actor: &mut A, ctx: &mut Context<A>, shared: &Arc<Shared<A>>, now: Instant);
    /// Answers with an error; the message will not be handled. False if there is nobody to answer: a dead letter.
    fn refuse(self: Box<Self>, error: CallError) -> bool;
}

/// What a cell is told from outside, ahead of all messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// End through `stopping` and `stopped`, for this reason.
    Stop(ExitReason),
    /// End now; no hook runs.
    Kill,
}

pub(crate) struct Mailbox<A: Actor<Context = Context<A>>> {
    state: Mutex<State<A>>,
    cell: AtomicWaker,
}

struct State<A: Actor<Context = Context<A>>> {
    letters: VecDeque<Box<dyn Letter<A>>>,
    capacity: usize,
    /// Letters ever taken out; the place of a new one is `taken + letters.len()`.
    taken: u64,
    /// Senders in line, by their letter's place.
    line: VecDeque<(u64, Arc<Slot<()>>)>,
    orders: VecDeque<Order>,
    closed: Option<CallError>,
}

/// A letter that was not put into the mailbox, and why.
pub(crate) struct Refused<A: Actor<Context = Context<A>>> {
    pub(crate) letter: Box<dyn Letter<A>>,
    pub(crate) error: CallError,
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub(crate) fn new(capacity: usize) -> Self {
        Mailbox {
            state: Mutex::new(State {
                letters: VecDeque::new(),
                // What a peer or a user asks for must not overflow a place's number.
                capacity: capacity.clamp(1, usize::MAX / 4),
                taken: 0,
                line: VecDeque::new(),
                orders: VecDeque::new(),
                closed: None,
            }),
            cell: AtomicWaker::new(),
        }
    }

    /// Puts a letter at the end. True if it is within the mailbox, false if it stands in line; then `waiter`, if any,
    /// is filled when it has moved up.
    pub(crate) fn put(
        &self,
        letter: Box<dyn Letter<A>>,
        waiter: impl FnOnce() -> Option<Arc<Slot<()>>>,
    ) -> Result<bool, Refused<A>> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(Refused { letter, error: error.clone() });
        }
        let waiting = state.letters.len();
        if waiting >= state.capacity + limits::LINE_MESSAGES_MAX {
            return Err(Refused { letter, error: CallError::Full { limit: state.capacity as u64 } });
        }
        let inside = waiting < state.capacity;
        if !inside && let Some(waiter) = waiter() {
            let place = state.taken + waiting as u64;
            state.line.push_back((place, waiter));
        }
        state.letters.push_back(letter);
        drop(state);
        self.cell.wake();
        Ok(inside)
    }

    /// Puts a letter at the end if it fits into the mailbox, else refuses it.
    pub(crate) fn try_put(&self, letter: Box<dyn Letter<A>>) -> Result<(), Refused<A>> {
        let mut state = self.state.lock();
        let error = match &state.closed {
            Some(error) => error.clone(),
            None if state.letters.len() >= state.capacity => CallError::Full { limit: state.capacity as u64 },
            None => {
                state.letters.push_back(letter);
                drop(state);
                self.cell.wake();
                return Ok(());
            }
        };
        Err(Refused { letter, error })
    }

    /// Puts a letter of the runtime's own at the end, however full the mailbox is: whoever asked for such mail has
    /// bounded it.
    pub(crate) fn put_signal(&self, letter: Box<dyn Letter<A>>) -> Result<(), Refused<A>> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(Refused { letter, error: error.clone() });
        }
        state.letters.push_back(letter);
        drop(state);
        self.cell.wake();
        Ok(())
    }

    pub(crate) fn order(&self, order: Order) {
        let mut state = self.state.lock();
        // The first of a kind holds, and a busy actor must not collect them without end.
        let kind = std::mem::discriminant(&order);
        let is_known = state.orders.iter().any(|known| std::mem::discriminant(known) == kind);
        if state.closed.is_none() && !is_known {
            state.orders.push_back(order);
            drop(state);
            self.cell.wake();
        }
    }

    /// The next letter; none while an order waits, which comes first also within a turn.
    pub(crate) fn take(&self) -> Option<Box<dyn Letter<A>>> {
        let mut state = self.state.lock();
        if !state.orders.is_empty() {
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
            waiter.put(Ok(()));
        }
        Some(letter)
    }

    /// Puts a letter that was just taken back to the head of the queue.
    pub(crate) fn put_back(&self, letter: Box<dyn Letter<A>>) {
        let mut state = self.state.lock();
        state.letters.push_front(letter);
        state.taken -= 1;
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        self.state.lock().orders.pop_front()
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.cell.register(waker);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Refuses what is inside and whatever comes. Returns how many of these were dead letters.
    pub(crate) fn close(&self, error: &CallError) -> usize {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| error.clone());
        let letters = std::mem::take(&mut state.letters);
        let line = std::mem::take(&mut state.line);
        drop(state);
        let unanswered = letters.into_iter().map(|letter| letter.refuse(error.clone()));
        let unanswered = unanswered.filter(|answered| !answered).count();
        // A teller in line hears of it by its place.
        let told = line.len();
        for (_, waiter) in line {
            waiter.put(Err(error.clone()));
        }
        unanswered.saturating_sub(told)
    }
}
