//! Leases with a worker of their own.

use mobula_core::cluster::{
    Amount, GroupStrategy, JobId, JobPhase, NewGroup, Place, PlaceStrategy, Placed, Placing, Refused, Resources,
    Running, WorkerPhase,
};
use mobula_core::{NodeUid, limits};

use super::harness::{House, cpus, group, ms, place, s};

fn isolated(job: JobId, number: u64, resources: Resources) -> Place {
    Place { isolated: true, ..place(job, number, resources) }
}

fn ask(house: &mut House, place: &Place) -> Result<Placing, Refused> {
    house.ask(|head, moment| head.place(place.clone(), moment))
}

fn given(house: &mut House, place: &Place) -> Placed {
    match ask(house, place) {
        Ok(Placing::Placed(placed)) => placed,
        other => panic!("not placed: {other:?}"),
    }
}

/// The isolated workers that are to run on a node.
fn to_run(house: &House, node: u64) -> Vec<NodeUid> {
    let workers = house.head.assignment(NodeUid(node)).expect("known").workers;
    workers.iter().filter(|worker| worker.isolated.is_some()).map(|worker| worker.uid).collect()
}

#[test]
fn an_isolated_lease_has_a_worker_of_its_own_which_ends_with_it() {
    let mut house = House::new();
    house.node(1, cpus(4).with_gpus(Amount::units(2)));
    let job = house.job(1);
    let shared = house.worker(job, 1).expect("one");
    let first = isolated(job, 1, cpus(1).with_gpus(Amount::ONE));
    let placed = given(&mut house, &first);
    let worker = placed.worker.expect("one of its own");
    assert_ne!(worker, shared);
    let second = given(&mut house, &isolated(job, 2, Resources::new()));
    assert_eq!(to_run(&house, 1), [worker, second.worker.expect("another")]);
    let spec = house.head.assignment(NodeUid(1)).expect("known").workers.into_iter().find(|spec| spec.uid == worker);
    let its = spec.and_then(|spec| spec.isolated).expect("isolated");
    assert_eq!((its.lease, its.gpus), (first.lease, placed.gpus.clone()));
    assert_eq!(given(&mut house, &first), placed, "the same again");
    let plain = place(job, 1, cpus(1).with_gpus(Amount::ONE));
    assert_eq!(ask(&mut house, &plain), Err(Refused::OtherRequest));
    house.beat(1).expect("it lives");
    let row = house.head.workers().into_iter().find(|row| row.uid == worker).expect("listed");
    assert_eq!((row.lease, row.phase, row.order), (Some(first.lease), WorkerPhase::Ready, 1));
    house.restart();
    house.beat(1).expect("it lives");
    assert_eq!(given(&mut house, &first), placed, "by the next head, too");

    // Given back, it is told to end; what it has is free when it was reaped, whichever head hears of that.
    let still = house.obedient(1);
    house.ask(|head, moment| head.release(first.lease, moment)).expect("known");
    assert_eq!(to_run(&house, 1), [second.worker.expect("another")]);
    assert_eq!(house.head.leases().len(), 1);
    assert_eq!(ask(&mut house, &first), Err(Refused::Repeated { lease: first.lease }));
    house.beat_with(1, Running { seen: Default::default(), ..still }).expect("it lives");
    assert_eq!(house.head.available(), cpus(3).with_gpus(Amount::ONE), "it still runs");
    house.restart();
    assert_eq!(to_run(&house, 1), [second.worker.expect("another")], "the next head does not begin it again");
    assert_eq!(ask(&mut house, &first), Err(Refused::Repeated { lease: first.lease }));
    house.beat(1).expect("it lives");
    assert_eq!(house.head.available(), cpus(4).with_gpus(Amount::units(2)));
    assert_eq!(house.head.workers().len(), 2, "the shared one, and that of the second lease");
    assert_eq!(house.worker(job, 1), Some(shared), "nobody has touched it");
}

