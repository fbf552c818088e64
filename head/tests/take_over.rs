//! A head over a store is killed at each of its writes, and another takes over.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    Amount, Beat, Executable, ExecutableHash, GroupId, GroupStrategy, JobId, JobKind, LeaseId, NewGroup, NewJob, Place,
    PlaceStrategy, Placing, Registration, Resources, Running, UnixTime, WorkerPolicy,
};
use mobula_head::store::{
    Clock, Kill, MemoryStore, MetadataStore, RedbStore, StoreError, TakeOverError, Transaction, take_over,
};
use mobula_head::{Effect, Head, HeadConfig, Moment};

fn moment(chance: u64) -> Moment {
    Moment { now: Duration::ZERO, unix: UnixTime(0), chance }
}

fn cpus(count: u64) -> Resources {
    Resources::cpus(Amount::units(count))
}

fn clock() -> Clock {
    Clock::new(|| Duration::ZERO)
}

/// One request to the head, and what its answer said.
#[derive(Clone, Debug)]
enum Step {
    Register(u64),
    Create(u64),
    Place(u64, u64),
    Release(u64, u64),
    Group(u64, u64),
    Leave(u64),
    Stop(u64),
}

fn script() -> Vec<Step> {
    use Step::*;
    vec![
        Register(1),
        Create(1),
        Register(2),
        Place(1, 1),
        Place(1, 2),
        Group(1, 1),
        Create(2),
        Place(2, 3),
        Release(1, 1),
        Register(3),
        Leave(2),
        Place(2, 4),
        Stop(1),
        Place(2, 5),
    ]
}

fn ask(head: &mut Head, step: &Step, chance: u64) -> Result<String, String> {
    let moment = moment(chance);
    let place = |job, number: u64| Place {
        lease: LeaseId { job: JobId(job), number },
        resources: cpus(1),
        strategy: PlaceStrategy::Spread,
        near: None,
        wait: Duration::ZERO,
        for_new_nodes: false,
        isolated: number.is_multiple_of(2),
    };
    let text = |error: mobula_core::cluster::Refused| error.to_string();
    match step {
        Step::Register(uid) => {
            let registration = Registration {
                uid: NodeUid(*uid),
                name: format!("node-{uid}").into(),
                address: String::new(),
                resources: cpus(4),
                labels: Default::default(),
                cores: 4,
                version: String::new(),
                architecture: String::new(),
                running: Running::default(),
                replaces: None,
                number: 0,
            };
            head.register_node(registration, moment).map_err(text)?;
            head.beat(NodeUid(*uid), &Beat::default(), moment).map_err(text)?;
            Ok(format!("{uid} is a node"))
        }
        Step::Create(request) => {
            let new = NewJob {
                request: *request,
                kind: JobKind::Outside { driver: NodeUid(100 + request) },
                entrypoint: String::new(),
                executable: Executable { hash: ExecutableHash([0; 32]), bytes: 0 },
                arguments: Vec::new(),
                environment: BTreeMap::new(),
                submitter: String::new(),
                workers: WorkerPolicy::EveryNode,
                platform: None,
            };
            head.create_job(new, moment).map(|row| row.id.to_string()).map_err(text)
        }
        Step::Place(job, number) => match head.place(place(*job, *number), moment).map_err(text)? {
            Placing::Placed(placed) => Ok(format!("on {}", placed.node)),
            other => Ok(format!("{other:?}")),
        },
        Step::Release(job, number) => {
            let released = head.release(place(*job, *number).lease, moment);
            released.map(|()| "released".to_owned()).map_err(text)
        }
        Step::Group(job, number) => {
            let group = GroupId { job: JobId(*job), number: *number };
            let bundles = vec![cpus(1), cpus(1)];
            let new = NewGroup { group, bundles, strategy: GroupStrategy::StrictSpread, for_new_nodes: false };
            head.create_group(new, moment).map(|row| format!("{:?}", row.bundles)).map_err(text)
        }
        Step::Leave(uid) => {
            head.leave(NodeUid(*uid), moment);
            Ok(format!("{uid} is gone"))
        }
        Step::Stop(job) => head.stop_job(JobId(*job), moment).map(|row| row.id.to_string()).map_err(text),
    }
}

/// Brings to the store what has to be there before an answer leaves.
async fn settle(head: &mut Head, store: &dyn MetadataStore) -> Result<(), StoreError> {
    for effect in head.take_effects().expect("plain data") {
        if let Effect::Persist(writes) = effect {
            store.commit(Transaction::of_head(head.term(), writes)).await?;
        }
    }
    Ok(())
}

