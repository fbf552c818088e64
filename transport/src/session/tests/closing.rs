use super::*;

#[test]
fn everything_that_waits_fails_once_and_knows_whether_it_was_sent() {
    let mut bench = Bench::open(1);
    bench.ask(&call(A, bench.after(ms(50))), "sent");
    bench.ask(&to(A), "ask in line");
    bench.tell(&call(A, bench.after(ms(50))), "tell in line");
    let (given_up, _) = bench.ask(&to(A), "given up");
    bench.session.cancel(given_up);
    bench.session.close(&peer_id(), "the test is over");
    let mut events = bench.events();
    events.sort();
    assert_eq!(
        events,
        ["ask in line unreachable, sent false", "sent unreachable, sent true", "tell in line unreachable, sent false"]
    );
    bench.session.close(&peer_id(), "again");
    bench.pass(ms(100));
    assert_eq!(bench.events(), [] as [&str; 0]);
    assert_eq!(bench.session.poll_timeout(), None);
    assert_eq!((bench.session.pending(), bench.session.in_line(), bench.session.queued_bytes()), (0, 0, 0));
    assert_eq!(bench.session.flows.entries(), 0);
}

#[test]
fn the_error_names_the_node_and_the_reason() {
    let unreachable = |node| CallError::Unreachable { node, sent: true, reason: "cut".to_owned() };
    let mut bench = Bench::open(1);
    bench.ask(&to(A), "a");
    bench.session.close(&NodeId::new("", NodeUid(2)), "cut");
    let Some(Event::Failed { to: "a", error }) = bench.session.poll_event() else { panic!("it fails") };
    assert_eq!(error, unreachable(peer_id()), "the name is from the hello");

    let mut bench = Bench::new(SessionConfig::new(Lane::Data));
    bench.ask(&to(ActorId::NODE), "a");
    let dialed = NodeId::new("dialed", NodeUid(2));
    bench.session.close(&dialed, "cut");
    let Some(Event::Failed { to: "a", error }) = bench.session.poll_event() else { panic!("it fails") };
    assert_eq!(error, unreachable(dialed));
}

#[test]
fn a_closed_session_takes_nothing_and_sends_nothing() {
    let mut bench = Bench::open(1);
    let (request, _) = bench.ask(&to(A), "a");
    bench.session.close(&peer_id(), "over");
    bench.events();
    let not_sent = CallError::Unreachable { node: peer_id(), sent: false, reason: "over".to_owned() };
    assert!(bench.session.has_credit(A), "a try is refused with the reason, not with Full");
    let Err((error, "b")) = bench.session.ask(&to(A), "b", bench.now, text("b")) else { panic!("closed") };
    assert_eq!(error, not_sent);
    assert_eq!(bench.session.tell(&to(ActorId::NODE), || "c", bench.now, text("c")), Err(not_sent));
    assert_eq!(bench.session.cancel(request), None);
    assert_eq!(bench.answer(request), None);
    bench.session.reply(RequestId(1), text("r")).unwrap();
    bench.session.fail(RequestId(1), &CallError::Stopped);
    bench.session.grant(A, 1);
    bench.session.goodbye("late");
    for frame in [
        Frame::Ping { nonce: 1 },
        Frame::Credit { target: A, count: 9 },
        Frame::Hello { body: b"" },
        Frame::Cancel { request },
        Frame::Tell { target: A, message: MessageIndex(0), budget: Budget::NEVER, payload: b"" },
    ] {
        assert!(matches!(bench.receive(frame), Ok(Received::Nothing)), "{frame:?}");
    }
    bench.session.handle_written(1000, bench.now);
    assert_eq!(bench.sent(), [] as [&str; 0]);
    assert_eq!((bench.session.queued_bytes(), bench.session.late_replies()), (0, 0));
}

#[test]
fn a_goodbye_ends_the_session_with_its_text() {
    let mut bench = Bench::open(1);
    bench.session.goodbye("out of cake");
    let bytes = bench.session.take_transmit();
    let Ok(Some((goodbye, _))) = frame::decode(&bytes, 1000) else { panic!("a frame") };
    let mut peer = Bench::open(1);
    let text = "out of cake".to_owned();
    assert_eq!(peer.receive(goodbye).unwrap_err(), SessionError::Goodbye { text });
}

#[test]
fn peer_text_is_cut_and_has_no_control_characters() {
    let long = codec::encode(&format!("{}\u{1b}[31mé", "x".repeat(250))).unwrap();
    let Err(SessionError::Goodbye { text }) = Bench::open(1).receive(Frame::Goodbye { body: &long }) else {
        panic!("a goodbye")
    };
    assert!(text.starts_with("xxx") && text.ends_with("\u{fffd}[31m"), "{text}");
    let bad = Bench::open(1).receive(Frame::Goodbye { body: b"\xa1\xff" }).unwrap_err();
    assert!(matches!(bad, SessionError::BadBody { what: "goodbye", .. }), "{bad:?}");
}

#[test]
fn errors_name_the_rule() {
    let error = SessionError::from(FrameError::EmptyFrame { declared: 1 });
    assert_eq!(error.to_string(), "EmptyFrame: a frame needs at least 2 bytes, 1 were announced");
    let error = SessionError::from(CreditViolation { window: 4 });
    assert_eq!(error.to_string(), "FlowControlViolation: the peer passed its window of 4 messages");
}
