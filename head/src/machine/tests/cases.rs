//! Case by case.

use std::collections::BTreeSet;

use mobula_core::cluster::{
    Amount, Beat, DeathProof, DriverStatus, GroupPhase, GroupStrategy, HeadTime, JobId, JobKind, JobPhase,
    LabelSelector, Labels, NewGroup, NodePhase, Place, PlaceStrategy, Placing, Refused, Registration, Resources,
    Running, RunningWorker, WorkerPhase, WorkerPolicy,
};
use mobula_core::{LeaseTimes, NodeUid, limits};

use super::harness::{House, cpus, group, ms, new_job, nothing_seen, place, registration, s};
use crate::Effect;

fn down(uid: u64, proof: DeathProof) -> Effect {
    Effect::NodeDown { uid: NodeUid(uid), proof }
}

fn node_of(placing: Result<Placing, Refused>) -> u64 {
    match placing {
        Ok(Placing::Placed(placed)) => placed.node.0,
        other => panic!("not placed: {other:?}"),
    }
}

#[test]
fn a_node_is_joining_up_suspect_and_down_in_its_time() {
    let mut house = House::new();
    house.register(1, cpus(4));
    let phase = |house: &House| house.head.phase_of(NodeUid(1));
    assert_eq!(phase(&house), Some(NodePhase::Joining));
    house.beat(1).expect("it lives");
    assert_eq!(phase(&house), Some(NodePhase::Up));
    house.pass(s(3) - ms(1));
    assert_eq!(phase(&house), Some(NodePhase::Up));
    house.pass(ms(1));
    assert_eq!(phase(&house), Some(NodePhase::Suspect));
    house.beat(1).expect("a pause of 3 s kills nobody");
    assert_eq!(phase(&house), Some(NodePhase::Up));
    house.take();
    house.pass(s(10) - ms(1));
    assert_eq!(phase(&house), Some(NodePhase::Suspect));
    assert!(house.head.assignment(NodeUid(1)).expect("known").fenced, "its lease is over");
    house.pass(ms(1));
    assert_eq!(phase(&house), Some(NodePhase::Down));
    assert!(house.take().contains(&down(1, DeathProof::Silence)));
}

#[test]
fn a_life_that_is_over_never_comes_back() {
    let mut house = House::new();
    for number in 1..=3 {
        house.node(number, cpus(1));
    }
    house.pass(s(9));
    // Down only a second later, but its lease is over, and so is its life.
    assert_eq!(house.beat(1), Err(Refused::LeaseOver { uid: NodeUid(1) }));
    house.pass(s(2));
    house.restart();
    for number in 1..=3 {
        let again = house.ask(|head, moment| head.register_node(registration(number, cpus(1)), moment));
        assert_eq!(again.expect_err("gone"), Refused::Gone { uid: NodeUid(number) });
        assert_eq!(house.beat(number), Err(Refused::Gone { uid: NodeUid(number) }));
    }
    house.node(4, cpus(1));
    assert_eq!(house.ask(|head, moment| head.remove(NodeUid(4), moment)), Ok(()));
    assert_eq!(house.beat(4), Err(Refused::Gone { uid: NodeUid(4) }), "removed");
}

#[test]
fn a_name_has_one_node_until_that_is_known_to_be_dead() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let mut second = registration(2, cpus(1));
    second.name = "node-1".into();
    let refused = house.ask(|head, moment| head.register_node(second.clone(), moment)).expect_err("taken");
    let Refused::NameInUse { holder, retry_after, address, .. } = refused.clone() else { panic!("{refused}") };
    assert_eq!((holder, retry_after, address), (NodeUid(1), s(10), "10.0.0.1:6379".to_owned()));
    assert!(refused.may_pass());
    // The daemon that was restarted knows that the one before it is dead.
    second.replaces = Some(NodeUid(1));
    house.take();
    house.ask(|head, moment| head.register_node(second, moment)).expect("its successor");
    assert_eq!(house.take()[0], down(1, DeathProof::Reaped));
    assert_eq!(house.head.node_named("node-1"), Some(NodeUid(2)));
}

