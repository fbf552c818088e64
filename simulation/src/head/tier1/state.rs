//! What is known of the world that runs on this thread: the head's records, the lives of nodes and what runs on them, and what has happened.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use mobula_control::Refusal;
use mobula_core::NodeUid;
use mobula_core::cluster::{DeathProof, JobId, JobRow, NodeRow, Refused, UnixTime};
use mobula_daemon::private::{End, Keeper};
use mobula_head::Head;
use mobula_head::store::{Clock, Kill, MemoryStore};
use tokio::sync::watch;

use super::Params;
use super::campaign::{Counts, Report};
use super::reach::{Branch, of_fact};
use crate::head::CALM;
use crate::head::fact::{Fact, RestHost, Role};
use crate::head::judge::Judge;
use crate::head::params::MS;
use crate::head::seen::{self, AtRest};
use crate::params::{SECOND, Time};
use crate::random::Random;
use crate::reach::Reached;
use crate::tier1::net::Streams;

/// A driver that had no answer for so long may be taken for dead: less than a lease.
const UNHEARD: Time = 7_500 * MS;

struct State {
    params: Params,
    judge: Judge,
    reached: Reached<Branch>,
    counts: Counts,
    /// Time never goes back, although hosts of one step run after each other.
    clock: Time,
    /// What hosts draw.
    random: Random,
    /// What the head draws.
    chance: Random,
    store: MemoryStore,
    head: Option<HeadLife>,
    /// Lives of the head's process so far.
    heads: u64,
    /// The head's process has ended itself.
    broken: bool,
    nodes: Vec<NodeLife>,
    /// Hosts whose daemons have ended by themselves.
    ended: Vec<u32>,
    down: BTreeSet<NodeUid>,
    cut: BTreeSet<NodeUid>,
    may_end: BTreeSet<NodeUid>,
    /// Drains, and when their time is over.
    drains: Vec<(Time, NodeUid)>,
    orders: Vec<(NodeUid, Option<Duration>)>,
    /// The newest that has come to the head from each life.
    said: BTreeMap<NodeUid, u64>,
    jobs: BTreeMap<JobId, Job>,
    /// Requests of clients without an answer.
    unanswered: u32,
}

struct HeadLife {
    streams: Arc<Streams>,
    keeper: Option<Arc<Keeper>>,
}

struct NodeLife {
    uid: NodeUid,
    host: u32,
    streams: Arc<Streams>,
    stop: watch::Sender<bool>,
    /// The head has taken it.
    taken: bool,
    up: bool,
    /// What the head has answered last was sent then.
    answered: Time,
    /// What runs on it.
    processes: BTreeMap<NodeUid, (JobId, Role)>,
}

struct Job {
    /// Its driver is outside of the cluster.
    outside: bool,
    /// When what its driver knows to be answered was sent, or the head has made it.
    heard: Time,
    may_end: bool,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// None once the world is over, when what is left of it is dropped.
fn with<T>(act: impl FnOnce(&mut State) -> T) -> Option<T> {
    STATE.with(|state| Some(act(state.try_borrow_mut().ok()?.as_mut()?)))
}

pub(super) fn begin(params: &Params, traced: bool) {
    let state = State {
        params: params.clone(),
        judge: Judge::new(traced),
        reached: Reached::default(),
        counts: Counts::default(),
        clock: 0,
        random: Random::new(params.seed ^ 0x686f_7374),
        chance: Random::new(params.seed ^ 0x6368_616e),
        store: MemoryStore::new(Clock::new(|| Duration::ZERO)),
        head: None,
        heads: 0,
        broken: false,
        nodes: Vec::new(),
        ended: Vec::new(),
        down: BTreeSet::new(),
        cut: BTreeSet::new(),
        may_end: BTreeSet::new(),
        drains: Vec::new(),
        orders: Vec::new(),
        said: BTreeMap::new(),
        jobs: BTreeMap::new(),
        unanswered: 0,
    };
    STATE.set(Some(state));
}

pub(super) fn end() -> Report {
    let Some(State { judge, reached, counts, clock, head, nodes, .. }) = STATE.take() else {
        panic!("a world that never began ends")
    };
    head.iter().for_each(|head| head.streams.end());
    nodes.iter().for_each(|node| node.streams.end());
    Report {
        violation: judge.violation,
        hash: judge.hash,
        facts: judge.facts,
        lasted: clock,
        counts,
        reached,
        lines: judge.lines.unwrap_or_default(),
    }
}

impl State {
    fn now(&mut self) -> Time {
        let told = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_micros() as Time);
        self.clock = self.clock.max(told);
        self.clock
    }

