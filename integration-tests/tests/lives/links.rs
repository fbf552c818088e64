//! Links: two actors of which neither outlives an abnormal end of the other.

use std::time::Duration;

use mobula::{ActorRef, CallError, Exit, ExitReason, Monitor, RemoteActor, SpawnError};
use mobula_integration_tests::actors::{Log, Panic, Probe, Record};
use mobula_integration_tests::mortals::{AllHeard, EndNow, Greet, Heard, How, Mayfly, Mortal, Sentry, TrapExits};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    an_abnormal_end_ends_the_linked_actor on [embedded, processes, memory];
    a_normal_end_does_not on [embedded, processes, memory];
    a_link_is_the_same_from_both_ends on [embedded, processes, memory];
    an_end_goes_down_a_chain_with_its_root_cause on [embedded, processes, memory];
    an_actor_that_traps_exits_gets_a_message on [embedded, processes, memory];
    a_restart_is_no_end_of_a_link on [embedded, processes, memory];
    linking_with_a_dead_actor_ends_the_other on [embedded, processes, memory];
    a_lost_node_ends_its_linked_actors_elsewhere on [processes];
    spawn_and_link_is_one_step on [embedded, processes, memory];
    spawn_and_monitor_is_one_step on [embedded, processes, memory];
    links_leave_nothing_behind on [memory];
    links_and_unlinks_that_cross_leave_both_ends_the_same on [memory];
}

/// Two mortals, on one home or on two, linked from both ends.
async fn linked(stage: &Stage, other_home: usize) -> (ActorRef<Mortal>, ActorRef<Mortal>) {
    let (one, other) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(other_home, Mortal::spec(())).await);
    within(LONG, "the link", one.link(&other)).await.expect("the node has it");
    within(LONG, "the link", other.link(&one)).await.expect("the node has it");
    if other_home != 0 {
        settled(stage, 0, 1).await;
        settled(stage, 1, 0).await;
    }
    (one, other)
}

/// Waits until what has been sent from one home to the other is there: signals go in order with messages.
async fn settled(stage: &Stage, from: usize, to: usize) {
    let (teller, log) = (stage.spawn(from, Mortal::spec(())).await, stage.probe(to).await);
    let last = EndNow { how: How::Stop, to: Some(log.clone().into()), count: 1 };
    within(LONG, "the last", teller.ask(last)).await.expect("it answers");
    eventually(LONG, "the last", async || {
        let log = log.ask(Log).await.expect("it answers");
        (log.len() > 1).then_some(())
    })
    .await;
}

/// A monitor that is in force at its actor's node.
async fn monitored(mortal: &ActorRef<Mortal>) -> Monitor {
    let monitor = mortal.monitor();
    within(LONG, "an answer on the same road", mortal.ask(Greet)).await.expect("it lives");
    monitor
}

async fn an_abnormal_end_ends_the_linked_actor(stage: Stage) {
    let error = ExitReason::Error { text: "out of ink".to_owned() };
    for home in [0, 1] {
        for turned in [false, true] {
            let (one, other) = linked(&stage, home).await;
            let (dies, hears) = if turned { (other, one) } else { (one, other) };
            let monitor = monitored(&hears).await;
            within(LONG, "the end", dies.ask(EndNow::silently(How::Error("out of ink".to_owned())))).await.expect("ok");
            let reason = within(LONG, "the news", monitor).await.reason;
            assert_eq!(reason, ExitReason::linked(dies.address(), error.clone()));
        }
    }
    let (killed, other) = linked(&stage, 1).await;
    let monitor = monitored(&other).await;
    killed.kill().await.expect("the order arrives");
    let reason = within(LONG, "the news", monitor).await.reason;
    assert_eq!(reason, ExitReason::linked(killed.address(), ExitReason::Killed));
}

async fn a_normal_end_does_not(stage: Stage) {
    for home in [0, 1] {
        let (one, other) = linked(&stage, home).await;
        let monitor = one.monitor();
        within(LONG, "the end", one.ask(EndNow::silently(How::Stop))).await.expect("it answers");
        assert_eq!(within(LONG, "the news", monitor).await.reason, ExitReason::Normal);
        assert_eq!(within(LONG, "the other", other.ask(Greet)).await, Ok(()));
    }
}

