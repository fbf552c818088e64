//! What the head answers. Who may ask for what has been checked: here it is done.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mobula_control::{
    ActorTable, AppendLog, BeginDriver, Certify, ClusterView, DriverBegun, HasExecutable, HeadFacts, ListActors, Peer,
    ReadLogs, Refusal, RenewDriver, Reply, Request, Service, SubmitJob, platform_of,
};
use mobula_core::cluster::{Executable, JobId, JobPhase, JobRow, Labels, Platform, Refused, UnixTime};
use mobula_core::{LeaseTimes, NodeUid, limits};
use mobula_identity::{Capability, Certified, Head as Identity, IdentityError};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::answers::{Answers, Looking, Trust, drives};
use crate::job_logs::JobLogs;
use crate::keeper::Keeper;
use crate::people::cut_off;
use crate::programs::{Needs, Programs};
use crate::questions::Questions;

/// The head, as those see it who ask.
pub(crate) struct HeadService {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) logs: Arc<JobLogs>,
    pub(crate) uid: NodeUid,
    pub(crate) started: UnixTime,
    pub(crate) times: LeaseTimes,
    /// Somebody was cut off.
    pub(crate) revoked: watch::Sender<()>,
    /// There may be other heads: nodes and drivers are told of them.
    pub(crate) has_others: bool,
    /// To the drivers of jobs.
    pub(crate) questions: Questions,
    /// Set once somebody has asked this node to stop.
    pub(crate) stop: watch::Sender<bool>,
}

