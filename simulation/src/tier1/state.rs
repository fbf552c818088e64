//! What is known of the world that runs on this thread: its judge, its nodes' lives, who may be called.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use mobula::{NodeId, NodeUid};
use mobula_actors::MonitorRef;

use super::NAMES_AFTER;
use super::net::Streams;
use crate::fact::{Fact, HowEnded, LifeId, News, Op, Verdict};
use crate::judge::Judge;
use crate::ledger::Entry;
use crate::oracles::{Rest, ServicesRest};
use crate::params::{CallParams, Fault, FaultParams, Params, SECOND, Time};
use crate::random::Random;
use crate::reach::Branch;
use crate::world::Report;

/// A panic with this text is part of the plan.
pub(super) const PLANNED_PANIC: &str = "as planned";

struct State {
    params: Arc<Params>,
    judge: Judge,
    /// Time never goes back, although hosts of one step run after each other.
    clock: Time,
    lives: Vec<Life>,
    /// Lives of each actor so far, and how many of them a panic has ended.
    made: BTreeMap<(LifeId, u64), u32>,
    /// How the present life of an actor ends, where it has said so.
    ends: BTreeMap<(LifeId, u64), HowEnded>,
    /// Who has ended for good, and when.
    over: BTreeMap<(LifeId, u64), Time>,
    /// Who acts under which name of which head, since when.
    acting: BTreeMap<(LifeId, u8), (LifeId, u64, Time)>,
    /// The token that was given last.
    fences: BTreeMap<(LifeId, u8), u64>,
    /// What was wrong with the names that the head knew at last.
    names: Option<ServicesRest>,
    /// Nodes whose present life has lost its lease.
    fenced: Vec<u8>,
    /// When the last of them did.
    fenced_at: Time,
    monitors: u32,
    monitors_by_ref: BTreeMap<MonitorRef, u32>,
    nonces: Random,
}

struct Life {
    node: u8,
    id: NodeId,
    /// The life of its head.
    head: Option<LifeId>,
    up: bool,
    /// It is about to end, and has said so.
    leaves: bool,
    /// Its actors are being ended by it.
    over: bool,
    /// References to its actors, as they travel; empty before it is ready.
    actors: Vec<Vec<u8>>,
    streams: Arc<Streams>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// None once the world is over, when what is left of it is dropped.
fn with<T>(act: impl FnOnce(&mut State) -> T) -> Option<T> {
    STATE.with(|state| Some(act(state.try_borrow_mut().ok()?.as_mut()?)))
}

pub(super) fn begin(params: &Params, traced: bool) {
    watch_panics();
    let state = State {
        params: Arc::new(params.clone()),
        judge: Judge::new(traced),
        clock: 0,
        lives: Vec::new(),
        made: BTreeMap::new(),
        ends: BTreeMap::new(),
        over: BTreeMap::new(),
        acting: BTreeMap::new(),
        fences: BTreeMap::new(),
        names: None,
        fenced: Vec::new(),
        fenced_at: 0,
        monitors: 0,
        monitors_by_ref: BTreeMap::new(),
        nonces: Random::new(params.seed),
    };
    STATE.set(Some(state));
}

pub(super) fn end() -> Report {
    let Some(State { judge, clock, lives, .. }) = STATE.take() else { panic!("a world that never began ends") };
    lives.iter().for_each(|life| life.streams.end());
    Report {
        hash: judge.hash(),
        lasted: clock,
        facts: judge.facts,
        calls: judge.ledger.calls.len() as u64,
        violation: judge.violation,
        reached: judge.reached,
        lines: judge.lines.unwrap_or_default(),
    }
}

/// Tasks of a host swallow their panics; the oracle for them hears of those that nobody planned.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
            if text == PLANNED_PANIC {
                return;
            }
            if with(|_| ()).is_some() {
                accuse(
                    "I31 no peer input panics",
                    format!("{text} at {:?}", panic.location().map(ToString::to_string)),
                );
            } else {
                before(panic);
            }
        }));
    });
}

