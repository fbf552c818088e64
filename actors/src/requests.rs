//! The requests of one connection that are in progress here: in a mailbox, with a handler, or sending their answer.
//!
//! A request has its row from its arrival to its answer, and no longer. So a cancel finds what it is about or is about
//! nothing, and leaves nothing behind.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mobula_core::{IdMap, RequestId, limits};
use mobula_transport::CreditViolation;
use parking_lot::Mutex;

use crate::call_context::Token;
use crate::stream::Gate;

#[derive(Default)]
pub(crate) struct Requests {
    /// Requests of which nothing is known but that they are in progress: their ids, each at the place that its low half
    /// says, which counts up from 0 in the peers that we know. 0 where there is none.
    plain: OnceLock<Box<[AtomicU64]>>,
    /// What found its place there taken, has a larger number, or was looked at.
    rows: Mutex<Rows>,
    /// How many rows there are or are about to be.
    others: AtomicUsize,
    /// Rows that are cancelled. Zero nearly always, and then a look costs no lock.
    cancelled: AtomicUsize,
}

#[derive(Default)]
struct Rows {
    by_id: IdMap<u64, Row>,
    /// The connection has ended.
    closed: bool,
}

/// Requests that take no lock. What a peer makes of its ids is its own affair: 8 KiB a connection.
const PLAIN_MAX: usize = 1024;

#[derive(Default)]
struct Row {
    cancelled: bool,
    /// Made when the handler asks for it.
    token: Option<Arc<Token>>,
    /// It is answered with items.
    gate: Option<Arc<Gate>>,
}

impl Requests {
    /// Where a request is that nobody has looked at.
    fn plain(&self, request: RequestId) -> Option<&AtomicU64> {
        let place = (request.0 & 0xffff_ffff) as usize;
        if place >= PLAIN_MAX || request.0 == 0 {
            return None;
        }
        self.plain.get_or_init(|| (0..PLAIN_MAX).map(|_| AtomicU64::new(0)).collect()).get(place)
    }

