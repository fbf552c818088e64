//! `docs/protocol.md` says what the code does: frames, bodies, failures and limits.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::BytesMut;
use mobula_core::codec::{self, DecodeError};
use mobula_core::frame::{self, Body, Frame, FrameError, Head, MessageIndex};
use mobula_core::packing;
use mobula_core::prescan::ELEMENTS_MAX;
use mobula_core::{ActorId, Budget, CallError, Generation, NodeId, NodeUid, RequestId, limits};
use page::{Page, assert_same};
use serde::Serialize;
use serde::de::IgnoredAny;

const REQUEST: RequestId = RequestId(1 << 32);
const COUNTER: ActorId = ActorId(7);
const INCREMENT: MessageIndex = MessageIndex(0);

#[derive(Serialize)]
struct Increment {
    by: i64,
}

/// The head and body of every example, as a program would write them.
fn written(name: &str, page: &[u8]) -> (Head, Vec<u8>) {
    let body = |value: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        value(&mut out);
        out.to_vec()
    };
    let increment = || codec::encode(&Increment { by: 5 }).expect("plain data");
    let failure = |error: CallError| codec::encode(&error).expect("plain data");
    match name {
        "ping" => (Head::Ping { nonce: 1500 }, Vec::new()),
        "pong" => (Head::Pong { nonce: 1500 }, Vec::new()),
        // The bodies of these two are made by mobula-transport, whose test compares them.
        "hello" => (Head::Hello, page[6..].to_vec()),
        "define" => (Head::Define { index: INCREMENT }, page[10..].to_vec()),
        "goodbye" => (Head::Goodbye, body(&|out| codec::encode_into("draining", out).expect("plain data"))),
        "go-away" => (Head::GoAway, body(&|out| codec::encode_into("draining", out).expect("plain data"))),
        "ack" => (Head::Ack { received: 131_072 }, Vec::new()),
        "resume" => (Head::Resume { session: 0xa0a1_a2a3_a4a5_a6a7, received: 131_200, attempt: 1 }, Vec::new()),
        "ask" => {
            let budget = Budget(30_000);
            (Head::Ask { request: REQUEST, target: COUNTER, message: INCREMENT, budget }, increment())
        }
        "tell" => (Head::Tell { target: COUNTER, message: INCREMENT, budget: Budget::NEVER }, increment()),
        "reply" => (Head::Reply { request: REQUEST }, codec::encode(&42_i64).expect("plain data")),
        "failure" => (Head::Failure { request: REQUEST }, failure(CallError::NoSuchActor { actor: COUNTER })),
        "failure-without-fields" => (Head::Failure { request: REQUEST }, failure(CallError::Stopped)),
        "cancel" => (Head::Cancel { request: REQUEST }, Vec::new()),
        "credit" => (Head::Credit { target: COUNTER, count: 256 }, Vec::new()),
        "post" => {
            (Head::Post { request: REQUEST, target: COUNTER, message: INCREMENT, budget: Budget::NEVER }, increment())
        }
        "item" => (Head::Item { request: REQUEST }, codec::encode(&42_i64).expect("plain data")),
        "more" => (Head::More { request: REQUEST, count: 16 }, Vec::new()),
        "undelivered" => (Head::Undelivered { target: COUNTER, message: INCREMENT }, failure(CallError::Stopped)),
        "fragment" => (Head::Fragment { number: 0 }, page[10..].to_vec()),
        "fragment-end" => (Head::FragmentEnd { number: 0 }, page[10..].to_vec()),
        "fragment-drop" => (Head::FragmentDrop { number: 1 }, Vec::new()),
        other => panic!("`bytes name={other}` is on the page, and no test knows it"),
    }
}

/// What reading has to make of what was written from `head`.
fn read_back<'a>(head: Head, body: &'a [u8]) -> Frame<'a> {
    match head {
        Head::Ping { nonce } => Frame::Ping { nonce },
        Head::Pong { nonce } => Frame::Pong { nonce },
        Head::Hello => Frame::Hello { body },
        Head::Goodbye => Frame::Goodbye { body },
        Head::GoAway => Frame::GoAway { body },
        Head::Ack { received } => Frame::Ack { received },
        Head::Resume { session, received, attempt } => Frame::Resume { session, received, attempt },
        Head::Define { index } => Frame::Define { index, body },
        Head::Ask { request, target, message, budget } => {
            Frame::Ask { request, target, message, budget, payload: body }
        }
        Head::Tell { target, message, budget } => Frame::Tell { target, message, budget, payload: body },
        Head::Reply { request } => Frame::Reply { request, payload: body },
        Head::Failure { request } => Frame::Failure { request, body },
        Head::Cancel { request } => Frame::Cancel { request },
        Head::Credit { target, count } => Frame::Credit { target, count },
        Head::Post { request, target, message, budget } => {
            Frame::Post { request, target, message, budget, payload: body }
        }
        Head::Item { request } => Frame::Item { request, payload: body },
        Head::More { request, count } => Frame::More { request, count },
        Head::Undelivered { target, message } => Frame::Undelivered { target, message, body },
        Head::Fragment { number } => Frame::Fragment { number, bytes: body },
        Head::FragmentEnd { number } => Frame::FragmentEnd { number, bytes: body },
        Head::FragmentDrop { number } => Frame::FragmentDrop { number },
    }
}

