//! Holds a producer back whose reader is on another node: one credit for each item.

use std::task::{Context, Poll, Waker};

use mobula_core::limits;
use mobula_transport::{CreditViolation, SendCredit};
use parking_lot::Mutex;

pub(crate) struct Gate(Mutex<State>);

struct State {
    credit: SendCredit,
    producer: Option<Waker>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Gate(Mutex::new(State { credit: SendCredit::new(limits::STREAM_WINDOW_ITEMS), producer: None }))
    }

    /// The reader has taken `count` items.
    ///
    /// # Errors
    /// [`CreditViolation`] if it cannot have.
    pub(crate) fn refill(&self, count: u32) -> Result<(), CreditViolation> {
        let mut state = self.0.lock();
        state.credit.refill(count)?;
        let producer = state.producer.take();
        drop(state);
        if let Some(producer) = producer {
            producer.wake();
        }
        Ok(())
    }

    /// Ready when an item may be sent; that one is counted.
    pub(super) fn poll_pass(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.credit.left() > 0 && state.credit.spend() {
            return Poll::Ready(());
        }
        state.producer = Some(cx.waker().clone());
        Poll::Pending
    }
}
