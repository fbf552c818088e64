//! A head, and all kinds of visitors: who is let in, what the others hear, and what the head writes down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula_core::{NodeUid, codec, limits};
use mobula_identity::{
    Authority, Head, IdentityError, Issued, JoinError, Joined, KeyRequest, Members, Refusal, Request, Role, Token,
    TokenId, UnixTime, join, renew,
};
use mobula_transport::tls::{
    Accepted, Credentials, Endpoint, JoinStream, TlsError, dial_head, listen, node_name, role_name, wire,
};
use mobula_transport::unix::Directory;
use mobula_transport::{Lane, tcp};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

#[path = "joining/returning.rs"]
mod returning;

const HOUR: Duration = Duration::from_secs(3600);
const HEAD: NodeUid = NodeUid(0xead);

async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("came in time")
}

/// A head with its door.
struct House {
    state: TempDir,
    head: Arc<Head>,
    endpoint: Endpoint,
    listener: TcpListener,
    address: SocketAddr,
}

impl House {
    fn open() -> Self {
        House::in_directory(tempfile::tempdir().expect("a directory"))
    }

    fn in_directory(state: TempDir) -> Self {
        let directory = Directory::create(state.path().join("head")).expect("a directory of our own");
        House::of(state, Head::open(&directory, UnixTime::now()).expect("a head"))
    }

    fn of(state: TempDir, head: Head) -> Self {
        let head = Arc::new(head);
        let credentials = head.credentials(HEAD, UnixTime::now()).expect("credentials");
        let endpoint = Endpoint::new(HEAD, &credentials, true).expect("good credentials");
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        House { state, head, endpoint, listener, address }
    }

    fn token(&self, role: Role, uses: u32) -> Token {
        self.head.create_token(role, uses, HOUR, UnixTime::now()).expect("a token")
    }

    fn authority(&self) -> Authority {
        let directory = Directory::open(self.state.path().join("head")).expect("there");
        Authority::open(&directory, UnixTime::now()).expect("there")
    }

    async fn accept(&self) -> Result<Accepted, TlsError> {
        let (stream, address) = tcp::accept_next(&self.listener).await;
        self.endpoint.accept(stream, address).await
    }

    /// Serves the next one who comes to the point of asking, at the time `now`.
    async fn serve_at(&self, now: UnixTime) -> Result<Issued, Refusal> {
        loop {
            // A joiner's first visit only looks.
            if let Ok(Accepted::Joiner(stream)) = self.accept().await {
                return self.head.serve(stream, now).await;
            }
        }
    }

    async fn serve(&self) -> Result<Issued, Refusal> {
        self.serve_at(UnixTime::now()).await
    }

    async fn join(&self, token: &Token, role: Role) -> (Result<Joined, JoinError>, Result<Issued, Refusal>) {
        within(async { tokio::join!(join(self.address, token, role), self.serve()) }).await
    }

    async fn joined(&self, role: Role) -> Joined {
        let (joined, issued) = self.join(&self.token(role, 1), role).await;
        issued.expect("a good token");
        joined.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends the bytes that `make` says, and gives all bytes that come back.
    async fn visit(
        &self,
        own: Option<&Credentials>,
        now: UnixTime,
        make: impl FnOnce(&JoinStream) -> Vec<u8>,
    ) -> (Vec<u8>, Refusal) {
        let authority = self.authority();
        let visitor = async {
            let mut stream = dial_head(self.address, authority.certificate(), own).await.expect("the head");
            let body = make(&stream);
            stream.write_all(&(body.len() as u32).to_be_bytes()).await.expect("open");
            stream.write_all(&body).await.expect("open");
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("a clean end");
            heard
        };
        let (heard, served) = within(async { tokio::join!(visitor, self.serve_at(now)) }).await;
        (heard, served.expect_err("nobody is let in here"))
    }

    fn audit(&self) -> String {
        fs::read_to_string(self.state.path().join("head/audit.log")).expect("an audit log")
    }
}

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().expect("a key");
    CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec()
}

