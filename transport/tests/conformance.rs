//! One suite for every wire and runtime: what a link promises does not depend on what carries its bytes.

mod common;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use common::*;
use mobula_core::frame::{Body, Frame, Head, MessageIndex};
use mobula_core::{ActorId, Budget, CallError, limits};
use mobula_transport::preface::{Dial, PrefaceError, Purpose, VERSIONS};
use mobula_transport::tcp::{self, ConnectError};
use mobula_transport::{Accepted, Hello, Lane, LinkClosed, SessionConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The same suite once more, between sides that pack what they send.
macro_rules! packed_suite {
    ($($module:ident $kind:ident),*; $($name:ident),*) => { packed_suite!(@ [$($module $kind),*] ($($name),*)); };
    (@ [$($module:ident $kind:ident),*] $names:tt) => { $(packed_suite!(@@ $module $kind $names);)* };
    (@@ $module:ident $kind:ident ($($name:ident),*)) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    super::pack_from_here_on();
                    super::$name(super::Kind::$kind).await
                }
            )*
        }
    };
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod over_memory {
            $(#[tokio::test] async fn $name() { super::$name(super::Kind::Memory).await })*
        }
        mod over_memory_with_threads {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name(super::Kind::Memory).await }
            )*
        }
        mod over_pieces {
            $(#[tokio::test] async fn $name() { super::$name(super::Kind::Pieces).await })*
        }
        mod over_pieces_with_threads {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name(super::Kind::Pieces).await }
            )*
        }
        mod over_tcp {
            $(#[tokio::test] async fn $name() { super::$name(super::Kind::Tcp).await })*
        }
        mod over_unix {
            $(#[tokio::test] async fn $name() { super::$name(super::Kind::Unix).await })*
        }
        mod over_unix_with_threads {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name(super::Kind::Unix).await }
            )*
        }
        mod over_tls {
            $(#[tokio::test] async fn $name() { super::$name(super::Kind::Tls).await })*
        }
        mod over_tls_with_threads {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name(super::Kind::Tls).await }
            )*
        }
        mod over_tcp_with_threads {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name(super::Kind::Tcp).await }
            )*
        }
        packed_suite! {
            over_memory_packed Memory, over_pieces_packed Pieces, over_tcp_packed Tcp, over_tls_packed Tls, over_unix_packed Unix;
            $($name),*
        }
    };
}

suite! {
    both_sides_learn_who_the_other_is,
    ten_thousand_asks_at_once_are_handled_in_order,
    ten_mebibytes_go_there_and_back,
    more_than_a_frame_goes_there_and_back,
    others_arrive_while_a_large_message_is_under_way,
    what_is_larger_than_a_message_may_be_is_refused_before_it_is_sent,
    what_is_packed_badly_or_without_agreement_closes_the_link_and_is_named,
    one_side_alone_packs_nothing,
    an_oversized_frame_closes_the_link_and_grows_no_buffer,
    the_buffer_grows_with_what_comes_and_not_with_what_is_announced,
    garbage_closes_the_link_and_is_named,
    half_a_frame_and_the_end_is_truncated,
    another_node_than_the_proven_one_is_refused,
    pending_asks_fail_at_once_when_the_peer_goes,
    pending_asks_fail_at_once_when_the_peers_thread_ends,
    a_closed_link_takes_nothing,
    a_goodbye_arrives_with_its_text,
    a_goodbye_is_heard_by_one_who_was_writing,
    a_violation_swallows_no_answers,
    threads_send_in_their_order_while_the_driver_runs,
    a_stopped_reader_is_sent_no_more_than_the_window,
    before_the_hello_the_line_is_all_there_is,
}