#[test]
fn an_isolated_worker_that_ends_takes_its_lease_along_and_is_not_started_again() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    let wanted = isolated(job, 1, cpus(2));
    let worker = given(&mut house, &wanted).worker.expect("one");
    house.beat(1).expect("it lives");
    for _ in 0..2 {
        house.ask(|head, moment| head.worker_ended(worker, "signal 9", true, moment));
    }
    assert_eq!((house.head.leases().len(), house.head.available()), (0, cpus(4)));
    for _ in 0..20 {
        house.live(ms(500), &[1]);
        house.driver_beats(1, job);
    }
    assert_eq!(to_run(&house, 1), []);
    let refused = ask(&mut house, &wanted).expect_err("it is over");
    assert_eq!(refused, Refused::ProcessEnded { lease: wanted.lease, reason: "signal 9".to_owned() });
    house.ask(|head, moment| head.release(wanted.lease, moment)).expect("nothing is left to be given back");
    assert_ne!(given(&mut house, &isolated(job, 2, cpus(2))).worker, Some(worker));
    // A node that has none any more says the same.
    house.beat(1).expect("it lives");
    let seen = house.obedient(1).seen;
    house.beat_with(1, Running { seen, ..Running::default() }).expect("it lives");
    assert_eq!((house.head.leases().len(), to_run(&house, 1)), (0, vec![]));
}

#[test]
fn isolated_workers_end_with_their_job_their_group_and_their_node() {
    let mut house = House::new();
    house.node(1, cpus(4));
    house.node(2, cpus(1));
    let job = house.job(1);
    let new =
        NewGroup { group: group(job, 1), bundles: vec![cpus(2)], strategy: GroupStrategy::Pack, for_new_nodes: false };
    house.ask(|head, moment| head.create_group(new, moment)).expect("room");
    let strategy = PlaceStrategy::Group { group: group(job, 1), bundle: None };
    let within = given(&mut house, &Place { strategy, ..isolated(job, 1, cpus(1)) });
    let beside = given(&mut house, &isolated(job, 2, cpus(1)));
    assert_eq!((within.node, beside.node), (NodeUid(1), NodeUid(1)));
    house.beat(1).expect("it lives");
    house.ask(|head, moment| head.remove_group(group(job, 1), moment)).expect("known");
    assert_eq!((to_run(&house, 1), house.head.available()), (vec![beside.worker.expect("one")], cpus(2)));
    house.beat(1).expect("it lives");
    assert_eq!(house.head.available(), cpus(4));
    let strategy = PlaceStrategy::Node { node: NodeUid(2), soft: false };
    given(&mut house, &Place { strategy, ..isolated(job, 3, cpus(1)) });
    house.ask(|head, moment| head.leave(NodeUid(2), moment));
    assert_eq!(house.head.leases().len(), 1);
    house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
    assert_eq!(house.head.job(job).expect("known").phase, JobPhase::Stopping);
    assert_eq!((to_run(&house, 1), house.head.available()), (vec![], cpus(3)), "its process has not been reaped");
    house.beat(1).expect("it lives");
    assert_eq!(house.head.job(job).expect("known").phase, JobPhase::Stopped);
    assert_eq!((house.head.workers().len(), house.head.available()), (0, cpus(4)));
}

