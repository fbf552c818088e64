//! Credit: how many messages one node may have under way to one actor of another before that actor begins them.
//!
//! The sender starts with a window and spends one per message; the receiver returns them in batches as its actor
//! takes messages up. Memory under a stopped actor is therefore bounded by the window, whatever is sent.

use std::sync::atomic::{AtomicU32, Ordering};

use mobula_core::planted::{self, Bug};

/// The sender's side, for one target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SendCredit {
    left: u32,
    window: u32,
}

impl SendCredit {
    /// A full window.
    pub fn new(window: u32) -> Self {
        SendCredit { left: window, window }
    }

    /// Takes one credit; false if none is left.
    pub fn spend(&mut self) -> bool {
        let had = self.left > 0 || planted::is(Bug::CreditIgnored);
        self.left = self.left.saturating_sub(1);
        had
    }

    /// Puts back what the receiver returned.
    ///
    /// # Errors
    /// [`CreditViolation`] if the peer returns more than was spent.
    pub fn refill(&mut self, count: u32) -> Result<(), CreditViolation> {
        match self.left.checked_add(count) {
            Some(left) if left <= self.window => {
                self.left = if planted::is(Bug::CreditLeaked) && count > 1 { left - 1 } else { left };
                Ok(())
            }
            _ => Err(CreditViolation { window: self.window }),
        }
    }

    /// What can be spent.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// True if nothing is under way.
    pub fn is_full(&self) -> bool {
        self.left == self.window
    }
}

/// The receiver's side, for one sender and one target; shared between the thread that reads and the actor's.
#[derive(Debug)]
pub struct ReceiveCredit {
    window: u32,
    /// Messages that ever came, and for how many of them credit went back; both wrap. The first is written by the thread that
    /// reads alone.
    received: AtomicU32,
    returned: AtomicU32,
    owed: AtomicU32,
}

impl ReceiveCredit {
    /// Nothing received yet.
    pub fn new(window: u32) -> Self {
        ReceiveCredit { window, received: AtomicU32::new(0), returned: AtomicU32::new(0), owed: AtomicU32::new(0) }
    }

    /// Counts a message that arrived. To be called by the thread that reads the connection, and by no other.
    ///
    /// # Errors
    /// [`CreditViolation`] if the sender had no credit for it.
    pub fn on_message(&self) -> Result<(), CreditViolation> {
        let received = self.received.load(Ordering::Relaxed);
        self.received.store(received.wrapping_add(1), Ordering::Relaxed);
        let under_way = received.wrapping_sub(self.returned.load(Ordering::Acquire));
        if under_way < self.window { Ok(()) } else { Err(CreditViolation { window: self.window }) }
    }

    /// Counts a message that the actor has taken up, or that was refused. Returns the credit to send back, once a 64th
    /// of the window is owed: few frames, and a sender that keeps nearly the whole window under way does not run dry when
    /// answers come before the credit.
    pub fn on_taken(&self) -> Option<u32> {
        let owed = self.owed.fetch_add(1, Ordering::Relaxed) + 1;
        if owed < (self.window / 64).max(1) {
            return None;
        }
        self.settle()
    }

    /// All credit that is owed now, however little: for a target that is about to be forgotten.
    pub fn settle(&self) -> Option<u32> {
        let owed = self.owed.swap(0, Ordering::Relaxed);
        if owed == 0 {
            return None;
        }
        self.returned.fetch_add(owed, Ordering::Release);
        Some(owed)
    }
}

/// A peer sent without credit, or returned credit that it never had. Its connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("FlowControlViolation: the peer passed its window of {window} messages")]
pub struct CreditViolation {
    /// The window, in messages.
    pub window: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_circle_neither_gains_nor_loses_credit() {
        let mut send = SendCredit::new(16);
        let receive = ReceiveCredit::new(16);
        let mut under_way = 0;
        for _ in 0..1000 {
            while send.spend() {
                receive.on_message().expect("within the window");
                under_way += 1;
            }
            assert!(under_way <= 16);
            let mut returned = 0;
            while under_way > 0 && returned == 0 {
                under_way -= 1;
                returned = receive.on_taken().unwrap_or(0);
            }
            send.refill(returned).expect("was spent");
        }
        assert!(!send.is_full());
    }

    #[test]
    fn a_small_window_returns_every_message() {
        let receive = ReceiveCredit::new(1);
        receive.on_message().expect("one fits");
        assert_eq!(receive.on_message(), Err(CreditViolation { window: 1 }));
        assert_eq!(receive.on_taken(), Some(1));
    }

    #[test]
    fn what_is_owed_can_be_returned_early() {
        let mut send = SendCredit::new(256);
        let receive = ReceiveCredit::new(256);
        assert_eq!(receive.settle(), None);
        assert!(send.spend() && send.spend() && send.spend());
        for _ in 0..3 {
            receive.on_message().expect("within the window");
            assert_eq!(receive.on_taken(), None);
        }
        send.refill(receive.settle().expect("three are owed")).expect("was spent");
        assert!(send.is_full());
        assert_eq!(receive.settle(), None);
    }

    #[test]
    fn more_than_was_spent_is_a_violation() {
        let mut send = SendCredit::new(4);
        assert!(send.spend());
        assert_eq!(send.refill(2), Err(CreditViolation { window: 4 }));
        assert_eq!(send.refill(1), Ok(()));
        assert!(send.is_full());
        assert_eq!(send.refill(u32::MAX), Err(CreditViolation { window: 4 }));
    }
}