async fn both_sides_learn_who_the_other_is(kind: Kind) {
    let (here, there) = kind.pair().await;
    let (one, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let (two, _) = Side::new(there, 2, Mode::Echo, data()).run();
    assert_eq!(within(one.opened()).await, Ok(hello(2)));
    assert_eq!(within(two.opened()).await, Ok(hello(1)));
    assert_eq!((one.peer(), two.peer()), (&id(2), &id(1)));
}

async fn ten_thousand_asks_at_once_are_handled_in_order(kind: Kind) {
    let (link, (_, seen)) = connected(kind, Mode::Echo).await;
    let payloads: Vec<[u8; 4]> = (0..10_000_u32).map(u32::to_be_bytes).collect();
    let ends: Vec<_> = payloads.iter().map(|payload| ask(&link, A, payload)).collect();
    for (end, payload) in ends.into_iter().zip(&payloads) {
        assert_eq!(within(end).await, Ok(End::Answer(payload.to_vec())));
    }
    let messages = seen.messages(payloads.len()).await;
    assert!(messages.iter().map(|(target, payload)| (*target, &payload[..])).eq(payloads.iter().map(|p| (A, &p[..]))));
    assert_eq!(link.pending(), 0);
}

async fn ten_mebibytes_go_there_and_back(kind: Kind) {
    let (link, _) = connected(kind, Mode::Echo).await;
    let payload: Vec<u8> = (0..10 * 1024 * 1024).map(|at: usize| (at >> 8 ^ at) as u8).collect();
    let large = ask(&link, A, &payload);
    let small = ask(&link, A, b"small");
    let Ok(End::Answer(answer)) = within(large).await else { panic!("an answer") };
    assert!(answer == payload, "{} bytes came back", answer.len());
    assert_eq!(within(small).await, Ok(End::Answer(b"small".to_vec())));
}

async fn more_than_a_frame_goes_there_and_back(kind: Kind) {
    let (link, _) = connected(kind, Mode::Echo).await;
    let payload: Vec<u8> = (0..limits::FRAME_BYTES_MAX + 1000).map(|at: usize| (at >> 8 ^ at) as u8).collect();
    let Ok(End::Answer(answer)) = within(ask(&link, A, &payload)).await else { panic!("an answer") };
    assert!(answer == payload, "{} bytes came back", answer.len());
}

async fn others_arrive_while_a_large_message_is_under_way(kind: Kind) {
    let (here, there) = kind.pair().await;
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let there = Side::new(there, 2, Mode::Echo, data());
    let (mut driver, seen) = (Box::pin(there.driver), there.seen);
    tokio::select! {
        hello = within(link.opened()) => drop(hello.expect("open")),
        () = &mut driver => panic!("it ends"),
    }
    // Nothing is read until all of it was sent, and no wire holds so much.
    let large = noise(2 * limits::FRAME_BYTES_MAX);
    assert_eq!(tell(&link, A, &large).0, Ok(Accepted::InLine));
    tell(&link, A, b"behind it").0.expect("accepted");
    assert_eq!(tell(&link, ActorId(2), b"beside it").0, Ok(Accepted::Queued));
    tokio::spawn(driver);
    let messages = seen.messages(3).await;
    assert_eq!(messages[0], (ActorId(2), b"beside it".to_vec()));
    assert_eq!((messages[1].0, messages[1].1.len()), (A, large.len()));
    assert_eq!(messages[2], (A, b"behind it".to_vec()));
}

async fn what_is_larger_than_a_message_may_be_is_refused_before_it_is_sent(kind: Kind) {
    let (here, there) = kind.pair().await;
    let config = SessionConfig { message_bytes_max: 100_000, ..data() };
    let (link, _) = Side::new(here, 1, Mode::Echo, config).run();
    Side::new(there, 2, Mode::Echo, data()).run();
    within(link.opened()).await.expect("open");
    let (told, _) = tell(&link, A, &vec![0; 100_000]);
    assert!(matches!(told, Err(CallError::Encode { reply: false, .. })), "{told:?}");
    // An ask's 26 bytes of head leave room for exactly this; its answer has a smaller head.
    let largest = vec![1; 100_000 - 26];
    assert_eq!(within(ask(&link, A, &largest)).await, Ok(End::Answer(largest)));
}

async fn an_oversized_frame_closes_the_link_and_grows_no_buffer(kind: Kind) {
    for declared in [limits::FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let (closed, goodbye, offered_max) =
            hear(kind, &[hello_frame(2), declared.to_be_bytes().to_vec()].concat()).await;
        assert!(closed.contains(&format!("FrameTooLarge: a frame of {declared} bytes")), "{closed}");
        assert_told(kind, goodbye.as_deref(), &closed);
        assert!(offered_max <= 128 * 1024, "{offered_max} bytes were held ready");
    }
}

async fn the_buffer_grows_with_what_comes_and_not_with_what_is_announced(kind: Kind) {
    let (wire, there) = kind.pair().await;
    let (wire, offered_max) = probed(wire);
    let (link, _) = Side::new(wire, 1, Mode::Echo, data()).run();
    let mut raw = Raw::new(there);
    raw.write(&[hello_frame(2), (limits::FRAME_BYTES_MAX as u32).to_be_bytes().to_vec(), vec![0x12, 0]].concat()).await;
    within(link.opened()).await.expect("open");
    let announced = offered_max.load(Ordering::Relaxed);
    assert!(announced <= 128 * 1024, "{announced} bytes were held ready for an announcement");
    raw.write(&vec![0; 1024 * 1024]).await;
    drop(raw.wire.write);
    let closed = within(link.closed()).await.reason;
    assert!(closed.contains("1048582 bytes into a frame"), "{closed}");
    let grown = offered_max.load(Ordering::Relaxed);
    assert!(grown <= 2 * 1024 * 1024, "{grown} bytes were held ready for one mebibyte");
}

async fn garbage_closes_the_link_and_is_named(kind: Kind) {
    let after_hello = |bytes: &[u8]| [hello_frame(2), bytes.to_vec()].concat();
    let garbage: [(Vec<u8>, &str); 14] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "FrameTooLarge"),
        (b"\0\0\0\0".to_vec(), "EmptyFrame"),
        (b"\0\0\0\x01\x01".to_vec(), "EmptyFrame"),
        (b"\0\0\0\x02\x77\0".to_vec(), "UnknownFrameKind: 0x77"),
        (b"\0\0\0\x0a\x01\x01\0\0\0\0\0\0\0\0".to_vec(), "ReservedBits"),
        (b"\0\0\0\x0a\x01\0\0\0\0\0\0\0\0\0".to_vec(), "HelloExpected"),
        (b"\0\0\0\x05\x03\0\xc1\0\0".to_vec(), "BadBody: hello: ReservedMarker"),
        (after_hello(&hello_frame(2)), "HelloTwice"),
        (after_hello(b"\0\0\0\x03\x15\0\0"), "Truncated"),
        (after_hello(b"\0\0\0\x0b\x01\0\0\0\0\0\0\0\0\0\0"), "TrailingBytes"),
        (after_hello(&frame_of(Head::Credit { target: A, count: 1 }, b"")), "FlowControlViolation"),
        (after_hello(&frame_of(Head::Fragment { number: 1 }, b"x")), "FragmentOutOfOrder"),
        (after_hello(&frame_of(Head::FragmentEnd { number: 0 }, b"x")), "FragmentOfNothing"),
        (
            after_hello(&frame_of(Head::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER }, b"\xc0")),
            "UndefinedMessage",
        ),
    ];
    for (bytes, name) in garbage {
        let (closed, goodbye, _) = hear(kind, &bytes).await;
        assert!(closed.contains(name), "{name}: {closed}");
        assert_told(kind, goodbye.as_deref(), &closed);
    }
}

