//! A head with its door, in this process: which lives it hears, and what it does for those that are cut off.

use std::io::Write;

use mobula_control::{
    AppendLog, BeginDriver, ControlError, DriverBegun, LogPart, Part, Peer, PutExecutable, Question, Refusal, Register,
    identify,
};
use mobula_core::cluster::{
    DriverStatus, Executable, ExecutableHash, JobId, NodePhase, Refused, Registered, Registration, Running,
};
use mobula_identity::{KeyRequest, NextKey, Role, come_back, join};
use tempfile::TempDir;

use super::*;
use crate::membership::copy;

/// Bytes of programs that the house has room for.
const PROGRAMS: u64 = 1000;

const HOUR: Duration = Duration::from_secs(3600);

async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("came in time")
}

struct House {
    place: Arc<TempDir>,
    address: SocketAddr,
    head: Arc<HeadService>,
}

impl House {
    async fn open() -> Self {
        House::of(Arc::new(tempfile::tempdir().expect("a directory"))).await
    }

    /// The head of that place.
    async fn of(place: Arc<TempDir>) -> Self {
        let home = Home::create(&place.path().join("home")).expect("a home");
        let listener = tls::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = listener.local_addr().expect("bound");
        let node = Beginning {
            name: "head".to_owned(),
            address,
            resources: Resources::default(),
            labels: Labels::new(),
            programs: Arc::new(Programs::new(home.inside("executables").expect("room"), PROGRAMS)),
            stop: watch::Sender::new(false),
            home,
        };
        let uid = new_uid().expect("random numbers");
        let identity = Identity::open(&node.home.inside("identity").expect("room"), UnixTime::now());
        let identity = Arc::new(identity.expect("an authority"));
        let times = LeaseTimes::of(Duration::from_secs(60));
        let led = Led::open(&node, uid, times, Arc::clone(&identity)).await.expect("a head");
        let (head, endpoint) = (led.service, led.endpoint);
        let leading = Leading {
            endpoint: Arc::clone(&endpoint),
            identity,
            service: Arc::clone(&head),
            lets_in: Box::new(|| true),
        };
        let processes = node.processes(uid, &Target::Local(node.home.directory().path().to_owned()));
        tokio::spawn(door::keep(listener, processes, Some(Arc::new(leading))));
        tokio::spawn(cut_off(led.cut, endpoint, Arc::clone(&head)));
        House { place, address, head }
    }

