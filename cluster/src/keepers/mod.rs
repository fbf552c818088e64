//! Detached actors, which outlive the job that has created them: they belong to another job, their keeper.
//!
//! A job that wants one asks the head which job keeps the actors of its program, or the actor of a name. From then on its processes are guests of that
//! job: the head names it in the job's view ([`FollowedKeepers`]), and each process connects to the keeper's workers, of which [`Keepers`] has those that
//! can be called. `process` is the keeper's driver, whose program's `main` does not run.
mod following;
pub(crate) mod process;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mobula_actors::{ActorRef, ActorSpec, LeaseAnswer, LeaseRequest, PlacementError, RemoteActor, SpawnError};
use mobula_core::cluster::{JobId, Refused};
use mobula_core::{CallError, NodeId, NodeUid, limits};
use mobula_transport::now;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::leases;
use crate::meeting::met;

pub use following::FollowedKeepers;

/// The keepers whose actors this process may call.
#[derive(Default)]
pub(crate) struct Keepers {
    /// The job of this process, on a running cluster.
    own: OnceLock<JobId>,
    /// Their workers that this process is connected to, by their numbers.
    hosts: watch::Sender<BTreeMap<JobId, BTreeMap<u32, NodeId>>>,
    /// Processes of this job, and workers of keepers that each of them is connected to.
    connected: Mutex<HashSet<(NodeUid, NodeUid)>>,
}

/// Keepers that may end before anything can be asked of them, until it is given up.
const KEEPERS_TRIED: usize = 3;

/// So long a keeper is waited for before the head is asked again whether it still is the one.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Keepers {
    /// This process is one of that job.
    pub(crate) fn set_own(&self, job: &str) {
        if let Ok(job) = job.parse() {
            // A process is of one job.
            let _ = self.own.set(job);
        }
    }

    /// A worker of a keeper can be called.
    pub(crate) fn add(&self, keeper: JobId, number: u32, host: NodeId) {
        self.hosts.send_modify(|hosts| drop(hosts.entry(keeper).or_default().insert(number, host)));
    }

    /// A worker of a keeper has ended.
    pub(crate) fn remove(&self, host: &NodeId) {
        self.connected.lock().retain(|(_, known)| *known != host.uid);
        self.hosts.send_modify(|hosts| {
            hosts.values_mut().for_each(|hosts| hosts.retain(|_, known| known != host));
            hosts.retain(|_, hosts| !hosts.is_empty());
        });
    }

    /// A worker of `keeper` that can be called.
    pub(crate) async fn host(&self, keeper: JobId) -> Option<NodeId> {
        let first = |hosts: &BTreeMap<JobId, BTreeMap<u32, NodeId>>| hosts.get(&keeper)?.values().next().cloned();
        let mut hosts = self.hosts.subscribe();
        let found = hosts.wait_for(|hosts| first(hosts).is_some()).await;
        found.ok().and_then(|hosts| first(&hosts))
    }
}

/// Creates a detached actor.
pub(crate) async fn spawn<A: RemoteActor>(cluster: &Cluster, spec: ActorSpec<A>) -> Result<ActorRef<A>, SpawnError> {
    let spec = spec.for_keeper()?;
    let mut tried = 0;
    loop {
        tried += 1;
        let no_keeper = || SpawnError::NoKeeper { reason: "the head has begun none".to_owned() };
        let host = host(cluster, None).await.map_err(as_spawn_error)?.ok_or_else(no_keeper)?;
        match cluster.node().create_detached(&host, spec.clone()).await {
            // It has ended meanwhile, or its worker has, and nothing was created.
            Err(error) if tried < KEEPERS_TRIED && is_of_the_keeper(&error) => {
                tracing::debug!(%error, "a detached actor is tried again");
                forget_if_lost(cluster, &host);
            }
            created => {
                let created = created?;
                make_known(cluster, created.node()).await;
                return Ok(created);
            }
        }
    }
}

