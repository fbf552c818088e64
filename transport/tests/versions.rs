//! Nodes of this version and of the one before it talk, and others refuse each other clearly.

#[allow(dead_code)]
mod common;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::*;
use mobula_core::frame::{self, Frame};
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, NodeUid, limits};
use mobula_transport::preface::{
    self, ACCEPT_BYTES, Acceptor, DIAL_BYTES, Dial, PrefaceError, Purpose, Secret, VERSIONS, Versions,
};
use mobula_transport::tcp::{self, ConnectError};
use mobula_transport::{Call, Hello, Lane, Received, Session, SessionConfig, Wire};

const OLD: Versions = Versions { min: 1, max: 1 };
const NEW: Versions = Versions { min: 1, max: 2 };
const NEWEST: Versions = VERSIONS;

/// A connection between a dialer and an acceptor that speak these versions.
async fn wires(dialer: Versions, acceptor: Versions) -> (Wire, Wire) {
    let port = Port::speaking(acceptor);
    let secret = Port::secret();
    let dialed = tcp::dial_speaking(dialer, port.address, &secret, Port::DIALER, Port::UID, Lane::Data);
    let (dialed, accepted) = within(async { tokio::join!(dialed, port.accept()) }).await;
    let (dialed, (accepted, _)) = (dialed.expect("a common version"), accepted.expect("a common version"));
    assert_eq!(dialed.version, accepted.version);
    (tcp::wire(dialed).expect("a socket"), tcp::wire(accepted).expect("a socket"))
}

#[tokio::test]
async fn the_newest_common_version_is_spoken() {
    for (dialer, acceptor, version) in [
        (OLD, OLD, 1),
        (OLD, NEW, 1),
        (NEW, OLD, 1),
        (NEW, NEW, 2),
        (OLD, NEWEST, 1),
        (NEWEST, OLD, 1),
        (NEW, NEWEST, 2),
        (NEWEST, NEW, 2),
        (NEWEST, NEWEST, 3),
    ] {
        let (one, two) = wires(dialer, acceptor).await;
        assert_eq!((one.version, two.version), (version, version), "{dialer:?} dials {acceptor:?}");
    }
}

#[tokio::test]
async fn an_older_node_and_a_newer_one_talk() {
    for (dialer, acceptor) in [(OLD, NEWEST), (NEWEST, OLD)] {
        // A session of version 1 ends the connection over anything that version 1 does not know.
        let (here, there) = wires(dialer, acceptor).await;
        let (here, _) = Side::new(here, 1, Mode::Echo, data()).run();
        let (there, seen) = Side::new(there, 2, Mode::Echo, data()).run();
        for link in [&here, &there] {
            within(link.opened()).await.expect("open");
            let ends: Vec<_> = (0..200_u32).map(|number| ask(link, A, &number.to_be_bytes())).collect();
            for (number, end) in (0..200_u32).zip(ends) {
                assert_eq!(within(end).await, Ok(End::Answer(number.to_be_bytes().to_vec())));
            }
            // Larger than a fragment, and in one piece.
            let payload = vec![7; 10 * limits::FRAGMENT_BYTES];
            assert_eq!(within(ask(link, A, &payload)).await, Ok(End::Answer(payload)));
            let (told, _) = tell(link, A, &vec![0; limits::FRAME_BYTES_MAX]);
            assert!(matches!(told, Err(CallError::Encode { reply: false, .. })), "{told:?}");
            // What only version 2 has is refused here, and not at the other side.
            let Err((error, _)) = link.post(&to(A), waiting().0, bytes(b"x")) else { panic!("version 1 has no posts") };
            let CallError::Encode { reason, reply: false } = &error else { panic!("{error}") };
            assert!(reason.contains("version 1") && reason.contains("upgrade"), "{reason}");
            link.undelivered(A, mobula_core::frame::MessageIndex(0), &CallError::Stopped);
            link.kick();
            assert_eq!(within(ask(link, A, b"still here")).await, Ok(End::Answer(b"still here".to_vec())));
        }
        assert_eq!(*seen.closed.borrow(), None);
    }
}