async fn what_is_packed_badly_or_without_agreement_closes_the_link_and_is_named(kind: Kind) {
    let packed = |head| {
        let body = Body::write(BytesMut::new(), bytes(&[0; 5000])).expect("plain bytes").packed(0);
        body.into_frame(head, limits::MESSAGE_BYTES_MAX).expect("it fits").to_vec()
    };
    let tell = packed(Head::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER });
    let changed = |at: usize, to: &[u8]| {
        let mut frame = tell.clone();
        frame[22 + at..22 + at + to.len()].copy_from_slice(to);
        frame
    };
    let agreed = hello(2).can(Hello::LZ4);
    let cases = [
        (changed(0, &u32::MAX.to_be_bytes()), "PackedTooLarge: a body of 4294967295 bytes"),
        (changed(0, &[0, 1, 0, 0]), "PackedTooTight: 65536 bytes were announced in 313"),
        (changed(4, &[0, 1, 0, 0]), "PackedBlockTooLarge: block 0 has 65536 bytes, and stands for 5000"),
        (changed(8, &[0xff; 20]), "Packed"),
        (changed(312, &[1]), "PackedTrailingBytes"),
    ];
    for (frame, name) in cases {
        let (closed, goodbye, _) = hear(kind, &[hello_frame(2), define_frame(), frame].concat()).await;
        let name = if agreed { name } else { "PackingNotAgreed" };
        assert!(closed.contains(name), "{name}: {closed}");
        assert_told(kind, goodbye.as_deref(), &closed);
    }
}

