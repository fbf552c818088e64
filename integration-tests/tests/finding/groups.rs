//! Groups: sets of actors on all nodes, whose members leave with their end and with their node.

use futures::StreamExt;
use mobula::{ActorRef, CallError, GroupEvent, Recipient};
use mobula_integration_tests::actors::{Log, Panic, Probe, Record, Unlisted};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_group_has_members_on_all_nodes on [embedded, processes, memory];
    a_member_leaves_with_its_end_and_not_with_a_restart on [embedded, processes, memory];
    the_members_of_a_killed_process_leave on [processes];
    whoever_subscribes_hears_of_every_member on [embedded, processes, memory];
    a_change_that_changes_nothing_is_answered on [embedded, processes, memory];
    groups_for_different_messages_are_different on [embedded, memory];
    who_cannot_be_a_member_is_refused on [embedded, processes, memory];
    every_node_follows_the_groups_that_it_uses on [memory];
    a_group_that_nobody_uses_is_not_followed on [memory];
}

fn recorder(probe: &ActorRef<Probe>) -> Recipient<Record> {
    probe.clone().into()
}

async fn a_group_has_members_on_all_nodes(stage: Stage) {
    let group = within(LONG, "the group", stage.caller().group::<Record>("chat")).await.expect("the head answers");
    assert!(group.members().is_empty());
    let probes = [stage.probe(0).await, stage.probe(1).await, stage.probe(0).await];
    for probe in &probes {
        // Joining again changes nothing.
        for _ in 0..2 {
            within(LONG, "joining", group.join(probe.clone())).await.expect("it joins");
        }
    }
    let mut members = group.members();
    assert_eq!(members.len(), 3);
    members.retain(|member| probes.iter().any(|probe| recorder(probe) == *member));
    assert_eq!(members.len(), 3);
    for number in 1..=10 {
        assert!(within(LONG, "a broadcast", group.broadcast(Record(number))).await.is_empty());
    }
    within(LONG, "leaving", group.leave(probes[2].clone())).await.expect("it leaves");
    within(LONG, "leaving", group.leave(probes[2].clone())).await.expect("twice is no error");
    assert_eq!(group.members().len(), 2);
    drop(group.broadcast(Record(11)));
    for (probe, last) in probes.iter().zip([11, 11, 10]) {
        // A broadcast keeps order with other messages of its sender, and is not taken back.
        let log = within(LONG, "the log", probe.ask(Log)).await.expect("it answers");
        assert_eq!(log, (0..=last).collect::<Vec<u64>>());
    }
}

async fn a_member_leaves_with_its_end_and_not_with_a_restart(stage: Stage) {
    let group = stage.caller().group::<Record>("mortals").await.expect("the head answers");
    let (stays, goes) = (stage.probe(0).await, stage.probe(1).await);
    for probe in [&stays, &goes] {
        within(LONG, "joining", group.join(probe.clone())).await.expect("it joins");
    }
    assert!(within(LONG, "the panic", stays.ask(Panic("once".to_owned()))).await.is_err());
    within(LONG, "the next life", stays.ask(Record(1))).await.expect("it answers");
    within(LONG, "the order", goes.stop()).await.expect("it arrives");
    eventually(LONG, "its leaving", async || (group.members() == [recorder(&stays)]).then_some(())).await;
    assert!(within(LONG, "a broadcast", group.broadcast(Record(2))).await.is_empty());
    assert_eq!(within(LONG, "the log", stays.ask(Log)).await, Ok(vec![0, 1, 2]));
}

async fn the_members_of_a_killed_process_leave(stage: Stage) {
    let group = stage.cluster().group::<Record>("processes").await.expect("the head answers");
    let probes = [stage.probe(0).await, stage.probe(1).await];
    for probe in &probes {
        within(LONG, "joining", group.join(probe.clone())).await.expect("it joins");
    }
    Process::of(stage.pid(0)).signal(Signal::KILL);
    eventually(LONG, "its leaving", async || (group.members() == [recorder(&probes[1])]).then_some(())).await;
}

async fn whoever_subscribes_hears_of_every_member(stage: Stage) {
    let group = stage.caller().group::<Record>("news").await.expect("the head answers");
    let probes = [stage.probe(0).await, stage.probe(1).await];
    within(LONG, "joining", group.join(probes[0].clone())).await.expect("it joins");
    let mut events = group.subscribe();
    let mut next = async || within(LONG, "an event", events.next()).await.expect("it does not end");
    assert_eq!(next().await, GroupEvent::Joined(recorder(&probes[0])));
    within(LONG, "joining", group.join(probes[1].clone())).await.expect("it joins");
    assert_eq!(next().await, GroupEvent::Joined(recorder(&probes[1])));
    within(LONG, "leaving", group.leave(probes[0].clone())).await.expect("it leaves");
    assert_eq!(next().await, GroupEvent::Left(recorder(&probes[0])));
    within(LONG, "the order", probes[1].kill()).await.expect("it arrives");
    assert_eq!(next().await, GroupEvent::Left(recorder(&probes[1])));
    within(LONG, "joining", group.join(probes[0].clone())).await.expect("it joins");
    assert_eq!(next().await, GroupEvent::Joined(recorder(&probes[0])));
}

