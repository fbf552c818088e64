//! Answers that one thread collects, to be queued together.
//!
//! A turn of an actor answers many messages, and each answer by itself would take the session's lock. While a thread
//! [gathers](gather), its answers and the credit that it returns are written beside the session, which takes them over when that
//! ends, or before anything else that the thread sends over the same link.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use mobula_core::frame::{Body, Head};
use mobula_core::{ActorId, RequestId};

use super::Link;
use crate::session::keep_spare;

/// Larger answers do not wait for others.
pub(super) const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// With so many bytes gathered, the session takes them over.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    /// The address of the link for which there is something; 0 if there is nothing.
    static FILLED: Cell<usize> = const { Cell::new(0) };
    static FRAMES: Cell<Option<BytesMut>> = const { Cell::new(None) };
    static CREDIT: Cell<Option<(ActorId, u32)>> = const { Cell::new(None) };
    /// Whose answers are gathered.
    static LINK: RefCell<Option<Arc<dyn TakesOver>>> = const { RefCell::new(None) };
}

/// A link, whatever waits for its answers.
trait TakesOver {
    fn take_over(&self, frames: &[u8], credit: Option<(ActorId, u32)>);
}

impl<R: Send + 'static> TakesOver for Link<R> {
    fn take_over(&self, frames: &[u8], credit: Option<(ActorId, u32)>) {
        self.session.lock().put_answers(frames, credit);
        self.gathered_by.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gathers the answers and the credit of this thread while it is there; see [`gather`].
#[derive(Debug)]
#[must_use = "what is gathered is queued when this is dropped"]
pub struct Gathering {
    before: bool,
}

/// From now on, [`Link::reply`] and [`Link::grant`] on this thread only collect, until what they give is dropped, or until the
/// thread sends anything else over the same link or [kicks](Link::kick) it. To be held for a short time: an actor's turn.
pub fn gather() -> Gathering {
    Gathering { before: ON.replace(true) }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        ON.set(self.before);
        settle();
        drop(LINK.take());
    }
}

/// The sessions take over what this thread has gathered: before somebody else is told of what may stand in it.
pub fn settle() {
    if FILLED.replace(0) != 0 {
        LINK.with_borrow(|link| {
            let mut frames = FRAMES.take().unwrap_or_default();
            if let Some(link) = link {
                link.take_over(&frames, CREDIT.take());
            }
            frames.clear();
            FRAMES.set(Some(frames));
        });
    }
}

/// True while this thread gathers.
pub(super) fn is_on() -> bool {
    ON.get()
}

/// As [`settle`], of one link.
#[inline]
pub(super) fn settle_of<R>(link: &Link<R>) {
    if FILLED.get() == address(link) {
        settle();
    }
}

fn address<R>(link: &Link<R>) -> usize {
    std::ptr::from_ref(link).addr()
}

/// What follows is for `link`.
#[inline]
fn begin<R: Send + 'static>(link: &Arc<Link<R>>) {
    if FILLED.get() != address(link) {
        begin_first(link);
    }
}

#[cold]
fn begin_first<R: Send + 'static>(link: &Arc<Link<R>>) {
    let own = address(link);
    settle();
    LINK.with_borrow_mut(|known| {
        if known.as_ref().is_none_or(|known| Arc::as_ptr(known).addr() != own) {
            *known = Some(Arc::clone(link) as _);
        }
    });
    link.gathered_by.fetch_add(1, Ordering::SeqCst);
    FILLED.set(own);
}

/// Collects an answer that is not large.
#[inline]
pub(super) fn reply<R: Send + 'static>(link: &Arc<Link<R>>, request: RequestId, body: Body) {
    begin(link);
    let mut frames = FRAMES.take().unwrap_or_default();
    // It is far below every limit.
    let _ = body.append_to(&mut frames, Head::Reply { request }, usize::MAX);
    let full = frames.len() >= GATHERED_BYTES_MAX;
    FRAMES.set(Some(frames));
    keep_spare(body);
    if full {
        settle();
    }
}

/// Collects credit.
pub(super) fn grant<R: Send + 'static>(link: &Arc<Link<R>>, target: ActorId, count: u32) {
    begin(link);
    match CREDIT.take() {
        Some((before, owed)) if before == target => CREDIT.set(Some((target, owed + count))),
        Some(other) => {
            CREDIT.set(Some(other));
            settle();
            begin(link);
            CREDIT.set(Some((target, count)));
        }
        None => CREDIT.set(Some((target, count))),
    }
}
