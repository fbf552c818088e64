//! What keeps a lease goes before what is queued.

use super::*;

/// A control session whose peer knows the type of messages.
fn bench() -> Bench {
    let mut bench = Bench::open_with(SessionConfig::new(Lane::Control), 4);
    bench.ask(&to(ActorId::NODE), "first");
    assert_eq!(bench.sent(), ["define 0", "ask 0 first"]);
    bench
}

impl Bench {
    fn ask_ahead(&mut self, call: &Call, body: &'static str) -> Accepted {
        self.session.ask_ahead(call, body, self.now, text(body)).expect("accepted").1
    }

    fn reply_ahead(&mut self, number: u64, body: &str) {
        self.session.reply_ahead(RequestId(number), text(body)).expect("small");
    }
}

#[test]
fn what_keeps_a_lease_overtakes_what_is_queued() {
    let mut bench = bench();
    let node = to(ActorId::NODE);
    bench.ask(&node, "create");
    bench.session.reply(RequestId(1), text("done")).expect("small");
    assert_eq!(bench.ask_ahead(&node, "renew"), Accepted::Queued);
    bench.reply_ahead(2, "renewed");
    assert_eq!(bench.sent(), ["ask 0 renew", "reply renewed", "ask 0 create", "reply done"]);
    assert_eq!(bench.session.queued_bytes(), 0);
    assert_eq!(bench.session.pending(), 3);
}

#[test]
fn nothing_overtakes_the_introduction_of_its_type() {
    let mut bench = Bench::open_with(SessionConfig::new(Lane::Control), 4);
    let node = to(ActorId::NODE);
    bench.ask_ahead(&node, "first");
    bench.ask(&node, "create");
    bench.ask_ahead(&node, "renew");
    assert_eq!(bench.sent(), ["define 0", "ask 0 first", "ask 0 create", "ask 0 renew"]);
    bench.ask(&node, "create");
    bench.ask_ahead(&node, "renew");
    assert_eq!(bench.sent(), ["ask 0 renew", "ask 0 create"]);
    assert_eq!(bench.session.pending(), 5);
}

/// Whoever asks for 1000 things at once does not hold up what keeps its lease: of all that, little is taken to be written at
/// a time.
#[test]
fn the_control_lane_is_written_in_small_batches() {
    const LONG: &str = "a request that is a little longer than most of the others";
    let mut bench = bench();
    let node = to(ActorId::NODE);
    for _ in 0..1000 {
        bench.ask(&node, LONG);
    }
    let (mut taken, mut renewed) = (0, 0);
    while bench.session.has_transmit() {
        bench.ask_ahead(&node, "renew");
        let bytes = bench.session.take_transmit();
        assert!(bytes.len() < 9 * 1024, "{}", bytes.len());
        bench.session.handle_written(bytes.len(), bench.now);
        let shown = shown(&bytes);
        assert_eq!(shown[0], "ask 0 renew");
        taken += shown.len() - 1;
        renewed += 1;
    }
    assert!(taken == 1000 && renewed > 8, "{taken} {renewed}");
    assert_eq!(bench.session.queued_bytes(), 0);
}

/// An introduction that stands behind a batch is waited for just as well.
#[test]
fn an_introduction_may_stand_behind_several_batches() {
    let mut bench = bench();
    let (node, other) = (to(ActorId::NODE), Call { key: MessageKey(2), name: "test::Other", ..to(ActorId::NODE) });
    for _ in 0..1000 {
        bench.ask(&node, "a request");
    }
    bench.ask(&other, "other");
    let mut introduced = false;
    while bench.session.has_transmit() {
        bench.ask_ahead(&other, "ahead");
        let bytes = bench.session.take_transmit();
        bench.session.handle_written(bytes.len(), bench.now);
        for frame in shown(&bytes) {
            introduced |= frame == "define 1";
            assert!(introduced || frame == "ask 0 a request", "{frame}");
        }
    }
    bench.ask(&node, "a request");
    bench.ask_ahead(&other, "ahead");
    assert_eq!(bench.sent(), ["ask 0 ahead", "ask 0 a request"]);
}

#[test]
fn what_is_large_or_too_much_takes_its_turn() {
    const LARGE: &str = "a message that is too large for one piece";
    let config = SessionConfig { fragment_bytes: 60, ..SessionConfig::new(Lane::Control) };
    let mut bench = Bench::open_with(config, 4);
    let node = to(ActorId::NODE);
    bench.ask(&node, "first");
    bench.sent();
    bench.ask(&node, "create");
    bench.ask_ahead(&node, LARGE);
    assert_eq!(bench.sent()[0], "ask 0 create");
    (0..1000).for_each(|number| bench.reply_ahead(number, "x"));
    for _ in 0..1000 {
        bench.ask_ahead(&node, "renew");
    }
    let (mut replies, mut asks) = (0, 0);
    while bench.session.has_transmit() {
        let sent = bench.sent();
        replies += sent.iter().filter(|frame| frame.starts_with("reply")).count();
        asks += sent.iter().filter(|frame| *frame == "ask 0 renew").count();
    }
    assert_eq!((replies, asks), (1000, 1000), "nothing is lost");
}

#[test]
fn a_session_that_is_over_takes_nothing() {
    let mut bench = bench();
    bench.session.close(&peer_id(), "over");
    assert!(bench.session.ask_ahead(&to(ActorId::NODE), "renew", bench.now, text("x")).is_err());
    bench.reply_ahead(1, "renewed");
    assert_eq!(bench.session.queued_bytes(), 0);
}
