//! What strangers send: prefaces, tokens, requests to join.

use mobula_core::{NodeUid, codec};
use mobula_identity::{Ledger, Lines, Request, Revocations, Role, Token, TokenId, TokenInfo, UnixTime};
use mobula_transport::Lane;
use mobula_transport::preface::{self, ACCEPT_BYTES, Acceptor, DIAL_BYTES, Dial, Purpose, Secret, VERSIONS};

const UID: NodeUid = NodeUid(2);

/// A preface that differs in any bit is refused without a byte, and so is an answer.
pub(crate) fn preface(data: &[u8]) {
    let secret = Secret::from_bytes([7; 32]);
    let dial = Dial {
        dialer: NodeUid(1),
        target: UID,
        lane: Lane::Data,
        versions: VERSIONS,
        purpose: Purpose::Open,
        nonce: [3; 32],
    };
    let right = dial.encode(&secret);
    let acceptor = || Acceptor::new(secret.clone(), UID, VERSIONS);
    let (_, Some(right_answer)) = acceptor().check(&right) else { panic!("a friend is answered") };

    let mut bytes = [0; DIAL_BYTES];
    let length = data.len().min(DIAL_BYTES);
    bytes[..length].copy_from_slice(&data[..length]);
    let (verdict, answer) = acceptor().check(&bytes);
    assert!(bytes == right || (verdict.is_err() && answer.is_none()), "a stranger was answered");
    // The same bytes as changes of a right one, and of the answer to it.
    let mut changed = right;
    changed.iter_mut().zip(&bytes).for_each(|(byte, change)| *byte ^= change);
    let (verdict, answer) = acceptor().check(&changed);
    assert_eq!((verdict.is_ok(), answer.is_some()), (changed == right, changed == right));
    let mut answer: [u8; ACCEPT_BYTES] = right_answer;
    answer.iter_mut().zip(&bytes).for_each(|(byte, change)| *byte ^= change);
    assert_eq!(preface::check_answer(&secret, &dial, &right, &answer).is_ok(), answer == right_answer);
}

/// What is read as a token is written as it was.
pub(crate) fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = Token::parse(text) {
        assert_eq!(*token.expose(), text.trim());
        assert!(token.public_key().is_some());
    }
}

/// A request is read or refused, none that was not signed is accepted, and no life comes back twice.
pub(crate) fn join_request(data: &[u8]) {
    let Ok(request) = Request::decode(data) else { return };
    let bytes = codec::encode(&request).expect("it was read");
    assert_eq!(Request::decode(&bytes).expect("it was written"), request);
    let now = UnixTime(1_000);
    if let Request::Return { uid, .. } = request {
        let mut lines = Lines::default();
        let mut back = |key| lines.comes_back(&Revocations::default(), uid, uid, [key; 16], NodeUid(!uid.0), now).ok();
        assert_eq!([back(1), back(2), back(1)], [Some(NodeUid(!uid.0)), None, Some(NodeUid(!uid.0))], "twice");
    }
    if let Request::Join { token, role, csr, signature } = request {
        let mut ledger = Ledger::default();
        let info = TokenInfo { id: TokenId(1), role: Role::Worker, uses_left: 1, expires: UnixTime(2_000) };
        ledger.add(info, [9; 32], now).expect("room");
        assert!(ledger.spend(token, role, &csr, &signature, now).is_err(), "nobody signed that");
        assert_eq!(ledger.list(now), [info]);
    }
}