fn is_preface(name: &str) -> bool {
    name == "dial" || name.starts_with("accept")
}

/// The kind bytes that the code knows.
fn kinds() -> BTreeSet<u8> {
    let is_known = |kind: &u8| {
        let bare = [0, 0, 0, 2, *kind, 0];
        !matches!(frame::decode(&bare, limits::FRAME_BYTES_MAX), Err(FrameError::UnknownFrameKind { .. }))
    };
    (0..=u8::MAX).filter(is_known).collect()
}

#[test]
fn every_worked_frame_is_what_the_code_writes_and_reads() {
    for example in Page::read().examples("name") {
        let (name, page) = (example.value.as_str(), &example.bytes[..]);
        if is_preface(name) {
            continue;
        }
        let (head, body) = written(name, page);
        let mut out = BytesMut::new();
        frame::write(&mut out, head, |out| {
            out.extend_from_slice(&body);
            Ok(())
        })
        .expect("it is small");
        assert_same(name, page, &out);
        let (read, length) = frame::decode(page, limits::FRAME_BYTES_MAX).expect(name).expect("it is whole");
        assert_eq!((read, length), (read_back(head, &body), page.len()), "{name}");
    }
}

#[test]
fn every_frame_kind_has_a_worked_example_and_a_row() {
    let page = Page::read();
    let frames = page.examples("name").into_iter().filter(|example| !is_preface(&example.value));
    let shown: BTreeSet<u8> = frames.map(|example| example.bytes[4]).collect();
    assert_eq!(shown, kinds(), "kinds with an example, kinds that the code reads");

    let mut listed = BTreeMap::new();
    for row in page.table("kind") {
        listed.insert(u8::from_str_radix(&row[0], 16).expect("a kind in hexadecimal"), row[1].clone());
    }
    assert_eq!(listed.keys().copied().collect::<BTreeSet<_>>(), kinds(), "kinds in the table");
    for (kind, name) in listed {
        assert_eq!(page.example(&name)[4], kind, "{name}");
    }
}

#[test]
fn the_fragments_of_the_page_are_the_tell_of_the_page() {
    let page = Page::read();
    let pieces = ["fragment", "fragment-end"].map(|name| page.example(name)[10..].to_vec());
    assert_same("the fragments together", &pieces.concat(), &page.example("tell")[4..]);
}

#[test]
fn the_packed_frame_of_the_page_is_read_and_written() {
    let page = Page::read().examples("packed").remove(0);
    let Ok(Some((Frame::Packed { frame }, length))) = frame::decode(&page.bytes, limits::FRAME_BYTES_MAX) else {
        panic!("a packed frame")
    };
    assert_eq!(length, page.bytes.len());
    let Ok(Frame::Reply { request: REQUEST, payload }) = frame::decode_packed(frame) else { panic!("a reply") };
    let text = "x".repeat(100);
    let body = packing::unpack(payload, limits::MESSAGE_BYTES_MAX).expect("well packed");
    assert_eq!(codec::decode::<String>(&body).expect("a text"), text);
    let written = Body::write(BytesMut::new(), |out| codec::encode_into(&text, out)).expect("plain data").packed(0);
    let written = written.into_frame(Head::Reply { request: REQUEST }, 1000).expect("it is small");
    // Another packer may choose other blocks; what they stand for is the same.
    let Ok(Some((Frame::Packed { frame }, _))) = frame::decode(&written, 1000) else { panic!("a packed frame") };
    let Ok(Frame::Reply { payload, .. }) = frame::decode_packed(frame) else { panic!("a reply") };
    assert_same("packed reply", &packing::unpack(payload, 102).expect("well packed"), &body);
}

#[test]
fn what_the_page_calls_refused_is_refused() {
    let page = Page::read();
    for example in page.examples("refused") {
        let error = frame::decode(&example.bytes, limits::FRAME_BYTES_MAX).expect_err(&example.value).to_string();
        assert_eq!(error.split(':').next(), Some(&*example.value), "{error}");
    }
    for example in page.examples("packed-refused") {
        let error = packing::unpack(&example.bytes, limits::MESSAGE_BYTES_MAX).expect_err(&example.value).to_string();
        assert_eq!(error.split(':').next(), Some(&*example.value), "{error}");
    }
    for example in page.examples("body-refused") {
        let error = codec::decode::<IgnoredAny>(&example.bytes).expect_err(&example.value);
        assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
        assert_eq!(error.to_string().split(':').next(), Some(&*example.value), "{error}");
    }
}

