//! What an actor's cell has to know of its handlers that wait: which run beside it, and whether one holds it up.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use mobula_core::IdMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// The concurrent handlers of one actor that run now. Costs a pointer until the first one does.
#[derive(Default)]
pub(crate) struct Tasks(OnceLock<Arc<Mutex<Running>>>);

#[derive(Default)]
struct Running {
    /// Not used twice: a task of an earlier life must not strike out one of this life.
    next: u64,
    handles: IdMap<u64, AbortHandle>,
}

impl Tasks {
    /// Runs `work` on this thread until it is done or the actor's life ends.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let shared = self.0.get_or_init(Arc::default);
        let mut running = shared.lock();
        let key = running.next;
        running.next += 1;
        let entry = Entry { running: Arc::clone(shared), key };
        let task = actix_rt::spawn(async move {
            work.await;
            drop(entry);
        });
        // Entered before the task can end: it begins on this very thread, later.
        running.handles.insert(key, task.abort_handle());
    }

    /// The life has ended.
    pub(crate) fn abort_all(&self) {
        let Some(running) = self.0.get() else { return };
        let handles = std::mem::take(&mut running.lock().handles);
        handles.values().for_each(AbortHandle::abort);
    }
}

/// A task's row, struck out when the task ends, however it ends.
struct Entry {
    running: Arc<Mutex<Running>>,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.lock().handles.remove(&self.key);
    }
}

/// Whether a stop may be carried out now, or waits for an exclusive handler.
#[derive(Default)]
pub(crate) struct Stops(AtomicU8);

const FREE: u8 = 0;
const HELD: u8 = 1;
const WAITING: u8 = 2;

impl Stops {
    /// Stops wait from now on.
    pub(crate) fn hold(&self) {
        self.0.store(HELD, Ordering::Relaxed);
    }

    /// They do not wait any more. True if one has.
    pub(crate) fn release(&self) -> bool {
        self.0.swap(FREE, Ordering::Relaxed) == WAITING
    }

    /// False if the stop has to wait; then it is carried out when the exclusive handler is done.
    pub(crate) fn may_stop_now(&self) -> bool {
        let wait = |state| (state != FREE).then_some(WAITING);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, wait).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_for_an_exclusive_handler_and_is_told_once() {
        let stops = Stops::default();
        assert!(stops.may_stop_now());
        stops.hold();
        assert!(!stops.may_stop_now());
        assert!(!stops.may_stop_now());
        assert!(stops.release());
        assert!(!stops.release());
        assert!(stops.may_stop_now());
        stops.hold();
        assert!(!stops.release(), "nobody asked");
    }
}
