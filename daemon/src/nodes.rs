//! How the head removes a node.

use mobula_control::Refusal;
use mobula_core::NodeUid;
use mobula_core::cluster::{NodePhase, Refused, UnixTime};
use mobula_head::Head;
use tokio::task::block_in_place;

use crate::service::HeadService;

impl HeadService {
    /// Cuts a node off. One that is down already could come back: not any more.
    pub(crate) async fn remove_node(&self, node: NodeUid, now: UnixTime) -> Result<(), Refusal> {
        let is_down = match self.keeper.look(|head, _| head.phase_of(node)).await {
            None => return Err(Refusal::Head(Refused::NoSuchNode { uid: node })),
            Some(NodePhase::Down) if self.identity.is_revoked(node) => {
                return Err(Refusal::Head(Refused::NoSuchNode { uid: node }));
            }
            Some(phase) => phase == NodePhase::Down,
        };
        // Before the head is done with it, or it could come back in between.
        let revoke = |head: &Head, _| {
            // Lives that it may have in hand, which never came to this head as nodes.
            let unseen =
                |before, newest| head.phase_of(newest).is_none() && (before == node || head.phase_of(before).is_none());
            block_in_place(|| self.identity.revoke_node_and(node, unseen, now))
        };
        let revoked = self.keeper.look(revoke).await;
        self.revoked.send_replace(());
        if !is_down {
            self.keeper.decide(|head, moment| head.remove(node, moment)).await?;
        }
        revoked.map_err(|error| Refusal::Failed(error.to_string()))
    }
}
