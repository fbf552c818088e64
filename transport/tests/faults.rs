//! One conversation, broken at each of its bytes in each direction: what a link promises holds wherever a wire fails.

#[allow(dead_code)]
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::faulty::{Fault, faulty};
use common::*;
use mobula_core::{CallError, Deadline};
use mobula_transport::{Accepted, Call, Link, memory, now};

/// What came of it: the ends of the asks and of the tell, what the other side saw, and whether the fault was reached.
struct Course {
    ends: Vec<(&'static [u8], Result<End, CallError>)>,
    seen: Vec<Vec<u8>>,
    reached: bool,
}

const MESSAGES: [&[u8]; 4] = [b"first", b"", b"the third of them", b"last"];

async fn conversation(read: Fault, write: Fault) -> Course {
    let (here, there) = memory::pair(64 * 1024);
    let (here, carried) = faulty(here, read, write);
    let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
    let (peer, seen) = Side::new(there, 2, Mode::Echo, data()).run();
    let mut ends = Vec::new();
    for payload in MESSAGES {
        ends.push((payload, deadlined_ask(&link, payload).await));
    }
    let reached = [read, write].iter().zip(carried).any(|(fault, carried)| match fault {
        Fault::Split(at) | Fault::Reset(at) | Fault::Stall(at) => carried.load(Ordering::Relaxed) >= *at,
        Fault::None | Fault::Pieces(_) => false,
    });
    link.close("done");
    within(link.closed()).await;
    within(peer.closed()).await;
    let seen = seen.messages.lock().iter().map(|(_, payload)| payload.clone()).collect();
    Course { ends, seen, reached }
}

async fn deadlined_ask(link: &Arc<Link<Waiting>>, payload: &[u8]) -> Result<End, CallError> {
    let (waiter, end) = waiting();
    let call = Call { deadline: Deadline::after(now(), Duration::from_secs(5)), ..to(A) };
    match link.ask(&call, waiter, bytes(payload)) {
        Ok(_) => Ok(within(end).await.expect("each ask has an end")),
        Err((error, _)) => Err(error),
    }
}

/// Runs the conversation with a fault at each byte, in each direction, and shows each to `check`.
async fn at_every_byte(fault: fn(usize) -> Fault, check: fn(usize, Course)) {
    for writing in [false, true] {
        let mut at = 0;
        loop {
            let (read, write) = if writing { (Fault::None, fault(at)) } else { (fault(at), Fault::None) };
            let course = conversation(read, write).await;
            if !course.reached {
                break;
            }
            check(at, course);
            at += 1;
        }
        assert!(at > 120, "the conversation has more than {at} bytes");
    }
}

fn is_prefix(at: usize, course: &Course) {
    let Course { seen, .. } = course;
    assert!(MESSAGES.iter().zip(seen).all(|(sent, seen)| sent == seen), "byte {at}: {seen:?}");
    assert!(seen.len() <= MESSAGES.len(), "byte {at}: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_at_any_byte_changes_nothing() {
    at_every_byte(Fault::Split, |at, course| {
        assert_eq!(course.seen, MESSAGES, "byte {at}");
        for (payload, end) in course.ends {
            assert_eq!(end, Ok(End::Answer(payload.to_vec())), "byte {at}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_reset_at_any_byte_each_ask_has_its_true_end() {
    at_every_byte(Fault::Reset, |at, course| {
        is_prefix(at, &course);
        for (index, (payload, end)) in course.ends.iter().enumerate() {
            match end {
                Ok(End::Answer(answer)) => assert_eq!(answer, payload, "byte {at}"),
                Ok(End::Failed(CallError::Unreachable { sent: true, .. })) => {}
                Ok(End::Failed(CallError::Unreachable { sent: false, .. }))
                | Err(CallError::Unreachable { sent: false, .. }) => {
                    assert!(course.seen.len() <= index, "byte {at}: what was not sent was handled");
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_stall_at_any_byte_each_ask_ends_at_its_deadline() {
    at_every_byte(Fault::Stall, |at, course| {
        is_prefix(at, &course);
        for (index, (payload, end)) in course.ends.iter().enumerate() {
            match end {
                Ok(End::Answer(answer)) => assert_eq!(answer, payload, "byte {at}"),
                Ok(End::Failed(CallError::DeadlineExceeded { started })) => {
                    assert!(*started || course.seen.len() <= index, "byte {at}: what did not start was handled");
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn in_any_pieces_it_is_the_same_conversation() {
    for seed in 1..200 {
        let course = conversation(Fault::Pieces(seed), Fault::Pieces(seed << 32)).await;
        assert_eq!(course.seen, MESSAGES, "seed {seed}");
        assert!(course.ends.into_iter().all(|(payload, end)| end == Ok(End::Answer(payload.to_vec()))), "seed {seed}");
    }
}

/// A tell that was accepted before a reset is handled or it is not, but nothing after it is handled without it.
#[tokio::test(start_paused = true)]
async fn what_a_reset_loses_is_lost_from_the_end() {
    for at in 0..800 {
        let (here, there) = memory::pair(64 * 1024);
        let (here, _) = faulty(here, Fault::None, Fault::Reset(at));
        let (link, _) = Side::new(here, 1, Mode::Echo, data()).run();
        let (peer, seen) = Side::new(there, 2, Mode::Echo, data()).run();
        for n in 0..20_u8 {
            // In line until the hello is there.
            assert!(matches!(tell(&link, A, &[n]).0, Ok(Accepted::Queued | Accepted::InLine)));
        }
        tokio::select! {
            _ = within(link.closed()) => {}
            _ = seen.messages(20) => link.close("done"),
        }
        within(peer.closed()).await;
        let seen: Vec<u8> = seen.messages.lock().iter().flat_map(|(_, payload)| payload.clone()).collect();
        assert!(seen.iter().copied().eq(0..seen.len() as u8), "byte {at}: {seen:?}");
    }
}
