//! A cluster in one thread and virtual time: the sessions, credits, handshakes and restart budgets are the real ones; the
//! network below and the actors above them are small models of what the other crates do.

mod actors;
mod back;
mod calls;
mod children;
mod clocks;
mod control;
mod ends;
mod faults;
mod items;
mod names;
mod net;
mod nodes;
mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use mobula_core::RequestId;
use mobula_transport::preface::Secret;

use crate::fact::{EndId, Fact, LifeId, Op};
use crate::judge::{Judge, Violation};
use crate::oracles::{Gauge, Rest, ServicesRest};
use crate::params::{CallParams, Ending, Kind, MS, Params, SECOND, Time};
use crate::random::Random;
use crate::reach::{Branch, Reached};
use clocks::Clocks;
use ends::End;
use net::{Pipe, Ways};
use nodes::{Life, Slot};

/// What came of a world.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// Of all facts and their times.
    pub hash: u64,
    /// How long the world lasted.
    pub lasted: Time,
    /// Facts.
    pub facts: u64,
    /// Calls made.
    pub calls: u64,
    /// Branches taken.
    pub reached: Reached,
    /// The trace, if it was wanted.
    pub lines: Vec<String>,
}

/// Runs the world of `params` until it rests or breaks a promise.
pub fn run(params: &Params, traced: bool) -> Report {
    let mut world = World::new(params, traced);
    world.run();
    Report {
        hash: world.judge.hash(),
        lasted: world.now,
        facts: world.judge.facts,
        calls: world.judge.ledger.calls.len() as u64,
        violation: world.judge.violation,
        reached: world.judge.reached,
        lines: world.judge.lines.unwrap_or_default(),
    }
}

/// What happens next. The order of the variants decides between events of one moment that were planned at the same time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    NodeStarts(u8),
    FaultBegins(u16),
    FaultEnds(u16),
    Call(u32),
    /// Bytes or an end have come to whoever writes this pipe, and reads the other one.
    Arrive(EndId),
    Drive(EndId),
    Timer(EndId),
    HandshakeOver(EndId),
    Turn(LifeId, u64),
    Done(LifeId, u64, u32),
    Reborn(LifeId, u64),
    Serve(LifeId, u32),
    LocalDeadline(Op),
    Cancel(Op),
    Demonitor(u32),
    Renew(LifeId),
    HeadTick(LifeId),
    Follow(LifeId, u8),
    Act(LifeId, u64),
    /// A request to the head once more.
    Again(LifeId, u32),
    /// The head hears that the process of the life with this uid has ended.
    Reaped(LifeId, u64),
    /// A node that has ended itself.
    ComesBack(u8),
    Flaps(u16),
    /// A producer goes on.
    Produce(EndId, u64),
    /// A reader takes an item.
    Take(Op),
    /// A handler goes on, for one that it asked has answered.
    Answered(LifeId, u64, u32),
    ChildStarted(LifeId, u32),
    ChildStopped(LifeId, u32),
    ChildTick(LifeId),
}

struct World<'a> {
    params: &'a Params,
    clocks: Clocks,
    now: Time,
    heap: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    random: Random,
    judge: Judge,
    slots: Vec<Slot>,
    lives: Vec<Life>,
    ends: Vec<End>,
    /// What an end sends, by the number of the end.
    pipes: Vec<Pipe>,
    ways: Ways,
    /// By call: the handler that waits for it, and its request.
    parents: Vec<Option<calls::Parent>>,
    requests: Vec<Option<RequestId>>,
    /// What follows on the answers of nodes.
    waits: BTreeMap<Op, control::Wait>,
    monitors: Vec<watch::Monitor>,
    /// Streams, by connection and request, and their readers.
    producers: BTreeMap<(EndId, u64), items::Producer>,
    readers: BTreeMap<Op, items::Reader>,
    /// The world has come to rest: nobody renews or asks any more.
    settled: bool,
    /// Flapping ways that are cut at present, by fault.
    flapping: std::collections::BTreeSet<u16>,
    rest: ServicesRest,
    secret: Secret,
    /// Handshakes as an eavesdropper has seen them, with the node that was dialled.
    overheard: Vec<(u8, [u8; mobula_transport::preface::DIAL_BYTES])>,
}

/// More events of one moment than any world needs: a timer that nothing serves.
const EVENTS_OF_ONE_MOMENT_MAX: u32 = 100_000;