/// A peer that packs badly what somebody waits for: the waiter hears of it, too.
#[tokio::test]
async fn a_badly_packed_answer_fails_its_ask() {
    pack_from_here_on();
    let (wire, there) = Kind::Memory.pair().await;
    let (link, _) = Side::new(wire, 1, Mode::Echo, data()).run();
    let mut raw = Raw::new(there);
    raw.write(&hello_frame(2)).await;
    let end = ask(&link, A, b"question");
    let request = loop {
        let request = raw.next(|frame| if let Frame::Ask { request, .. } = frame { Some(request) } else { None });
        if let Some(request) = request.await.expect("an ask comes") {
            break request;
        }
    };
    let body = Body::write(BytesMut::new(), bytes(&[0; 5000])).expect("plain bytes").packed(0);
    let mut reply = body.into_frame(Head::Reply { request }, 10_000).expect("it fits");
    reply[14..18].copy_from_slice(&5_001_u32.to_be_bytes());
    raw.write(&reply).await;
    let Ok(End::Failed(CallError::Decode { reason, reply: true })) = within(end).await else { panic!("a failure") };
    assert!(reason.starts_with("PackedTooTight") || reason.starts_with("PackedWrongSize"), "{reason}");
    assert_eq!(within(link.closed()).await.reason, reason);
}

async fn one_side_alone_packs_nothing(kind: Kind) {
    for packs in [1, 2] {
        let (here, there) = kind.pair().await;
        let capabilities = |uid| match uid == packs {
            true => Hello::CAPABILITIES | Hello::LZ4,
            false => Hello::CAPABILITIES,
        };
        let side = |wire, uid| {
            let hello = Hello { capabilities: capabilities(uid), ..hello(uid) };
            Side::saying(wire, &hello, Mode::Echo, data()).run()
        };
        let ((link, _), _) = (side(here, 1), side(there, 2));
        let payload = vec![7; 200_000];
        assert_eq!(within(ask(&link, A, &payload)).await, Ok(End::Answer(payload)));
    }
}

/// The peer is told which rule it broke, as far as the wire takes it at once.
fn assert_told(kind: Kind, goodbye: Option<&str>, closed: &str) {
    assert!(goodbye == Some(closed) || (kind == Kind::Pieces && goodbye.is_none()), "{goodbye:?}: {closed}");
}

/// What becomes of a link whose peer sends `bytes`: why it closed, what it said, and the largest buffer it read into.
async fn hear(kind: Kind, bytes: &[u8]) -> (String, Option<String>, usize) {
    let (wire, there) = kind.pair().await;
    let (wire, offered_max) = probed(wire);
    let (link, seen) = Side::new(wire, 1, Mode::Echo, data()).run();
    let mut raw = Raw::new(there);
    raw.write(bytes).await;
    let LinkClosed { peer, reason, .. } = within(link.closed()).await;
    assert_eq!(peer, id(2));
    assert_eq!(seen.closed().await, reason);
    (reason, raw.goodbye().await, offered_max.load(Ordering::Relaxed))
}

async fn half_a_frame_and_the_end_is_truncated(kind: Kind) {
    let tell = frame_of(Head::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER }, b"\xc0");
    for have in [1, 4, 5, tell.len() - 1] {
        let (wire, there) = kind.pair().await;
        let (link, seen) = Side::new(wire, 1, Mode::Echo, data()).run();
        let mut raw = Raw::new(there);
        raw.write(&[hello_frame(2), define_frame(), tell[..have].to_vec()].concat()).await;
        drop(raw.wire.write);
        let closed = within(link.closed()).await.reason;
        assert_eq!(closed, format!("Truncated: the connection ended {have} bytes into a frame"));
        assert_eq!(*seen.count.borrow(), 0);
    }
}

async fn another_node_than_the_proven_one_is_refused(kind: Kind) {
    let (closed, _, _) = hear(kind, &hello_frame(3)).await;
    assert!(closed.starts_with("SpoofedSource"), "{closed}");
}

async fn pending_asks_fail_at_once_when_the_peer_goes(kind: Kind) {
    let (link, (peer, seen)) = connected(kind, Mode::Hold).await;
    let ends: Vec<_> = (0..100).map(|_| ask(&link, A, b"x")).collect();
    seen.messages(100).await;
    peer.close("no reason given");
    for end in ends {
        let Ok(End::Failed(error)) = within(end).await else { panic!("a failure") };
        assert!(matches!(&error, CallError::Unreachable { node, sent: true, .. } if *node == id(2)), "{error}");
    }
    assert_eq!(within(link.closed()).await.reason, "connection closed by the peer");
    assert_eq!(seen.closed().await, "no reason given");
}

