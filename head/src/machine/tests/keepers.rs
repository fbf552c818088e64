//! Keepers of detached actors, case by case.

use mobula_core::cluster::{DriverStatus, Executable, ExecutableHash, JobId, JobKind, JobPhase, Refused};
use mobula_core::{NodeUid, limits};

use super::harness::{House, cpus, ms, new_job, s};
use crate::Effect;

const MORE: u64 = 1_000;

/// Two nodes, and a job whose driver is outside.
fn house() -> (House, JobId) {
    let mut house = House::new();
    house.node(1, cpus(2));
    house.node(2, cpus(2));
    let job = house.job(1);
    (house, job)
}

fn open(house: &mut House, by: JobId) -> JobId {
    house.ask(|head, moment| head.open_keeper(by, moment)).expect("it runs")
}

fn hold(house: &mut House, keeper: JobId, number: u64, name: &str) -> Result<(), Refused> {
    house.ask(|head, moment| head.hold_name(keeper, number, name, moment))
}

fn close(house: &mut House, keeper: JobId) -> bool {
    let driver = house.head.job(keeper).and_then(|row| row.driver).expect("it has begun");
    house.ask(|head, moment| head.close_keeper(keeper, driver, moment)).expect("its driver asks")
}

/// A job of another program.
fn other_program(house: &mut House) -> JobId {
    let mut new = new_job(9, JobKind::Outside { driver: NodeUid(9_000_000) });
    new.executable = Executable { hash: ExecutableHash([8; 32]), bytes: 1 };
    house.ask(|head, moment| head.create_job(new, moment)).expect("a job").id
}

#[test]
fn a_program_has_one_keeper_which_outlives_those_who_ask_for_it_and_the_head() {
    let (mut house, job) = house();
    house.take();
    let keeper = open(&mut house, job);
    assert!(house.take().contains(&Effect::JobChanged(job)), "its processes are told");
    assert_eq!(house.head.job_view(job).expect("known").keepers, [keeper]);
    let second = house.job(2);
    assert_eq!((open(&mut house, job), open(&mut house, second)), (keeper, keeper));
    let other = other_program(&mut house);
    let others = open(&mut house, other);
    assert_ne!(others, keeper);
    assert!(house.head.may_call(second, keeper) && !house.head.may_call(other, keeper));

    let assigned = [1, 2].map(|node| house.head.assignment(NodeUid(node)).expect("known"));
    let drivers: Vec<_> = assigned.iter().flat_map(|assignment| &assignment.drivers).collect();
    assert!(drivers.len() == 2 && drivers.iter().all(|driver| driver.keeper), "{drivers:?}");
    let workers = assigned.iter().flat_map(|assignment| &assignment.workers);
    assert!(workers.clone().all(|worker| worker.keeper == [keeper, others].contains(&worker.job)));
    // A keeper that wants one is its own.
    assert_eq!(open(&mut house, keeper), keeper);

    hold(&mut house, keeper, 1, "hits").expect("free");
    house.ask(|head, moment| head.stop_job(job, moment)).expect("known");
    house.restart();
    assert_eq!(
        house.head.detached().iter().map(|row| (&*row.name, row.keeper)).collect::<Vec<_>>(),
        [("hits", keeper)]
    );
    assert!(house.head.may_call(second, keeper) && !house.head.may_call(other, keeper));
    let find = |house: &mut House, by, name: &str| house.ask(|head, moment| head.find_detached(by, name, moment));
    assert_eq!(find(&mut house, other, "hits"), Ok(Some(keeper)));
    assert!(house.head.may_call(other, keeper), "whoever finds it may call it");
    assert_eq!(find(&mut house, other, "hit"), Ok(None));
    assert_eq!(find(&mut house, job, "hits"), Err(Refused::JobEnded { job }));
}

#[test]
fn a_name_of_a_detached_actor_is_its_own_in_the_whole_cluster() {
    let (mut house, job) = house();
    let keeper = open(&mut house, job);
    let other = other_program(&mut house);
    let others = open(&mut house, other);
    hold(&mut house, keeper, 1, "hits").expect("free");
    hold(&mut house, keeper, 1, "hits").expect("the same again");
    assert_eq!(hold(&mut house, keeper, 1, "else"), Err(Refused::OtherRequest));
    let held = Err(Refused::NameHeld { name: "hits".to_owned(), keeper });
    assert_eq!((hold(&mut house, keeper, 2, "hits"), hold(&mut house, others, 1, "hits")), (held.clone(), held));
    assert_eq!(hold(&mut house, job, 1, "hits"), Err(Refused::NotAKeeper { job }));
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    assert!(matches!(hold(&mut house, keeper, 3, &long), Err(Refused::TooLong { .. })));
    hold(&mut house, keeper, 3, &long[1..]).expect("just short enough");
    // A number that means another's, or nothing, frees nothing.
    house.ask(|head, moment| head.release_name(others, 1, moment));
    assert_eq!(house.head.detached().len(), 2);
    house.ask(|head, moment| head.release_name(keeper, 1, moment));
    hold(&mut house, others, 2, "hits").expect("free again");
}

