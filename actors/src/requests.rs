//! The requests of one connection that are in progress here: in a mailbox, with a handler, or sending their answer.
//!
//! A request has its row from its arrival to its answer, and no longer. So a cancel finds what it is about or is about
//! nothing, and leaves nothing behind.

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
    by_id: IdMap<u64, Row>,
    /// The connection has ended.
    closed: bool,
}

#[derive(Default)]
struct Row {
    cancelled: bool,
    /// Made when the handler asks for it.
    token: Option<Arc<Token>>,
    /// It is answered with items.
    gate: Option<Arc<Gate>>,
}

impl Requests {
    /// A request has arrived. False if one with this id is in progress already.
    pub(crate) fn begin(&self, request: RequestId) -> bool {
        self.rows.lock().by_id.insert(request.0, Row::default()).is_none()
    }

    /// It has its answer.
    pub(crate) fn end(&self, request: RequestId) {
        let row = self.rows.lock().by_id.remove(&request.0);
        if row.is_some_and(|row| row.cancelled) {
            self.cancelled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Its sender has given up.
    pub(crate) fn cancel(&self, request: RequestId) {
        let token = match self.rows.lock().by_id.get_mut(&request.0) {
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
        let row = rows.by_id.get_mut(&request.0)?;
        if row.cancelled || closed {
            return Some(Token::new_fired());
        }
        Some(Arc::clone(row.token.get_or_insert_default()))
    }

    /// The answer will be items. None if there was an answer already.
    pub(crate) fn open_stream(&self, request: RequestId) -> Option<Arc<Gate>> {
        let mut rows = self.rows.lock();
        let row = rows.by_id.get_mut(&request.0)?;
        Some(Arc::clone(row.gate.get_or_insert_with(|| Arc::new(Gate::new()))))
    }

    /// The sender of a request has taken `count` items.
    ///
    /// # Errors
    /// [`CreditViolation`] if it cannot have.
    pub(crate) fn more(&self, request: RequestId, count: u32) -> Result<(), CreditViolation> {
        let gate = match self.rows.lock().by_id.get(&request.0) {
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

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.rows.lock().by_id.is_empty() && self.cancelled.load(Ordering::Relaxed) == 0
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
