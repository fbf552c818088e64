//! Those who use the cluster: drivers outside of it, people who submit jobs, and an operator. They ask with the real client, until they have an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{
    BeatDriver, BeginDriver, Client, ControlError, DrainNode, EndDriver, PlaceLease, Refusal, ReleaseLease, RemoveNode,
    StopJob, SubmitJob, WatchJob, follow,
};
use mobula_core::NodeUid;
use mobula_core::cluster::{
    DriverStatus, Executable, ExecutableHash, JobId, LeaseId, Place, PlaceStrategy, Placed, Refused,
};
use mobula_identity::Role;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::net::{Who, target};
use super::reach::Branch;
use super::state;
use crate::head::fact::Fact;
use crate::head::parts;
use crate::tier1::net::Streams;

const RETRY: Duration = Duration::from_millis(200);
const BEAT_EVERY: Duration = Duration::from_millis(500);
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// Requests for resources that wait at the same time.
const WAITING_MAX: usize = 6;
/// The operator's name in the network.
pub(super) const OPERATOR: &str = "operator";

/// The network's name of a client.
pub(super) fn name(number: u32) -> String {
    format!("client-{number}")
}

fn millis(low: u64, high: u64) -> Duration {
    state::draw(|random| Duration::from_millis(random.between(low, high)))
}

fn one_in(n: u64) -> bool {
    state::draw(|random| random.one_in(n))
}

fn executable() -> Executable {
    Executable { hash: ExecutableHash([0; 32]), bytes: 0 }
}

/// A client: one job after the other, until nothing goes wrong any more.
pub(super) async fn run(number: u32) -> turmoil::Result {
    let streams = Arc::new(Streams::default());
    let life = state::client_uid(number);
    let who = Who { role: Role::Client, life, line: life, job: None };
    sleep(millis(0, 3_000)).await;
    let mut request = 0;
    while !state::is_calm() {
        request += 1;
        let client = Client::new(target(who, &streams, None));
        if one_in(3) {
            submit(number, request, &client).await;
        } else {
            drive(number, request, &client, &streams).await;
        }
        sleep(millis(50, 1_000)).await;
    }
    std::future::pending().await
}