#[test]
fn a_registration_that_comes_late_or_again_is_no_news() {
    let mut house = House::new();
    let first = Registration { number: 1, ..registration(1, cpus(1)) };
    let register = |house: &mut House, registration: &Registration| {
        house.ask(|head, moment| head.register_node(registration.clone(), moment)).map(|registered| registered.at.at)
    };
    register(&mut house, &first).expect("a node");
    let beat = Beat { number: 2, ..Beat::default() };
    house.ask(|head, moment| head.beat(NodeUid(1), &beat, moment)).expect("it lives");
    for _ in 0..19 {
        house.pass(ms(500));
        if house.now < s(8) {
            assert_eq!(register(&mut house, &first), Ok(house.now), "answered as any other");
        }
    }
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Suspect), "copies do not keep one who is silent");
    house.pass(ms(500));
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Down));
    // Nor do they say where it is, or what runs there: the newest does.
    let second = Registration { number: 3, ..registration(2, cpus(1)) };
    let moved = Registration { number: 4, address: "10.0.0.9:6379".to_owned(), ..second.clone() };
    for registration in [&second, &moved, &second] {
        register(&mut house, registration).expect("a node");
    }
    let rows = house.head.nodes(house.now);
    assert_eq!(rows.iter().find(|row| row.uid == NodeUid(2)).expect("it is listed").address, moved.address);
}

#[test]
fn a_node_that_hears_nothing_is_lost_although_it_is_heard() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let heard = house.heard[&NodeUid(1)];
    let mut refused = None;
    for _ in 0..40 {
        house.pass(ms(500));
        // Its heartbeats come, and no answer arrives.
        let beat = Beat { heard: Some(heard), ..Beat::default() };
        if let Err(error) = house.ask(|head, moment| head.beat(NodeUid(1), &beat, moment)) {
            refused = Some((error, house.now));
            break;
        }
    }
    assert_eq!(refused, Some((Refused::LeaseOver { uid: NodeUid(1) }, s(8) + ms(500))));
    house.pass(s(10));
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Down));
}

#[test]
fn a_heartbeat_that_comes_late_or_again_is_no_news() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let beat = |house: &mut House, number: u64, heard: HeadTime| {
        let beat = Beat { number, heard: Some(heard), ..Beat::default() };
        let answer = house.ask(|head, moment| head.beat(NodeUid(1), &beat, moment));
        answer.map(|answer| answer.at)
    };
    let first = house.heard[&NodeUid(1)];
    let second = beat(&mut house, 1, first).expect("it lives");
    house.pass(s(7));
    beat(&mut house, 2, second).expect("it lives");
    // What they say was heard is older than a lease now; the node may have heard more since.
    house.pass(s(1) + ms(500));
    for (number, heard) in [(1, first), (2, second)] {
        assert_eq!(beat(&mut house, number, heard).map(|answer| answer.at), Ok(house.now), "answered as any other");
    }
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Up));
    // Nor do they keep one who is silent.
    for _ in 0..16 {
        house.pass(ms(500));
        let _ = beat(&mut house, 2, second);
    }
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Suspect));
    house.pass(ms(501));
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Down));
}

#[test]
fn a_job_has_one_worker_on_every_node_and_keeps_their_order() {
    let mut house = House::new();
    house.node(1, cpus(1));
    house.node(2, cpus(1));
    let job = house.job(1);
    let first = (house.worker(job, 1).expect("one"), house.worker(job, 2).expect("one"));
    house.beat(1).expect("it lives");
    house.beat(2).expect("it lives");
    house.node(3, cpus(1));
    let orders = |house: &House| {
        let view = house.head.job_view(job).expect("a job");
        view.workers.iter().map(|worker| (worker.worker.order, worker.worker.node.0)).collect::<Vec<_>>()
    };
    assert_eq!(orders(&house), [(0, 1), (1, 2), (2, 3)]);
    // The node of order 1 goes, and nobody gets that order.
    house.ask(|head, moment| head.leave(NodeUid(2), moment));
    house.node(4, cpus(1));
    assert_eq!(orders(&house), [(0, 1), (2, 3), (3, 4)]);
    assert_eq!(house.worker(job, 1), Some(first.0));
    let ready = house.head.workers().iter().filter(|worker| worker.phase == WorkerPhase::Ready).count();
    assert_eq!(ready, 3, "their nodes have said so");
}