    fn fact(&mut self, fact: Fact) {
        let now = self.now();
        of_fact(&fact).into_iter().for_each(|branch| self.reached.reach(branch));
        match &fact {
            Fact::HeadEnds => self.counts.kills += 1,
            Fact::LeaseGiven { .. } => self.counts.leases += 1,
            Fact::Fenced { .. } => self.counts.fenced += 1,
            Fact::Begins { .. } => self.counts.processes += 1,
            _ => {}
        }
        self.judge.fact(&fact, now);
    }

    fn node(&mut self, uid: NodeUid) -> Option<&mut NodeLife> {
        self.nodes.iter_mut().rfind(|node| node.uid == uid)
    }

    fn life_on(&mut self, host: u32) -> Option<&mut NodeLife> {
        self.nodes.iter_mut().rfind(|node| node.host == host && node.up)
    }

    fn job_may_end(&mut self, job: JobId) {
        if self.jobs.get_mut(&job).is_none_or(|job| !std::mem::replace(&mut job.may_end, true)) {
            self.fact(Fact::JobMayEnd { job });
        }
    }

    fn node_may_end(&mut self, uid: NodeUid) {
        if self.may_end.insert(uid) {
            self.fact(Fact::NodeMayEnd { uid });
        }
    }

    fn process_ends(&mut self, node: NodeUid, process: NodeUid, told: bool) {
        let ended = self.node(node).and_then(|node| node.processes.remove(&process));
        if let Some((job, role)) = ended {
            self.fact(Fact::Ends { process, told });
            if role == Role::Driver {
                self.job_may_end(job);
            }
        }
    }

    fn processes_are_killed(&mut self, node: NodeUid) {
        let Some(life) = self.node(node) else { return };
        let processes: Vec<NodeUid> = life.processes.keys().copied().collect();
        processes.into_iter().for_each(|process| self.process_ends(node, process, false));
    }

    fn job_made(&mut self, job: JobId, outside: bool) {
        let heard = self.now();
        self.jobs.entry(job).or_insert(Job { outside, heard, may_end: false });
    }
}

pub(super) fn fact(fact: Fact) {
    with(|state| state.fact(fact));
}

pub(super) fn line(text: impl FnOnce() -> String) {
    with(|state| {
        let now = state.now();
        state.judge.line(now, text);
    });
}

pub(super) fn reach(branch: Branch) {
    with(|state| state.reached.reach(branch));
}

pub(super) fn accuse(promise: &'static str, what: String) {
    with(|state| {
        let now = state.now();
        state.judge.accuse(promise, what, now);
    });
}

pub(super) fn set_clock(now: Time) {
    with(|state| state.clock = state.clock.max(now));
}

pub(super) fn now() -> Time {
    with(State::now).unwrap_or(0)
}

pub(super) fn is_violated() -> bool {
    with(|state| state.judge.violation.is_some()).unwrap_or(true)
}

/// Draws for a host.
pub(super) fn draw<T>(draw: impl FnOnce(&mut Random) -> T) -> T {
    // Whoever draws after the end of the world is about to be dropped.
    let mut random = with(|state| Random::new(state.random.bits())).unwrap_or_else(|| Random::new(0));
    draw(&mut random)
}

/// True once nothing goes wrong any more.
pub(super) fn is_calm() -> bool {
    is_calm_after(Duration::ZERO)
}

pub(super) fn is_calm_after(after: Duration) -> bool {
    with(|state| state.now() + after.as_micros() as Time >= state.params.calm_at).unwrap_or(true)
}