    /// Takes a request out of its plain place. False if it is not there.
    fn leave_plain(&self, request: RequestId) -> bool {
        let leave =
            |place: &AtomicU64| place.compare_exchange(request.0, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.plain(request).is_some_and(leave)
    }

    /// A request has arrived. False if one with this id is in progress already. Called by the thread that reads the
    /// connection, and by no other.
    pub(crate) fn begin(&self, request: RequestId) -> bool {
        let taken =
            self.plain(request).map(|place| place.compare_exchange(0, request.0, Ordering::SeqCst, Ordering::SeqCst));
        match taken {
            Some(Ok(_)) if self.others.load(Ordering::SeqCst) == 0 => true,
            // It may be in progress as one of the others.
            Some(Ok(_)) => {
                let known = self.rows.lock().by_id.contains_key(&request.0);
                if known {
                    self.leave_plain(request);
                }
                !known
            }
            Some(Err(there)) if there == request.0 => false,
            Some(Err(_)) | None => match self.rows.lock().by_id.entry(request.0) {
                Entry::Occupied(_) => false,
                Entry::Vacant(free) => {
                    self.others.fetch_add(1, Ordering::SeqCst);
                    free.insert(Row::default());
                    true
                }
            },
        }
    }

    /// It has its answer.
    pub(crate) fn end(&self, request: RequestId) {
        if self.leave_plain(request) {
            return;
        }
        let row = self.rows.lock().by_id.remove(&request.0);
        if let Some(row) = row {
            self.others.fetch_sub(1, Ordering::SeqCst);
            if row.cancelled {
                self.cancelled.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The row of a request, if that is in progress: made, if nobody has looked at it before.
    fn row<'r>(&self, rows: &'r mut Rows, request: RequestId) -> Option<&'r mut Row> {
        // Counted first: for nobody it is in neither place.
        self.others.fetch_add(1, Ordering::SeqCst);
        if self.leave_plain(request) {
            return Some(rows.by_id.entry(request.0).or_default());
        }
        self.others.fetch_sub(1, Ordering::SeqCst);
        rows.by_id.get_mut(&request.0)
    }

    /// Its sender has given up.
    pub(crate) fn cancel(&self, request: RequestId) {
        let token = match self.row(&mut self.rows.lock(), request) {
            Some(row) if !row.cancelled => {
                row.cancelled = true;
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                row.token.clone()
            }
            _ => None,
        };
        if let Some(token) = token {
            token.fire();
        }
    }

    pub(crate) fn is_cancelled(&self, request: RequestId) -> bool {
        self.cancelled.load(Ordering::Relaxed) > 0
            && self.rows.lock().by_id.get(&request.0).is_some_and(|row| row.cancelled)
    }

    /// What fires when nobody waits for the answer any more. None if it was given.
    pub(crate) fn token(&self, request: RequestId) -> Option<Arc<Token>> {
        let mut rows = self.rows.lock();
        let closed = rows.closed;
        let row = self.row(&mut rows, request)?;
        if row.cancelled || closed {
            return Some(Token::new_fired());
        }
        Some(Arc::clone(row.token.get_or_insert_default()))
    }

    /// The answer will be items. None if there was an answer already.
    pub(crate) fn open_stream(&self, request: RequestId) -> Option<Arc<Gate>> {
        let mut rows = self.rows.lock();
        let row = self.row(&mut rows, request)?;
        Some(Arc::clone(row.gate.get_or_insert_with(|| Arc::new(Gate::new()))))
    }

    /// The sender of a request has taken `count` items.
    ///
    /// # Errors
    /// [`CreditViolation`] if it cannot have.
    pub(crate) fn more(&self, request: RequestId, count: u32) -> Result<(), CreditViolation> {
        let gate = match self.row(&mut self.rows.lock(), request) {
            // It comes late.
            None => return Ok(()),
            Some(row) => row.gate.clone(),
        };
        gate.ok_or(CreditViolation { window: limits::STREAM_WINDOW_ITEMS })?.refill(count)
    }

    /// The connection has ended: nobody will hear any answer.
    pub(crate) fn close(&self) {
        let mut rows = self.rows.lock();
        rows.closed = true;
        let tokens: Vec<_> = rows.by_id.values().filter_map(|row| row.token.clone()).collect();
        drop(rows);
        tokens.iter().for_each(|token| token.fire());
    }

    /// True if somebody at the other end waits for an answer.
    pub(crate) fn any_in_progress(&self) -> bool {
        let plain =
            || self.plain.get().is_some_and(|plain| plain.iter().any(|place| place.load(Ordering::SeqCst) != 0));
        let rows = self.rows.lock();
        !rows.closed && (!rows.by_id.is_empty() || plain())
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let plain = self.plain.get().is_some_and(|plain| plain.iter().any(|place| place.load(Ordering::Relaxed) != 0));
        let counts = [&self.others, &self.cancelled].map(|count| count.load(Ordering::Relaxed));
        !plain && self.rows.lock().by_id.is_empty() && counts == [0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RequestId = RequestId(1);
    const B: RequestId = RequestId(2);

    fn is_fired(token: &Option<Arc<Token>>) -> bool {
        format!("{token:?}").contains("fired: true")
    }

    #[test]
    fn a_cancel_finds_its_request_or_leaves_nothing() {
        let requests = Requests::default();
        assert!(requests.begin(A) && requests.begin(B));
        assert!(!requests.begin(B), "twice at the same time");
        requests.cancel(A);
        requests.cancel(A);
        assert!(requests.is_cancelled(A) && !requests.is_cancelled(B));
        requests.end(A);
        requests.end(B);
        // Late, and about what never was.
        requests.cancel(A);
        requests.cancel(RequestId(77));
        assert!(requests.is_empty());
    }

    #[test]
    fn ids_that_share_a_place_or_have_none_are_told_apart() {
        let requests = Requests::default();
        let again = RequestId(A.0 | 1 << 32);
        let far = RequestId(PLAIN_MAX as u64);
        assert!(requests.begin(A) && requests.begin(again) && requests.begin(far));
        assert!(!requests.begin(A) && !requests.begin(again) && !requests.begin(far), "twice at the same time");
        requests.cancel(again);
        assert!(requests.is_cancelled(again) && !requests.is_cancelled(A) && !requests.is_cancelled(far));
        requests.end(A);
        assert!(!requests.begin(again), "it is still among the others");
        assert!(requests.is_cancelled(again));
        requests.end(again);
        requests.end(far);
        assert!(requests.is_empty());
    }

    #[test]
    fn a_token_fires_with_the_cancel_and_with_the_connection() {
        let requests = Requests::default();
        requests.begin(A);
        requests.begin(B);
        let (a, b) = (requests.token(A), requests.token(B));
        requests.cancel(A);
        assert!(is_fired(&a) && is_fired(&requests.token(A)) && !is_fired(&b));
        requests.close();
        assert!(is_fired(&b) && is_fired(&requests.token(B)));
        requests.end(A);
        requests.end(B);
        assert!(requests.token(A).is_none(), "it was answered");
        assert!(requests.is_empty());
    }

    #[test]
    fn more_is_for_streams_that_have_sent_so_much() {
        let (requests, window) = (Requests::default(), limits::STREAM_WINDOW_ITEMS);
        assert_eq!(requests.more(A, 1), Ok(()), "late, or never asked");
        requests.begin(A);
        assert_eq!(requests.more(A, 1), Err(CreditViolation { window }), "nothing was sent");
        assert!(requests.open_stream(A).is_some());
        assert_eq!(requests.more(A, 1), Err(CreditViolation { window }), "nothing was sent yet");
        requests.end(A);
        assert!(requests.open_stream(A).is_none());
        assert!(requests.is_empty());
    }
}
