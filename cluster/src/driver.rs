//! A program that drives a job on a running cluster: finds the cluster, hands its own executable in, connects to the job's workers as they come,
//! and tells the head that it lives.

use std::io::Write;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_actors::{Node, NodeConfig};
use mobula_control::handover::PeerWorker;
use mobula_control::{
    ADDRESS_VARIABLE, Address, BeatDriver, BeginDriver, Client, CloseKeeper, ControlError, DriverBegun, EndDriver,
    Heads, Home, LogPart, RenewDriver, Renewal, SharedCredentials, Target, WatchJob, WatchRevocations, Whom, follow,
    hand_in, read_logs, whom,
};
use mobula_core::cluster::{DriverStatus, JobId, JobPhase, JobView, UnixTime, WorkerPhase};
use mobula_core::{NodeId, NodeUid, limits};
use mobula_identity::{KeyRequest, keep_renewed};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::builder::ClusterBuilder;
use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::keepers::FollowedKeepers;
use crate::leases::Running;
use crate::mesh::Mesh;
use crate::tell_actors::tell_actors;

/// Set by a node for the driver of a submitted job: `<job>:<life>`, and `:keeper` behind it if it is to keep detached actors. A secret it is not.
pub(crate) const DRIVER_VARIABLE: &str = "MOBULA_DRIVER";

const KEEPER: &str = ":keeper";

/// The first rest after the head could not be asked; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);

/// So long the end of a driver waits until the head knows of it.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Where a running cluster is to be looked for, as far as the environment says.
pub(crate) enum Wanted {
    /// One has to be there.
    This(Target),
    /// One to which this user has logged in.
    There(Target, Box<Renewal>),
    /// If it is there.
    Maybe(Target),
    /// None.
    Embedded,
}

/// What the environment says, or `address` does. A driver that a node has started belongs to that node, whatever its program says.
pub(crate) async fn wanted(address: Option<&str>) -> Result<Wanted, ClusterError> {
    let address = address.filter(|_| std::env::var_os(DRIVER_VARIABLE).is_none());
    let variable = std::env::var_os(ADDRESS_VARIABLE).filter(|value| !value.is_empty());
    let (place, said) = match (address, &variable) {
        (Some(address), _) => ("address", Some(address.into())),
        (None, Some(value)) => (ADDRESS_VARIABLE, Some(value.to_string_lossy())),
        (None, None) => ("", None),
    };
    let said = said.map(|text| text.parse::<Address>()).transpose().map_err(|error| {
        ClusterError::Unsupported(format!(
            "{place} is {error}, the name of a cluster that `mobula cluster list` shows, `auto` for that of this user on this host, `local` for \
             one inside this process, or the absolute path of a node's home"
        ))
    })?;
    match whom(said.as_ref(), &Home::default_path()).await.map_err(ControlError::from)? {
        Whom::Here(home) if said.is_none() => Ok(Wanted::Maybe(Target::Local(home))),
        Whom::Here(home) => Ok(Wanted::This(Target::Local(home))),
        Whom::There(login) => {
            let (target, renewal) = login.target().await.map_err(ControlError::from)?;
            Ok(Wanted::There(target, Box::new(renewal)))
        }
        _ => Ok(Wanted::Embedded),
    }
}

/// The process as the driver of a job, for as long as the handle to the cluster is kept.
pub(crate) struct Driver {
    client: Arc<Client>,
    job: JobId,
    uid: NodeUid,
    node: Node,
    /// True if nobody reaps this process and says how it ended.
    is_outside: bool,
}