async fn a_link_is_the_same_from_both_ends(stage: Stage) {
    for home in [0, 1] {
        // Linked twice, and yet there is one link: it is gone for both when one of them takes it away.
        let (one, other) = linked(&stage, home).await;
        within(LONG, "the unlink", one.unlink(&other)).await.expect("the node has it");
        let monitor = other.monitor();
        other.kill().await.expect("the order arrives");
        within(LONG, "the end", monitor).await;
        assert_eq!(within(LONG, "the other", one.ask(Greet)).await, Ok(()));
    }
}

async fn an_end_goes_down_a_chain_with_its_root_cause(stage: Stage) {
    let mut chain = Vec::new();
    for number in 0..5 {
        chain.push(stage.spawn(number % 2, Mortal::spec(())).await);
    }
    // A ring: an end must not go round for ever.
    for number in 0..5 {
        within(LONG, "the link", chain[number].link(&chain[(number + 1) % 5])).await.expect("the node has it");
        within(LONG, "the link", chain[(number + 1) % 5].link(&chain[number])).await.expect("the node has it");
    }
    let mut monitors = Vec::new();
    for mortal in &chain[1..] {
        monitors.push(monitored(mortal).await);
    }
    within(LONG, "the end", chain[0].ask(EndNow::silently(How::Error("root".to_owned())))).await.expect("it answers");
    for monitor in monitors {
        let reason = within(LONG, "the news", monitor).await.reason;
        assert_eq!(*reason.root_cause(), ExitReason::Error { text: "root".to_owned() }, "{reason}");
    }
}

async fn an_actor_that_traps_exits_gets_a_message(stage: Stage) {
    for home in [0, 1] {
        let sentry = stage.spawn(0, Sentry::spec(())).await;
        assert_eq!(within(LONG, "an answer", sentry.ask(TrapExits)).await, Ok(true));
        let mut expected = Vec::new();
        for (how, reason) in [
            (How::Stop, ExitReason::Normal),
            (How::Error("tired".to_owned()), ExitReason::Error { text: "tired".to_owned() }),
        ] {
            let mortal = stage.spawn(home, Mortal::spec(())).await;
            within(LONG, "the link", sentry.link(&mortal)).await.expect("the node has it");
            within(LONG, "the link", mortal.link(&sentry)).await.expect("the node has it");
            within(LONG, "the end", mortal.ask(EndNow::silently(how))).await.expect("it answers");
            expected.push(Heard::Exit(Exit { actor: mortal.address(), reason }));
            let heard = eventually(LONG, "the exit", async || {
                let heard = sentry.ask(AllHeard).await.expect("it lives");
                (heard.len() == expected.len()).then_some(heard)
            });
            assert_eq!(heard.await, expected);
        }
    }
}

async fn a_restart_is_no_end_of_a_link(stage: Stage) {
    let probe = stage.spawn(0, Probe::spec(0).backoff(Duration::from_millis(1))).await;
    let mortal = stage.spawn(1, Mortal::spec(())).await;
    within(LONG, "the link", probe.link(&mortal)).await.expect("the node has it");
    within(LONG, "the link", mortal.link(&probe)).await.expect("the node has it");
    let panicked = within(LONG, "the panic", probe.ask(Panic("once".to_owned()))).await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    within(LONG, "the next life", probe.ask(Record(1))).await.expect("it answers");
    assert_eq!(within(LONG, "the other", mortal.ask(Greet)).await, Ok(()));
    // The link is still there.
    let monitor = monitored(&mortal).await;
    probe.kill().await.expect("the order arrives");
    let reason = within(LONG, "the news", monitor).await.reason;
    assert_eq!(reason, ExitReason::linked(probe.address(), ExitReason::Killed));
}

async fn linking_with_a_dead_actor_ends_the_other(stage: Stage) {
    for home in [0, 1] {
        let (one, dead) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(home, Mortal::spec(())).await);
        let monitor = dead.monitor();
        dead.kill().await.expect("the order arrives");
        within(LONG, "its end", monitor).await;
        let monitor = monitored(&one).await;
        within(LONG, "the link", one.link(&dead)).await.expect("the node has it");
        let reason = within(LONG, "the news", monitor).await.reason;
        assert_eq!(reason, ExitReason::linked(dead.address(), ExitReason::NoProc));
        // From the dead one's side, too: by a reference of when it lived, and by one that came later.
        for dead in [dead.clone(), stage.caller().reference_to(&dead)] {
            let other = stage.spawn(0, Mortal::spec(())).await;
            let monitor = monitored(&other).await;
            within(LONG, "the link", dead.link(&other)).await.expect("the node has it");
            let reason = within(LONG, "the news", monitor).await.reason;
            assert_eq!(reason, ExitReason::linked(dead.address(), ExitReason::NoProc));
        }
    }
}

