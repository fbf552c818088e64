use super::*;

#[test]
fn the_peer_is_told_of_what_was_sent() {
    let mut bench = Bench::open(8);
    let (request, _) = bench.ask(&to(A), "a");
    bench.sent();
    assert_eq!(bench.session.cancel(request), Some("a"));
    assert_eq!(bench.session.cancel(request), None);
    assert_eq!(bench.sent(), [format!("cancel {:x}", request.0)]);
    assert_eq!(bench.session.pending(), 0);
}

#[test]
fn what_stands_in_line_never_leaves() {
    let mut bench = Bench::open(1);
    bench.ask(&to(A), "a");
    let (b, _) = bench.ask(&to(A), "b");
    bench.ask(&to(A), "c");
    let (d, _) = bench.ask(&to(A), "d");
    bench.tell(&to(A), "e");
    bench.sent();
    assert_eq!(bench.session.cancel(b), Some("b"));
    assert_eq!(bench.session.cancel(d), Some("d"));
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["ask 1 c"], "no cancel frame either");
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["tell 1 e"]);
    assert_eq!((bench.session.in_line(), bench.session.pending()), (0, 2));
}

#[test]
fn the_line_does_not_grow_under_ask_and_cancel() {
    let mut bench = Bench::open(1);
    bench.tell(&to(A), "a");
    for round in 0..3 * limits::LINE_MESSAGES_MAX {
        let (request, accepted) = bench.ask(&to(A), "b");
        assert_eq!(accepted, Accepted::InLine);
        assert_eq!(bench.session.cancel(request), Some("b"));
        assert!(bench.session.in_line() <= 2, "round {round}");
    }
    let kept = ["c", "d", "e"];
    for body in kept {
        bench.ask(&to(A), body);
    }
    for _ in 0..1000 {
        let (request, _) = bench.ask(&to(A), "b");
        bench.session.cancel(request);
        assert!(bench.session.in_line() <= 2 * kept.len() + 1, "{}", bench.session.in_line());
    }
    bench.sent();
    for body in kept {
        bench.credit(A, 1);
        assert_eq!(bench.sent(), [format!("ask 1 {body}")]);
    }
    assert_eq!(bench.session.in_line(), 0);
}

#[test]
fn the_peers_cancel_reaches_the_driver() {
    let mut bench = Bench::open(1);
    let received = bench.receive(Frame::Cancel { request: RequestId(5) });
    assert!(matches!(received, Ok(Received::Cancel { request: RequestId(5) })));
}
