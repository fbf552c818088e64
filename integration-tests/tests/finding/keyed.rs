//! Keyed actors: there when they are called, one for each key in the whole cluster, wherever it may move.

use std::time::Duration;

use futures::future::join_all;
use mobula::{CallError, Cluster, KeyedRef, RemoteActor, SpawnError};
use mobula_integration_tests::accounts::{
    Account, Close, Drowsy, Enter, PassToAccount, Purse, PutIn, Statement, Teller, WaitAt, Wake,
};
use mobula_integration_tests::actors::Probe;
use mobula_integration_tests::holders::acts;
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, gates, suites, within};

suites! {
    a_keyed_actor_is_there_when_it_is_called on [embedded, processes, memory];
    a_key_means_the_same_actor_on_every_node on [embedded, processes, memory];
    messages_to_a_key_keep_their_order on [embedded, processes, memory];
    a_keyed_actor_that_has_ended_is_created_again on [embedded, processes, memory];
    an_idle_actor_is_stopped_and_loses_no_mail on [embedded, memory];
    an_actor_that_owes_an_answer_is_not_idle on [embedded, memory];
    a_keyed_actor_that_cannot_be_created_says_why on [embedded, processes, memory];
    the_names_of_keyed_actors_are_reserved on [embedded, processes];
    a_killed_node_moves_its_keys on [processes];
}

fn account(stage: &Stage, key: &str) -> KeyedRef<Account> {
    stage.caller().keyed_ref(key)
}

async fn a_keyed_actor_is_there_when_it_is_called(stage: Stage) {
    let mut homes = std::collections::HashSet::new();
    for number in 0..20 {
        let account = account(&stage, &format!("account-{number}"));
        assert_eq!(within(LONG, "the first call", account.ask(Enter(7))).await, Ok(1));
        within(LONG, "a tell", account.tell(Enter(8))).await.expect("it is on its way");
        let stated = within(LONG, "the statement", account.ask(Statement)).await.expect("it answers");
        assert_eq!((stated.number.as_str(), stated.entries), (account.key(), vec![7, 8]));
        assert_eq!(Ok(&stated.node), account.home().as_ref());
        assert!(stated.token > 0);
        homes.insert(stated.node);
    }
    assert_eq!(homes.len(), if stage.is_near() { 1 } else { 2 }, "keys are shared out");
}

async fn a_key_means_the_same_actor_on_every_node(stage: Stage) {
    let tellers = [stage.spawn(0, Teller::spec(())).await, stage.spawn(1, Teller::spec(())).await];
    let to = account(&stage, "shared");
    // All at once, and nobody has called it before.
    let passed = (0..20).map(|amount| tellers[amount % 2].ask(PassToAccount { to: to.clone(), amount: amount as u64 }));
    let mut counts: Vec<u64> = within(LONG, "the tellers", join_all(passed))
        .await
        .into_iter()
        .map(|passed| passed.expect("the teller answers").expect("the account answers"))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).collect::<Vec<u64>>());
    assert_eq!(within(LONG, "the caller", to.ask(Enter(1))).await, Ok(21));
}

async fn messages_to_a_key_keep_their_order(stage: Stage) {
    let account = account(&stage, "ordered");
    let mut asks = Vec::new();
    for number in 0..500 {
        if number % 3 == 0 {
            asks.push(account.ask(Enter(number)));
        } else {
            drop(account.tell(Enter(number)));
        }
    }
    let stated = within(LONG, "the statement", account.ask(Statement)).await.expect("it answers");
    assert_eq!(stated.entries, (0..500).collect::<Vec<u64>>());
    for ask in asks {
        assert!(within(LONG, "an answer", ask).await.is_ok());
    }
}

async fn a_keyed_actor_that_has_ended_is_created_again(stage: Stage) {
    let account = account(&stage, "closing");
    let mut last = 0;
    for _ in 0..5 {
        let entered = eventually(LONG, "the next one", async || match account.ask(Enter(1)).await {
            Ok(entries) => Some(entries),
            // It had a place in the mailbox of the one that was ending.
            Err(error) => {
                assert_eq!(error, CallError::Stopped);
                None
            }
        })
        .await;
        assert_eq!(entered, 1);
        let token = within(LONG, "a call", account.ask(Statement)).await.expect("it answers").token;
        assert!(token > last, "{token} after {last}");
        last = token;
        within(LONG, "its end", account.ask(Close)).await.expect("it answers");
    }
}

