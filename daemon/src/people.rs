//! People who are cut off: they are told so, what they follow ends, and so do the drivers that they have begun.

use mobula_control::{Peer, Refusal};
use mobula_core::NodeUid;
use mobula_core::cluster::{Refused, UnixTime};
use tokio::task::block_in_place;

use crate::service::{HeadService, life_of_submitter};

impl HeadService {
    /// Cuts a person off; false if there is none. The drivers that it has begun are cut off as well, and their jobs end: what holds their certificates is
    /// not trusted either. Jobs whose drivers run on the cluster go on. If a part of it fails, the same again does the rest.
    pub(crate) async fn revoke_credential(&self, uid: NodeUid, now: UnixTime) -> Result<bool, Refusal> {
        let revoked = block_in_place(|| self.identity.revoke_credential(uid, now));
        if !revoked.map_err(|error| Refusal::Failed(error.to_string()))? && !self.identity.is_revoked(uid) {
            return Ok(false);
        }
        self.revoked.send_replace(());
        self.end_drivers_of(|life| life == uid).await?;
        Ok(true)
    }

    /// A head that begins does what the one before may have left undone for people who were cut off.
    pub(crate) async fn end_drivers_of_the_revoked(&self) {
        if let Err(error) = self.end_drivers_of(|life| self.identity.is_revoked(life)).await {
            tracing::error!(%error, "a job goes on whose driver is cut off; `mobula job stop` ends it");
        }
    }

    /// Cuts off the drivers outside the cluster that these people have begun, and ends their jobs: as many as can be.
    async fn end_drivers_of(&self, is_theirs: impl Fn(NodeUid) -> bool) -> Result<(), Refusal> {
        // Who begins a driver at this moment finds itself cut off, or is found here.
        let theirs = self.keeper.look(|head, _| {
            let outside = head.jobs().into_iter().filter(|row| row.driver_node.is_none());
            let theirs = outside.filter(|row| life_of_submitter(row).is_some_and(&is_theirs));
            theirs.filter_map(|row| Some((row.id, row.driver?, row.phase.is_over()))).collect::<Vec<_>>()
        });
        let theirs = theirs.await;
        // Also of jobs that are over: a certificate outlives the job.
        theirs.iter().for_each(|(_, driver, _)| self.keeper.cut_off(*driver));
        let mut ended = Ok(());
        for (job, ..) in theirs.into_iter().filter(|(.., is_over)| !is_over) {
            match self.keeper.decide(|head, moment| head.stop_job(job, moment)).await {
                Ok(_) | Err(Refusal::Head(Refused::NoSuchJob { .. })) => {}
                Err(refusal) => {
                    tracing::error!(%job, %refusal, "this job of a person who is cut off was not stopped");
                    ended = ended.and(Err(refusal));
                }
            }
        }
        ended
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
