//! A session goes on over another connection when one breaks, wherever that happens: nothing is lost, doubled or reordered.

#[allow(dead_code)]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::faulty::Fault;
use common::returning::Road;
use common::*;
use mobula_core::{CallError, limits};
use mobula_transport::{Accepted, Link};

const MESSAGES: [&[u8]; 4] = [b"first", b"", b"the third of them", b"last"];

/// A link, and what came over it.
type Party = (Arc<Link<Waiting>>, Arc<Seen>);

/// Two sides over a road whose first connections have these faults.
fn sides(faults: impl IntoIterator<Item = (Fault, Fault)>) -> (Road, Party, Party) {
    let (road, here, there) = Road::open(faults);
    let (one, other) = (Side::new(here, 1, Mode::Echo, data()), Side::new(there, 2, Mode::Echo, data()));
    road.leads_to(&other.link);
    (road, one.run(), other.run())
}

/// Asks in both directions over connections with these faults, and sees that each is handled once and answered.
async fn conversation(faults: Vec<(Fault, Fault)>) -> usize {
    let what = format!("{faults:?}");
    let (road, (link, own), (peer, seen)) = sides(faults);
    for payload in MESSAGES {
        let (there, back) = (ask(&link, A, payload), ask(&peer, A, payload));
        assert_eq!(within(there).await, Ok(End::Answer(payload.to_vec())), "{what}");
        assert_eq!(within(back).await, Ok(End::Answer(payload.to_vec())), "{what}");
    }
    for seen in [own, seen] {
        let seen: Vec<_> = seen.messages.lock().iter().map(|(_, payload)| payload.clone()).collect();
        assert_eq!(seen, MESSAGES, "{what}");
    }
    link.goodbye("done");
    within(peer.closed()).await;
    road.connections()
}

#[tokio::test(start_paused = true)]
async fn a_break_at_any_byte_loses_nothing() {
    let (mut in_one, mut at) = (0, 0);
    // Until the fault lies behind the end of the conversation, in both directions.
    while in_one < 2 {
        in_one = 0;
        for faults in [(Fault::None, Fault::Reset(at)), (Fault::Reset(at), Fault::None)] {
            let connections = conversation(vec![faults]).await;
            assert!(connections <= 2, "{faults:?}");
            in_one += 2 - connections;
        }
        at += 1;
    }
    assert!(at > 200, "the conversation has more than {at} bytes");
}

#[tokio::test(start_paused = true)]
async fn one_break_after_another_loses_nothing() {
    for first in (0..300).step_by(7) {
        for second in (0..200).step_by(9) {
            // The second connection breaks within the resume, the third later.
            let faults = vec![
                (Fault::None, Fault::Reset(first)),
                (Fault::Reset(second), Fault::None),
                (Fault::None, Fault::Reset(second)),
            ];
            conversation(faults).await;
        }
    }
}

