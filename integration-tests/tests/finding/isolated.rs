//! Actors with a process of their own: what ends it ends nobody else, nothing else is placed there, and it goes with its actor.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mobula::prelude::*;
use mobula::{Amount, ChildSpec, PlacementError, Resources, Strategy, Supervisor, SupervisorSpec};
use mobula_integration_tests::hermit::{End, Hermit, HermitRef};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    an_isolated_actor_without_processes_is_refused on [embedded];
    an_isolated_supervisor_or_child_begins_again_in_a_new_process on [processes];
}

/// Two nodes with two GPUs and four cores each.
async fn two_nodes() -> Cluster {
    let both = Resources::cpus(Amount::units(4)).with_gpus(Amount::units(2));
    let builder = Cluster::builder().nodes(2).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_node_host"));
    within(LONG, "the cluster", builder.resources_per_node(both).connect()).await.expect("two nodes")
}

async fn hermit(cluster: &Cluster, spec: mobula::ActorSpec<Hermit>) -> ActorRef<Hermit> {
    within(LONG, "a hermit", cluster.spawn(spec)).await.expect("there is room")
}

async fn pid(hermit: &ActorRef<Hermit>) -> u32 {
    within(LONG, "its process", hermit.pid()).await.expect("it lives")
}

async fn free(cluster: &Cluster) -> Resources {
    within(LONG, "what is free", cluster.available_resources()).await.expect("the driver knows")
}

async fn is_free(cluster: &Cluster, wanted: &Resources) {
    eventually(LONG, "what is free", async || (free(cluster).await == *wanted).then_some(())).await;
}

async fn has_ended(process: Process) {
    eventually(LONG, "the end of a process", async || (!process.is_running()).then_some(())).await;
}

