use super::*;

#[test]
fn what_was_not_sent_is_known_not_to_have_started() {
    let mut bench = Bench::open(1);
    let soon = call(A, bench.after(ms(100)));
    bench.ask(&soon, "sent");
    bench.ask(&soon, "in line");
    assert_eq!(bench.tell(&soon, "told"), Accepted::InLine);
    assert_eq!(bench.session.poll_timeout(), Some(bench.now + ms(100)));
    bench.pass(ms(99));
    assert_eq!(bench.events(), [] as [&str; 0]);
    bench.pass(ms(1));
    let mut events = bench.events();
    events.sort();
    assert_eq!(events, ["in line late, started false", "sent late, started true", "told late, started false"]);
    assert_eq!((bench.session.pending(), bench.session.in_line()), (0, 0));
    assert_eq!(bench.session.poll_timeout(), None);
    bench.sent();
    bench.credit(A, 1);
    assert_eq!(bench.sent(), [] as [&str; 0], "the frames in line never leave");
}

#[test]
fn what_expires_in_line_uses_no_credit_even_if_the_timer_comes_later() {
    let mut bench = Bench::open(1);
    bench.tell(&to(A), "a");
    bench.ask(&call(A, bench.after(ms(10))), "b");
    bench.tell(&call(A, bench.after(ms(10))), "c");
    bench.tell(&to(A), "d");
    bench.sent();
    bench.now += ms(10);
    bench.credit(A, 1);
    assert_eq!(bench.events(), ["b late, started false", "c late, started false", "d accepted"]);
    assert_eq!(bench.sent(), ["tell 1 d"]);
    bench.pass(ms(0));
    assert_eq!(bench.events(), [] as [&str; 0]);
}

#[test]
fn what_is_over_is_refused_at_once() {
    let mut bench = Bench::open(1);
    let over = call(A, Deadline::at(bench.now));
    let late = CallError::DeadlineExceeded { started: false };
    let Err((error, "a")) = bench.session.ask(&over, "a", bench.now, text("a")) else { panic!("it is over") };
    assert_eq!(error, late);
    assert_eq!(bench.session.tell(&over, || unreachable!(), bench.now, text("a")), Err(late));
    assert_eq!(bench.sent(), [] as [&str; 0]);
}

#[test]
fn deadlines_expire_each_at_its_time() {
    let mut bench = Bench::open(8);
    for (after, body) in [(30, "c"), (10, "a"), (20, "b")] {
        bench.ask(&call(A, bench.after(ms(after))), body);
    }
    bench.ask(&to(A), "never");
    for body in ["a", "b", "c"] {
        let next = bench.session.poll_timeout().expect("a deadline");
        bench.pass(next - bench.now);
        assert_eq!(bench.events(), [format!("{body} late, started true")]);
    }
    assert_eq!(bench.session.poll_timeout(), None);
    assert_eq!(bench.session.pending(), 1);
}

#[test]
fn time_in_line_is_taken_from_the_budget() {
    let budgets = |bytes: &[u8]| {
        let mut rest = bytes;
        let mut budgets = Vec::new();
        while let Ok(Some((frame, length))) = frame::decode(rest, 1000) {
            if let Frame::Ask { budget, .. } | Frame::Tell { budget, .. } = frame {
                budgets.push(budget.0);
            }
            rest = &rest[length..];
        }
        budgets
    };
    let mut bench = Bench::open(2);
    let second = call(A, bench.after(ms(1000)));
    bench.ask(&second, "a");
    bench.tell(&second, "b");
    bench.ask(&second, "c");
    bench.tell(&second, "d");
    bench.tell(&to(A), "e");
    assert_eq!(budgets(&bench.session.take_transmit()), [1000, 1000]);
    bench.pass(ms(400));
    bench.credit(A, 2);
    assert_eq!(budgets(&bench.session.take_transmit()), [600, 600]);
    bench.credit(A, 1);
    assert_eq!(budgets(&bench.session.take_transmit()), [Budget::NEVER.0]);
}

#[test]
fn a_requests_deadline_counts_from_its_arrival() {
    let mut bench = Bench::open(8);
    let body = b"\x82\xa4name\xa1x\xa6schema\x09";
    bench.receive(Frame::Define { index: MessageIndex(0), body }).unwrap();
    bench.now += ms(7);
    let ask = |budget| Frame::Ask { request: RequestId(3), target: A, message: MessageIndex(0), budget, payload: b"p" };
    let now = bench.now;
    for (budget, expected) in [(Budget(50), Deadline::at(now + ms(50))), (Budget::NEVER, Deadline::NEVER)] {
        let Ok(Received::Request { request, target, message, deadline, payload, .. }) = bench.receive(ask(budget))
        else {
            panic!("a request")
        };
        assert_eq!((request, target, message), (Some(RequestId(3)), A, MessageIndex(0)));
        assert_eq!((deadline, &*payload), (expected, &b"p"[..]));
    }
}

#[test]
fn the_peer_is_told_when_an_ask_expires() {
    let mut bench = Bench::open(1);
    let deadline = bench.after(ms(20));
    let (a, _) = bench.ask(&call(A, deadline), "a");
    bench.ask(&call(A, deadline), "b");
    assert_eq!(bench.sent(), ["define 0", "ask 1 a"]);
    bench.pass(ms(20));
    assert_eq!(bench.events(), ["a late, started true", "b late, started false"]);
    assert_eq!(bench.sent(), [format!("cancel {:x}", a.0)], "what has not left needs none");
}
