//! The bytes of records: those of today are written byte for byte, and those of every version that ever was are read.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    Amount, Beat, Executable, ExecutableHash, GroupId, GroupPhase, GroupStrategy, JobKind, JobPhase, Labels, LeaseId,
    NewGroup, NewJob, NodePhase, Place, PlaceStrategy, Refused, Registration, Resources, Running, UnixTime,
    WorkerPolicy,
};
use mobula_head::{Effect, Head, HeadConfig, Moment, RECORD_VERSION, RecordError, Write};

const VERSION_1: &str = include_str!("records/version-1.txt");
const ISOLATED_1: &str = include_str!("records/isolated-1.txt");

fn moment(seconds: u64) -> Moment {
    Moment { now: Duration::from_secs(seconds), unix: UnixTime(1_800_000_000 + seconds), chance: 42 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn records(page: &str) -> Vec<(String, Vec<u8>)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("key and bytes")).map(|(k, v)| (k.to_owned(), unhex(v))).collect()
}

fn node(number: u64) -> Registration {
    Registration {
        uid: NodeUid(number),
        name: format!("node-{number}").into(),
        address: format!("10.0.0.{number}:6379"),
        resources: Resources::cpus(Amount::units(8)).with_gpus(Amount::units(2)).with("disk", Amount::parts(15_000)),
        labels: Labels::new().with("zone", "a"),
        cores: 16,
        version: "0.1.0".to_owned(),
        architecture: "x86_64-linux-gnu".to_owned(),
        running: Running::default(),
        replaces: None,
        number: 0,
    }
}

/// One of each record.
fn written() -> BTreeMap<String, Vec<u8>> {
    persisted(&mut filled())
}

fn persisted(head: &mut Head) -> BTreeMap<String, Vec<u8>> {
    let mut disk = BTreeMap::new();
    for effect in head.take_effects().expect("plain data") {
        let Effect::Persist(writes) = effect else { continue };
        for write in writes {
            if let Write::Put { key, value } = write {
                disk.insert(key, value);
            }
        }
    }
    disk
}

fn filled() -> Head {
    let mut head = Head::new(HeadConfig::default(), 1);
    for number in [1, 2] {
        head.register_node(node(number), moment(0)).expect("new");
        head.beat(NodeUid(number), &Beat::default(), moment(0)).expect("it lives");
    }
    head.leave(NodeUid(2), moment(1));
    let new = |request, kind| NewJob {
        request,
        kind,
        entrypoint: "primes --n 100".to_owned(),
        executable: Executable { hash: ExecutableHash([0xab; 32]), bytes: 1_000_000 },
        arguments: vec!["--n".to_owned(), "100".to_owned()],
        environment: BTreeMap::from([("LEVEL".to_owned(), "debug".to_owned())]),
        submitter: "someone".to_owned(),
        workers: WorkerPolicy::EveryNode,
        platform: None,
    };
    let job = head.create_job(new(7, JobKind::Outside { driver: NodeUid(77) }), moment(2)).expect("a job").id;
    let over = head.create_job(new(8, JobKind::OnCluster { resources: Resources::new() }), moment(2)).expect("a job");
    head.stop_job(over.id, moment(2)).expect("known");
    let group = GroupId { job, number: 5 };
    let bundles = vec![Resources::new().with_gpus(Amount::ONE)];
    let new_group = NewGroup { group, bundles, strategy: GroupStrategy::StrictSpread, for_new_nodes: false };
    head.create_group(new_group, moment(2)).expect("room");
    let place = Place {
        lease: LeaseId { job, number: 9 },
        resources: Resources::new().with_gpus(Amount::parts(5_000)),
        strategy: PlaceStrategy::Group { group, bundle: None },
        near: None,
        wait: Duration::ZERO,
        for_new_nodes: false,
        isolated: false,
    };
    head.place(place, moment(2)).expect("room");
    let guest = head.create_job(new(10, JobKind::Outside { driver: NodeUid(78) }), moment(2)).expect("a job").id;
    let keeper = head.open_keeper(guest, moment(2)).expect("it runs");
    head.hold_name(keeper, 11, "hits", moment(2)).expect("free");
    head.drain(NodeUid(1), Duration::from_secs(30), moment(2)).expect("known");
    head
}

