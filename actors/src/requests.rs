//! The requests of one connection that are in progress here: in a mailbox, with a handler, or sending their answer.
//!
//! A request has its row from its arrival to its answer, and no longer. So a cancel finds what it is about or is about
//! nothing, and leaves nothing behind.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_core::{IdMap, RequestId, limits};
use mobula_transport::CreditViolation;
use parking_lot::Mutex;

use crate::call_context::Token;
use crate::stream::Gate;

#[derive(Default)]
pub(crate) struct Requests {
    rows: Mutex<Rows>,
    /// Rows that are cancelled. Zero nearly always, and then a look costs no lock.
    cancelled: AtomicUsize,
}

#[derive(Default)]
struct Rows {
    /// By the low half of the id, which counts up from 0 in the peers that we know.
    dense: Vec<Option<(RequestId, Row)>>,
    /// What found its place there taken, or has a larger number.
    others: IdMap<u64, Row>,
    /// The connection has ended.
    closed: bool,
}

/// Rows that are found without hashing. What a peer makes of its ids is its own affair: 64 KiB at most.
const DENSE_ROWS_MAX: usize = 1024;

#[derive(Default)]
struct Row {
    cancelled: bool,
    /// Made when the handler asks for it.
    token: Option<Arc<Token>>,
    /// It is answered with items.
    gate: Option<Arc<Gate>>,
}

impl Rows {
    /// False if there is one already.
    fn insert(&mut self, request: RequestId) -> bool {
        let place = place(request);
        if place >= self.dense.len() && place < DENSE_ROWS_MAX {
            self.dense.resize_with(place + 1, || None);
        }
        match self.dense.get_mut(place) {
            Some(Some((there, _))) if *there == request => false,
            // A peer that counts on has given this id to one of the others before.
            Some(free @ None) if self.others.is_empty() || !self.others.contains_key(&request.0) => {
                *free = Some((request, Row::default()));
                true
            }
            _ => match self.others.entry(request.0) {
                Entry::Occupied(_) => false,
                Entry::Vacant(free) => {
                    free.insert(Row::default());
                    true
                }
            },
        }
    }

    fn remove(&mut self, request: RequestId) -> Option<Row> {
        match self.dense.get_mut(place(request)) {
            Some(row) if row.as_ref().is_some_and(|(there, _)| *there == request) => row.take().map(|(_, row)| row),
            _ => self.others.remove(&request.0),
        }
    }

    fn get_mut(&mut self, request: RequestId) -> Option<&mut Row> {
        match self.dense.get_mut(place(request)) {
            Some(Some((there, row))) if *there == request => Some(row),
            _ => self.others.get_mut(&request.0),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.dense.iter().flatten().map(|(_, row)| row).chain(self.others.values())
    }
}

fn place(request: RequestId) -> usize {
    (request.0 & 0xffff_ffff) as usize
}

impl Requests {
    /// A request has arrived. False if one with this id is in progress already.
    pub(crate) fn begin(&self, request: RequestId) -> bool {
        self.rows.lock().insert(request)
    }

    /// It has its answer.
    pub(crate) fn end(&self, request: RequestId) {
        let row = self.rows.lock().remove(request);
        if row.is_some_and(|row| row.cancelled) {
            self.cancelled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Its sender has given up.
    pub(crate) fn cancel(&self, request: RequestId) {
        let token = match self.rows.lock().get_mut(request) {
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
        self.cancelled.load(Ordering::Relaxed) > 0 && self.rows.lock().get_mut(request).is_some_and(|row| row.cancelled)
    }

    /// What fires when nobody waits for the answer any more. None if it was given.
    pub(crate) fn token(&self, request: RequestId) -> Option<Arc<Token>> {
        let mut rows = self.rows.lock();
        let closed = rows.closed;
        let row = rows.get_mut(request)?;
        if row.cancelled || closed {
            return Some(Token::new_fired());
        }
        Some(Arc::clone(row.token.get_or_insert_default()))
    }

    /// The answer will be items. None if there was an answer already.
    pub(crate) fn open_stream(&self, request: RequestId) -> Option<Arc<Gate>> {
        let mut rows = self.rows.lock();
        let row = rows.get_mut(request)?;
        Some(Arc::clone(row.gate.get_or_insert_with(|| Arc::new(Gate::new()))))
    }

    /// The sender of a request has taken `count` items.
    ///
    /// # Errors
    /// [`CreditViolation`] if it cannot have.
    pub(crate) fn more(&self, request: RequestId, count: u32) -> Result<(), CreditViolation> {
        let gate = match self.rows.lock().get_mut(request) {
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
        let tokens: Vec<_> = rows.all().filter_map(|row| row.token.clone()).collect();
        drop(rows);
        tokens.iter().for_each(|token| token.fire());
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.rows.lock().all().next().is_none() && self.cancelled.load(Ordering::Relaxed) == 0
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
        let far = RequestId(DENSE_ROWS_MAX as u64);
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
