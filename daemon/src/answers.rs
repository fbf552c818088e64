//! What the head answers out of its decisions alone. Who may ask for what has been checked by the asker's role.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{
    BeatNode, BeginDriver, GetLaunch, HoldName, Peer, Refusal, Register, ReleaseName, Reply, Request, SubmitJob,
};
use mobula_core::NodeUid;
use mobula_core::cluster::{
    BeatAnswer, DriverStatus, JobId, JobKind, NewJob, Place, Placed, Placing, Platform, Refused, Registered,
    Registration, WorkerPolicy,
};
use mobula_head::Head;
use mobula_identity::{Capability, Role};
use tokio::sync::watch;

use crate::keeper::Keeper;

/// What is known of those who ask beside their certificates.
pub trait Trust: Send + Sync {
    /// True if the peer was removed from the cluster, or has come back as another life: it hears nothing more.
    fn is_cut_off(&self, peer: &Peer) -> bool;
    /// Changes when somebody was cut off.
    fn revoked(&self) -> watch::Receiver<()>;
    /// True if `earlier` was a life of that line.
    fn is_of_line(&self, line: NodeUid, earlier: NodeUid) -> bool;

    /// Resolves when the peer was removed from the cluster. Cancel-safe.
    fn until_cut_off(&self, peer: &Peer) -> impl Future<Output = ()> + Send {
        async {
            let mut revoked = self.revoked();
            while !self.is_cut_off(peer) {
                // It is not dropped before this is.
                let _ = revoked.changed().await;
            }
        }
    }
}

/// Answers with a head's decisions.
pub struct Answers<'a, T> {
    /// The head.
    pub keeper: &'a Arc<Keeper>,
    /// Whom it trusts.
    pub trust: &'a T,
}

/// Something that is looked at again and again; true with the last of it.
pub(crate) type Looking<'a, I> = Pin<Box<dyn Future<Output = Option<(I, bool)>> + Send + 'a>>;