async fn a_lost_node_ends_its_linked_actors_elsewhere(stage: Stage) {
    let (one, other) = linked(&stage, 1).await;
    let monitor = monitored(&one).await;
    Process::of(stage.pid(1)).signal(Signal::KILL);
    let reason = within(LONG, "the news", monitor).await.reason;
    let ExitReason::Linked { with, cause } = &reason else { panic!("{reason}") };
    assert_eq!(*with, other.address());
    assert!(matches!(**cause, ExitReason::NoConnection { .. }), "{reason}");
}

async fn spawn_and_link_is_one_step(stage: Stage) {
    for home in [0, 1] {
        let mortal = stage.spawn(0, Mortal::spec(())).await;
        let monitor = monitored(&mortal).await;
        let spawned = stage.caller().spawn_link(stage.home(home), Mayfly::spec("too bright".to_owned()), &mortal);
        let mayfly = within(LONG, "the spawn", spawned).await.expect("it starts");
        let reason = within(LONG, "the news", monitor).await.reason;
        let cause = ExitReason::Error { text: "too bright".to_owned() };
        assert_eq!(reason, ExitReason::linked(mayfly.address(), cause));
        // With a dead actor nothing is begun.
        let refused = stage.caller().spawn_link(stage.home(0), Mortal::spec(()), &mortal);
        let refused = within(LONG, "the spawn", refused).await.expect_err("it ends at once");
        let reason = ExitReason::linked(mortal.address(), ExitReason::NoProc);
        assert_eq!(refused, SpawnError::Ended { reason });
    }
}

async fn spawn_and_monitor_is_one_step(stage: Stage) {
    for home in [0, 1] {
        for number in 0..20 {
            let spec = Mayfly::spec(format!("day {number}"));
            let spawned = within(LONG, "the spawn", stage.caller().spawn_monitor(stage.home(home), spec)).await;
            let (mayfly, monitor) = spawned.expect("it starts");
            let down = within(LONG, "the news", monitor).await;
            assert_eq!((down.actor, &down.node), (mayfly.id(), mayfly.node()));
            // Dead before anybody could ask, and not "no such actor".
            assert_eq!(down.reason, ExitReason::Error { text: format!("day {number}") });
        }
    }
}

async fn links_leave_nothing_behind(stage: Stage) {
    let nodes = [stage.node(0), stage.node(1)];
    for home in [0, 1] {
        for _ in 0..20 {
            let (one, other) = linked(&stage, home).await;
            let monitors = [one.monitor(), other.monitor()];
            one.kill().await.expect("the order arrives");
            for monitor in monitors {
                within(LONG, "the news", monitor).await;
            }
            let (one, other) = linked(&stage, home).await;
            within(LONG, "the unlink", one.unlink(&other)).await.expect("the node has it");
        }
    }
    eventually(LONG, "an empty table", async || nodes.iter().all(|node| node.linked() == 0).then_some(())).await;
}

async fn links_and_unlinks_that_cross_leave_both_ends_the_same(stage: Stage) {
    let (one, other) = (stage.spawn(0, Mortal::spec(())).await, stage.spawn(1, Mortal::spec(())).await);
    // Each end is told by its own node's reference, so that the calls cross between the nodes.
    let near_one = stage.node(0).reference_to(&one);
    let near_other = stage.node(1).reference_to(&other);
    for round in 0..200_u32 {
        let both = [(&near_one, &other, round), (&near_other, &one, round / 2)].map(|(actor, peer, bits)| {
            let (actor, peer) = (actor.clone(), peer.clone());
            std::thread::spawn(move || {
                for step in 0..4 {
                    // The last call is a link.
                    match step == 3 || bits >> step & 1 == 0 {
                        true => drop(actor.link(&peer)),
                        false => drop(actor.unlink(&peer)),
                    }
                }
            })
        });
        for calls in both {
            calls.join().expect("they only call");
        }
        settled(&stage, 0, 1).await;
        settled(&stage, 1, 0).await;
        settled(&stage, 0, 1).await;
        assert_eq!((stage.node(0).linked(), stage.node(1).linked()), (1, 1), "round {round}");
    }
    let monitor = monitored(&other).await;
    within(LONG, "the order", one.kill()).await.expect("it arrives");
    assert!(matches!(within(LONG, "the end", monitor).await.reason, ExitReason::Linked { .. }));
}
