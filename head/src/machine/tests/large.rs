//! As much as the head accepts, and what comes of it for those who are told.

use mobula_core::cluster::{
    Amount, DriverStatus, GpuShare, GroupStrategy, JobId, JobKind, JobPhase, Launch, NewGroup, NewJob, Place, Placing,
    Refused, Registration, Resources,
};
use mobula_core::{NodeUid, codec, limits};
use serde::Serialize;

use super::harness::{House, cpus, group, new_job, place, registration, s};

fn bytes(value: &impl Serialize) -> usize {
    codec::encode(value).expect("plain data").len()
}

fn largest_record(house: &House) -> usize {
    house.disk.values().map(Vec::len).max().unwrap_or(0)
}

/// A job on the cluster that needs nothing, and whose text is of that length.
fn job_of(request: u64, text_bytes: usize) -> NewJob {
    let mut job = new_job(request, JobKind::OnCluster { resources: Resources::new() });
    (job.entrypoint, job.arguments) = (String::new(), vec!["--n".to_owned()]);
    let variable = |number: usize| (format!("V{number:03}"), "x".repeat(1018));
    // With its name and what is counted for each, such a variable has a KiB; the first makes room for the argument.
    job.environment = (0..text_bytes / 1024).map(variable).collect();
    job.environment.entry("V000".to_owned()).and_modify(|value| value.truncate(1018 - 4));
    job
}

#[test]
fn what_a_node_is_told_is_small_whatever_its_jobs_are_started_with() {
    let mut house = House::new();
    house.node(1, cpus(1).with_gpus(Amount::units(limits::GPUS_MAX as u64)));
    let large = |request| if request <= 32 { limits::JOB_TEXT_BYTES_MAX } else { 0 };
    let jobs: Vec<JobId> = (1..=limits::JOBS_MAX as u64)
        .map(|request| house.ask(|head, moment| head.create_job(job_of(request, large(request)), moment)))
        .map(|row| row.expect("a job").id)
        .collect();
    let full = house.ask(|head, moment| head.create_job(job_of(5000, 0), moment));
    assert!(matches!(full, Err(Refused::Full { .. })), "{full:?}");
    let gpus = Resources::new().with_gpus(Amount::units((limits::GPUS_MAX / limits::ISOLATED_WORKERS_MAX) as u64));
    for number in 1..=limits::ISOLATED_WORKERS_MAX as u64 {
        let isolated = Place { isolated: true, ..place(jobs[0], number, gpus.clone()) };
        let placed = house.ask(|head, moment| head.place(isolated, moment)).expect("room");
        assert!(matches!(placed, Placing::Placed(_)), "{placed:?}");
    }
    house.beat(1).expect("it lives");

    let told = house.head.assignment(NodeUid(1)).expect("known");
    assert_eq!(told.drivers.len(), limits::JOBS_MAX);
    assert_eq!(told.workers.len(), limits::JOBS_MAX + limits::ISOLATED_WORKERS_MAX);
    let shares: Vec<GpuShare> =
        told.workers.iter().filter_map(|worker| worker.isolated.clone()).flat_map(|own| own.gpus).collect();
    assert_eq!(shares.len(), limits::GPUS_MAX);
    // Four times as many jobs as fit in a message, and far from the bound of an answer.
    assert!(bytes(&told) < 3 * limits::CONTROL_MESSAGE_BYTES_MAX, "{}", bytes(&told));

    // All that a process is started with fits in a message.
    let launches = |house: &House| -> Vec<Launch> {
        jobs.iter().map(|job| house.head.launch(NodeUid(1), *job).expect("it is to run there")).collect()
    };
    let before = launches(&house);
    assert_eq!(before[0].environment["V255"].len(), 1018);
    let largest = before.iter().map(bytes).max().expect("some");
    assert!((limits::JOB_TEXT_BYTES_MAX..limits::CONTROL_PART_BYTES).contains(&largest), "{largest}");

    // The next head says the same to a node that comes back to it.
    house.restart();
    let running = house.obedient(1);
    let again = registration(1, cpus(1).with_gpus(Amount::units(limits::GPUS_MAX as u64)));
    let again = Registration { running, ..again };
    assert!(bytes(&again) < limits::CONTROL_MESSAGE_BYTES_MAX / 2, "{}", bytes(&again));
    let registered = house.ask(|head, moment| head.register_node(again, moment)).expect("the same life");
    let back = &registered.assignment;
    assert_eq!((&back.workers, &back.drivers), (&told.workers, &told.drivers));
    assert!(bytes(&registered) < 3 * limits::CONTROL_MESSAGE_BYTES_MAX);
    assert!(launches(&house) == before, "other arguments or variables");
}