/// What an honest joiner would send over `stream`.
fn honest(house: &House, stream: &JoinStream, token: &Token, role: Role) -> Request {
    let csr = csr();
    let exported = stream.export(Request::EXPORTER).expect("open");
    let signature = token.sign(&Request::statement(&house.head.cluster(), &exported, &csr)).expect("a key").to_vec();
    Request::Join { token: token.id(), role, csr, signature }
}

fn bytes(request: &Request) -> Vec<u8> {
    codec::encode(request).expect("plain data")
}

#[tokio::test]
async fn a_worker_joins_and_is_one() {
    let house = House::open();
    let joined = house.joined(Role::Worker).await;
    assert_eq!(joined.role, Role::Worker);
    assert_ne!(joined.uid, HEAD);
    let life = joined.until.0 - joined.from.0;
    assert_eq!(life, (limits::CERTIFICATE_LIFE + limits::CLOCK_SKEW_MAX).as_secs());
    assert_eq!(house.head.tokens(UnixTime::now()), [], "its one use is spent");

    let worker = Endpoint::new(joined.uid, &joined.credentials, false).expect("good credentials");
    let dial = worker.dial(house.address, HEAD, Lane::Control);
    let (dialed, accepted) = within(async { tokio::join!(dial, house.accept()) }).await;
    let (Ok(dialed), Ok(Accepted::Node(accepted, dial))) = (dialed, accepted) else {
        panic!("both are of the cluster")
    };
    assert_eq!(dial.dialer, joined.uid);
    assert!(accepted.peer_is(&role_name("worker")) && !accepted.peer_is(&role_name("head")));
    assert!(dialed.peer_is(&role_name("head")) && !dialed.peer_is(&node_name(joined.uid)));
    assert!(house.audit().contains("certificate given"));
    assert!(wire(dialed).is_ok());
}

/// A client's certificate cannot serve: it is no node.
#[tokio::test]
async fn a_client_cannot_pose_as_a_node() {
    let house = House::open();
    let (client, worker) = (house.joined(Role::Client).await, house.joined(Role::Worker).await);
    let client_side = Endpoint::new(client.uid, &client.credentials, false).expect("its own");
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let worker_side = Endpoint::new(worker.uid, &worker.credentials, false).expect("its own");
    let served = async {
        let (stream, address) = tcp::accept_next(&listener).await;
        client_side.accept(stream, address).await
    };
    let (dialed, _) = within(async { tokio::join!(worker_side.dial(address, client.uid, Lane::Data), served) }).await;
    assert!(matches!(dialed, Err(TlsError::Io { .. })));
}

/// A worker that is taken over opens a port and says that it is the head.
#[tokio::test]
async fn a_worker_cannot_pose_as_the_head() {
    let house = House::open();
    let worker = house.joined(Role::Worker).await;
    let mut trap = House::open();
    trap.endpoint = Endpoint::new(worker.uid, &worker.credentials, true).expect("its own");
    let token = house.token(Role::Worker, 1);
    let both = async {
        tokio::select! { joined = join(trap.address, &token, Role::Worker) => joined, _ = trap.serve() => panic!("no request") }
    };
    assert!(matches!(within(both).await, Err(JoinError::Tls(TlsError::Io { .. }))));
    assert_eq!(house.head.tokens(UnixTime::now()).len(), 1, "nothing was spent");
}

#[tokio::test]
async fn another_clusters_head_is_not_spoken_to() {
    let (house, other) = (House::open(), House::open());
    let token = house.token(Role::Worker, 1);
    let both = async {
        tokio::select! { joined = join(other.address, &token, Role::Worker) => joined, _ = other.serve() => panic!("no request") }
    };
    assert!(matches!(within(both).await, Err(JoinError::Tls(TlsError::WrongAuthority { .. }))));
}