/// Many messages, small and large, in both directions, over connections of which each breaks somewhere.
#[tokio::test(start_paused = true)]
async fn many_messages_over_many_breaks_come_once_and_in_order() {
    let mut random = 88172645463325252_u64;
    let mut number = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let faults: Vec<_> = (0..200).map(|_| (Fault::Reset(number() % 60_000), Fault::Reset(number() % 60_000))).collect();
    let (road, (link, _own), (_peer, seen)) = sides(faults);
    let mut ends = Vec::new();
    let mut sent = Vec::new();
    for n in 0..3_000_u32 {
        let mut payload = n.to_be_bytes().to_vec();
        // Some take several fragments.
        payload.resize(4 + if n % 100 == 0 { 150_000 } else { n as usize % 300 }, 7);
        sent.push(payload.clone());
        if n % 3 == 0 {
            ends.push((n, ask(&link, A, &payload)));
        } else {
            match tell(&link, A, &payload) {
                (Ok(Accepted::Queued), _) => {}
                (Ok(Accepted::InLine), end) => assert_eq!(within(end).await, Ok(End::Accepted)),
                (Err(error), _) => panic!("{error}"),
            }
        }
    }
    for (n, end) in ends {
        assert_eq!(within(end).await, Ok(End::Answer(sent[n as usize].clone())));
    }
    let seen: Vec<_> = seen.messages(3_000).await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(seen.len(), 3_000);
    assert!(seen == sent, "in order, each once");
    assert!(road.connections() > 50, "{}", road.connections());
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_process_has_ended_is_known_at_once() {
    let (road, (link, _), _) = sides([(Fault::None, Fault::Reset(300))]);
    within(link.opened()).await.expect("open");
    road.die();
    let begun = tokio::time::Instant::now();
    let ends: Vec<_> = (0..20_u8).map(|n| ask(&link, A, &[n; 40])).collect();
    let failed = futures::future::join_all(ends.into_iter().map(within)).await;
    assert!(failed.iter().any(|end| matches!(end, Ok(End::Failed(CallError::Unreachable { .. })))), "{failed:?}");
    let closed = within(link.closed()).await;
    assert!(closed.reason.contains("nobody listens there") && !closed.quarantined, "{closed:?}");
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_know_the_session_is_quarantined() {
    let (road, (link, _), _) = sides([(Fault::None, Fault::Reset(300))]);
    within(link.opened()).await.expect("open");
    road.forget();
    let ends: Vec<_> = (0..20_u8).map(|n| ask(&link, A, &[n; 40])).collect();
    let failed = futures::future::join_all(ends.into_iter().map(within)).await;
    let quarantined = |error: &CallError| matches!(error, CallError::Quarantined { .. });
    assert!(failed.iter().any(|end| matches!(end, Ok(End::Failed(error)) if quarantined(error))), "{failed:?}");
    assert!(within(link.closed()).await.quarantined);
    let (told, _) = tell(&link, A, b"later");
    assert!(told.is_err_and(|error| quarantined(&error)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_what_is_not_kept_or_was_never_sent_is_quarantined_on_both_sides() {
    for shift in [-1_000_000, 1_000_000] {
        let (road, (link, _), (peer, seen)) = sides([(Fault::Reset(600_000), Fault::None)]);
        within(link.opened()).await.expect("open");
        road.shift(shift);
        // What the peer answers is acknowledged by then.
        for n in 0..20 {
            if within(ask(&link, A, &vec![n; 50_000])).await != Ok(End::Answer(vec![n; 50_000])) {
                break;
            }
        }
        assert!(within(link.closed()).await.quarantined, "{shift}");
        assert!(within(peer.closed()).await.quarantined, "{shift}");
        let reason = seen.closed().await;
        assert!(reason.contains(if shift < 0 { "NotKept" } else { "AckOfNothing" }), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_is_given_up_after_the_window() {
    // Nobody can be dialled: each connection breaks at once.
    let dead = (Fault::Reset(0), Fault::Reset(0));
    let faults = std::iter::once((Fault::None, Fault::Reset(300))).chain(std::iter::repeat_n(dead, 10_000));
    let (_, (link, _), (peer, _)) = sides(faults);
    within(link.opened()).await.expect("open");
    let begun = tokio::time::Instant::now();
    let ends: Vec<_> = (0..20_u8).map(|n| ask(&link, A, &[n; 40])).collect();
    for closed in [within(link.closed()).await, within(peer.closed()).await] {
        assert!(closed.reason.contains("not restored within") && !closed.quarantined, "{closed:?}");
    }
    let waited = begun.elapsed();
    assert!(waited >= limits::DOWN_AFTER && waited < limits::DOWN_AFTER + Duration::from_millis(200), "{waited:?}");
    for end in ends {
        assert!(matches!(within(end).await, Ok(End::Answer(_) | End::Failed(CallError::Unreachable { .. }))));
    }
}

/// A session of version 2 keeps nothing and ends with its connection.
#[tokio::test(start_paused = true)]
async fn below_version_3_the_end_of_the_connection_is_the_end_of_the_session() {
    let (road, mut here, mut there) = Road::open([(Fault::None, Fault::Reset(300))]);
    (here.version, there.version) = (2, 2);
    let way_back = here.way_back.take().expect("it has one");
    let here = here.with_way_back(way_back);
    there.way_back = None;
    let (one, other) = (Side::new(here, 1, Mode::Echo, data()), Side::new(there, 2, Mode::Echo, data()));
    road.leads_to(&other.link);
    let ((link, _), (peer, _)) = (one.run(), other.run());
    within(link.opened()).await.expect("open");
    for n in 0..20_u8 {
        drop(ask(&link, A, &[n; 40]));
    }
    within(link.closed()).await;
    within(peer.closed()).await;
    assert_eq!(road.connections(), 1);
}
