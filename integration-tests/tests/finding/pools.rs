//! Pools: equal actors that are started, replaced and retired by their pool.

use std::collections::HashSet;
use std::task::Poll;

use futures::future::join_all;
use mobula::{ActorRef, CallError, ExitReason, NodeId, Pool, RemoteActor, Routing, SpawnError};
use mobula_integration_tests::actors::{Counter, CounterRef, Hold, Log, Probe, Record};
use mobula_integration_tests::gates;
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    a_pool_is_used_like_one_reference on [embedded, processes];
    a_member_that_ends_is_replaced on [embedded, processes];
    the_members_of_a_lost_node_are_replaced_elsewhere on [processes];
    calls_wait_for_a_member on [embedded, processes];
    a_pool_grows_at_once on [embedded, processes];
    a_pool_shrinks_by_letting_members_finish on [embedded];
    an_answer_that_nobody_picks_up_holds_no_member on [embedded, processes];
    a_successor_takes_over_the_keys on [embedded, processes];
    the_members_end_with_their_pool on [embedded, processes];
    a_pool_that_cannot_start_leaves_nothing_behind on [embedded, processes];
}

async fn pool_of(stage: &Stage, size: usize, routing: Routing) -> Pool<Probe> {
    let builder = stage.cluster().pool(Probe::spec(0)).size(size).spread().routing(routing);
    within(LONG, "the pool", builder.start()).await.expect("started")
}

async fn all_of(pool: &Pool<Probe>, size: usize) -> Vec<ActorRef<Probe>> {
    eventually(LONG, "a full pool", async || Some(pool.members()).filter(|members| members.len() == size)).await
}

fn nodes_of(members: &[ActorRef<Probe>]) -> HashSet<NodeId> {
    members.iter().map(|member| member.node().clone()).collect()
}

async fn a_pool_is_used_like_one_reference(stage: Stage) {
    for routing in [Routing::RoundRobin, Routing::LeastLoaded, Routing::Random, Routing::WorkPulling] {
        let pool = pool_of(&stage, 4, routing).await;
        assert_eq!(nodes_of(&pool.members()).len(), if stage.is_near() { 1 } else { 2 });
        let asked: Vec<_> = (1..=40).map(|number| pool.ask(Record(number))).collect();
        for answer in within(LONG, "the answers", join_all(asked)).await {
            answer.expect("it answers");
        }
        within(LONG, "a tell", pool.tell(Record(41))).await.expect("there is room");
        let handled = eventually(LONG, "all of it", async || {
            let logs = pool.ask_all(Log).await;
            let mut handled: Vec<u64> = logs.into_iter().flat_map(|(_, log)| log.expect("a log")).collect();
            handled.sort_unstable();
            (handled.len() == 4 + 41).then_some(handled)
        })
        .await;
        assert_eq!(handled[4..], (1..=41).collect::<Vec<_>>(), "each once");
    }
    // Methods of the macro's way go to the member whose turn it is.
    let pool = stage.cluster().pool(Counter::actor(5)).size(2).start().await.expect("started");
    for total in [6, 6, 7, 7] {
        let member = pool.pick().expect("two members");
        assert_eq!(within(LONG, "the total", member.increment(1)).await, Ok(total));
    }
}

async fn a_member_that_ends_is_replaced(stage: Stage) {
    let pool = pool_of(&stage, 3, Routing::RoundRobin).await;
    let before = pool.members();
    before[1].kill().await.expect("the order arrives");
    let after = eventually(LONG, "a successor", async || {
        Some(pool.members()).filter(|members| members.len() == 3 && !members.contains(&before[1]))
    })
    .await;
    assert!(after.contains(&before[0]) && after.contains(&before[2]));
    for number in 1..=9 {
        within(LONG, "an answer", pool.ask(Record(number))).await.expect("it answers");
    }
}

