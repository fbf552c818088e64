use super::*;

fn of(key: u64, name: &'static str) -> Call {
    Call { key: MessageKey(key), name, ..to(A) }
}

#[test]
fn a_type_is_introduced_once_and_before_its_first_use() {
    let mut bench = Bench::open(8);
    bench.tell(&of(10, "x"), "a");
    bench.tell(&of(10, "x"), "b");
    bench.tell(&of(11, "y"), "c");
    bench.tell(&of(10, "x"), "d");
    let bytes = bench.session.take_transmit();
    assert_eq!(shown(&bytes), ["define 0", "tell 1 a", "tell 1 b", "define 1", "tell 1 c", "tell 1 d"]);
    let Ok(Some((Frame::Define { body, .. }, _))) = frame::decode(&bytes, 1000) else { panic!("a define") };
    assert_eq!(body, b"\x82\xa4name\xa1x\xa6schema\x09");
}

#[test]
fn the_peers_types_come_in_order() {
    let mut bench = Bench::open(8);
    let body = b"\x82\xa4name\xa1x\xa6schema\x09";
    let define = |index| Frame::Define { index: MessageIndex(index), body };
    assert_eq!(bench.receive(define(1)).unwrap_err(), SessionError::DefineOutOfOrder { index: 1, expected: 0 });
    let Ok(Received::Define { index, name, schema }) = bench.receive(define(0)) else { panic!("a define") };
    assert_eq!((index, name.as_str(), schema), (MessageIndex(0), "x", 9));
    assert_eq!(bench.receive(define(0)).unwrap_err(), SessionError::DefineOutOfOrder { index: 0, expected: 1 });
    assert!(matches!(bench.receive(define(1)), Ok(Received::Define { .. })));
}

#[test]
fn a_message_of_an_unknown_type_ends_the_session() {
    let mut bench = Bench::open(8);
    let tell = |index| Frame::Tell { target: A, message: MessageIndex(index), budget: Budget::NEVER, payload: b"" };
    assert_eq!(bench.receive(tell(0)).unwrap_err(), SessionError::UndefinedMessage { index: 0 });
    let body = b"\x82\xa4name\xa1x\xa6schema\x09";
    bench.receive(Frame::Define { index: MessageIndex(0), body }).unwrap();
    assert!(matches!(bench.receive(tell(0)), Ok(Received::Request { request: None, target: A, .. })));
    assert_eq!(bench.receive(tell(1)).unwrap_err(), SessionError::UndefinedMessage { index: 1 });
}

#[test]
fn the_number_of_types_is_bounded() {
    let mut bench = Bench::open(8);
    let body = b"\x82\xa4name\xa1x\xa6schema\x09";
    let max = limits::MESSAGE_TYPES_MAX;
    for index in 0..max as u32 {
        bench.receive(Frame::Define { index: MessageIndex(index), body }).unwrap();
    }
    let one_more = Frame::Define { index: MessageIndex(max as u32), body };
    assert_eq!(bench.receive(one_more).unwrap_err(), SessionError::TooManyMessageTypes { max });
}

#[test]
fn what_the_peer_would_refuse_is_not_introduced() {
    let mut bench = Bench::open(8);
    bench.tell(&of(1, &LONG_NAME[1..]), "a");
    let refused = bench.session.tell(&of(2, LONG_NAME), || "b", bench.now, text("b"));
    assert!(matches!(refused, Err(CallError::Encode { reply: false, .. })), "{refused:?}");
    assert_eq!(bench.sent(), ["define 0", "tell 1 a"]);

    for key in 3..2 + limits::MESSAGE_TYPES_MAX as u64 {
        bench.tell(&Call { target: ActorId::NODE, ..of(key, "x") }, "c");
    }
    bench.sent();
    let refused = bench.session.tell(&of(u64::MAX, "x"), || "b", bench.now, text("b"));
    assert!(matches!(refused, Err(CallError::Encode { reply: false, .. })), "{refused:?}");
    assert_eq!(bench.sent(), [] as [&str; 0]);
}

#[test]
fn a_definition_has_bounds() {
    #[derive(serde::Serialize)]
    struct Definition<'a> {
        name: &'a str,
        schema: u64,
    }
    for (name, fine) in [(&LONG_NAME[1..], true), (LONG_NAME, false), ("a\x1b[2J", false)] {
        let body = codec::encode(&Definition { name, schema: 0 }).unwrap();
        let result = Bench::open(8).receive(Frame::Define { index: MessageIndex(0), body: &body }).map(|_| ());
        assert_eq!(result.is_ok(), fine, "{name}: {result:?}");
    }
}
