//! Nodes: their lives, whom they are connected to, whom they have lost, and what they do themselves.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, CallError, LinkTable, NodeId, NodeUid, RequestId};
use mobula_transport::preface::Acceptor;
use mobula_transport::{Hello, Lane};

use super::actors::Actor;
use super::children::Supervisor;
use super::control::Told;
use super::ends::Reply;
use super::names::{Head, Member, Tenure};
use super::{Event, World};
use crate::fact::{Closure, EndId, Fact, LifeId, Op};
use crate::params::{Kind, Time};
use crate::reach::Branch;

/// A place for a node, with the life that runs there.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) life: Option<LifeId>,
    pub(super) paused: u32,
    pub(super) deferred: Vec<Event>,
    pub(super) slow: Time,
    /// What was here is gone without a word: nothing answers.
    pub(super) silent: bool,
    /// The threads of actors, which read data connections, are at work.
    pub(super) busy: u32,
    pub(super) waiting: Vec<Event>,
}

/// A life of a node.
pub(super) struct Life {
    pub(super) node: u8,
    pub(super) uid: u64,
    pub(super) up: bool,
    /// It is about to end, and has said so.
    pub(super) leaves: bool,
    pub(super) hello: Hello,
    pub(super) acceptor: Acceptor,
    pub(super) actors: BTreeMap<u64, Actor>,
    next_actor: u64,
    pub(super) peers: BTreeMap<u64, Peer>,
    pub(super) lost: BTreeSet<u64>,
    /// Requests to the node itself that it works on.
    serving: BTreeMap<u32, (EndId, RequestId, Op)>,
    next_request: u32,
    pub(super) head: Option<Head>,
    pub(super) member: Member,
    pub(super) links: LinkTable,
    pub(super) supervisor: Option<Supervisor>,
}

/// The links to a peer; the first of each lane stays the one to use.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) data: Option<EndId>,
    pub(super) control: Option<EndId>,
}

impl Life {
    pub(super) fn id(&self) -> &NodeId {
        &self.hello.node
    }

    pub(super) fn has_work(&self) -> bool {
        !self.serving.is_empty() || self.actors.values().any(Actor::has_work)
    }

    pub(super) fn unfinished(&self) -> Vec<Op> {
        self.actors.values().flat_map(Actor::unfinished).collect()
    }
}