#[test]
fn a_worker_that_has_ended_is_started_again_after_a_rest() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let job = house.job(1);
    let mut lives = BTreeSet::new();
    for nominal in [50, 100, 200, 400] {
        let worker = house.worker(job, 1).expect("one");
        assert!(lives.insert(worker), "a uid comes back");
        house.ask(|head, moment| head.worker_ended(worker, "signal 9", true, moment));
        house.ask(|head, moment| head.worker_ended(worker, "signal 9", true, moment));
        assert_eq!(house.worker(job, 1), None);
        house.pass(ms(nominal * 4 / 5 - 1));
        assert_eq!(house.worker(job, 1), None);
        house.pass(ms(nominal * 2 / 5 + 2));
        assert!(house.worker(job, 1).is_some(), "after {nominal} ms");
    }
    // One that has run for long enough begins anew.
    house.beat(1).expect("it lives");
    for _ in 0..22 {
        house.live(ms(500), &[1]);
        house.driver_beats(1, job);
    }
    let worker = house.worker(job, 1).expect("one");
    house.ask(|head, moment| head.worker_ended(worker, "signal 9", true, moment));
    house.pass(ms(61));
    assert!(house.worker(job, 1).is_some());
    assert_eq!(house.head.workers()[0].restarts, 5);
}

#[test]
fn no_second_worker_begins_before_the_first_was_reaped() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let job = house.job(1);
    house.beat(1).expect("it lives");
    let worker = house.worker(job, 1).expect("one");
    house.ask(|head, moment| head.worker_ended(worker, "its connection broke", false, moment));
    house.live(s(2), &[1]);
    house.driver_beats(1, job);
    assert_eq!(house.worker(job, 1), Some(worker), "its node still lists it");
    assert!(matches!(house.head.workers()[0].phase, WorkerPhase::Ended { .. }));
    // Missing from the list, but of an assignment that did not have it.
    house.beat_with(1, nothing_seen()).expect("it lives");
    assert_eq!(house.worker(job, 1), Some(worker));
    let seen = house.head.assignment(NodeUid(1)).expect("known").revision;
    house.beat_with(1, Running { seen, ..Running::default() }).expect("it lives");
    house.pass(s(1));
    assert_ne!(house.worker(job, 1), Some(worker));
}

#[test]
fn a_silent_driver_has_ended_and_its_job_with_it() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    house.beat(1).expect("it lives");
    let placed = house.ask(|head, moment| head.place(place(job, 1, cpus(2)), moment));
    assert_eq!(node_of(placed), 1);
    house.live(s(8) - ms(500), &[1]);
    assert_eq!(house.head.job(job).expect("a job").phase, JobPhase::Running);
    house.live(ms(500), &[1]);
    house.live(ms(500), &[1]);
    let row = house.head.job(job).expect("shown");
    assert!(matches!(&row.phase, JobPhase::Failed { reason } if reason.contains("silent")), "{}", row.phase);
    assert_eq!(house.head.available(), cpus(4));
    let late = house.ask(|head, moment| head.driver_beat(job, NodeUid(1_000_001), moment));
    assert_eq!(late, Err(Refused::JobEnded { job }));
}

#[test]
fn resources_are_free_when_the_worker_that_used_them_was_reaped() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    house.beat(1).expect("it lives");
    house.ask(|head, moment| head.place(place(job, 1, cpus(4)), moment)).expect("room");
    let worker = house.worker(job, 1).expect("one");
    house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
    assert_eq!(house.head.job(job).expect("a job").phase, JobPhase::Stopping);
    assert_eq!((house.worker(job, 1), house.head.available()), (None, cpus(0)));
    // A node that has seen the order and still has the process says so.
    let seen = house.head.assignment(NodeUid(1)).expect("known").revision;
    let workers = vec![RunningWorker { uid: worker, ready: true, pid: 100 }];
    house.beat_with(1, Running { seen, workers, drivers: Vec::new() }).expect("it lives");
    assert_eq!(house.head.available(), cpus(0));
    house.ask(|head, moment| head.worker_ended(worker, "exit status 0", true, moment));
    assert_eq!(house.head.job(job).expect("a job").phase, JobPhase::Stopped);
    assert_eq!(house.head.available(), cpus(4));
}

