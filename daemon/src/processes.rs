//! What runs on this node: starts what the head wants and does not run yet, ends what runs and is not wanted.

use std::collections::HashMap;
use std::future::Future;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_cluster::private::{FollowedKeepers, driver_variable, live_workers};
use mobula_control::handover::{Keeper, Part, PeerWorker, Proof};
use mobula_control::{Certify, Client, ControlError, GetLaunch, WatchJob, WatchRevocations, WorkerEnded, follow};
use mobula_core::cluster::{
    Assignment, DriverSpec, DriverStatus, Executable, JobId, JobView, Labels, Launch, Resources, Revision, Running,
    RunningWorker, UnixTime, VISIBLE_DEVICES, WorkerSpec, visible_devices,
};
use mobula_core::{LeaseTimes, NodeId, NodeUid, limits};
use mobula_head::Printer;
use mobula_identity::{Certified, KeyRequest, Revocations, keep_renewed};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::agent::Hosted;
use crate::cgroup::Groups;
use crate::child::{self, Child, News};
use crate::output::Output;
use crate::programs::{Needs, Programs};

/// What a driver has after SIGTERM to end by itself.
const GRACE: Duration = Duration::from_secs(3);
/// What a worker that leaves takes beyond its time.
const LEAVE_MARGIN: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(200);
/// What a process has printed last is with the head before its end is: a head that is away, or a job that prints faster than it is heard, delays that no longer.
const SENT_WITHIN: Duration = Duration::from_secs(1);
/// For one try to tell the head of an end: its machine may have been off, and then no answer comes.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// What a node knows of itself.
pub(crate) struct NodeFacts {
    pub(crate) uid: NodeUid,
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    /// Task slots of each worker.
    pub(crate) cpus: u32,
    pub(crate) arbiters: usize,
    /// What it gives.
    pub(crate) resources: Resources,
    /// What is said of it.
    pub(crate) labels: Labels,
}

/// The processes of jobs on this node.
pub(crate) struct Processes {
    facts: NodeFacts,
    head: Arc<Client>,
    programs: Arc<Programs>,
    output: Output,
    groups: Groups,
    table: Mutex<Table>,
    /// As the head says.
    times: Mutex<LeaseTimes>,
    /// Who is cut off, as the head says.
    revoked: watch::Sender<Revocations>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    seen: Revision,
    fenced: bool,
    processes: HashMap<NodeUid, Entry>,
    jobs: HashMap<JobId, watch::Receiver<Peers>>,
}

struct Entry {
    job: JobId,
    executable: Executable,
    is_driver: bool,
    pid: Option<u32>,
    ready: bool,
    /// It is not wanted any more.
    unwanted: bool,
    /// It is for one actor alone.
    isolated: bool,
    child: Option<Arc<Child>>,
}

/// The job of a worker, as its peers see it.
#[derive(Clone, Default)]
struct Peers {
    driver: Option<NodeUid>,
    workers: Vec<PeerWorker>,
    /// Jobs whose detached actors it may call.
    keepers: Vec<Keeper>,
}

impl Processes {
    pub(crate) fn new(facts: NodeFacts, head: Arc<Client>, programs: Arc<Programs>, output: Output) -> Arc<Self> {
        let (table, times, revoked) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        let groups = Groups::open(&facts.home);
        Arc::new(Processes { facts, head, programs, output, groups, table, times, revoked, changed: Notify::new() })
    }

    /// Hears from the head who is cut off, for ever: the workers here talk to them no more.
    pub(crate) async fn hear_revocations(self: Arc<Self>) {
        follow(&self.head, WatchRevocations {}, |list| {
            list.into_iter().for_each(|list| drop(self.revoked.send_replace(list)));
            true
        })
        .await;
    }

    /// True if the head wants that driver here.
    pub(crate) fn drives(&self, driver: NodeUid, job: JobId) -> bool {
        let table = self.table.lock();
        table.processes.get(&driver).is_some_and(|entry| entry.is_driver && entry.job == job)
    }
}

impl Hosted for Processes {
    fn set_times(&self, times: LeaseTimes) {
        *self.times.lock() = times;
    }

    fn times(&self) -> LeaseTimes {
        *self.times.lock()
    }

