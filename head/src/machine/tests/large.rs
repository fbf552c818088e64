//! As much as the head accepts, and what comes of it for those who are told.

use mobula_core::cluster::{
    Amount, DriverStatus, GroupStrategy, JobKind, JobPhase, NewGroup, NewJob, Refused, Resources,
};
use mobula_core::{codec, limits};
use serde::Serialize;

use super::harness::{House, cpus, group, new_job};

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
