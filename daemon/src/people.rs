//! People who are cut off: they are told so, what they follow ends, and so do the drivers that they have begun.

use mobula_control::{Peer, Refusal};
use mobula_core::NodeUid;
use mobula_core::cluster::UnixTime;
use tokio::task::block_in_place;

use crate::service::{HeadService, is_submitted_by};

impl HeadService {
    /// Resolves when the peer was removed from the cluster. Cancel-safe.
    pub(crate) async fn until_cut_off(&self, peer: &Peer) {
        let mut revoked = self.revoked.subscribe();
        while !self.is_cut_off(peer) {
            // It is not dropped before this is.
            let _ = revoked.changed().await;
        }
    }

    /// Cuts a person off; false if there is none. The drivers that it has begun are cut off as well, and their jobs end: what holds their certificates is
    /// not trusted either. Jobs whose drivers run on the cluster go on.
    pub(crate) async fn revoke_credential(&self, uid: NodeUid, now: UnixTime) -> Result<bool, Refusal> {
        let revoked = block_in_place(|| self.identity.revoke_credential(uid, now));
        if !revoked.map_err(|error| Refusal::Failed(error.to_string()))? {
            return Ok(false);
        }
        self.revoked.send_replace(());
        // Who begins a driver at this moment finds itself cut off, or is found here.
        let theirs = self.keeper.look(|head, _| {
            let jobs = head.jobs().into_iter().filter(|row| row.driver_node.is_none() && !row.phase.is_over());
            let theirs = jobs.filter(|row| is_submitted_by(row, uid));
            theirs.filter_map(|row| Some((row.id, row.driver?))).collect::<Vec<_>>()
        });
        for (job, driver) in theirs.await {
            self.keeper.cut_off(driver);
            self.keeper.decide(|head, moment| head.stop_job(job, moment)).await?;
        }
        Ok(true)
    }
}

/// What a person hears who is cut off.
pub(crate) fn cut_off(peer: &Peer) -> Refusal {
    Refusal::Unauthorized {
        role: peer.role().to_string(),
        what: "ask this cluster any more".to_owned(),
        needed: "its credential was revoked; a new login takes a new token".to_owned(),
    }
}
