//! The connections between the processes of one job: each to each, over TLS, to the port of the node behind which the other is.
//!
//! A process of another job is refused, but by workers of a job that keeps detached actors: there it is a guest. Guests connect, and are not connected to.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mobula_actors::Node;
use mobula_control::handover::{Keeper, PeerWorker};
use mobula_core::cluster::JobId;
use mobula_core::{NodeId, NodeUid};
use mobula_identity::{Revocations, Role, is_job_name, job_name};
use mobula_transport::Lane;
use mobula_transport::preface::Purpose;
use mobula_transport::tls::{self, Accepted, Credentials, Door, Endpoint, Secured, TlsError, role_name};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, WeakCluster};
use crate::members::NodeInfo;

/// The first rest after a connection could not be made; it doubles.
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_secs(2);

/// One process among those of its job.
pub(crate) struct Mesh {
    node: Node,
    endpoint: Arc<Endpoint>,
    /// The node's own has let them pass to us, and does not know how long they take here.
    door: Door,
    job: String,
    /// Its number, if it is a worker. Of two the later one connects; a driver is the last.
    number: Option<u32>,
    /// The job keeps detached actors: it has guests.
    keeper: bool,
    cluster: WeakCluster,
    known: Mutex<HashMap<NodeUid, PeerWorker>>,
    /// Workers of jobs that keep detached actors, whose guest this process is.
    hosts: Mutex<HashMap<NodeUid, (JobId, PeerWorker)>>,
    revoked: Mutex<Revocations>,
}

impl Mesh {
    pub(crate) fn new(
        cluster: &Cluster,
        credentials: &Credentials,
        job: String,
        number: Option<u32>,
        keeper: bool,
    ) -> Result<Arc<Self>, TlsError> {
        let node = cluster.node().clone();
        let endpoint = Arc::new(Endpoint::new(node.id().uid, credentials, false)?);
        cluster.keepers().set_own(&job);
        Ok(Arc::new(Mesh {
            node,
            endpoint,
            door: Door::default(),
            job,
            number,
            keeper,
            cluster: cluster.downgrade(),
            known: Mutex::default(),
            hosts: Mutex::default(),
            revoked: Mutex::default(),
        }))
    }

    /// Proves from now on with these who it is. Connections stay.
    pub(crate) fn renew(&self, credentials: &Credentials) {
        if let Err(error) = self.endpoint.renew(credentials) {
            tracing::error!(node = %self.node.id(), %error, "the certificate cannot be renewed");
        }
    }

    /// Talks no more to those that are cut off, if the list is newer than the last.
    pub(crate) fn cut_off(&self, list: Revocations) {
        let cut = self.revoked.lock().adopt(list);
        for uid in cut {
            self.endpoint.revoke(uid);
            let peer = self.known.lock().remove(&uid);
            if let (Some(peer), Some(cluster)) = (peer, self.cluster.upgrade()) {
                cluster.member_ended(&peer.id, "it was cut off from the cluster");
            }
            let host = self.hosts.lock().remove(&uid);
            if let Some((_, host)) = host {
                self.host_ended(&host.id, "it was cut off from the cluster");
            }
        }
    }

    /// These are the workers, of jobs that keep detached actors, that have not ended: this process is their guest.
    pub(crate) fn update_keepers(self: &Arc<Self>, keepers: Vec<Keeper>) {
        let mut come = Vec::new();
        let mut gone = Vec::new();
        {
            let mut hosts = self.hosts.lock();
            hosts.retain(|uid, (_, host)| {
                let stays = keepers.iter().flat_map(|keeper| &keeper.workers).any(|now| now.id.uid == *uid);
                if !stays {
                    gone.push(host.id.clone());
                }
                stays
            });
            let revoked = self.revoked.lock();
            for Keeper { job, workers } in keepers {
                for host in workers.into_iter().filter(|host| host.ready && !revoked.contains(host.id.uid)) {
                    if hosts.insert(host.id.uid, (job, host.clone())).is_none() {
                        come.push((job, host));
                    }
                }
            }
        }
        gone.iter().for_each(|id| self.host_ended(id, "its process has ended, its node says"));
        for (job, host) in come {
            self.node.admit_host(host.id.uid);
            let mesh = Arc::clone(self);
            self.node.control_runtime().spawn(async move {
                mesh.connect(&host, &job.to_string()).await;
                // Under the lock: whoever takes it out comes later, or was before.
                let hosts = mesh.hosts.lock();
                if let Some(cluster) =
                    mesh.cluster.upgrade().filter(|_| !host.isolated && hosts.contains_key(&host.id.uid))
                {
                    cluster.keepers().add(job, host.number, host.id.clone());
                }
            });
        }
    }