#[test]
fn a_driver_on_the_cluster_runs_once() {
    let mut house = House::new();
    let kind = JobKind::OnCluster { resources: cpus(2) };
    let row = house.ask(|head, moment| head.create_job(new_job(1, kind.clone()), moment)).expect("a job");
    assert_eq!(row.phase, JobPhase::Pending, "there is no node yet");
    house.node(1, cpus(1));
    assert_eq!(house.head.job(row.id).expect("a job").phase, JobPhase::Pending, "it is too small");
    house.node(2, cpus(2));
    let job = house.head.job(row.id).expect("a job");
    assert_eq!((&job.phase, job.driver_node), (&JobPhase::Running, Some(NodeUid(2))));
    let driver = job.driver.expect("begun");
    house.beat(2).expect("it lives");
    house.restart();
    let spec = house.head.assignment(NodeUid(2)).expect("known").drivers;
    assert_eq!(spec.iter().map(|spec| spec.uid).collect::<Vec<_>>(), [driver], "the same life, nothing else");
    house.ask(|head, moment| head.driver_ended(row.id, driver, DriverStatus::Succeeded, moment)).expect("its driver");
    house.ask(|head, moment| head.driver_ended(row.id, driver, DriverStatus::Succeeded, moment)).expect("once more");
    assert!(house.head.assignment(NodeUid(2)).expect("known").drivers.is_empty());
    for node in [1, 2] {
        house.ask(|head, moment| head.register_node(registration(node, cpus(node)), moment)).expect("back");
        house.heard.clear();
        house.beat(node).expect("it lives");
    }
    assert_eq!(house.head.job(row.id).expect("a job").phase, JobPhase::Succeeded);
    assert_eq!(house.head.available(), cpus(3));
    // One whose node is lost has failed, and does not run elsewhere.
    let row = house.ask(|head, moment| head.create_job(new_job(2, kind), moment)).expect("a job");
    house.ask(|head, moment| head.leave(NodeUid(2), moment));
    house.node(3, cpus(2));
    let phase = house.head.job(row.id).expect("a job").phase;
    house.beat(1).expect("it lives");
    assert!(matches!(phase, JobPhase::Stopping | JobPhase::Failed { .. }), "{phase}");
    assert!(house.head.assignment(NodeUid(3)).expect("known").drivers.is_empty());
}

#[test]
fn a_driver_keeps_away_from_the_head_while_there_is_room_elsewhere() {
    let mut house = House::new();
    let led = Registration {
        labels: mobula_core::cluster::Labels::new().with(mobula_core::cluster::Labels::HEAD, "true"),
        ..registration(1, cpus(1))
    };
    house.ask(|head, moment| head.register_node(led, moment)).expect("the head's node");
    house.heard.clear();
    house.beat(1).expect("it lives");
    let mut driver_node = |request| {
        let kind = JobKind::OnCluster { resources: cpus(1) };
        let row = house.ask(|head, moment| head.create_job(new_job(request, kind), moment)).expect("a job");
        if request == 1 {
            house.node(2, cpus(1));
        }
        house.head.job(row.id).expect("a job").driver_node
    };
    assert_eq!(driver_node(1), Some(NodeUid(1)), "there is no other yet");
    assert_eq!([driver_node(2), driver_node(3)], [Some(NodeUid(2)), None]);
}

