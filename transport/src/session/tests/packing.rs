//! Packed bodies: only where both have said so, with every rule of a message that is not packed.

use mobula_core::frame::{Body, Head};
use mobula_core::packing::PackError;

use super::*;

const ABOVE: usize = 100;

fn packing() -> SessionConfig {
    SessionConfig { pack_above_bytes: ABOVE, fragment_bytes: 1000, ..SessionConfig::new(Lane::Data) }
}

fn reads_lz4(mut hello: Hello) -> Hello {
    hello.capabilities |= Hello::LZ4;
    hello
}

/// A session that may or may not say that it reads packed bodies, before the peer's hello.
fn session(config: SessionConfig, agrees: bool) -> Bench {
    let now = start();
    let hello = if agrees { reads_lz4(us()) } else { us() };
    let mut bench = Bench { session: Session::new(config, &hello, Some(NodeUid(2)), now), now };
    bench.sent();
    bench
}

/// Both have said it.
fn agreed(config: SessionConfig) -> Bench {
    let mut bench = session(config, true);
    bench.receive_hello(&reads_lz4(hello(peer_id(), 8))).expect("a fine hello");
    bench
}

fn zeros(bytes: usize) -> impl FnOnce(&mut BytesMut) -> Result<(), EncodeError> {
    move |out| {
        out.resize(out.len() + bytes, 0);
        Ok(())
    }
}

/// A frame as a peer that packs writes it.
fn packed_frame(head: Head, bytes: usize) -> BytesMut {
    let body = Body::write(BytesMut::new(), zeros(bytes)).expect("plain bytes").packed(0);
    assert!(body.is_packed());
    body.into_frame(head, limits::MESSAGE_BYTES_MAX).expect("it fits")
}

fn tell_head() -> Head {
    Head::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER }
}

fn define(bench: &mut Bench) {
    let body = b"\x82\xa4name\xa1a\xa6schema\x00";
    assert!(matches!(bench.receive(Frame::Define { index: MessageIndex(0), body }), Ok(Received::Define { .. })));
}

fn decoded(frame: &[u8]) -> Frame<'_> {
    frame::decode(frame, limits::FRAME_BYTES_MAX).expect("own bytes").expect("whole").0
}

#[test]
fn bodies_are_packed_only_above_the_threshold_and_if_they_get_shorter() {
    let mut bench = agreed(packing());
    assert_eq!(bench.session.packs_above(), Some(ABOVE));
    for (bytes, packed) in [(ABOVE - 1, false), (ABOVE, false), (ABOVE + 1, true)] {
        bench.session.reply(RequestId(1), zeros(bytes)).expect("it fits");
        let sent = bench.sent();
        assert_eq!(sent[0].starts_with("packed of "), packed, "{bytes}: {sent:?}");
    }
    let mut state = 7_u64;
    let noise: String = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state >> 16 & 63) as u8)
    })
    .take(200)
    .collect();
    bench.session.reply(RequestId(1), text(&noise)).expect("it fits");
    assert_eq!(bench.sent(), [format!("reply {noise}")], "it does not get shorter");
}

#[test]
fn asks_tells_posts_replies_and_items_are_packed_and_what_is_the_protocols_own_is_not() {
    let mut bench = agreed(packing());
    bench.session.ask(&to(A), "ask", bench.now, zeros(500)).expect("sent");
    bench.session.tell(&to(A), || "tell", bench.now, zeros(500)).expect("sent");
    bench.session.post(&to(A), "post", bench.now, zeros(500)).expect("sent");
    bench.session.item(RequestId(1), zeros(500)).expect("sent");
    bench.session.reply_in_order(RequestId(1), zeros(500)).expect("sent");
    let long = "x".repeat(500);
    bench.session.fail(RequestId(2), &CallError::Encode { reason: long.clone(), reply: true });
    bench.session.go_away(&long);
    let sent = bench.sent();
    let shown: Vec<_> = sent.iter().map(|frame| frame.split(' ').next().unwrap_or_default()).collect();
    let packed = "packed";
    assert_eq!(shown, ["define", packed, packed, packed, packed, packed, "failure", "go-away"]);
}

