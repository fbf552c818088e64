//! Those who come back without a token, and those who only say that they do.

use mobula_identity::{NextKey, come_back};

use super::*;

impl House {
    /// A key for the next life of `last`, in a file of that name.
    fn key(&self, name: &str, last: &Joined) -> NextKey {
        NextKey::open(&self.state.path().join(name), last).expect("room")
    }

    async fn come_back(&self, last: &Joined, key: &NextKey) -> (Result<Joined, JoinError>, Result<Issued, Refusal>) {
        within(async { tokio::join!(come_back(self.address, last, key), self.serve()) }).await
    }

    async fn renewed(&self, joined: &Joined) -> Result<Joined, Refusal> {
        let (renewed, served) = within(async { tokio::join!(renew(self.address, joined), self.serve()) }).await;
        served.map(|_| renewed.unwrap_or_else(|error| panic!("{error}")))
    }

    /// As a life that comes back, with a key that nobody has had.
    async fn returned(&self, last: &Joined) -> Result<Joined, Refusal> {
        let (returned, served) = self.come_back(last, &self.key(&format!("key-{}", last.uid), last)).await;
        served.map(|_| returned.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// A return of the life `uid`, with a key of its own.
fn return_of(uid: NodeUid) -> Vec<u8> {
    bytes(&Request::Return { uid, csr: csr() })
}

fn copy(credentials: &Credentials) -> Credentials {
    let Credentials { chain, key, authority } = credentials;
    Credentials { chain: chain.clone(), key: key.clone_key(), authority: authority.clone() }
}

#[tokio::test]
async fn a_worker_comes_back_without_a_token_as_another_life() {
    let house = House::open();
    let first = house.joined(Role::Worker).await;
    let second = house.returned(&first).await.expect("its own");
    assert_ne!(second.uid, first.uid);
    assert_eq!((second.role, &second.credentials.authority), (Role::Worker, &first.credentials.authority));
    assert_ne!(second.credentials.key.secret_der(), first.credentials.key.secret_der());
    let endpoint = Endpoint::new(second.uid, &second.credentials, false).expect("good credentials");
    assert!(Endpoint::new(first.uid, &second.credentials, false).is_err(), "it is for the new life alone");
    let dial = endpoint.dial(house.address, HEAD, Lane::Control);
    let (dialed, accepted) = within(async { tokio::join!(dial, house.accept()) }).await;
    let (Ok(_), Ok(Accepted::Node(accepted, _))) = (dialed, accepted) else { panic!("both are of the cluster") };
    assert!(accepted.peer_is(&node_name(second.uid)) && !accepted.peer_is(&node_name(first.uid)));
    let audit = house.audit();
    let line = format!("worker {}, which was {}", second.uid, first.uid);
    assert!(audit.contains("came back") && audit.contains(&line), "{audit}");
    // And again, also with a certificate that was renewed in between.
    let renewed = house.renewed(&second).await.expect("it lives");
    let third = house.returned(&renewed).await.expect("its own");
    let fourth = house.returned(&third).await.expect("its own");
    for (over, name) in [(&first, "first"), (&second, "second"), (&renewed, "renewed"), (&third, "third")] {
        assert_eq!(house.come_back(over, &house.key("another", over)).await.1, Err(Refusal::Superseded), "{name}");
        assert_eq!(house.renewed(over).await.map(|_| ()), Err(Refusal::Superseded), "{name}");
    }
    house.renewed(&fourth).await.map(|_| ()).expect("the newest life goes on");
}

#[tokio::test]
async fn who_has_heard_no_answer_comes_again_and_gets_the_same_life() {
    let house = House::open();
    let first = house.joined(Role::Worker).await;
    let key = house.key("next", &first);
    let authority = house.authority();
    // It asks, and is gone before the answer.
    let asks = async {
        let mut stream = dial_head(house.address, authority.certificate(), Some(&first.credentials)).await.expect("it");
        drop(stream.write_all(&[0]).await);
    };
    let ((), served) = within(async { tokio::join!(asks, house.serve()) }).await;
    assert!(matches!(served, Err(Refusal::BadRequest(_))));
    let given = house.come_back(&first, &key).await.1.expect("the answer that is lost");
    // After its restart, with the key that it has kept.
    let key = house.key("next", &first);
    let second = house.come_back(&first, &key).await.0.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(second.uid, given.uid);
    assert_eq!(house.come_back(&first, &house.key("copy", &first)).await.1, Err(Refusal::Superseded));
    // That key has served: the life after it has another.
    let third = house.come_back(&second, &house.key("next", &second)).await.0.unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(third.credentials.key.secret_der(), second.credentials.key.secret_der());
    key.has_served();
    assert!(!house.state.path().join("next").exists());
}

#[tokio::test]
async fn every_refusal_of_a_return_is_the_same_on_the_wire() {
    let house = House::open();
    let now = UnixTime::now();
    let (worker, revoked, over) =
        (house.joined(Role::Worker).await, house.joined(Role::Worker).await, house.joined(Role::Worker).await);
    house.head.revoke_node(revoked.uid, now).expect("written");
    let successor = house.returned(&over).await.expect("once");
    let removed_successor = house.joined(Role::Worker).await;
    let key = house.key("removed", &removed_successor);
    let removed = house.come_back(&removed_successor, &key).await.1.expect("once").uid;
    house.head.revoke_node(removed, now).expect("written");
    let process = KeyRequest::new().expect("random numbers");
    let certified = house.head.certify(process.csr(), NodeUid(77), "job-1", now).expect("a process");
    let process = process.complete(certified);
    let heads = house.head.credentials(HEAD, now).expect("its own");
    let others = [Role::Client, Role::Operator, Role::Observer];
    let (client, operator, observer) =
        (house.joined(others[0]).await, house.joined(others[1]).await, house.joined(others[2]).await);

    let mut all = Vec::new();
    let mut visit = async |own: Option<&Credentials>, request: Vec<u8>| {
        let (heard, refusal) = house.visit(own, now, |_| request).await;
        all.push(heard);
        refusal
    };
    let own = Some(&worker.credentials);
    assert_eq!(visit(Some(&revoked.credentials), return_of(revoked.uid)).await, Refusal::Revoked);
    assert_eq!(visit(Some(&over.credentials), return_of(over.uid)).await, Refusal::Superseded);
    for (member, name) in [(&client, "client"), (&operator, "operator"), (&observer, "observer")] {
        assert_eq!(visit(Some(&member.credentials), return_of(member.uid)).await, Refusal::WrongRole, "{name}");
    }
    assert_eq!(visit(Some(&process), return_of(NodeUid(77))).await, Refusal::WrongRole);
    assert_eq!(visit(Some(&heads), return_of(HEAD)).await, Refusal::WrongRole);
    // The certificate is another life's, or nobody's.
    assert_eq!(visit(own, return_of(successor.uid)).await, Refusal::NotTheHolder);
    assert_eq!(visit(own, return_of(HEAD)).await, Refusal::NotTheHolder);
    assert_eq!(visit(None, return_of(worker.uid)).await, Refusal::NotTheHolder);
    let broken = bytes(&Request::Return { uid: worker.uid, csr: vec![0x30, 0] });
    assert!(matches!(visit(own, broken).await, Refusal::BadRequest(_)));
    // Whoever was removed does not come back as the life before, with the key that was good for it either.
    let (again, refusal) = house.come_back(&removed_successor, &key).await;
    assert_eq!(refusal, Err(Refusal::Revoked));
    assert!(matches!(again.map(|_| ()), Err(JoinError::JoinRejected { .. })));
    // As a token that is not good.
    let token = Token::new(house.head.cluster().0, TokenId(1), Zeroizing::new([7; 32]));
    let (heard, _) = house.visit(None, now, |stream| bytes(&honest(&house, stream, &token, Role::Worker))).await;
    all.push(heard);
    assert!(all.iter().all(|heard| *heard == all[0] && !heard.is_empty()), "{all:?}");
    let audit = house.audit();
    for reason in ["Revoked", "Superseded", "WrongRole"] {
        let line = audit.lines().find(|line| line.contains("return refused") && line.contains(reason));
        assert!(line.is_some(), "{reason}: {audit}");
    }
    // None of them has taken anything from the one that may.
    house.returned(&worker).await.map(|_| ()).expect("its own");
}

/// TLS ends it: the head reads no request of theirs.
#[tokio::test]
async fn a_certificate_that_is_not_the_clusters_or_is_over_is_not_heard() {
    let house = House::open();
    let worker = house.joined(Role::Worker).await;
    let foreign = House::open().joined(Role::Worker).await;
    let own_key = KeyPair::generate().expect("a key");
    let mut names = CertificateParams::new(vec![node_name(worker.uid), role_name("worker")]).expect("names");
    names.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let self_signed = names.self_signed(&own_key).expect("signed").der().clone();
    let key = |key: &KeyPair| mobula_transport::tls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let authority = house.authority();
    let yesterday = UnixTime::now().before(limits::CERTIFICATE_LIFE + HOUR);
    let old = authority.issue(&own_key, worker.uid, Role::Worker, yesterday).expect("issued");
    let with = |own, key| {
        let authority = authority.certificate().clone();
        let credentials = Credentials { chain: vec![own, authority.clone()], key, authority };
        Joined { uid: worker.uid, role: Role::Worker, credentials, from: worker.from, until: worker.until }
    };
    let mut foreign_here = with(foreign.credentials.chain[0].clone(), foreign.credentials.key.clone_key());
    foreign_here.uid = foreign.uid;
    let (self_signed, old) = (with(self_signed, key(&own_key)), with(old.certificate, key(&own_key)));
    for (joined, what) in [(&self_signed, "self-signed"), (&old, "over"), (&foreign_here, "another's")] {
        let key = house.key(what, joined);
        let (back, accepted) =
            within(async { tokio::join!(come_back(house.address, joined, &key), house.accept()) }).await;
        assert!(back.is_err(), "{what}");
        assert!(matches!(accepted.map(|_| ()), Err(TlsError::Io { .. })), "{what}");
    }
    // It keeps to its own cluster as well.
    let key = foreign_here.uid.to_string();
    let key = house.key(&key, &foreign);
    let both = async {
        tokio::select! { back = come_back(house.address, &foreign, &key) => back, _ = house.serve() => panic!("no request") }
    };
    assert!(matches!(within(both).await, Err(JoinError::Tls(TlsError::Io { .. }))));
    house.returned(&worker).await.map(|_| ()).expect("its own");
}

/// What proves the holder is the connection: a request that was heard elsewhere is nobody's.
#[tokio::test]
async fn a_return_that_is_relayed_or_replayed_is_refused() {
    let house = House::open();
    let now = UnixTime::now();
    let (worker, other) = (house.joined(Role::Worker).await, house.joined(Role::Worker).await);
    let relayed = return_of(worker.uid);
    for own in [None, Some(&other.credentials)] {
        let (_, refusal) = house.visit(own, now, |_| relayed.clone()).await;
        assert_eq!(refusal, Refusal::NotTheHolder);
    }
    // One that was accepted, over a connection of somebody else's, and over one more of its own after the successor has come back.
    let authority = house.authority();
    let sent = async {
        let own = copy(&worker.credentials);
        let mut stream = dial_head(house.address, authority.certificate(), Some(&own)).await.expect("the head");
        stream.write_all(&[&(relayed.len() as u32).to_be_bytes()[..], &relayed].concat()).await.expect("open");
        stream.read_to_end(&mut Vec::new()).await.expect("a clean end");
    };
    let ((), served) = within(async { tokio::join!(sent, house.serve()) }).await;
    let second = served.expect("its own, for the first time").uid;
    let (_, refusal) = house.visit(None, now, |_| relayed.clone()).await;
    assert_eq!(refusal, Refusal::NotTheHolder);
    house.head.revoke_node(second, now).expect("written");
    let (_, refusal) = house.visit(Some(&worker.credentials), now, |_| relayed.clone()).await;
    assert_eq!(refusal, Refusal::Revoked);
}

#[tokio::test]
async fn one_bit_wrong_in_a_return_is_refused() {
    let house = House::open();
    let worker = house.joined(Role::Worker).await;
    let length = return_of(worker.uid).len();
    for at in (0..length - 8).step_by(17) {
        let (heard, _) = house
            .visit(Some(&worker.credentials), UnixTime::now(), |_| {
                let mut body = return_of(worker.uid);
                body[at] ^= 1 << (at % 8);
                body
            })
            .await;
        assert!(!heard.is_empty());
    }
    house.returned(&worker).await.map(|_| ()).expect("nothing was spent");
}

#[tokio::test]
async fn who_has_come_back_is_on_disk_before_an_answer_and_known_to_the_next_head() {
    let house = House::open();
    let first = house.joined(Role::Worker).await;
    let obstacle = house.state.path().join("head/members.new");
    fs::create_dir_all(obstacle.join("x")).expect("made");
    let key = house.key("next", &first);
    let (back, served) = house.come_back(&first, &key).await;
    assert!(matches!(served, Err(Refusal::HeadFailed(_))));
    // It may work later: who is told no does not try again.
    assert!(matches!(back.map(|_| ()), Err(JoinError::Io { .. })));
    fs::remove_dir_all(&obstacle).expect("ours");
    let second = house.come_back(&first, &key).await.0.unwrap_or_else(|error| panic!("{error}"));
    let House { state, head, .. } = house;
    drop(head);
    let house = House::in_directory(state);
    assert_eq!(house.come_back(&first, &house.key("copy", &first)).await.1, Err(Refusal::Superseded));
    house.returned(&second).await.map(|_| ()).expect("its own");

    let common = Common::default();
    let one = common.house(tempfile::tempdir().expect("a directory"));
    let state = tempfile::tempdir().expect("a directory");
    Directory::create(state.path().join("head")).expect("a directory of our own");
    fs::copy(one.state.path().join("head/authority"), state.path().join("head/authority")).expect("handed over");
    let next = common.house(state);
    let first = one.joined(Role::Worker).await;
    let second = one.returned(&first).await.expect("its own");
    next.head.read_again().expect("it is there");
    assert_eq!(next.come_back(&first, &next.key("copy", &first)).await.1, Err(Refusal::Superseded));
    next.returned(&second).await.map(|_| ()).expect("its own, at another head");
}
