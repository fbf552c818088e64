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

/// A connection that carries nothing any more, and tells nobody, is found out, and another takes its place.
#[tokio::test(start_paused = true)]
async fn a_mute_connection_is_replaced_and_loses_nothing() {
    for at in (0..400).step_by(3) {
        let stalls =
            [(Fault::Stall(at), Fault::None), (Fault::None, Fault::Stall(at)), (Fault::Stall(at), Fault::Stall(at))];
        for faults in stalls {
            let begun = tokio::time::Instant::now();
            let connections = conversation(vec![faults]).await;
            let took = begun.elapsed();
            // The goodbye may be lost, too; then the peer waits for the one that said it.
            let bound = limits::DOWN_AFTER * 3 / 4 * (connections as u32 - 1) + limits::DOWN_AFTER;
            assert!((1..=2).contains(&connections) && took <= bound, "{faults:?}: {connections} in {took:?}");
            assert!(at > 0 || connections == 2, "{faults:?}");
        }
    }
}

/// One after the other falls silent; what was under way comes all the same, once and in order.
#[tokio::test(start_paused = true)]
async fn one_mute_connection_after_another_loses_nothing() {
    let stalls = (0..12).map(|n| match n % 3 {
        0 => (Fault::Stall(170 + 40 * n), Fault::None),
        1 => (Fault::None, Fault::Stall(90 + 30 * n)),
        _ => (Fault::Stall(140), Fault::Stall(60)),
    });
    let (road, (link, _own), (_peer, seen)) = sides(stalls);
    let mut sent = Vec::new();
    for n in 0..600_u32 {
        let payload = n.to_be_bytes().to_vec();
        sent.push(payload.clone());
        let answer = tokio::time::timeout(Duration::from_secs(120), ask(&link, A, &payload)).await.expect("in time");
        assert_eq!(answer, Ok(End::Answer(payload)));
    }
    let seen: Vec<_> = seen.messages(600).await.into_iter().map(|(_, payload)| payload).collect();
    assert!(seen == sent, "in order, each once");
    assert!(road.connections() > 10, "{}", road.connections());
}

/// A peer whose thread is at work reads nothing, for as long as that takes. It is looked for in vain, and never given up.
#[tokio::test(start_paused = true)]
async fn a_peer_whose_thread_is_at_work_is_not_given_up() {
    let (road, here, there) = Road::open([]);
    let (one, other) = (Side::new(here, 1, Mode::Echo, data()), Side::new(there, 2, Mode::Echo, data()));
    road.leads_to(&other.link);
    let (link, _own) = one.run();
    let Side { link: peer, seen, mut driver } = other;
    let (work, mut working) = tokio::sync::watch::channel(Duration::ZERO);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = &mut driver => break,
                Ok(()) = working.changed() => {
                    let span = *working.borrow();
                    tokio::time::sleep(span).await;
                }
            }
        }
    });
    within(link.opened()).await.expect("open");
    let mut sent = Vec::new();
    for (round, seconds) in [1, 6, 9, 60, 300, 2].into_iter().enumerate() {
        work.send(Duration::from_secs(seconds)).expect("it runs");
        tokio::task::yield_now().await;
        let begun = tokio::time::Instant::now();
        let payloads: Vec<_> = (0..50_u8).map(|n| vec![round as u8, n]).collect();
        let ends: Vec<_> = payloads.iter().map(|payload| ask(&link, A, payload)).collect();
        let answers = futures::future::join_all(ends);
        let answers = tokio::time::timeout(Duration::from_secs(seconds + 20), answers).await.expect("in time");
        for (payload, answer) in payloads.iter().zip(answers) {
            assert_eq!(answer, Ok(End::Answer(payload.clone())));
        }
        assert!(begun.elapsed() >= Duration::from_secs(seconds), "it was at work");
        sent.extend(payloads);
        assert!(link.end_of().is_none() && peer.end_of().is_none());
    }
    let seen: Vec<_> = seen.messages(sent.len()).await.into_iter().map(|(_, payload)| payload).collect();
    assert!(seen == sent, "in order, each once");
}

/// Of a connection one direction is mute, and the other carries a message each second: what the dialer sends arrives all the same.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_mute_in_one_direction_is_replaced() {
    let (road, (link, _own), (peer, _seen)) = sides([(Fault::None, Fault::Stall(400))]);
    within(link.opened()).await.expect("open");
    let peer = Arc::clone(&peer);
    tokio::spawn(async move {
        loop {
            drop(tell(&peer, A, b"another"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    for n in 0..40_u8 {
        assert_eq!(within(ask(&link, A, &[n; 20])).await, Ok(End::Answer(vec![n; 20])));
    }
    assert_eq!(road.connections(), 2);
}

/// An idle connection is asked, now and then, and nothing else happens to it.
#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_is_said_stays() {
    let (road, (link, _own), (peer, _seen)) = sides([]);
    within(link.opened()).await.expect("open");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(road.connections(), 1);
    assert!(link.end_of().is_none() && peer.end_of().is_none());
    assert!(tokio::time::Instant::now().into_std() - link.heard() <= limits::DOWN_AFTER * 3 / 4, "it was asked");
}
