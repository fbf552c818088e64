use super::*;

#[test]
fn asks_and_tells_to_one_target_keep_their_order_through_the_line() {
    let mut bench = Bench::open(2);
    assert_eq!(bench.tell(&to(A), "a"), Accepted::Queued);
    assert_eq!(bench.ask(&to(A), "b").1, Accepted::Queued);
    assert!(!bench.session.has_credit(A));
    assert_eq!(bench.tell(&to(A), "c"), Accepted::InLine);
    assert_eq!(bench.ask(&to(A), "d").1, Accepted::InLine);
    assert_eq!(bench.tell(&to(A), "e"), Accepted::InLine);
    assert_eq!(bench.tell(&to(B), "other"), Accepted::Queued, "another target is not held up");
    assert_eq!(bench.sent(), ["define 0", "tell 1 a", "ask 1 b", "tell 2 other"]);

    bench.credit(A, 1);
    assert_eq!(bench.tell(&to(A), "f"), Accepted::InLine, "no overtaking");
    assert_eq!(bench.sent(), ["tell 1 c"]);
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["ask 1 d"]);
    bench.credit(A, 2);
    assert_eq!(bench.sent(), ["tell 1 e", "tell 1 f"]);
    assert_eq!(bench.events(), ["c accepted", "e accepted", "f accepted"]);
    assert_eq!(bench.session.in_line(), 0);

    bench.credit(A, 1);
    assert!(bench.session.has_credit(A));
    assert_eq!(bench.tell(&to(A), "g"), Accepted::Queued);
    assert_eq!(bench.sent(), ["tell 1 g"]);
}

#[test]
fn the_line_is_bounded_and_holds_up_nobody_else() {
    let mut bench = Bench::open(1);
    bench.tell(&to(A), "a");
    for _ in 0..limits::LINE_MESSAGES_MAX {
        assert_eq!(bench.tell(&to(A), "l"), Accepted::InLine);
    }
    let full = CallError::Full { limit: limits::LINE_MESSAGES_MAX as u64 };
    let Err((error, kept)) = bench.session.ask(&to(A), "kept", bench.now, text("x")) else { panic!("full") };
    assert_eq!((error, kept), (full.clone(), "kept"));
    assert_eq!(bench.session.tell(&to(A), || unreachable!(), bench.now, text("x")), Err(full));
    assert_eq!(bench.session.pending(), 0);

    assert_eq!(bench.tell(&to(B), "b"), Accepted::Queued);
    assert_eq!(bench.tell(&to(ActorId::NODE), "n"), Accepted::Queued);
    bench.credit(A, 1);
    assert_eq!(bench.tell(&to(A), "l"), Accepted::InLine, "there is room for one again");
}

#[test]
fn the_node_itself_never_waits() {
    let config = SessionConfig { send_window_bytes: 1, ..SessionConfig::new(Lane::Control) };
    let mut bench = Bench::open_with(config, 1);
    for _ in 0..100 {
        assert_eq!(bench.ask(&to(ActorId::NODE), "n").1, Accepted::Queued);
    }
    assert_eq!(bench.sent().len(), 101);
}

#[test]
fn the_byte_window_stalls_and_releases_in_order() {
    let config = SessionConfig { send_window_bytes: 200, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 1000);
    let mut queued = 0;
    while bench.tell(&to(A), "a") == Accepted::Queued {
        queued += 1;
    }
    assert!(bench.session.queued_bytes() >= 200 && bench.session.queued_bytes() < 250);
    assert!(!bench.session.has_credit(A) && !bench.session.has_credit(B));
    assert_eq!(bench.tell(&to(B), "b"), Accepted::InLine);
    assert_eq!(bench.tell(&to(A), "c"), Accepted::InLine);
    assert_eq!(bench.ask(&to(A), "d").1, Accepted::InLine);
    assert_eq!(bench.session.in_line(), 4);

    let bytes = bench.session.take_transmit();
    assert_eq!(shown(&bytes).len(), 1 + queued);
    bench.session.handle_written(bytes.len() - 199, bench.now);
    assert_eq!(shown(&bench.session.take_transmit()), ["tell 1 a"], "one fits, then the window is full again");
    bench.session.handle_written(230, bench.now);
    assert_eq!(bench.sent(), ["tell 2 b", "tell 1 c", "ask 1 d"]);
    assert_eq!(bench.events(), ["a accepted", "b accepted", "c accepted"]);
    assert_eq!((bench.session.queued_bytes(), bench.session.in_line()), (0, 0));
}

