use super::*;

#[test]
fn credit_that_was_never_spent_is_a_violation() {
    let violation = |window| SessionError::Credit(CreditViolation { window });
    let mut bench = Bench::open(4);
    let credit = |target, count| Frame::Credit { target, count };
    assert_eq!(bench.receive(credit(A, 1)).unwrap_err(), violation(4), "nothing is under way to A");
    bench.tell(&to(A), "a");
    bench.tell(&to(A), "b");
    assert_eq!(bench.receive(credit(A, 3)).unwrap_err(), violation(4));
    assert_eq!(bench.receive(credit(A, u32::MAX)).unwrap_err(), violation(4));
    assert_eq!(bench.receive(credit(B, 1)).unwrap_err(), violation(4));
    assert_eq!(bench.receive(credit(ActorId::NODE, 1)).unwrap_err(), violation(4));
    bench.credit(A, 2);
}

#[test]
fn the_window_is_the_peers() {
    for window in [1, 3, 5000] {
        let mut bench = Bench::open(window);
        let receiver = ReceiveCredit::new(window);
        let mut sent = 0;
        while bench.tell(&to(A), "a") == Accepted::Queued {
            receiver.on_message().expect("within the window");
            sent += 1;
        }
        assert_eq!(sent, window);
        assert_eq!(receiver.on_message(), Err(CreditViolation { window }));
    }
}