#[test]
fn a_peer_that_has_not_said_so_is_sent_nothing_packed_whatever_this_side_says() {
    for (ours, theirs) in [(false, false), (true, false), (false, true)] {
        let mut bench = session(packing(), ours);
        // What stands in line before the hello is not packed for whoever comes.
        bench.session.tell(&to(A), || "early", bench.now, zeros(500)).expect("in line");
        let hello = hello(peer_id(), 8);
        bench.receive_hello(&if theirs { reads_lz4(hello) } else { hello }).expect("a fine hello");
        assert_eq!(bench.session.packs_above(), None);
        bench.session.tell(&to(A), || "late", bench.now, zeros(500)).expect("sent");
        bench.session.reply(RequestId(1), zeros(500)).expect("sent");
        assert!(bench.sent().iter().all(|frame| !frame.starts_with("packed")), "{ours} {theirs}");
    }
}

#[test]
fn a_packed_body_that_was_not_agreed_on_breaks_a_rule_whole_or_in_fragments() {
    let frame = packed_frame(tell_head(), 500);
    let mut bench = Bench::open(8);
    define(&mut bench);
    assert_eq!(bench.receive(decoded(&frame)).unwrap_err(), SessionError::PackingNotAgreed);
    let mut bench = Bench::open(8);
    define(&mut bench);
    bench.receive(Frame::Fragment { number: 0, bytes: &frame[4..9] }).expect("it begins");
    let error = bench.receive(Frame::FragmentEnd { number: 0, bytes: &frame[9..] }).unwrap_err();
    assert_eq!(error, SessionError::PackingNotAgreed);
    // Nor before the hello, and not in a version without posts.
    assert_eq!(session(packing(), true).receive(decoded(&frame)).unwrap_err(), SessionError::HelloExpected);
    let mut old = session(SessionConfig { version: 1, ..packing() }, true);
    old.receive_hello(&reads_lz4(hello(peer_id(), 8))).expect("a fine hello");
    define(&mut old);
    let post = packed_frame(
        Head::Post { request: RequestId(1), target: A, message: MessageIndex(0), budget: Budget::NEVER },
        500,
    );
    let unknown = SessionError::Frame(FrameError::UnknownFrameKind { kind: 0x17 });
    assert_eq!(old.receive(decoded(&post)).unwrap_err(), unknown);
}

#[test]
fn what_was_packed_arrives_as_it_was_whole_and_in_fragments() {
    for bytes in [ABOVE + 1, 900, 100_000] {
        let (mut here, mut there) = (agreed(packing()), agreed(packing()));
        here.session.ask(&to(A), "ask", here.now, zeros(bytes)).expect("sent");
        let mut seen = 0;
        loop {
            let sent = here.session.take_transmit();
            if sent.is_empty() {
                break;
            }
            assert!(sent.len() < 80 + bytes / 4, "{} bytes for {bytes}", sent.len());
            here.session.handle_written(sent.len(), here.now);
            let mut rest = &sent[..];
            while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("own bytes") {
                rest = &rest[length..];
                if let Received::Request { payload, .. } = there.receive(frame).expect("both keep the rules") {
                    assert!(matches!(payload, Payload::Packed(_) | Payload::ReassembledPacked(_)));
                    assert!(payload.unpacked().expect("well packed")[..] == vec![0; bytes]);
                    seen += 1;
                }
            }
        }
        // What waits for fragments is counted as what is held: as packed.
        assert_eq!((seen, there.session.reassembly_bytes(), here.session.queued_bytes()), (1, 0, 0));
    }
}

#[test]
fn the_limit_of_a_message_is_that_of_its_body_as_it_was() {
    let config = SessionConfig { message_bytes_max: 10_000, ..packing() };
    // A reply has 10 bytes beside its body.
    for (bytes, fits) in [(9_989, true), (9_990, true), (9_991, false)] {
        let mut bench = agreed(config);
        assert_eq!(bench.session.reply(RequestId(1), zeros(bytes)).is_ok(), fits, "{bytes}");
        let told = bench.session.tell(&to(A), || "tell", bench.now, zeros(bytes));
        assert!(told.is_ok() || matches!(told, Err(CallError::Encode { reply: false, .. })));
    }
}

#[test]
fn a_badly_packed_body_is_taken_in_and_refused_when_it_is_unpacked() {
    let mut bench = agreed(packing());
    define(&mut bench);
    let mut frame = packed_frame(tell_head(), 500);
    // It says that it was so much larger than it can be.
    let at = frame.len() - (500_usize.div_ceil(limits::PACKED_RATIO_MAX));
    frame[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let Ok(Received::Request { payload, .. }) = bench.receive(decoded(&frame)) else { panic!("a tell") };
    let error = payload.unpacked().unwrap_err();
    assert_eq!(error, PackError::TooLarge { declared: u32::MAX as usize, max: limits::MESSAGE_BYTES_MAX });
    assert!(SessionError::from(error).to_string().starts_with("PackedTooLarge: "));
}