#[test]
fn a_repeated_request_has_one_effect() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let kind = || JobKind::Outside { driver: NodeUid(77) };
    let first = house.ask(|head, moment| head.create_job(new_job(1, kind()), moment)).expect("a job");
    let again = house.ask(|head, moment| head.create_job(new_job(1, kind()), moment)).expect("the same");
    assert_eq!((first.id, house.head.jobs().len()), (again.id, 1));
    house.restart();
    let again = house.ask(|head, moment| head.create_job(new_job(1, kind()), moment)).expect("the same");
    assert_eq!((first.id, house.head.jobs().len()), (again.id, 1));
    let mut other = new_job(1, kind());
    other.entrypoint = "something else".to_owned();
    assert_eq!(house.ask(|head, moment| head.create_job(other, moment)), Err(Refused::OtherRequest));
    house.ask(|head, moment| head.register_node(registration(1, cpus(4)), moment)).expect("back");
    let job = first.id;
    let one = house.ask(|head, moment| head.place(place(job, 5, cpus(1)), moment));
    assert_eq!(house.ask(|head, moment| head.place(place(job, 5, cpus(1)), moment)), one);
    assert_eq!(house.head.available(), cpus(3));
    assert_eq!(house.ask(|head, moment| head.place(place(job, 5, cpus(2)), moment)), Err(Refused::OtherRequest));
    for _ in 0..2 {
        house.ask(|head, moment| head.release(place(job, 5, cpus(1)).lease, moment)).expect("its own");
    }
    assert_eq!(house.head.available(), cpus(4));
    let late = house.ask(|head, moment| head.place(place(job, 5, cpus(1)), moment));
    assert_eq!(late, Err(Refused::Repeated { lease: place(job, 5, cpus(1)).lease }));
    // A release overtakes its request.
    house.ask(|head, moment| head.release(place(job, 6, cpus(1)).lease, moment)).expect("its own");
    house.ask(|head, moment| head.place(place(job, 6, cpus(1)), moment)).expect_err("given back before");
}

#[test]
fn what_no_node_can_give_fails_at_once_and_says_why() {
    let mut house = House::new();
    house.node(1, cpus(4));
    house.node(2, cpus(8));
    let job = house.job(1);
    let asked = cpus(16).with_gpus(Amount::ONE);
    let refused = house.ask(|head, moment| head.place(place(job, 1, asked.clone()), moment)).expect_err("too much");
    assert_eq!(
        refused.to_string(),
        "no node can ever give 16 cpu, 1 gpu: the most that one node has is 8 cpu; node-1 has 4 of 16 cpu, 0 of 1 gpu; \
         node-2 has 8 of 16 cpu, 0 of 1 gpu"
    );
    // Unless nodes are waited for that are not there yet.
    let patient = Place { for_new_nodes: true, wait: s(60), ..place(job, 2, asked.clone()) };
    assert_eq!(house.ask(|head, moment| head.place(patient.clone(), moment)), Ok(Placing::Waiting));
    house.take();
    house.node(3, asked);
    assert!(house.take().contains(&Effect::Decided(patient.lease)));
    assert_eq!(node_of(house.ask(|head, moment| head.place(patient, moment))), 3);
}

#[test]
fn who_waits_gets_what_is_freed_or_hears_that_it_was_in_vain() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    for number in 1..=4 {
        assert_eq!(node_of(house.ask(|head, moment| head.place(place(job, number, cpus(1)), moment))), 1);
    }
    let [large, small, late] = [(10, 3), (11, 1), (12, 4)].map(|(number, count)| place(job, number, cpus(count)));
    for request in [&large, &small, &late] {
        assert_eq!(house.ask(|head, moment| head.place(request.clone(), moment)), Ok(Placing::Waiting));
    }
    house.take();
    house.ask(|head, moment| head.release(place(job, 1, cpus(1)).lease, moment)).expect("its own");
    assert_eq!(house.take(), [Effect::Decided(small.lease)], "a large one holds up nobody");
    assert_eq!(node_of(house.ask(|head, moment| head.place(small, moment))), 1);
    for number in 2..=4 {
        house.ask(|head, moment| head.release(place(job, number, cpus(1)).lease, moment)).expect("its own");
    }
    assert_eq!(node_of(house.ask(|head, moment| head.place(large, moment))), 1);
    house.live(s(5), &[1]);
    assert!(house.take().contains(&Effect::Decided(late.lease)));
    let answer = house.ask(|head, moment| head.place(late.clone(), moment));
    assert_eq!(answer, Err(Refused::WaitedInVain { lease: late.lease }));
    let now = Place { wait: s(0), ..place(job, 20, cpus(4)) };
    house.ask(|head, moment| head.place(now, moment)).expect_err("full, and no time");
}