async fn pending_asks_fail_at_once_when_the_peers_thread_ends(kind: Kind) {
    let (here, there) = kind.pair().await;
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let there = Side::new(there, 2, Mode::Hold, data());
    let driver = tokio::spawn(there.driver);
    let end = ask(&link, A, b"x");
    there.seen.messages(1).await;
    let back = ask(&there.link, A, b"x");
    driver.abort();
    let Ok(End::Failed(CallError::Unreachable { sent: true, .. })) = within(end).await else { panic!("a failure") };
    // The answer may have been there first.
    assert!(within(back).await.is_ok());
    assert_eq!(there.seen.closed().await, "the thread that read the connection ended");
}

async fn a_closed_link_takes_nothing(kind: Kind) {
    let (link, (peer, _)) = connected(kind, Mode::Echo).await;
    link.close("enough");
    link.close("again");
    let closed = LinkClosed { peer: id(2), reason: "enough".to_owned(), quarantined: false };
    assert_eq!(within(link.closed()).await, closed);
    assert_eq!(within(link.opened()).await, Err(closed));
    let not_sent = CallError::Unreachable { node: id(2), sent: false, reason: "enough".to_owned() };
    assert_eq!(tell(&link, A, b"x").0, Err(not_sent.clone()));
    let Err((error, _)) = link.ask(&to(A), waiting().0, bytes(b"x")) else { panic!("closed") };
    assert_eq!(error, not_sent);
    within(peer.closed()).await;
}

async fn a_goodbye_arrives_with_its_text(kind: Kind) {
    let (link, (peer, seen)) = connected(kind, Mode::Echo).await;
    let end = ask(&link, A, b"before");
    assert_eq!(within(end).await, Ok(End::Answer(b"before".to_vec())));
    link.goodbye("moving house");
    assert_eq!(within(peer.closed()).await.reason, "the peer said goodbye: moving house");
    assert_eq!(seen.closed().await, "the peer said goodbye: moving house");
    assert_eq!(within(link.closed()).await.reason, "moving house");
}

/// The one who goes does not read any more, so the other's write fails before it has read the goodbye.
async fn a_goodbye_is_heard_by_one_who_was_writing(kind: Kind) {
    let (here, there) = kind.pair().await;
    let (link, seen) = Side::new(here, 1, Mode::Echo, data()).run();
    let there = Side::new(there, 2, Mode::Echo, data());
    let mut driver = Box::pin(there.driver);
    tokio::select! {
        hello = within(link.opened()) => drop(hello.expect("open")),
        () = &mut driver => panic!("it ends"),
    }
    while tell(&link, A, &[0; 10_000]).0 == Ok(Accepted::Queued) {}
    there.link.goodbye("cannot keep up");
    drop(driver);
    assert_eq!(within(link.closed()).await.reason, "the peer said goodbye: cannot keep up");
    assert_eq!(seen.closed().await, "the peer said goodbye: cannot keep up");
}

/// A wire that takes nothing and never ends. Virtual time: the second passes at once.
#[tokio::test(start_paused = true)]
async fn who_cannot_be_written_to_is_not_listened_to_for_ever() {
    let (here, there) = Kind::Memory.pair().await;
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let mut raw = Raw::new(there);
    raw.write(&hello_frame(2)).await;
    within(link.opened()).await.expect("open");
    drop(raw.wire.read);
    let end = ask(&link, A, b"x");
    assert_eq!(within(link.closed()).await.reason, "broken pipe");
    assert!(matches!(within(end).await, Ok(End::Failed(CallError::Unreachable { .. }))));
    drop(raw.wire.write);
}

async fn a_violation_swallows_no_answers(kind: Kind) {
    let (wire, there) = kind.pair().await;
    let (link, seen) = Side::new(wire, 1, Mode::Refuse, data()).run();
    let mut raw = Raw::new(there);
    raw.write(&hello_frame(2)).await;
    let end = ask(&link, A, b"question");
    let request = loop {
        let request = raw.next(|frame| if let Frame::Ask { request, .. } = frame { Some(request) } else { None });
        if let Some(request) = request.await.expect("an ask comes") {
            break request;
        }
    };
    let refused = frame_of(Head::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER }, b"\xc0");
    let answer = frame_of(Head::Reply { request }, b"answer");
    raw.write(&[define_frame(), refused.clone(), refused, answer].concat()).await;
    assert_eq!(within(end).await, Ok(End::Answer(b"answer".to_vec())));
    assert!(seen.closed().await.contains("UndefinedMessage"));
}