#[tokio::test]
async fn every_refusal_is_the_same_on_the_wire_and_spends_nothing() {
    let house = House::open();
    let now = UnixTime::now();
    let token = house.token(Role::Worker, 1);
    let revoked = house.token(Role::Worker, 1);
    assert!(house.head.revoke_token(revoked.id(), now).expect("written"));
    let used = house.token(Role::Worker, 1);
    house.join(&used, Role::Worker).await.0.map(|_| ()).expect("its first use");
    let text = token.expose();
    let seed_changed = Token::new(token.pin(), token.id(), Zeroizing::new([7; 32]));
    let unknown = Token::new(token.pin(), TokenId(1), Zeroizing::new([7; 32]));
    let after_its_end = now.after(HOUR);
    assert_eq!(house.head.tokens(now).len(), 1);

    let mut all = Vec::new();
    let mut visit = async |now: UnixTime, make: &dyn Fn(&JoinStream) -> Vec<u8>| {
        let (heard, refusal) = house.visit(None, now, make).await;
        all.push(heard);
        refusal
    };
    let with = |token: &Token, role: Role| {
        let token = Token::parse(&token.expose()).unwrap_or_else(|error| panic!("{error}"));
        let house = &house;
        move |stream: &JoinStream| bytes(&honest(house, stream, &token, role))
    };
    assert_eq!(visit(now, &with(&unknown, Role::Worker)).await, Refusal::UnknownToken);
    assert_eq!(visit(now, &with(&revoked, Role::Worker)).await, Refusal::UnknownToken);
    assert_eq!(visit(now, &with(&used, Role::Worker)).await, Refusal::UsedUp);
    assert_eq!(visit(now, &with(&seed_changed, Role::Worker)).await, Refusal::WrongSignature);
    assert_eq!(visit(after_its_end, &with(&token, Role::Worker)).await, Refusal::Expired);
    assert_eq!(visit(now, &with(&token, Role::Operator)).await, Refusal::WrongRole);
    assert_eq!(visit(now, &with(&token, Role::Head)).await, Refusal::WrongRole);
    // Signed for another certificate request.
    let other_csr = |stream: &JoinStream| {
        let Request::Join { token, role, signature, .. } = honest(&house, stream, &token, Role::Worker) else {
            panic!("a join")
        };
        bytes(&Request::Join { token, role, csr: csr(), signature })
    };
    assert_eq!(visit(now, &other_csr).await, Refusal::WrongSignature);
    // A certificate request that is broken, signed well.
    let broken_csr = |stream: &JoinStream| {
        let csr = vec![0x30, 0];
        let exported = stream.export(Request::EXPORTER).expect("open");
        let signature = token.sign(&Request::statement(&house.head.cluster(), &exported, &csr)).expect("a key");
        bytes(&Request::Join { token: token.id(), role: Role::Worker, csr, signature: signature.to_vec() })
    };
    assert!(matches!(visit(now, &broken_csr).await, Refusal::BadRequest(_)));
    assert!(matches!(visit(now, &|_| b"garbage".to_vec()).await, Refusal::BadRequest(_)));
    assert!(matches!(visit(now, &|_| Vec::new()).await, Refusal::BadRequest(_)));
    // Nobody has shown a certificate.
    let renewal = |_: &JoinStream| bytes(&Request::Renew { uid: HEAD, csr: csr() });
    assert_eq!(visit(now, &renewal).await, Refusal::NotTheHolder);

    assert!(all.iter().all(|heard| *heard == all[0] && !heard.is_empty()), "{all:?}");
    assert_eq!(house.head.tokens(now).len(), 1, "nothing was spent");
    let audit = house.audit();
    for reason in ["UnknownToken", "UsedUp", "WrongSignature", "Expired", "WrongRole", "BadRequest", "NotTheHolder"] {
        assert!(audit.contains(reason), "{reason}");
    }
    let seed = text.split('.').nth(3).expect("four parts and more");
    assert!(!audit.contains(seed), "no secret in the log");
    house.join(&token, Role::Worker).await.1.expect("it still serves");
}

