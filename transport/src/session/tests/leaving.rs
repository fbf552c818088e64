use super::*;

fn go_away() -> Vec<u8> {
    codec::encode("new kernel").unwrap()
}

#[test]
fn a_peer_that_leaves_is_sent_nothing_new_and_what_is_in_progress_goes_on() {
    let mut bench = Bench::open(1);
    let (sent, _) = bench.ask(&to(A), "sent");
    bench.ask(&to(A), "ask in line");
    bench.tell(&to(A), "tell in line");
    let (given_up, _) = bench.ask(&to(A), "given up");
    bench.session.cancel(given_up);
    assert!(matches!(bench.receive(Frame::GoAway { body: &go_away() }), Ok(Received::Nothing)));
    assert_eq!(bench.session.peer_leaves(), Some("new kernel"));
    assert_eq!(bench.events(), ["ask in line unreachable, sent false", "tell in line unreachable, sent false"]);
    assert_eq!((bench.session.in_line(), bench.session.pending()), (0, 1));
    // New calls fail at once, and say why.
    let reason = "the node is about to end: new kernel".to_owned();
    let error = CallError::Unreachable { node: peer_id(), sent: false, reason };
    assert!(bench.session.has_credit(A), "a try is refused with the reason, not with Full");
    let Err((refused, "b")) = bench.session.ask(&to(A), "b", bench.now, text("b")) else { panic!("it leaves") };
    assert_eq!(refused, error);
    assert!(refused.outcome().is_retry_safe());
    assert_eq!(bench.session.tell(&to(A), || "c", bench.now, text("c")), Err(error));
    // What is said to the node is about what is there.
    assert_eq!(bench.tell(&to(ActorId::NODE), "control"), Accepted::Queued);
    // Answers go both ways, credit and cancels as well.
    bench.session.reply(RequestId(1), text("r")).unwrap();
    bench.credit(A, 1);
    assert_eq!(bench.answer(sent), Some("sent"));
    // Once is enough.
    assert!(matches!(bench.receive(Frame::GoAway { body: &go_away() }), Ok(Received::Nothing)));
    assert_eq!(bench.sent(), ["define 0", "ask 1 sent", "tell 0 control", "reply r"]);
    assert_eq!(bench.session.flows.entries(), 0);
}

#[test]
fn a_large_message_that_is_half_sent_goes_on() {
    let config = SessionConfig { fragment_bytes: 50, send_window_bytes: 60, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 8);
    let large = "0123456789".repeat(20);
    bench.session.ask(&to(A), "large", bench.now, text(&large)).expect("it goes in fragments");
    bench.tell(&to(A), "behind it");
    let begun = bench.sent();
    assert!(begun.iter().any(|frame| frame.starts_with("fragment 0")), "{begun:?}");
    bench.receive(Frame::GoAway { body: &go_away() }).expect("a text");
    assert_eq!(bench.events(), ["behind it unreachable, sent false"]);
    let rest: Vec<_> = std::iter::from_fn(|| Some(bench.sent()).filter(|sent| !sent.is_empty())).flatten().collect();
    assert!(rest.last().is_some_and(|frame| frame.starts_with("end of 0")), "{rest:?}");
    assert_eq!((bench.session.in_line(), bench.session.pending(), bench.session.unsent_large_bytes()), (0, 1, 0));
}

#[test]
fn only_who_wants_to_be_told_is_told_and_as_soon_as_that_is_known() {
    for (capabilities, told) in [(Hello::CAPABILITIES, true), (Hello::FRAGMENTS, false)] {
        let mut bench = Bench::new(SessionConfig::new(Lane::Data));
        bench.session.go_away("early");
        assert_eq!(bench.sent(), ["hello"]);
        bench.receive_hello(&Hello { capabilities, ..hello(peer_id(), 1) }).expect("a fine hello");
        bench.session.go_away("again");
        assert_eq!(bench.sent(), if told { vec!["go-away"] } else { vec![] });
        // It still sends, and is answered.
        let (request, _) = bench.ask(&to(A), "a");
        assert_eq!(bench.answer(request), Some("a"));
    }
}

#[test]
fn a_go_away_to_who_did_not_ask_for_it_or_without_a_text_breaks_a_rule() {
    let us = Hello { capabilities: Hello::FRAGMENTS, ..us() };
    let now = start();
    let mut session = Session::<&str>::new(SessionConfig::new(Lane::Data), &us, Some(NodeUid(2)), now);
    let body = codec::encode(&hello(peer_id(), 1)).unwrap();
    session.receive(Frame::Hello { body: &body }, now).expect("a fine hello");
    let unknown = session.receive(Frame::GoAway { body: &go_away() }, now).unwrap_err();
    assert_eq!(unknown, SessionError::Frame(FrameError::UnknownFrameKind { kind: 7 }));
    let bad = Bench::open(1).receive(Frame::GoAway { body: b"\xa1\xff" }).unwrap_err();
    assert!(matches!(bad, SessionError::BadBody { what: "go-away", .. }), "{bad:?}");
}
