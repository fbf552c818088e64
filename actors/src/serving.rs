//! Requests to the node itself that one connection has in progress here: how many there may be, and what a cancel ends.
//!
//! An actor that was created for somebody who has given up is ended again. A cancel may cross the answer on its way, so the
//! actors of the latest answers are remembered for a while.

use std::collections::VecDeque;
use std::sync::Arc;

use mobula_core::{ActorId, CallError, IdMap, RequestId, limits};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// What a request costs this node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It creates an actor, or asks something.
    Work,
    /// It waits for news, perhaps for ever.
    Wait,
}

/// The requests of one connection.
pub(crate) struct Serving {
    rows: Mutex<Rows>,
    works_max: usize,
}

#[derive(Default)]
struct Rows {
    by_id: IdMap<u64, Row>,
    works: usize,
    /// Actors whose creation was answered, the latest last.
    created: VecDeque<(RequestId, ActorId)>,
    /// The connection has ended.
    closed: bool,
}

struct Row {
    kind: Kind,
    cancelled: bool,
    task: Option<AbortHandle>,
}

/// Why a request does not begin.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum NotBegun {
    /// One with its id is in progress already.
    Twice,
    TooMany(CallError),
}

impl Serving {
    /// With `works_max` requests at the same time that do work.
    pub(crate) fn new(works_max: usize) -> Arc<Self> {
        Arc::new(Serving { rows: Mutex::default(), works_max })
    }

    /// A request has come. It is in progress until what comes back is [finished](InProgress::finish) or dropped.
    pub(crate) fn begin(self: &Arc<Self>, request: RequestId, kind: Kind) -> Result<InProgress, NotBegun> {
        let mut rows = self.rows.lock();
        if rows.by_id.contains_key(&request.0) {
            return Err(NotBegun::Twice);
        }
        let waits = rows.by_id.len() - rows.works;
        let (now, max, what) = match kind {
            Kind::Work => (rows.works, self.works_max, "requests of your node in progress on it"),
            Kind::Wait => (waits, limits::CONTROL_WAITS_MAX, "monitors and other waits of your node on it"),
        };
        if now >= max {
            let retry_after = limits::OVERLOADED_RETRY_AFTER;
            let error = CallError::Overloaded { what: what.to_owned(), limit: max as u64, retry_after };
            return Err(NotBegun::TooMany(error));
        }
        rows.works += usize::from(kind == Kind::Work);
        rows.by_id.insert(request.0, Row { kind, cancelled: false, task: None });
        Ok(InProgress { serving: Arc::clone(self), request, over: false })
    }

    /// What works at a request, so that a cancel ends it.
    pub(crate) fn runs(&self, request: RequestId, task: AbortHandle) {
        let mut rows = self.rows.lock();
        let closed = rows.closed;
        // It may have ended already.
        let Some(row) = rows.by_id.get_mut(&request.0) else { return };
        if row.cancelled || closed {
            drop(rows);
            return task.abort();
        }
        row.task = Some(task);
    }

    /// The sender of a request has given up. Gives the actor that was created for it, if it was: nobody will ever know it.
    pub(crate) fn cancel(&self, request: RequestId) -> Option<ActorId> {
        let mut rows = self.rows.lock();
        if let Some(row) = rows.by_id.get_mut(&request.0) {
            row.cancelled = true;
            let task = row.task.take();
            drop(rows);
            if let Some(task) = task {
                task.abort();
            }
            return None;
        }
        let at = rows.created.iter().rposition(|(answered, _)| *answered == request)?;
        rows.created.remove(at).map(|(_, actor)| actor)
    }

    /// The connection has ended: nobody will hear any answer.
    pub(crate) fn close(&self) {
        let mut rows = self.rows.lock();
        rows.closed = true;
        let tasks: Vec<_> = rows.by_id.values_mut().filter_map(|row| row.task.take()).collect();
        drop(rows);
        tasks.iter().for_each(AbortHandle::abort);
    }

    fn end(&self, request: RequestId, created: Option<ActorId>) -> bool {
        let mut rows = self.rows.lock();
        let Some(row) = rows.by_id.remove(&request.0) else { return false };
        rows.works -= usize::from(row.kind == Kind::Work);
        if row.cancelled || rows.closed {
            return false;
        }
        if let Some(actor) = created {
            if rows.created.len() >= limits::CREATIONS_REMEMBERED {
                rows.created.pop_front();
            }
            rows.created.push_back((request, actor));
        }
        true
    }
}

/// One request.
pub(crate) struct InProgress {
    serving: Arc<Serving>,
    request: RequestId,
    over: bool,
}

impl InProgress {
    /// It is about to be answered, with the actor that was `created` for it, if any. False if nobody wants the answer.
    pub(crate) fn finish(mut self, created: Option<ActorId>) -> bool {
        self.over = true;
        self.serving.end(self.request, created)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if !self.over {
            self.serving.end(self.request, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::Outcome;

    use super::*;

    const A: RequestId = RequestId(1);
    const B: RequestId = RequestId(2);
    const C: RequestId = RequestId(3);

    #[test]
    fn one_more_than_the_limit_is_refused_and_waits_do_not_count() {
        let serving = Serving::new(2);
        let first = serving.begin(A, Kind::Work).map_err(|_| "first");
        let _second = serving.begin(B, Kind::Work).map_err(|_| "second");
        assert_eq!(serving.begin(A, Kind::Work).err(), Some(NotBegun::Twice));
        let Err(NotBegun::TooMany(error)) = serving.begin(C, Kind::Work) else { panic!("two are the most") };
        assert!(matches!(&error, CallError::Overloaded { limit: 2, .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::NotStarted);
        assert!(serving.begin(C, Kind::Wait).is_ok(), "waiting is another matter");
        drop(first);
        assert!(serving.begin(C, Kind::Work).is_ok(), "there is room again");
    }

    #[test]
    fn a_cancel_finds_the_actor_before_and_after_the_answer() {
        let serving = Serving::new(9);
        let [before, after] = [A, B].map(|id| serving.begin(id, Kind::Work).unwrap_or_else(|_| panic!("room")));
        assert_eq!(serving.cancel(A), None, "it is not there yet");
        assert!(!before.finish(Some(ActorId(7))), "whoever has made it ends it");
        assert!(after.finish(Some(ActorId(8))));
        assert_eq!(serving.cancel(B), Some(ActorId(8)), "the answer was on its way");
        assert_eq!(serving.cancel(B), None);
        let last = serving.begin(C, Kind::Work).unwrap_or_else(|_| panic!("room"));
        serving.close();
        assert!(!last.finish(Some(ActorId(9))), "nobody hears the answer");
        let rows = serving.rows.lock();
        assert!(rows.by_id.is_empty() && rows.works == 0 && rows.created.is_empty());
    }

    #[test]
    fn only_the_latest_answers_are_remembered() {
        let serving = Serving::new(9);
        for number in 0..=limits::CREATIONS_REMEMBERED as u64 {
            let begun = serving.begin(RequestId(number), Kind::Work).unwrap_or_else(|_| panic!("room"));
            assert!(begun.finish(Some(ActorId(number))));
        }
        assert_eq!(serving.cancel(RequestId(0)), None);
        assert_eq!(serving.cancel(RequestId(1)), Some(ActorId(1)));
    }
}