async fn an_idle_actor_is_stopped_and_loses_no_mail(stage: Stage) {
    let drowsy = stage.caller().keyed_ref::<Drowsy>("sleeper");
    let mut tokens = Vec::new();
    // Some calls come just when it is being stopped. All of them are answered.
    eventually(LONG, "ten activations", async || {
        tokens.push(within(LONG, "a call", drowsy.ask(Wake)).await.expect("no mail is lost"));
        tokens.dedup();
        tokio::time::sleep(Duration::from_millis(10 + tokens.len() as u64 * 2)).await;
        (tokens.len() >= 10).then_some(())
    })
    .await;
    assert!(tokens.is_sorted(), "{tokens:?}");
}

async fn an_actor_that_owes_an_answer_is_not_idle(stage: Stage) {
    let drowsy = stage.caller().keyed_ref::<Drowsy>("waiter");
    let gate = gates::fresh_name();
    let waiting = drowsy.ask(WaitAt { gate: gate.clone() });
    within(LONG, "the handler", gates::entered(&gate, 1)).await;
    // Another one is stopped meanwhile, so this one would have been.
    let other = stage.caller().keyed_ref::<Drowsy>("other");
    let first = within(LONG, "a call", other.ask(Wake)).await.expect("it answers");
    eventually(LONG, "the other's end", async || {
        tokio::time::sleep(Duration::from_millis(60)).await;
        (within(LONG, "a call", other.ask(Wake)).await.expect("it answers") > first).then_some(())
    })
    .await;
    gates::open(&gate);
    assert!(within(LONG, "the answer", waiting).await.expect("it was not cut off") > 0);
}

async fn a_keyed_actor_that_cannot_be_created_says_why(stage: Stage) {
    let forbidden = account(&stage, "forbidden");
    for _ in 0..2 {
        let error = within(LONG, "an answer", forbidden.ask(Enter(1))).await.expect_err("it panics");
        assert!(matches!(error, CallError::Unreachable { sent: false, .. }), "{error}");
        assert!(error.outcome().is_retry_safe() && error.to_string().contains("no such account"), "{error}");
    }
    assert_eq!(within(LONG, "another", account(&stage, "allowed").ask(Enter(1))).await, Ok(1));
}

async fn the_names_of_keyed_actors_are_reserved(stage: Stage) {
    let name = "keyed:anything".to_owned();
    let refused = stage.caller().spawn_on(stage.home(0), Probe::spec(0).name(&name)).await;
    assert_eq!(refused.expect_err("reserved"), SpawnError::ReservedName { name });
}

async fn a_killed_node_moves_its_keys(stage: Stage) {
    let accounts: Vec<_> = (0..20).map(|number| account(&stage, &format!("account-{number}"))).collect();
    let mut before = Vec::new();
    for account in &accounts {
        before.push(within(LONG, "a call", account.ask(Statement)).await.expect("it answers"));
    }
    assert!(before.iter().any(|stated| stated.node == *stage.home(0)));
    Process::of(stage.pid(0)).signal(Signal::KILL);
    for (account, before) in accounts.iter().zip(before) {
        let after = eventually(LONG, "the account", async || account.ask(Statement).await.ok()).await;
        assert_eq!(after.node, *stage.home(1));
        // Those of the other node have not been touched.
        let moved = before.node == *stage.home(0);
        assert!(if moved { after.token > before.token } else { after == before }, "{before:?}, {after:?}");
    }
}