/// Submits a job, and stops it after a while.
async fn submit(number: u32, request: u64, client: &Client) {
    let submit = || SubmitJob {
        request,
        entrypoint: String::new(),
        executable: executable(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        resources: parts(0),
    };
    let asks = state::Asks::begin();
    let job = until_answered(|| client.ask_within(submit(), ASK_WITHIN)).await;
    drop(asks);
    let Ok(job) = job else { return };
    state::fact(Fact::JobGiven { client: number, request, job });
    sleep(millis(2_000, 40_000)).await;
    if state::is_calm() {
        return std::future::pending().await;
    }
    state::job_may_end(job);
    // What is asked at the end of all is not waited for.
    let _ = until_answered(|| client.ask_within(StopJob { job }, ASK_WITHIN)).await;
}

/// Drives a job from outside the cluster.
async fn drive(number: u32, request: u64, client: &Client, streams: &Arc<Streams>) {
    let begin = || BeginDriver {
        request,
        submitted: None,
        entrypoint: String::new(),
        executable: executable(),
        csr: Vec::new(),
    };
    let asks = state::Asks::begin();
    let begun = until_answered(|| client.ask_within(begin(), ASK_WITHIN)).await;
    drop(asks);
    let Ok(begun) = begun else { return };
    let job = begun.job;
    state::fact(Fact::JobGiven { client: number, request, job });
    let who = Who { role: Role::Process, life: begun.uid, line: begun.uid, job: Some(job) };
    let driver = Arc::new(Driver {
        job,
        uid: begun.uid,
        who,
        streams: Arc::clone(streams),
        has: Mutex::default(),
        waiting: Mutex::default(),
    });
    let mut ends_at = Instant::now() + millis(2_000, 40_000);
    if state::is_calm_after(ends_at.duration_since(Instant::now())) {
        ends_at += Duration::from_secs(24 * 3600);
    }
    // With it all that it does ends.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(Arc::clone(&driver).watch());
    let ended = tokio::select! {
        biased;
        () = driver.beat() => true,
        () = driver.work(&mut tasks) => true,
        () = sleep_until(ends_at) => false,
    };
    if ended {
        return;
    }
    state::job_may_end(job);
    tasks.shutdown().await;
    if one_in(3) {
        // It is killed, and says nothing.
        return;
    }
    let client = driver.client();
    let end = || EndDriver { job, driver: driver.uid, status: DriverStatus::Succeeded };
    let _ = until_answered(|| client.ask_within(end(), ASK_WITHIN)).await;
}

/// Asks until there is an answer, or a refusal that will stay so.
async fn until_answered<T>(ask: impl AsyncFn() -> Result<T, ControlError>) -> Result<T, ControlError> {
    loop {
        match ask().await {
            Err(error) if !error.is_final() => sleep(RETRY).await,
            answered => return answered,
        }
    }
}

struct Driver {
    job: JobId,
    uid: NodeUid,
    who: Who,
    streams: Arc<Streams>,
    has: Mutex<BTreeMap<LeaseId, NodeUid>>,
    waiting: Mutex<usize>,
}

impl Driver {
    fn client(&self) -> Client {
        Client::new(target(self.who, &self.streams, None))
    }

    /// Says that it lives, until its job is over.
    async fn beat(&self) {
        let client = self.client();
        loop {
            let sent = state::now();
            match client.ask_within(BeatDriver { job: self.job, driver: self.uid }, 2 * BEAT_EVERY).await {
                Ok(()) => state::job_heard(self.job, sent),
                Err(ControlError::Refused(Refusal::Head(Refused::JobEnded { .. } | Refused::NoSuchJob { .. }))) => {
                    state::fact(Fact::JobHasEnded { job: self.job });
                    return;
                }
                Err(_) => {}
            }
            sleep(BEAT_EVERY).await;
        }
    }

    /// Follows its job.
    async fn watch(self: Arc<Self>) {
        let client = self.client();
        follow(&client, WatchJob { job: self.job }, |view| {
            let Some(view) = view else { return false };
            state::reach(Branch::JobSeen);
            if view.phase.is_over() {
                state::fact(Fact::JobHasEnded { job: self.job });
            }
            true
        })
        .await;
    }

    /// Asks for resources, and gives them back. Once nothing goes wrong any more it asks for no more.
    async fn work(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        for number in 1.. {
            sleep(millis(50, 700)).await;
            while tasks.try_join_next().is_some() {}
            if one_in(2) && !state::is_calm() && *self.waiting.lock() < WAITING_MAX {
                tasks.spawn_local(Arc::clone(self).place(self.place_for(number)));
            }
            let returned = one_in(3) && !state::is_late();
            if let Some((lease, _)) = returned.then(|| self.has.lock().pop_first()).flatten() {
                tasks.spawn_local(Arc::clone(self).give_back(lease));
            }
        }
    }

    fn place_for(&self, number: u64) -> Place {
        state::draw(|random| Place {
            lease: LeaseId { job: self.job, number },
            resources: parts(random.pick(&[0, 2_500, 10_000, 25_000, 40_000])),
            strategy: if random.one_in(3) { PlaceStrategy::Spread } else { PlaceStrategy::Default },
            near: None,
            wait: Duration::from_secs(random.below(8)),
            for_new_nodes: random.one_in(2),
            isolated: random.one_in(3),
        })
    }

    async fn place(self: Arc<Self>, place: Place) {
        *self.waiting.lock() += 1;
        state::fact(Fact::LeaseAsked { lease: place.lease, parts: place.resources.cpus.as_parts() });
        let client = self.client();
        let answer =
            until_answered(|| client.ask_within(PlaceLease { place: place.clone() }, place.wait + ASK_WITHIN)).await;
        *self.waiting.lock() -= 1;
        match answer {
            Ok(Placed { lease, node, .. }) => {
                self.has.lock().insert(lease, node);
                state::fact(Fact::LeaseGiven { lease, node, parts: place.resources.cpus.as_parts() });
            }
            Err(_) => state::reach(Branch::NoRoom),
        }
    }

    async fn give_back(self: Arc<Self>, lease: LeaseId) {
        state::fact(Fact::LeaseReturned { lease, done: false });
        let client = self.client();
        let asks = state::Asks::begin();
        let released = until_answered(|| client.ask_within(ReleaseLease { lease }, ASK_WITHIN)).await;
        drop(asks);
        if matches!(released, Ok(()) | Err(ControlError::Refused(Refusal::Head(Refused::NoSuchJob { .. })))) {
            state::fact(Fact::LeaseReturned { lease, done: true });
        }
    }
}

/// Drains and removes nodes, as it is told.
pub(super) async fn operate() -> turmoil::Result {
    let life = state::client_uid(u32::MAX);
    let who = Who { role: Role::Operator, life, line: life, job: None };
    let client = Client::new(target(who, &Arc::new(Streams::default()), None));
    loop {
        while let Some((node, within)) = state::next_order() {
            // Whether it was done is not known to somebody who has no answer.
            match within {
                Some(within) => drop(client.ask_within(DrainNode { node, within }, ASK_WITHIN).await),
                None => drop(client.ask_within(RemoveNode { node }, ASK_WITHIN).await),
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}