/// True at the end of all: what is asked now may have no answer by then.
pub(super) fn is_late() -> bool {
    with(|state| state.now() + 5 * SECOND >= state.params.calm_at + CALM).unwrap_or(true)
}

// The head.

/// For the head's moments.
pub(super) fn chance() -> u64 {
    with(|state| state.chance.bits()).unwrap_or_default()
}

/// The world begins with the epoch.
pub(super) fn date() -> UnixTime {
    UnixTime(now() / SECOND)
}

/// Another process of the head begins with what is on disk.
pub(super) fn head_starts() -> (MemoryStore, Arc<Streams>) {
    let start = |state: &mut State| {
        state.store = state.store.reopen();
        state.heads += 1;
        state.broken = false;
        let streams = Arc::<Streams>::default();
        state.head = Some(HeadLife { streams: Arc::clone(&streams), keeper: None });
        (state.store.clone(), streams)
    };
    with(start).unwrap_or_else(|| (MemoryStore::new(Clock::new(|| Duration::ZERO)), Arc::default()))
}

/// It has read its records.
pub(super) fn head_begins(keeper: &Arc<Keeper>) {
    let known = keeper.look(|head, _| (seen::begins(head), head.jobs())).now_or_never();
    with(|state| {
        let Some((begins, rows)) = known else { return };
        for row in &rows {
            state.job_made(row.id, row.driver_node.is_none() && row.driver.is_some());
        }
        state.fact(begins);
        if let Some(head) = &mut state.head {
            head.keeper = Some(Arc::clone(keeper));
        }
        let calm = state.now() >= state.params.calm_at;
        if state.params.kill_one_in > 0 && !calm {
            let write = state.store.writes() + 1 + state.random.below(2 * state.params.kill_one_in);
            let before = state.random.one_in(2);
            state.store.kill_at(if before { Kill::Before(write) } else { Kill::After(write) });
        }
    });
}

/// It cannot write any more, and is to end.
pub(super) fn head_breaks() {
    with(|state| state.broken = true);
}

/// True once, when the head's process has ended itself.
pub(super) fn take_broken() -> bool {
    with(|state| std::mem::take(&mut state.broken)).unwrap_or(false)
}

/// Its process is about to be killed; true if there is one.
pub(super) fn head_ends() -> bool {
    let end = |state: &mut State| {
        let Some(head) = state.head.take() else { return false };
        head.streams.end();
        state.broken = false;
        state.fact(Fact::HeadEnds);
        true
    };
    with(end).unwrap_or(false)
}

/// It is not killed any more.
pub(super) fn spare_the_head() {
    with(|state| state.store.kill_at(Kill::Before(u64::MAX)));
}

/// How many processes of the head there were, if one runs.
pub(super) fn head_life() -> Option<u64> {
    with(|state| state.head.as_ref().map(|_| state.heads)).flatten()
}

fn look<T>(look: impl FnOnce(&Head, Duration) -> T) -> Option<T> {
    let keeper = with(|state| state.head.as_ref()?.keeper.clone()).flatten()?;
    keeper.look(look).now_or_never()
}

/// True if the head has not given that life up.
pub(super) fn is_believed(node: NodeUid) -> bool {
    look(|head, _| head.assignment(node).is_some()).unwrap_or(false)
}

/// The head sees this.
pub(super) fn see(nodes: &[NodeRow], jobs: &[JobRow]) {
    with(|state| {
        for row in nodes {
            let Some(proof) = row.death else { continue };
            if state.down.insert(row.uid) {
                let now = state.now();
                let undisturbed = state.node(row.uid).map(|node| now - node.answered);
                state.fact(Fact::Down { uid: row.uid, silence: proof == DeathProof::Silence, undisturbed });
            }
        }
        for row in jobs {
            let may_end = |node: NodeUid| state.may_end.contains(&node) || state.down.contains(&node);
            if row.driver_node.is_some_and(may_end) {
                state.job_may_end(row.id);
            }
        }
    });
}

