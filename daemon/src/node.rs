//! A node from its start to its end.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{Client, Heads, Home, SOCKET, SharedCredentials, Target};
use mobula_core::cluster::{Labels, Resources, UnixTime};
use mobula_core::{LeaseTimes, NodeId, NodeUid};
use mobula_head::HeadConfig;
use mobula_head::store::{Clock, RedbStore, TakeOverError};
use mobula_identity::{ClusterId, Head as Identity, Joined, Token, hide_from_dumps, keep_renewed};
use mobula_transport::tls::{self, Endpoint, key_hash};
use mobula_transport::unix::{Listener, UnixError};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;

use crate::agent::{About, Agent, End};
use crate::door::{self, Leading};
use crate::error::DaemonError;
use crate::holder::name_the_holder;
use crate::host::{self, Load};
use crate::job_logs::JobLogs;
use crate::keeper::{Keeper, Outside};
use crate::local_door::{self, NodeService};
use crate::membership::Membership;
use crate::options::{NodeOptions, NodePart, PROGRAMS_BYTES_MAX, Ready};
use crate::output::Output;
use crate::processes::{NodeFacts, Processes};
use crate::programs::Programs;
use crate::questions::Questions;
use crate::service::HeadService;
#[cfg(feature = "etcd")]
use crate::several::Several;

/// Runs a node until it is stopped (SIGTERM, SIGINT, or `StopNode` on its socket), drained or fenced. `ready` is called once others can use it.
/// It takes a runtime with several threads: while one waits for the disk or for etcd, others go on.
///
/// # Errors
/// [`DaemonError`], which knows the exit code.
pub async fn run(options: NodeOptions, ready: impl FnOnce(&Ready) + Send) -> Result<(), DaemonError> {
    if let Err(error) = hide_from_dumps() {
        tracing::warn!(%error, "secrets may end up in core dumps");
    }
    let home = Home::create(&options.home)?;
    // With the socket comes the lock: from here on the home is this process's.
    let socket = bind(&home).await?;
    let stop = watch::Sender::new(false);
    watch_signals(stop.clone())?;
    let NodeOptions { name, listen, port, advertise, resources, labels, part, .. } = options;
    let listener = tls::listen(SocketAddr::new(listen, port)).map_err(name_the_holder)?;
    let bound = listener.local_addr().map_err(io("the port"))?;
    fs::write(home.file(LISTENING), bound.to_string()).map_err(io("where the node listens"))?;
    let port = bound.port();
    let labels = match part {
        NodePart::Head { .. } => labels.with(Labels::HEAD, "true"),
        NodePart::Member { .. } => labels,
    };
    let node = Beginning {
        name: name.unwrap_or_else(host_name),
        address: SocketAddr::new(advertise.unwrap_or_else(host::own_address), port),
        programs: Arc::new(Programs::new(home.inside("executables")?, PROGRAMS_BYTES_MAX)),
        home,
        resources,
        labels,
        stop,
    };
    let doors = Doors { socket, listener };
    match part {
        NodePart::Head { times, certificate_life, store: None } => {
            run_the_head(&node, doors, times, certificate_life, ready).await
        }
        #[cfg(feature = "etcd")]
        NodePart::Head { times, certificate_life, store: Some(url) } => {
            let several = Several { url, times, certificate_life, address: node.address };
            run_one_of_several_heads(&node, doors, several, ready).await
        }
        #[cfg(not(feature = "etcd"))]
        NodePart::Head { store: Some(url), .. } => Err(DaemonError::Options(format!(
            "--store {url}: this program was built without etcd; build it with `cargo build --release -p mobula-cli --features etcd`, which takes \
             protoc: `apt install protobuf-compiler libprotobuf-dev`"
        ))),
        NodePart::Member { heads, token } => run_a_member(&node, doors, &heads, token, ready).await,
    }
}

/// What is known of a node before its life begins.
struct Beginning {
    home: Home,
    name: String,
    address: SocketAddr,
    resources: Resources,
    labels: Labels,
    programs: Arc<Programs>,
    stop: watch::Sender<bool>,
}