impl Driver {
    /// Begins a job, or goes on with the one that a node has started this process for.
    pub(crate) async fn connect(builder: &ClusterBuilder, target: Target) -> Result<Cluster, ClusterError> {
        let client = Arc::new(Client::new(target));
        let path = match &builder.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        };
        let executable = hand_in(&client, &path).await?;
        let submitted = std::env::var(DRIVER_VARIABLE).ok().and_then(|text| started_for(&text));
        let key = KeyRequest::new()?;
        let mut request = [0; 8];
        getrandom::fill(&mut request).map_err(std::io::Error::from)?;
        let begin = BeginDriver {
            request: u64::from_be_bytes(request),
            submitted,
            entrypoint: std::env::args().collect::<Vec<_>>().join(" "),
            executable,
            csr: key.csr().to_vec(),
        };
        let DriverBegun { job, uid, certified, times, heads } = client.ask(begin).await?;
        let until = certified.until;
        let shared: SharedCredentials = Arc::new(RwLock::new(Arc::new(key.complete(certified))));
        // Who was asked first has the output, also where others, or with another certificate, are asked for the rest.
        let here = Arc::clone(&client);
        let mut heads = match client.target() {
            Target::Local(_) | Target::Dialled(_) => Vec::new(),
            Target::Remote { heads: asked, .. } => asked.all(),
        }
        .into_iter()
        .chain(heads);
        let client = match heads.next() {
            Some(first) => {
                let (life, job, credentials) = (uid, Some(job.to_string()), Arc::clone(&shared));
                let heads = Heads::new(first, heads);
                Arc::new(Client::new(Target::Remote { heads, credentials, life, job }))
            }
            None => client,
        };
        let config = NodeConfig {
            name: "driver".to_owned(),
            uid: Some(uid),
            lease: times,
            encode_local_calls: builder.encode_local_calls,
            compress_above_bytes: builder.compress_above_bytes,
            ..NodeConfig::default()
        };
        let node = Node::start(config)?;
        if let Some(url) = &builder.snapshots {
            node.set_snapshot_store(mobula_snapshots::open(url)?);
        }
        let driver =
            Driver { client: Arc::clone(&client), job, uid, node: node.clone(), is_outside: submitted.is_none() };
        let (tell, mut views) = watch::channel(None);
        let (begin_leases, begun) = watch::channel(false);
        let leases = Running::new(&node, client.target().clone(), job, views.clone(), begun);
        let cluster = Cluster::of_driver(node.clone(), driver, leases);
        let credentials = Arc::clone(&shared.read());
        let mesh = Mesh::new(&cluster, &credentials, job.to_string(), None, false)?;
        let runtime = node.control_runtime();
        runtime.spawn(renew(Arc::clone(&client), (job, uid), Arc::downgrade(&mesh), shared, until));
        runtime.spawn(hear_revocations(Arc::clone(&client), Arc::downgrade(&mesh)));
        runtime.spawn(follow_job(Arc::clone(&client), job, mesh, tell));
        runtime.spawn(beat(Arc::clone(&client), job, uid, times.heartbeat * 2));
        runtime.spawn(tell_actors(Arc::clone(&client), job, uid, cluster.downgrade()));
        if submitted.is_none() {
            runtime.spawn(print_logs(here, job));
        }
        runtime.spawn(learn_heads(Client::new(client.target().clone()), views.clone()));
        wait_for_workers(&cluster, &mut views).await?;
        begin_leases.send_replace(true);
        Ok(cluster)
    }

    /// For the driver of a job that keeps detached actors: true if it has none, and is about to end.
    pub(crate) async fn may_close(&self) -> Result<bool, ControlError> {
        self.client.ask(CloseKeeper { job: self.job, driver: self.uid }).await
    }

    /// The job is over: `reason` says how, if not well. Waits until the head knows, for a second at most.
    pub(crate) async fn end(&self) {
        if self.is_outside {
            // Saying it twice does no harm, and the connection that is used may be one to a head that is no more.
            let told = async {
                loop {
                    let end = EndDriver { job: self.job, driver: self.uid, status: DriverStatus::Succeeded };
                    match self.client.ask_within(end, END_WITHIN).await {
                        Err(error) if !error.is_final() => {
                            tracing::debug!(%error, "the head was not told of the end of the job");
                            tokio::time::sleep(RETRY_MIN).await;
                        }
                        _ => return,
                    }
                }
            };
            let _ = tokio::time::timeout(END_WITHIN, told).await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.is_outside {
            let end = EndDriver { job: self.job, driver: self.uid, status: DriverStatus::Succeeded };
            let client = Arc::clone(&self.client);
            // If this does not get through, the head misses the beats.
            self.node.control_runtime().spawn(async move { client.ask(end).await });
        }
    }
}

