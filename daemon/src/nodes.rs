//! Nodes, for the head: which of their lives is heard, what of a registration is proven, and how one is removed.

use mobula_control::{Peer, Refusal};
use mobula_core::NodeUid;
use mobula_core::cluster::{NodePhase, Refused, Registration, UnixTime};
use mobula_head::Head;
use mobula_identity::Role;
use tokio::task::block_in_place;

use crate::service::HeadService;

impl HeadService {
    /// True if the peer was removed from the cluster, or has come back as another life: it hears nothing more.
    pub(crate) fn is_cut_off(&self, peer: &Peer) -> bool {
        let certified = peer.line().zip(peer.life());
        certified.is_some_and(|(line, life)| self.identity.goes_on(line, life).is_err())
    }

    /// A registration, as far as the peer can prove it. That an earlier life is dead is believed of a life of the same line, and of who has the authority's
    /// key anyway; the name of any other is free when its lease is over.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] for one of another life.
    pub(crate) fn proven(&self, peer: &Peer, registration: Registration) -> Result<Registration, Refusal> {
        peer.must_be(registration.uid)?;
        let is_of_the_head = peer.is_local() || peer.role() == Role::Head;
        let is_its_own = |earlier| peer.line().is_some_and(|line| self.identity.is_of_line(line, earlier));
        let replaces = registration.replaces.filter(|earlier| is_of_the_head || is_its_own(*earlier));
        Ok(Registration { replaces, ..registration })
    }

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
