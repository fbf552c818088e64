use super::*;

#[test]
fn a_post_is_answered_once_and_keeps_its_place() {
    let mut bench = Bench::open(2);
    bench.tell(&to(A), "a");
    let (b, accepted) = bench.session.post(&to(A), "b", bench.now, text("b")).expect("accepted");
    assert_eq!(accepted, Accepted::Queued);
    let (c, accepted) = bench.session.post(&to(A), "c", bench.now, text("c")).expect("accepted");
    assert_eq!(accepted, Accepted::InLine, "a post uses credit as a tell does");
    assert_eq!(bench.sent(), ["define 0", "tell 1 a", "post 1 b"]);
    assert_eq!((bench.answer(b), bench.answer(b)), (Some("b"), None));
    assert_eq!(bench.answer(c), None, "it has not left yet");
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["post 1 c"]);
    assert_eq!(bench.answer(c), Some("c"));
    assert_eq!((bench.session.pending(), bench.session.late_replies()), (0, 2));
}

#[test]
fn a_post_of_the_peer_says_that_it_is_one() {
    let mut bench = Bench::open(2);
    let body = b"\x82\xa4name\xa1x\xa6schema\x09";
    bench.receive(Frame::Define { index: MessageIndex(0), body }).unwrap();
    let post = |message| Frame::Post {
        request: RequestId(5),
        target: A,
        message: MessageIndex(message),
        budget: Budget::NEVER,
        payload: b"a",
    };
    let received = bench.receive(post(0));
    let Ok(Received::Request { request, post: is_post, .. }) = received else { panic!("{received:?}") };
    assert_eq!((request, is_post), (Some(RequestId(5)), true));
    assert_eq!(bench.receive(post(1)).unwrap_err(), SessionError::UndefinedMessage { index: 1 });
}

#[test]
fn what_was_not_delivered_comes_back_by_name() {
    let mut bench = Bench::open(2);
    bench.tell(&to(A), "a");
    let body = codec::encode::<CallError>(&CallError::Stopped).expect("plain data");
    let undelivered = |index, body| Frame::Undelivered { target: A, message: MessageIndex(index), body };
    let received = bench.receive(undelivered(0, &body));
    let Ok(Received::Undelivered { target, message, error }) = received else { panic!("{received:?}") };
    assert_eq!((target, message, error), (A, "test::Note", CallError::Stopped));
    assert_eq!(bench.receive(undelivered(1, &body)).unwrap_err(), SessionError::UndefinedMessage { index: 1 });
    assert!(matches!(bench.receive(undelivered(0, b"\xc1")), Err(SessionError::BadBody { what: "undelivered", .. })));
}