async fn threads_send_in_their_order_while_the_driver_runs(kind: Kind) {
    const THREADS: u32 = 4;
    const MESSAGES: u32 = 5_000;
    let (link, (_, seen)) = connected(kind, Mode::Echo).await;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let link = Arc::clone(&link);
            std::thread::spawn(move || {
                for n in 0..MESSAGES {
                    let payload = [thread.to_be_bytes(), n.to_be_bytes()].concat();
                    // Two targets each, so that lines and credits of several are at work.
                    let target = ActorId(1 + u64::from((thread + n) % 3));
                    tell(&link, target, &payload).0.expect("accepted, at once or in line");
                }
            })
        })
        .collect();
    let messages = seen.messages((THREADS * MESSAGES) as usize).await;
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(messages.len(), (THREADS * MESSAGES) as usize, "none twice");
    let mut last = std::collections::HashMap::new();
    for (target, payload) in messages {
        let (thread, n) = payload.split_at(4);
        let n = u32::from_be_bytes(n.try_into().expect("four bytes"));
        let before = last.insert((target, thread.to_vec()), n);
        assert!(before < Some(n), "{n} came after {before:?}");
    }
}

async fn a_stopped_reader_is_sent_no_more_than_the_window(kind: Kind) {
    const WINDOW: usize = 256 * 1024;
    let payload = noise(1000);
    let (here, there) = kind.pair().await;
    let config = SessionConfig { send_window_bytes: WINDOW, ..data() };
    let (link, _) = Side::new(here, 1, Mode::Echo, config).run();
    let there = Side::new(there, 2, Mode::Echo, config);
    let mut driver = Box::pin(there.driver);
    tokio::select! {
        hello = within(link.opened()) => drop(hello.expect("open")),
        () = &mut driver => panic!("it ends"),
    }

    // One actor: its credit is the bound.
    let mut sent = 0;
    while link.has_credit(A) {
        assert_eq!(tell(&link, A, &payload).0, Ok(Accepted::Queued));
        sent += 1;
    }
    assert_eq!(sent, CREDIT as usize);
    let (in_line, end) = tell(&link, A, &payload);
    assert_eq!(in_line, Ok(Accepted::InLine));

    // Many actors: the window is, and what the system's buffers take.
    let mut others = 0;
    let mut target = 2;
    loop {
        while link.has_credit(ActorId(target)) {
            assert_eq!(tell(&link, ActorId(target), &payload).0, Ok(Accepted::Queued));
            others += 1;
        }
        // The driver and the system take what they can before the window counts as full.
        tokio::task::yield_now().await;
        if !link.has_credit(ActorId(target + 1)) {
            break;
        }
        target += 1;
    }
    let buffers = if matches!(kind, Kind::Memory | Kind::Pieces) { 64 * 1024 } else { 32 * 1024 * 1024 };
    let bytes = (sent + others) * payload.len();
    assert!(bytes < WINDOW + buffers, "{bytes} bytes were taken for a peer that reads nothing");
    let (in_line, second) = tell(&link, ActorId(target + 1), &payload);
    assert_eq!(in_line, Ok(Accepted::InLine));

    // It reads again: everybody goes on, and nothing was lost.
    tokio::spawn(driver);
    assert_eq!(within(end).await, Ok(End::Accepted));
    assert_eq!(within(second).await, Ok(End::Accepted));
    assert_eq!(there.seen.messages(sent + others + 2).await.len(), sent + others + 2);
}