fn started_for(text: &str) -> Option<(JobId, NodeUid)> {
    let (job, uid) = text.strip_suffix(KEEPER).unwrap_or(text).split_once(':')?;
    Some((job.parse().ok()?, NodeUid(u64::from_str_radix(uid, 16).ok()?)))
}

/// True if a node has started this process to keep detached actors.
pub(crate) fn is_keeper() -> bool {
    std::env::var(DRIVER_VARIABLE).is_ok_and(|text| text.ends_with(KEEPER) && started_for(&text).is_some())
}

/// For a node that starts the driver of a submitted job, or of one that keeps detached actors: what `MOBULA_DRIVER` has to say.
pub fn driver_variable(job: JobId, uid: NodeUid, keeper: bool) -> (&'static str, String) {
    (DRIVER_VARIABLE, format!("{job}:{:x}{}", uid.0, if keeper { KEEPER } else { "" }))
}

/// Follows the job until it is over.
async fn follow_job(client: Arc<Client>, job: JobId, mesh: Arc<Mesh>, tell: watch::Sender<Option<JobView>>) {
    let guest = Arc::clone(&mesh);
    let mut keepers = FollowedKeepers::new(Arc::clone(&client), move |keepers| guest.update_keepers(keepers));
    follow(&client, WatchJob { job }, |view| {
        view.is_some_and(|view| {
            keepers.are(&view.keepers);
            mesh.update(live_workers(&view));
            tell.send_replace(Some(view));
            true
        })
    })
    .await;
}

/// The workers that have not ended.
pub fn live_workers(view: &JobView) -> Vec<PeerWorker> {
    let live = view.workers.iter().filter(|worker| !matches!(worker.worker.phase, WorkerPhase::Ended { .. }));
    live.filter_map(|worker| {
        Some(PeerWorker {
            id: NodeId::new(&worker.node_name, worker.worker.uid),
            number: worker.worker.order,
            pid: worker.worker.pid.unwrap_or(0),
            cpus: worker.cpus,
            host: worker.worker.node,
            resources: worker.resources.clone(),
            labels: worker.labels.clone(),
            address: worker.address.parse().ok()?,
            ready: worker.worker.phase == WorkerPhase::Ready,
            isolated: worker.worker.lease.is_some(),
        })
    })
    .collect()
}

/// A driver may live longer than its certificate.
async fn renew(
    client: Arc<Client>,
    (job, driver): (JobId, NodeUid),
    mesh: Weak<Mesh>,
    shared: SharedCredentials,
    until: UnixTime,
) {
    let renew = || async {
        let key = KeyRequest::new().map_err(|error| error.to_string())?;
        let ask = RenewDriver { job, driver, csr: key.csr().to_vec() };
        let certified = client.ask(ask).await.map_err(|error| error.to_string())?;
        let Some(mesh) = mesh.upgrade() else { return Ok(None) };
        let until = certified.until;
        let credentials = Arc::new(key.complete(certified));
        mesh.renew(&credentials);
        *shared.write() = credentials;
        Ok::<_, String>(Some(until))
    };
    keep_renewed("the driver", until, renew).await;
}

/// Until the job is over.
async fn learn_heads(client: Client, mut views: watch::Receiver<Option<JobView>>) {
    let is_over = async { while views.changed().await.is_ok() {} };
    tokio::select! {
        () = client.learn_heads() => {}
        () = is_over => {}
    }
}

