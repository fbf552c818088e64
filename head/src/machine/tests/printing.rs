//! Whose output is taken from whom.

use mobula_core::NodeUid;
use mobula_core::cluster::{DriverStatus, JobId, JobKind, Running, WorkerPolicy};

use super::harness::{House, cpus, new_job};

const NODES: [u64; 3] = [1, 2, 3];

/// A job on three nodes, with a driver on the first of them.
fn on_cluster(house: &mut House) -> JobId {
    for node in NODES {
        house.node(node, cpus(4));
    }
    let job = submit(house, 1);
    NODES.iter().for_each(|node| house.beat(*node).expect("it lives"));
    assert_eq!(house.head.job(job).and_then(|row| row.driver_node), Some(NodeUid(1)));
    job
}

fn submit(house: &mut House, request: u64) -> JobId {
    let kind = JobKind::OnCluster { resources: cpus(1) };
    house.ask(|head, moment| head.create_job(new_job(request, kind), moment)).expect("a job").id
}

fn end(house: &mut House, job: JobId) {
    let driver = house.head.job(job).and_then(|row| row.driver).expect("it runs");
    house.ask(|head, moment| head.driver_ended(job, driver, DriverStatus::Succeeded, moment)).expect("it drives");
    NODES.iter().for_each(|node| drop(house.beat(*node)));
    assert!(house.head.job(job).expect("known").phase.is_over());
}

/// The nodes of which the output with that source is taken.
fn taken(house: &House, job: JobId, source: &str) -> Vec<u64> {
    let taken = |node: &u64| house.head.may_print(NodeUid(*node), job, source);
    (1..=4).filter(taken).collect()
}

fn sources(house: &House, job: JobId) -> Vec<Vec<u64>> {
    ["driver", "worker-0 on node-1", "worker-1 on node-2", "worker-2 on node-3"].map(|of| taken(house, job, of)).into()
}

#[test]
fn a_node_speaks_for_the_processes_that_it_has() {
    let mut house = House::new();
    let job = on_cluster(&mut house);
    assert_eq!(sources(&house, job), [[1], [1], [2], [3]]);
    // No worker of the job has this place, and no source is written like that.
    for source in ["worker-3 on node-1", "worker-0 on node-4", "worker-00 on node-1", "Driver", "", "driver\n"] {
        assert!(taken(&house, job, source).is_empty(), "{source:?}");
    }
    assert!(taken(&house, JobId(job.0 + 1), "driver").is_empty(), "there is no such job");
    // A job whose driver is elsewhere, and that has no worker on a node that came later.
    let outside = house.job(2);
    assert!(taken(&house, outside, "driver").is_empty());
    let leased = {
        let kind = JobKind::Outside { driver: NodeUid(77) };
        let new = mobula_core::cluster::NewJob { workers: WorkerPolicy::WhereLeased, ..new_job(3, kind) };
        house.ask(|head, moment| head.create_job(new, moment)).expect("a job").id
    };
    assert!(taken(&house, leased, "worker-0 on node-1").is_empty());
}

#[test]
fn what_has_ended_is_heard_as_long_as_its_job_is_known_also_by_the_next_head() {
    let mut house = House::new();
    let job = on_cluster(&mut house);
    house.restart();
    assert_eq!(sources(&house, job), [[1], [1], [2], [3]], "before the nodes have come back");
    NODES.iter().for_each(|node| house.beat(*node).expect("it lives"));
    // One worker ends, and waits for its restart.
    house.beat_with(2, Running { workers: Vec::new(), ..house.obedient(2) }).expect("it lives");
    assert_eq!(sources(&house, job), [[1], [1], [2], [3]]);
    end(&mut house, job);
    assert_eq!(sources(&house, job), [[1], [1], [2], [3]]);
    house.restart();
    assert_eq!(sources(&house, job), [[1], [1], [2], [3]]);
    // A life that is over is silent, and its successor has had nothing.
    house.ask(|head, moment| head.leave(NodeUid(3), moment));
    house.node(4, cpus(4));
    assert_eq!(sources(&house, job), [vec![1], vec![1], vec![2], vec![]]);
    assert!(taken(&house, job, "worker-2 on node-4").is_empty());
}

#[test]
fn lives_that_are_over_are_not_remembered_for_it() {
    let mut house = House::new();
    let job = on_cluster(&mut house);
    let record = |house: &House| house.disk[&format!("job/{:016x}", job.0)].len();
    let before = record(&house);
    for life in 100..200 {
        house.node(life, cpus(4));
        house.beat(life).expect("it lives");
        house.ask(|head, moment| head.leave(NodeUid(life), moment));
    }
    assert!(record(&house) < before + 16, "{} bytes grow to {}", before, record(&house));
}