#[tokio::test]
async fn without_a_common_version_both_sides_say_which_they_speak() {
    let later = Versions { min: 3, max: 4 };
    for (dialer, acceptor) in [(NEW, later), (later, NEW)] {
        let port = Port::speaking(acceptor);
        let secret = Port::secret();
        let dialed = tcp::dial_speaking(dialer, port.address, &secret, Port::DIALER, Port::UID, Lane::Data);
        let (dialed, accepted) = within(async { tokio::join!(dialed, port.accept()) }).await;
        let refusal = |error: ConnectError| match error {
            ConnectError::Preface { error: PrefaceError::VersionIncompatible { ours, theirs }, .. } => (ours, theirs),
            error => panic!("{error}"),
        };
        assert_eq!(refusal(dialed.expect_err("nothing in common")), (dialer, acceptor));
        assert_eq!(refusal(accepted.map(|_| ()).expect_err("nothing in common")), (acceptor, dialer));
    }
}

/// What a node of version 1 sent; recorded when there was no other version.
fn recorded(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/recorded/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the recording is there");
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).expect("hexadecimal") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn recorded_secret() -> Secret {
    Secret::from_bytes(std::array::from_fn(|at| at as u8))
}

#[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
fn start() -> Instant {
    Instant::now()
}

/// Hears what the recorded node 1 said, as node 2. Returns what it meant.
fn hear(frames: &[u8], lane: Lane, version: u16) -> Vec<String> {
    let now = start();
    let hello = Hello {
        node: NodeId::new("node-2", NodeUid(2)),
        pid: 1,
        capabilities: Hello::CAPABILITIES,
        credit_messages: 1024,
    };
    let config = SessionConfig { version, ..SessionConfig::new(lane) };
    let mut session: Session<u32> = Session::new(config, &hello, Some(NodeUid(1)), now);
    let (mut rest, mut heard) = (frames, Vec::new());
    while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("whole frames") {
        rest = &rest[length..];
        let opens = matches!(frame, Frame::Hello { .. });
        match session.receive(frame, now) {
            Ok(Received::Nothing) => {}
            Ok(Received::Define { index, name, schema }) => heard.push(format!("{} is {name} {schema}", index.0)),
            Ok(Received::Request { request, post: false, target, message, deadline, payload }) => {
                let left = deadline.budget(now).0;
                heard.push(format!(
                    "{:x?} to {target}: {} within {left}: {payload:x?}",
                    request.map(|id| id.0),
                    message.0
                ));
            }
            Ok(Received::Reply { to, payload }) => heard.push(format!("ask {to} is answered {:x?}", &payload[..])),
            Ok(Received::Failure { to, error }) => heard.push(format!("ask {to} fails: {error}")),
            Ok(Received::Cancel { request }) => heard.push(format!("{:x} is cancelled", request.0)),
            Ok(other) => panic!("version 1 has no {other:?}"),
            Err(end) => heard.push(end.to_string()),
        }
        if opens {
            // To be answered by what was recorded: two for actor 5, whose credit it returns, and two more.
            for (number, target) in [5, 5, 6, 7].into_iter().enumerate() {
                let (target, key) = (ActorId(target), MessageKey::of("test::Asked"));
                let call = Call {
                    target,
                    key,
                    name: "test::Asked",
                    schema: 1,
                    deadline: Deadline::after(now, Duration::from_secs(9)),
                };
                let asked = session.ask(&call, number as u32, now, bytes(b"\xc0"));
                asked.map_err(|(error, _)| error).expect("there is credit");
            }
        }
    }
    assert!(rest.is_empty());
    let sent: BytesMut = session.take_transmit();
    let mut rest = &sent[..];
    while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("own bytes") {
        assert_eq!(frame.unknown_in(1), None, "version 1 does not know {frame:?}");
        rest = &rest[length..];
    }
    heard
}

