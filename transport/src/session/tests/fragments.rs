//! Large messages and answers: cut, interleaved, put together, given up half-way.

use super::*;

const LARGE: &str = "a large message, at least for a session that cuts after ten bytes";
/// More than is queued at a time by one that cuts after thirty.
const LARGER: &str = "a large message, also for a session that cuts after thirty bytes, since it does not fit into the eight pieces of \
    them with which it begins, and so there is something left of it that can be taken back: that is why it has to go on for a while after \
    everything that there is to say has been said, and been said again";

fn cutting(fragment_bytes: usize) -> SessionConfig {
    SessionConfig { fragment_bytes, ..SessionConfig::new(Lane::Data) }
}

/// Two sessions that have said hello.
fn two(config: SessionConfig) -> (Bench, Bench) {
    let here = Bench::open_with(config, 8);
    let session = Session::new(config, &hello(peer_id(), 8), Some(NodeUid(1)), here.now);
    let mut there = Bench { session, now: here.now };
    there.sent();
    there.receive_hello(&us()).expect("a fine hello");
    (here, there)
}

/// One turn of a driver: what is queued is taken and written.
fn turn(bench: &mut Bench) -> BytesMut {
    let bytes = bench.session.take_transmit();
    bench.session.handle_written(bytes.len(), bench.now);
    bytes
}

fn turns(bench: &mut Bench) -> Vec<String> {
    let mut frames = Vec::new();
    loop {
        let bytes = turn(bench);
        if bytes.is_empty() {
            return frames;
        }
        frames.extend(shown(&bytes));
    }
}