impl<'a> World<'a> {
    fn new(params: &'a Params, traced: bool) -> Self {
        let nodes = usize::from(params.nodes);
        let mut world = World {
            params,
            clocks: Clocks::new(base(), params.clocks_ppm.clone()),
            now: 0,
            heap: BinaryHeap::new(),
            sequence: 0,
            random: Random::new(params.seed),
            judge: Judge::new(traced),
            slots: (0..nodes).map(|_| Slot::default()).collect(),
            lives: Vec::new(),
            ends: Vec::new(),
            pipes: Vec::new(),
            ways: Ways::new(nodes),
            parents: Vec::new(),
            requests: Vec::new(),
            waits: BTreeMap::new(),
            monitors: Vec::new(),
            producers: BTreeMap::new(),
            readers: BTreeMap::new(),
            settled: false,
            flapping: std::collections::BTreeSet::new(),
            rest: ServicesRest::default(),
            secret: Secret::from_bytes([7; 32]),
            overheard: Vec::new(),
        };
        for node in 0..params.nodes {
            world.plan(u64::from(node) * 10, Event::NodeStarts(node));
        }
        for (call, plan) in params.calls.iter().enumerate() {
            world.plan(plan.at, Event::Call(call as u32));
        }
        for (fault, plan) in params.faults.iter().enumerate() {
            world.plan(plan.at, Event::FaultBegins(fault as u16));
            world.plan(plan.until, Event::FaultEnds(fault as u16));
        }
        world
    }

    fn run(&mut self) {
        let healed_at = self.params.healed_at();
        let mut same_moment = 0;
        let mut rested_since = None;
        // Views have so long to converge.
        let quiet_at = if self.params.services { healed_at + 5 * SECOND } else { healed_at };
        while let Some(Reverse((at, _, event))) = self.heap.pop() {
            same_moment = if at == self.now { same_moment + 1 } else { 0 };
            if same_moment > EVENTS_OF_ONE_MOMENT_MAX {
                let what = format!("time stands still at {event:?}");
                self.judge.accuse(Some(("I14 timers return to baseline", what)), self.now);
            }
            self.now = at;
            self.happens(event);
            if self.judge.violation.is_some() {
                return;
            }
            if self.now <= quiet_at {
                continue;
            }
            let busy = self.judge.ledger.owed().next().is_some() || self.has_work();
            let settled =
                self.settled || (self.services_settled() && self.children_settled() && self.connections_settled());
            let busy = busy || !settled;
            if busy {
                rested_since = None;
                if self.now > healed_at + 31 * SECOND {
                    break;
                }
                continue;
            }
            let since = *rested_since.get_or_insert(self.now);
            let way = 4 * (self.params.latency + self.params.jitter);
            if !self.settled && self.now > since + SECOND + way {
                self.settle();
            }
            if self.now > since + 2 * SECOND + 2 * way && self.is_drained() {
                break;
            }
            if self.now > healed_at + 60 * SECOND {
                break;
            }
        }
        if !self.settled {
            self.settle();
        }
        let left = self.watchers_left() + self.followers_left();
        let services = ServicesRest { left, ..std::mem::take(&mut self.rest) };
        let rest = Rest { gauges: self.gauges(), unfinished: self.unfinished(), healed_at, services };
        self.judge.rest(&rest, self.params, self.now);
    }

    fn happens(&mut self, event: Event) {
        if let Some(node) = self.owner(event)
            && self.slots[usize::from(node)].paused > 0
        {
            self.slots[usize::from(node)].deferred.push(event);
            return;
        }
        if let Event::Drive(end) = event
            && self.ends[end as usize].is_data_session()
            && let Some(node) = self.owner(event)
            && self.slots[usize::from(node)].busy > 0
        {
            self.slots[usize::from(node)].waiting.push(event);
            return;
        }
        match event {
            Event::NodeStarts(node) => self.node_starts(node),
            Event::FaultBegins(fault) => self.fault_begins(fault),
            Event::FaultEnds(fault) => self.fault_ends(fault),
            Event::Call(call) => self.call(call),
            Event::Arrive(pipe) => self.arrives(pipe),
            Event::Drive(end) => self.drive(end),
            Event::Timer(end) => {
                if self.ends[end as usize].timer_at.is_some_and(|at| at <= self.now) {
                    self.ends[end as usize].timer_at = None;
                    self.wake(end);
                }
            }
            Event::HandshakeOver(end) => self.handshake_over(end),
            Event::Turn(life, actor) => self.turn_of(life, actor),
            Event::Done(life, actor, job) => self.work_done(life, actor, job),
            Event::Reborn(life, actor) => self.reborn(life, actor),
            Event::Serve(life, request) => self.serve(life, request),
            Event::LocalDeadline(op) => self.local_deadline(op),
            Event::Cancel(op) => self.cancel(op),
            Event::Demonitor(monitor) => self.demonitor(monitor),
            Event::Renew(life) if self.lives[life as usize].up => self.renew(life),
            Event::HeadTick(life) if self.lives[life as usize].up => self.head_tick(life),
            Event::Renew(_) | Event::HeadTick(_) => {}
            Event::Follow(life, group) => self.follow(life, group),
            Event::Act(life, actor) => self.act(life, actor),
            Event::Again(life, number) => self.again(life, number),
            Event::Reaped(life, uid) => self.reaped(life, uid),
            Event::ComesBack(node) => self.comes_back(node),
            Event::Flaps(fault) => self.flaps(fault),
            Event::Produce(end, request) => self.produce(end, request),
            Event::Take(op) => self.take_item(op),
            Event::Answered(life, actor, job) => self.child_answered((life, actor, job)),
            Event::ChildStarted(life, child) => self.child_started(life, child),
            Event::ChildStopped(life, child) => self.child_stopped(life, child),
            Event::ChildTick(life) => self.child_tick(life),
        }
    }