#[test]
fn a_node_is_told_what_its_own_processes_are_started_with() {
    let mut house = House::new();
    house.node(1, cpus(1));
    house.node(2, cpus(1));
    house.ask(|head, moment| head.drain(NodeUid(2), s(60), moment)).expect("known");
    let job = house.ask(|head, moment| head.create_job(job_of(1, 2048), moment)).expect("a job").id;
    let launch = house.head.launch(NodeUid(1), job).expect("a worker and the driver are to run there");
    assert_eq!((launch.arguments, launch.environment.len()), (vec!["--n".to_owned()], 2));
    assert_eq!(house.head.launch(NodeUid(2), job), None, "nothing of it is to run there");
    assert_eq!(house.head.launch(NodeUid(3), job), None, "nobody knows it");
    assert_eq!(house.head.launch(NodeUid(1), JobId(9)), None, "there is none");
    house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
    assert_eq!(house.head.launch(NodeUid(1), job), None, "it is to end");
    house.ask(|head, moment| head.remove(NodeUid(1), moment)).expect("known");
    assert_eq!(house.head.launch(NodeUid(1), job), None);
}

#[test]
fn a_row_shows_the_beginning_of_long_texts() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let mut new = job_of(1, 0);
    new.entrypoint = "\u{e4}".repeat(limits::JOB_TEXT_BYTES_MAX / 2 - 100);
    let row = house.ask(|head, moment| head.create_job(new.clone(), moment)).expect("a job");
    let shown = "\u{e4}".repeat(limits::JOB_ROW_TEXT_BYTES_MAX / 2);
    assert_eq!(row.entrypoint, shown);
    // The same again is still compared whole.
    let same = house.ask(|head, moment| head.create_job(new.clone(), moment)).expect("the same");
    assert_eq!(same.id, row.id);
    new.entrypoint.push('!');
    assert_eq!(house.ask(|head, moment| head.create_job(new, moment)), Err(Refused::OtherRequest));

    let failed = DriverStatus::Failed { reason: "\u{e4}".repeat(limits::CONTROL_MESSAGE_BYTES_MAX / 2) };
    let driver = row.driver.or(house.head.job(row.id).expect("there").driver).expect("it was begun");
    house.ask(|head, moment| head.driver_ended(row.id, driver, failed, moment)).expect("its driver");
    house.beat(1).expect("it lives");
    let rows = house.head.jobs();
    assert_eq!(
        (rows[0].entrypoint.clone(), rows[0].phase.clone()),
        (shown.clone(), JobPhase::Failed { reason: shown })
    );
    house.restart();
    assert_eq!(house.head.jobs(), rows);
    assert!(largest_record(&house) < limits::STORE_VALUE_BYTES_MAX / 2, "a store would not take it");
}

#[test]
fn the_bundles_of_placement_groups_are_bounded_one_by_one_and_together() {
    let mut house = House::new();
    house.node(1, cpus(1));
    let job = house.job(1);
    let name = "x".repeat(limits::LABEL_BYTES_MAX - 3);
    let custom = |count: usize| {
        let with = |all: Resources, number| all.with(&format!("{number:02}-{name}"), Amount::ONE);
        (0..count).fold(Resources::new(), with)
    };
    let new = |number, bundles: Vec<Resources>| NewGroup {
        group: group(job, number),
        bundles,
        strategy: GroupStrategy::Pack,
        for_new_nodes: true,
    };
    let long = vec![custom(limits::CUSTOM_RESOURCES_MAX); 16];
    let error = house.ask(|head, moment| head.create_group(new(1, long), moment)).expect_err("too long");
    assert!(matches!(error, Refused::TooLong { limit, .. } if limit == limits::GROUP_BYTES_MAX as u64), "{error}");

    // As many as are taken, a little below the bound of each.
    let bundles = vec![custom(60); 15];
    let each = bytes(&bundles);
    assert!((limits::GROUP_BYTES_MAX * 9 / 10..limits::GROUP_BYTES_MAX).contains(&each), "{each}");
    let count = (limits::GROUPS_BYTES_MAX / each) as u64;
    for number in 1..=count {
        house.ask(|head, moment| head.create_group(new(number, bundles.clone()), moment)).expect("within the bounds");
    }
    assert!(largest_record(&house) < limits::STORE_VALUE_BYTES_MAX / 2, "a store would not take it");
    let shown = house.head.groups();
    assert!(shown.len() as u64 == count && bytes(&shown) < limits::CONTROL_ANSWER_BYTES_MAX / 2);
    house.restart();
    let full = |house: &mut House| {
        let answer = house.ask(|head, moment| head.create_group(new(count + 1, bundles.clone()), moment));
        matches!(answer, Err(Refused::Full { limit, .. }) if limit == limits::GROUPS_BYTES_MAX as u64)
    };
    assert!(full(&mut house));
    house.ask(|head, moment| head.remove_group(group(job, 1), moment)).expect("there");
    assert!(!full(&mut house), "there is room again");
}
