//! The way back over the wires of the system: a connection that breaks is followed by another, and what was under way goes on.

#[allow(dead_code)]
mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::certificates::Authority;
use common::*;
use mobula_core::{CallError, NodeUid};
use mobula_transport::preface::{Acceptor, Purpose, VERSIONS};
use mobula_transport::tls::{Accepted as Guest, Endpoint};
use mobula_transport::unix::{Directory, Listener};
use mobula_transport::{Accepted, Lane, Link, LinkClosed, Returned, WayBack, Wire, tcp, tls, unix};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

const NODE: &str = "node.sock";
const MIDDLE: &str = "middle.sock";

/// Where somebody listens.
#[derive(Clone)]
enum Place {
    Port(SocketAddr),
    Socket(Directory, &'static str),
}

/// The node that accepts.
struct Server {
    kind: Kind,
    place: Place,
    endpoint: Arc<Endpoint>,
    /// Of the session, once it is open.
    party: Party,
    task: JoinHandle<()>,
    _folder: TempDir,
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn endpoint(uid: NodeUid) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(uid, &Authority::of_the_tests().node(uid), false).expect("good credentials"))
}

impl Server {
    /// Listens as the life `uid`, at `at` if that is given. Whoever comes back finds its session, or is refused.
    fn start(kind: Kind, uid: NodeUid, at: Option<SocketAddr>) -> Server {
        let folder = tempfile::tempdir().expect("a directory for the test");
        let directory = Directory::create(folder.path().join("mobula")).expect("a directory of our own");
        let (endpoint, party) = (endpoint(uid), Arc::new(Mutex::new(None)));
        let acceptor = Arc::new(Mutex::new(Acceptor::new(Port::secret(), uid, VERSIONS)));
        let address = at.unwrap_or_else(loopback);
        let (place, task) = match kind {
            Kind::Unix => {
                let listener = Arc::new(Listener::bind(&directory, NODE).expect("a free name"));
                let party = Arc::clone(&party);
                let place = Place::Socket(directory, NODE);
                let task = tokio::spawn(async move {
                    loop {
                        let stream = listener.accept_next().await;
                        let (listener, acceptor) = (Arc::clone(&listener), Arc::clone(&acceptor));
                        let party = Arc::clone(&party);
                        tokio::spawn(async move {
                            let Ok((agreed, dial)) = listener.accept(stream, &acceptor).await else { return };
                            match dial.purpose {
                                Purpose::Open => {
                                    let (secret, session) = (Port::secret(), agreed.session);
                                    let way = unix::ask_after(
                                        || None,
                                        &secret,
                                        uid,
                                        dial.dialer,
                                        Lane::Data,
                                        session,
                                        Handle::current(),
                                    );
                                    open(&party, unix::wire(agreed).expect("a fresh stream"), way);
                                }
                                Purpose::Resume => match unix::hear_resume(agreed).await {
                                    Ok(returned) => come_back(&party, returned).await,
                                    Err(error) => println!("{error}"),
                                },
                                Purpose::Probe => {}
                            }
                        });
                    }
                });
                (place, task)
            }
            Kind::Tcp => {
                let listener = tcp::listen(address).expect("a free port");
                let listener = TcpListener::from_std(listener).expect("a fresh listener");
                let place = Place::Port(listener.local_addr().expect("it is bound"));
                let party = Arc::clone(&party);
                let task = tokio::spawn(async move {
                    loop {
                        let (stream, from) = tcp::accept_next(&listener).await;
                        let (acceptor, party) = (Arc::clone(&acceptor), Arc::clone(&party));
                        tokio::spawn(async move {
                            let Ok((agreed, dial)) = tcp::accept(stream, from, &acceptor).await else { return };
                            match dial.purpose {
                                Purpose::Open => {
                                    let (secret, session) = (Port::secret(), agreed.session);
                                    let way = tcp::ask_after(
                                        || None,
                                        &secret,
                                        uid,
                                        dial.dialer,
                                        Lane::Data,
                                        session,
                                        Handle::current(),
                                    );
                                    open(&party, tcp::wire(agreed).expect("a fresh stream"), way);
                                }
                                Purpose::Resume => match tcp::hear_resume(agreed, from).await {
                                    Ok(returned) => come_back(&party, returned).await,
                                    Err(error) => println!("{error}"),
                                },
                                Purpose::Probe => {}
                            }
                        });
                    }
                });
                (place, task)
            }
            _ => {
                let listener = tls::listen(address).expect("a free port");
                let place = Place::Port(listener.local_addr().expect("it is bound"));
                let (endpoint, party) = (Arc::clone(&endpoint), Arc::clone(&party));
                let task = tokio::spawn(async move {
                    loop {
                        let (stream, from) = tcp::accept_next(&listener).await;
                        let (endpoint, party) = (Arc::clone(&endpoint), Arc::clone(&party));
                        tokio::spawn(async move {
                            let Ok(Guest::Node(secured, dial)) = endpoint.accept(stream, from).await else { return };
                            match (dial.purpose, secured.into_returned()) {
                                (Purpose::Resume, Ok(returned)) => come_back(&party, returned).await,
                                (Purpose::Open, Err(secured)) => {
                                    let session = secured.session();
                                    let way = tls::ask_after(
                                        &endpoint,
                                        || None,
                                        dial.dialer,
                                        Lane::Data,
                                        session,
                                        Handle::current(),
                                    );
                                    open(&party, tls::wire(secured).expect("a fresh connection"), way);
                                }
                                _ => {}
                            }
                        });
                    }
                });
                (place, task)
            }
        };
        Server { kind, place, endpoint, party, task, _folder: folder }
    }