/// One in the middle has a good request of somebody else's. It fits neither another connection nor a second time.
#[tokio::test]
async fn a_request_that_is_relayed_or_replayed_is_refused() {
    let house = House::open();
    let token = house.token(Role::Worker, 5);
    let elsewhere = async {
        let stream = dial_head(house.address, house.authority().certificate(), None).await.expect("the head");
        bytes(&honest(&house, &stream, &token, Role::Worker))
    };
    let (relayed, _) = within(async { tokio::join!(elsewhere, house.accept()) }).await;
    let (_, refusal) = house.visit(None, UnixTime::now(), |_| relayed).await;
    assert_eq!(refusal, Refusal::WrongSignature);

    // One that was accepted, sent again.
    let authority = house.authority();
    let sent = async {
        let mut stream = dial_head(house.address, authority.certificate(), None).await.expect("the head");
        let body = bytes(&honest(&house, &stream, &token, Role::Worker));
        stream.write_all(&[&(body.len() as u32).to_be_bytes()[..], &body].concat()).await.expect("open");
        stream.read_to_end(&mut Vec::new()).await.expect("a clean end");
        body
    };
    let (replayed, served) = within(async { tokio::join!(sent, house.serve()) }).await;
    served.expect("the first time");
    let (_, refusal) = house.visit(None, UnixTime::now(), |_| replayed).await;
    assert_eq!(refusal, Refusal::WrongSignature);
    assert_eq!(house.head.tokens(UnixTime::now())[0].uses_left, 4);
}

#[tokio::test]
async fn one_bit_wrong_in_a_request_is_refused() {
    let house = House::open();
    let token = house.token(Role::Worker, 1);
    let length = {
        let csr = vec![0; csr().len()];
        bytes(&Request::Join { token: token.id(), role: Role::Worker, csr, signature: vec![0; 64] }).len()
    };
    // Every bit would be 6,000 handshakes; these fall on each field.
    for at in (0..length - 8).step_by(29) {
        let (heard, _) = house
            .visit(None, UnixTime::now(), |stream| {
                let mut body = bytes(&honest(&house, stream, &token, Role::Worker));
                body[at] ^= 1 << (at % 8);
                body
            })
            .await;
        assert!(!heard.is_empty());
    }
    assert_eq!(house.head.tokens(UnixTime::now())[0].uses_left, 1);
}

#[tokio::test]
async fn what_was_spent_is_spent_after_a_restart() {
    let house = House::open();
    let token = house.token(Role::Worker, 2);
    house.join(&token, Role::Worker).await.1.expect("the first use");
    let House { state, head, .. } = house;
    let cluster = head.cluster();
    drop(head);
    let house = House::in_directory(state);
    assert_eq!(house.head.cluster(), cluster);
    assert_eq!(house.head.tokens(UnixTime::now())[0].uses_left, 1);
    house.join(&token, Role::Worker).await.1.expect("the second use");
    assert_eq!(house.join(&token, Role::Worker).await.1, Err(Refusal::UsedUp));
}

#[tokio::test]
async fn nothing_is_given_that_was_not_written_down() {
    let house = House::open();
    let token = house.token(Role::Worker, 1);
    // A directory where the draft of the next state goes.
    let obstacle = house.state.path().join("head/members.new");
    fs::create_dir_all(obstacle.join("x")).expect("made");
    let (joined, served) = house.join(&token, Role::Worker).await;
    assert!(matches!(served, Err(Refusal::HeadFailed(_))));
    // It may work later: who is told no does not try again.
    assert!(matches!(joined.map(|_| ()), Err(JoinError::Io { .. })));
    let failed = house.head.create_token(Role::Worker, 1, HOUR, UnixTime::now());
    assert!(matches!(failed.map(|_| ()), Err(IdentityError::Io { .. })));
    fs::remove_dir_all(&obstacle).expect("ours");
    house.join(&token, Role::Worker).await.1.expect("it was not spent");
}

