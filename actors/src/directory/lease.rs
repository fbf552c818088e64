//! The lease of this node, to be looked at in every turn of a named actor without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_core::directory::{Lease, LeaseTimes};
use mobula_transport::now;
use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct LeaseCell {
    began: Instant,
    lease: Mutex<Lease>,
    /// Until when it is held, in nanoseconds since `began`: 0 for not at all, `u64::MAX` for ever.
    until_ns: AtomicU64,
}

impl LeaseCell {
    /// The head needs no lease.
    pub(crate) fn of_head(times: &LeaseTimes) -> Arc<Self> {
        let until_ns = AtomicU64::new(u64::MAX);
        Arc::new(LeaseCell { began: now(), lease: Mutex::new(Lease::new(times)), until_ns })
    }

    /// There is another head: nothing is held until it says so.
    pub(crate) fn begin(&self) {
        self.until_ns.store(0, Ordering::Release);
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.ns(now) < self.until_ns.load(Ordering::Acquire)
    }

    /// The head has granted what was asked for at `sent`.
    pub(crate) fn granted(&self, sent: Instant, now: Instant) {
        let mut lease = self.lease.lock();
        let held = lease.granted(sent, now);
        let until = lease.until().filter(|_| held).map_or(0, |until| self.ns(until));
        self.until_ns.store(until, Ordering::Release);
    }

    pub(crate) fn refused(&self) {
        self.lease.lock().refused();
        self.until_ns.store(0, Ordering::Release);
    }

    /// True if it was held once and is not any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.lease.lock().is_over(now)
    }

    pub(crate) fn until(&self) -> Option<Instant> {
        self.lease.lock().until()
    }

    fn ns(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.began);
        // One less than "for ever" is five hundred years.
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1)
    }
}