impl World<'_> {
    pub(super) fn node_starts(&mut self, node: u8) {
        if self.slots[usize::from(node)].life.is_some() {
            return;
        }
        let life = self.lives.len() as LifeId;
        let uid = self.random.bits();
        let id = NodeId::new(&format!("node-{node}"), NodeUid(uid));
        let versions = self.params.versions_of(node);
        // The first version had no capabilities.
        let capabilities = if versions.max > 1 { Hello::CAPABILITIES } else { 0 };
        let hello = Hello { node: id, pid: 1, capabilities, credit_messages: self.params.credit_messages };
        self.lives.push(Life {
            node,
            uid,
            up: true,
            leaves: false,
            hello,
            acceptor: Acceptor::new(self.secret.clone(), NodeUid(uid), versions),
            actors: BTreeMap::new(),
            next_actor: 1,
            peers: BTreeMap::new(),
            lost: BTreeSet::new(),
            serving: BTreeMap::new(),
            next_request: 0,
            head: None,
            member: Member::new(&self.lease_times()),
            links: LinkTable::new(),
            supervisor: None,
        });
        self.slots[usize::from(node)].life = Some(life);
        self.slots[usize::from(node)].silent = false;
        self.fact(Fact::NodeUp { life, node, uid });
        if self.lives.iter().any(|other| other.node == node && !other.up) {
            self.reach(Branch::NodeRestarted);
        }
        self.first_actors(life);
        self.services_start(life);
        for other in 0..self.params.nodes {
            if let Some(peer) = self.slots[usize::from(other)].life.filter(|peer| *peer != life) {
                let peer = self.lives[peer as usize].id().clone();
                // The control lane first, so that a peer is never used without being watched.
                self.dial(life, other, peer, Lane::Control);
            }
        }
    }

    pub(super) fn spawn(&mut self, life: LifeId) {
        let id = self.reserve(life);
        self.create(life, id, None);
    }

    /// The id of an actor that is not there yet.
    pub(super) fn reserve(&mut self, life: LifeId) -> u64 {
        let one = &mut self.lives[life as usize];
        one.next_actor += 1;
        one.next_actor - 1
    }

    pub(super) fn create(&mut self, life: LifeId, id: u64, tenure: Option<Tenure>) {
        let place = (id - 1) as usize % self.params.actors.len();
        let mut actor = Actor::new(self.params.actors[place], self.params.restarts_max);
        actor.tenure = tenure;
        self.lives[life as usize].actors.insert(id, actor);
    }

    /// The process or its machine ends.
    pub(super) fn node_ends(&mut self, node: u8, silent: bool) {
        let Some(life) = self.slots[usize::from(node)].life.take() else { return };
        self.slots[usize::from(node)].silent = silent;
        self.lives[life as usize].up = false;
        self.lives[life as usize].actors.clear();
        self.lives[life as usize].serving.clear();
        self.lives[life as usize].links = LinkTable::new();
        self.lives[life as usize].head = None;
        self.lives[life as usize].supervisor = None;
        self.fact(Fact::NodeDown { life, silent });
        if let Some(head) = self.slots[0].life.filter(|_| self.params.services && !silent && node != 0)
            && self.random.one_in(2)
        {
            let at = self.now + self.random.below(50_000);
            self.plan(at, Event::Reaped(head, self.lives[life as usize].uid));
        }
        for end in 0..self.ends.len() as EndId {
            let one = &mut self.ends[end as usize];
            if one.life != Some(life) || one.over.is_some() {
                continue;
            }
            one.over = Some(Closure::Eof);
            one.session = None;
            if silent {
                self.pipes[self.ends[end as usize].pipe as usize].dead = true;
            } else if self.random.one_in(2) {
                self.close_pipe(end);
            } else {
                self.reset(end, true);
            }
        }
        let calls: Vec<_> = self.judge.ledger.open.iter().copied().collect();
        for op in calls {
            if self.judge.ledger.call(op).caller == life {
                self.resolve(op, crate::fact::Verdict::Orphaned);
            }
        }
    }

    /// A machine that had died without a word answers again, and knows nothing of old connections.
    pub(super) fn machine_is_back(&mut self, node: u8) {
        self.slots[usize::from(node)].silent = false;
        for pipe in 0..self.pipes.len() as EndId {
            if self.pipes[pipe as usize].dead && self.pipes[pipe as usize].from == Some(node) {
                self.pipes[pipe as usize].dead = false;
                self.reset_pipe(pipe, true);
            }
        }
    }

    /// The peer's hello has come.
    pub(super) fn attach(&mut self, end: EndId, peer: NodeId) {
        let one = &self.ends[end as usize];
        let (Some(life), lane, Some(proven)) = (one.life, one.lane, one.peer.clone()) else { return };
        if one.over.is_some() {
            return;
        }
        let control = lane == Lane::Control;
        self.fact(Fact::LinkUp { end, life, peer: peer.uid.0, proven: proven.uid.0, control });
        if self.lives[life as usize].lost.contains(&peer.uid.0) {
            return self.end_over(end, Closure::LostBefore, "this life of the node is down for ever");
        }
        self.ends[end as usize].attached = true;
        let peers = &mut self.lives[life as usize].peers;
        let links = peers.entry(peer.uid.0).or_insert(Peer { id: peer.clone(), data: None, control: None });
        let link = if control { &mut links.control } else { &mut links.data };
        link.get_or_insert(end);
        if !control && self.lives[life as usize].leaves {
            self.answer_with(end, |session| session.go_away("drained"));
        }
        if control {
            self.control_up(life, &peer);
        }
        // Who dialled has the even end.
        if control && end.is_multiple_of(2) {
            let to = self.judge.ledger.life_of(peer.uid.0).map(|peer| self.lives[peer as usize].node);
            if let Some(to) = to {
                self.dial(life, to, peer, Lane::Data);
            }
        }
    }

    /// A peer is lost for ever: without heartbeats data is not trusted, and without data heartbeats mean nothing.
    pub(super) fn peer_lost(&mut self, life: LifeId, peer: u64, reason: &str) {
        if !self.lives[life as usize].lost.insert(peer) {
            return;
        }
        self.fact(Fact::PeerLost { life, peer });
        self.head_lost(life, peer);
        let Some(links) = self.lives[life as usize].peers.remove(&peer) else { return };
        for end in [links.data, links.control].into_iter().flatten() {
            if planted::is(Bug::QuarantineIgnored) {
                continue;
            }
            self.end_over(end, Closure::OtherLane, reason);
        }
        self.links_lost(life, peer);
    }

    /// A request to the node itself: it takes some time.
    pub(super) fn serve_later(&mut self, life: LifeId, end: EndId, request: RequestId, op: Op) {
        let one = &mut self.lives[life as usize];
        let number = one.next_request;
        one.next_request += 1;
        one.serving.insert(number, (end, request, op));
        let at = self.now + self.random.between(10, 3000);
        self.plan(at, Event::Serve(life, number));
    }

    pub(super) fn serve(&mut self, life: LifeId, number: u32) {
        let Some((end, request, op)) = self.lives[life as usize].serving.remove(&number) else { return };
        self.fact(Fact::Started { op, life, actor: 0, generation: 0 });
        self.perform(life, op);
        self.fact(Fact::Finished { op });
        self.answer(end, request, Ok(Reply { op, error: false, told: Told::Nothing }));
    }

    /// Does what a request asks of the node.
    pub(super) fn perform(&mut self, life: LifeId, op: Op) {
        let plan = self.judge.ledger.call(op).plan.clone();
        match plan.kind {
            // It has answered that it is about to end.
            Kind::Spawn if self.lives[life as usize].leaves => {}
            Kind::Spawn => {
                self.reach(Branch::SpawnedAfar);
                self.spawn(life);
            }
            Kind::Stop => {
                self.reach(Branch::StoppedAfar);
                let actor = self.actor_at(life, plan.actor);
                self.stop(life, actor.0);
            }
            _ => {}
        }
    }

    /// The data link to the node that hosts an actor, or why there is none.
    pub(super) fn link(&self, life: LifeId, target: &NodeId, control: bool) -> Result<EndId, CallError> {
        let one = &self.lives[life as usize];
        if let Some(peer) = one.peers.get(&target.uid.0)
            && let Some(end) = if control { peer.control } else { peer.data }
        {
            return Ok(end);
        }
        let unreachable =
            |reason: &str| CallError::Unreachable { node: target.clone(), sent: false, reason: reason.to_owned() };
        if one.lost.contains(&target.uid.0) {
            return Err(unreachable("lost"));
        }
        let newer = |peer: &Peer| peer.id.name == target.name && peer.id.uid != target.uid;
        if one.peers.values().any(newer) || one.id().name == target.name {
            return Err(CallError::StaleIncarnation { node: target.clone() });
        }
        Err(unreachable("no connection to it"))
    }

    /// The actor of a life that a call means by its place.
    pub(super) fn actor_at(&self, life: LifeId, place: u8) -> ActorId {
        let actors = &self.lives[life as usize].actors;
        if actors.is_empty() {
            // An earlier life's.
            return ActorId(1 + u64::from(place) % (self.lives[life as usize].next_actor - 1).max(1));
        }
        ActorId(actors.keys().nth(usize::from(place) % actors.len()).copied().unwrap_or(1))
    }
}