/// What several heads have in common; it may be out of reach.
#[derive(Clone, Default)]
struct Common {
    kept: Arc<Mutex<Option<Vec<u8>>>>,
    is_away: Arc<AtomicBool>,
}

impl Common {
    fn house(&self, state: TempDir) -> House {
        let directory = Directory::create(state.path().join("head")).expect("a directory of our own");
        let head = Head::open_with(&directory, Box::new(self.clone()), UnixTime::now());
        House::of(state, head.unwrap_or_else(|error| panic!("{error}")))
    }

    fn reach<T>(&self, what: impl FnOnce(&mut Option<Vec<u8>>) -> T) -> Result<T, IdentityError> {
        match self.is_away.load(Ordering::Relaxed) {
            true => {
                let error = std::io::ErrorKind::NotConnected.into();
                Err(IdentityError::Io { what: "cannot reach", path: self.place(), error })
            }
            false => Ok(what(&mut self.kept.lock())),
        }
    }
}

impl Members for Common {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
        self.reach(|kept| kept.clone().map(Zeroizing::new))
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), IdentityError> {
        self.reach(|kept| *kept = Some(bytes.to_vec()))
    }

    fn place(&self) -> PathBuf {
        PathBuf::from("in common")
    }
}

#[tokio::test]
async fn the_next_head_knows_the_tokens_and_who_is_cut_off() {
    let (common, now) = (Common::default(), UnixTime::now());
    let first = common.house(tempfile::tempdir().expect("a directory"));
    let state = tempfile::tempdir().expect("a directory");
    Directory::create(state.path().join("head")).expect("a directory of our own");
    let authority = |state: &TempDir| state.path().join("head/authority");
    fs::copy(authority(&first.state), authority(&state)).expect("handed over");
    let second = common.house(state);
    assert_eq!(first.head.cluster(), second.head.cluster());

    let token = first.token(Role::Worker, 1);
    first.head.revoke_node(NodeUid(7), now).expect("written");
    assert!(second.head.tokens(now).is_empty() && !second.head.is_revoked(NodeUid(7)), "it does not lead yet");
    second.head.read_again().expect("it is there");
    assert_eq!(second.head.tokens(now), first.head.tokens(now));
    assert!(second.head.is_revoked(NodeUid(7)));
    second.join(&token, Role::Worker).await.1.expect("it is good there");
    first.head.read_again().expect("it is there");
    assert_eq!(first.join(&token, Role::Worker).await.1, Err(Refusal::UsedUp));
}

#[tokio::test]
async fn a_head_that_cannot_keep_what_it_decides_decides_nothing() {
    let (common, now) = (Common::default(), UnixTime::now());
    let house = common.house(tempfile::tempdir().expect("a directory"));
    let token = house.token(Role::Worker, 1);
    common.is_away.store(true, Ordering::Relaxed);
    let (joined, served) = house.join(&token, Role::Worker).await;
    assert!(matches!(served, Err(Refusal::HeadFailed(_))));
    assert!(matches!(joined.map(|_| ()), Err(JoinError::Io { .. })), "it may be asked again, here or elsewhere");
    assert!(house.head.revoke_node(NodeUid(7), now).is_err());
    assert!(house.head.revoke_token(token.id(), now).is_err());
    assert!(house.head.read_again().is_err());
    assert!(!house.head.is_revoked(NodeUid(7)));
    assert_eq!(house.head.tokens(now)[0].uses_left, 1);
    common.is_away.store(false, Ordering::Relaxed);
    house.join(&token, Role::Worker).await.1.expect("it was not spent");
}