    /// Nobody listens any more; then its connections end.
    async fn end(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        if let Some((link, _)) = self.party.lock().take() {
            link.close("the process has ended");
        }
    }
}

type Party = Arc<Mutex<Option<(Arc<Link<Waiting>>, Arc<Seen>)>>>;

fn open(party: &Party, wire: Wire, way_back: WayBack) {
    *party.lock() = Some(Side::new(wire.with_way_back(way_back), 2, Mode::Echo, data()).run());
}

async fn come_back(party: &Party, returned: Returned) {
    let link = party.lock().as_ref().map(|(link, _)| Arc::clone(link));
    let refused = match link {
        Some(link) => link.come_back(returned).err(),
        None => Some(returned),
    };
    if let Some(returned) = refused {
        returned.refuse("no such session").await;
    }
}

/// Carries bytes between the two nodes, and breaks each connection after so many.
struct Middle {
    place: Place,
    task: JoinHandle<()>,
}

impl Middle {
    fn start(to: &Place, bytes: impl FnMut() -> u64 + Send + 'static) -> Middle {
        match to.clone() {
            Place::Port(address) => {
                let listener = tcp::listen(loopback()).expect("a free port");
                let listener = TcpListener::from_std(listener).expect("a fresh listener");
                let place = Place::Port(listener.local_addr().expect("it is bound"));
                let mut bytes = bytes;
                let task = tokio::spawn(async move {
                    loop {
                        let (from, _) = tcp::accept_next(&listener).await;
                        let Ok(to) = TcpStream::connect(address).await else { continue };
                        tokio::spawn(carry(from, to, bytes()));
                    }
                });
                Middle { place, task }
            }
            Place::Socket(directory, name) => {
                let listener = Listener::bind(&directory, MIDDLE).expect("a free name");
                let place = Place::Socket(directory.clone(), MIDDLE);
                let mut bytes = bytes;
                let task = tokio::spawn(async move {
                    loop {
                        let from = listener.accept_next().await;
                        let Ok(to) = UnixStream::connect(directory.path().join(name)).await else { continue };
                        tokio::spawn(carry(from, to, bytes()));
                    }
                });
                Middle { place, task }
            }
        }
    }
}

async fn carry<S>(one: S, other: S, bytes: u64)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let ((from_one, mut to_one), (from_other, mut to_other)) = (split(one), split(other));
    let (mut from_one, mut from_other) = (from_one.take(bytes), from_other.take(bytes));
    tokio::select! {
        _ = copy(&mut from_one, &mut to_other) => {}
        _ = copy(&mut from_other, &mut to_one) => {}
    }
}

/// The node that dials, through `through`, with the side of TLS that it has.
async fn dial(kind: Kind, through: &Place) -> (Arc<Link<Waiting>>, Arc<Endpoint>) {
    let (own, there, lane, secret) = (Port::DIALER, Port::UID, Lane::Data, Port::secret());
    let (endpoint, runtime) = (endpoint(own), Handle::current());
    let wire = match (kind, through) {
        (Kind::Unix, Place::Socket(directory, name)) => {
            let agreed = unix::dial(directory, name, &secret, own, there, lane).await.expect("dialled");
            let session = agreed.session;
            let way = unix::redial(directory, name, &secret, own, there, lane, session, runtime).expect("a short path");
            unix::wire(agreed).expect("a fresh stream").with_way_back(way)
        }
        (Kind::Tcp, Place::Port(address)) => {
            let agreed = tcp::dial(*address, &secret, own, there, lane).await.expect("dialled");
            let way = tcp::redial(*address, &secret, own, there, lane, agreed.session, runtime);
            tcp::wire(agreed).expect("a fresh stream").with_way_back(way)
        }
        (Kind::Tls, Place::Port(address)) => {
            let secured = endpoint.dial(*address, there, lane).await.expect("dialled");
            let way = tls::redial(&endpoint, *address, there, lane, secured.session(), runtime);
            tls::wire(secured).expect("a fresh connection").with_way_back(way)
        }
        _ => panic!("no way to dial"),
    };
    let (link, _) = Side::new(wire, 1, Mode::Echo, data()).run();
    within(link.opened()).await.expect("open");
    (link, endpoint)
}