#[test]
fn nothing_is_placed_on_nodes_that_are_silent_draining_or_not_back_yet() {
    let mut house = House::new();
    let first = house.node(1, cpus(4));
    house.node(2, cpus(4));
    let job = house.job(1);
    house.pass(s(3));
    house.beat(2).expect("it lives");
    assert_eq!(node_of(house.ask(|head, moment| head.place(place(job, 1, cpus(1)), moment))), 2);
    house.beat(1).expect("it lives");
    house.ask(|head, moment| head.drain(NodeUid(2), s(30), moment)).expect("known");
    assert_eq!(node_of(house.ask(|head, moment| head.place(place(job, 2, cpus(1)), moment))), 1);
    house.restart();
    let answer = house.ask(|head, moment| head.place(place(job, 3, cpus(1)), moment));
    assert_eq!(answer, Ok(Placing::Waiting), "a head that has just come back has heard nobody");
    house.heard.clear();
    house.beat(first.0).expect("it lives");
    assert_eq!(node_of(house.ask(|head, moment| head.place(place(job, 3, cpus(1)), moment))), 1);
}

#[test]
fn strategies_choose_their_nodes() {
    let mut house = House::new();
    for number in 1..=3 {
        let mut node = registration(number, cpus(4));
        node.labels = Labels::new().with("zone", if number == 3 { "b" } else { "a" });
        house.ask(|head, moment| head.register_node(node, moment)).expect("new");
        house.beat(number).expect("it lives");
    }
    let job = house.job(1);
    let mut number = 0;
    let mut ask = |strategy: PlaceStrategy, near: Option<u64>| {
        number += 1;
        let near = near.map(NodeUid);
        let place = Place { strategy, near, wait: s(0), ..place(job, number, cpus(1)) };
        house.ask(|head, moment| head.place(place, moment))
    };
    let node = |uid, soft| PlaceStrategy::Node { node: NodeUid(uid), soft };
    let labels = |value: &str, soft| PlaceStrategy::Labels { selector: LabelSelector::new().is("zone", value), soft };
    assert_eq!(node_of(ask(PlaceStrategy::Default, None)), 1);
    assert_eq!(node_of(ask(PlaceStrategy::Default, None)), 1);
    assert_eq!(node_of(ask(PlaceStrategy::Default, Some(3))), 3);
    assert_eq!(node_of(ask(PlaceStrategy::Spread, None)), 2);
    assert_eq!(node_of(ask(labels("b", false), None)), 3);
    assert_eq!(node_of(ask(node(2, false), None)), 2);
    assert!(matches!(ask(node(9, false), None), Err(Refused::Infeasible(_))));
    assert!(matches!(ask(labels("c", false), None), Err(Refused::Infeasible(_))));
    node_of(ask(node(9, true), None));
    node_of(ask(labels("c", true), None));
}

#[test]
fn a_drained_node_keeps_its_workers_until_the_deadline_and_gets_no_new_ones() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    house.beat(1).expect("it lives");
    house.ask(|head, moment| head.drain(NodeUid(1), s(5), moment)).expect("known");
    assert_eq!(house.head.phase_of(NodeUid(1)), Some(NodePhase::Draining));
    let second = house.job(2);
    assert_eq!(house.worker(second, 1), None);
    assert!(house.worker(job, 1).is_some());
    house.live(s(5), &[1]);
    let assignment = house.head.assignment(NodeUid(1)).expect("known");
    assert!(assignment.draining && assignment.workers.is_empty(), "{assignment:?}");
    house.beat(1).expect("it lives");
    house.take();
    house.ask(|head, moment| head.leave(NodeUid(1), moment));
    assert!(house.take().contains(&down(1, DeathProof::Reaped)));
}

#[test]
fn a_driver_on_a_drained_node_ends_with_the_deadline() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let kind = JobKind::OnCluster { resources: cpus(1) };
    let job = house.ask(|head, moment| head.create_job(new_job(1, kind), moment)).expect("a job").id;
    house.beat(1).expect("it lives");
    house.ask(|head, moment| head.drain(NodeUid(1), s(5), moment)).expect("known");
    house.live(s(5) - ms(500), &[1]);
    assert_eq!(house.head.job(job).expect("a job").phase, JobPhase::Running);
    house.live(s(2), &[1]);
    let phase = house.head.job(job).expect("a job").phase;
    assert!(matches!(&phase, JobPhase::Failed { reason } if reason.contains("drained")), "{phase}");
    assert!(house.head.assignment(NodeUid(1)).expect("known").drivers.is_empty());
}

