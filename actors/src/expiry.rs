//! Deadlines of asks within the process: one sleeper for all of them.
//!
//! Nearly every ask is answered long before its deadline, so a timer of its own would be set and taken down for
//! nothing. Here an ask is a row in a table; the sleeper looks at the rows when the earliest deadline it ever saw has
//! come, which with a default of 30 s is seldom.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

/// What has a deadline.
pub(crate) trait Expire: Send + Sync {
    /// The deadline has passed.
    fn expire(&self);
}

/// The asks of one node that wait for actors of the same node.
#[derive(Default)]
pub(crate) struct Expiries {
    table: Mutex<Table>,
    sooner: Notify,
}

#[derive(Default)]
struct Table {
    rows: Slab<(Instant, Arc<dyn Expire>)>,
    /// No row has an earlier deadline; some may have a later one.
    earliest: Option<Instant>,
}

impl Expiries {
    /// Calls `waiter` when `at` has come, unless it is removed before.
    pub(crate) fn insert(&self, at: Instant, waiter: Arc<dyn Expire>) -> usize {
        let mut table = self.table.lock();
        let row = table.rows.insert((at, waiter));
        if table.earliest.is_none_or(|earliest| at < earliest) {
            table.earliest = Some(at);
            drop(table);
            self.sooner.notify_one();
        }
        row
    }

    pub(crate) fn remove(&self, row: usize) {
        self.table.lock().rows.try_remove(row);
    }

    /// Expires what is due at `now`. Returns when to look again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut table = self.table.lock();
        if table.earliest.is_some_and(|earliest| earliest <= now) {
            due.extend(table.rows.iter().filter(|(_, (at, _))| *at <= now).map(|(_, (_, waiter))| Arc::clone(waiter)));
            table.earliest = table.rows.iter().map(|(_, (at, _))| *at).filter(|at| *at > now).min();
        }
        let next = table.earliest;
        drop(table);
        // Whoever is woken may send, and need the table.
        due.iter().for_each(|waiter| waiter.expire());
        next
    }

    /// Looks after the table for as long as it is polled.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            match self.expire(mobula_transport::now()) {
                Some(at) => {
                    let sleep = tokio::time::sleep_until(tokio::time::Instant::from_std(at));
                    tokio::select! {
                        () = sleep => {}
                        () = self.sooner.notified() => {}
                    }
                }
                None => self.sooner.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Expire for Count {
        fn expire(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_due_expires_and_what_was_removed_does_not() {
        let (expiries, count) = (Expiries::default(), Arc::new(Count::default()));
        let start = mobula_transport::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let removed = expiries.insert(at(1), count.clone());
        let due = expiries.insert(at(2), count.clone());
        expiries.insert(at(9), count.clone());
        expiries.remove(removed);
        assert_eq!(expiries.expire(at(0)), Some(at(1)), "the earliest that was ever seen");
        assert_eq!(expiries.expire(at(1)), Some(at(2)));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert_eq!(expiries.expire(at(3)), Some(at(9)));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        expiries.remove(due);
        assert_eq!(expiries.expire(at(10)), None);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