/// A registration or a heartbeat was taken, or refused.
pub(super) fn said(uid: NodeUid, number: u64, old: Branch, refused: Option<&Refusal>) {
    with(|state| {
        let newest = state.said.entry(uid).or_default();
        let (is_old, is_news) = (number < *newest, number > *newest);
        *newest = number.max(*newest);
        if is_old {
            state.reached.reach(old);
        }
        match refused {
            None => state.fact(Fact::Accepted { uid, is_news }),
            Some(Refusal::Head(Refused::NameInUse { .. })) => state.reached.reach(Branch::NameInUse),
            Some(_) => {}
        }
    });
}

pub(super) fn cut_off(life: NodeUid) {
    with(|state| state.cut.insert(life));
}

pub(super) fn is_cut_off(life: NodeUid) -> bool {
    with(|state| state.cut.contains(&life)).unwrap_or(true)
}

// Nodes.

/// The line of the lives of a host.
pub(super) fn line_of(host: u32) -> NodeUid {
    NodeUid(u64::from(host) + 1)
}

pub(super) fn is_of_line(line: NodeUid, earlier: NodeUid) -> bool {
    with(|state| state.nodes.iter().any(|node| node.uid == earlier && line_of(node.host) == line)).unwrap_or(false)
}

/// A daemon begins: its life, and the life before, if the host remembers one.
pub(super) fn node_begins(host: u32, stop: watch::Sender<bool>) -> (NodeUid, Arc<Streams>, Option<NodeUid>) {
    let begin = |state: &mut State| {
        let uid = NodeUid(1_000 + state.nodes.len() as u64);
        let streams = Arc::<Streams>::default();
        let before = state.nodes.iter().rfind(|node| node.host == host && node.taken).map(|node| node.uid);
        let answered = state.now();
        state.nodes.push(NodeLife {
            uid,
            host,
            streams: Arc::clone(&streams),
            stop,
            taken: false,
            up: true,
            answered,
            processes: BTreeMap::new(),
        });
        (uid, streams, before)
    };
    with(begin).unwrap_or_else(|| (NodeUid(0), Arc::default(), None))
}

pub(super) fn node_is_taken(uid: NodeUid) {
    with(|state| {
        if let Some(node) = state.node(uid) {
            node.taken = true;
        }
    });
}

/// The head has answered what the node had sent at `asked`.
pub(super) fn answered(uid: NodeUid, asked: Time) {
    with(|state| {
        if let Some(node) = state.node(uid) {
            node.answered = node.answered.max(asked);
        }
    });
}

/// A daemon has come to its end by itself; whoever watches over it is to start it again.
pub(super) fn node_ends(uid: NodeUid, end: Option<End>) {
    with(|state| {
        let now = state.now();
        let Some(node) = state.node(uid) else { return };
        let (host, unanswered) = (node.host, now - node.answered);
        match end {
            Some(End::Fenced) => state.fact(Fact::Fenced { uid, unanswered }),
            Some(End::Left) => state.reached.reach(Branch::Left),
            None => {}
        }
        state.ended.push(host);
    });
}

/// Hosts whose daemons have ended by themselves.
pub(super) fn take_ended() -> Vec<u32> {
    with(|state| std::mem::take(&mut state.ended)).unwrap_or_default()
}

/// A daemon's process is about to end, with all that it has started. Its host may forget who it was.
pub(super) fn node_down(host: u32, forgets: bool) {
    with(|state| {
        let Some(life) = state.life_on(host) else { return };
        life.up = false;
        life.streams.end();
        let uid = life.uid;
        state.processes_are_killed(uid);
        state.node_may_end(uid);
        if forgets {
            state.nodes.iter_mut().filter(|node| node.host == host).for_each(|node| node.taken = false);
        }
    });
}

/// The daemon of a host is to stop.
pub(super) fn stop(host: u32) {
    with(|state| {
        let Some(life) = state.life_on(host) else { return };
        let (uid, stop) = (life.uid, life.stop.clone());
        state.node_may_end(uid);
        stop.send_replace(true);
    });
}

