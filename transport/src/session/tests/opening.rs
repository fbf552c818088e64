use super::*;

#[test]
fn the_hello_is_the_first_frame_even_if_a_ping_is_due() {
    let mut bench = Bench::new(SessionConfig::new(Lane::Control));
    bench.session.tell(&to(ActorId::NODE), || "x", bench.now, text("x")).expect("control");
    bench.pass(limits::HEARTBEAT_INTERVAL);
    assert_eq!(bench.sent(), ["hello", "ping", "define 0", "tell 0 x"]);
}

#[test]
fn nothing_is_taken_before_the_peers_hello() {
    for frame in [Frame::Ping { nonce: 1 }, Frame::Credit { target: A, count: 1 }, Frame::Goodbye { body: b"\xa0" }] {
        let mut bench = Bench::new(SessionConfig::new(Lane::Data));
        assert_eq!(bench.receive(frame).unwrap_err(), SessionError::HelloExpected);
    }
}

#[test]
fn a_second_hello_is_refused() {
    let mut bench = Bench::open(8);
    assert_eq!(bench.session.peer(), Some(&hello(peer_id(), 8)));
    assert_eq!(bench.receive_hello(&hello(peer_id(), 8)), Err(SessionError::HelloTwice));
}

#[test]
fn the_hello_has_to_agree_with_what_was_proven() {
    let mut bench = Bench::new(SessionConfig::new(Lane::Data));
    let other = hello(NodeId::new("peer", NodeUid(3)), 8);
    let (proven, claimed) = ("0000000000000002".to_owned(), "0000000000000003".to_owned());
    assert_eq!(bench.receive_hello(&other), Err(SessionError::SpoofedSource { proven, claimed }));
    assert_eq!(bench.session.peer(), None);
}

#[test]
fn a_hello_has_bounds() {
    let refused = |body: &[u8]| {
        let mut bench = Bench::new(SessionConfig::new(Lane::Data));
        matches!(bench.receive(Frame::Hello { body }), Err(SessionError::BadBody { what: "hello", .. }))
    };
    let of = |name: &str, credit| codec::encode(&hello(NodeId::new(name, NodeUid(2)), credit)).unwrap();
    assert!(!refused(&of(&LONG_NAME[1..], 1)));
    assert!(refused(&of(LONG_NAME, 1)));
    assert!(refused(&of("a\nb", 1)));
    assert!(refused(&of("peer", 0)), "no window");
    assert!(refused(&[of("peer", 1), vec![0]].concat()), "one byte more");
    assert!(refused(b"\xc0"));
    assert!(refused(b""));
}

#[test]
fn a_peer_without_hello_is_given_up() {
    let mut bench = Bench::new(SessionConfig::new(Lane::Data));
    assert_eq!(bench.session.poll_timeout(), Some(bench.now + limits::HANDSHAKE_DEADLINE));
    bench.pass(ms(4999));
    bench.now += ms(1);
    assert_eq!(bench.session.handle_timeout(bench.now), Err(SessionError::NoHello { waited_ms: 5000 }));
}

#[test]
fn data_waits_for_the_hello_and_its_window() {
    let mut bench = Bench::new(SessionConfig::new(Lane::Data));
    assert!(!bench.session.has_credit(A));
    assert!(bench.session.has_credit(ActorId::NODE));
    assert_eq!(bench.ask(&to(A), "a").1, Accepted::InLine);
    assert_eq!(bench.tell(&to(A), "b"), Accepted::InLine);
    assert_eq!(bench.tell(&to(A), "c"), Accepted::InLine);
    assert_eq!(bench.tell(&to(ActorId::NODE), "n"), Accepted::Queued);
    assert_eq!(bench.sent(), ["hello", "define 0", "tell 0 n"]);
    bench.receive_hello(&hello(peer_id(), 2)).unwrap();
    assert_eq!(bench.sent(), ["ask 1 a", "tell 1 b"]);
    assert_eq!(bench.events(), ["b accepted"]);
}
