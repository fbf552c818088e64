//! What an actor's cell has to know of its handlers that wait: which run beside it, and whether one holds it up.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use mobula_core::IdMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::begin;
use crate::cell::AnyShared;

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
        let task = begin::on_this_thread(async move {
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

/// One handler whose future runs beside the others of its actor, while it lives.
pub(crate) struct Beside(Arc<dyn AnyShared>);

impl Beside {
    pub(crate) fn begin(actor: Arc<dyn AnyShared>) -> Self {
        actor.runs_beside(true);
        Beside(actor)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.runs_beside(false);
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
/// Beside these: the actor has put its stop off, and will end itself.
const PUT_OFF: u8 = 4;

impl Stops {
    /// Stops wait from now on.
    pub(crate) fn hold(&self) {
        self.set(HELD);
    }

    /// They do not wait any more. True if one has.
    pub(crate) fn release(&self) -> bool {
        self.set(FREE) == WAITING
    }

    /// Replaces all but whether a stop is put off. Gives what was there.
    fn set(&self, new: u8) -> u8 {
        let set = |state| Some(state & PUT_OFF | new);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).unwrap_or_else(|state| state) & !PUT_OFF
    }

    /// The actor does not stop yet, and will.
    pub(crate) fn put_off(&self) {
        self.0.fetch_or(PUT_OFF, Ordering::Relaxed);
    }

    /// A new life begins.
    pub(crate) fn reset(&self) {
        self.0.store(FREE, Ordering::Relaxed);
    }

    /// True if a stop was given that will be carried out some time, though not now.
    pub(crate) fn is_to_come(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !HELD != FREE
    }

    /// False if the stop has to wait; then it is carried out when the exclusive handler is done.
    pub(crate) fn may_stop_now(&self) -> bool {
        let wait = |state| (state & !PUT_OFF != FREE).then_some(state & PUT_OFF | WAITING);
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
        assert!(!stops.is_to_come());
        stops.put_off();
        assert!(stops.is_to_come() && stops.may_stop_now(), "it may be told again");
        stops.hold();
        assert!(!stops.may_stop_now() && stops.release() && stops.is_to_come());
        stops.reset();
        assert!(!stops.is_to_come());
    }
}
