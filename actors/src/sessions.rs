//! The sessions to which peers may come back after a connection has broken.

use std::sync::{Arc, Weak};

use mobula_core::IdMap;
use parking_lot::Mutex;

use crate::node::NodeLink;

/// Links that were accepted, by the names of their sessions. A link that is gone leaves with its end.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<IdMap<u64, Weak<NodeLink>>>);

impl Sessions {
    pub(crate) fn enter(&self, link: &Arc<NodeLink>) {
        if let Some(session) = link.session() {
            self.0.lock().insert(session, Arc::downgrade(link));
        }
    }

    pub(crate) fn find(&self, session: u64) -> Option<Arc<NodeLink>> {
        self.0.lock().get(&session).and_then(Weak::upgrade)
    }

    pub(crate) fn forget(&self, link: &Arc<NodeLink>) {
        let Some(session) = link.session() else { return };
        let mut sessions = self.0.lock();
        if sessions.get(&session).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(link))) {
            sessions.remove(&session);
        }
    }
}
