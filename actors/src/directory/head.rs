//! The head: serves members, and looks after leases that run out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_core::directory::{Answer, GroupName, Refusal, Request};
use mobula_core::{ActorAddress, NodeId, NodeUid};
use mobula_transport::now;
use tokio::sync::watch;

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
        let changed = own.take_changed_groups();
        drop(own);
        if more {
            self.changed.notify_one();
        }
        self.tell_followers(changed);
        answer
    }

    /// True if, as far as this node keeps the names, `actor` may still act under that one.
    pub(crate) fn may_bear(&self, name: &str, actor: &ActorAddress) -> bool {
        let own = self.own.lock();
        own.holder(name).is_some_and(|found| found.node == actor.node && found.actor == actor.actor)
    }

    /// Answers with the members of `group` as soon as they are others than in the version `known`.
    pub(crate) async fn serve_follower(self: Arc<Self>, from: NodeId, group: GroupName, known: Option<u64>) -> Answer {
        let mut changes = {
            let mut followers = self.followers.lock();
            followers.retain(|_, told| told.receiver_count() > 0);
            followers.entry(group.clone()).or_default().subscribe()
        };
        loop {
            match self.serve(&from, Request::Members { group: group.clone() }) {
                Answer::Members(members) if known == Some(members.version) => {}
                answer => return answer,
            }
            // The sender stays as long as anybody listens.
            if changes.changed().await.is_err() {
                return Answer::Done;
            }
        }
    }

    fn tell_followers(&self, changed: BTreeSet<GroupName>) {
        if changed.is_empty() {
            return;
        }
        let told: Vec<watch::Sender<()>> = {
            let followers = self.followers.lock();
            changed.iter().filter_map(|group| followers.get(group).cloned()).collect()
        };
        for told in told {
            // Who has just gone needs no news.
            let _ = told.send(());
        }
    }

    /// A peer is gone, or silent.
    pub(crate) fn peer_lost(&self, peer: NodeUid) {
        self.own.lock().lost(peer);
    }

    /// A peer is known to be dead.
    pub(crate) fn peer_dead(&self, peer: NodeUid) {
        let changed = {
            let mut own = self.own.lock();
            own.dead(peer);
            own.take_changed_groups()
        };
        self.tell_followers(changed);
    }

    /// Frees what members held whose leases have run out. Runs as long as the node's control runtime.
    pub(crate) async fn look_after_leases(self: Arc<Self>) {
        loop {
            let (next, changed) = {
                let mut own = self.own.lock();
                own.tick(self.clock.now());
                (own.next_deadline().map(|at| self.clock.instant(at)), own.take_changed_groups())
            };
            self.tell_followers(changed);
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }
}