/// Until the driver is over.
async fn hear_revocations(client: Arc<Client>, mesh: Weak<Mesh>) {
    follow(&client, WatchRevocations {}, |list| {
        let Some(mesh) = mesh.upgrade() else { return false };
        list.into_iter().for_each(|list| mesh.cut_off(list));
        true
    })
    .await;
}

/// A head that comes back counts the driver's lease from then, so it is to hear of the driver soon.
async fn beat(client: Arc<Client>, job: JobId, driver: NodeUid, every: Duration) {
    let mut retry = RETRY_MIN;
    loop {
        let rest = match client.ask_within(BeatDriver { job, driver }, every * 2).await {
            Ok(()) => {
                retry = RETRY_MIN;
                every
            }
            Err(error) if error.is_final() => {
                tracing::warn!(%job, %error, "this process does not drive its job any more");
                return;
            }
            Err(error) => {
                tracing::debug!(%job, %error, "the head was not told that the driver lives");
                let rest = retry;
                retry = (retry * 2).min(every);
                rest
            }
        };
        tokio::time::sleep(rest).await;
    }
}

/// Prints what the workers print, each line with its process in front, to standard error.
async fn print_logs(client: Arc<Client>, job: JobId) {
    let print = |part: LogPart| {
        let mut out = std::io::stderr().lock();
        for line in part.bytes.split_inclusive(|byte| *byte == b'\n') {
            let _ = write!(out, "({}) ", part.source).and_then(|()| out.write_all(line));
        }
        Ok(())
    };
    // Without a head for so long there is no job either.
    if let Err::<(), ControlError>(error) = read_logs(&client, job, true, limits::LEASE_MAX, print).await {
        tracing::warn!(%job, %error, "what the workers print is not heard here any more: `mobula logs` has it");
    }
}

/// Waits until each worker that the head wants at first is one of the cluster, or has failed to become one.
async fn wait_for_workers(cluster: &Cluster, views: &mut watch::Receiver<Option<JobView>>) -> Result<(), ClusterError> {
    let mut changes = cluster.member_changes();
    let mut last = "the head has not answered".to_owned();
    let waited = tokio::time::timeout(limits::NODE_START_DEADLINE, async {
        loop {
            {
                let view = views.borrow_and_update();
                if let Some(view) = &*view {
                    if view.phase.is_over() || view.phase == JobPhase::Stopping {
                        return Err(ClusterError::NoWorkers { reason: format!("{} is {}", view.job, view.phase) });
                    }
                    let known = cluster.nodes();
                    let is_here = |uid| known.iter().any(|node| node.id.uid == uid);
                    let shared = view.workers.iter().filter(|worker| worker.worker.lease.is_none());
                    let missing = shared.filter(|worker| !is_here(worker.worker.uid)).count();
                    if missing == 0 && !known.is_empty() {
                        return Ok(());
                    }
                    last = format!("of {} workers {missing} are not ready", view.workers.len());
                }
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() {
                    return Err(ClusterError::NoWorkers { reason: "the job is over".to_owned() });
                },
                _ = changes.changed() => {}
            }
        }
    });
    match waited.await {
        Ok(result) => result,
        // Those that are there can work; others may come later.
        Err(_) if !cluster.nodes().is_empty() => Ok(()),
        Err(_) => Err(ClusterError::NoWorkers { reason: last }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_driver_knows_its_job() {
        for (keeper, wanted) in [(false, "job-7:abc"), (true, "job-7:abc:keeper")] {
            let (_, text) = driver_variable(JobId(7), NodeUid(0xabc), keeper);
            assert_eq!(text, wanted);
            assert_eq!(started_for(&text), Some((JobId(7), NodeUid(0xabc))));
        }
        for text in ["", "job-7", "job-7:", "job-7:xyz", "seven:1", ":keeper", "job-7:abc:else"] {
            assert_eq!(started_for(text), None, "{text}");
        }
    }
}