#[tokio::test]
async fn a_certificate_is_renewed_by_its_holder_alone() {
    let house = House::open();
    let now = UnixTime::now();
    let (worker, other) = (house.joined(Role::Worker).await, house.joined(Role::Client).await);
    let (renewed, served) = within(async { tokio::join!(renew(house.address, &worker), house.serve()) }).await;
    served.expect("its own");
    let renewed = renewed.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((renewed.uid, renewed.role), (worker.uid, worker.role));
    assert_ne!(renewed.credentials.chain[0], worker.credentials.chain[0]);
    let endpoint = Endpoint::new(worker.uid, &worker.credentials, false).expect("its own");
    endpoint.renew(&renewed.credentials).expect("for the same life");

    let for_another = |_: &JoinStream| bytes(&Request::Renew { uid: worker.uid, csr: csr() });
    let (_, refusal) = house.visit(Some(&other.credentials), now, for_another).await;
    assert_eq!(refusal, Refusal::NotTheHolder);

    // An authority that is not the head's: TLS ends it.
    let foreign = House::open().joined(Role::Worker).await;
    let dialed = dial_head(house.address, &worker.credentials.authority, Some(&foreign.credentials));
    let (dialed, accepted) = within(async { tokio::join!(dialed, house.accept()) }).await;
    assert!(matches!(accepted.map(|_| ()), Err(TlsError::Io { .. })));
    drop(dialed);
}

/// Theirs come from who knows that they live: a process's from its node and its job, a head's from itself.
#[tokio::test]
async fn processes_and_heads_renew_nothing_by_their_certificate() {
    let house = House::open();
    let now = UnixTime::now();
    let process = KeyRequest::new().expect("random numbers");
    let certified = house.head.certify(process.csr(), NodeUid(77), "job-1", now).expect("a process");
    let process = process.complete(certified);
    let own = house.head.credentials(HEAD, now).expect("its own");
    let mut all = Vec::new();
    for (credentials, uid) in [(&process, NodeUid(77)), (&own, HEAD)] {
        let renewal = |_: &JoinStream| bytes(&Request::Renew { uid, csr: csr() });
        let (heard, refusal) = house.visit(Some(credentials), now, renewal).await;
        assert_eq!(refusal, Refusal::WrongRole);
        all.push(heard);
    }
    let worker = house.joined(Role::Worker).await;
    let for_another = |_: &JoinStream| bytes(&Request::Renew { uid: HEAD, csr: csr() });
    all.push(house.visit(Some(&worker.credentials), now, for_another).await.0);
    assert!(all.iter().all(|heard| *heard == all[0] && !heard.is_empty()), "{all:?}");
    assert!(house.audit().lines().any(|line| line.contains("join refused") && line.contains("WrongRole")));
}