    fn running(&self) -> Running {
        let table = self.table.lock();
        let of = |is_driver| table.processes.iter().filter(move |(_, entry)| entry.is_driver == is_driver);
        Running {
            seen: table.seen,
            workers: of(false)
                .map(|(uid, entry)| RunningWorker { uid: *uid, ready: entry.ready, pid: entry.pid.unwrap_or(0) })
                .collect(),
            drivers: of(true).map(|(uid, _)| *uid).collect(),
        }
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn is_idle(&self) -> bool {
        self.table.lock().processes.is_empty()
    }

    fn reconcile(self: &Arc<Self>, assignment: Assignment) {
        let mut table = self.table.lock();
        if table.fenced || assignment.revision < table.seen {
            return;
        }
        table.seen = assignment.revision;
        let is_wanted = |uid: &NodeUid| {
            assignment.workers.iter().any(|spec| spec.uid == *uid)
                || assignment.drivers.iter().any(|spec| spec.uid == *uid)
        };
        let goes_on = |job: JobId| assignment.workers.iter().any(|spec| spec.job == job && spec.isolated.is_none());
        for (uid, entry) in &mut table.processes {
            if !is_wanted(uid) && !entry.unwanted {
                entry.unwanted = true;
                if let Some(child) = &entry.child {
                    if assignment.draining && !entry.is_driver {
                        leave(child, entry.ready, "its node was drained");
                    } else if entry.isolated && goes_on(entry.job) {
                        // What its actor has answered last may still be on its way.
                        leave(child, entry.ready, "its only actor has ended");
                    } else {
                        finish(child, entry.is_driver);
                    }
                }
            }
        }
        for spec in assignment.workers {
            if table.enter(spec.uid, (spec.job, spec.executable), false, spec.isolated.is_some()) {
                let peers = self.peers_of(&mut table, spec.job);
                tokio::spawn(Arc::clone(self).run_worker(spec, peers));
            }
        }
        for spec in assignment.drivers {
            if table.enter(spec.uid, (spec.job, spec.executable), true, false) {
                tokio::spawn(Arc::clone(self).run_driver(spec));
            }
        }
        self.programs.need(Needs::Node, table.executables());
        drop(table);
        self.changed.notify_one();
    }

    /// Lets the workers end in order, for [`limits::LEAVE_WITHIN`] at most. Nothing more is started.
    async fn leave(&self, reason: &str) {
        {
            let mut table = self.table.lock();
            for entry in table.processes.values_mut().filter(|entry| !entry.is_driver) {
                entry.unwanted = true;
                if let Some(child) = &entry.child {
                    leave(child, entry.ready, reason);
                }
            }
        }
        let left = async {
            while self.table.lock().processes.values().any(|entry| !entry.is_driver) {
                self.changed.notified().await;
            }
        };
        let _ = tokio::time::timeout(limits::LEAVE_WITHIN + LEAVE_MARGIN, left).await;
    }

    fn fence(&self) {
        let mut table = self.table.lock();
        table.fenced = true;
        table.processes.values().filter_map(|entry| entry.child.as_ref()).for_each(|child| child.kill());
    }
}

impl Processes {
    /// Hands a connection to the process that it is for.
    pub(crate) fn connection(&self, target: NodeUid, stream: TcpStream) {
        let child = self.table.lock().processes.get(&target).and_then(|entry| entry.child.clone());
        match child {
            Some(child) => child.connection(stream),
            None => tracing::debug!(%target, "a connection to a process that is not here"),
        }
    }

    /// A certificate for a process that the head wants here.
    pub(crate) async fn certify(&self, process: NodeUid, csr: Vec<u8>) -> Result<Certified, ControlError> {
        self.head.ask(Certify { node: self.facts.uid, process, csr }).await
    }

    async fn run_worker(self: Arc<Self>, spec: WorkerSpec, peers: watch::Receiver<Peers>) {
        let (uid, job) = (spec.uid, spec.job);
        if let Err(reason) = self.start_worker(spec, peers).await {
            self.ended(uid, job, DriverStatus::Failed { reason }).await;
        }
    }

