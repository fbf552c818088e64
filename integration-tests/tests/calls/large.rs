//! Messages and answers above a frame: in order, beside others, given up half-way.

use std::time::Duration;

use mobula::{CallError, limits};
use mobula_integration_tests::actors::{Bytes, Entered, Fill, Log, Open, PassedBlocking, Record, SlowToRead};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, gates, suites, within};

suites! {
    large_messages_keep_their_place on [embedded, processes, memory];
    a_large_answer_arrives_whole on [embedded, processes, memory];
    small_asks_do_not_wait_behind_a_large_message on [processes, memory];
    a_large_message_that_is_given_up_half_way_never_runs on [processes, memory];
    many_large_messages_at_once_all_arrive on [processes, memory];
    decoding_a_large_message_holds_up_its_own_actor_only on [processes, memory];
}

/// More than a frame takes.
const LARGE_BYTES: usize = 17 * 1024 * 1024;
const HUGE_BYTES: usize = 100 * 1000 * 1000;

async fn large_messages_keep_their_place(stage: Stage) {
    let probe = stage.probe(0).await;
    drop(probe.tell(Record(1)));
    drop(probe.tell(Fill(vec![7; LARGE_BYTES])));
    drop(probe.tell(Record(2)));
    let filled = probe.ask(Fill(vec![7; LARGE_BYTES + 1]));
    let last = probe.ask(Record(3));
    within(LONG, "the large message", filled).await.expect("it is handled");
    assert_eq!(within(LONG, "the last", last).await, Ok(6));
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, [0, 1, LARGE_BYTES as u64, 2, LARGE_BYTES as u64 + 1, 3]);
}

async fn a_large_answer_arrives_whole(stage: Stage) {
    let probe = stage.probe(0).await;
    let (large, small) = (probe.ask(Bytes(LARGE_BYTES as u64)), probe.ask(Record(1)));
    assert_eq!(within(LONG, "the small answer", small).await, Ok(2));
    let bytes = within(LONG, "the large answer", large).await.expect("it fits");
    assert_eq!(bytes.len(), LARGE_BYTES);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8), "other bytes");
}

async fn small_asks_do_not_wait_behind_a_large_message(stage: Stage) {
    let (probe, other) = (stage.probe(0).await, stage.probe(0).await);
    let large = tokio::task::spawn_local(probe.ask(Fill(vec![7; HUGE_BYTES])));
    let mut answered = 0;
    while !large.is_finished() {
        within(LONG, "a small ask", other.ask(Record(1))).await.expect("it is handled");
        answered += 1;
    }
    within(LONG, "the large message", large).await.expect("no panic").expect("it is handled");
    // In one piece it would let none of them pass. What the system's own buffers hold goes ahead of each.
    assert!(answered >= 3, "{answered} small asks were answered while 100 MB were on their way");
}

async fn a_large_message_that_is_given_up_half_way_never_runs(stage: Stage) {
    let probe = stage.probe(0).await;
    // It begins with the call, and cannot be over before this thread awaits anything.
    drop(probe.ask(Fill(vec![7; HUGE_BYTES])));
    let expired = probe.with_deadline(Duration::from_millis(1)).ask(Fill(vec![7; HUGE_BYTES]));
    let error = within(LONG, "the deadline", expired).await.expect_err("too short for so much");
    assert_eq!(error, CallError::DeadlineExceeded { started: false });
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("the way is free again");
    assert_eq!(log, [0]);
}

async fn many_large_messages_at_once_all_arrive(stage: Stage) {
    let mut probes = Vec::new();
    for _ in 0..20 {
        probes.push(stage.probe(0).await);
    }
    let fills: Vec<_> = probes.iter().map(|probe| probe.ask(Fill(vec![7; 1_000_000]))).collect();
    for fill in fills {
        within(LONG, "a large message", fill).await.expect("it is handled");
    }
    assert_eq!(within(LONG, "the log", probes[0].ask(Log)).await, Ok(vec![0, 1_000_000]));
}

async fn decoding_a_large_message_holds_up_its_own_actor_only(stage: Stage) {
    let (probe, neighbour, keeper) = (stage.probe(0).await, stage.probe(0).await, stage.keeper(0).await);
    let gate = gates::fresh_name();
    let bytes = vec![7; 2 * limits::DECODE_APART_BYTES];
    let large = probe.ask(SlowToRead { bytes: bytes.clone(), gate: PassedBlocking(gate.clone()) });
    let behind = probe.ask(Record(1));
    within(LONG, "decoding", keeper.ask(Entered { gate: gate.clone(), count: 1 })).await.expect("it has begun");
    for number in 1..=20_u64 {
        assert_eq!(within(LONG, "the neighbour", neighbour.ask(Record(number))).await, Ok(number + 1));
    }
    within(LONG, "the gate", keeper.ask(Open { gate })).await.expect("it opens");
    within(LONG, "the large message", large).await.expect("it is handled");
    within(LONG, "the one behind", behind).await.expect("it is handled");
    let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
    assert_eq!(log, [0, bytes.len() as u64, 1]);
}