#[test]
fn a_removed_node_is_cut_off_and_its_things_are_free_after_its_lease() {
    let mut house = House::new();
    house.node(1, cpus(4));
    let job = house.job(1);
    house.ask(|head, moment| head.place(place(job, 1, cpus(1)), moment)).expect("room");
    house.take();
    house.ask(|head, moment| head.remove(NodeUid(1), moment)).expect("known");
    assert!(house.take().contains(&Effect::CutOff(NodeUid(1))));
    assert_eq!(house.head.leases().len(), 1, "it may still run");
    house.restart();
    assert_eq!(house.beat(1), Err(Refused::Gone { uid: NodeUid(1) }), "also by the next head");
    for _ in 0..10 {
        house.pass(s(1));
        house.driver_beats(1, job);
    }
    assert_eq!((house.head.leases().len(), house.head.phase_of(NodeUid(1))), (0, Some(NodePhase::Down)));
}

#[test]
fn a_group_is_set_aside_altogether_or_not_at_all() {
    let mut house = House::new();
    house.node(1, cpus(4));
    house.node(2, cpus(4));
    let job = house.job(1);
    let new = |number, count: usize, cores, strategy| NewGroup {
        group: group(job, number),
        bundles: vec![cpus(cores); count],
        strategy,
        for_new_nodes: false,
    };
    let spread = new(1, 2, 3, GroupStrategy::StrictSpread);
    let row = house.ask(|head, moment| head.create_group(spread.clone(), moment)).expect("room");
    assert_eq!(row.phase, GroupPhase::Ready);
    assert_eq!(house.ask(|head, moment| head.create_group(spread, moment)), Ok(row), "the same again");
    assert_eq!(house.head.available(), cpus(2));
    let waits = new(2, 2, 2, GroupStrategy::Pack);
    let row = house.ask(|head, moment| head.create_group(waits, moment)).expect("it waits");
    assert_eq!((row.phase, house.head.available()), (GroupPhase::Pending, cpus(2)), "nothing of it is taken");
    let never = new(3, 3, 1, GroupStrategy::StrictSpread);
    let never = house.ask(|head, moment| head.create_group(never, moment));
    assert!(matches!(never, Err(Refused::Infeasible(_))), "{never:?}");
    // Leases in a bundle take of what was set aside.
    let within = |number, cores, bundle| Place {
        strategy: PlaceStrategy::Group { group: group(job, 1), bundle },
        wait: s(0),
        ..place(job, number, cpus(cores))
    };
    let first = node_of(house.ask(|head, moment| head.place(within(1, 2, Some(0)), moment)));
    house.ask(|head, moment| head.place(within(2, 2, Some(0)), moment)).expect_err("one is left");
    assert_ne!(node_of(house.ask(|head, moment| head.place(within(3, 2, None), moment))), first);
    let small = house.ask(|head, moment| head.place(within(4, 4, None), moment));
    assert_eq!(small, Err(Refused::BundleTooSmall { group: group(job, 1) }));
    assert_eq!(house.head.available(), cpus(2));
    house.restart();
    house.heard.clear();
    house.beat(1).expect("it lives");
    house.beat(2).expect("it lives");
    assert_eq!((house.head.available(), house.head.leases().len()), (cpus(2), 2));
    house.ask(|head, moment| head.remove_group(group(job, 1), moment)).expect("its own");
    assert_eq!(house.head.group(group(job, 2)).expect("there").phase, GroupPhase::Ready);
    assert_eq!((house.head.available(), house.head.leases().len()), (cpus(4), 0));
}

#[test]
fn a_bundle_whose_node_is_lost_finds_another() {
    let mut house = House::new();
    house.node(1, cpus(2));
    house.node(2, cpus(2));
    let job = house.job(1);
    let new = NewGroup {
        group: group(job, 1),
        bundles: vec![cpus(2), cpus(2)],
        strategy: GroupStrategy::Spread,
        for_new_nodes: false,
    };
    house.ask(|head, moment| head.create_group(new, moment)).expect("room");
    house.ask(|head, moment| head.leave(NodeUid(2), moment));
    assert_eq!(house.head.group(group(job, 1)).expect("there").phase, GroupPhase::Partial);
    house.restart();
    house.node(3, cpus(2));
    let row = house.head.group(group(job, 1)).expect("there");
    let nodes: BTreeSet<_> = row.bundles.iter().filter_map(|(_, node)| *node).collect();
    assert_eq!((row.phase, nodes), (GroupPhase::Ready, BTreeSet::from([NodeUid(1), NodeUid(3)])));
}