    async fn start_worker(self: &Arc<Self>, spec: WorkerSpec, mut peers: watch::Receiver<Peers>) -> Result<(), String> {
        let (launch, program) = self.launch(spec.uid, spec.job, &spec.executable).await?;
        let (proof, until) = self.prove(spec.uid).await?;
        let driver = match peers.wait_for(|peers| peers.driver.is_some()).await {
            Ok(peers) => peers.driver.unwrap_or(NodeUid(0)),
            Err(_) => return Err("its job is over".to_owned()),
        };
        let facts = &self.facts;
        let part = Part {
            id: NodeId::new(&facts.name, spec.uid),
            job: spec.job.to_string(),
            number: spec.order,
            driver: NodeId::new("driver", driver),
            cpus: if spec.isolated.is_some() { 1 } else { facts.cpus },
            host: facts.uid,
            resources: facts.resources.clone(),
            labels: facts.labels.clone(),
            arbiters: facts.arbiters,
            lease: self.times(),
            snapshots: launch.environment.get("MOBULA_SNAPSHOTS").cloned(),
            proof,
            isolated: spec.isolated.is_some(),
            keeper: spec.keeper,
        };
        let mut command = child::command(&program, &launch);
        if let Some(isolated) = &spec.isolated {
            let seen = std::env::var(VISIBLE_DEVICES).ok();
            command.env(VISIBLE_DEVICES, visible_devices(&isolated.gpus, seen.as_deref()));
        }
        let (tell, news) = tokio::sync::mpsc::unbounded_channel();
        let child = Child::worker(command, part, self.groups.make(spec.uid), move |event| drop(tell.send(event)))
            .map_err(|error| error.to_string())?;
        let source = Printer::Worker(spec.order).source(&facts.name);
        let child = Arc::new(child);
        // A program of an older version does not know what keepers are, and never has any.
        let told = Mutex::new(Vec::new());
        let tell_keepers = move |child: &Child, peers: &Peers| {
            let mut told = told.lock();
            let is_told = *told == peers.keepers || child.keepers(peers.keepers.clone());
            if is_told {
                told.clone_from(&peers.keepers);
            }
            is_told
        };
        tokio::spawn(pass_on(Arc::downgrade(&child), peers.clone(), tell_keepers));
        tokio::spawn(pass_on(Arc::downgrade(&child), peers, |child, peers| child.peers(peers.workers.clone())));
        tokio::spawn(pass_on(Arc::downgrade(&child), self.revoked.subscribe(), |child, list| {
            child.cut_off(list.clone())
        }));
        tokio::spawn(Arc::clone(self).renew_worker(Arc::downgrade(&child), spec.uid, source.clone(), until));
        self.look_after(child, spec.uid, spec.job, source, news);
        Ok(())
    }

    /// What a process of a job is started with, and its program.
    async fn launch(&self, process: NodeUid, job: JobId, program: &Executable) -> Result<(Launch, PathBuf), String> {
        let launch = || self.head.ask(GetLaunch { node: self.facts.uid, job });
        let launch = self.insist(process, launch).await?;
        let program = self.insist(process, || self.programs.get(program, &self.head)).await?;
        Ok((launch, program))
    }

    /// A head that is away comes back: until then it is asked again, as long as the process is wanted, since a driver has no second start.
    async fn insist<T, F: Future<Output = Result<T, ControlError>>>(
        &self,
        process: NodeUid,
        ask: impl Fn() -> F,
    ) -> Result<T, String> {
        loop {
            match ask().await {
                Err(error) if !error.is_final() && !self.is_unwanted(process) => tokio::time::sleep(RETRY).await,
                asked => return asked.map_err(|error| error.to_string()),
            }
        }
    }

    /// What proves who a process is that the head wants here, and how long.
    async fn prove(&self, process: NodeUid) -> Result<(Proof, UnixTime), String> {
        let key = KeyRequest::new().map_err(|error| error.to_string())?;
        let certified = self.certify(process, key.csr().to_vec()).await.map_err(|error| error.to_string())?;
        let until = certified.until;
        Ok((Proof::of(&key.complete(certified)), until))
    }