    /// The node that has to act for it to happen.
    fn owner(&self, event: Event) -> Option<u8> {
        let life = match event {
            Event::Drive(end) | Event::Timer(end) | Event::HandshakeOver(end) => self.ends[end as usize].life?,
            Event::Turn(life, _) | Event::Done(life, ..) | Event::Reborn(life, _) | Event::Serve(life, _) => life,
            Event::Answered(life, ..) => life,
            Event::LocalDeadline(op) | Event::Cancel(op) => self.judge.ledger.call(op).caller,
            Event::Call(call) => return Some(self.params.calls[call as usize].caller),
            Event::Renew(life) | Event::HeadTick(life) | Event::Follow(life, _) | Event::Act(life, _) => life,
            Event::Again(life, _) | Event::Reaped(life, _) => life,
            Event::ChildStarted(life, _) | Event::ChildStopped(life, _) | Event::ChildTick(life) => life,
            Event::Produce(end, _) => self.ends[end as usize].life?,
            Event::Take(op) => self.judge.ledger.call(op).caller,
            Event::Demonitor(monitor) => self.monitors[monitor as usize].life,
            Event::NodeStarts(_) | Event::FaultBegins(_) | Event::FaultEnds(_) | Event::Arrive(_) => return None,
            Event::ComesBack(_) | Event::Flaps(_) => return None,
        };
        Some(self.lives[life as usize].node)
    }

    fn plan(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((at.max(self.now), self.sequence, event)));
    }

    fn fact(&mut self, fact: Fact) {
        self.judge.fact(fact, self.params, self.now);
    }

    fn reach(&mut self, branch: Branch) {
        self.judge.reach(branch);
    }

    /// When something that `node` does at once is done.
    fn soon(&mut self, node: u8) -> Time {
        let slow = self.slots[usize::from(node)].slow;
        self.now + 1 + self.random.below(20) + self.random.below(slow)
    }

    fn has_work(&self) -> bool {
        self.lives.iter().filter(|life| life.up).any(Life::has_work)
    }

    fn unfinished(&self) -> Vec<Op> {
        self.lives.iter().filter(|life| life.up).flat_map(Life::unfinished).collect()
    }

    /// True at a moment at which no open end has anything to write, not even a heartbeat.
    fn is_drained(&self) -> bool {
        let open = self.ends.iter().filter(|end| end.over.is_none());
        open.filter_map(|end| end.session.as_ref()).all(|session| session.queued_bytes() == 0)
            || self.now > self.params.healed_at() + 50 * SECOND
    }

    /// Looks at what goes on while the world rests, and ends it. Returns all credit, as a node does when it forgets an actor.
    fn settle(&mut self) {
        self.rest = ServicesRest { looked_at: self.now, ..self.services_rest() };
        (self.rest.links, self.rest.connected) = self.links_rest();
        self.settled = true;
        self.stop_waiting();
        for end in 0..self.ends.len() {
            let (life, over) = (self.ends[end].life, self.ends[end].over);
            if over.is_some() || life.is_none_or(|life| !self.lives[life as usize].up) {
                continue;
            }
            let owed: Vec<_> =
                self.ends[end].flows.iter().filter_map(|(id, flow)| Some((*id, flow.credit.settle()?))).collect();
            for (target, count) in owed {
                self.grant(end as EndId, target, count);
            }
        }
    }

    fn gauges(&self) -> Vec<Gauge> {
        let open = |end: &EndId| {
            let end = &self.ends[*end as usize];
            end.over.is_none() && end.life.is_some_and(|life| self.lives[life as usize].up)
        };
        (0..self.ends.len() as EndId).filter(open).filter_map(|end| self.ends[end as usize].gauge(end)).collect()
    }
}

/// The world's clock has to begin somewhere; nothing depends on where.
fn base() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "an `Instant` can only be had from the clock; it is never read again"
    )]
    Instant::now()
}

/// The plan of a forged message.
fn no_plan() -> Arc<CallParams> {
    plan_of(Kind::Ask)
}

/// The plan of what no plan says: one of each kind that is needed, for the whole process.
fn plan_of(kind: Kind) -> Arc<CallParams> {
    static PLANS: LazyLock<[Arc<CallParams>; 3]> =
        LazyLock::new(|| [empty_plan(Kind::Ask), empty_plan(Kind::Tell), empty_plan(Kind::Control)]);
    Arc::clone(match kind {
        Kind::Tell => &PLANS[1],
        Kind::Control => &PLANS[2],
        _ => &PLANS[0],
    })
}

fn empty_plan(kind: Kind) -> Arc<CallParams> {
    Arc::new(CallParams {
        at: 0,
        caller: 0,
        target: 0,
        actor: 0,
        stale: false,
        kind,
        message: 0,
        deadline: Some(MS),
        padding: 0,
        work: 0,
        ending: Ending::Reply,
        nested: Vec::new(),
        cancel_after: None,
        burst: 1,
        items: 0,
        repeat: false,
    })
}
