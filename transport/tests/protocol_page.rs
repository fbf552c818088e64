//! `docs/protocol.md` says what the code does: the preface, and the bodies that a session writes.

#[path = "../../core/tests/page/mod.rs"]
mod page;

use std::time::{Duration, Instant};

use mobula_core::codec;
use mobula_core::frame::{self, Frame, MessageIndex};
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, NodeUid, RequestId, limits, schema_hash};
use mobula_transport::preface::{self, Acceptor, Dial, PrefaceError, Purpose, Secret, VERSIONS, Versions};
use mobula_transport::{Call, Hello, Lane, Received, Session, SessionConfig};
use page::{Page, assert_same};

const DIALER: NodeUid = NodeUid(0x0123_4567_89ab_cdef);
const ACCEPTOR: NodeUid = NodeUid(0xfedc_ba98_7654_3210);

fn secret() -> Secret {
    Secret::from_bytes(std::array::from_fn(|at| at as u8))
}

fn dial(versions: Versions) -> Dial {
    let nonce = std::array::from_fn(|at| 0xa0 + at as u8);
    Dial { dialer: DIALER, target: ACCEPTOR, lane: Lane::Control, versions, purpose: Purpose::Open, nonce }
}

#[test]
fn the_prefaces_are_what_the_code_writes_and_reads() {
    let page = Page::read();
    let (dialed, accepted) = (page.example("dial"), page.example("accept"));
    assert_same("dial", &dialed, &dial(VERSIONS).encode(&secret()));
    let dialed = dialed.try_into().expect("96 bytes");

    let (verdict, answer) = Acceptor::new(secret(), ACCEPTOR, VERSIONS).check(&dialed);
    assert_eq!(verdict, Ok(dial(VERSIONS)));
    assert_same("accept", &accepted, &answer.expect("a friend is answered"));
    let accepted = accepted.try_into().expect("56 bytes");
    assert_eq!(preface::check_answer(&secret(), &dial(VERSIONS), &dialed, &accepted), Ok(VERSIONS.max));
}

#[test]
fn the_refusal_of_another_version_is_what_the_code_writes_and_reads() {
    let refused = Page::read().example("accept-no-common-version");
    let later = dial(Versions { min: 4, max: 5 });
    let dialed = later.encode(&secret());
    let (verdict, answer) = Acceptor::new(secret(), ACCEPTOR, VERSIONS).check(&dialed);
    assert!(matches!(verdict, Err(PrefaceError::VersionIncompatible { .. })));
    assert_same("accept-no-common-version", &refused, &answer.expect("a friend is answered"));
    let read = preface::check_answer(&secret(), &later, &dialed, &refused.try_into().expect("56 bytes"));
    let incompatible = PrefaceError::VersionIncompatible { ours: later.versions, theirs: VERSIONS };
    assert_eq!(read, Err(incompatible));
}

#[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
fn start() -> Instant {
    Instant::now()
}

fn hello() -> Hello {
    Hello {
        node: NodeId::new("node-1", DIALER),
        pid: 4242,
        capabilities: Hello::CAPABILITIES,
        credit_messages: limits::CREDIT_MESSAGES,
    }
}

/// A session of `node-1` that has heard the page's hello, as if from a peer.
fn session(now: Instant) -> Session<()> {
    let mut session = Session::new(SessionConfig::new(Lane::Control), &hello(), Some(DIALER), now);
    let page = Page::read().example("hello");
    assert_same("hello", &page, &session.take_transmit());
    session.handle_written(page.len(), now);
    let Ok(Some((frame, _))) = frame::decode(&page, 1000) else { panic!("a frame") };
    assert!(matches!(session.receive(frame, now), Ok(Received::Nothing)));
    assert_eq!(session.peer(), Some(&hello()));
    session
}

#[test]
fn a_session_writes_and_reads_the_frames_of_the_page() {
    let page = Page::read();
    let now = start();
    let mut session = session(now);
    let increment = b"\x81\xa2by\x05";
    let call = Call {
        target: ActorId(7),
        key: MessageKey::of("counter::Increment"),
        name: "counter::Increment",
        schema: schema_hash("foobar"),
        deadline: Deadline::after(now, Duration::from_secs(30)),
    };
    let body = |out: &mut bytes::BytesMut| {
        out.extend_from_slice(increment);
        Ok(())
    };
    let (request, _) = session.ask(&call, (), now, body).expect("credit is there");
    session.tell(&Call { deadline: Deadline::NEVER, ..call }, || (), now, body).expect("credit is there");
    session.cancel(request);
    session.grant(ActorId(7), 256);
    let result = |out: &mut bytes::BytesMut| codec::encode_into(&42_i64, out);
    session.reply(RequestId(1 << 32), result).expect("it fits");
    session.fail(RequestId(1 << 32), &CallError::NoSuchActor { actor: ActorId(7) });
    session.fail(RequestId(1 << 32), &CallError::Stopped);
    let posted = session.post(&Call { deadline: Deadline::NEVER, ..call }, (), now, body).expect("credit is there");
    let item = |out: &mut bytes::BytesMut| codec::encode_into(&42_i64, out);
    session.item(RequestId(1 << 32), item).expect("it fits");
    session.more(posted.0, 16);
    session.undelivered(ActorId(7), MessageIndex(0), &CallError::Stopped);
    session.go_away("draining");
    session.go_away("again");
    session.goodbye("draining");
    session.handle_timeout(now + Duration::from_millis(1500)).expect("alive");
    let Ok(Some((ping, _))) = frame::decode(b"\0\0\0\x0a\x01\0\0\0\0\0\0\0\x05\xdc", 1000) else { panic!("a ping") };
    session.receive(ping, now).expect("a ping");

    let sent = session.take_transmit();
    let mut rest = &sent[..];
    for name in [
        "ping",
        "pong",
        "define",
        "ask",
        "tell",
        "cancel",
        "credit",
        "reply",
        "failure",
        "failure-without-fields",
        "post",
        "item",
        "more",
        "undelivered",
        "go-away",
        "goodbye",
    ] {
        let (_, length) = frame::decode(rest, 1000).expect("own bytes").expect("whole");
        let mut expected = page.example(name);
        if let "post" | "more" = name {
            // Of the second request of this session, where the page shows the first.
            expected[6..14].copy_from_slice(&posted.0.0.to_be_bytes());
        }
        assert_same(name, &expected, &rest[..length]);
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn a_session_reads_what_the_page_defines() {
    let page = Page::read();
    let now = start();
    let mut session = session(now);
    let (define, ask) = (page.example("define"), page.example("ask"));
    let Ok(Some((frame, _))) = frame::decode(&define, 1000) else { panic!("a frame") };
    let Ok(Received::Define { index, name, schema }) = session.receive(frame, now) else { panic!("a define") };
    assert_eq!((index.0, name.as_str(), schema), (0, "counter::Increment", schema_hash("foobar")));
    let Ok(Some((frame @ Frame::Ask { .. }, _))) = frame::decode(&ask, 1000) else { panic!("an ask") };
    let Ok(Received::Request { request, target, deadline, .. }) = session.receive(frame, now) else {
        panic!("a request")
    };
    assert_eq!((request, target), (Some(RequestId(1 << 32)), ActorId(7)));
    assert_eq!(deadline, Deadline::after(now, Duration::from_secs(30)));
}