async fn before_the_hello_the_line_is_all_there_is(kind: Kind) {
    let (here, there) = kind.pair().await;
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let there = Side::new(there, 2, Mode::Echo, data());
    let mut ends = Vec::new();
    for _ in 0..limits::LINE_MESSAGES_MAX {
        assert!(!link.has_credit(A));
        let (told, end) = tell(&link, A, b"x");
        assert_eq!(told, Ok(Accepted::InLine));
        ends.push(end);
    }
    assert_eq!(tell(&link, A, b"x").0, Err(CallError::Full { limit: limits::LINE_MESSAGES_MAX as u64 }));
    drop(there);
    for end in ends {
        let Ok(End::Failed(error)) = within(end).await else { panic!("a failure") };
        assert!(matches!(error, CallError::Unreachable { sent: false, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_stranger_gets_no_byte() {
    let port = Port::open();
    let dial = |target, nonce| Dial {
        dialer: Port::DIALER,
        target,
        lane: Lane::Data,
        versions: VERSIONS,
        purpose: Purpose::Open,
        nonce: [nonce; 32],
    };
    let right = dial(Port::UID, 1).encode(&Port::secret());
    let served = async {
        let (friend, verdict) = tokio::join!(stranger(&port, &right, false), port.accept());
        verdict.expect("a friend is welcome");
        friend
    };
    assert_eq!(within(served).await.len(), 56, "the friend's preface is answered");

    let mut flipped = dial(Port::UID, 2).encode(&Port::secret());
    flipped[40] ^= 1;
    let http = [&b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"[..], &[b' '; 96]].concat();
    let other_secret = dial(Port::UID, 3).encode(&Port::other_secret());
    let other_life = dial(Port::DIALER, 4).encode(&Port::secret());
    let stranger_bytes: [(&str, &[u8]); 7] = [
        ("NotMobula", &http),
        ("NotMobula", b"SSH-2.0-x\r\n"),
        ("Unauthorized", &other_secret),
        ("Unauthorized", &flipped),
        ("Replayed", &right),
        ("StaleIncarnation", &other_life),
        ("handshake with", &right[..95]),
    ];
    for (name, bytes) in stranger_bytes {
        let (heard, verdict) = within(async { tokio::join!(stranger(&port, bytes, true), port.accept()) }).await;
        let error = verdict.map(|_| ()).expect_err(name);
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert_eq!(error.is_departure(), bytes.len() == 95, "{error}");
        assert_eq!(heard, [], "{name}");
    }
}

/// What the port answers to `bytes`, and to the end of input if `ends`.
async fn stranger(port: &Port, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(port.address).await.expect("the port is open");
    stream.write_all(bytes).await.expect("the connection is open");
    let mut heard = Vec::new();
    if ends {
        let _ = stream.shutdown().await;
        // Closing with unread bytes resets the connection: also an end.
        let _ = stream.read_to_end(&mut heard).await;
    } else {
        heard.resize(56, 0);
        stream.read_exact(&mut heard).await.expect("an answer");
    }
    heard
}

/// With its clock paused the runtime skips the time that nobody uses, so the 5 s pass at once.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let port = Port::open();
    let mut silent = TcpStream::connect(port.address).await.expect("the port is open");
    let Err(ConnectError::Deadline { after, .. }) = port.accept().await else { panic!("it says nothing") };
    assert_eq!(after, limits::HANDSHAKE_DEADLINE);
    assert_eq!(silent.read(&mut [0]).await.expect("a clean end"), 0);
}

#[tokio::test]
async fn a_wrong_secret_is_unauthorized_on_both_sides() {
    let port = Port::open();
    let other = Port::other_secret();
    let (dialed, accepted) = within(async { tokio::join!(port.dial(&other), port.accept()) }).await;
    for error in [dialed.map(|_| ()).expect_err("wrong"), accepted.map(|_| ()).expect_err("wrong")] {
        assert!(matches!(&error, ConnectError::Preface { error: PrefaceError::Unauthorized, .. }), "{error}");
    }
}

#[tokio::test]
async fn other_addresses_than_loopback_are_refused() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    assert!(matches!(tcp::listen(everywhere), Err(ConnectError::NotLoopback { address }) if address == everywhere));
    let secret = Port::secret();
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
    let dialed = tcp::dial(elsewhere, &secret, Port::DIALER, Port::UID, Lane::Data).await;
    assert!(matches!(dialed, Err(ConnectError::NotLoopback { .. })));
}

#[tokio::test]
async fn a_port_in_use_and_a_port_without_listener_are_named() {
    let port = Port::open();
    assert!(matches!(tcp::listen(port.address), Err(ConnectError::PortInUse { address }) if address == port.address));
    let address = port.address;
    drop(port);
    let secret = Port::secret();
    let dialed = tcp::dial(address, &secret, Port::DIALER, Port::UID, Lane::Data);
    let Err(ConnectError::Io { error, .. }) = within(dialed).await else { panic!("nobody listens") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
