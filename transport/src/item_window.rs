//! How many items of one stream may be under way, as its reader counts them. No clock, no lock, no waker.

use mobula_core::planted::{self, Bug};

use crate::CreditViolation;

/// The reader's side of one stream of answers: what may still come, and what its producer has to be told.
#[derive(Debug)]
pub struct ItemWindow {
    size: u32,
    /// Items that may still come.
    open: u32,
    /// Items that were taken, and not yet opened again.
    owed: u32,
}

impl ItemWindow {
    /// Open for `size` items.
    pub fn new(size: u32) -> Self {
        ItemWindow { size, open: size, owed: 0 }
    }

    /// True if an item may come.
    pub fn is_open(&self) -> bool {
        self.open > 0
    }

    /// An item has come.
    ///
    /// # Errors
    /// [`CreditViolation`] if it should not have.
    pub fn on_item(&mut self) -> Result<(), CreditViolation> {
        self.open = self.open.checked_sub(1).ok_or(CreditViolation { window: self.size })?;
        Ok(())
    }

    /// An item was taken. Returns how many more may come, once a quarter of the window is owed.
    pub fn on_taken(&mut self) -> Option<u32> {
        self.owed += 1;
        if self.owed < (self.size / 4).max(1) {
            return None;
        }
        self.open += self.owed;
        let owed = std::mem::take(&mut self.owed);
        Some(if planted::is(Bug::ItemCreditLeaked) && owed > 1 { owed - 1 } else { owed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::SendCredit;

    /// xorshift64; Marsaglia 2003.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) % end
        }
    }

    /// A producer that sends whenever it may, and a reader, each with a wire between, under random schedules.
    #[test]
    fn items_come_all_in_order_and_never_more_than_the_window() {
        const ITEMS: u64 = 1000;
        for seed in 1..=200 {
            let mut random = Random(seed);
            let size = 1 + random.below(70) as u32;
            let (mut credit, mut window) = (SendCredit::new(size), ItemWindow::new(size));
            let (mut to_reader, mut to_producer) = (VecDeque::new(), VecDeque::new());
            let (mut unread, mut sent, mut read) = (VecDeque::new(), 0, 0);
            let mut steps = 0;
            while read < ITEMS {
                match random.below(4) {
                    0 => {
                        if sent < ITEMS && credit.spend() {
                            to_reader.push_back(sent);
                            sent += 1;
                        }
                    }
                    1 => {
                        if let Some(item) = to_reader.pop_front() {
                            window.on_item().expect("the producer keeps to its credit");
                            unread.push_back(item);
                        }
                    }
                    2 => {
                        if let Some(item) = unread.pop_front() {
                            assert_eq!(item, read);
                            read += 1;
                            to_producer.extend(window.on_taken());
                        }
                    }
                    _ => {
                        if let Some(count) = to_producer.pop_front() {
                            credit.refill(count).expect("the reader gives back what it took");
                        }
                    }
                }
                assert!(to_reader.len() + unread.len() <= size as usize, "seed {seed}");
                steps += 1;
                assert!(steps < 100_000, "seed {seed} stands still at {read} of {sent}");
            }
        }
    }

    #[test]
    fn an_item_too_many_is_a_violation() {
        let mut window = ItemWindow::new(2);
        assert_eq!((window.on_item(), window.on_item()), (Ok(()), Ok(())));
        assert!(!window.is_open());
        assert_eq!(window.on_item(), Err(CreditViolation { window: 2 }));
        assert_eq!(window.on_taken(), Some(1));
        assert!(window.is_open());
    }
}
