//! How a call that waits went out: what looks after its deadline, and what giving it up takes.

use std::sync::Arc;

use mobula_core::{Deadline, RequestId};

use crate::expiry::Expire;
use crate::node::{Node, NodeLink};

pub(crate) enum Way {
    /// Handed over within the process.
    Near(Expiry),
    Far {
        link: Arc<NodeLink>,
        request: RequestId,
    },
    /// Failed when it was sent; whoever waits has the reason.
    Failed,
}

impl Way {
    pub(crate) fn near(node: Node, deadline: Deadline) -> Self {
        Way::Near(Expiry::new(node, deadline))
    }

    pub(crate) fn far(link: &Arc<NodeLink>, request: RequestId) -> Self {
        Way::Far { link: Arc::clone(link), request }
    }

    /// `waiter` is waited for. A connection keeps the deadlines of what it has sent; the node those of what it hands over
    /// itself.
    pub(crate) fn arm<W: Expire + 'static>(&mut self, waiter: &Arc<W>) {
        if let Way::Near(expiry) = self {
            expiry.arm(waiter);
        }
    }

    pub(crate) fn forget_deadline(&mut self) {
        if let Way::Near(expiry) = self {
            expiry.disarm();
        }
    }

    /// Nobody waits any more: the other node is told, if the call has not had its end.
    pub(crate) fn cancel(&self) {
        if let Way::Far { link, request } = self {
            link.cancel(*request);
        }
    }
}

/// A deadline within the process. It has a row among its node's deadlines once it is waited for, and takes it along.
pub(crate) struct Expiry {
    node: Node,
    deadline: Deadline,
    row: Option<usize>,
}

impl Expiry {
    pub(crate) fn new(node: Node, deadline: Deadline) -> Self {
        Expiry { node, deadline, row: None }
    }

    pub(crate) fn arm<W: Expire + 'static>(&mut self, waiter: &Arc<W>) {
        if self.row.is_none()
            && let Some(at) = self.deadline.instant()
        {
            self.row = Some(self.node.expiries().insert(at, Arc::clone(waiter) as _));
        }
    }

    pub(crate) fn disarm(&mut self) {
        if let Some(row) = self.row.take() {
            self.node.expiries().remove(row);
        }
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.disarm();
    }
}
