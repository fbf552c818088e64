//! The head: serves members, and looks after leases that run out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_core::directory::{Answer, Refusal, Request};
use mobula_core::{NodeId, NodeUid};
use mobula_transport::now;

use super::DirectoryEnd;

/// The time since the node's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Clock(now())
    }

    fn now(self) -> Duration {
        now().saturating_duration_since(self.0)
    }

    fn instant(self, at: Duration) -> Instant {
        self.0 + at
    }
}

impl DirectoryEnd {
    /// Does what a node asks for: `from` is proven.
    pub(crate) fn serve(&self, from: &NodeId, request: Request) -> Answer {
        let mut own = self.own.lock();
        let head = self.head();
        if head != *own.head() {
            return Answer::Refused(Refusal::NotHead { head });
        }
        let members = own.members();
        let answer = own.request(from, request, self.clock.now());
        let more = own.members() > members;
        drop(own);
        if more {
            self.changed.notify_one();
        }
        answer
    }

    /// A peer is gone, or silent.
    pub(crate) fn peer_lost(&self, peer: NodeUid) {
        self.own.lock().lost(peer);
    }

    /// A peer is known to be dead.
    pub(crate) fn peer_dead(&self, peer: NodeUid) {
        self.own.lock().dead(peer);
    }

    /// Frees what members held whose leases have run out. Runs as long as the node's control runtime.
    pub(crate) async fn look_after_leases(self: Arc<Self>) {
        loop {
            let next = {
                let mut own = self.own.lock();
                own.tick(self.clock.now());
                own.next_deadline().map(|at| self.clock.instant(at))
            };
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }
}