#[test]
fn the_table_of_failures_has_every_variant_with_its_fields_and_outcomes() {
    let node = || NodeId::new("node-2", NodeUid(2));
    let text = String::new;
    // Where a flag decides the outcome, both are here.
    let errors: Vec<CallError> = vec![
        CallError::Full { limit: 1 },
        CallError::NoSuchActor { actor: COUNTER },
        CallError::StaleIncarnation { node: node() },
        CallError::UnknownMessage { message: text(), actor_type: text() },
        CallError::SchemaMismatch { name: text(), ours: 1, theirs: 2 },
        CallError::Decode { reason: text(), reply: false },
        CallError::Decode { reason: text(), reply: true },
        CallError::Encode { reason: text(), reply: false },
        CallError::Encode { reason: text(), reply: true },
        CallError::Stopped,
        CallError::Panicked { actor: COUNTER, message: text(), text: text(), generation: Generation(0) },
        CallError::DeadlineExceeded { started: false },
        CallError::DeadlineExceeded { started: true },
        CallError::Cancelled { started: false },
        CallError::Cancelled { started: true },
        CallError::Deadlock { actor: COUNTER },
        CallError::Unreachable { node: node(), sent: false, reason: text() },
        CallError::Unreachable { node: node(), sent: true, reason: text() },
        CallError::Overloaded { what: text(), limit: 1, retry_after: Duration::from_millis(1) },
        CallError::Restarting,
        CallError::Quarantined { node: node(), sent: false, reason: text() },
        CallError::Quarantined { node: node(), sent: true, reason: text() },
        CallError::Unauthorized { rule: text() },
        CallError::VersionIncompatible { node: node(), reason: text() },
    ];
    let mut expected: Vec<(String, BTreeSet<String>, String)> = Vec::new();
    for error in errors {
        let bytes = codec::encode(&error).expect("plain data");
        assert_eq!(codec::decode::<CallError>(&bytes).expect("own bytes"), error);
        let (variant, fields) = match codec::decode::<BTreeMap<String, BTreeMap<String, IgnoredAny>>>(&bytes) {
            Ok(map) => {
                let (variant, fields) = map.into_iter().next().expect("one variant");
                (variant, fields.into_keys().collect())
            }
            Err(_) => (codec::decode(&bytes).expect("the bare name"), BTreeSet::new()),
        };
        let outcome = format!("{:?}", error.outcome());
        match expected.last_mut().filter(|last| last.0 == variant) {
            Some((_, _, outcomes)) => *outcomes = format!("{outcomes}, or {outcome} if"),
            None => expected.push((variant, fields, outcome)),
        }
    }
    let rows = Page::read().table("variant");
    for ((variant, fields, outcome), row) in expected.iter().zip(&rows) {
        assert_eq!(*variant, row[0]);
        let listed: BTreeSet<String> =
            row[1].split(", ").filter(|field| !field.is_empty()).map(str::to_owned).collect();
        assert_eq!(*fields, listed, "{variant}");
        assert!(row[2].starts_with(outcome.as_str()), "{variant}: {outcome}, {}", row[2]);
        assert_eq!(row[2].contains(" if "), outcome.contains(" if"), "{variant}");
    }
    assert_eq!(rows.len(), expected.len() + 1, "and `Handler`, which no peer sends");
    assert_eq!(rows.last().expect("a row")[0], "Handler");
}

#[test]
fn the_table_of_limits_has_the_codes_numbers() {
    let mut expected = BTreeMap::from([
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX as u128),
        ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX as u128),
        ("FRAGMENTED_MAX", limits::FRAGMENTED_MAX as u128),
        ("PACK_BLOCK_BYTES", limits::PACK_BLOCK_BYTES as u128),
        ("PACKED_RATIO_MAX", limits::PACKED_RATIO_MAX as u128),
        ("MESSAGE_TYPES_MAX", limits::MESSAGE_TYPES_MAX as u128),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u128),
        ("DEPTH_MAX", limits::DEPTH_MAX as u128),
        ("ELEMENTS_MAX", u128::from(ELEMENTS_MAX)),
        ("ACK_BYTES", u128::from(limits::ACK_BYTES)),
        ("RESUME_BYTES_MAX", limits::RESUME_BYTES_MAX as u128),
        ("RESUME_WINDOW_BLIND", limits::RESUME_WINDOW_BLIND.as_millis()),
        ("CREDIT_MESSAGES", u128::from(limits::CREDIT_MESSAGES)),
        ("STREAM_WINDOW_ITEMS", u128::from(limits::STREAM_WINDOW_ITEMS)),
        ("HEARTBEAT_INTERVAL", limits::HEARTBEAT_INTERVAL.as_millis()),
        ("DOWN_AFTER", limits::DOWN_AFTER.as_millis()),
        ("HANDSHAKE_DEADLINE", limits::HANDSHAKE_DEADLINE.as_millis()),
        ("HANDSHAKES_MAX", limits::HANDSHAKES_MAX as u128),
        ("PEER_TEXT_BYTES_MAX", limits::PEER_TEXT_BYTES_MAX as u128),
    ]);
    for row in Page::read().table("limit") {
        let value = row[1].split(' ').next().and_then(|number| number.parse().ok());
        assert_eq!(value, expected.remove(row[0].as_str()), "{}", row[0]);
    }
    assert!(expected.is_empty(), "not on the page: {expected:?}");
}