/// A home that is frozen past its lease: its key moves, and when the process goes on it serves the key no more.
#[test]
fn a_frozen_node_never_serves_a_key_twice() {
    run_plain(async {
        let directory = std::env::temp_dir().join(format!("mobula-keyed-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a place for files");
        let file = directory.join("acts").to_string_lossy().into_owned();
        let lease = Duration::from_secs(2);
        let builder = Cluster::builder().nodes(2).lease(lease).executable(env!("CARGO_BIN_EXE_node_host"));
        let cluster = builder.connect().await.expect("a cluster");
        let account = cluster.keyed::<Account>(&file);
        let first = within(LONG, "a call", account.ask(Statement)).await.expect("it answers");
        assert_eq!(within(LONG, "a call", account.ask(Enter(1))).await, Ok(1));
        let home = cluster.nodes().into_iter().find(|node| node.id == first.node).expect("a member");
        let frozen = Process::of(home.pid);
        frozen.signal(Signal::STOP);
        eventually(LONG, "a stopped node", async || frozen.is_stopped().then_some(())).await;
        let waiting: Vec<_> = (0..10).map(|_| account.ask(Enter(2))).collect();
        let second = eventually(LONG, "the account elsewhere", async || {
            account.with_deadline(Duration::from_secs(5)).ask(Statement).await.ok()
        })
        .await;
        assert!(second.node != first.node && second.token > first.token);
        assert_eq!(within(LONG, "a call", account.ask(Enter(3))).await, Ok(1));
        frozen.signal(Signal::CONT);
        eventually(LONG, "its end", async || (!frozen.is_running()).then_some(())).await;
        for waiting in waiting {
            assert!(within(LONG, "its mail", waiting).await.is_err());
        }
        assert_eq!(acts(&file), [first.token, second.token], "served twice");
        std::fs::remove_dir_all(&directory).expect("ours");
    });
}

/// Waits until every purse has been stopped.
async fn all_stopped(cluster: &Cluster) {
    for node in cluster.nodes().into_iter().filter(|node| node.alive) {
        eventually(LONG, "an empty node", async || {
            let report = cluster.report(&node.id).await.expect("it answers");
            (report.actors == 0).then_some(())
        })
        .await;
    }
}

#[test]
fn an_idle_actor_is_saved_before_it_is_stopped() {
    run_plain(async {
        let url = format!("memory:///keyed-{}", std::process::id());
        let cluster = Cluster::builder().snapshots(url).connect().await.expect("a cluster");
        let purse = cluster.keyed::<Purse>("one");
        for total in 1..=3 {
            assert_eq!(within(LONG, "a call", purse.ask(PutIn(1))).await, Ok(total));
            all_stopped(&cluster).await;
        }
        assert_eq!(within(LONG, "another", cluster.keyed::<Purse>("two").ask(PutIn(1))).await, Ok(1));
    });
}

#[test]
fn a_keyed_actor_begins_with_its_saved_state_on_another_node() {
    run_plain(async {
        let directory = tempfile::tempdir().expect("a directory");
        let builder = Cluster::builder().nodes(2).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_node_host"));
        let builder = builder.snapshots(format!("file://{}", directory.path().display()));
        let cluster = builder.lease(Duration::from_secs(1)).connect().await.expect("a cluster");
        let purse = cluster.keyed::<Purse>("one");
        let home = purse.home().expect("it has one");
        assert_eq!(within(LONG, "a call", purse.ask(PutIn(5))).await, Ok(5));
        all_stopped(&cluster).await;
        let nodes = cluster.nodes();
        Process::of(nodes.iter().find(|node| node.id == home).expect("it is one").pid).signal(Signal::KILL);
        let moved = eventually(LONG, "the next", async || purse.ask(PutIn(1)).await.ok()).await;
        // An attempt that failed may have been handled by the one that was killed, which nobody saved.
        assert_eq!(moved, 6);
        assert_ne!(purse.home().expect("it has one"), home);
    });
}

#[test]
fn a_store_in_memory_is_not_for_several_processes() {
    run_plain(async {
        let builder = Cluster::builder().nodes(2).executable(env!("CARGO_BIN_EXE_node_host"));
        let refused = builder.snapshots("memory:///x").connect().await.expect_err("nobody else reaches it");
        assert!(refused.to_string().contains("memory of one process"), "{refused}");
    });
}