    /// A worker may live longer than its certificate.
    async fn renew_worker(self: Arc<Self>, child: Weak<Child>, uid: NodeUid, whose: String, until: UnixTime) {
        let renew = || async {
            if child.strong_count() == 0 {
                return Ok(None);
            }
            let (proof, until) = self.prove(uid).await?;
            match child.upgrade().map(|child| child.renew(proof)) {
                Some(false) => Err("it takes nothing that is handed to it".to_owned()),
                Some(true) => Ok(Some(until)),
                None => Ok(None),
            }
        };
        keep_renewed(&whose, until, renew).await;
    }

    async fn run_driver(self: Arc<Self>, spec: DriverSpec) {
        let (uid, job) = (spec.uid, spec.job);
        if let Err(reason) = self.start_driver(spec).await {
            self.ended(uid, job, DriverStatus::Failed { reason }).await;
        }
    }

    async fn start_driver(self: &Arc<Self>, spec: DriverSpec) -> Result<(), String> {
        let (launch, program) = self.launch(spec.uid, spec.job, &spec.executable).await?;
        let mut command = child::command(&program, &launch);
        let (name, value) = driver_variable(spec.job, spec.uid, spec.keeper);
        command.env(name, value).env("MOBULA_ADDRESS", &self.facts.home);
        let (tell, news) = tokio::sync::mpsc::unbounded_channel();
        let child = Child::driver(command, self.groups.make(spec.uid), move |event| drop(tell.send(event)))
            .map_err(|error| error.to_string())?;
        self.look_after(Arc::new(child), spec.uid, spec.job, Printer::Driver.source(&self.facts.name), news);
        Ok(())
    }

    /// Notes what becomes of a process, until it is reaped.
    fn look_after(
        self: &Arc<Self>,
        child: Arc<Child>,
        uid: NodeUid,
        job: JobId,
        source: String,
        mut news: tokio::sync::mpsc::UnboundedReceiver<News>,
    ) {
        let is_unwanted = {
            let mut table = self.table.lock();
            let fenced = table.fenced;
            let entry = table.processes.get_mut(&uid);
            entry.is_none_or(|entry| {
                entry.child = Some(Arc::clone(&child));
                entry.unwanted || fenced
            })
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut pipes = Vec::new();
            while let Some(event) = news.recv().await {
                match event {
                    News::Started { pid, stdout, stderr } => {
                        this.note(uid, |entry| entry.pid = Some(pid));
                        if is_unwanted || this.is_unwanted(uid) {
                            child.kill();
                        }
                        pipes.push(tokio::spawn(this.output.clone().follow(job, source.clone(), stdout)));
                        pipes.push(tokio::spawn(this.output.clone().follow(job, source.clone(), stderr)));
                    }
                    News::Ready => this.note(uid, |entry| entry.ready = true),
                    News::Ended(status) => {
                        // What it has printed last comes before its end; what it has left behind may hold the pipes open.
                        let printed = futures_all(std::mem::take(&mut pipes));
                        let _ = tokio::time::timeout(Duration::from_millis(200), printed).await;
                        let _ = tokio::time::timeout(SENT_WITHIN, this.output.all_sent(job)).await;
                        this.ended(uid, job, status).await;
                    }
                }
            }
        });
    }

    fn is_unwanted(&self, uid: NodeUid) -> bool {
        let table = self.table.lock();
        table.fenced || table.processes.get(&uid).is_none_or(|entry| entry.unwanted)
    }

    fn note(&self, uid: NodeUid, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.table.lock().processes.get_mut(&uid) {
            change(entry);
        }
        self.changed.notify_one();
    }

    /// A process is no more. Until the head knows how it ended it is listed as running: a heartbeat without it would tell of the end, and not how.
    async fn ended(&self, uid: NodeUid, job: JobId, status: DriverStatus) {
        match &status {
            DriverStatus::Failed { reason } if !self.is_unwanted(uid) => {
                tracing::warn!(%job, process = %uid, %reason, "a process of a job has ended");
            }
            _ => tracing::info!(%job, process = %uid, "a process of a job has ended"),
        }
        let told = tell_of_end(&self.head, (self.facts.uid, uid), &status, || self.table.lock().fenced).await;
        if let Err(error) = told {
            tracing::warn!(%job, process = %uid, %error, "the head does not hear of the end of a process");
        }
        let mut table = self.table.lock();
        table.processes.remove(&uid);
        self.programs.need(Needs::Node, table.executables());
        if table.processes.values().all(|entry| entry.job != job) {
            table.jobs.remove(&job);
        }
        drop(table);
        self.changed.notify_one();
    }

