//! A node from its start to its end.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use mobula_control::{Client, Heads, Home, SOCKET, SharedCredentials, Target};
use mobula_core::cluster::{Labels, UnixTime};
use mobula_core::{LeaseTimes, NodeId, NodeUid};
use mobula_head::HeadConfig;
use mobula_head::store::{Clock, RedbStore, TakeOverError};
use mobula_identity::{Head as Identity, JoinError, Joined, Role, Token, hide_from_dumps, join, keep_renewed, renew};
use mobula_transport::tls::{self, Endpoint};
use mobula_transport::unix::Listener;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use crate::agent::{About, Agent, End};
use crate::door::{self, Leading};
use crate::error::DaemonError;
use crate::holder::name_the_holder;
use crate::host;
use crate::job_logs::JobLogs;
use crate::keeper::Keeper;
use crate::local_door::{self, NodeService};
use crate::options::{NodeOptions, NodePart, PROGRAMS_BYTES_MAX, Ready};
use crate::output::Output;
use crate::processes::{NodeFacts, Processes};
use crate::programs::Programs;
use crate::service::HeadService;
#[cfg(feature = "etcd")]
use crate::several::Several;

/// Runs a node until it is stopped (SIGTERM, SIGINT, or `StopNode` on its socket), drained or fenced. `ready` is called once others can use it.
///
/// # Errors
/// [`DaemonError`], which knows the exit code.
pub async fn run(options: NodeOptions, ready: impl FnOnce(&Ready) + Send) -> Result<(), DaemonError> {
    if let Err(error) = hide_from_dumps() {
        tracing::warn!(%error, "secrets may end up in core dumps");
    }
    let home = Home::create(&options.home)?;
    // With the socket comes the lock: from here on the home is this process's.
    let socket = Listener::bind(home.directory(), SOCKET)?;
    let stop = watch::Sender::new(false);
    watch_signals(stop.clone())?;
    let NodeOptions { name, listen, port, advertise, resources, labels, part, .. } = options;
    let name = name.unwrap_or_else(host_name);
    let listener = tls::listen(SocketAddr::new(listen, port)).map_err(name_the_holder)?;
    let port = listener.local_addr().map_err(io("the port"))?.port();
    let address = SocketAddr::new(advertise.unwrap_or_else(host::own_address), port);
    let programs = Arc::new(Programs::new(home.inside("executables")?, PROGRAMS_BYTES_MAX));
    let labels = match part {
        NodePart::Head { .. } => labels.with(Labels::HEAD, "true"),
        NodePart::Member { .. } => labels,
    };
    let about = |uid| About {
        id: NodeId::new(&name, uid),
        address,
        resources: resources.clone(),
        labels: labels.clone(),
        replaces: earlier_life(&home),
    };
    let facts = |uid| NodeFacts {
        uid,
        name: name.clone(),
        home: home.directory().path().to_owned(),
        cpus: u32::try_from(resources.cpus.whole()).unwrap_or(u32::MAX).max(1),
        arbiters: 1,
        labels: labels.clone(),
    };
    match part {
        #[cfg(not(feature = "etcd"))]
        NodePart::Head { store: Some(url), .. } => Err(DaemonError::Options(format!(
            "--store {url}: this program was built without etcd; build it with `cargo build --release -p mobula-cli --features etcd`, which takes \
             protoc: `apt install protobuf-compiler libprotobuf-dev`"
        ))),
        #[cfg(feature = "etcd")]
        NodePart::Head { times, certificate_life, store: Some(url) } => {
            let uid = new_uid()?;
            let several = Several { url, times, certificate_life, address };
            let seat = several.open(&home, uid, Arc::clone(&programs), stop.clone()).await?;
            let cluster = seat.identity.cluster().to_string();
            let shared: SharedCredentials =
                Arc::new(RwLock::new(Arc::new(seat.identity.credentials(uid, UnixTime::now())?)));
            let heads = seat.heads.clone();
            let target =
                Target::Remote { heads: heads.clone(), credentials: Arc::clone(&shared), life: uid, job: None };
            let client = Arc::new(Client::new(target.clone()));
            let output = Output::start(Arc::new(Client::new(target.clone())), uid);
            let processes = Processes::new(facts(uid), client, Arc::clone(&programs), output);
            let node = NodeService { processes: Arc::clone(&processes), programs, heads, stop: stop.clone() };
            tokio::spawn(local_door::keep(socket, Arc::new(seat.for_this_host(node))));
            let leading = Leading {
                endpoint: Arc::clone(&seat.endpoint),
                identity: Arc::clone(&seat.identity),
                service: Arc::clone(&seat),
                lets_in: seat.lets_in(),
            };
            tokio::spawn(door::keep(listener, Arc::clone(&processes), Some(Arc::new(leading))));
            tokio::spawn(renew_own(Arc::clone(&seat.endpoint), Arc::clone(&seat.identity), uid, Some(shared)));
            tokio::spawn(learn_heads(target.clone()));
            tokio::spawn(Arc::clone(&processes).hear_revocations());
            let agent = agent(about(uid), target, processes, &stop);
            let live = live(agent, &home, ready, Ready { address, cluster, name: name.clone(), uid });
            let ended = tokio::select! {
                ended = live => ended,
                reason = Arc::clone(&seat).lead() => Err(reason),
            };
            seat.resign().await;
            ended
        }
        NodePart::Head { times, certificate_life, store: None } => {
            let uid = new_uid()?;
            let identity = Identity::open(&home.inside("identity")?, UnixTime::now())?;
            let identity = Arc::new(identity.with_certificate_life(certificate_life));
            let led = Led::open(&home, uid, times, identity, Arc::clone(&programs), stop.clone()).await?;
            let cluster = led.service.identity.cluster().to_string();
            let target = Target::Local(home.directory().path().to_owned());
            let client = Arc::new(Client::new(target.clone()));
            let output = Output::start(Arc::new(Client::new(target.clone())), uid);
            let processes = Processes::new(facts(uid), client, programs, output);
            tokio::spawn(local_door::keep(socket, Arc::clone(&led.service)));
            tokio::spawn(Arc::clone(&led.service.keeper).tick());
            let leading = Leading {
                endpoint: Arc::clone(&led.endpoint),
                identity: Arc::clone(&led.service.identity),
                service: Arc::clone(&led.service),
                lets_in: Box::new(|| true),
            };
            tokio::spawn(door::keep(listener, Arc::clone(&processes), Some(Arc::new(leading))));
            tokio::spawn(renew_own(Arc::clone(&led.endpoint), Arc::clone(&led.service.identity), uid, None));
            tokio::spawn(cut_off(led.cut, Arc::clone(&led.endpoint), Arc::clone(&led.service)));
            tokio::spawn(Arc::clone(&processes).hear_revocations());
            let mut broken = led.service.keeper.broken.subscribe();
            let agent = agent(about(uid), target, processes, &stop);
            let live = live(agent, &home, ready, Ready { address, cluster, name: name.clone(), uid });
            tokio::select! {
                ended = live => ended,
                reason = broken.wait_for(Option::is_some) => {
                    let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                    Err(DaemonError::Broken(reason))
                }
            }
        }
        NodePart::Member { heads, token } => {
            let (head, joined) = join_one_of(&heads, &token).await?;
            let cluster = mobula_identity::ClusterId(token.pin()).to_string();
            drop(token);
            let uid = joined.uid;
            let Joined { credentials, .. } = &joined;
            let shared: SharedCredentials = Arc::new(RwLock::new(Arc::new(copy(credentials))));
            let heads = Heads::new(head, heads);
            let target =
                Target::Remote { heads: heads.clone(), credentials: Arc::clone(&shared), life: uid, job: None };
            let client = Arc::new(Client::new(target.clone()));
            let output = Output::start(Arc::new(Client::new(target.clone())), uid);
            let processes = Processes::new(facts(uid), client, Arc::clone(&programs), output);
            tokio::spawn(renew_joined(heads.clone(), joined, shared));
            tokio::spawn(learn_heads(target.clone()));
            let service = NodeService { processes: Arc::clone(&processes), programs, heads, stop: stop.clone() };
            tokio::spawn(local_door::keep(socket, Arc::new(service)));
            tokio::spawn(door::keep::<HeadService>(listener, Arc::clone(&processes), None));
            tokio::spawn(Arc::clone(&processes).hear_revocations());
            let agent = agent(about(uid), target, processes, &stop);
            live(agent, &home, ready, Ready { address, cluster, name: name.clone(), uid }).await
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
        home: &Home,
        uid: NodeUid,
        times: LeaseTimes,
        identity: Arc<Identity>,
        programs: Arc<Programs>,
        stop: watch::Sender<bool>,
    ) -> Result<Self, DaemonError> {
        let endpoint = Arc::new(Endpoint::new(uid, &identity.credentials(uid, UnixTime::now())?, true)?);
        identity.revocations().lives().for_each(|revoked| endpoint.revoke(revoked));
        let (cut_off, cut) = mpsc::unbounded_channel();
        let begun = mobula_transport::now();
        let store = RedbStore::open(&home.file("head.redb"), Clock::new(move || begun.elapsed()));
        let store = Arc::new(store.map_err(TakeOverError::from)?);
        let keeper = Keeper::open(HeadConfig::new(times), store, cut_off).await?;
        let logs = Arc::new(JobLogs::new(home.inside("logs")?));
        let started = UnixTime::now();
        let (revoked, has_others) = (watch::Sender::new(()), false);
        let service = HeadService { keeper, identity, programs, logs, uid, started, times, has_others, revoked, stop };
        Ok(Led { service: Arc::new(service), endpoint, cut })
    }
}

fn agent(about: About, target: Target, processes: Arc<Processes>, stop: &watch::Sender<bool>) -> Agent {
    Agent { about, target, processes, stop: stop.subscribe(), ready: watch::Sender::new(false) }
}

/// Lives as a node. `ready` is called when the head has taken it.
async fn live(agent: Agent, home: &Home, ready: impl FnOnce(&Ready) + Send, facts: Ready) -> Result<(), DaemonError> {
    let mut taken = agent.ready.subscribe();
    let uid = agent.about.id.uid;
    let living = agent.run();
    tokio::pin!(living);
    let ended = tokio::select! {
        ended = &mut living => ended,
        _ = taken.wait_for(|taken| *taken) => {
            fs::write(home.file(LIFE), format!("{:016x}", uid.0)).map_err(io("the node's life"))?;
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

/// Joins at the first head that lets anybody in: one that does not lead hangs up.
async fn join_one_of(heads: &[SocketAddr], token: &Token) -> Result<(SocketAddr, Joined), DaemonError> {
    let mut last = DaemonError::Options("there is no head to join at".to_owned());
    for head in heads {
        match join(*head, token, Role::Worker).await {
            Ok(joined) => return Ok((*head, joined)),
            // It leads, and says no.
            Err(error @ JoinError::JoinRejected { .. }) => return Err(error.into()),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

async fn learn_heads(target: Target) {
    Client::new(target).learn_heads().await;
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
        if let Err(error) = head.identity.revoke_node(uid, UnixTime::now()) {
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

/// A node renews its certificate at a head.
async fn renew_joined(heads: Heads, joined: Joined, shared: SharedCredentials) {
    let until = joined.until;
    let joined = tokio::sync::Mutex::new(joined);
    let renew = || async {
        let mut joined = joined.lock().await;
        let renewed = renew_at(&heads.all(), &joined).await?;
        *shared.write() = Arc::new(copy(&renewed.credentials));
        *joined = renewed;
        Ok::<_, JoinError>(Some(joined.until))
    };
    keep_renewed("this node", until, renew).await;
}

async fn renew_at(heads: &[SocketAddr], joined: &Joined) -> Result<Joined, JoinError> {
    let (last, others) = heads.split_last().ok_or_else(|| {
        let error = std::io::ErrorKind::NotFound.into();
        JoinError::Io { address: SocketAddr::from(([0, 0, 0, 0], 0)), error }
    })?;
    for head in others {
        if let Ok(renewed) = renew(*head, joined).await {
            return Ok(renewed);
        }
    }
    renew(*last, joined).await
}

fn copy(credentials: &tls::Credentials) -> tls::Credentials {
    tls::Credentials {
        chain: credentials.chain.clone(),
        key: credentials.key.clone_key(),
        authority: credentials.authority.clone(),
    }
}