impl State {
    fn now(&mut self) -> Time {
        let told = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_micros() as Time);
        self.clock = self.clock.max(told);
        self.clock
    }

    fn fact(&mut self, fact: Fact) {
        let now = self.now();
        let params = Arc::clone(&self.params);
        self.judge.fact(fact, &params, now);
    }
}

pub(super) fn fact(fact: Fact) {
    with(|state| state.fact(fact));
}

pub(super) fn reach(branch: Branch) {
    with(|state| state.judge.reach(branch));
}

pub(super) fn accuse(promise: &'static str, what: String) {
    with(|state| {
        let now = state.now();
        state.judge.accuse(Some((promise, what)), now);
    });
}

pub(super) fn set_clock(now: Time) {
    with(|state| state.clock = state.clock.max(now));
}

pub(super) fn now() -> Time {
    with(State::now).unwrap_or(0)
}

pub(super) fn params() -> Arc<Params> {
    with(|state| Arc::clone(&state.params)).unwrap_or_else(|| Arc::new(super::draw(0)))
}

pub(super) fn is_violated() -> bool {
    with(|state| state.judge.violation.is_some()).unwrap_or(true)
}

/// The node that a life with this uid is of.
pub(super) fn node_of(uid: NodeUid) -> Option<u8> {
    with(|state| state.lives.iter().find(|life| life.id.uid == uid).map(|life| life.node)).flatten()
}

/// For the next handshake. What a connection draws from depends on it.
pub(super) fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    with(|state| {
        for part in nonce.chunks_mut(8) {
            part.copy_from_slice(&state.nonces.bits().to_be_bytes());
        }
    });
    nonce
}

/// Calls that are still owed an outcome.
pub(super) fn owed() -> usize {
    with(|state| state.judge.ledger.owed().count()).unwrap_or(0)
}

pub(super) fn rest(rest: &Rest) {
    with(|state| {
        let now = state.now();
        let params = Arc::clone(&state.params);
        state.judge.rest(rest, &params, now);
    });
}

// Lives of nodes.

/// The number of the next life, and its seed.
pub(super) fn next_life() -> (LifeId, u64) {
    let next = |state: &mut State| {
        let life = state.lives.len() as LifeId;
        (life, Random::new(state.params.seed ^ (u64::from(life) << 40)).bits())
    };
    with(next).unwrap_or_default()
}

pub(super) fn node_up(node: u8, id: &NodeId) {
    with(|state| {
        let life = state.lives.len() as LifeId;
        let head = if node == 0 { Some(life) } else { head_of(state) };
        state.lives.push(Life {
            node,
            id: id.clone(),
            head,
            up: true,
            leaves: false,
            over: false,
            actors: Vec::new(),
            streams: Arc::default(),
        });
        state.fact(Fact::NodeUp { life, node, uid: id.uid.0 });
    });
}

/// Its calls end with it.
pub(super) fn node_down(node: u8, silent: bool) {
    with(|state| {
        let Some(life) = state.lives.iter().rposition(|life| life.node == node && life.up) else { return };
        state.lives[life].up = false;
        state.lives[life].streams.end();
        let life = life as LifeId;
        state.fact(Fact::NodeDown { life, silent });
        let open: Vec<Op> =
            state.judge.ledger.open.iter().copied().filter(|op| state.judge.ledger.call(*op).caller == life).collect();
        for op in open {
            state.fact(Fact::Resolved { op, verdict: Verdict::Orphaned });
        }
    });
}

/// The life says that it is about to end.
pub(super) fn drain_begins(life: LifeId) {
    with(|state| {
        state.lives[life as usize].leaves = true;
        state.fact(Fact::DrainBegins { life });
    });
}

/// It ends.
pub(super) fn drain_ends(life: LifeId) {
    with(|state| {
        state.lives[life as usize].over = true;
        state.fact(Fact::DrainEnds { life });
    });
}

/// True if the life that runs on this node is about to end.
pub(super) fn leaves(node: u8) -> bool {
    with(|state| state.lives.iter().any(|life| life.node == node && life.up && life.leaves)).unwrap_or(false)
}