/// Takes over all that is under way from `from` to `to`, which says what it means.
fn pass(from: &mut Bench, to: &mut Bench) -> Vec<String> {
    let mut received = Vec::new();
    loop {
        let bytes = turn(from);
        if bytes.is_empty() {
            return received;
        }
        let mut rest = &bytes[..];
        while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("own bytes") {
            rest = &rest[length..];
            let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
            match to.session.receive(frame, to.now).expect("both keep the rules") {
                Received::Nothing | Received::Define { .. } => {}
                Received::Request { target, payload, .. } => received.push(format!("{target}: {}", text(&payload))),
                Received::Reply { to, payload } => received.push(format!("{to}: {}", text(&payload))),
                Received::Failure { to, error } => received.push(format!("{to}: {error}")),
                Received::Item { to, payload } => received.push(format!("{to} item: {}", text(&payload))),
                other => panic!("{other:?}"),
            }
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn a_large_message_goes_in_fragments_and_arrives_whole() {
    let (mut here, mut there) = two(cutting(10));
    let (request, accepted) = here.ask(&to(A), LARGE);
    assert_eq!(accepted, Accepted::InLine, "until its last fragment it can be taken back");
    assert_eq!(pass(&mut here, &mut there), [format!("1: {LARGE}")]);
    assert_eq!((here.session.in_line(), here.session.queued_bytes()), (0, 0));
    there.session.reply(request, text(LARGE)).expect("it fits");
    assert_eq!(pass(&mut there, &mut here), [format!("{LARGE}: {LARGE}")]);
    assert_eq!((here.session.pending(), there.session.reassembly_bytes()), (0, 0));
}

#[test]
fn others_go_between_fragments_and_only_the_same_target_waits() {
    let mut here = Bench::open_with(cutting(30), 8);
    assert_eq!(here.tell(&to(A), LARGE), Accepted::InLine);
    assert_eq!(here.tell(&to(A), "after"), Accepted::InLine);
    assert_eq!(here.tell(&to(B), "other"), Accepted::Queued);
    assert_eq!(shown(&turn(&mut here)), ["define 0", "fragment 0 of 30", "tell 2 other"]);
    assert_eq!(turns(&mut here), ["fragment 0 of 30", "end of 0 of 23", "tell 1 after"]);
    assert_eq!(here.events(), [format!("{LARGE} accepted"), "after accepted".to_owned()]);
}

#[test]
fn control_has_its_place_behind_a_large_message_although_the_line_is_full() {
    let mut here = Bench::open_with(cutting(30), 8);
    assert_eq!(here.tell(&to(A), LARGE), Accepted::InLine);
    while here.session.in_line() < limits::LINE_MESSAGES_MAX {
        assert_eq!(here.tell(&to(A), "after"), Accepted::InLine);
    }
    let refused = here.session.tell(&to(B), || "other", here.now, text("other"));
    assert_eq!(refused, Ok(Accepted::Queued), "a target without a line needs no place in it");
    let refused = here.session.tell(&to(A), || "one more", here.now, text("one more"));
    assert_eq!(refused, Err(CallError::Full { limit: limits::LINE_MESSAGES_MAX as u64 }));
    assert_eq!(here.tell(&to(ActorId::NODE), "signal"), Accepted::InLine);
    let sent = turns(&mut here);
    let at = |frame: &str| sent.iter().position(|sent| sent.starts_with(frame)).expect("it goes");
    assert!(at("end of 0") < at(&format!("tell {} signal", ActorId::NODE)), "in its place");
}

#[test]
fn what_arrives_keeps_the_order_of_its_target() {
    let (mut here, mut there) = two(cutting(30));
    here.tell(&to(A), LARGE);
    here.tell(&to(A), "z");
    here.tell(&to(B), "y");
    assert_eq!(pass(&mut here, &mut there), ["2: y", &format!("1: {LARGE}"), "1: z"]);
}

#[test]
fn large_ones_take_turns() {
    let mut here = Bench::open_with(cutting(40), 8);
    here.tell(&to(A), LARGE);
    here.tell(&to(B), LARGE);
    let sent = turns(&mut here);
    let expected = ["define 0", "fragment 0 of 40", "fragment 1 of 40", "fragment 0 of 40", "fragment 1 of 40"];
    assert_eq!(sent[..5], expected.map(str::to_owned));
}

#[test]
fn no_more_than_sixteen_are_on_their_way_and_the_rest_waits() {
    let (mut here, mut there) = two(cutting(10));
    for target in 1..=40 {
        here.tell(&to(ActorId(target)), LARGE);
        there.session.reply(RequestId(target), text(LARGE)).expect("it waits");
    }
    let begun = |bench: &mut Bench| shown(&turn(bench)).iter().filter(|frame| frame.starts_with("fragment")).count();
    assert_eq!(begun(&mut here), limits::FRAGMENTED_MAX);
    assert_eq!(begun(&mut there), limits::FRAGMENTED_MAX);
    let ends = |frames: Vec<String>| frames.iter().filter(|frame| frame.starts_with("end")).count();
    assert_eq!((ends(turns(&mut here)), ends(turns(&mut there))), (40, 40));
    assert_eq!((here.session.in_line(), here.session.unsent_large_bytes()), (0, 0));

    // The other side counts as well: had there been one more, it would say so.
    let (mut here, mut there) = two(cutting(10));
    for target in 1..=40 {
        here.tell(&to(ActorId(target)), LARGE);
    }
    assert_eq!(pass(&mut here, &mut there).len(), 40);
}

#[test]
fn a_busy_connection_gives_large_messages_their_share() {
    let mut here = Bench::open_with(cutting(40), 1000);
    here.tell(&to(A), LARGE);
    for _ in 0..100 {
        here.tell(&to(B), "small");
    }
    // The wire takes a little at a time, and there is always more than eight fragments' worth queued.
    let mut bytes = here.session.take_transmit();
    let mut written = 0;
    while here.session.in_line() > 0 {
        let count = bytes.len().min(50);
        drop(bytes.split_to(count));
        written += count;
        here.session.handle_written(count, here.now);
        here.tell(&to(B), "small");
        here.tell(&to(B), "small");
        assert!(here.session.queued_bytes() > 320, "busy");
        assert!(written < 2000, "it starves");
        if bytes.is_empty() {
            bytes = here.session.take_transmit();
        }
    }
}

#[test]
fn cancelling_half_way_takes_it_back_and_lets_the_next_go() {
    let (mut here, mut there) = two(cutting(30));
    let (request, _) = here.ask(&to(A), LARGER);
    here.tell(&to(A), "next");
    let begun = turn(&mut here);
    assert_eq!(here.session.cancel(request), Some(LARGER));
    let mut all = begun;
    while let Some(bytes) = Some(turn(&mut here)).filter(|bytes| !bytes.is_empty()) {
        all.extend_from_slice(&bytes);
    }
    let sent = shown(&all);
    assert_eq!(sent[sent.len() - 2..], ["drop 0", "tell 1 next"].map(str::to_owned));
    let mut rest = &all[..];
    let mut came = 0;
    while let Some((frame, length)) = frame::decode(rest, 1000).expect("own bytes") {
        rest = &rest[length..];
        came += usize::from(matches!(there.receive(frame), Ok(Received::Request { .. })));
    }
    assert_eq!((came, there.session.reassembly_bytes()), (1, 0));
    assert_eq!(here.session.pending(), 0);
    // What was taken back has used no credit: of 8, one is with `next`.
    here.credit(A, 1);
    assert!(matches!(here.receive(Frame::Credit { target: A, count: 1 }), Err(SessionError::Credit(_))));
}

#[test]
fn a_deadline_half_way_means_not_started() {
    let (mut here, mut there) = two(cutting(10));
    let soon = here.after(ms(10));
    here.ask(&call(A, soon), LARGE);
    here.tell(&call(B, soon), LARGE);
    let begun = turn(&mut here);
    here.pass(ms(10));
    assert_eq!(here.events(), [format!("{LARGE} late, started false"), format!("{LARGE} late, started false")]);
    let mut all = begun;
    all.extend_from_slice(&turn(&mut here));
    let mut rest = &all[..];
    while let Some((frame, length)) = frame::decode(rest, 1000).expect("own bytes") {
        rest = &rest[length..];
        let received = there.receive(frame);
        assert!(matches!(received, Ok(Received::Nothing | Received::Define { .. })), "{received:?}");
    }
    assert_eq!((there.session.reassembly_bytes(), here.session.unsent_large_bytes()), (0, 0));
    assert_eq!((here.session.in_line(), here.session.targets()), (0, 0));
}

#[test]
fn the_budget_counts_from_the_first_fragment() {
    let (mut here, mut there) = two(cutting(10));
    let deadline = here.after(ms(500));
    here.ask(&call(A, deadline), LARGE);
    let mut deadlines = Vec::new();
    loop {
        let bytes = turn(&mut here);
        if bytes.is_empty() {
            break;
        }
        let mut rest = &bytes[..];
        while let Some((frame, length)) = frame::decode(rest, 1000).expect("own bytes") {
            rest = &rest[length..];
            if let Received::Request { deadline, .. } = there.receive(frame).expect("within the rules") {
                deadlines.push(deadline);
            }
        }
        there.now += ms(20);
    }
    assert_eq!(deadlines, [deadline], "however long the fragments took");
}

#[test]
fn the_end_half_way_says_not_sent_and_after_the_last_fragment_sent() {
    let mut here = Bench::open_with(cutting(10), 8);
    here.ask(&to(A), LARGE);
    turn(&mut here);
    here.session.close(&peer_id(), "cut");
    assert_eq!(here.events(), [format!("{LARGE} unreachable, sent false")]);
    assert_eq!((here.session.unsent_large_bytes(), here.session.queued_bytes()), (0, 0));

    let mut here = Bench::open_with(cutting(10), 8);
    here.ask(&to(A), LARGE);
    turns(&mut here);
    here.session.close(&peer_id(), "cut");
    assert_eq!(here.events(), [format!("{LARGE} unreachable, sent true")]);
}

#[test]
fn who_reads_no_fragments_gets_none() {
    let mut bench = Bench::new(cutting(10));
    bench.sent();
    assert_eq!(bench.tell(&to(A), LARGE), Accepted::InLine);
    let mut huge = BytesMut::zeroed(limits::FRAME_BYTES_MAX);
    let before = bench.session.tell(
        &to(B),
        || "huge",
        bench.now,
        |out: &mut BytesMut| {
            out.extend_from_slice(&huge);
            Ok(())
        },
    );
    assert_eq!(before, Ok(Accepted::InLine), "nobody knows yet");
    let old = Hello { capabilities: 0, ..hello(peer_id(), 8) };
    bench.receive_hello(&old).expect("a fine hello");
    assert_eq!(bench.sent(), ["define 0", &format!("tell 1 {LARGE}")]);
    let events = bench.events().join(" ");
    assert!(events.contains(&format!("{LARGE} accepted")) && events.contains("huge Encode"), "{events}");

    let too_large = bench.session.tell(
        &to(B),
        || "huge",
        bench.now,
        |out: &mut BytesMut| {
            out.extend_from_slice(&huge);
            Ok(())
        },
    );
    assert!(matches!(too_large, Err(CallError::Encode { reply: false, .. })), "{too_large:?}");
    huge.truncate(limits::FRAME_BYTES_MAX - 18);
    let largest = bench.session.tell(
        &to(B),
        || "huge",
        bench.now,
        |out: &mut BytesMut| {
            out.extend_from_slice(&huge);
            Ok(())
        },
    );
    assert_eq!(largest, Ok(Accepted::Queued));
}

#[test]
fn fragments_break_no_rule_unnoticed() {
    let now = start();
    let old = Hello { capabilities: 0, ..us() };
    let mut bench = Bench { session: Session::new(cutting(10), &old, Some(NodeUid(2)), now), now };
    bench.receive_hello(&hello(peer_id(), 8)).expect("a fine hello");
    let fragment = Frame::Fragment { number: 0, bytes: b"x" };
    assert_eq!(bench.receive(fragment).map(|_| ()), Err(SessionError::FragmentsNotAgreed));

    let reassembled = |content: &[u8]| {
        let mut bench = Bench::open_with(cutting(10), 8);
        bench.receive(Frame::Fragment { number: 0, bytes: &content[..1] }).expect("it begins");
        bench.receive(Frame::FragmentEnd { number: 0, bytes: &content[1..] }).map(|_| ()).expect_err("refused")
    };
    assert_eq!(reassembled(b"\x01\0\0\0\0\0\0\0\0\0"), SessionError::NotToBeFragmented { kind: 1 });
    assert_eq!(reassembled(b"\x20\0\0\0\0\0\0\0"), SessionError::NotToBeFragmented { kind: 0x20 });
    let cut = FrameError::Truncated { kind: 0x13, need: 8, have: 1 };
    assert_eq!(reassembled(b"\x13\0\0"), SessionError::Frame(cut));
    assert_eq!(reassembled(b"\x13"), SessionError::Frame(FrameError::EmptyFrame { declared: 1 }));
    let undefined = b"\x12\0\0\0\0\0\0\0\0\x01\0\0\0\x07\0\0\0\0";
    assert_eq!(reassembled(undefined), SessionError::UndefinedMessage { index: 7 });
}

#[test]
fn an_answer_in_order_waits_for_what_is_on_its_way() {
    let (mut here, mut there) = two(cutting(30));
    here.tell(&to(A), LARGE);
    here.session.reply_in_order(RequestId(1), text("over")).expect("it fits");
    here.session.reply(RequestId(2), text("quick")).expect("it fits");
    let sent = turns(&mut here);
    let place = |frame: &str| sent.iter().position(|sent| sent == frame).expect(frame);
    assert!(
        place("reply quick") < place("end of 0 of 23") && place("end of 0 of 23") < place("reply over"),
        "{sent:?}"
    );

    // With nothing large on its way it is an answer like others; given up counts as past.
    here.session.reply_in_order(RequestId(3), text("at once")).expect("it fits");
    assert_eq!(turns(&mut here), ["reply at once"]);
    let (request, _) = here.ask(&to(A), LARGE);
    here.session.reply_in_order(RequestId(4), text("held")).expect("it fits");
    here.session.cancel(request);
    assert_eq!(turns(&mut here).last().map(String::as_str), Some("reply held"));
    drop(pass(&mut there, &mut here));
}

#[test]
fn the_items_and_the_end_of_a_stream_keep_their_order() {
    let (mut here, mut there) = two(cutting(30));
    let (request, _) = here.ask(&to(A), "s");
    let (other, _) = here.ask(&to(A), "o");
    pass(&mut here, &mut there);
    let twice = [LARGE, LARGE].concat();
    there.session.item(request, text(&twice)).expect("it fits");
    there.session.item(request, text("small")).expect("it fits");
    there.session.item(request, text(LARGE)).expect("it fits");
    there.session.reply(request, text("end")).expect("it fits");
    there.session.reply(other, text("another")).expect("it fits");
    let items = [format!("s item: {twice}"), "s item: small".to_owned(), format!("s item: {LARGE}")];
    let came = pass(&mut there, &mut here);
    assert_eq!(came, [&["o: another".to_owned()], &items[..], &["s: end".to_owned()]].concat());
}

#[test]
fn what_is_said_to_the_node_on_the_data_lane_keeps_its_place() {
    let mut here = Bench::open_with(cutting(30), 8);
    here.tell(&to(A), LARGE);
    assert_eq!(here.tell(&to(ActorId::NODE), "about it"), Accepted::InLine);
    here.tell(&to(B), LARGE);
    let sent = turns(&mut here);
    let place = |frame: &str| sent.iter().position(|sent| sent == frame).expect(frame);
    assert!(place("end of 0 of 23") < place("tell 0 about it"), "{sent:?}");
    assert!(place("tell 0 about it") <= place("end of 1 of 23") + 1, "{sent:?}");
    assert_eq!(here.session.targets(), 2, "and nothing is kept of it");

    let control = SessionConfig { fragment_bytes: 30, ..SessionConfig::new(Lane::Control) };
    let mut here = Bench::open_with(control, 8);
    assert_eq!(here.ask(&to(ActorId::NODE), LARGE).1, Accepted::InLine);
    assert_eq!(here.ask(&to(ActorId::NODE), "next").1, Accepted::InLine);
    here.tell(&to(A), LARGE);
    assert_eq!(turns(&mut here).len(), 1 + 4 + 1 + 3);
}

#[test]
fn a_large_message_leaves_no_large_buffer_behind() {
    let mut here = Bench::open_with(SessionConfig::new(Lane::Data), 8);
    let large = vec![7; 4 * 1024 * 1024];
    let body = |out: &mut BytesMut| {
        out.extend_from_slice(&large);
        Ok(())
    };
    here.session.tell(&to(A), || "large", here.now, body).expect("accepted");
    let mut held_max = 0;
    loop {
        let bytes = turn(&mut here);
        if bytes.is_empty() {
            break;
        }
        held_max = held_max.max(bytes.capacity());
    }
    assert!(held_max <= 1024 * 1024, "{held_max} bytes are held for the next small message");
}
