use super::*;

fn item(request: RequestId, payload: &[u8]) -> Frame<'_> {
    Frame::Item { request, payload }
}

#[test]
fn items_find_their_ask_until_its_reply() {
    let mut bench = Bench::open(8);
    let (a, _) = bench.ask(&to(A), "a");
    bench.sent();
    for payload in [b"1", b"2"] {
        let received = bench.receive(item(a, payload));
        assert!(
            matches!(&received, Ok(Received::Item { to: "a", payload: p }) if p[..] == payload[..]),
            "{received:?}"
        );
    }
    bench.session.more(a, 2);
    assert_eq!(bench.sent(), [format!("more {:x} 2", a.0)]);
    assert_eq!(bench.answer(a), Some("a"));
    assert!(matches!(bench.receive(item(a, b"3")), Ok(Received::Nothing)));
    assert_eq!(bench.session.late_replies(), 1);
    bench.session.more(a, 2);
    assert_eq!(bench.sent(), [] as [&str; 0], "nobody is there to send more");
}

#[test]
fn an_item_for_what_stands_in_line_was_invented() {
    let mut bench = Bench::open(1);
    bench.tell(&to(A), "a");
    let (b, _) = bench.ask(&to(A), "b");
    assert!(matches!(bench.receive(item(b, b"1")), Ok(Received::Nothing)));
    assert_eq!(bench.session.late_replies(), 1);
}

#[test]
fn the_peers_more_reaches_the_driver_and_items_leave_in_order() {
    let mut bench = Bench::open(8);
    let received = bench.receive(Frame::More { request: RequestId(5), count: 3 });
    assert!(matches!(received, Ok(Received::More { request: RequestId(5), count: 3 })));
    bench.session.item(RequestId(5), text("1")).expect("it fits");
    bench.session.item(RequestId(5), text("2")).expect("it fits");
    let broken = bench.session.item(RequestId(5), unwritable);
    assert!(matches!(broken, Err(CallError::Encode { reply: true, .. })), "{broken:?}");
    bench.session.reply(RequestId(5), text("end")).expect("it fits");
    assert_eq!(bench.sent(), ["item 1", "item 2", "reply end"]);
}