#[test]
fn gpus_are_given_by_index_and_survive_a_restart() {
    let mut house = House::new();
    let gpu = |text: &str| Resources::new().with_gpus(Amount::parse("--num-gpus", text).expect("a number"));
    house.node(1, gpu("2"));
    let job = house.job(1);
    let ask = |house: &mut House, number, text: &str| {
        let answer = house.ask(|head, moment| head.place(place(job, number, gpu(text)), moment));
        let Ok(Placing::Placed(placed)) = answer else { return None };
        Some(placed.gpus.iter().map(|share| share.index).collect::<Vec<_>>())
    };
    assert_eq!(ask(&mut house, 1, "0.5"), Some(vec![0]));
    assert_eq!(ask(&mut house, 2, "1"), Some(vec![1]));
    house.restart();
    house.heard.clear();
    house.beat(1).expect("it lives");
    assert_eq!(ask(&mut house, 3, "0.6"), None);
    assert_eq!(ask(&mut house, 4, "0.5"), Some(vec![0]));
}

#[test]
fn workers_are_where_leases_are_if_the_job_wants_it_so() {
    let mut house = House::new();
    house.node(1, cpus(2));
    house.node(2, cpus(2));
    let mut new = new_job(1, JobKind::Outside { driver: NodeUid(77) });
    new.workers = WorkerPolicy::WhereLeased;
    let job = house.ask(|head, moment| head.create_job(new, moment)).expect("a job").id;
    assert_eq!((house.worker(job, 1), house.worker(job, 2)), (None, None));
    house.ask(|head, moment| head.place(place(job, 1, cpus(1)), moment)).expect("room");
    assert!(house.worker(job, 1).is_some() && house.worker(job, 2).is_none());
    house.ask(|head, moment| head.release(place(job, 1, cpus(1)).lease, moment)).expect("its own");
    assert_eq!(house.worker(job, 1), None);
}

#[test]
fn what_is_too_large_is_refused_with_its_limit() {
    let mut house = House::new();
    let mut new = new_job(1, JobKind::Outside { driver: NodeUid(77) });
    new.arguments = vec!["x".repeat(limits::JOB_TEXT_BYTES_MAX)];
    let error = house.ask(|head, moment| head.create_job(new, moment)).expect_err("too long").to_string();
    assert!(error.contains("262144"), "{error}");
    let mut node = registration(1, cpus(1));
    node.address = "x".repeat(limits::NAME_BYTES_MAX + 1);
    house.ask(|head, moment| head.register_node(node, moment)).expect_err("too long");
    let mut node = registration(1, cpus(1));
    node.resources.gpus = Amount::parts(5_000);
    house.ask(|head, moment| head.register_node(node, moment)).expect_err("half a GPU");
    assert_eq!(house.head.nodes(s(0)), []);
    let none = house.ask(|head, moment| head.place(place(JobId(9), 1, cpus(1)), moment));
    assert_eq!(none, Err(Refused::NoSuchJob { job: JobId(9) }));
}

#[test]
fn jobs_that_are_over_are_kept_for_a_while() {
    let mut house = House::new();
    let count = limits::JOBS_KEPT as u64 + 5;
    for request in 1..=count {
        let job = house.job(request);
        house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
    }
    let jobs = house.head.jobs();
    assert_eq!((jobs.len(), jobs[0].id), (limits::JOBS_KEPT, JobId(6)));
    house.restart();
    assert_eq!(house.head.jobs(), jobs);
    assert_eq!(house.job(count + 1), JobId(count + 1), "no number comes back");
}

#[test]
fn the_times_are_those_of_the_lease() {
    let mut house = House::new();
    assert_eq!(house.register(1, cpus(1)).times, LeaseTimes::default());
}