pub(super) fn is_up(life: LifeId) -> bool {
    with(|state| state.lives[life as usize].up).unwrap_or(false)
}

/// Those of a life; of none that anybody asks for once the world is over.
pub(super) fn streams_of(life: LifeId) -> Arc<Streams> {
    with(|state| Arc::clone(&state.lives[life as usize].streams)).unwrap_or_default()
}

pub(super) fn ready(life: LifeId, actors: Vec<Vec<u8>>) {
    with(|state| state.lives[life as usize].actors = actors);
}

/// The lives of other nodes that are up.
pub(super) fn others(node: u8) -> Vec<(LifeId, u8, NodeId)> {
    let others = |state: &mut State| {
        let lives = state.lives.iter().enumerate().filter(|(_, life)| life.up && life.node != node);
        lives.map(|(number, life)| (number as LifeId, life.node, life.id.clone())).collect()
    };
    with(others).unwrap_or_default()
}

/// A reference to the actor that a plan is about, as it travels: of the newest life of its node that was ready, or of the
/// one before.
pub(super) fn actor_for(plan: &CallParams) -> Option<Vec<u8>> {
    with(|state| {
        let mut lives = state.lives.iter().rev().filter(|life| life.node == plan.target && !life.actors.is_empty());
        let newest = lives.next()?;
        let life = if plan.stale { lives.next().unwrap_or(newest) } else { newest };
        life.actors.get(usize::from(plan.actor) % life.actors.len()).cloned()
    })?
}

pub(super) fn life_of(id: &NodeId) -> Option<LifeId> {
    with(|state| state.lives.iter().position(|life| life.id == *id))?.map(|life| life as LifeId)
}

// Actors.

/// A life of an actor begins.
pub(super) fn actor_made(life: LifeId, actor: u64) {
    with(|state| {
        let lives = state.made.entry((life, actor)).or_insert(0);
        *lives += 1;
        if *lives > 1 {
            state.judge.reach(Branch::MailKept);
            state.fact(Fact::ActorBack { life, actor, mail: 0 });
        }
    });
}

/// A panic ends the present life of an actor.
pub(super) fn actor_fails(life: LifeId, actor: u64) {
    with(|state| {
        state.ends.insert((life, actor), HowEnded::Failed);
        state.fact(Fact::ActorFailed { life, actor, mail: 0 });
    });
}

/// An actor stops itself.
pub(super) fn stops(life: LifeId, actor: u64, how: HowEnded) {
    with(|state| _ = state.ends.entry((life, actor)).or_insert(how));
}

/// The worker with this number of a life, as its reference travels.
pub(super) fn actor_of(life: LifeId, number: u8) -> Option<Vec<u8>> {
    with(|state| {
        let actors = &state.lives[life as usize].actors;
        actors.get(usize::from(number) % actors.len().max(1)).cloned()
    })?
}

// Names.

fn head_of(state: &State) -> Option<LifeId> {
    state.lives.iter().rposition(|life| life.node == 0 && life.up).map(|life| life as LifeId)
}

/// The node that keeps the names, if it is up.
pub(super) fn head() -> Option<NodeId> {
    with(|state| head_of(state).map(|head| state.lives[head as usize].id.clone()))?
}

/// A life of who has a name begins.
pub(super) fn name_begins(life: LifeId, actor: u64, name: u8, fence: u64) {
    with(|state| {
        let Some(head) = state.lives[life as usize].head else { return };
        let now = state.now();
        let before = state.acting.insert((head, name), (life, actor, now));
        let overlaps =
            before.is_some_and(|(other, one, _)| (other, one) != (life, actor) && state.lives[other as usize].up);
        let last = state.fences.insert((head, name), fence);
        if last.is_some_and(|last| last != fence) {
            state.judge.reach(Branch::NameHandedOn);
        }
        state.fact(Fact::NameGranted { head, life, actor, name, fence, overlaps });
    });
}

