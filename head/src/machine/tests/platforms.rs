//! Programs are placed only where they can be started.

use mobula_core::cluster::{GroupStrategy, JobKind, Libc, NewGroup, NewJob, Platform, Refused, WhyNot};

use super::harness::{House, cpus, group, new_job, place, registration};
use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, Placing};

const DRIVER: NodeUid = NodeUid(1000);

fn program(machine: &str, libc: Option<Libc>) -> Option<Platform> {
    Some(Platform { machine: machine.to_owned(), libc })
}

fn enter(house: &mut House, number: u64, architecture: &str) {
    let mut new = registration(number, cpus(4));
    new.architecture = architecture.to_owned();
    house.ask(|head, moment| head.register_node(new, moment)).expect("a node");
    house.beat(number).expect("it is up");
}

fn begin(house: &mut House, request: u64, platform: Option<Platform>) -> Result<JobId, Refused> {
    let kind = JobKind::Outside { driver: NodeUid(DRIVER.0 + request) };
    let new = NewJob { platform, ..new_job(request, kind) };
    house.ask(|head, moment| head.create_job(new, moment)).map(|row| row.id)
}

/// Two nodes: one that is `x86_64-linux-gnu`, and one that is `aarch64-linux-gnu`.
fn mixed() -> House {
    let mut house = House::new();
    enter(&mut house, 1, "x86_64-linux-gnu");
    enter(&mut house, 2, "aarch64-linux-gnu");
    house
}

#[test]
fn a_job_has_workers_leases_and_groups_only_where_its_program_runs() {
    let mut house = mixed();
    let job = begin(&mut house, 1, program("aarch64", Some(Libc::Gnu))).expect("node 2 can");
    assert!(house.worker(job, 1).is_none() && house.worker(job, 2).is_some());
    // Nothing goes to the other node, also when there is no room.
    for number in 0..4 {
        let placed = house.ask(|head, moment| head.place(place(job, number, cpus(1)), moment)).expect("room");
        let Placing::Placed(placed) = placed else { panic!("{placed:?}") };
        assert_eq!(placed.node, NodeUid(2));
    }
    let waits = house.ask(|head, moment| head.place(place(job, 4, cpus(1)), moment));
    assert_eq!(waits, Ok(Placing::Waiting));
    // One of any job may wait for the same, and gets it.
    let other = begin(&mut house, 2, None).expect("it may run anywhere");
    let placed = house.ask(|head, moment| head.place(place(other, 5, cpus(4)), moment)).expect("room");
    assert!(matches!(placed, Placing::Placed(placed) if placed.node == NodeUid(1)));
    assert!(house.worker(other, 1).is_some() && house.worker(other, 2).is_some());

    let spread = |number, job| NewGroup {
        group: group(job, number),
        bundles: vec![cpus(0), cpus(0)],
        strategy: GroupStrategy::StrictSpread,
        for_new_nodes: false,
    };
    house.ask(|head, moment| head.create_group(spread(1, other), moment)).expect("two nodes");
    let refused = house.ask(|head, moment| head.create_group(spread(2, job), moment));
    assert!(matches!(refused, Err(Refused::Infeasible(_))), "{refused:?}");
    // A head that begins anew knows it still.
    house.restart();
    [1, 2].into_iter().for_each(|node| house.beat(node).expect("it is known"));
    assert!(house.worker(job, 1).is_none() && house.worker(other, 1).is_some());
}

#[test]
fn what_no_node_can_start_is_refused_with_what_was_found_and_what_is_needed() {
    let mut house = House::new();
    // There is none yet, which may be it.
    begin(&mut house, 1, program("riscv64", None)).expect("somebody may come");
    enter(&mut house, 1, "x86_64-linux-gnu");
    enter(&mut house, 2, "x86_64-linux-gnu");
    for (request, wrong) in [(2, program("aarch64", None)), (3, program("x86_64", Some(Libc::Musl)))] {
        let refused = begin(&mut house, request, wrong.clone()).expect_err("nobody can");
        let wanted =
            Refused::WrongPlatform { program: wrong.expect("one"), nodes: vec!["x86_64-linux-gnu".to_owned()] };
        assert_eq!(refused, wanted);
        let text = refused.to_string();
        assert!(text.contains("found x86_64-linux-gnu; build it for one of these"), "{text}");
    }
    begin(&mut house, 4, program("x86_64", None)).expect("it brings its library");
    // Where one node could start it, and another has the room, it says both.
    enter(&mut house, 3, "aarch64-linux-gnu");
    let kind = JobKind::OnCluster { resources: cpus(5) };
    let new = NewJob { platform: program("aarch64", None), ..new_job(5, kind) };
    let refused = house.ask(|head, moment| head.create_job(new, moment)).expect_err("too large");
    let Refused::Infeasible(why) = &refused else { panic!("{refused}") };
    let reasons: Vec<_> = why.nodes.iter().map(|node| &node.why).collect();
    assert!(
        matches!(reasons[..], [WhyNot::Platform { .. }, WhyNot::Platform { .. }, WhyNot::TooSmall(_)]),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("node-1 is x86_64-linux-gnu, and the program is built for aarch64-linux"),
        "{refused}"
    );
}