/// The life that a host believes in.
pub(super) fn believes(host: u32) -> Option<NodeUid> {
    with(|state| state.life_on(host).filter(|life| life.taken).map(|life| life.uid)).flatten()
}

pub(super) fn process_begins(host: u32, node: NodeUid, process: NodeUid, job: JobId, role: Role) {
    with(|state| {
        if let Some(life) = state.node(node) {
            life.processes.insert(process, (job, role));
        }
        state.fact(Fact::Begins { process, node, host, job, role });
    });
}

pub(super) fn process_acts(node: NodeUid, process: NodeUid) {
    with(|state| {
        if state.node(node).is_some_and(|life| life.processes.contains_key(&process)) {
            state.fact(Fact::Acts { process });
        }
    });
}

pub(super) fn process_ends(node: NodeUid, process: NodeUid, told: bool) {
    with(|state| state.process_ends(node, process, told));
}

/// All that run on a node, at once.
pub(super) fn processes_are_killed(node: NodeUid) {
    with(|state| state.processes_are_killed(node));
}

// Clients and the operator.

/// The life in a client's certificate.
pub(super) fn client_uid(number: u32) -> NodeUid {
    NodeUid(1_000_000 + u64::from(number))
}

/// The head has made a job, of which its client may never hear.
pub(super) fn job_made(job: JobId, outside: bool) {
    with(|state| state.job_made(job, outside));
}

/// A driver has its answer to what it sent at `sent`.
pub(super) fn job_heard(job: JobId, sent: Time) {
    with(|state| {
        if let Some(job) = state.jobs.get_mut(&job) {
            job.heard = job.heard.max(sent);
        }
    });
}

pub(super) fn job_may_end(job: JobId) {
    with(|state| state.job_may_end(job));
}

/// A request that waits for its answer.
pub(super) struct Asks;

impl Asks {
    pub(super) fn begin() -> Self {
        with(|state| state.unanswered += 1);
        Asks
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        with(|state| state.unanswered -= 1);
    }
}

/// The operator is to drain a node within that time, or to remove it.
pub(super) fn order(uid: NodeUid, within: Option<Duration>) {
    with(|state| {
        let now = state.now();
        match within {
            // Told when it is time, and not later.
            Some(within) => {
                let spent = (within.as_micros() as Time * 9 / 10).saturating_sub(200 * MS);
                state.drains.push((now + spent, uid));
            }
            None => state.node_may_end(uid),
        }
        state.orders.push((uid, within));
    });
}

pub(super) fn next_order() -> Option<(NodeUid, Option<Duration>)> {
    with(|state| state.orders.pop()).flatten()
}

/// What may end by now, since its time is over.
pub(super) fn let_end() {
    with(|state| {
        let now = state.now();
        let due = state.drains.extract_if(.., |(at, _)| *at <= now).map(|(_, uid)| uid).collect::<Vec<_>>();
        due.into_iter().for_each(|uid| state.node_may_end(uid));
        let unheard = |job: &Job| job.outside && !job.may_end && now - job.heard > UNHEARD;
        let silent: Vec<JobId> = state.jobs.iter().filter(|(_, job)| unheard(job)).map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|job| state.job_may_end(job));
    });
}

/// Everything has been quiet for long enough.
pub(super) fn rest() {
    let Some(AtRest { up, jobs, leases, isolated, kept, given }) = look(AtRest::of) else {
        return accuse("I13", "there is no head".to_owned());
    };
    with(|state| {
        let mut hosts = Vec::new();
        for host in 0..state.params.hosts {
            let life = state.life_on(host).filter(|life| life.taken);
            let (uid, processes) = life.map(|life| (life.uid, life.processes.clone())).unzip();
            let is_up = uid.is_some_and(|uid| up.contains(&uid));
            hosts.push(RestHost { host, uid, is_up, processes: processes.unwrap_or_default() });
        }
        let unanswered = state.unanswered;
        let served = BTreeMap::new();
        state.fact(Fact::Rest { hosts, jobs, leases, isolated, kept, served, given, unanswered });
    });
}