pub(super) fn name_serves(life: LifeId, actor: u64, name: u8, fence: u64) {
    with(|state| {
        if let Some(head) = state.lives[life as usize].head {
            state.fact(Fact::NameServed { head, life, actor, name, fence, leased: true });
        }
    });
}

/// A life of who has a name has ended.
pub(super) fn name_ends(life: LifeId, actor: u64, name: u8) {
    with(|state| {
        let Some(head) = state.lives[life as usize].head else { return };
        if state.acting.get(&(head, name)).is_some_and(|(other, one, _)| (*other, *one) == (life, actor)) {
            state.acting.remove(&(head, name));
        }
    });
}

/// A life has lost its lease, and is to end.
pub(super) fn fenced(life: LifeId) {
    with(|state| {
        let node = state.lives[life as usize].node;
        if !state.lives[life as usize].up {
            return;
        }
        state.judge.reach(Branch::FencedOff);
        // What this network loses is not sent again, so after that a connection of this life to the head is mute.
        let (now, from) = (state.now(), state.judge.ledger.lives[life as usize].from);
        let mute = |fault: &FaultParams| match fault.fault {
            Fault::Cut { a, b, lossy: true, .. } => {
                (a.min(b), a.max(b)) == (0, node) && fault.at <= now && fault.until >= from
            }
            _ => false,
        };
        if !state.params.faults.iter().any(mute) {
            state.fact(Fact::Fenced { life });
        }
        state.fenced.push(node);
        state.fenced_at = now;
    });
}

pub(super) fn take_fenced() -> Vec<u8> {
    with(|state| std::mem::take(&mut state.fenced)).unwrap_or_default()
}

/// How long to wait until the names are free that nobody holds any more. None if they have to be free now.
pub(super) fn names_free_in() -> Option<Time> {
    with(|state| {
        let free_at = state.params.healed_at().max(state.fenced_at) + NAMES_AFTER;
        Some(free_at.saturating_sub(state.now())).filter(|left| *left > 0)
    })?
}

/// The head knows these names at last: what is wrong with them now. Names that it should know and does not, and those of
/// actors that have ended.
pub(super) fn names_known(known: &[(u8, (LifeId, u64))]) {
    with(|state| {
        let Some(head) = head_of(state) else { return };
        let looked_at = state.now();
        let mut rest = ServicesRest { looked_at, ..ServicesRest::default() };
        for ((_, name), (life, actor, since)) in state.acting.iter().filter(|((of, _), _)| *of == head) {
            let settled = in_order(state, *life) && *since + SECOND < looked_at;
            if settled && !known.contains(&(*name, (*life, *actor))) {
                rest.lost_names.push((*life, *actor, *name));
            }
        }
        for (name, (life, actor)) in known {
            let ended = state.over.get(&(*life, *actor)).is_some_and(|at| at + 2 * SECOND < looked_at);
            if ended || !state.lives[*life as usize].up {
                rest.dead_names.push((*life, *actor, *name));
            }
        }
        state.names = Some(rest);
    });
}

/// False as long as the head has yet to be asked for its names.
pub(super) fn names_are_looked_at() -> bool {
    with(|state| !state.params.services || state.names.is_some()).unwrap_or(true)
}

pub(super) fn names_at_rest() -> ServicesRest {
    with(|state| state.names.clone()).flatten().unwrap_or_default()
}

/// An actor has ended for good.
pub(super) fn actor_over(life: LifeId, actor: u64) {
    with(|state| {
        let now = state.now();
        state.over.insert((life, actor), now);
        state.fact(Fact::ActorOver { life, actor });
    });
}

// Children of supervisors. When their node ends, nobody stops them in order.

fn in_order(state: &State, life: LifeId) -> bool {
    let life = &state.lives[life as usize];
    life.up && !life.over
}

/// A life of a child begins.
pub(super) fn child_begins(life: LifeId, child: u32) {
    with(|state| {
        state.fact(Fact::ChildStarts { life, child });
        state.fact(Fact::ChildRuns { life, child });
    });
}