impl<T: Trust> Answers<'_, T> {
    /// Answers what takes nothing but decisions, and refuses the rest as unknown.
    ///
    /// # Errors
    /// As for [`Service::serve`](mobula_control::Service::serve).
    pub async fn serve(&self, peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        let keeper = self.keeper;
        match request {
            Request::ListLeases(_) => {
                let leases = keeper.look(|head, _| head.leases()).await;
                reply.answer::<mobula_control::ListLeases>(Ok(leases)).await
            }
            Request::DrainNode(drain) => {
                let answer = keeper.decide(|head, moment| head.drain(drain.node, drain.within, moment)).await;
                reply.answer::<mobula_control::DrainNode>(answer).await
            }
            Request::StopJob(stop) => {
                let stopped = match self.may_stop(peer, stop.job).await {
                    Ok(()) => keeper.decide(|head, moment| head.stop_job(stop.job, moment)).await.map(drop),
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::StopJob>(stopped).await
            }
            Request::BeatDriver(beat) => {
                let answer = match drives(peer, beat.job, beat.driver) {
                    Ok(()) => {
                        keeper.decide(|head, moment| head.driver_beat(beat.job, beat.driver, moment)).await.map(drop)
                    }
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::BeatDriver>(answer).await
            }
            Request::EndDriver(end) => {
                let answer = match drives(peer, end.job, end.driver) {
                    Ok(()) => {
                        keeper.decide(|head, moment| head.driver_ended(end.job, end.driver, end.status, moment)).await
                    }
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::EndDriver>(answer).await
            }
            Request::WatchJob(watch) => {
                // Nodes tell the workers that they have started about each other.
                let is_node = peer.may(Capability::BeANode);
                let is_guest = match peer.job() {
                    Some(job) => keeper.look(|head, _| head.may_call(job, watch.job)).await,
                    None => false,
                };
                let allowed = if is_node || is_guest { Ok(()) } else { peer.must_be_of(&watch.job.to_string()) };
                if let Err(refusal) = allowed {
                    return reply.refuse(refusal).await;
                }
                let mut changes = keeper.jobs.listen(watch.job);
                changes.mark_changed();
                let look = || -> Looking<'_, _> {
                    Box::pin(async {
                        let view = keeper.look(|head, _| head.job_view(watch.job)).await?;
                        let is_over = view.phase.is_over();
                        Some((view, is_over))
                    })
                };
                self.stream(peer, &mut reply, &mut changes, look).await
            }
            Request::ListNodes(list) => {
                let nodes = match peer.must_be_of(&list.job.to_string()) {
                    Ok(()) => Ok(keeper.look(|head, now| head.nodes(now)).await),
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::ListNodes>(nodes).await
            }
            Request::PlaceLease(place) => {
                let answer = match peer.must_be_of(&place.place.lease.job.to_string()) {
                    Ok(()) => self.place(place.place).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::PlaceLease>(answer).await
            }
            Request::ReleaseLease(release) => {
                let answer = match peer.must_be_of(&release.lease.job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.release(release.lease, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::ReleaseLease>(answer).await
            }
            Request::CreateGroup(create) => {
                let answer = match peer.must_be_of(&create.group.group.job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.create_group(create.group, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::CreateGroup>(answer).await
            }
            Request::RemoveGroup(remove) => {
                let answer = match peer.must_be_of(&remove.group.job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.remove_group(remove.group, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::RemoveGroup>(answer).await
            }
            Request::Register(register) => reply.answer::<Register>(self.register(peer, register).await).await,
            Request::BeatNode(beat) => reply.answer::<BeatNode>(self.beat(peer, &beat).await).await,
            Request::LeaveNode(leave) => {
                let answer = match peer.must_be(leave.node) {
                    Ok(()) => keeper.leave(leave.node).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::LeaveNode>(answer).await
            }
            Request::WatchAssignment(watch) => {
                if let Err(refusal) = peer.must_be(watch.node) {
                    return reply.refuse(refusal).await;
                }
                let mut changes = keeper.nodes.listen(watch.node);
                changes.mark_changed();
                let look = || -> Looking<'_, _> {
                    Box::pin(async { Some((keeper.look(|head, _| head.assignment(watch.node)).await?, false)) })
                };
                self.stream(peer, &mut reply, &mut changes, look).await
            }
            Request::WorkerEnded(ended) => {
                let answer = match peer.must_be(ended.node) {
                    Ok(()) => self.process_ended(ended.node, ended.process, ended.status).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::WorkerEnded>(answer).await
            }
            Request::ListDetached(_) => {
                let detached = keeper.look(|head, _| head.detached()).await;
                reply.answer::<mobula_control::ListDetached>(Ok(detached)).await
            }
            Request::OpenKeeper(open) => {
                let answer = match peer.must_be_of(&open.job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.open_keeper(open.job, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::OpenKeeper>(answer).await
            }
            Request::FindDetached(find) => {
                let answer = match peer.must_be_of(&find.job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.find_detached(find.job, &find.name, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::FindDetached>(answer).await
            }
            Request::HoldName(hold) => {
                let HoldName { job, number, name } = hold;
                let answer = match peer.must_be_of(&job.to_string()) {
                    Ok(()) => keeper.decide(|head, moment| head.hold_name(job, number, &name, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<HoldName>(answer).await
            }
            Request::ReleaseName(ReleaseName { job, number }) => {
                let release = |head: &mut Head, moment| {
                    head.release_name(job, number, moment);
                    Ok(())
                };
                let answer = match peer.must_be_of(&job.to_string()) {
                    Ok(()) => keeper.decide(release).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<ReleaseName>(answer).await
            }
            Request::CloseKeeper(close) => {
                let answer = match drives(peer, close.job, close.driver) {
                    Ok(()) => keeper.decide(|head, moment| head.close_keeper(close.job, close.driver, moment)).await,
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<mobula_control::CloseKeeper>(answer).await
            }

            Request::GetLaunch(GetLaunch { node, job }) => {
                let launch = match peer.must_be(node) {
                    Ok(()) => keeper.look(|head, _| head.launch(node, job)).await.ok_or_else(|| Refusal::NotFound {
                        what: format!("process of {job} that is wanted on this node"),
                    }),
                    Err(refusal) => Err(refusal),
                };
                reply.answer::<GetLaunch>(launch).await
            }
            _ => reply.refuse(Refusal::Invalid("this head does not know the request".to_owned())).await,
        }
    }

    /// A node comes in, or is heard of again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn register(&self, peer: &Peer, register: Register) -> Result<Registered, Refusal> {
        let proven = self.proven(peer, register.registration)?;
        self.keeper.decide(|head, moment| head.register_node(proven, moment)).await
    }

    /// A node lives.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn beat(&self, peer: &Peer, beat: &BeatNode) -> Result<BeatAnswer, Refusal> {
        peer.must_be(beat.node)?;
        self.keeper.decide(|head, moment| head.beat(beat.node, &beat.beat, moment)).await
    }

    /// A job whose driver is to run on the cluster, of a program for that platform, if that is known.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn submit(&self, peer: &Peer, submit: SubmitJob, platform: Option<Platform>) -> Result<JobId, Refusal> {
        let new = NewJob {
            request: submit.request,
            kind: JobKind::OnCluster { resources: submit.resources },
            entrypoint: submit.entrypoint,
            executable: submit.executable,
            arguments: submit.arguments,
            environment: submit.environment,
            submitter: submitter(peer),
            workers: WorkerPolicy::EveryNode,
            platform,
        };
        Ok(self.keeper.decide(|head, moment| head.create_job(new, moment)).await?.id)
    }

    /// A driver sees the job that was submitted, or there is a job now for a driver outside: which one, and the driver's life.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn begin_driver(
        &self,
        peer: &Peer,
        begin: BeginDriver,
        platform: Option<Platform>,
    ) -> Result<(JobId, NodeUid), Refusal> {
        if let Some((job, driver)) = begin.submitted {
            self.keeper.decide(|head, moment| head.attach_driver(job, driver, moment)).await?;
            return Ok((job, driver));
        }
        let driver = NodeUid(self.keeper.chance());
        let new = NewJob {
            request: begin.request,
            kind: JobKind::Outside { driver },
            entrypoint: begin.entrypoint,
            executable: begin.executable,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            submitter: submitter(peer),
            workers: WorkerPolicy::EveryNode,
            platform,
        };
        let row = self.keeper.decide(|head, moment| head.create_job(new, moment)).await?;
        // Asked again, it is the driver that was drawn the first time.
        Ok((row.id, row.driver.unwrap_or(driver)))
    }

    /// Sends what `look` sees, now and after each change, until it sees nothing or the last of it, or the asker goes.
    pub(crate) async fn stream<'l, I: serde::Serialize>(
        &self,
        peer: &Peer,
        reply: &mut Reply<'_>,
        changes: &mut watch::Receiver<impl Send + Sync>,
        mut look: impl FnMut() -> Looking<'l, I>,
    ) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return reply.end().await },
                () = reply.gone() => return Err(io::ErrorKind::UnexpectedEof.into()),
                () = self.trust.until_cut_off(peer) => {}
            }
            if self.trust.is_cut_off(peer) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let seen = look().await;
            if self.keeper.is_broken() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match seen {
                Some((item, is_last)) => {
                    reply.item(&item).await?;
                    if is_last {
                        return reply.end().await;
                    }
                }
                None => return reply.end().await,
            }
        }
    }

    /// Who has submitted a job may stop it, and who manages all jobs.
    async fn may_stop(&self, peer: &Peer, job: JobId) -> Result<(), Refusal> {
        let own = submitter(peer);
        let is_own = self.keeper.look(|head, _| head.job(job).is_some_and(|row| row.submitter == own)).await;
        if is_own { Ok(()) } else { peer.must_be_of(&job.to_string()) }
    }

    /// Waits until the head has a place, the time is over, or there never will be one.
    async fn place(&self, place: Place) -> Result<Placed, Refusal> {
        let mut news = self.keeper.leases.listen(place.lease);
        loop {
            let asked = place.clone();
            match self.keeper.decide(|head, moment| head.place(asked, moment)).await? {
                Placing::Placed(placed) => return Ok(placed),
                _ => {
                    // If the news got lost, the time of the request ends the wait.
                    let _ = tokio::time::timeout(Duration::from_secs(1), news.changed()).await;
                }
            }
        }
    }

    async fn process_ended(&self, node: NodeUid, process: NodeUid, status: DriverStatus) -> Result<(), Refusal> {
        let job = self.keeper.look(|head, _| {
            let assignment = head.assignment(node)?;
            assignment.drivers.iter().find(|spec| spec.uid == process).map(|spec| spec.job)
        });
        match job.await {
            Some(job) => {
                let ended = self.keeper.decide(|head, moment| head.driver_ended(job, process, status, moment)).await;
                match ended {
                    Err(Refusal::Head(Refused::NoSuchJob { .. } | Refused::NotTheDriver { .. })) => Ok(()),
                    ended => ended,
                }
            }
            None => {
                let reason = match status {
                    DriverStatus::Failed { reason } => reason,
                    _ => "it ended".to_owned(),
                };
                self.keeper.worker_ended(process, &reason).await
            }
        }
    }

    /// A registration, as far as the peer can prove it. That an earlier life is dead is believed of a life of the same line, and of who has the authority's
    /// key anyway; the name of any other is free when its lease is over.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] for one of another life.
    pub(crate) fn proven(&self, peer: &Peer, registration: Registration) -> Result<Registration, Refusal> {
        peer.must_be(registration.uid)?;
        let is_of_the_head = peer.is_local() || peer.role() == Role::Head;
        let is_its_own = |earlier| peer.line().is_some_and(|line| self.trust.is_of_line(line, earlier));
        let replaces = registration.replaces.filter(|earlier| is_of_the_head || is_its_own(*earlier));
        Ok(Registration { replaces, ..registration })
    }
}

/// A process of the job with that life, or whoever manages all jobs.
pub(crate) fn drives(peer: &Peer, job: JobId, life: NodeUid) -> Result<(), Refusal> {
    peer.must_be_of(&job.to_string())?;
    if peer.may(Capability::ManageJobs) { Ok(()) } else { peer.must_be(life) }
}

/// Who asks, as its connection has proven it.
pub(crate) fn submitter(peer: &Peer) -> String {
    match peer.life() {
        None => "local".to_owned(),
        Some(life) => format!("{} {life}", peer.role()),
    }
}