    fn host_ended(&self, id: &NodeId, reason: &str) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.keepers().remove(id);
        }
        self.node.peer_lost(id, reason);
    }

    /// These are the workers of the job that have not ended. Gives the connecting to those that are new.
    pub(crate) fn update(self: &Arc<Self>, peers: Vec<PeerWorker>) -> Vec<JoinHandle<()>> {
        let Some(cluster) = self.cluster.upgrade() else { return Vec::new() };
        let mut come = Vec::new();
        let mut gone = Vec::new();
        {
            let mut known = self.known.lock();
            known.retain(|uid, peer| {
                let stays = peers.iter().any(|now| now.id.uid == *uid);
                if !stays {
                    gone.push(peer.id.clone());
                }
                stays
            });
            let revoked = self.revoked.lock();
            for peer in peers.into_iter().filter(|peer| peer.ready && !revoked.contains(peer.id.uid)) {
                if peer.id != *self.node.id() && known.insert(peer.id.uid, peer.clone()).is_none() {
                    come.push(peer);
                }
            }
        }
        for id in gone {
            cluster.member_ended(&id, "its process has ended, its node says");
        }
        let meet = |peer: PeerWorker| {
            let mesh = Arc::clone(self);
            let connects = self.number.is_none_or(|own| own > peer.number);
            self.node.control_runtime().spawn(async move {
                if connects {
                    mesh.connect(&peer, &mesh.job).await;
                } else {
                    mesh.node.control_link_opened(&peer.id).await;
                }
                if let Some(cluster) = mesh.cluster.upgrade().filter(|_| mesh.knows(&peer.id)) {
                    cluster.add_member(info(&peer));
                }
            })
        };
        come.into_iter().map(meet).collect()
    }

    /// A connection that the node has handed over.
    pub(crate) fn accept(self: &Arc<Self>, stream: TcpStream) {
        let mesh = Arc::clone(self);
        self.node.control_runtime().spawn(async move {
            let address = stream.peer_addr();
            match mesh.welcome(stream).await {
                Ok(()) => {}
                // Of these there may be thousands a second.
                Err(error @ Unwelcome::Full { .. }) => tracing::debug!(node = %mesh.node.id(), %error, "refused"),
                Err(error) if error.is_departure() => {
                    tracing::debug!(node = %mesh.node.id(), ?address, %error, "connection not opened");
                }
                Err(error) => tracing::warn!(node = %mesh.node.id(), ?address, %error, "connection refused"),
            }
        });
    }

    async fn welcome(self: &Arc<Self>, stream: TcpStream) -> Result<(), Unwelcome> {
        let address = stream.peer_addr()?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut place = self.door.enter(address.ip(), mobula_transport::now()).ok_or(Unwelcome::Full { address })?;
        let Some(accepted) = place.hold(self.endpoint.accept(stream, address)).await else {
            return Err(Unwelcome::Full { address });
        };
        let Accepted::Node(secured, dial) = accepted? else {
            return Err(TlsError::NotTheHead { address }.into());
        };
        drop(place);
        if self.is_guest(&secured) {
            self.node.admit_guest(dial.dialer);
        } else {
            check(&secured, address, &self.job)?;
        }
        match (dial.purpose, secured.into_returned()) {
            (Purpose::Open, Err(secured)) => {
                let mesh = Arc::downgrade(self);
                let address = move || Some(mesh.upgrade()?.known.lock().get(&dial.dialer)?.address);
                let (session, runtime) = (secured.session(), self.node.control_runtime().clone());
                let way_back =
                    tls::ask_after_through(&self.endpoint, address, dial.dialer, dial.lane, session, runtime);
                // The name comes with the hello; until then the proven uid has to do.
                let peer = NodeId::new("peer", dial.dialer);
                self.node.attach(dial.lane, peer, move || Ok(tls::wire(secured)?.with_way_back(way_back))).await?;
            }
            (Purpose::Resume, Ok(returned)) => {
                if let Err((returned, reason)) = self.node.come_back(dial.dialer, returned) {
                    returned.refuse(&reason).await;
                }
            }
            // It wanted to see whether this life lives, and has its answer.
            _ => {}
        }
        Ok(())
    }

    /// Connects to a worker, again and again until it is there or gone: the control lane first, so that a peer is never used without
    /// being watched.
    async fn connect(&self, peer: &PeerWorker, job: &str) {
        for lane in [Lane::Control, Lane::Data] {
            let mut rest = REDIAL_MIN;
            while let Err(error) = self.dial(peer, lane, job).await {
                tracing::debug!(peer = %peer.id, address = %peer.address, %error, "cannot connect yet");
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(REDIAL_MAX);
                if !self.knows(&peer.id) {
                    return;
                }
            }
        }
    }

    async fn dial(&self, peer: &PeerWorker, lane: Lane, job: &str) -> Result<(), Unwelcome> {
        let secured = self.endpoint.dial_through(peer.address, peer.id.uid, lane).await?;
        check(&secured, peer.address, job)?;
        let (session, runtime) = (secured.session(), self.node.control_runtime().clone());
        let way_back = tls::redial_through(&self.endpoint, peer.address, peer.id.uid, lane, session, runtime);
        self.node.attach(lane, peer.id.clone(), move || Ok(tls::wire(secured)?.with_way_back(way_back))).await?;
        Ok(())
    }

    /// True for a process of another job, where such may come in.
    fn is_guest(&self, secured: &Secured) -> bool {
        let is_process = || secured.peer_is(&role_name(Role::Process.name()));
        let is_of_a_job = || secured.peer_names().iter().any(|name| is_job_name(name));
        self.keeper && !secured.peer_is(&job_name(&self.job)) && is_process() && is_of_a_job()
    }

    fn knows(&self, id: &NodeId) -> bool {
        self.known.lock().contains_key(&id.uid) || self.hosts.lock().contains_key(&id.uid)
    }
}

