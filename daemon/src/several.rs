//! One head of several: its records lie in etcd, where one of them leads. The others are nodes like any, and wait.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{Heads, Home, Peer, Refusal, Reply, Request, Service};
use mobula_core::cluster::UnixTime;
use mobula_core::{LeaseTimes, NodeUid};
use mobula_etcd::{EtcdOptions, EtcdStore, Leadership};
use mobula_head::store::{MetadataStore, StoreError, TakeOverError, Transaction};
use mobula_head::{HeadConfig, Write};
use mobula_identity::{Head as Identity, IdentityError, Members};
use mobula_transport::tls::Endpoint;
use parking_lot::RwLock;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use zeroize::Zeroizing;

use crate::error::DaemonError;
use crate::job_logs::JobLogs;
use crate::keeper::{Keeper, Outside};
use crate::local_door::NodeService;
use crate::node::cut_off;
use crate::programs::{Needs, Programs};
use crate::questions::Questions;
use crate::service::HeadService;

/// How often one that waits looks who leads, to tell those who ask.
const LOOK: Duration = Duration::from_millis(300);

/// What an operator says of a head that is one of several.
pub(crate) struct Several {
    /// Where the records lie.
    pub(crate) url: String,
    pub(crate) times: LeaseTimes,
    pub(crate) certificate_life: Duration,
    /// Where others reach this head.
    pub(crate) address: SocketAddr,
}

/// The seat of a head, which leads or waits.
pub(crate) struct Seat {
    pub(crate) identity: Arc<Identity>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// For the node of this head: whom it asks.
    pub(crate) heads: Heads,
    place: String,
    store: EtcdStore,
    uid: NodeUid,
    /// Where others reach this head.
    address: SocketAddr,
    times: LeaseTimes,
    programs: Arc<Programs>,
    logs: Arc<JobLogs>,
    stop: watch::Sender<bool>,
    authority: PathBuf,
    leading: RwLock<Option<(Leadership, Arc<HeadService>)>>,
    /// Who leads, as far as is known here.
    leader: RwLock<Option<SocketAddr>>,
    _runtime: OwnRuntime,
}

impl Several {
    /// A seat that waits.
    pub(crate) async fn open(
        self,
        home: &Home,
        uid: NodeUid,
        programs: Arc<Programs>,
        stop: watch::Sender<bool>,
    ) -> Result<Arc<Seat>, DaemonError> {
        let options = |error: mobula_etcd::EtcdOptionsError| DaemonError::Options(format!("--store {error}"));
        let mut etcd = EtcdOptions::parse(&self.url).map_err(options)?;
        etcd = etcd.with_environment(|name| std::env::var(name).ok()).map_err(options)?;
        etcd.name = self.address.to_string();
        let place = etcd.to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mobula-etcd")
            .enable_all()
            .build()
            .map_err(|error| DaemonError::Io { what: "threads for etcd".to_owned(), error })?;
        let handle = runtime.handle().clone();
        let runtime = OwnRuntime(Some(runtime));
        let opened = handle.spawn(async move { EtcdStore::open(&etcd).await }).await;
        let store = opened.unwrap_or_else(|error| Err(StoreError::Unavailable { reason: error.to_string() }));
        let store = store.map_err(TakeOverError::from)?;
        let directory = home.inside("identity")?;
        let authority = directory.path().join("authority");
        // Before one is made here that would be of no use.
        if !authority.exists() {
            is_owner(&store, &place, "none yet", &authority).await?;
        }
        let members = StoredMembers { store: store.beside("identity"), place: place.clone(), runtime: handle };
        let identity = block_in_place(|| Identity::open_with(&directory, Box::new(members), UnixTime::now()))?;
        let identity = Arc::new(identity.with_certificate_life(self.certificate_life));
        is_owner(&store, &place, &id_of(&identity), &authority).await?;
        let endpoint = Arc::new(Endpoint::new(uid, &identity.credentials(uid, UnixTime::now())?, true)?);
        let leader = store.leader().await.map_err(TakeOverError::from)?;
        let leader: Option<SocketAddr> = leader.and_then(|leader| leader.name.parse().ok());
        let heads = Heads::new(leader.unwrap_or(self.address), [self.address]);
        Ok(Arc::new(Seat {
            identity,
            endpoint,
            heads,
            place,
            store,
            uid,
            address: self.address,
            times: self.times,
            programs,
            logs: Arc::new(JobLogs::new(home.inside("logs")?)),
            stop,
            authority,
            leading: RwLock::new(None),
            leader: RwLock::new(leader),
            _runtime: runtime,
        }))
    }
}