/// How often a node tries to get the lock of its home, and the rest between two tries.
const LOCK_TRIES: u32 = 10;
const LOCK_REST: Duration = Duration::from_millis(50);

/// The socket in the home, and the lock with it. Whoever looks whether a node runs ([`Home::is_running`]) has that lock for a moment: only who has it for
/// longer uses the home.
async fn bind(home: &Home) -> Result<Listener, UnixError> {
    for _ in 1..LOCK_TRIES {
        match Listener::bind(home.directory(), SOCKET) {
            Err(UnixError::InUse { .. }) => tokio::time::sleep(LOCK_REST).await,
            bound => return bound,
        }
    }
    Listener::bind(home.directory(), SOCKET)
}

/// Where others come in.
struct Doors {
    socket: Listener,
    listener: TcpListener,
}

async fn run_the_head(
    node: &Beginning,
    doors: Doors,
    times: LeaseTimes,
    certificate_life: Duration,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), DaemonError> {
    let uid = new_uid()?;
    let identity = Identity::open(&node.home.inside("identity")?, UnixTime::now())?;
    let identity = Arc::new(identity.with_certificate_life(certificate_life));
    let led = Led::open(node, uid, times, Arc::clone(&identity)).await?;
    let target = Target::Local(node.home.directory().path().to_owned());
    let processes = node.processes(uid, &target);
    tokio::spawn(local_door::keep(doors.socket, Arc::clone(&led.service)));
    tokio::spawn(Arc::clone(&led.service.keeper).tick());
    let leading = Leading {
        endpoint: Arc::clone(&led.endpoint),
        identity: Arc::clone(&identity),
        service: Arc::clone(&led.service),
        lets_in: Box::new(|| true),
    };
    tokio::spawn(door::keep(doors.listener, Arc::clone(&processes), Some(Arc::new(leading))));
    tokio::spawn(renew_own(Arc::clone(&led.endpoint), Arc::clone(&identity), uid, None));
    tokio::spawn(cut_off(led.cut, led.endpoint, Arc::clone(&led.service)));
    tokio::select! {
        ended = node.live(uid, identity.cluster().to_string(), target, processes, ready) => ended,
        reason = led.service.keeper.breaks() => Err(DaemonError::Broken(reason)),
    }
}

#[cfg(feature = "etcd")]
async fn run_one_of_several_heads(
    node: &Beginning,
    doors: Doors,
    several: Several,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), DaemonError> {
    let uid = new_uid()?;
    let seat = several.open(&node.home, uid, Arc::clone(&node.programs), node.stop.clone()).await?;
    let identity = Arc::clone(&seat.identity);
    let asking = Asking::begin(seat.heads.clone(), identity.credentials(uid, UnixTime::now())?, uid);
    let processes = node.processes(uid, &asking.target);
    let service = node.service(&processes, asking.heads);
    tokio::spawn(local_door::keep(doors.socket, Arc::new(seat.for_this_host(service))));
    let leading = Leading {
        endpoint: Arc::clone(&seat.endpoint),
        identity: Arc::clone(&identity),
        service: Arc::clone(&seat),
        lets_in: seat.lets_in(),
    };
    tokio::spawn(door::keep(doors.listener, Arc::clone(&processes), Some(Arc::new(leading))));
    tokio::spawn(renew_own(Arc::clone(&seat.endpoint), Arc::clone(&identity), uid, Some(asking.credentials)));
    let ended = tokio::select! {
        ended = node.live(uid, identity.cluster().to_string(), asking.target, processes, ready) => ended,
        reason = seat.lead() => Err(reason),
    };
    seat.resign().await;
    ended
}