async fn many_messages_over_many_breaks_come_once_and_in_order(kind: Kind) {
    let mut server = Server::start(kind, Port::UID, None);
    let mut random = 88172645463325252_u64;
    let breaks = Arc::new(Mutex::new(0_u32));
    let counted = Arc::clone(&breaks);
    let middle = Middle::start(&server.place, move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *counted.lock() += 1;
        // A fragment has to fit into what one connection carries, or nothing gets on.
        80_000 + random % 80_000
    });
    let (link, _) = dial(kind, &middle.place).await;
    let (mut ends, mut sent) = (Vec::new(), Vec::new());
    for n in 0..2_000_u32 {
        let mut payload = n.to_be_bytes().to_vec();
        payload.resize(4 + if n % 200 == 0 { 150_000 } else { n as usize % 300 }, 7);
        sent.push(payload.clone());
        if n % 3 == 0 {
            ends.push((n, ask(&link, A, &payload)));
        } else {
            match tell(&link, A, &payload) {
                (Ok(Accepted::Queued), _) => {}
                (Ok(Accepted::InLine), end) => assert_eq!(within(end).await, Ok(End::Accepted)),
                (Err(error), _) => panic!("{error}"),
            }
        }
    }
    for (n, end) in ends {
        assert_eq!(within(end).await, Ok(End::Answer(sent[n as usize].clone())));
    }
    let seen = server.party.lock().as_ref().map(|(_, seen)| Arc::clone(seen)).expect("it is open");
    let seen: Vec<_> = seen.messages(2_000).await.into_iter().map(|(_, payload)| payload).collect();
    assert!(seen == sent, "{} in order, each once", seen.len());
    assert!(*breaks.lock() > 8, "{}", breaks.lock());
    middle.task.abort();
    server.end().await;
}

/// The end of `link` once its connection has broken, which takes a fraction of the time for which a silent peer is waited for.
async fn end_at_once(link: &Arc<Link<Waiting>>) -> LinkClosed {
    let (waiter, pending) = waiting();
    let asked = link.ask(&to(A), waiter, bytes(&[7; 40_000]));
    let closed = tokio::time::timeout(Duration::from_secs(5), link.closed()).await.expect("at once");
    let error = match asked {
        Ok(_) => within(pending).await.expect("it has an end"),
        // The end was there before.
        Err((error, _)) => End::Failed(error),
    };
    assert!(matches!(error, End::Failed(CallError::Unreachable { .. })), "{error:?}, {closed:?}");
    closed
}

async fn a_peer_whose_process_has_ended_is_known_at_once(kind: Kind) {
    let mut server = Server::start(kind, Port::UID, None);
    let (link, _) = dial(kind, &server.place).await;
    server.end().await;
    let closed = end_at_once(&link).await;
    assert!(!closed.quarantined, "{closed:?}");
}

async fn another_life_at_the_address_is_proof_of_the_end(kind: Kind) {
    let mut server = Server::start(kind, Port::UID, None);
    let middle = Middle::start(&server.place, || 20_000);
    let (link, _) = dial(kind, &middle.place).await;
    // The middle leads to whoever listens at the address.
    server.end().await;
    let _next = match &server.place {
        Place::Port(address) => {
            let address = *address;
            Server::start(server.kind, NodeUid(3), Some(address))
        }
        Place::Socket(..) => panic!("a port is meant"),
    };
    let closed = end_at_once(&link).await;
    assert!(!closed.quarantined, "{closed:?}");
    middle.task.abort();
}

async fn a_peer_that_does_not_know_the_session_is_quarantined(kind: Kind) {
    let mut server = Server::start(kind, Port::UID, None);
    let middle = Middle::start(&server.place, || 20_000);
    let (link, _) = dial(kind, &middle.place).await;
    // It forgets the session, and lives.
    let forgotten = server.party.lock().take().expect("it is open");
    let pending = ask(&link, A, &[7; 40_000]);
    let closed = within(link.closed()).await;
    assert!(closed.quarantined, "{closed:?}");
    assert!(matches!(within(pending).await, Ok(End::Failed(CallError::Quarantined { .. }))), "{closed:?}");
    forgotten.0.close("the test is over");
    middle.task.abort();
    server.end().await;
}

macro_rules! suites {
    ($($name:ident on [$($kind:ident),+];)+) => {
        $(mod $name {
            $(
                #[expect(non_snake_case, reason = "named after its kind of wire")]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $kind() { super::$name(super::Kind::$kind).await }
            )+
        })+
    };
}