impl Seat {
    /// Waits until nobody else leads, leads, and gives why it cannot go on. To be dropped when the node ends.
    pub(crate) async fn lead(&self) -> DaemonError {
        tokio::select! {
            ended = self.wait_and_lead() => ended.map_or_else(|error| error, DaemonError::Broken),
            error = self.look() => error,
        }
    }

    async fn wait_and_lead(&self) -> Result<String, DaemonError> {
        let (cut, lives) = mpsc::unbounded_channel();
        tracing::info!(records = self.place, "this head waits until it leads");
        let keeper =
            Keeper::open(HeadConfig::new(self.times), Arc::new(self.store.clone()), cut, Outside::SYSTEM).await?;
        let Some(leadership) = self.store.leadership() else { return Ok("it was given up".to_owned()) };
        let term = leadership.term();
        self.sign(term).await?;
        block_in_place(|| self.identity.read_again())?;
        self.identity.revocations().lives().for_each(|revoked| self.endpoint.revoke(revoked));
        let service = Arc::new(HeadService {
            keeper: Arc::clone(&keeper),
            identity: Arc::clone(&self.identity),
            programs: Arc::clone(&self.programs),
            logs: Arc::clone(&self.logs),
            uid: self.uid,
            started: UnixTime::now(),
            times: self.times,
            has_others: true,
            revoked: watch::Sender::new(()),
            questions: Questions::of_term(keeper.term),
            stop: self.stop.clone(),
        });
        service.take_up_files().await;
        service.end_drivers_of_the_revoked().await;
        *self.leading.write() = Some((leadership.clone(), Arc::clone(&service)));
        tracing::info!(term, "this head leads");
        // On a task of its own: it waits for etcd.
        tokio::spawn(cut_off(lives, Arc::clone(&self.endpoint), service));
        let reason = tokio::select! {
            () = Arc::clone(&keeper).tick() => "it decides nothing any more".to_owned(),
            reason = leadership.ended() => reason,
            reason = keeper.breaks() => reason,
        };
        // The next head looks after the programs of jobs.
        self.programs.need(Needs::Head, []);
        Ok(reason)
    }

    /// The first that leads writes down whose records these are.
    async fn sign(&self, term: u64) -> Result<(), DaemonError> {
        if self.is_owner().await? {
            return Ok(());
        }
        let id = Write::Put { key: CLUSTER_ID.to_owned(), value: id_of(&self.identity).into_bytes() };
        let written = self.store.beside(CLUSTER).commit(Transaction::of_head(term, vec![id])).await;
        Ok(written.map(drop).map_err(TakeOverError::from)?)
    }

    async fn is_owner(&self) -> Result<bool, DaemonError> {
        is_owner(&self.store, &self.place, &id_of(&self.identity), &self.authority).await
    }