    /// Follows a job as long as a process of it is here.
    fn peers_of(self: &Arc<Self>, table: &mut Table, job: JobId) -> watch::Receiver<Peers> {
        if let Some(peers) = table.jobs.get(&job) {
            return peers.clone();
        }
        let (tell, peers) = watch::channel(Peers::default());
        table.jobs.insert(job, peers.clone());
        let head = Arc::clone(&self.head);
        tokio::spawn(async move {
            let told = tell.clone();
            let tell_keepers = move |keepers| told.send_modify(|peers| peers.keepers = keepers);
            let mut keepers = FollowedKeepers::new(Arc::clone(&head), tell_keepers);
            let hear = |view: Option<JobView>| {
                view.is_some_and(|view| {
                    let (driver, workers) = (view.driver, live_workers(&view));
                    tell.send_modify(|peers| (peers.driver, peers.workers) = (driver, workers));
                    keepers.are(&view.keepers);
                    true
                })
            };
            tokio::select! {
                () = follow(&head, WatchJob { job }, hear) => {}
                // The table holds one receiver, and forgets it with the last process.
                () = tell.closed() => {}
            }
        });
        peers
    }
}

impl Table {
    /// Notes a process that is about to begin; false if it is here already.
    fn enter(&mut self, uid: NodeUid, of: (JobId, Executable), is_driver: bool, isolated: bool) -> bool {
        let (job, executable) = of;
        let is_new = !self.processes.contains_key(&uid);
        self.processes.entry(uid).or_insert(Entry {
            job,
            executable,
            is_driver,
            pid: None,
            ready: false,
            unwanted: false,
            isolated,
            child: None,
        });
        is_new
    }

    /// The programs of all that is here.
    fn executables(&self) -> impl Iterator<Item = Executable> {
        self.processes.values().map(|entry| entry.executable)
    }
}

/// Tells the head that a process of a node is no more, until it has heard of it, or the node has lost its lease. A head that is away comes back.
///
/// # Errors
/// [`ControlError`] if it will not hear of it.
pub async fn tell_of_end(
    head: &Client,
    (node, process): (NodeUid, NodeUid),
    status: &DriverStatus,
    is_fenced: impl Fn() -> bool,
) -> Result<(), ControlError> {
    while !is_fenced() {
        let ended = WorkerEnded { node, process, status: status.clone() };
        match head.ask_within(ended, TELL_WITHIN).await {
            Err(error) if !error.is_final() => tokio::time::sleep(RETRY).await,
            told => return told,
        }
    }
    Ok(())
}

/// Lets a worker end in order, if it takes connections already.
fn leave(child: &Arc<Child>, is_ready: bool, reason: &str) {
    if !is_ready || !child.leave(reason, limits::LEAVE_WITHIN) {
        return child.kill();
    }
    let child = Arc::clone(child);
    tokio::spawn(async move {
        tokio::time::sleep(limits::LEAVE_WITHIN + LEAVE_MARGIN).await;
        child.kill();
    });
}

/// Ends a process that is not wanted: a driver may clean up, a worker has nothing of its own.
fn finish(child: &Arc<Child>, is_driver: bool) {
    if !is_driver {
        return child.kill();
    }
    child.ask_to_end();
    let child = Arc::clone(child);
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        child.kill();
    });
}

async fn futures_all(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        let _ = task.await;
    }
}

/// Tells a worker how something is, now and whenever it changes, until it is gone. `tell` says whether it took it.
async fn pass_on<T>(child: Weak<Child>, mut news: watch::Receiver<T>, tell: impl Fn(&Child, &T) -> bool) {
    news.mark_changed();
    while news.changed().await.is_ok() {
        let Some(child) = child.upgrade() else { return };
        let told = tell(&child, &news.borrow_and_update());
        drop(child);
        if !told {
            // The newest is tried again when there is room.
            tokio::time::sleep(RETRY).await;
            news.mark_changed();
        }
    }
}