#[test]
fn a_line_that_waits_for_both_needs_both() {
    let config = SessionConfig { send_window_bytes: 40, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 1);
    bench.tell(&to(ActorId::NODE), "n");
    bench.sent();
    bench.tell(&to(A), "a");
    bench.session.reply(RequestId(1), text("a long reply that fills the window")).unwrap();
    assert_eq!(bench.tell(&to(A), "b"), Accepted::InLine);
    bench.credit(A, 1);
    bench.credit(A, 0);
    assert_eq!(bench.session.in_line(), 1, "the window is full");
    assert_eq!(bench.sent(), ["tell 1 a", "reply a long reply that fills the window"]);
    assert_eq!(bench.sent(), ["tell 1 b"]);
    assert_eq!(bench.tell(&to(A), "c"), Accepted::InLine, "no credit");
    assert_eq!(bench.sent(), [] as [&str; 0]);
    bench.credit(A, 1);
    assert_eq!(bench.sent(), ["tell 1 c"]);
}

#[test]
fn empty_credit_frames_leave_nothing_behind() {
    let config = SessionConfig { send_window_bytes: 1, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 1);
    bench.tell(&to(ActorId::NODE), "n");
    bench.tell(&to(A), "a");
    for _ in 0..1000 {
        bench.credit(A, 0);
    }
    assert_eq!(bench.session.flows.stalled(), 1);
    for _ in 0..1000 {
        let (request, accepted) = bench.ask(&to(B), "b");
        assert_eq!(accepted, Accepted::InLine);
        bench.session.cancel(request);
        bench.credit(B, 0);
    }
    assert_eq!(bench.session.flows.stalled(), 2);
    bench.sent();
    bench.sent();
    assert_eq!((bench.session.flows.stalled(), bench.session.flows.entries()), (0, 1));
}

#[test]
fn a_message_that_cannot_be_written_leaves_no_trace() {
    let message_bytes_max = limits::FRAME_BYTES_MAX;
    let mut bench = Bench::open_with(SessionConfig { message_bytes_max, ..SessionConfig::new(Lane::Data) }, 1);
    bench.tell(&to(B), "b");
    bench.sent();
    for target in [A, B, ActorId::NODE] {
        let Err((error, kept)) = bench.session.ask(&to(target), "kept", bench.now, unwritable) else {
            panic!("unwritable")
        };
        assert!(matches!(error, CallError::Encode { reply: false, .. }));
        assert_eq!(kept, "kept");
        let told = bench.session.tell(&to(target), || unreachable!(), bench.now, unwritable);
        assert!(matches!(told, Err(CallError::Encode { reply: false, .. })));
    }
    let too_large = |out: &mut BytesMut| {
        out.resize(out.len() + limits::FRAME_BYTES_MAX, 0);
        Ok(())
    };
    let told = bench.session.tell(&to(A), || unreachable!(), bench.now, too_large);
    assert!(matches!(told, Err(CallError::Encode { reply: false, .. })));
    assert_eq!(bench.sent(), [] as [&str; 0]);
    assert_eq!((bench.session.pending(), bench.session.in_line(), bench.session.queued_bytes()), (0, 0, 0));
    assert_eq!(bench.session.flows.entries(), 1, "only B, which owes a credit");
    assert!(bench.session.has_credit(A));
}

#[test]
fn what_is_not_let_into_the_line_leaves_no_trace() {
    let config = SessionConfig { send_window_bytes: 1, ..SessionConfig::new(Lane::Data) };
    let mut bench = Bench::open_with(config, 1);
    bench.tell(&to(ActorId::NODE), "fills the window");
    let told = bench.session.tell(&to(A), || unreachable!(), bench.now, unwritable);
    assert!(matches!(told, Err(CallError::Encode { reply: false, .. })), "{told:?}");
    assert_eq!((bench.session.in_line(), bench.session.flows.entries()), (0, 0));
    for _ in 0..limits::LINE_MESSAGES_MAX {
        bench.tell(&to(B), "b");
    }
    for target in 3..100 {
        let told = bench.session.tell(&to(ActorId(target)), || unreachable!(), bench.now, text("x"));
        assert!(matches!(told, Err(CallError::Full { .. })), "{told:?}");
    }
    assert_eq!(bench.session.flows.entries(), 1);
}

#[test]
fn a_target_with_nothing_under_way_costs_nothing() {
    let mut bench = Bench::open(2);
    for target in 1..=1000 {
        bench.tell(&to(ActorId(target)), "a");
    }
    assert_eq!(bench.session.flows.entries(), 1000);
    for target in 1..=1000 {
        bench.credit(ActorId(target), 1);
    }
    assert_eq!(bench.session.flows.entries(), 0);
}