async fn an_isolated_actor_without_processes_is_refused(stage: Stage) {
    let cluster = stage.cluster();
    let all = cluster.resources().await.expect("the driver knows");
    let spawned = within(LONG, "a refusal", cluster.spawn(Hermit::actor().cpus(1).isolated())).await;
    let error = spawned.expect_err("this process is alone");
    assert!(matches!(&error, SpawnError::NotPlaced(PlacementError::Bad { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("Cluster::local") && text.contains("mobula start"), "{text}");
    assert_eq!(free(cluster).await, all, "nothing is taken");
}

#[test]
fn an_isolated_actor_is_alone_in_its_process_and_sees_its_gpus_alone() {
    run_plain(async {
        let cluster = two_nodes().await;
        let all = cluster.resources().await.expect("the driver knows");
        let nodes: Vec<u32> = cluster.nodes().iter().map(|node| node.pid).collect();
        let gpus = hermit(&cluster, Hermit::actor().cpus(1).gpus(2).on_node("node-2").isolated()).await;
        let none = hermit(&cluster, Hermit::actor().on_node("node-2").isolated().name("none")).await;
        let shared = hermit(&cluster, Hermit::actor().on_node("node-2")).await;
        let (first, second, third) = (pid(&gpus).await, pid(&none).await, pid(&shared).await);
        assert!(first != second && !nodes.contains(&first) && !nodes.contains(&second), "{first} {second} {nodes:?}");
        assert_eq!((third, &*gpus.node().name), (nodes[1], "node-2"));
        assert_eq!(gpus.devices().await, Ok(Some("0,1".to_owned())));
        assert_eq!(none.devices().await, Ok(Some(String::new())), "it has none");
        let granted = gpus.granted().await.expect("it lives").expect("it asked for something");
        assert_eq!(granted.gpus.len(), 2);
        let rest = Resources::cpus(Amount::units(7)).with_gpus(Amount::units(2));
        assert_eq!(free(&cluster).await, rest);

        // It is found and reached as any other, also from beside it and from another process of one actor.
        let found = cluster.find::<Hermit>("none").await.expect("the names are known").expect("it has the name");
        assert_eq!(found.id(), none.id());
        for asker in [&gpus, &shared] {
            assert_eq!(within(LONG, "its word", asker.pid_of(none.clone())).await, Ok(second));
        }
        // Nobody else is placed there.
        assert_eq!(cluster.nodes().len(), 2);
        for _ in 0..4 {
            for spec in [Hermit::actor(), Hermit::actor().spread(), Hermit::actor().cpus(0.1)] {
                let other = hermit(&cluster, spec).await;
                assert!(nodes.contains(&pid(&other).await));
            }
            let other = within(LONG, "another", gpus.found_anywhere()).await.expect("a place");
            assert!(nodes.contains(&other));
        }
        let there = cluster.spawn(Hermit::actor().node_affinity(gpus.node())).await.expect_err("no node to others");
        assert!(matches!(there, SpawnError::NoSuchNode { .. }), "{there}");
        // But from there one may ask for another.
        let other = within(LONG, "another", gpus.found()).await.expect("a process");
        assert!(other != first && other != second && !nodes.contains(&other));

        // With the actor goes its process, and then what it had is free.
        let processes = [first, second].map(Process::of);
        gpus.stop().await.expect("it is told");
        none.kill().await.expect("it is told");
        for process in processes {
            has_ended(process).await;
        }
        eventually(LONG, "what is free", async || (free(&cluster).await.gpus == all.gpus).then_some(())).await;
        let last = Process::of(other);
        within(LONG, "the end", cluster.shutdown()).await;
        assert!(!last.is_running(), "it ends with the cluster");
    });
}

#[test]
fn what_ends_an_isolated_actors_process_ends_nobody_else() {
    run_plain(async {
        let cluster = two_nodes().await;
        let all = cluster.resources().await.expect("the driver knows");
        let neighbours = [Hermit::actor().on_node("node-1"), Hermit::actor().on_node("node-1").isolated()]
            .map(|s| hermit(&cluster, s));
        let neighbours = futures::future::join_all(neighbours).await;
        let before = [pid(&neighbours[0]).await, pid(&neighbours[1]).await];
        for how in [End::Abort, End::Exit, End::Kill] {
            let spec = Hermit::actor().cpus(1).on_node("node-1").isolated();
            let (victim, monitor) = within(LONG, "a hermit", cluster.spawn_monitor(spec)).await.expect("there is room");
            let call = victim.wait();
            let process = Process::of(pid(&victim).await);
            let ending = victim.end(how);
            let error = within(LONG, "the caller's error", call).await.expect_err("its process has ended");
            assert!(matches!(&error, CallError::Unreachable { .. }), "{how:?}: {error}");
            ending.await.expect_err("nobody is there to answer");
            within(LONG, "the monitor", monitor).await;
            has_ended(process).await;
            is_free(&cluster, &all).await;
            assert_eq!([pid(&neighbours[0]).await, pid(&neighbours[1]).await], before, "{how:?}");
        }
        // A panic is no end of the process: the actor begins again within it.
        let fragile = hermit(&cluster, Hermit::actor().isolated().backoff(Duration::from_millis(1))).await;
        let own = pid(&fragile).await;
        fragile.panic().await.expect_err("it panics");
        assert_eq!(eventually(LONG, "its next life", async || fragile.pid().await.ok()).await, own);
        within(LONG, "the end", cluster.shutdown()).await;
    });
}

async fn an_isolated_supervisor_or_child_begins_again_in_a_new_process(stage: Stage) {
    let cluster = stage.cluster();
    let child = ChildSpec::new("hermit", Hermit::actor().cpus(Amount::parts(5_000)).isolated());
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(child).backoff(Duration::from_millis(1), LONG);
    let supervisor = within(LONG, "a supervisor", cluster.spawn(Supervisor::spec(spec))).await.expect("there is room");
    let running = async || -> Option<u32> {
        let child = supervisor.child::<Hermit>("hermit").await.ok()??;
        child.pid().await.ok()
    };
    let first = eventually(LONG, "its first life", running).await;
    Process::of(first).signal(Signal::KILL);
    let second = eventually(LONG, "its next life", async || running().await.filter(|pid| *pid != first)).await;
    let process = Process::of(second);
    supervisor.stop().await.expect("it is told");
    has_ended(process).await;
    let all = cluster.resources().await.expect("the driver knows");
    is_free(cluster, &all).await;
}

#[test]
fn the_processes_beside_a_node_end_with_it() {
    run_plain(async {
        let cluster = two_nodes().await;
        let beside = hermit(&cluster, Hermit::actor().on_node("node-1").isolated()).await;
        let elsewhere = hermit(&cluster, Hermit::actor().on_node("node-2").isolated()).await;
        let (gone, stays) = (Process::of(pid(&beside).await), pid(&elsewhere).await);
        Process::of(cluster.nodes()[0].pid).signal(Signal::KILL);
        has_ended(gone).await;
        assert_eq!(pid(&elsewhere).await, stays);
        // One that comes after that does not look for the node that has gone.
        let next = hermit(&cluster, Hermit::actor().isolated()).await;
        assert_eq!(within(LONG, "its word", next.pid_of(elsewhere.clone())).await, Ok(stays));
        within(LONG, "the end", cluster.shutdown()).await;
    });
}

#[test]
fn a_spawn_that_is_given_up_leaves_no_process() {
    run_plain(async {
        let cluster = two_nodes().await;
        let all = cluster.resources().await.expect("the driver knows");
        for ms in [0, 1, 5, 20, 50, 100] {
            let spawning = cluster.spawn(Hermit::actor().cpus(4).isolated());
            if let Ok(in_time) = tokio::time::timeout(Duration::from_millis(ms), spawning).await {
                in_time.expect("there is room").kill().await.expect("it is told");
            }
        }
        // What they had is free when their processes are gone, so that others have room.
        let both = [1, 2].map(|_| hermit(&cluster, Hermit::actor().cpus(4).isolated()));
        let both = futures::future::join_all(both).await;
        assert_ne!(both[0].node().name, both[1].node().name);
        for one in both {
            one.stop().await.expect("it is told");
        }
        is_free(&cluster, &all).await;
        within(LONG, "the end", cluster.shutdown()).await;
    });
}

#[test]
fn a_process_that_does_not_start_is_told_with_its_reason() {
    run_plain(async {
        let place = tempfile::tempdir().expect("a directory");
        let program = place.path().join("program");
        // Only processes for one actor are told which devices they see.
        let text = format!(
            "#!/bin/sh\nif [ \"${{CUDA_VISIBLE_DEVICES-none}}\" = none ]; then exec '{}'; fi\nexit 3\n",
            env!("CARGO_BIN_EXE_node_host")
        );
        std::fs::write(&program, text).expect("room");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its own file");
        let builder = Cluster::builder().nodes(1).cpus_per_node(1).executable(program);
        let cluster = within(LONG, "the cluster", builder.connect()).await.expect("one node");
        let all = cluster.resources().await.expect("the driver knows");
        let spawned = within(LONG, "a refusal", cluster.spawn(Hermit::actor().cpus(1).isolated())).await;
        let error = spawned.expect_err("it has ended").to_string();
        assert!(error.contains("the process of job-1/lease-") && error.contains("its output may say why"), "{error}");
        is_free(&cluster, &all).await;
        within(LONG, "the end", cluster.shutdown()).await;
    });
}
