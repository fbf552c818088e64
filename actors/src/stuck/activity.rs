//! What a thread of actors is doing, as others can see it. Costs a few plain stores a turn, and no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mobula_core::{ActorId, MessageKey};
use parking_lot::Mutex;

/// What one thread is doing. Written by that thread alone.
#[derive(Debug)]
pub(crate) struct Activity {
    /// As the system counts threads, where it says.
    pub(super) thread: Option<u32>,
    /// The actor whose turn it is; 0 for none.
    actor: AtomicU64,
    /// Grows with each turn and each message.
    progress: AtomicU64,
    in_handler: AtomicBool,
    /// The message that was handled last, and its key, so that its name is written only when it changes.
    key: AtomicU64,
    message: Mutex<&'static str>,
}

impl Activity {
    /// Of the current thread.
    pub(super) fn here() -> Arc<Self> {
        Arc::new(Activity {
            thread: super::thread::current(),
            actor: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            in_handler: AtomicBool::new(false),
            key: AtomicU64::new(0),
            message: Mutex::new(""),
        })
    }

    fn step(&self) {
        self.progress.store(self.progress.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A turn of `actor` begins. What is given is to be handed to [`leave`](Self::leave).
    pub(crate) fn enter(&self, actor: ActorId) -> u64 {
        self.step();
        let before = self.actor.load(Ordering::Relaxed);
        self.actor.store(actor.0, Ordering::Relaxed);
        before
    }

    pub(crate) fn leave(&self, before: u64) {
        self.actor.store(before, Ordering::Relaxed);
        self.in_handler.store(false, Ordering::Relaxed);
        self.step();
    }

    /// A handler begins.
    pub(crate) fn handles(&self, key: MessageKey, message: &'static str) {
        if self.key.load(Ordering::Relaxed) != key.0 {
            *self.message.lock() = message;
            self.key.store(key.0, Ordering::Relaxed);
        }
        self.in_handler.store(true, Ordering::Relaxed);
        self.step();
    }

    /// It has returned.
    pub(crate) fn handled(&self) {
        self.in_handler.store(false, Ordering::Relaxed);
        self.step();
    }

    /// The message that is handled now.
    pub(crate) fn message(&self) -> Option<&'static str> {
        self.in_handler.load(Ordering::Relaxed).then(|| *self.message.lock())
    }

    /// The actor whose turn it is, and how far it got.
    pub(super) fn turn(&self) -> Option<(ActorId, u64)> {
        let progress = self.progress.load(Ordering::Relaxed);
        let actor = self.actor.load(Ordering::Relaxed);
        (actor != 0).then_some((ActorId(actor), progress))
    }
}
