//! Actors that ask for resources: they have them, wait for them, are refused, and give them back however they end.

use std::time::Duration;

use mobula::prelude::*;
use mobula::{
    Amount, ChildSpec, GroupPhase, GroupStrategy, Labels, PlacementError, Resources, Strategy, Supervisor,
    SupervisorSpec,
};
use mobula_integration_tests::process::{Process, Signal};
use mobula_integration_tests::stage::run_plain;
use mobula_integration_tests::tenant::{Tenant, TenantRef};
use mobula_integration_tests::wait::LONG;
use mobula_integration_tests::{Stage, eventually, suites, within};

suites! {
    what_fits_is_given_and_comes_back on [embedded, processes];
    what_can_never_be_given_fails_at_once on [embedded, processes];
    what_is_in_use_is_waited_for on [embedded, processes];
    a_spawn_that_is_given_up_takes_nothing on [embedded, processes];
    what_makes_no_sense_is_refused on [embedded];
    a_child_of_a_supervisor_takes_what_it_asks_for on [embedded, processes];
    a_killed_process_gives_back_what_its_actors_had on [processes];
}

fn cpus(count: u64) -> Resources {
    Resources::cpus(Amount::units(count))
}

fn disk(count: u64) -> Resources {
    Resources::new().with("disk", Amount::units(count))
}

async fn free(cluster: &Cluster) -> Resources {
    within(LONG, "what is free", cluster.available_resources()).await.expect("the driver knows")
}

/// The cores of one node.
async fn one_node(cluster: &Cluster) -> Amount {
    cluster.node_resources().await.expect("the driver knows")[0].total.cpus
}

async fn is_free(cluster: &Cluster, wanted: &Resources) {
    eventually(LONG, "what is free", async || (free(cluster).await == *wanted).then_some(())).await;
}

async fn has(cluster: &Cluster, wanted: &Resources) {
    let all = async || cluster.resources().await.expect("the driver knows");
    eventually(LONG, "what there is", async || (all().await == *wanted).then_some(())).await;
}

async fn what_fits_is_given_and_comes_back(stage: Stage) {
    let cluster = stage.cluster();
    let all = cluster.resources().await.expect("the driver knows");
    assert_eq!(free(cluster).await, all);
    let half = Amount::parts(one_node(cluster).await.as_parts() / 2);
    let tenant = within(LONG, "a tenant", cluster.spawn(Tenant::actor().cpus(half))).await.expect("there is room");
    let granted =
        within(LONG, "what it has", tenant.granted()).await.expect("it lives").expect("it asked for something");
    assert_eq!((granted.resources.cpus, granted.gpus.len()), (half, 0));
    assert_eq!(free(cluster).await.cpus, all.cpus.minus(half).expect("less than all"));
    // What asks for nothing takes nothing.
    let guest = cluster.spawn(Tenant::actor()).await.expect("there is always room");
    assert_eq!(within(LONG, "what it has", guest.granted()).await, Ok(None));
    tenant.stop().await.expect("it is told");
    is_free(cluster, &all).await;
    // A panic is no end while it is restarted; the last one is.
    let other = cluster.spawn(Tenant::actor().cpus(half)).await.expect("there is room");
    other.kill().await.expect("it is told");
    is_free(cluster, &all).await;
}

async fn what_can_never_be_given_fails_at_once(stage: Stage) {
    let cluster = stage.cluster();
    let too_much = one_node(cluster).await.plus(Amount::ONE);
    let spawned =
        within(LONG, "a refusal", cluster.spawn(Tenant::actor().cpus(too_much).place_within(LONG * 10))).await;
    let error = spawned.expect_err("no node has so much");
    let SpawnError::NotPlaced(PlacementError::Infeasible(why)) = &error else { panic!("{error}") };
    assert_eq!((why.asked.cpus, why.best.cpus.plus(Amount::ONE)), (too_much, too_much));
    let text = error.to_string();
    let best = format!("the most that one node has is {}", why.best);
    assert!(text.contains(&format!("{too_much} cpu")) && text.contains(&best), "{text}");
    let error = cluster.spawn(Tenant::actor().resource("license", 1)).await.expect_err("nobody has one").to_string();
    assert!(error.contains("1 license") && error.contains("0 of 1 license"), "{error}");
    let error = cluster.spawn(Tenant::actor().labels("zone=x")).await.expect_err("no node is there").to_string();
    assert!(error.contains("has other labels"), "{error}");
    let error = cluster.spawn(Tenant::actor().cpus(1).on_node("nowhere")).await.expect_err("no such node").to_string();
    assert!(error.contains("no such node: nowhere"), "{error}");
    cluster.spawn(Tenant::actor().prefer_labels("zone=x").prefer_node("nowhere")).await.expect("others will do");
}