impl Service for HeadService {
    async fn serve(&self, peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        let keeper = &self.keeper;
        let now = UnixTime::now();
        if self.is_cut_off(peer) {
            // A person is told so; a node that is not trusted any more hears nothing.
            return match peer.role().is_person() {
                true => reply.refuse(cut_off(peer)).await,
                false => Err(io::ErrorKind::ConnectionAborted.into()),
            };
        }
        match request {
            Request::View(_) => reply.answer::<mobula_control::View>(Ok(self.view().await)).await,
            Request::WatchView(_) => {
                let mut changes = keeper.views.subscribe();
                changes.mark_changed();
                self.answers()
                    .stream(peer, &mut reply, &mut changes, || Box::pin(async { Some((self.view().await, false)) }))
                    .await
            }
            Request::ListActors(list) => reply.answer::<ListActors>(self.actors(list).await).await,
            Request::WatchQuestions(watch) => {
                if let Err(refusal) = drives(peer, watch.job, watch.driver) {
                    return reply.refuse(refusal).await;
                }
                let mut changes = self.questions.changed.listen(watch.job);
                changes.mark_changed();
                let look = || -> Looking<'_, _> { Box::pin(async { Some((self.questions.of(watch.job), false)) }) };
                self.answers().stream(peer, &mut reply, &mut changes, look).await
            }
            Request::TellActors(tell) => {
                let drives = drives(peer, tell.job, tell.driver);
                let told = drives.map(|()| self.questions.told(tell.job, tell.question, tell.table));
                reply.answer::<mobula_control::TellActors>(told).await
            }
            Request::ReadLogs(read) => self.read_logs(peer, read, &mut reply).await,
            Request::CreateToken(create) => {
                let make = || self.identity.create_token(create.role, create.uses, create.ttl, now);
                let text = block_in_place(make).map(|token| token.expose().to_string()).map_err(|error| match error {
                    error @ IdentityError::Io { .. } => Refusal::Failed(error.to_string()),
                    error => Refusal::Invalid(error.to_string()),
                });
                reply.answer::<mobula_control::CreateToken>(text).await
            }
            Request::ListTokens(_) => reply.answer::<mobula_control::ListTokens>(Ok(self.identity.tokens(now))).await,
            Request::RevokeToken(revoke) => {
                let revoked = block_in_place(|| self.identity.revoke_token(revoke.token, now));
                let answer = revoked.map_err(|error| Refusal::Failed(error.to_string()));
                reply.answer::<mobula_control::RevokeToken>(answer).await
            }
            Request::RemoveNode(remove) => {
                reply.answer::<mobula_control::RemoveNode>(self.remove_node(remove.node, now).await).await
            }
            Request::StopNode(_) => {
                let answer = match peer.is_local() {
                    true => {
                        self.stop.send_replace(true);
                        Ok(())
                    }
                    false => {
                        Err(Refusal::Invalid("a node is stopped on its own host, or drained and removed".to_owned()))
                    }
                };
                reply.answer::<mobula_control::StopNode>(answer).await
            }
            Request::HasExecutable(HasExecutable { executable }) => {
                let has = self.programs.find(&executable).is_some();
                reply.answer::<HasExecutable>(Ok(has)).await
            }
            Request::PutExecutable(put) => {
                if put.part.offset == 0 {
                    self.need_programs().await;
                }
                let taken = self.programs.take_in(&put.executable, put.part).await;
                reply.answer::<mobula_control::PutExecutable>(taken).await
            }
            Request::GetExecutable(get) => {
                let part = self.programs.part(&get.executable, get.offset);
                reply.answer::<mobula_control::GetExecutable>(part).await
            }
            Request::SubmitJob(submit) => reply.answer::<SubmitJob>(self.submit(peer, submit).await).await,
            Request::BeginDriver(begin) => reply.answer::<BeginDriver>(self.begin_driver(peer, begin).await).await,
            Request::RenewDriver(renew) => {
                reply.answer::<mobula_control::RenewDriver>(self.renew_driver(peer, renew).await).await
            }
            Request::WatchRevocations(_) => {
                let mut changes = self.revoked.subscribe();
                changes.mark_changed();
                self.answers()
                    .stream(peer, &mut reply, &mut changes, || {
                        Box::pin(async { Some((self.identity.revocations(), false)) })
                    })
                    .await
            }
            Request::HeadNow(_) => {
                let facts = HeadFacts { now, version: env!("CARGO_PKG_VERSION").to_owned() };
                reply.answer::<mobula_control::HeadNow>(Ok(facts)).await
            }
            Request::ListHeads(_) => reply.answer::<mobula_control::ListHeads>(Ok(self.heads().await)).await,
            Request::Certify(certify) => reply.answer::<Certify>(self.certify(peer, certify).await).await,
            Request::AppendLog(append) => reply.answer::<AppendLog>(self.append_log(peer, append).await).await,
            Request::ListCredentials(_) => {
                let credentials = self.identity.credentials_of_people(now);
                reply.answer::<mobula_control::ListCredentials>(Ok(credentials)).await
            }
            Request::RevokeCredential(revoke) => {
                let revoked = self.revoke_credential(revoke.uid, now).await;
                reply.answer::<mobula_control::RevokeCredential>(revoked).await
            }
            // The rest is between the asker and the head's decisions.
            request => self.answers().serve(peer, request, reply).await,
        }
    }

    fn denied(&self, peer: &Peer, request: &'static str, needs: Capability) {
        tracing::warn!(role = %peer.role(), address = ?peer.address(), request, ?needs, "denied");
    }
}

impl Trust for HeadService {
    fn is_cut_off(&self, peer: &Peer) -> bool {
        let certified = peer.line().zip(peer.life());
        certified.is_some_and(|(line, life)| self.identity.goes_on(line, life).is_err())
    }

    fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    fn is_of_line(&self, line: NodeUid, earlier: NodeUid) -> bool {
        self.identity.is_of_line(line, earlier)
    }
}

