//! Processes of a job that have met: a reference to an actor in one of them may be sent to the other.

use std::time::Duration;

use mobula_actors::Node;
use mobula_core::NodeId;

/// So long processes have to connect to another one before actors there are used all the same.
const MEETING: Duration = Duration::from_secs(5);

/// Waits until the first of each pair is connected to the second, or for [`MEETING`] altogether: of those that are not in time, which may be frozen,
/// references have errors to tell for a while. Gives the pairs that are. Cancel-safe.
pub(crate) async fn met(node: &Node, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) -> Vec<(NodeId, NodeId)> {
    let asked = pairs.into_iter().map(async |(process, peer)| {
        let there = tokio::time::timeout(MEETING, node.await_peer(&process, &peer, MEETING)).await;
        if matches!(there, Ok(Ok(true))) {
            return Some((process, peer));
        }
        tracing::debug!(%process, %peer, "one process of the job is not connected to the other yet");
        None
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}
