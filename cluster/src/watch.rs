//! Watches the other nodes: who is silent is suspected, whose connection ends is lost, whose process is reaped is dead.

use std::future::Future;
use std::sync::Arc;

use mobula_actors::Node;
use mobula_core::NodeId;
use parking_lot::Mutex;

use crate::members::Members;

/// Watches `member` until it is down. `ended` resolves when its process has been reaped, where this process started it.
pub(crate) fn watch(
    node: &Node,
    members: &Arc<Mutex<Members>>,
    member: &NodeId,
    ended: Option<impl Future<Output = String> + Send + 'static>,
) {
    // A later node may connect to this one only after it has been named as a member.
    if member != node.id() {
        let opened = node.control_link_opened(member);
        let (members, member) = (Arc::clone(members), member.clone());
        // The end of a link, which comes back where it can, is the end of its peer, as far as calls are concerned. It proves
        // nothing: the peer keeps its names until its lease is over.
        node.control_runtime().spawn(async move {
            let Some((node, link)) = opened.await else { return };
            let times = node.lease_times();
            let mut looks = tokio::time::interval(times.heartbeat);
            let closed = link.closed();
            tokio::pin!(closed);
            let closed = loop {
                tokio::select! {
                    closed = &mut closed => break closed,
                    _ = looks.tick() => {
                        let silence = mobula_transport::now().saturating_duration_since(link.heard());
                        members.lock().suspect(&member, silence >= times.suspect_after);
                    }
                }
            };
            members.lock().down(&member);
            match closed.quarantined {
                true => node.peer_quarantined(&member, &closed.reason),
                false => node.peer_lost(&member, &closed.reason),
            }
        });
    }
    if let Some(ended) = ended {
        let (node, members, member) = (node.clone(), Arc::clone(members), member.clone());
        node.clone().control_runtime().spawn(async move {
            let reason = ended.await;
            members.lock().down(&member);
            node.peer_dead(&member, &reason);
        });
    }
}