async fn the_members_of_a_lost_node_are_replaced_elsewhere(stage: Stage) {
    let pool = pool_of(&stage, 4, Routing::RoundRobin).await;
    assert_eq!(nodes_of(&pool.members()).len(), 2);
    Process::of(stage.pid(0)).signal(Signal::KILL);
    eventually(LONG, "successors", async || {
        let members = pool.members();
        (members.len() == 4 && members.iter().all(|member| member.node() == stage.home(1))).then_some(())
    })
    .await;
    for number in 1..=8 {
        within(LONG, "an answer", pool.ask(Record(number))).await.expect("it answers");
    }
}

async fn calls_wait_for_a_member(stage: Stage) {
    for routing in [Routing::RoundRobin, Routing::WorkPulling] {
        let pool = pool_of(&stage, 1, routing).await;
        let only = pool.members().remove(0);
        only.kill().await.expect("the order arrives");
        within(LONG, "its end", only.monitor()).await;
        assert_eq!(within(LONG, "the successor", pool.ask(Record(1))).await, Ok(2));
        // Without any member in sight, not beyond the deadline.
        within(LONG, "the smaller pool", pool.resize(0)).await.expect("nothing is started");
        all_of(&pool, 0).await;
        let asked = pool.with_deadline(std::time::Duration::from_millis(20)).ask(Record(1));
        let error = within(LONG, "the deadline", asked).await.expect_err("there is no member");
        assert_eq!(error, CallError::DeadlineExceeded { started: false });
    }
}

async fn a_pool_grows_at_once(stage: Stage) {
    let pool = pool_of(&stage, 1, Routing::WorkPulling).await;
    let gate = gates::fresh_name();
    let holding: Vec<_> = (0..3).map(|_| pool.without_deadline().ask(Hold { gate: gate.clone() })).collect();
    within(LONG, "the larger pool", pool.resize(3)).await.expect("started");
    assert_eq!(pool.members().len(), 3);
    // Only three members can hold at the same time.
    if stage.is_near() {
        within(LONG, "all three", gates::entered(&gate, 3)).await;
        gates::open(&gate);
        within(LONG, "the answers", join_all(holding)).await;
    }
}

async fn a_pool_shrinks_by_letting_members_finish(stage: Stage) {
    let pool = pool_of(&stage, 2, Routing::RoundRobin).await;
    let (stays, goes) = (pool.members().remove(0), pool.members().remove(1));
    let held = stage.hold(&goes).await;
    let holding = [pool.ask(Record(1)), pool.ask(Record(2))];
    for number in [3, 4] {
        within(LONG, "a tell", pool.tell(Record(number))).await.expect("there is room");
    }
    let monitor = goes.monitor();
    within(LONG, "the smaller pool", pool.resize(1)).await.expect("nothing is started");
    all_of(&pool, 1).await;
    for number in [5, 6] {
        within(LONG, "an answer", pool.ask(Record(number))).await.expect("one stays");
    }
    // The one that goes still answers what it was sent.
    let seen = goes.ask(Log);
    held.release().await;
    for answer in within(LONG, "the answers", join_all(holding)).await {
        answer.expect("it lets its members finish");
    }
    assert_eq!(within(LONG, "its log", seen).await, Ok(vec![0, 2, 4]));
    assert_eq!(within(LONG, "its end", monitor).await.reason, ExitReason::Shutdown);
    assert_eq!(within(LONG, "the log", stays.ask(Log)).await, Ok(vec![0, 1, 3, 5, 6]));
}

