//! Leases between supervisors and their children on other nodes: [`ChildLeases`] meets the clock and the control connection.
//!
//! Each node names, in one message to each other node, the children there that supervisors of its own keep, and looks
//! after the children that live with it. Both is the node's work, on its control runtime: a supervisor that is busy keeps
//! its children.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_core::{ActorAddress, ActorId, ChildLeases, Deadline, LeaseTimes, NodeId, NodeUid};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::control::{self, Control, ControlReply};
use crate::mailbox::Order;
use crate::node::{Node, WeakNode};

/// A node's part in the leases of children, as their home and as the home of their supervisors.
pub(crate) struct ChildCare {
    times: LeaseTimes,
    began: Instant,
    /// Children here, whose supervisors are elsewhere.
    leases: Mutex<ChildLeases>,
    /// Children elsewhere, whose supervisors are here.
    kept: Mutex<BTreeMap<NodeId, Kept>>,
    /// There is something sooner to do than before.
    changed: Notify,
}

/// Children on one other node.
#[derive(Default)]
struct Kept {
    /// With the supervisor of each.
    children: BTreeMap<ActorId, ActorId>,
    /// The newest time of that node that has come here.
    heard: Option<Duration>,
    /// It was last named these then.
    named: Option<Instant>,
}

impl ChildCare {
    pub(crate) fn new(times: LeaseTimes) -> Arc<Self> {
        Arc::new(ChildCare {
            times,
            began: now(),
            leases: Mutex::new(ChildLeases::new(times.lease)),
            kept: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The time since the node's start.
    fn time(&self) -> Duration {
        now().saturating_duration_since(self.began)
    }

    /// A child of a supervisor on `by` has begun to live here.
    pub(crate) fn begun(&self, node: &Node, child: ActorId, by: NodeUid) {
        let mut leases = self.leases.lock();
        let sooner = leases.next_run_out().is_none();
        leases.begun(child, by, self.time());
        drop(leases);
        // It may have ended by now, which nobody says again.
        if node.actor(child).is_none() {
            self.ended(child);
        } else if sooner {
            self.changed.notify_one();
        }
    }

    /// A child, or any other actor of this node, has ended.
    pub(crate) fn ended(&self, child: ActorId) {
        self.leases.lock().ended(child);
    }

    /// `by` keeps these children here. Gives this node's time, which is to come back with the next.
    pub(crate) fn kept(&self, node: &Node, by: NodeUid, children: Vec<ActorId>, heard: Option<Duration>) -> Duration {
        let time = self.time();
        let again = self.leases.lock().kept(by, children, heard, time);
        if !again.is_empty() {
            self.changed.notify_one();
        }
        for child in again.into_iter().filter_map(|child| node.actor(child)) {
            child.order(Order::Adopt);
        }
        time
    }

    /// `supervisor`, which lives here, keeps this child elsewhere.
    pub(crate) fn keep(&self, child: &ActorAddress, supervisor: ActorId) {
        let mut kept = self.kept.lock();
        let first = !kept.contains_key(&child.node);
        kept.entry(child.node.clone()).or_default().children.insert(child.actor, supervisor);
        drop(kept);
        if first {
            self.changed.notify_one();
        }
    }

    /// The child is its supervisor's no more.
    pub(crate) fn let_go(&self, child: &ActorAddress) {
        if let Some(kept) = self.kept.lock().get_mut(&child.node) {
            kept.children.remove(&child.actor);
        }
    }

    /// A peer is lost for ever: nothing is kept there, and nobody there keeps anything.
    pub(crate) fn lost(&self, peer: &NodeId) {
        self.leases.lock().lost(peer.uid);
        self.kept.lock().remove(peer);
    }

    fn heard(&self, from: &NodeId, at: Duration) {
        if let Some(kept) = self.kept.lock().get_mut(from) {
            kept.heard = kept.heard.max(Some(at));
        }
    }

    /// Whom to name which children now, and when to come back.
    fn due(&self, node: &Node, now: Instant) -> (Vec<(NodeId, Control)>, Option<Instant>) {
        let every = self.times.child_keep_alive();
        let mut kept = self.kept.lock();
        kept.retain(|_, kept| {
            // Whoever has ended without a word keeps nobody.
            kept.children.retain(|_, supervisor| node.actor(*supervisor).is_some());
            !kept.children.is_empty()
        });
        let mut due = Vec::new();
        for (peer, kept) in kept.iter_mut().filter(|(_, kept)| kept.named.is_none_or(|named| now >= named + every)) {
            kept.named = Some(now);
            let children = kept.children.keys().copied().collect();
            due.push((peer.clone(), Control::KeepChildren { children, heard: kept.heard }));
        }
        let next = kept.values().filter_map(|kept| kept.named).min();
        (due, next.map(|named| named + every))
    }

    fn keep_all(&self, node: &Node) -> Option<Instant> {
        let begun = now();
        let (due, next) = self.due(node, begun);
        for (peer, request) in due {
            let Some(link) = node.control_link(&peer) else { continue };
            let answer = control::request_until(&link, &request, Deadline::after(begun, self.times.lease));
            let node = node.downgrade();
            tokio::spawn(async move {
                if let Ok(ControlReply::ChildrenKept { at }) = answer.await
                    && let Some(node) = node.upgrade()
                {
                    node.child_care().heard(&peer, at);
                }
            });
        }
        next
    }

    /// Ends the supervision of those whom nobody keeps any more.
    fn part_all(&self, node: &Node) -> Option<Instant> {
        let run_out = self.leases.lock().run_out(self.time());
        for child in run_out {
            let Some(actor) = node.actor(child) else {
                self.ended(child);
                continue;
            };
            if let Some(supervised) = actor.supervised() {
                tracing::warn!(%child, supervisor = %supervised.by, orphans = ?supervised.orphans, "nothing is heard \
                    of a child's supervisor: its lease is over");
                actor.order(supervised.orphaned());
            }
        }
        self.leases.lock().next_run_out().map(|at| self.began + at)
    }

    /// Keeps and parts, as long as the node's control runtime runs.
    pub(crate) async fn look_after_children(self: Arc<Self>, node: WeakNode) {
        loop {
            let wake = {
                let Some(node) = node.upgrade().filter(|node| !node.is_closed()) else { return };
                let (keep, part) = (self.keep_all(&node), self.part_all(&node));
                keep.into_iter().chain(part).min()
            };
            match wake {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }
}