    /// Looks who leads, while this head does not. Ends only if the records turn out to be another cluster's: two heads that begin with new
    /// records may each have made an authority, and one has signed them.
    async fn look(&self) -> DaemonError {
        let mut is_owner = false;
        loop {
            if self.leading().is_none()
                && let Ok(leader) = self.store.leader().await
            {
                *self.leader.write() = leader.and_then(|leader| leader.name.parse().ok());
                if !is_owner {
                    match self.is_owner().await {
                        Ok(owner) => is_owner = owner,
                        Err(error @ DaemonError::OtherCluster { .. }) => return error,
                        Err(error) => tracing::debug!(%error, "etcd does not say whose the records are"),
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What answers, while it leads for certain.
    fn leading(&self) -> Option<Arc<HeadService>> {
        let leading = self.leading.read();
        let (leadership, service) = leading.as_ref()?;
        (leadership.is_held() && !service.keeper.is_broken()).then(|| Arc::clone(service))
    }

    fn refusal(&self) -> Refusal {
        // Its lease may be left from an earlier life of this head, or be renewed too late.
        let leader = self.leader.read().filter(|leader| *leader != self.address);
        Refusal::NotLeading { leader }
    }

    /// Whether joiners are let in.
    pub(crate) fn lets_in(self: &Arc<Self>) -> Box<dyn Fn() -> bool + Send + Sync> {
        let seat = Arc::clone(self);
        Box::new(move || seat.leading().is_some())
    }

    /// What answers programs of this host: the head if it leads, else its node.
    pub(crate) fn for_this_host(self: &Arc<Self>, node: NodeService) -> ForThisHost {
        ForThisHost { seat: Arc::clone(self), node }
    }

    /// The next may lead at once.
    pub(crate) async fn resign(&self) {
        *self.leading.write() = None;
        self.store.resign().await;
    }
}

/// Connections to etcd live here: whatever else this process does, its lease is renewed.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service for Seat {
    async fn serve(&self, peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        match self.leading() {
            Some(service) => service.serve(peer, request, reply).await,
            None => reply.refuse(self.refusal()).await,
        }
    }
}

/// What answers programs of this host.
pub(crate) struct ForThisHost {
    seat: Arc<Seat>,
    node: NodeService,
}

impl Service for ForThisHost {
    async fn serve(&self, peer: &Peer, request: Request, mut reply: Reply<'_>) -> io::Result<()> {
        match (self.seat.leading(), &request) {
            (_, Request::StopNode(_)) => self.node.serve(peer, request, reply).await,
            (Some(service), _) => service.serve(peer, request, reply).await,
            // Drivers that this node has started.
            (None, Request::HasExecutable(_)) => self.node.serve(peer, request, reply).await,
            (None, Request::BeginDriver(begin)) if begin.submitted.is_some() => {
                self.node.serve(peer, request, reply).await
            }
            (None, _) => reply.refuse(self.seat.refusal()).await,
        }
    }
}

/// Where it is written whose records these are.
const CLUSTER: &str = "cluster";
const CLUSTER_ID: &str = "id";

fn id_of(identity: &Identity) -> String {
    identity.cluster().0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// True if the records are those of the cluster `ours`, false if they are nobody's yet.
async fn is_owner(store: &EtcdStore, place: &str, ours: &str, authority: &Path) -> Result<bool, DaemonError> {
    let found = store.beside(CLUSTER).range(CLUSTER_ID).await.map_err(TakeOverError::from)?;
    let id = found.entries.into_iter().find(|entry| entry.key == CLUSTER_ID);
    let Some(theirs) = id.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()) else { return Ok(false) };
    if theirs == ours {
        return Ok(true);
    }
    // The first 16 digits, as everywhere.
    let short = |id: &str| id.chars().take(16).collect::<String>();
    let (theirs, ours) = (short(&theirs), short(ours));
    Err(DaemonError::OtherCluster { store: place.to_owned(), theirs, ours, path: authority.to_owned() })
}

/// Tokens and revocations, where the next head finds them.
struct StoredMembers {
    store: EtcdStore,
    place: String,
    runtime: tokio::runtime::Handle,
}

const MEMBERS: &str = "members";

impl StoredMembers {
    fn wait_for<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, IdentityError> {
        let done = block_in_place(|| self.runtime.block_on(asked));
        done.map_err(|error| IdentityError::Io { what, path: self.place(), error: io::Error::other(error) })
    }
}

impl Members for StoredMembers {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
        let found = self.wait_for("cannot read", self.store.range(MEMBERS))?;
        let members = found.entries.into_iter().find(|entry| entry.key == MEMBERS);
        Ok(members.map(|entry| Zeroizing::new(entry.value)))
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), IdentityError> {
        let write = Write::Put { key: MEMBERS.to_owned(), value: bytes.to_vec() };
        // No term is 0: a head that has never led, or does not any more, writes nothing.
        let term = self.store.leadership().map_or(0, |leadership| leadership.term());
        let transaction = Transaction::of_head(term, vec![write]);
        self.wait_for("cannot write", self.store.commit(transaction)).map(drop)
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(format!("{}/identity/{MEMBERS}", self.place))
    }
}