async fn a_change_that_changes_nothing_is_answered(stage: Stage) {
    let one = stage.caller().group::<Record>("one").await.expect("the head answers");
    let other = stage.caller().group::<Record>("other").await.expect("the head answers");
    let (member, stranger) = (stage.probe(0).await, stage.probe(1).await);
    within(LONG, "joining", one.join(member.clone())).await.expect("it joins");
    // The head's last change is one of another group from here on.
    within(LONG, "joining", other.join(stranger.clone())).await.expect("it joins");
    within(LONG, "joining again", one.join(member.clone())).await.expect("it is there");
    within(LONG, "leaving", one.leave(stranger.clone())).await.expect("it is not there");
    assert_eq!(one.members(), [recorder(&member)]);
    within(LONG, "leaving", one.leave(member.clone())).await.expect("it leaves");
    within(LONG, "leaving", one.leave(member)).await.expect("twice is no error");
    assert!(one.members().is_empty());
    assert_eq!(other.members(), [recorder(&stranger)]);
}

async fn groups_for_different_messages_are_different(stage: Stage) {
    let records = stage.caller().group::<Record>("both").await.expect("the head answers");
    let logs = stage.caller().group::<Log>("both").await.expect("the head answers");
    within(LONG, "joining", records.join(stage.probe(0).await)).await.expect("it joins");
    assert_eq!((records.members().len(), logs.members().len()), (1, 0));
}

async fn who_cannot_be_a_member_is_refused(stage: Stage) {
    let unlisted = stage.caller().group::<Unlisted>("unlisted").await.expect("the head answers");
    let refused = within(LONG, "an answer", unlisted.join(stage.probe(0).await)).await;
    assert!(matches!(&refused, Err(CallError::UnknownMessage { .. })), "{refused:?}");

    let group = stage.caller().group::<Record>("alive").await.expect("the head answers");
    let ended = stage.probe(0).await;
    within(LONG, "the order", ended.stop()).await.expect("it arrives");
    within(LONG, "its end", ended.monitor()).await;
    let refused = within(LONG, "an answer", group.join(ended.clone())).await;
    assert_eq!(refused, Err(CallError::NoSuchActor { actor: ended.id() }));
    within(LONG, "leaving", group.leave(ended)).await.expect("it is not there");

    let nameless = stage.caller().group::<Record>("").await.expect("the head answers");
    let refused = within(LONG, "an answer", nameless.join(stage.probe(0).await)).await.expect_err("no name");
    assert!(refused.to_string().contains("1 to 512 bytes"), "{refused}");
    assert!(group.members().is_empty() && nameless.members().is_empty());
}

async fn every_node_follows_the_groups_that_it_uses(stage: Stage) {
    let groups = [
        stage.caller().group::<Record>("seen").await.expect("it is the head"),
        stage.node(0).group::<Record>("seen").await.expect("the head answers"),
        stage.node(1).group::<Record>("seen").await.expect("the head answers"),
    ];
    let probes = [stage.probe(0).await, stage.probe(1).await];
    // Each joins by way of another node than its own.
    let (first, second) = (stage.node(1).reference_to(&probes[0]), stage.node(0).reference_to(&probes[1]));
    within(LONG, "joining", groups[2].join(first)).await.expect("it joins");
    within(LONG, "joining", groups[1].join(second)).await.expect("it joins");
    for group in &groups {
        eventually(LONG, "both members", async || (group.members().len() == 2).then_some(())).await;
        assert!(within(LONG, "a broadcast", group.broadcast(Record(1))).await.is_empty());
    }
    for probe in &probes {
        eventually(LONG, "all messages", async || {
            (within(LONG, "the log", probe.ask(Log)).await == Ok(vec![0, 1, 1, 1])).then_some(())
        })
        .await;
    }
}

async fn a_group_that_nobody_uses_is_not_followed(stage: Stage) {
    let link = stage.node(0).control_link(stage.caller().id()).expect("a link to the head");
    let groups = [
        stage.node(0).group::<Record>("one").await.expect("the head answers"),
        stage.node(0).group::<Record>("two").await.expect("the head answers"),
        stage.node(0).group::<Record>("two").await.expect("the head answers"),
    ];
    // One question for each group waits for what is new.
    eventually(LONG, "two questions", async || (link.pending() == 2).then_some(())).await;
    drop(groups);
    eventually(LONG, "no question", async || (link.pending() == 0).then_some(())).await;
}