/// Finds a detached actor, if it is an `A`.
pub(crate) async fn find<A: RemoteActor>(cluster: &Cluster, name: &str) -> Result<Option<ActorRef<A>>, CallError> {
    if cluster.keepers().own.get().is_none() {
        return Ok(None);
    }
    let unreachable = |reason: String| CallError::Unreachable { node: cluster.node().head(), sent: false, reason };
    let mut tried = 0;
    loop {
        tried += 1;
        let host = host(cluster, Some(name)).await.map_err(|error| match error {
            PlacementError::Call(error) => error,
            error => unreachable(error.to_string()),
        })?;
        let Some(host) = host else { return Ok(None) };
        match cluster.node().find_detached(&host, name).await {
            Err(CallError::Unreachable { .. }) if tried < KEEPERS_TRIED => forget_if_lost(cluster, &host),
            found => {
                let found = found?;
                if let Some(actor) = &found {
                    make_known(cluster, actor.node()).await;
                }
                return Ok(found);
            }
        }
    }
}

/// A worker of a keeper that is lost to this process is none of those to ask, also if it lives.
fn forget_if_lost(cluster: &Cluster, host: &NodeId) {
    if cluster.node().control_link(host).is_none() {
        cluster.keepers().remove(host);
    }
}

/// Any worker of the keeper of this program, or of the one that keeps the actor of that name.
async fn host(cluster: &Cluster, of: Option<&str>) -> Result<Option<NodeId>, PlacementError> {
    let (keepers, until) = (cluster.keepers(), now() + limits::KEEPER_START_DEADLINE);
    let mut tried = BTreeSet::new();
    loop {
        let asked = LeaseRequest::Keeper { of: of.map(str::to_owned) };
        let keeper = match cluster.node().ask_lessor(asked, leases::ANSWER).await? {
            LeaseAnswer::Keeper(Some(keeper)) => keeper,
            LeaseAnswer::Keeper(None) => return Ok(None),
            LeaseAnswer::Refused(error) => return Err(error),
            _ => return Err(leases::unexpected()),
        };
        if keepers.own.get() == Some(&keeper) {
            return Ok(Some(cluster.node().id().clone()));
        }
        tried.insert(keeper);
        if let Ok(Some(host)) = tokio::time::timeout(ASK_AGAIN, keepers.host(keeper)).await {
            return Ok(Some(host));
        }
        if tried.len() >= KEEPERS_TRIED || is_over(until) {
            let reason = format!(
                "no worker of {keeper}, which keeps detached actors, could be called within {} s: see `mobula logs {keeper}`",
                limits::KEEPER_START_DEADLINE.as_secs()
            );
            let node = cluster.node().head();
            return Err(CallError::Unreachable { node, sent: false, reason }.into());
        }
    }
}

fn is_over(until: Instant) -> bool {
    now() >= until
}

fn as_spawn_error(error: PlacementError) -> SpawnError {
    match error {
        PlacementError::Bad { reason } => SpawnError::CannotDetach { reason },
        PlacementError::Call(CallError::Unreachable { sent: false, reason, .. }) => SpawnError::NoKeeper { reason },
        error => error.into(),
    }
}

/// True if a keeper was asked that ends, or a worker of it: another one may do it, and this one has not.
fn is_of_the_keeper(error: &SpawnError) -> bool {
    match error {
        SpawnError::NodeEnding | SpawnError::Call(CallError::Unreachable { sent: false, .. }) => true,
        SpawnError::NotPlaced(PlacementError::Refused(refused)) => matches!(**refused, Refused::JobEnded { .. }),
        _ => false,
    }
}

/// Waits until the processes of this job are connected to the node of a detached actor, so that a reference to it may be sent to them. One that is
/// not in time has errors to tell for a while.
pub(crate) async fn make_known(cluster: &Cluster, at: &NodeId) {
    let (node, mut processes) = (cluster.node(), cluster.processes());
    if !processes.contains(&node.head()) {
        processes.push(node.head());
    }
    let connected = &cluster.keepers().connected;
    {
        let mut connected = connected.lock();
        connected.retain(|(process, _)| processes.iter().any(|here| here.uid == *process));
        processes.retain(|process| !connected.contains(&(process.uid, at.uid)));
    }
    let pairs = met(node, processes.into_iter().map(|process| (process, at.clone()))).await;
    connected.lock().extend(pairs.iter().map(|(process, host)| (process.uid, host.uid)));
}