/// A life of a child has ended.
pub(super) fn child_ends(life: LifeId, actor: u64, child: u32) {
    with(|state| {
        if !in_order(state, life) {
            return;
        }
        let how = state.ends.remove(&(life, actor)).unwrap_or(HowEnded::Told);
        if how == HowEnded::Told {
            state.judge.reach(Branch::SiblingStopped);
            state.fact(Fact::ChildStops { life, child });
        }
        if how != HowEnded::Failed
            && let Some(made) = state.made.get_mut(&(life, actor))
        {
            // Only lives after failures are counted.
            *made -= 1;
        }
        state.fact(Fact::ChildEnds { life, child, how });
    });
}

pub(super) fn supervisor_ends(life: LifeId, failed: bool) {
    with(|state| {
        if in_order(state, life) {
            if failed {
                state.judge.reach(Branch::SupervisorEnded);
            }
            state.fact(Fact::SupervisorEnds { life, failed });
        }
    });
}

/// Which life of the actor this is, from 0.
pub(super) fn generation(life: LifeId, actor: u64) -> u32 {
    with(|state| state.made.get(&(life, actor)).map_or(0, |lives| lives - 1)).unwrap_or(0)
}

// Calls.

pub(super) fn issue(plan: &Arc<CallParams>, caller: LifeId, target: (LifeId, u64)) -> Op {
    let issue = |state: &mut State| {
        let (now, op) = (state.now(), state.judge.ledger.calls.len() as Op);
        let deadline = plan.deadline.map(|after| now + after);
        state.judge.ledger.calls.push(Entry::issued(plan, caller, target, now, deadline));
        state.fact(Fact::Issued { op });
        state.judge.line(now, || {
            let (life, actor) = target;
            format!(
                "    #{op}: {:?} of life {caller} to actor {actor} of life {life}, message {}",
                plan.kind, plan.message
            )
        });
        op
    };
    with(issue).unwrap_or(Op::MAX)
}

pub(super) fn plan_of(op: Op) -> Option<Arc<CallParams>> {
    with(|state| state.judge.ledger.calls.get(op as usize).map(|call| Arc::clone(&call.plan)))?
}

/// The call has ended for its caller, unless its caller has ended before.
pub(super) fn resolved(op: Op, verdict: Verdict) {
    with(|state| {
        let call = state.judge.ledger.call(op);
        let orphaned = matches!(call.verdict, Some((_, Verdict::Orphaned)));
        if state.lives.get(call.target.0 as usize).is_some_and(|life| life.up && life.leaves) {
            match verdict {
                Verdict::Unreachable { sent: false } => state.judge.reach(Branch::TurnedAway),
                Verdict::Replied { .. } => state.judge.reach(Branch::FinishedInDrain),
                _ => {}
            }
        }
        if !orphaned {
            state.fact(Fact::Resolved { op, verdict });
        }
    });
}

/// Nobody waits for the call any more.
pub(super) fn given_up(op: Op) {
    let open = with(|state| state.judge.ledger.open.contains(&op)).unwrap_or(false);
    if open {
        resolved(op, Verdict::Cancelled);
    }
}

// Monitors.

pub(super) fn monitor_set(life: LifeId, target: (LifeId, u64), by_message: Option<MonitorRef>) -> u32 {
    let set = |state: &mut State| {
        let monitor = state.monitors;
        state.monitors += 1;
        if let Some(by_message) = by_message {
            state.monitors_by_ref.insert(by_message, monitor);
        }
        state.fact(Fact::MonitorSet { monitor, life, target: target.0, actor: target.1 });
        monitor
    };
    with(set).unwrap_or(0)
}

pub(super) fn monitor_fired(monitor: u32, news: News) {
    fact(Fact::MonitorFired { monitor, news });
}

pub(super) fn monitor_told(monitor: MonitorRef, news: News) {
    match with(|state| state.monitors_by_ref.get(&monitor).copied()).flatten() {
        Some(monitor) => monitor_fired(monitor, news),
        None => accuse("I4 a monitor fires once", format!("news of a monitor that was never set: {monitor}")),
    }
}
