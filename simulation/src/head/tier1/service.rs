//! What the head answers: the real answers, and what takes files and certificates in reality made up.

use std::io;
use std::sync::Arc;

use mobula_control::{
    BeatNode, BeginDriver, DriverBegun, Peer, Refusal, Register, RemoveNode, Reply, Request, Service, SubmitJob,
};
use mobula_core::cluster::UnixTime;
use mobula_core::{LeaseTimes, NodeUid};
use mobula_daemon::private::{Answers, Keeper, Trust};
use mobula_identity::Certified;
use tokio::sync::watch;

use super::reach::Branch;
use super::state;

/// The head, as those see it who ask.
pub(super) struct HeadService {
    pub(super) keeper: Arc<Keeper>,
    pub(super) revoked: watch::Sender<()>,
}

impl Trust for HeadService {
    fn is_cut_off(&self, peer: &Peer) -> bool {
        peer.life().is_some_and(state::is_cut_off)
    }

    fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    fn is_of_line(&self, line: NodeUid, earlier: NodeUid) -> bool {
        state::is_of_line(line, earlier)
    }
}

impl Service for HeadService {
    async fn serve(&self, peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        if self.is_cut_off(peer) {
            state::reach(Branch::CutOff);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let answers = Answers { keeper: &self.keeper, trust: self };
        match request {
            Request::Register(register) => {
                let (uid, number) = (register.registration.uid, register.registration.number);
                let answer = answers.register(peer, register).await;
                state::said(uid, number, Branch::OldRegistration, answer.as_ref().err());
                reply.answer::<Register>(answer).await
            }
            Request::BeatNode(beat) => {
                let answer = answers.beat(peer, &beat).await;
                state::said(beat.node, beat.beat.number, Branch::OldBeat, answer.as_ref().err());
                reply.answer::<BeatNode>(answer).await
            }
            Request::SubmitJob(submit) => {
                let answer = answers.submit(peer, submit, None).await;
                answer.iter().for_each(|job| state::job_made(*job, false));
                reply.answer::<SubmitJob>(answer).await
            }
            Request::BeginDriver(begin) => {
                let answer = self.begin_driver(&answers, peer, begin).await;
                reply.answer::<BeginDriver>(answer).await
            }
            Request::RemoveNode(RemoveNode { node }) => {
                let answer = self.keeper.decide(|head, moment| head.remove(node, moment)).await;
                reply.answer::<RemoveNode>(answer).await
            }
            request => answers.serve(peer, request, reply).await,
        }
    }
}

impl HeadService {
    async fn begin_driver(
        &self,
        answers: &Answers<'_, Self>,
        peer: &Peer,
        begin: BeginDriver,
    ) -> Result<DriverBegun, Refusal> {
        let (job, uid) = answers.begin_driver(peer, begin, None).await?;
        state::job_made(job, true);
        let certified = Certified { certificate: Vec::new(), authority: Vec::new(), until: UnixTime::default() };
        Ok(DriverBegun { job, uid, certified, times: LeaseTimes::default(), heads: Vec::new() })
    }
}