#[test]
fn a_bundle_of_a_removed_group_is_free_when_the_isolated_workers_in_it_were_reaped() {
    let mut house = House::new();
    house.node(1, cpus(3).with_gpus(Amount::units(2)));
    let job = house.job(1);
    let id = group(job, 1);
    let gpu = cpus(1).with_gpus(Amount::ONE);
    let bundles = vec![gpu.clone(), gpu.clone()];
    let new = NewGroup { group: id, bundles, strategy: GroupStrategy::Pack, for_new_nodes: false };
    house.ask(|head, moment| head.create_group(new.clone(), moment)).expect("room");
    let bundle = |bundle| PlaceStrategy::Group { group: id, bundle: Some(bundle) };
    let first = given(&mut house, &Place { strategy: bundle(0), ..isolated(job, 1, gpu.clone()) });
    let plain = Place { strategy: bundle(1), ..place(job, 2, gpu.clone()) };
    given(&mut house, &plain);
    house.beat(1).expect("it lives");
    let both = isolated(job, 3, Resources::new().with_gpus(Amount::units(2)));
    assert_eq!(ask(&mut house, &both), Ok(Placing::Waiting));

    let still = house.obedient(1);
    for _ in 0..2 {
        house.ask(|head, moment| head.remove_group(id, moment)).expect("known");
        assert_eq!(house.head.available(), cpus(2).with_gpus(Amount::ONE), "the other bundle is free at once");
    }
    // To everybody but its node it is gone.
    assert_eq!((house.head.groups(), house.head.leases(), house.head.summary().groups), (vec![], vec![], 0));
    let again = Place { lease: isolated(job, 4, gpu.clone()).lease, ..plain };
    let within = |house: &mut House| ask(house, &Place { strategy: bundle(0), ..again.clone() });
    assert_eq!(within(&mut house), Err(Refused::NoSuchGroup { group: id }));
    house.restart();
    assert_eq!(house.ask(|head, moment| head.create_group(new, moment)), Err(Refused::OtherRequest));
    assert_eq!(within(&mut house), Err(Refused::NoSuchGroup { group: id }));
    assert_eq!(ask(&mut house, &both), Ok(Placing::Waiting), "by the next head, too");
    house.beat_with(1, Running { seen: Default::default(), ..still }).expect("it lives");
    assert_eq!(house.head.available(), cpus(2).with_gpus(Amount::ONE), "it still runs");

    let worker = first.worker.expect("one of its own");
    house.ask(|head, moment| head.worker_ended(worker, "exit status 0", true, moment));
    assert_eq!(given(&mut house, &both).gpus.len(), 2, "who waits has it");
    assert_eq!(house.head.available(), cpus(3));
    assert!(!house.disk.keys().any(|key| key.starts_with("group/")), "nothing of it is left");
}

#[test]
fn a_node_has_a_bounded_number_of_isolated_workers() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    let limit = limits::ISOLATED_WORKERS_MAX as u64;
    for number in 1..=limit {
        given(&mut house, &isolated(job, number, Resources::new()));
    }
    let one_more = isolated(job, limit + 1, Resources::new());
    let refused = ask(&mut house, &one_more).expect_err("it has as many as it may");
    assert!(matches!(&refused, Refused::Full { limit: named, .. } if *named == limit), "{refused}");
    assert!(refused.may_pass() && refused.to_string().contains("isolated workers"), "{refused}");
    given(&mut house, &place(job, limit + 2, cpus(1)));
    // Another node takes it, and this one when another has ended.
    house.node(2, cpus(1));
    assert_eq!(given(&mut house, &one_more).node, NodeUid(2));
    house.ask(|head, moment| head.release(one_more.lease, moment)).expect("known");
    house.ask(|head, moment| head.leave(NodeUid(2), moment));
    let again = isolated(job, limit + 3, Resources::new());
    ask(&mut house, &again).expect_err("the first node is still full");
    house.ask(|head, moment| head.release(isolated(job, 1, Resources::new()).lease, moment)).expect("known");
    ask(&mut house, &again).expect_err("its process has not been reaped");
    house.beat(1).expect("it lives");
    assert_eq!(given(&mut house, &again).node, NodeUid(1));
    // Who waits for room does not get past the limit either.
    let waits = Place { wait: s(60), ..isolated(job, limit + 4, cpus(4)) };
    assert_eq!(ask(&mut house, &waits), Ok(Placing::Waiting));
    house.ask(|head, moment| head.release(place(job, limit + 2, cpus(1)).lease, moment)).expect("known");
    assert_eq!((house.head.leases().len() as u64, house.head.available()), (limit, cpus(4)));
}