#[test]
fn todays_records_are_written_byte_for_byte() {
    let page: String = written().iter().map(|(key, value)| format!("{key} {}\n", hex(value))).collect();
    let expected: String = VERSION_1.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect();
    assert!(page == expected, "a record has other bytes than before: raise RECORD_VERSION, or undo it\n{page}");
    assert_eq!(RECORD_VERSION, 1, "keep version-1.txt, and add a page for the new version");
}

#[test]
fn records_of_version_1_are_read() {
    let head = Head::recover(HeadConfig::default(), 2, records(VERSION_1), moment(0)).expect("version 1");
    let nodes = head.nodes(Duration::ZERO);
    let phases: Vec<_> = nodes.iter().map(|node| (&*node.name, node.phase)).collect();
    assert_eq!(phases, [("node-1", NodePhase::Draining), ("node-2", NodePhase::Down)]);
    assert_eq!(nodes[0].total.to_string(), "8 cpu, 2 gpu, 1.5 disk");
    assert_eq!(nodes[0].available.to_string(), "8 cpu, 1 gpu, 1.5 disk");
    assert_eq!((nodes[0].labels.to_string(), nodes[0].cores), ("zone=a".to_owned(), 16));
    let jobs = head.jobs();
    assert_eq!((&jobs[0].phase, jobs[0].created), (&JobPhase::Running, UnixTime(1_800_000_002)));
    assert_eq!((jobs[0].driver, jobs[0].executable.hash), (Some(NodeUid(77)), ExecutableHash([0xab; 32])));
    let worker = &head.assignment(NodeUid(1)).expect("known").workers[0];
    let launch = head.launch(NodeUid(1), worker.job).expect("it is to run there");
    assert_eq!((launch.arguments.join(" "), launch.environment["LEVEL"].as_str()), ("--n 100".to_owned(), "debug"));
    assert_eq!(head.groups()[0].phase, GroupPhase::Ready);
    assert_eq!(head.leases()[0].gpus[0].amount, Amount::parts(5_000));
    let detached = &head.detached()[0];
    assert_eq!((&*detached.name, detached.keeper), ("hits", jobs[3].id));
    assert!(head.may_call(jobs[2].id, detached.keeper) && !head.may_call(jobs[0].id, detached.keeper));
}

/// A flipped bit, a cut, a newer version: each is an error that names the record, or a record that is still whole.
#[test]
fn what_cannot_be_read_is_named() {
    let whole = records(VERSION_1);
    for at in 0..whole.len() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut records = whole.clone();
            change(&mut records[at].1);
            Head::recover(HeadConfig::default(), 2, records, moment(0)).map(|_| ())
        };
        let key = &whole[at].0;
        let newer = with(&|bytes| bytes[0] = RECORD_VERSION + 1).expect_err("newer");
        assert_eq!(newer, RecordError::Newer { key: key.clone(), found: 2, known: 1 });
        let text = newer.to_string();
        assert!(text.contains(key.as_str()) && text.contains("nothing was changed"), "{text}");
        for cut in 0..whole[at].1.len() {
            let error = with(&|bytes| bytes.truncate(cut)).expect_err("cut");
            assert!(matches!(&error, RecordError::Corrupt { key: named, .. } if named == key), "{error}");
        }
        with(&|bytes| bytes.push(0)).expect_err("one byte more");
        for bit in 0..whole[at].1.len() * 8 {
            // Whatever comes of it, it is no panic.
            let _ = with(&|bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
    }
    let mut missing = whole.clone();
    missing.retain(|(key, _)| !key.starts_with("node/"));
    let error = Head::recover(HeadConfig::default(), 2, missing, moment(0)).expect_err("what was on it");
    assert!(matches!(&error, RecordError::Corrupt { reason, .. } if reason.contains("not there")), "{error}");
    let odd = vec![("tail/1".to_owned(), vec![1])];
    Head::recover(HeadConfig::default(), 2, odd, moment(0)).expect_err("no such record");
}