#[tokio::test]
async fn a_certificate_that_is_over_renews_nothing() {
    let house = House::open();
    let authority = house.authority();
    let key = KeyPair::generate().expect("a key");
    let yesterday = UnixTime::now().before(limits::CERTIFICATE_LIFE + HOUR);
    let old = authority.issue(&key, NodeUid(5), Role::Worker, yesterday).expect("issued");
    let joined = Joined {
        uid: old.uid,
        role: old.role,
        credentials: Credentials {
            chain: vec![old.certificate, authority.certificate().clone()],
            key: mobula_transport::tls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            authority: authority.certificate().clone(),
        },
        from: old.from,
        until: old.until,
    };
    let (renewed, accepted) = within(async { tokio::join!(renew(house.address, &joined), house.accept()) }).await;
    assert!(matches!(accepted.map(|_| ()), Err(TlsError::Io { .. })));
    assert!(renewed.is_err());
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_within_two_seconds() {
    let house = House::open();
    let worker = house.joined(Role::Worker).await;
    let side = Endpoint::new(worker.uid, &worker.credentials, false).expect("its own");
    let dial = side.dial(house.address, HEAD, Lane::Data);
    let (dialed, accepted) = within(async { tokio::join!(dial, house.accept()) }).await;
    let (Ok(dialed), Ok(Accepted::Node(accepted, _))) = (dialed, accepted) else { panic!("both are of the cluster") };
    let mut there = wire(dialed).expect("fresh");
    let _here = wire(accepted).expect("fresh");

    let mut known = house.head.revocations();
    let list = house.head.revoke_node(worker.uid, UnixTime::now()).expect("written");
    for uid in known.adopt(list) {
        house.endpoint.revoke(uid);
    }
    let heard = tokio::time::timeout(Duration::from_secs(2), there.read.read(&mut [0])).await.expect("within 2 s");
    assert!(matches!(heard, Ok(0) | Err(_)));
    let (renewed, served) = within(async { tokio::join!(renew(house.address, &worker), house.serve()) }).await;
    assert_eq!(served, Err(Refusal::Revoked));
    assert!(matches!(renewed.map(|_| ()), Err(JoinError::JoinRejected { .. })));
    let House { state, .. } = house;
    assert!(House::in_directory(state).head.revocations().contains(worker.uid), "also after a restart");
}

#[tokio::test]
async fn who_announces_too_much_or_says_nothing_is_refused() {
    let house = House::open();
    let authority = house.authority();
    let announces = async {
        let mut stream = dial_head(house.address, authority.certificate(), None).await.expect("the head");
        stream.write_all(&(limits::JOIN_REQUEST_BYTES_MAX as u32 + 1).to_be_bytes()).await.expect("open");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let ((), served) = within(async { tokio::join!(announces, house.serve()) }).await;
    assert!(matches!(served, Err(Refusal::BadRequest(text)) if text.contains("8193")));

    let silent = dial_head(house.address, authority.certificate(), None);
    let (silent, accepted) = within(async { tokio::join!(silent, house.accept()) }).await;
    let Ok(Accepted::Joiner(stream)) = accepted else { panic!("a joiner") };
    tokio::time::pause();
    let served = house.head.serve(stream, UnixTime::now()).await;
    assert!(matches!(served, Err(Refusal::BadRequest(text)) if text.contains("within 5 s")));
    drop(silent);
}

#[tokio::test]
async fn people_are_listed_until_they_are_over_or_cut_off() {
    let house = House::open();
    let now = UnixTime::now();
    house.joined(Role::Worker).await;
    let token = house.token(Role::Observer, 1);
    let observer = house.join(&token, Role::Observer).await.0.unwrap_or_else(|error| panic!("{error}"));
    let client = house.joined(Role::Client).await;
    let listed = house.head.credentials_of_people(now);
    let mut expected = [(observer.uid, Role::Observer), (client.uid, Role::Client)];
    expected.sort();
    assert_eq!(listed.iter().map(|one| (one.uid, one.role)).collect::<Vec<_>>(), expected);
    let row = |uid| house.head.credentials_of_people(now).into_iter().find(|one| one.uid == uid);
    let first = row(observer.uid).expect("it has joined");
    assert_eq!((first.token, first.from.ip()), (Some(token.id()), Ipv4Addr::LOCALHOST.into()));

    // Later, the same life.
    let later = now.after(HOUR);
    let (renewed, issued) =
        within(async { tokio::join!(renew(house.address, &observer), house.serve_at(later)) }).await;
    issued.expect("it holds the certificate");
    assert_eq!(renewed.unwrap_or_else(|error| panic!("{error}")).uid, observer.uid);
    let second = row(observer.uid).expect("it is there");
    assert_eq!((second.since, second.token), (first.since, first.token));
    assert!(second.until >= later.after(limits::CERTIFICATE_LIFE));
    assert_eq!(house.head.credentials_of_people(second.until), []);

    assert!(house.head.revoke_credential(client.uid, now).expect("written"));
    assert!(!house.head.revoke_credential(client.uid, now).expect("nothing to write"));
    assert!(house.head.is_revoked(client.uid) && row(client.uid).is_none());
    let (renewed, issued) = within(async { tokio::join!(renew(house.address, &client), house.serve()) }).await;
    assert!(matches!(renewed, Err(JoinError::JoinRejected { .. })));
    assert_eq!(issued.err(), Some(Refusal::Revoked));
    assert!(row(client.uid).is_none(), "it does not come back into the list");

    // The list outlives the head.
    let again = House::in_directory(house.state);
    assert_eq!(again.head.credentials_of_people(now).len(), 1);
    assert!(again.head.is_revoked(client.uid));
}