#[test]
fn a_name_that_was_given_back_is_not_held_by_a_request_that_comes_late() {
    let (mut house, job) = house();
    let keeper = open(&mut house, job);
    // Given back before its request has come, and after.
    house.ask(|head, moment| head.release_name(keeper, 1, moment));
    assert_eq!(hold(&mut house, keeper, 1, "hits"), Err(Refused::OtherRequest));
    hold(&mut house, keeper, 2, "hits").expect("free");
    house.ask(|head, moment| head.release_name(keeper, 2, moment));
    assert_eq!(hold(&mut house, keeper, 2, "hits"), Err(Refused::OtherRequest));
    assert_eq!(house.head.detached(), []);
    hold(&mut house, keeper, 3, "hits").expect("free again");
}

#[test]
fn one_detached_actor_more_than_the_limit_is_refused() {
    let (mut house, job) = house();
    let keeper = open(&mut house, job);
    for number in 0..limits::DETACHED_ACTORS_MAX as u64 {
        let moment = house.moment();
        house.head.hold_name(keeper, number, &number.to_string(), moment).expect("room");
    }
    let full = hold(&mut house, keeper, u64::MAX, "one more");
    assert!(
        matches!(full, Err(Refused::Full { limit, .. }) if limit == limits::DETACHED_ACTORS_MAX as u64),
        "{full:?}"
    );
    house.ask(|head, moment| head.release_name(keeper, 0, moment));
    hold(&mut house, keeper, u64::MAX, "one more").expect("room again");
}

#[test]
fn a_keeper_ends_when_it_has_kept_nothing_for_a_while_and_frees_what_it_kept_otherwise() {
    let (mut house, job) = house();
    let keeper = open(&mut house, job);
    hold(&mut house, keeper, 1, "hits").expect("free");
    let idle = |house: &mut House, time| {
        house.live(time, &[1, 2]);
        house.driver_beats(1, job);
    };
    idle(&mut house, s(6));
    idle(&mut house, s(6));
    assert!(!close(&mut house, keeper), "it keeps one");
    house.ask(|head, moment| head.release_name(keeper, 1, moment));
    idle(&mut house, s(6));
    assert!(!close(&mut house, keeper), "it has just kept one");
    open(&mut house, job);
    idle(&mut house, s(5));
    idle(&mut house, limits::KEEPER_IDLE - s(5) - ms(500));
    assert!(!close(&mut house, keeper), "somebody may be about to");
    idle(&mut house, ms(500));
    assert!(close(&mut house, keeper) && close(&mut house, keeper), "and again if that is not heard");
    assert_eq!(hold(&mut house, keeper, 2, "late"), Err(Refused::JobEnded { job: keeper }));
    let next = open(&mut house, job);
    assert_ne!(next, keeper);
    let driver = house.head.job(keeper).and_then(|row| row.driver).expect("it began");
    house.ask(|head, moment| head.driver_ended(keeper, driver, DriverStatus::Succeeded, moment)).expect("its driver");
    house.live(s(1), &[1, 2]);
    assert_eq!(house.head.job(keeper).map(|row| row.phase), Some(JobPhase::Succeeded));
    assert_eq!(house.head.job_view(job).expect("known").keepers, [next]);

    // A keeper that fails takes its actors with it; their names are free when nothing of it runs any more.
    hold(&mut house, next, 1, "hits").expect("free");
    let driver = house.head.job(next).and_then(|row| row.driver).expect("it has begun");
    let failed = DriverStatus::Failed { reason: "signal 9".to_owned() };
    house.ask(|head, moment| head.driver_ended(next, driver, failed, moment)).expect("its driver");
    assert_eq!(house.ask(|head, moment| head.find_detached(job, "hits", moment)), Ok(None));
    let third = open(&mut house, job);
    assert!(matches!(hold(&mut house, third, MORE, "hits"), Err(Refused::NameHeld { .. })));
    house.live(s(1), &[1, 2]);
    hold(&mut house, third, MORE, "hits").expect("free");
}