#[test]
fn what_isolated_leases_add_is_written_byte_for_byte_and_read() {
    let mut head = filled();
    head.register_node(node(3), moment(3)).expect("new");
    head.beat(NodeUid(3), &Beat::default(), moment(3)).expect("it lives");
    let job = head.jobs()[0].id;
    let lease = LeaseId { job, number: 11 };
    let place = Place {
        lease,
        resources: Resources::new().with_gpus(Amount::ONE),
        strategy: PlaceStrategy::Default,
        near: None,
        wait: Duration::ZERO,
        for_new_nodes: false,
        isolated: true,
    };
    head.place(place.clone(), moment(3)).expect("room");
    let mut disk = persisted(&mut head);
    let expected = records(ISOLATED_1);
    let of = |disk: &BTreeMap<String, Vec<u8>>, at: usize| (expected[at].0.clone(), disk[&expected[at].0].clone());
    let held = [of(&disk, 0), of(&disk, 1)];
    head.release(lease, moment(3)).expect("known");
    disk.extend(persisted(&mut head));
    // A group that is removed while a worker in it runs.
    let group = GroupId { job, number: 5 };
    let strategy = PlaceStrategy::Group { group, bundle: None };
    let within = Place { lease: LeaseId { job, number: 12 }, strategy, resources: Resources::new(), ..place.clone() };
    head.place(within, moment(3)).expect("room");
    head.remove_group(group, moment(3)).expect("known");
    disk.extend(persisted(&mut head));
    let written = [&held[..], &[of(&disk, 2), of(&disk, 3)]].concat();
    let page: String = written.iter().map(|(key, value)| format!("{key} {}\n", hex(value))).collect();
    assert!(written == expected, "a record has other bytes than before\n{page}");
    // A head that reads them tells the node that the worker is not to run, and asks nobody for it again.
    let mut next = Head::recover(HeadConfig::default(), 2, disk, moment(4)).expect("its own records");
    assert!(next.workers().iter().any(|row| row.lease == Some(lease)));
    let workers = next.assignment(NodeUid(3)).expect("known").workers;
    assert!(workers.iter().all(|worker| worker.isolated.is_none()), "{workers:?}");
    assert_eq!(next.place(place, moment(4)), Err(Refused::Repeated { lease }));
    assert_eq!(next.groups(), []);
}

#[test]
fn a_job_that_is_over_says_which_nodes_have_had_workers_of_it() {
    let mut head = filled();
    let job = head.jobs()[0].id;
    head.stop_job(job, moment(3)).expect("known");
    let seen = head.assignment(NodeUid(1)).expect("known").revision;
    let nothing = Beat { running: Running { seen, ..Running::default() }, ..Beat::default() };
    head.beat(NodeUid(1), &nothing, moment(3)).expect("it lives");
    let record = hex(&persisted(&mut head)[&format!("job/{:016x}", job.0)]);
    // The last field: its name, and a list of one life.
    assert!(record.ends_with(&format!("{}9101", hex(b"\xaaprinted_on"))), "{record}");
}

#[test]
fn rows_are_json_that_people_can_read() {
    let head = Head::recover(HeadConfig::default(), 2, records(VERSION_1), moment(0)).expect("version 1");
    let json = serde_json::to_value(&head.nodes(Duration::ZERO)[0]).expect("plain data");
    assert_eq!(json["total"], serde_json::json!({ "cpus": 8, "gpus": 2, "memory": 0, "custom": { "disk": 1.5 } }));
    assert_eq!((&json["phase"], &json["name"]), (&"draining".into(), &"node-1".into()));
}
