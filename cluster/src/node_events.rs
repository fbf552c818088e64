//! The stream of what becomes of the nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt};
use parking_lot::Mutex;

use crate::members::{Members, NodeInfo};

/// What becomes of the nodes, see [`Cluster::watch_nodes`](crate::Cluster::watch_nodes).
/// # Cancel safety
/// Dropping it ends the subscription.
pub struct NodeEvents(BoxStream<'static, NodeInfo>);

impl NodeEvents {
    pub(crate) fn of(members: &Arc<Mutex<Members>>) -> Self {
        let mut changes = members.lock().subscribe();
        // The first look is now.
        changes.mark_changed();
        let state = (Arc::clone(members), changes, Vec::new());
        let looks = futures::stream::unfold(state, |(members, mut changes, known): (_, _, Vec<NodeInfo>)| async move {
            changes.changed().await.ok()?;
            let now = members.lock().nodes();
            let news: Vec<NodeInfo> = now.iter().filter(|node| !known.contains(node)).cloned().collect();
            Some((futures::stream::iter(news), (members, changes, now)))
        });
        NodeEvents(looks.flatten().boxed())
    }
}

impl Stream for NodeEvents {
    type Item = NodeInfo;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NodeInfo>> {
        self.0.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for NodeEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeEvents")
    }
}