async fn an_answer_that_nobody_picks_up_holds_no_member(stage: Stage) {
    for routing in [Routing::RoundRobin, Routing::LeastLoaded, Routing::WorkPulling] {
        let pool = pool_of(&stage, 2, routing).await;
        let goes = pool.members().remove(1);
        // Not polled, and polled once.
        let unpolled = [pool.ask(Record(1)), pool.ask(Record(2))];
        let mut polled = pool.ask(Log);
        let early = futures::poll!(&mut polled);
        let monitor = goes.monitor();
        within(LONG, "the smaller pool", pool.resize(1)).await.expect("nothing is started");
        assert_eq!(within(LONG, "the end of a member", monitor).await.reason, ExitReason::Shutdown);
        let late = pool.ask(Record(3));
        if routing != Routing::WorkPulling {
            within(LONG, "the stop", pool.stop()).await;
        }
        for answer in within(LONG, "the answers", join_all(unpolled)).await {
            answer.expect("it was asked before the stop");
        }
        // A quick member has answered by then.
        let log = match early {
            Poll::Ready(log) => log,
            Poll::Pending => within(LONG, "the log", polled).await,
        };
        log.expect("it was asked before the stop");
        within(LONG, "an answer", late).await.expect("it was asked before the stop");
    }
}

async fn a_successor_takes_over_the_keys(stage: Stage) {
    let builder = stage.cluster().pool(Probe::spec(0)).size(3).spread().consistent_hash();
    let pool = within(LONG, "the pool", builder.key(|Record(number): &Record| *number).start()).await.expect("started");
    let ask_all = async || {
        for number in 1..=30 {
            within(LONG, "an answer", pool.ask(Record(number))).await.expect("it answers");
        }
    };
    ask_all().await;
    let before = pool.members();
    let had = within(LONG, "its log", before[1].ask(Log)).await.expect("it answers");
    before[1].kill().await.expect("the order arrives");
    let after = eventually(LONG, "a successor", async || {
        Some(pool.members()).filter(|members| members.len() == 3 && !members.contains(&before[1]))
    })
    .await;
    ask_all().await;
    let successor = after.iter().find(|member| !before.contains(member)).expect("a new one");
    assert_eq!(within(LONG, "its log", successor.ask(Log)).await, Ok(had));
}

async fn the_members_end_with_their_pool(stage: Stage) {
    let pool = pool_of(&stage, 2, Routing::RoundRobin).await;
    let monitors: Vec<_> = pool.members().iter().map(ActorRef::monitor).collect();
    within(LONG, "the stop", pool.stop()).await;
    assert_eq!(within(LONG, "a late call", pool.ask(Record(1))).await, Err(CallError::Stopped));
    for down in within(LONG, "their ends", join_all(monitors)).await {
        assert_eq!(down.reason, ExitReason::Shutdown);
    }
    assert_eq!(pool.resize(2).await, Err(SpawnError::NodeEnding));

    let pool = pool_of(&stage, 2, Routing::WorkPulling).await;
    let monitors: Vec<_> = pool.members().iter().map(ActorRef::monitor).collect();
    let other_handle = pool.clone();
    drop(pool);
    within(LONG, "an answer", other_handle.ask(Record(1))).await.expect("there is a handle yet");
    drop(other_handle);
    for down in within(LONG, "their ends", join_all(monitors)).await {
        assert_eq!(down.reason, ExitReason::Shutdown);
    }
}

async fn a_pool_that_cannot_start_leaves_nothing_behind(stage: Stage) {
    // On each node the name can be borne once.
    let refused = stage.cluster().pool(Probe::spec(0).name("only-one")).size(3).start();
    let refused = within(LONG, "the pool", refused).await.expect_err("a name is taken");
    assert!(matches!(&refused, SpawnError::NameTaken { name, .. } if name == "only-one"), "{refused}");
    eventually(LONG, "the end of the others", async || {
        stage.cluster().find::<Probe>("only-one").await.expect("nodes answer").is_none().then_some(())
    })
    .await;
    let builder = stage.cluster().pool(Probe::spec(0)).size(3).name("worker");
    let pool = within(LONG, "the pool", builder.start()).await.expect("started");
    let second = stage.cluster().find::<Probe>("worker-1").await.expect("nodes answer").expect("a member");
    assert!(pool.members().contains(&second));
}