async fn run_a_member(
    node: &Beginning,
    doors: Doors,
    heads: &[SocketAddr],
    token: Option<Token>,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), DaemonError> {
    let membership = Arc::new(Membership::begin(&node.home, heads, token).await?);
    let Joined { uid, credentials, .. } = membership.joined().await;
    let cluster = key_hash(&credentials.authority).map(|hash| ClusterId(hash).to_string()).unwrap_or_default();
    let asking = Asking::begin(membership.heads.clone(), credentials, uid);
    let processes = node.processes(uid, &asking.target);
    let (staying, shared) = (Arc::clone(&membership), Arc::clone(&asking.credentials));
    tokio::spawn(async move { tokio::join!(staying.stay(shared), staying.keep_heads()) });
    let service = node.service(&processes, asking.heads);
    tokio::spawn(local_door::keep(doors.socket, Arc::new(service)));
    tokio::spawn(door::keep::<HeadService>(doors.listener, Arc::clone(&processes), None));
    node.live(uid, cluster, asking.target, processes, ready).await
}

/// How a node asks heads over the network.
struct Asking {
    heads: Heads,
    credentials: SharedCredentials,
    target: Target,
}

impl Asking {
    fn begin(heads: Heads, credentials: tls::Credentials, uid: NodeUid) -> Self {
        let credentials: SharedCredentials = Arc::new(RwLock::new(Arc::new(credentials)));
        let target =
            Target::Remote { heads: heads.clone(), credentials: Arc::clone(&credentials), life: uid, job: None };
        let learning = Client::new(target.clone());
        tokio::spawn(async move { learning.learn_heads().await });
        Asking { heads, credentials, target }
    }
}

impl Beginning {
    fn processes(&self, uid: NodeUid, target: &Target) -> Arc<Processes> {
        let facts = NodeFacts {
            uid,
            name: self.name.clone(),
            home: self.home.directory().path().to_owned(),
            cpus: u32::try_from(self.resources.cpus.whole()).unwrap_or(u32::MAX).max(1),
            arbiters: 1,
            resources: self.resources.clone(),
            labels: self.labels.clone(),
        };
        let client = || Arc::new(Client::new(target.clone()));
        Processes::new(facts, client(), Arc::clone(&self.programs), Output::start(client(), uid))
    }

    fn service(&self, processes: &Arc<Processes>, heads: Heads) -> NodeService {
        let (processes, programs) = (Arc::clone(processes), Arc::clone(&self.programs));
        NodeService { processes, programs, heads, stop: self.stop.clone() }
    }

    /// Lives as a node. `ready` is called when the head has taken it.
    async fn live(
        &self,
        uid: NodeUid,
        cluster: String,
        target: Target,
        processes: Arc<Processes>,
        ready: impl FnOnce(&Ready) + Send,
    ) -> Result<(), DaemonError> {
        tokio::spawn(Arc::clone(&processes).hear_revocations());
        let about = About {
            id: NodeId::new(&self.name, uid),
            address: self.address,
            resources: self.resources.clone(),
            labels: self.labels.clone(),
            replaces: earlier_life(&self.home),
        };
        let (stop, ready_at_head) = (self.stop.subscribe(), watch::Sender::new(false));
        let mut load = Load::default();
        let load = Box::new(move || load.look());
        let agent = Agent { about, target, processes, load, stop, ready: ready_at_head };
        let mut taken = agent.ready.subscribe();
        let living = agent.run();
        tokio::pin!(living);
        let ended = tokio::select! {
            ended = &mut living => ended,
            _ = taken.wait_for(|taken| *taken) => {
                fs::write(self.home.file(LIFE), format!("{:016x}", uid.0)).map_err(io("the node's life"))?;
                let facts = Ready { address: self.address, cluster, name: self.name.clone(), uid };
                tracing::info!(name = facts.name, %uid, address = %facts.address, cluster = facts.cluster, "ready");
                ready(&facts);
                living.await
            }
        };
        match ended? {
            End::Left => Ok(()),
            End::Fenced => Err(DaemonError::Fenced),
        }
    }
}

/// The head's part of a node.
struct Led {
    service: Arc<HeadService>,
    endpoint: Arc<Endpoint>,
    cut: mpsc::UnboundedReceiver<NodeUid>,
}

