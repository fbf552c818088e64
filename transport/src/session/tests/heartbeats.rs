use super::*;

#[test]
fn a_control_session_pings_at_the_interval() {
    let mut bench = Bench::open_with(SessionConfig::new(Lane::Control), 8);
    for _ in 0..10 {
        assert_eq!(bench.session.poll_timeout(), Some(bench.now + limits::HEARTBEAT_INTERVAL));
        bench.pass(limits::HEARTBEAT_INTERVAL - ms(1));
        assert_eq!(bench.sent(), [] as [&str; 0]);
        bench.pass(ms(1));
        assert_eq!(bench.sent(), ["ping"]);
        assert!(matches!(bench.receive(Frame::Pong { nonce: 0 }), Ok(Received::Nothing)));
    }
}

#[test]
fn a_silent_peer_is_given_up_and_any_frame_is_life() {
    let mut bench = Bench::open_with(SessionConfig::new(Lane::Control), 8);
    bench.pass(limits::DOWN_AFTER - ms(1));
    bench.receive(Frame::Cancel { request: RequestId(1) }).unwrap();
    assert_eq!(bench.session.heard(), bench.now);
    bench.pass(limits::DOWN_AFTER - ms(1));
    bench.now += ms(1);
    assert_eq!(bench.session.handle_timeout(bench.now), Err(SessionError::Silent { silence_ms: 10_000 }));
}

#[test]
fn a_data_session_neither_pings_nor_suspects() {
    let mut bench = Bench::open(8);
    assert_eq!(bench.session.poll_timeout(), None);
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.sent(), [] as [&str; 0]);
}

#[test]
fn a_pong_goes_ahead_of_data() {
    let mut bench = Bench::open(8);
    bench.tell(&to(A), "a");
    bench.receive(Frame::Ping { nonce: 77 }).unwrap();
    assert_eq!(bench.sent(), ["pong 77", "define 0", "tell 1 a"]);
}

#[test]
fn pings_to_a_peer_that_does_not_read_are_bounded() {
    let mut bench = Bench::open(8);
    for nonce in 0..100_000 {
        bench.receive(Frame::Ping { nonce }).unwrap();
    }
    assert!(bench.session.queued_bytes() < 5000, "{}", bench.session.queued_bytes());
    assert_eq!(bench.sent()[0], "pong 0");
    bench.receive(Frame::Ping { nonce: 5 }).unwrap();
    assert_eq!(bench.sent(), ["pong 5"]);
}
