use super::*;

#[test]
fn answers_find_their_asks_in_any_order() {
    let mut bench = Bench::open(8);
    let requests = ["a", "b", "c"].map(|body| bench.ask(&to(A), body).0);
    assert_eq!(bench.sent(), ["define 0", "ask 1 a", "ask 1 b", "ask 1 c"]);
    assert_eq!(bench.session.pending(), 3);
    assert!(matches!(
        bench.receive(Frame::Reply { request: requests[1], payload: b"yes" }),
        Ok(Received::Reply { to: "b", payload: Payload::Whole(b"yes") })
    ));
    let body = codec::encode(&CallError::<mobula_core::Never>::Stopped).unwrap();
    assert!(matches!(
        bench.receive(Frame::Failure { request: requests[2], body: &body }),
        Ok(Received::Failure { to: "c", error: CallError::Stopped })
    ));
    assert_eq!(bench.answer(requests[0]), Some("a"));
    assert_eq!((bench.session.pending(), bench.session.late_replies()), (0, 0));
}

#[test]
fn an_answer_serves_once() {
    let mut bench = Bench::open(8);
    let (request, _) = bench.ask(&to(A), "a");
    assert_eq!(bench.answer(request), Some("a"));
    assert_eq!(bench.answer(request), None);
    assert_eq!(bench.session.late_replies(), 1);
}

#[test]
fn late_answers_are_dropped_and_counted() {
    let mut bench = Bench::open(8);
    let (given_up, _) = bench.ask(&to(A), "a");
    let (expired, _) = bench.ask(&call(A, bench.after(ms(10))), "b");
    assert_eq!(bench.session.cancel(given_up), Some("a"));
    bench.pass(ms(10));
    assert_eq!(bench.answer(given_up), None);
    assert_eq!(bench.answer(expired), None);
    let body = codec::encode(&CallError::<mobula_core::Never>::Stopped).unwrap();
    assert!(matches!(bench.receive(Frame::Failure { request: given_up, body: &body }), Ok(Received::Nothing)));
    assert_eq!(bench.session.late_replies(), 3);
}

#[test]
fn the_answer_to_a_slots_last_user_never_reaches_its_next() {
    let mut bench = Bench::open(8);
    let (first, _) = bench.ask(&to(A), "first");
    bench.session.cancel(first);
    let (second, _) = bench.ask(&to(A), "second");
    assert_eq!(first.0 as u32, second.0 as u32, "the slot is used again");
    assert_eq!(bench.answer(first), None);
    assert_eq!(bench.answer(second), Some("second"));
}

#[test]
fn an_answer_to_what_was_never_sent_is_dropped() {
    let mut bench = Bench::open(1);
    bench.ask(&to(A), "a");
    let (in_line, _) = bench.ask(&to(A), "b");
    assert_eq!(bench.answer(in_line), None);
    assert_eq!(bench.answer(RequestId(u64::MAX)), None);
    assert_eq!(bench.session.late_replies(), 2);
    bench.sent();
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["ask 1 b"]);
    assert_eq!(bench.answer(in_line), Some("b"));
}

#[test]
fn an_unreadable_failure_ends_the_session() {
    let mut bench = Bench::open(8);
    let (request, _) = bench.ask(&to(A), "a");
    let result = bench.receive(Frame::Failure { request, body: b"\xa7Unheard" });
    assert!(matches!(result, Err(SessionError::BadBody { what: "failure", .. })), "{result:?}");
}

#[test]
fn our_answers_never_wait_for_credit_or_window() {
    let config = SessionConfig { send_window_bytes: 1, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 1);
    bench.tell(&to(A), "a");
    assert_eq!(bench.tell(&to(B), "b"), Accepted::InLine);
    bench.session.reply(RequestId(1), text("r")).unwrap();
    bench.session.fail(RequestId(2), &CallError::Stopped);
    bench.session.grant(B, 4);
    let sent = shown(&bench.session.take_transmit());
    assert_eq!(sent, ["define 0", "reply r", "failure", "credit 2 4"]);
}