impl Led {
    async fn open(
        node: &Beginning,
        uid: NodeUid,
        times: LeaseTimes,
        identity: Arc<Identity>,
    ) -> Result<Self, DaemonError> {
        let endpoint = Arc::new(Endpoint::new(uid, &identity.credentials(uid, UnixTime::now())?, true)?);
        identity.revocations().lives().for_each(|revoked| endpoint.revoke(revoked));
        let (cut_off, cut) = mpsc::unbounded_channel();
        let begun = mobula_transport::now();
        let store = RedbStore::open(&node.home.file("head.redb"), Clock::new(move || begun.elapsed()));
        // A home may be a copy that an operator has brought back: then its file knows of earlier terms only than the nodes do.
        let store = Arc::new(store.map_err(TakeOverError::from)?.with_terms_from(UnixTime::now().0));
        let keeper = Keeper::open(HeadConfig::new(times), store, cut_off, Outside::SYSTEM).await?;
        let logs = Arc::new(JobLogs::new(node.home.inside("logs")?));
        let (programs, stop, started) = (Arc::clone(&node.programs), node.stop.clone(), UnixTime::now());
        let (revoked, has_others) = (watch::Sender::new(()), false);
        let questions = Questions::of_term(keeper.term);
        let service =
            HeadService { keeper, identity, programs, logs, uid, started, times, has_others, revoked, questions, stop };
        service.take_up_files().await;
        service.end_drivers_of_the_revoked().await;
        Ok(Led { service: Arc::new(service), endpoint, cut })
    }
}

/// The file that says where the node of this home listens.
const LISTENING: &str = "listening";

/// Where the node that runs in this home listens, as it has written down; none before it has. May block.
pub fn listening_at(home: &Path) -> Option<SocketAddr> {
    fs::read_to_string(home.join(LISTENING)).ok()?.parse().ok()
}

/// The file that says which life had this home last.
const LIFE: &str = "life";

/// The life that had this home before: it is over with all that ran under it, for its lock was free.
fn earlier_life(home: &Home) -> Option<NodeUid> {
    let text = fs::read_to_string(home.file(LIFE)).ok()?;
    u64::from_str_radix(text.trim(), 16).ok().map(NodeUid)
}

fn new_uid() -> Result<NodeUid, DaemonError> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).map_err(|error| io("no random numbers")(error.into()))?;
    Ok(NodeUid(u64::from_be_bytes(bits)))
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().into_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |error| DaemonError::Io { what: what.to_owned(), error }
}

fn watch_signals(stop: watch::Sender<bool>) -> Result<(), DaemonError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(io("signals"))?;
    tokio::spawn(async move {
        let [terminate, interrupt] = &mut ends[..] else { return };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(())
}

/// Cuts off those that the head is done with, sees to it that they get no certificate again, and that all hear of it.
pub(crate) async fn cut_off(
    mut lives: mpsc::UnboundedReceiver<NodeUid>,
    endpoint: Arc<Endpoint>,
    head: Arc<HeadService>,
) {
    while let Some(uid) = lives.recv().await {
        endpoint.revoke(uid);
        // A head that begins says it again of those whose end it waits for.
        if head.identity.is_revoked(uid) {
            continue;
        }
        if let Err(error) = block_in_place(|| head.identity.revoke_node(uid, UnixTime::now())) {
            tracing::error!(%uid, %error, "this life is cut off from the head alone, and will not be after the head's next start");
        }
        head.revoked.send_replace(());
    }
}

/// The head renews its own certificate.
async fn renew_own(endpoint: Arc<Endpoint>, identity: Arc<Identity>, uid: NodeUid, shared: Option<SharedCredentials>) {
    let life = identity.certificate_life();
    let renew = || async {
        let now = UnixTime::now();
        let credentials = identity.credentials(uid, now).map_err(|error| error.to_string())?;
        endpoint.renew(&credentials).map_err(|error| error.to_string())?;
        if let Some(shared) = &shared {
            *shared.write() = Arc::new(credentials);
        }
        Ok::<_, String>(Some(now.after(life)))
    };
    keep_renewed("the head", UnixTime::now().after(life), renew).await;
}

#[cfg(test)]
#[path = "node/tests.rs"]
mod tests;