async fn what_is_in_use_is_waited_for(stage: Stage) {
    let cluster = stage.cluster();
    let all = one_node(cluster).await;
    let nodes = cluster.nodes().len();
    let mut tenants = Vec::new();
    for _ in 0..nodes {
        tenants.push(cluster.spawn(Tenant::actor().cpus(all)).await.expect("there is room"));
    }
    let short = Duration::from_millis(50);
    let error = within(LONG, "a refusal", cluster.spawn(Tenant::actor().cpus(all).place_within(short))).await;
    let error = error.expect_err("all is in use");
    assert!(
        matches!(&error, SpawnError::NotPlaced(PlacementError::NoRoom { waited, .. }) if *waited == short),
        "{error}"
    );
    let late = cluster.spawn(Tenant::actor().cpus(all).place_within(LONG));
    tokio::pin!(late);
    assert!(tokio::time::timeout(short, &mut late).await.is_err(), "it waits");
    tenants.pop().expect("at least one").stop().await.expect("it is told");
    let late = within(LONG, "its turn", late).await.expect("there is room now");
    assert!(late.granted().await.expect("it lives").is_some());
}

async fn a_spawn_that_is_given_up_takes_nothing(stage: Stage) {
    let cluster = stage.cluster();
    let all = cluster.resources().await.expect("the driver knows");
    let one = one_node(cluster).await;
    let mut tenants = Vec::new();
    for _ in 0..cluster.nodes().len() {
        tenants.push(cluster.spawn(Tenant::actor().cpus(one)).await.expect("there is room"));
    }
    for _ in 0..20 {
        let waiting = cluster.spawn(Tenant::actor().cpus(one));
        assert!(tokio::time::timeout(Duration::from_millis(2), waiting).await.is_err(), "it waits");
    }
    for tenant in tenants {
        tenant.stop().await.expect("it is told");
    }
    is_free(cluster, &all).await;
}