suites! {
    many_messages_over_many_breaks_come_once_and_in_order on [Tcp, Tls, Unix];
    a_peer_whose_process_has_ended_is_known_at_once on [Tcp, Tls, Unix];
    another_life_at_the_address_is_proof_of_the_end on [Tcp, Tls];
    a_peer_that_does_not_know_the_session_is_quarantined on [Tcp, Tls, Unix];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_revokes_a_node_looks_for_it_no_more() {
    let mut server = Server::start(Kind::Tls, Port::UID, None);
    let (link, endpoint) = dial(Kind::Tls, &server.place).await;
    endpoint.revoke(Port::UID);
    let closed = tokio::time::timeout(Duration::from_secs(5), link.closed()).await.expect("at once");
    assert!(closed.reason.contains("Revoked") && !closed.quarantined, "{closed:?}");
    server.endpoint.revoke(Port::DIALER);
    server.end().await;
}

/// Keeps the port behind which the life `uid` is: takes the name off and carries the rest to it.
fn keep_port(uid: NodeUid, to: SocketAddr, bytes: u64) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::from_std(tcp::listen(loopback()).expect("a free port")).expect("a fresh listener");
    let address = listener.local_addr().expect("it is bound");
    let task = tokio::spawn(async move {
        loop {
            let (mut from, _) = tcp::accept_next(&listener).await;
            if tls::knock(&mut from).await.expect("it says whom it wants") != tls::Knock::For(uid) {
                continue;
            }
            let Ok(to) = TcpStream::connect(to).await else { continue };
            tokio::spawn(carry(from, to, bytes));
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_through_a_port_that_another_process_keeps_comes_back_through_it() {
    let mut server = Server::start(Kind::Tls, Port::UID, None);
    let Place::Port(behind) = server.place.clone() else { panic!("a port is meant") };
    let (address, keeper) = keep_port(Port::UID, behind, 60_000);
    let endpoint = endpoint(Port::DIALER);
    let (lane, runtime) = (Lane::Data, Handle::current());
    let secured = within(endpoint.dial_through(address, Port::UID, lane)).await.expect("dialled");
    let way = tls::redial_through(&endpoint, address, Port::UID, lane, secured.session(), runtime);
    let wire = tls::wire(secured).expect("a fresh connection").with_way_back(way);
    let (link, _) = Side::new(wire, 1, Mode::Echo, data()).run();
    within(link.opened()).await.expect("open");
    for n in 0..100_u32 {
        // What goes there and back is more than four connections carry.
        let payload = [&n.to_be_bytes()[..], &[7; 2_500]].concat();
        assert_eq!(within(ask(&link, A, &payload)).await, Ok(End::Answer(payload)));
    }
    keeper.abort();
    link.close("over");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_accepted_asks_after_a_life_through_the_port_that_another_process_keeps() {
    let (endpoint, listener) = (endpoint(Port::UID), tls::listen(loopback()).expect("a free port"));
    // Where the dialer was behind a port there is another life now.
    let mut next = Server::start(Kind::Tls, NodeUid(3), None);
    let Place::Port(behind) = next.place.clone() else { panic!("a port is meant") };
    let (asked_at, keeper) = keep_port(Port::DIALER, behind, u64::MAX);
    let place = Place::Port(listener.local_addr().expect("it is bound"));
    let middle = Middle::start(&place, || 20_000);
    let Place::Port(address) = middle.place else { panic!("a port is meant") };
    let dialer = self::endpoint(Port::DIALER);
    let accepting = async {
        let (stream, from) = tcp::accept_next(&listener).await;
        endpoint.accept(stream, from).await
    };
    let (dialled, accepted) =
        within(async { tokio::join!(dialer.dial(address, Port::UID, Lane::Data), accepting) }).await;
    let Ok(Guest::Node(secured, dial)) = accepted else { panic!("a node is meant") };
    let (session, runtime) = (secured.session(), Handle::current());
    let way = tls::ask_after_through(&endpoint, move || Some(asked_at), dial.dialer, Lane::Data, session, runtime);
    let wire = tls::wire(secured).expect("a fresh connection").with_way_back(way);
    let (link, _) = Side::new(wire, 2, Mode::Echo, data()).run();
    // The dialer has no way back: its end is the break.
    let (other, _) = Side::new(tls::wire(dialled.expect("dialled")).expect("fresh"), 1, Mode::Echo, data()).run();
    within(other.opened()).await.expect("open");
    drop(ask(&other, A, &[7; 40_000]));
    let closed =
        tokio::time::timeout(Duration::from_secs(5), link.closed()).await.expect("not as long as a silent peer");
    assert!(!closed.quarantined, "{closed:?}");
    keeper.abort();
    middle.task.abort();
    next.end().await;
}