impl HeadService {
    pub(crate) fn answers(&self) -> Answers<'_, Self> {
        Answers { keeper: &self.keeper, trust: self }
    }

    async fn view(&self) -> ClusterView {
        let cluster = self.identity.cluster().to_string();
        self.keeper
            .look(|head, now| {
                let mut view = ClusterView::new(head.revision(), cluster, self.uid, self.started);
                view.summary = head.summary();
                view.nodes = head.nodes(now);
                view.workers = head.workers();
                view.jobs = head.jobs();
                view.placement_groups = head.groups();
                view.now = UnixTime::now();
                view
            })
            .await
    }

    /// What the drivers of jobs say of their actors.
    async fn actors(&self, list: ListActors) -> Result<ActorTable, Refusal> {
        let jobs = self.keeper.look(|head, _| head.jobs()).await;
        if let Some(job) = list.job.filter(|job| jobs.iter().all(|row| row.id != *job)) {
            return Err(Refusal::Head(Refused::NoSuchJob { job }));
        }
        let is_asked = |row: &&JobRow| row.phase == JobPhase::Running && list.job.is_none_or(|job| row.id == job);
        let jobs = jobs.iter().filter(is_asked).map(|row| row.id).collect();
        Ok(self.questions.ask(jobs, list.limit, limits::ACTORS_TOLD_WITHIN).await)
    }

    /// Where heads are, if there are several: nodes with that label.
    async fn heads(&self) -> Vec<SocketAddr> {
        if !self.has_others {
            return Vec::new();
        }
        let nodes = self.keeper.look(|head, now| head.nodes(now)).await;
        let mut heads: Vec<_> = nodes
            .iter()
            .filter(|node| node.death.is_none() && node.labels.get(Labels::HEAD).is_some())
            .filter_map(|node| Some((node.uid != self.uid, node.address.parse().ok()?)))
            .collect();
        // This one first.
        heads.sort();
        heads.into_iter().map(|(_, address)| address).collect()
    }

    /// Looks after what is on this host's disk for the jobs, before anybody is answered.
    pub(crate) async fn take_up_files(&self) {
        let known = self.known_jobs().await;
        block_in_place(|| self.logs.keep_only(|job| known.contains(&job)));
        self.need_programs().await;
    }

    /// A job has begun. The logs of jobs that the head has forgotten for it go with them.
    async fn job_begun(&self) {
        self.need_programs().await;
        let known = self.known_jobs().await;
        let logs = Arc::clone(&self.logs);
        // One that has begun since then is later than all of these.
        let is_kept = move |job| known.contains(&job) || known.last().is_none_or(|newest| job > *newest);
        let _ = tokio::task::spawn_blocking(move || logs.keep_only(is_kept)).await;
    }

    async fn known_jobs(&self) -> BTreeSet<JobId> {
        self.keeper.look(|head, _| head.jobs().iter().map(|job| job.id).collect()).await
    }

    /// The programs of jobs that are not over stay.
    async fn need_programs(&self) {
        let needed: Vec<_> = self.keeper.look(|head, _| head.executables().collect()).await;
        self.programs.need(Needs::Head, needed);
    }

    /// Keeps what a process of a job has printed. That is the word of the node that has it, or had it, and of nobody else.
    async fn append_log(&self, peer: &Peer, append: AppendLog) -> Result<(), Refusal> {
        let AppendLog { node, job, part } = append;
        peer.must_be(node)?;
        let allowed = self.keeper.look(|head, _| match head.may_print(node, job, &part.source) {
            true => Ok(()),
            false if head.job(job).is_none() => Err(Refusal::Head(Refused::NoSuchJob { job })),
            false => Err(Refusal::Unauthorized {
                role: peer.role().to_string(),
                what: format!("say what this process of {job} prints"),
                needed: "the node does that has it, or had it".to_owned(),
            }),
        });
        allowed.await?;
        let failed = |error: io::Error| Refusal::Failed(format!("the output cannot be kept: {error}"));
        if block_in_place(|| self.logs.append(job, node, part, self.keeper.term)).map_err(failed)? {
            let over: Vec<_> = self.keeper.look(|head, _| head.jobs_over().collect()).await;
            // This part is kept, whatever comes of it.
            if let Err(error) = block_in_place(|| self.logs.make_room(&over)) {
                tracing::error!(%error, "what jobs have printed takes more room than it may");
            }
        }
        Ok(())
    }

    async fn submit(&self, peer: &Peer, submit: SubmitJob) -> Result<JobId, Refusal> {
        if self.programs.find(&submit.executable).is_none() {
            return Err(Refusal::NotFound { what: format!("program {}: hand it in first", submit.executable.hash) });
        }
        let platform = self.platform(&submit.executable)?;
        let job = self.answers().submit(peer, submit, platform).await?;
        self.job_begun().await;
        Ok(job)
    }

    /// What a program was built for; nothing is known of one that is not here.
    fn platform(&self, executable: &Executable) -> Result<Option<Platform>, Refusal> {
        let Some(path) = self.programs.find(executable) else { return Ok(None) };
        let platform = block_in_place(|| platform_of(&path));
        platform.map_err(|why| Refusal::Invalid(format!("the program {} cannot run: {why}", executable.hash)))
    }

    async fn begin_driver(&self, peer: &Peer, begin: BeginDriver) -> Result<DriverBegun, Refusal> {
        let (csr, is_new) = (begin.csr.clone(), begin.submitted.is_none());
        let platform = if is_new { self.platform(&begin.executable)? } else { None };
        let (job, uid) = self.answers().begin_driver(peer, begin, platform).await?;
        if is_new {
            self.job_begun().await;
            if self.is_cut_off(peer) {
                return Err(cut_off(peer));
            }
        }
        let certified = self.certificate(&csr, uid, job)?;
        Ok(DriverBegun { job, uid, certified, times: self.times, heads: self.heads().await })
    }

    async fn renew_driver(&self, peer: &Peer, renew: RenewDriver) -> Result<Certified, Refusal> {
        let RenewDriver { job, driver, csr } = renew;
        drives(peer, job, driver)?;
        // Only for one that lives.
        self.keeper.decide(|head, moment| head.driver_beat(job, driver, moment)).await?;
        self.certificate(&csr, driver, job)
    }

    /// For a process of a job. Whoever calls knows that it is one.
    fn certificate(&self, csr: &[u8], process: NodeUid, job: JobId) -> Result<Certified, Refusal> {
        let certified = self.identity.certify(csr, process, &job.to_string(), UnixTime::now());
        certified.map_err(|refusal| Refusal::Invalid(refusal.to_string()))
    }

    async fn certify(&self, peer: &Peer, certify: Certify) -> Result<Certified, Refusal> {
        peer.must_be(certify.node)?;
        let wanted = self.keeper.look(|head, _| head.assignment(certify.node)).await;
        let job = wanted.and_then(|assignment| {
            let worker = assignment.workers.iter().find(|spec| spec.uid == certify.process).map(|spec| spec.job);
            worker.or_else(|| assignment.drivers.iter().find(|spec| spec.uid == certify.process).map(|spec| spec.job))
        });
        let Some(job) = job else {
            return Err(Refusal::NotFound { what: format!("process {} that is wanted on this node", certify.process) });
        };
        self.certificate(&certify.csr, certify.process, job)
    }

    async fn read_logs(&self, peer: &Peer, read: ReadLogs, reply: &mut Reply<'_>) -> io::Result<()> {
        let ReadLogs { job, follow, after } = read;
        let is_over = async || self.keeper.look(|head, _| head.job(job).map(|row| row.phase.is_over())).await;
        if is_over().await.is_none() {
            return reply.refuse(Refusal::Head(Refused::NoSuchJob { job })).await;
        }
        let mut changes = self.keeper.jobs.listen(job);
        let mut reader = block_in_place(|| self.logs.read(job, after))?;
        loop {
            // Before what there is has been read: what comes after it is the end.
            let is_last = !follow || is_over().await.unwrap_or(true);
            while let Some(part) = block_in_place(|| self.logs.next(job, &mut reader))? {
                reply.item(&part).await?;
            }
            if is_last {
                return reply.end().await;
            }
            tokio::select! {
                () = reader.more() => {}
                _ = changes.changed() => {}
                () = reply.gone() => return Err(io::ErrorKind::UnexpectedEof.into()),
                () = self.until_cut_off(peer) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

/// The life that has asked for a job; none for a process on the head's host.
pub(crate) fn life_of_submitter(row: &JobRow) -> Option<NodeUid> {
    let (_, life) = row.submitter.split_once(' ')?;
    u64::from_str_radix(life, 16).ok().map(NodeUid)
}