/// Runs the script until it ends or the store fails. Gives the answers that have left.
async fn run(store: &dyn MetadataStore) -> Result<Vec<Result<String, String>>, TakeOverError> {
    let mut answers = Vec::new();
    let mut head = take_over(store, HeadConfig::default(), || moment(0)).await?;
    for (at, step) in script().iter().enumerate() {
        let answer = ask(&mut head, step, 1 + at as u64);
        if settle(&mut head, store).await.is_err() {
            break;
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Whether the next head knows all that has been answered, and answers what was not in the same way as if nothing had happened.
async fn goes_on(store: &MemoryStore, answered: usize, whole: &[Result<String, String>]) -> Result<(), String> {
    let store = store.reopen();
    let mut head = take_over(&store, HeadConfig::default(), || moment(99)).await.map_err(|error| error.to_string())?;
    for node in head.nodes(Duration::ZERO).into_iter().filter(|node| node.death.is_none()) {
        head.beat(node.uid, &Beat::default(), moment(98)).map_err(|error| error.to_string())?;
    }
    // The last request before the end is asked again: its answer was lost.
    for (at, step) in script().iter().enumerate().skip(answered) {
        let answer = ask(&mut head, step, 200 + at as u64);
        settle(&mut head, &store).await.map_err(|error| error.to_string())?;
        if answer != whole[at] {
            return Err(format!("step {at} {step:?}: {answer:?} instead of {:?}", whole[at]));
        }
    }
    let (jobs, leases) = (head.jobs(), head.leases());
    let found = (jobs.len(), leases.len(), head.groups().len(), head.summary().nodes);
    let leases: Vec<_> = leases.iter().map(|lease| (lease.id.number, lease.node.0)).collect();
    // The stopped job keeps its group until its workers are reaped.
    if found == (2, 3, 1, 2) { Ok(()) } else { Err(format!("{found:?} {leases:?}")) }
}

#[tokio::test]
async fn whatever_write_a_head_is_killed_at_the_next_one_goes_on() {
    let store = MemoryStore::new(clock());
    let whole = run(&store).await.expect("nothing happens to it");
    assert!(whole.iter().all(Result::is_ok), "{whole:?}");
    let writes = store.writes();
    assert!(writes > 12, "{writes}");
    goes_on(&store, whole.len(), &whole).await.expect("an orderly restart");
    for at in 0..writes {
        for kill in [Kill::Before(at), Kill::After(at)] {
            let store = MemoryStore::new(clock());
            store.kill_at(kill);
            let answered = run(&store).await.map_or(0, |answers| answers.len());
            goes_on(&store, answered, &whole).await.unwrap_or_else(|error| panic!("{kill:?}: {error}"));
        }
    }
}

/// The test above can fail: with a store that tears transactions it does.
#[tokio::test]
async fn a_store_that_tears_transactions_is_found_out() {
    let store = MemoryStore::new(clock());
    let whole = run(&store).await.expect("nothing happens to it");
    let mut found = 0;
    for at in 0..store.writes() {
        let store = MemoryStore::new(clock());
        store.kill_at(Kill::Within(at));
        let answered = run(&store).await.map_or(0, |answers| answers.len());
        found += u64::from(goes_on(&store, answered, &whole).await.is_err());
    }
    assert!(found > 0);
}

#[tokio::test]
async fn a_head_that_was_followed_writes_nothing_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RedbStore::open(&folder.path().join("head"), clock()).expect("a new file");
    let mut first = take_over(&store, HeadConfig::default(), || moment(0)).await.expect("an empty store");
    ask(&mut first, &Step::Register(1), 1).expect("new");
    settle(&mut first, &store).await.expect("it leads");
    let second = take_over(&store, HeadConfig::default(), || moment(0)).await.expect("its records");
    assert!(second.term() > first.term());
    ask(&mut first, &Step::Register(2), 2).expect("it knows of nothing");
    let late = settle(&mut first, &store).await;
    assert_eq!(late, Err(StoreError::Fenced { term: first.term(), current: second.term() }));
    assert_eq!(second.nodes(Duration::ZERO).len(), 1);
}

#[tokio::test]
async fn records_that_cannot_be_read_are_left_as_they_are() {
    let store = MemoryStore::new(clock());
    run(&store).await.expect("nothing happens to it");
    let put = |value: Vec<u8>| Transaction {
        writes: vec![mobula_head::Write::Put { key: "job/0000000000000001".to_owned(), value }],
        ..Transaction::default()
    };
    for value in [vec![2, 0x80], vec![1, 0xc1], Vec::new()] {
        store.commit(put(value)).await.expect("written");
        let before = store.writes();
        let error = take_over(&store, HeadConfig::default(), || moment(0)).await.expect_err("not a job").to_string();
        assert!(error.contains("job/0000000000000001") && error.contains("nothing was changed"), "{error}");
        assert_eq!(store.writes(), before, "not even the term");
    }
}