/// Of another job, however well it is certified, nobody comes in.
fn check(secured: &Secured, address: SocketAddr, job: &str) -> Result<(), Unwelcome> {
    match secured.peer_is(&job_name(job)) {
        true => Ok(()),
        false => Err(Unwelcome::OtherJob { address, job: job.to_owned() }),
    }
}

/// A connection that did not become one of the job's.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{address}: too many handshakes at once")]
    Full { address: SocketAddr },
    #[error("{address}: Unauthorized: the peer is no process of {job}")]
    OtherJob { address: SocketAddr, job: String },
    #[error(transparent)]
    Link(#[from] mobula_transport::LinkClosed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Unwelcome {
    /// No rule was broken: the peer went away, as a process that is killed does, or the link to it ended as it opened.
    fn is_departure(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Tls(error) => error.is_departure(),
            // Its address was asked for.
            Self::Io(error) => error.kind() == std::io::ErrorKind::NotConnected,
            _ => false,
        }
    }
}

pub(crate) fn info(peer: &PeerWorker) -> NodeInfo {
    let mut info = NodeInfo::new(peer.id.clone(), peer.pid, Some(peer.address), peer.cpus);
    (info.resources, info.labels, info.host) = (peer.resources.clone(), peer.labels.clone(), peer.host);
    info.isolated = peer.isolated;
    info
}

#[cfg(test)]
mod tests;