fn expected() -> Vec<String> {
    [
        "0 is recorded::Ask 7",
        "Some(100000000) to 1: 0 within 30000: Whole([81, a2, 62, 79, 5])",
        "1 is recorded::Tell 7",
        "None to 1: 1 within 4294967295: Whole([c0])",
        "2 is recorded::Node 7",
        "Some(200000001) to 0: 2 within 500: Whole([a3, 68, 65, 79])",
        "Some(300000002) to 2: 0 within 4294967295: Whole([c3])",
        "300000002 is cancelled",
        "ask 0 is answered [2a]",
        "ask 1 fails: no actor 9 on that node: it has stopped or never was (the handler did not run; safe to retry)",
        "ask 2 fails: the actor stopped before it came to this message (the handler did not run; safe to retry)",
        "ask 3 fails: actor 9 (generation 2) panicked while handling `recorded::Ask`: boom (the handler ran; a retry runs it again)",
        "the peer said goodbye: recorded",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn a_recorded_dialer_of_version_1_is_understood() {
    let bytes = recorded("v1-dialer");
    let (preface, frames) = bytes.split_first_chunk::<DIAL_BYTES>().expect("a preface");
    let mut acceptor = Acceptor::new(recorded_secret(), NodeUid(2), NEW);
    let (verdict, answer) = acceptor.check(preface);
    let dial = verdict.expect("it knows the secret");
    assert_eq!((acceptor.agreed(&dial), dial.lane), (1, Lane::Control));
    let old = Dial {
        dialer: NodeUid(1),
        target: NodeUid(2),
        lane: Lane::Control,
        versions: OLD,
        purpose: Purpose::Open,
        nonce: [7; 32],
    };
    let answer = answer.expect("a friend is answered");
    assert_eq!(preface::check_answer(&recorded_secret(), &old, preface, &answer), Ok(1), "it understands the answer");
    assert_eq!(hear(frames, Lane::Control, 1), expected());
}

#[test]
fn a_recorded_acceptor_of_version_1_is_understood() {
    let bytes = recorded("v1-acceptor");
    let (answer, frames) = bytes.split_first_chunk::<ACCEPT_BYTES>().expect("an answer");
    let dial = Dial {
        dialer: NodeUid(2),
        target: NodeUid(1),
        lane: Lane::Data,
        versions: NEW,
        purpose: Purpose::Open,
        nonce: [8; 32],
    };
    let sent = dial.encode(&recorded_secret());
    assert_eq!(preface::check_answer(&recorded_secret(), &dial, &sent, answer), Ok(1));
    assert_eq!(hear(frames, Lane::Data, 1), expected());
}

/// What a node of version 3 sent, go-away among it; recorded when that was the newest.
#[test]
fn a_recorded_dialer_of_version_3_is_understood() {
    let recording = recorded("v3-dialer");
    let (preface, mut rest) = recording.split_first_chunk::<DIAL_BYTES>().expect("a preface");
    let (own, dialer) = (NodeUid(0xfedc_ba98_7654_3210), NodeUid(0x0123_4567_89ab_cdef));
    let mut acceptor = Acceptor::new(recorded_secret(), own, NEWEST);
    let dial = acceptor.check(preface).0.expect("it knows the secret");
    assert_eq!((acceptor.agreed(&dial), dial.lane, dial.purpose), (3, Lane::Control, Purpose::Open));
    let now = start();
    let hello =
        Hello { node: NodeId::new("node-2", own), pid: 1, capabilities: Hello::CAPABILITIES, credit_messages: 1024 };
    let config = SessionConfig { version: 3, ..SessionConfig::new(Lane::Control) };
    let mut session: Session<u32> = Session::new(config, &hello, Some(dialer), now);
    let call = Call {
        target: ActorId(5),
        key: MessageKey::of("test::Asked"),
        name: "test::Asked",
        schema: 1,
        deadline: Deadline::NEVER,
    };
    let (mut heard, mut before) = (Vec::new(), None);
    while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("whole frames") {
        rest = &rest[length..];
        if matches!(frame, Frame::GoAway { .. }) {
            before = Some(session.ask(&call, 1, now, bytes(b"\xc0")).map_err(|(error, _)| error));
        }
        match session.receive(frame, now) {
            Ok(Received::Nothing) => {}
            Ok(Received::Define { index, name, .. }) => heard.push(format!("{} is {name}", index.0)),
            Ok(Received::Request { request, post, target, payload, .. }) => {
                let request = request.map(|id| id.0);
                heard.push(format!("{request:x?} to {target}, post {post}: {:x?}", &payload[..]));
            }
            Ok(Received::Cancel { request }) => heard.push(format!("{:x} is cancelled", request.0)),
            Ok(other) => panic!("that was not sent: {other:?}"),
            Err(end) => heard.push(end.to_string()),
        }
    }
    assert!(rest.is_empty());
    assert!(matches!(before, Some(Ok(_))), "{before:?}");
    let after = session.ask(&call, 2, now, bytes(b"\xc0")).map_err(|(error, _)| error);
    assert!(matches!(&after, Err(error) if error.to_string().contains("draining")), "{after:?}");
    let expected = [
        "0 is counter::Increment",
        "Some(100000000) to 7, post false: [81, a2, 62, 79, 5]",
        "Some(100000000) to 7, post true: [81, a2, 62, 79, 5]",
        "None to 7, post false: [81, a2, 62, 79, 5]",
        "None to 7, post false: [81, a2, 62, 79, 5]",
        "100000000 is cancelled",
        "the peer said goodbye: draining",
    ];
    assert_eq!(heard, expected);
}