    async fn joined(&self, role: Role) -> Joined {
        let token = self.head.identity.create_token(role, 1, HOUR, UnixTime::now()).expect("a token");
        within(join(self.address, &token, role)).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The life after `last`, of the same line.
    async fn returned(&self, last: &Joined) -> Joined {
        let key = NextKey::open(&self.place.path().join(last.uid.to_string()), last).expect("room");
        within(come_back(self.address, last, &key)).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn ask<Q: Question>(&self, asker: &Joined, question: Q) -> Result<Q::Answer, ControlError> {
        let credentials = Arc::new(RwLock::new(Arc::new(copy(&asker.credentials))));
        let heads = Heads::new(self.address, []);
        let client = Client::new(Target::Remote { heads, credentials, life: asker.uid, job: None });
        within(client.ask(question)).await
    }

    async fn register(&self, node: &Joined, name: &str, replaces: Option<NodeUid>) -> Result<Registered, ControlError> {
        self.ask(node, Register { registration: registration(node.uid, name, replaces) }).await
    }

    async fn phase_of(&self, life: NodeUid) -> Option<NodePhase> {
        self.head.keeper.look(|head, _| head.phase_of(life)).await
    }

    /// A driver outside the cluster that this person has begun.
    async fn driver_of(&self, person: &Joined, request: u64) -> (JobId, NodeUid) {
        self.driver_with(person, request, Executable { hash: ExecutableHash([7; 32]), bytes: 1 }).await
    }

    async fn driver_with(&self, person: &Joined, request: u64, executable: Executable) -> (JobId, NodeUid) {
        let begin = BeginDriver {
            request,
            submitted: None,
            entrypoint: "program".to_owned(),
            executable,
            csr: KeyRequest::new().expect("random numbers").csr().to_vec(),
        };
        let DriverBegun { job, uid, .. } = self.ask(person, begin).await.unwrap_or_else(|error| panic!("{error}"));
        (job, uid)
    }

    async fn is_over(&self, job: JobId) -> bool {
        self.head.keeper.look(|head, _| head.job(job).is_some_and(|row| row.phase.is_over())).await
    }

    async fn end(&self, job: JobId, driver: NodeUid) {
        let end =
            |head: &mut mobula_head::Head, moment| head.driver_ended(job, driver, DriverStatus::Succeeded, moment);
        self.head.keeper.decide(end).await.expect("it drives");
    }

    /// A node says that a process has printed this, in its name or that of another.
    async fn prints(
        &self,
        asker: &Joined,
        node: NodeUid,
        job: JobId,
        source: &str,
        number: u64,
    ) -> Result<(), ControlError> {
        let part = LogPart { source: source.to_owned(), bytes: format!("{number}\n").into_bytes(), number };
        self.ask(asker, AppendLog { node, job, part }).await
    }

    fn printed(&self, job: JobId) -> String {
        let mut reader = self.head.logs.read(job, 0).expect("there");
        let mut text = String::new();
        while let Some(part) = self.head.logs.next(job, &mut reader).expect("readable") {
            text.push_str(std::str::from_utf8(&part.bytes).expect("text"));
        }
        text
    }

    async fn hand_in(&self, person: &Joined, fill: u8, bytes: usize) -> Result<Executable, ControlError> {
        let mut file = tempfile::tempfile().expect("a file");
        // A script, as far as anybody looks.
        file.write_all(b"#!").and_then(|()| file.write_all(&vec![fill; bytes - 2])).expect("room");
        let executable = identify(&mut file).expect("readable");
        let part = Part::read(&mut file, 0).expect("readable");
        self.ask(person, PutExecutable { executable, part }).await.map(|()| executable)
    }

    /// What was used just now stays in any case: this was not.
    fn was_used_long_ago(&self, program: &Executable) {
        let path = self.head.programs.find(program).expect("kept");
        let old = std::time::SystemTime::now() - HOUR;
        fs::File::open(path).and_then(|file| file.set_modified(old)).expect("its own");
    }

    /// Resolves when the life is on the list of those cut off.
    async fn until_revoked(&self, life: NodeUid) {
        let mut revoked = self.head.revoked.subscribe();
        within(async {
            while !self.head.identity.is_revoked(life) {
                revoked.changed().await.expect("the head lives");
            }
        })
        .await;
    }
}

fn registration(uid: NodeUid, name: &str, replaces: Option<NodeUid>) -> Registration {
    Registration {
        uid,
        name: name.into(),
        address: "127.0.0.1:1".to_owned(),
        resources: Resources::default(),
        labels: Labels::new(),
        cores: 1,
        version: "0".to_owned(),
        architecture: host::architecture(),
        running: Running::default(),
        replaces,
        number: 1,
    }
}

fn is_not_heard<T>(answer: Result<T, ControlError>) -> bool {
    matches!(answer.err(), Some(ControlError::Broken { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_has_come_back_as_another_is_heard_no_more() {
    let house = House::open().await;
    let first = house.joined(Role::Worker).await;
    house.register(&first, "node", None).await.expect("a node");
    let second = house.returned(&first).await;
    assert!(is_not_heard(house.register(&first, "node", None).await));
    let third = house.returned(&second).await;
    assert!(is_not_heard(house.register(&second, "node", Some(first.uid)).await));
    assert_eq!(house.phase_of(second.uid).await, None);
    // What the first had is its successor's at once.
    house.register(&third, "node", Some(first.uid)).await.expect("the newest of its line");
    assert_eq!(house.phase_of(first.uid).await, Some(NodePhase::Down));
    let fourth = house.returned(&third).await;
    house.register(&fourth, "node", Some(third.uid)).await.expect("the newest of its line");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_life_of_a_node_that_is_removed_is_left_to_it() {
    let house = House::open().await;
    let (first, other) = (house.joined(Role::Worker).await, house.joined(Role::Worker).await);
    house.register(&first, "node", None).await.expect("a node");
    house.register(&other, "other", None).await.expect("a node");
    let second = house.returned(&first).await;
    let third = house.returned(&second).await;
    house.head.remove_node(first.uid, UnixTime::now()).await.expect("it is up");
    for life in [&first, &second, &third] {
        assert!(is_not_heard(house.register(life, "again", None).await), "{}", life.uid);
        let key = NextKey::open(&house.place.path().join("next"), life).expect("room");
        assert!(within(come_back(house.address, life, &key)).await.is_err(), "{}", life.uid);
        key.has_served();
    }
    // The others are none the worse for it.
    let again = house.returned(&other).await;
    house.register(&again, "other", Some(other.uid)).await.expect("it was not removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_replaces_no_life_of_another_line() {
    let house = House::open().await;
    let (node, other) = (house.joined(Role::Worker).await, house.joined(Role::Worker).await);
    house.register(&node, "node", None).await.expect("a node");
    let refused = house.register(&other, "node", Some(node.uid)).await;
    let Err(ControlError::Refused(Refusal::Head(Refused::NameInUse { holder, .. }))) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((holder, house.phase_of(node.uid).await), (node.uid, Some(NodePhase::Joining)));
    // The head's own host holds the key of all certificates.
    let own = registration(NodeUid(7), "head", Some(NodeUid(6)));
    assert_eq!(house.head.answers().proven(&Peer::local(), own).expect("of this host").replaces, Some(NodeUid(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_cut_off_with_its_drivers_also_where_half_of_it_was_done() {
    let house = House::open().await;
    let now = UnixTime::now();
    let (person, other) = (house.joined(Role::Client).await, house.joined(Role::Client).await);
    let (over, ended) = house.driver_of(&person, 1).await;
    house.end(over, ended).await;
    assert!(house.is_over(over).await);
    let (running, drives) = house.driver_of(&person, 2).await;
    let (others, goes_on) = house.driver_of(&other, 3).await;
    assert_eq!(house.head.revoke_credential(NodeUid(7), now).await, Ok(false));
    // As far as a head came that was killed.
    assert!(house.head.identity.revoke_credential(person.uid, now).expect("written"));
    assert_eq!(house.head.revoke_credential(person.uid, now).await, Ok(true));
    assert!(house.is_over(running).await && !house.is_over(others).await);
    for driver in [ended, drives] {
        house.until_revoked(driver).await;
    }
    assert!(!house.head.identity.is_revoked(goes_on));
    let refused = house.ask(&person, mobula_control::View {}).await.map(drop);
    assert!(matches!(refused, Err(ControlError::Refused(Refusal::Unauthorized { .. }))), "{refused:?}");
}

#[test]
fn a_head_that_begins_ends_the_drivers_of_those_who_are_cut_off() {
    let place = Arc::new(tempfile::tempdir().expect("a directory"));
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let first = life();
    let (job, driver) = first.block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        let person = house.joined(Role::Client).await;
        let begun = house.driver_of(&person, 1).await;
        assert!(house.head.identity.revoke_credential(person.uid, UnixTime::now()).expect("written"));
        assert!(!house.is_over(begun.0).await);
        begun
    });
    // With all that holds its records.
    first.shutdown_timeout(Duration::from_secs(60));
    life().block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        assert!(house.is_over(job).await);
        house.until_revoked(driver).await;
    });
}

fn is_unauthorized<T>(answer: Result<T, ControlError>) -> bool {
    matches!(answer.err(), Some(ControlError::Refused(Refusal::Unauthorized { .. })))
}

#[test]
fn a_node_speaks_for_its_own_processes_alone_and_the_next_head_takes_nothing_twice() {
    let place = Arc::new(tempfile::tempdir().expect("a directory"));
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let first = life();
    let (node, job) = first.block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        let (person, node) = (house.joined(Role::Client).await, house.joined(Role::Worker).await);
        let other = house.joined(Role::Worker).await;
        house.register(&node, "node", None).await.expect("a node");
        let (job, driver) = house.driver_of(&person, 1).await;
        house.register(&other, "other", None).await.expect("a node");
        let own = "worker-0 on node";
        house.prints(&node, node.uid, job, own, 1).await.expect("its own worker");
        house.prints(&other, other.uid, job, "worker-1 on other", 1).await.expect("its own worker");
        assert!(is_unauthorized(house.prints(&node, other.uid, job, own, 2).await), "for another node");
        for source in ["driver", "worker-1 on other", "worker-0 on other", "worker-2 on node", "anything"] {
            assert!(is_unauthorized(house.prints(&node, node.uid, job, source, 2).await), "{source}");
        }
        assert!(is_unauthorized(house.prints(&person, node.uid, job, own, 2).await), "no node at all");
        let unknown = house.prints(&node, node.uid, JobId(77), own, 2).await;
        let no_job = matches!(unknown, Err(ControlError::Refused(Refusal::Head(Refused::NoSuchJob { .. }))));
        assert!(no_job && !place.path().join("home/logs/job-77.log").exists(), "{unknown:?}");
        house.end(job, driver).await;
        let late = house.joined(Role::Worker).await;
        house.register(&late, "late", None).await.expect("a node");
        assert!(
            is_unauthorized(house.prints(&late, late.uid, job, "worker-0 on late", 1).await),
            "it never had the job"
        );
        house.prints(&node, node.uid, job, own, 2).await.expect("what has ended may be heard late");
        assert_eq!(house.printed(job), "1\n1\n2\n");
        (node, job)
    });
    first.shutdown_timeout(Duration::from_secs(60));
    life().block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        // It has not heard that the head has it.
        house.prints(&node, node.uid, job, "worker-0 on node", 2).await.expect("before it has come back");
        house.prints(&node, node.uid, job, "worker-0 on node", 3).await.expect("also what is new");
        assert_eq!(house.printed(job), "1\n1\n2\n3\n");
    });
}

#[test]
fn programs_of_jobs_that_are_not_over_stay_also_with_the_next_head() {
    let place = Arc::new(tempfile::tempdir().expect("a directory"));
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let is_full = |answer: &Result<_, ControlError>| {
        matches!(answer, Err(ControlError::Refused(Refusal::Head(Refused::Full { limit: PROGRAMS, .. }))))
    };
    let first = life();
    let (person, program, job, driver) = first.block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        let person = house.joined(Role::Client).await;
        let program = house.hand_in(&person, 1, 600).await.expect("room");
        let (job, driver) = house.driver_with(&person, 1, program).await;
        house.was_used_long_ago(&program);
        let refused = house.hand_in(&person, 2, 600).await;
        assert!(is_full(&refused), "{refused:?}");
        (person, program, job, driver)
    });
    first.shutdown_timeout(Duration::from_secs(60));
    life().block_on(async {
        let house = House::of(Arc::clone(&place)).await;
        house.was_used_long_ago(&program);
        let refused = house.hand_in(&person, 2, 600).await;
        assert!(is_full(&refused), "{refused:?}");
        assert!(house.head.programs.find(&program).is_some());
        house.end(job, driver).await;
        house.was_used_long_ago(&program);
        house.hand_in(&person, 2, 600).await.expect("the job is over");
        assert!(house.head.programs.find(&program).is_none());
    });
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_whether_a_node_runs_keeps_none_from_its_start() {
    let place = tempfile::tempdir().expect("a directory");
    let home = Home::create(&place.path().join("home")).expect("made");
    drop(bind(&home).await.expect("free"));
    // As `Home::is_running` has it, and for longer.
    let looking = fs::File::open(home.file(SOCKET).with_extension("lock")).expect("left there");
    looking.try_lock_shared().expect("free");
    let looks = tokio::spawn(async move {
        tokio::time::sleep(LOCK_REST * 3).await;
        drop(looking);
    });
    let bound = bind(&home).await.expect("free again");
    looks.await.expect("it has looked");
    assert!(matches!(bind(&home).await, Err(UnixError::InUse { .. })), "whose it is keeps it");
    drop(bound);
}