async fn what_makes_no_sense_is_refused(stage: Stage) {
    let cluster = stage.cluster();
    let cases = [
        (Tenant::actor().cpus(-1), "cpus: -1: it is negative"),
        (Tenant::actor().cpus(f64::NAN), "cpus: NaN: it is no number"),
        (Tenant::actor().gpus(1.5), "a part of one GPU such as 0.5, or a whole number of them"),
        (Tenant::actor().resource("cpu", 1), "there is a flag of its own for it"),
        (Tenant::actor().labels("zone"), "key=value pairs"),
    ];
    for (spec, words) in cases {
        let error = within(LONG, "a refusal", cluster.spawn(spec)).await.expect_err(words);
        assert!(matches!(&error, SpawnError::NotPlaced(PlacementError::Bad { .. })), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

async fn a_child_of_a_supervisor_takes_what_it_asks_for(stage: Stage) {
    let cluster = stage.cluster();
    let all = cluster.resources().await.expect("the driver knows");
    let child = ChildSpec::new("tenant", Tenant::actor().cpus(Amount::ONE));
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(child);
    let supervisor = cluster.spawn(Supervisor::spec(spec)).await.expect("a supervisor");
    is_free(cluster, &Resources { cpus: all.cpus.minus(Amount::ONE).expect("one"), ..all.clone() }).await;
    supervisor.stop().await.expect("it is told");
    is_free(cluster, &all).await;
}

async fn a_killed_process_gives_back_what_its_actors_had(stage: Stage) {
    let cluster = stage.cluster();
    let first = cluster.spawn(Tenant::actor().cpus(1)).await.expect("there is room");
    let second = cluster.spawn(Tenant::actor().cpus(1)).await.expect("there is room");
    assert_ne!(first.node(), second.node());
    assert!(free(cluster).await.is_empty());
    let waiting = cluster.spawn(Tenant::actor().cpus(1).place_within(LONG));
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "it waits");
    let nodes = cluster.nodes();
    let pid = nodes.iter().find(|node| node.id == *first.node()).expect("a member").pid;
    Process::of(pid).signal(Signal::KILL);
    // The node is gone, and its cores with it.
    has(cluster, &cpus(1)).await;
    assert!(free(cluster).await.is_empty());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "it still waits");
    second.stop().await.expect("it is told");
    let third = within(LONG, "its turn", waiting).await.expect("there is room now");
    assert_eq!(third.node(), second.node());
}

/// Two nodes with two GPUs and four cores each; the first has a disk and is in zone a.
async fn two_nodes() -> Cluster {
    let both = Resources::cpus(Amount::units(4)).with_gpus(Amount::units(2));
    let builder = Cluster::builder().nodes(2).cpus_per_node(1).executable(env!("CARGO_BIN_EXE_node_host"));
    let builder = builder.resources_per_node(both).node(1, disk(1), Labels::new().with("zone", "a"));
    within(LONG, "the cluster", builder.connect()).await.expect("two nodes")
}

fn name_of(tenant: &ActorRef<Tenant>) -> String {
    tenant.node().name.to_string()
}

#[test]
fn an_actor_goes_where_its_resources_labels_and_wishes_are() {
    run_plain(async {
        let cluster = two_nodes().await;
        let nodes = cluster.nodes();
        assert_eq!(nodes[0].resources.get("disk"), Amount::ONE);
        assert_eq!((nodes[0].labels.get("zone"), nodes[1].labels.get("zone")), (Some("a"), None));
        let spawn = async |spec| within(LONG, "a tenant", cluster.spawn(spec)).await.expect("there is room");
        let cases = [
            (Tenant::actor().resource("disk", 0.5), "node-1"),
            (Tenant::actor().labels("zone=a"), "node-1"),
            (Tenant::actor().cpus(0.5).on_node("node-2"), "node-2"),
            (Tenant::actor().on_node("node-2"), "node-2"),
            (Tenant::actor().cpus(1).prefer_node("node-2"), "node-2"),
            (Tenant::actor().cpus(1).node_affinity(&nodes[1].id), "node-2"),
            (Tenant::actor().cpus(1).prefer_labels("zone=a"), "node-1"),
            // The wish cannot be met.
            (Tenant::actor().cpus(3).prefer_node("node-2"), "node-1"),
            (Tenant::actor().memory_bytes(0).resource("disk", 0.5), "node-1"),
        ];
        let mut held = Vec::new();
        for (at, (spec, node)) in cases.into_iter().enumerate() {
            let tenant = spawn(spec).await;
            assert_eq!(name_of(&tenant), node, "case {at}");
            held.push(tenant);
        }
        // Four GPUs, each known by its node and its index.
        let mut gpus = Vec::new();
        for _ in 0..4 {
            let tenant = spawn(Tenant::actor().gpus(1).spread()).await;
            let granted = tenant.granted().await.expect("it lives").expect("it has one");
            gpus.push((name_of(&tenant), granted.gpus[0].index));
            held.push(tenant);
        }
        gpus.sort();
        let wanted = [("node-1", 0), ("node-1", 1), ("node-2", 0), ("node-2", 1)];
        assert_eq!(gpus, wanted.map(|(node, index)| (node.to_owned(), index)));
        let error = cluster.spawn(Tenant::actor().gpus(0.1).place_within(Duration::ZERO)).await.expect_err("in use");
        assert!(matches!(error, SpawnError::NotPlaced(PlacementError::NoRoom { .. })), "{error}");
        cluster.shutdown().await;
    });
}

#[test]
fn an_actor_on_a_node_may_ask_for_more() {
    run_plain(async {
        let cluster = two_nodes().await;
        let all = cluster.resources().await.expect("the driver knows");
        let tenant = cluster.spawn(Tenant::actor().on_node("node-2")).await.expect("there is room");
        // Of eight cores on two nodes; what it has created has its own life.
        let mut nodes = Vec::new();
        for _ in 0..8 {
            nodes.push(within(LONG, "another", tenant.sublet(10_000)).await.expect("there is room"));
        }
        assert_eq!(nodes.iter().filter(|node| *node == "node-1").count(), 4, "{nodes:?}");
        assert_eq!(free(&cluster).await.cpus, Amount::ZERO);
        let error = within(LONG, "a refusal", tenant.sublet(1)).await.expect_err("all is in use").to_string();
        assert!(error.contains("no room for 0.0001 cpu"), "{error}");
        let error = tenant.sublet(50_000).await.expect_err("no node has five").to_string();
        assert!(error.contains("no node can ever give 5 cpu"), "{error}");
        // Its process ends; what it has created elsewhere goes on.
        let pid = cluster.nodes()[1].pid;
        Process::of(pid).signal(Signal::KILL);
        has(&cluster, &cpus(4).with_gpus(Amount::units(2)).with("disk", Amount::ONE)).await;
        assert_eq!(free(&cluster).await.cpus, Amount::ZERO);
        assert!(all.cpus == Amount::units(8));
        cluster.shutdown().await;
    });
}

#[test]
fn a_placement_group_is_all_or_nothing() {
    run_plain(async {
        let cluster = two_nodes().await;
        let all = cluster.resources().await.expect("the driver knows");
        let spread = cluster.placement_group(GroupStrategy::StrictSpread, [cpus(3), cpus(3)]).await.expect("room");
        let row = within(LONG, "the group", spread.ready(LONG)).await.expect("there is room");
        assert_ne!(row.bundles[0].1, row.bundles[1].1, "each on a node of its own");
        assert_eq!(free(&cluster).await.cpus, Amount::units(2));
        for at in [0, 1] {
            let tenant = cluster.spawn(Tenant::actor().cpus(3).in_bundle(&spread, at)).await.expect("set aside for it");
            assert_eq!(Some(tenant.node().uid), row.bundles[at as usize].1);
        }
        let full = cluster.spawn(Tenant::actor().cpus(1).in_group(&spread).place_within(Duration::ZERO)).await;
        assert!(matches!(full, Err(SpawnError::NotPlaced(PlacementError::NoRoom { .. }))), "{full:?}");
        let error = cluster.spawn(Tenant::actor().cpus(4).in_group(&spread)).await.expect_err("no bundle has so much");
        assert!(error.to_string().contains("no bundle of placement group"), "{error}");
        let error = cluster.spawn(Tenant::actor().in_bundle(&spread, 2)).await.expect_err("there are two");
        assert!(error.to_string().contains("has 2 bundles"), "{error}");

        // Three nodes there are not, nor one with eight cores.
        for (strategy, bundles) in
            [(GroupStrategy::StrictSpread, vec![cpus(1); 3]), (GroupStrategy::StrictPack, vec![cpus(4); 2])]
        {
            let error = within(LONG, "a refusal", cluster.placement_group(strategy, bundles)).await.expect_err("never");
            assert!(matches!(error, PlacementError::Infeasible(_)), "{error}");
        }
        // Another waits until the first one goes, and takes its actors along.
        let other = cluster.placement_group(GroupStrategy::Spread, vec![cpus(4); 2]).await.expect("it may wait");
        let short = Duration::from_millis(50);
        let error = other.ready(short).await.expect_err("the other one has the cores");
        assert!(matches!(error, PlacementError::NotReady { .. }), "{error}");
        within(LONG, "its removal", spread.remove()).await.expect("it is there");
        let row = within(LONG, "its turn", other.ready(LONG)).await.expect("there is room now");
        assert_eq!(row.phase, GroupPhase::Ready);
        let error = cluster.spawn(Tenant::actor().cpus(1).in_group(&spread)).await.expect_err("it is gone");
        assert!(error.to_string().contains("there is no placement group"), "{error}");
        // In force from the beginning: one that is set up now may come after the order to end, which goes another way.
        let spec = Tenant::actor().cpus(2).in_group(&other);
        let (_, monitor) = cluster.spawn_monitor(spec).await.expect("set aside for it");
        other.remove().await.expect("it is there");
        assert_eq!(within(LONG, "its end", monitor).await.reason, mobula::ExitReason::Killed);
        is_free(&cluster, &all).await;
        cluster.shutdown().await;
    });
}
