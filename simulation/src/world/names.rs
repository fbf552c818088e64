//! Names, groups and keyed actors: the real `Directory` and `Lease`, and a model of what `actors/src/directory` and
//! `actors/src/keyed` do around them. Node 0 is the head; a cluster whose head has died is another cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_core::directory::{Answer, Directory, Fence, GroupName, Lease, LeaseTimes, Members, Refusal, Request};
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, NodeId, NodeUid, rendezvous, schema_hash};
use mobula_transport::Lane;

use super::control::{Asker, Control, Told, Wait};
use super::{Event, World};
use crate::fact::{Fact, LifeId};
use crate::oracles::ServicesRest;
use crate::params::{CallParams, Kind, MS, SECOND, Time};
use crate::reach::Branch;

/// The uid of a node's life, and an actor there.
pub(super) type Found = (u64, u64);

/// Names are numbers here; those of keyed actors begin with this one.
const KEYED: u8 = 16;
const NAMES: u8 = 32;
const GROUPS: u8 = 2;
const TYPE: &str = "simulation::Worker";
/// As the deadline of any ask.
const CLAIM_WITHIN: Time = 5 * SECOND;
/// By then views agree.
const CONVERGED_AFTER: Time = 5 * SECOND;

/// The head's part.
pub(super) struct Head {
    directory: Directory,
    began: Instant,
    followers: Vec<Follower>,
    /// When a group last changed.
    changed: BTreeMap<GroupName, Time>,
    tick_at: Option<Time>,
    /// Who was granted a name last, and has not ended it.
    holders: BTreeMap<u8, (LifeId, u64)>,
    /// When each member's lease was last renewed, until it is known to be dead.
    renewed: BTreeMap<LifeId, Instant>,
}

struct Follower {
    asker: Asker,
    group: GroupName,
    known: Option<u64>,
}

/// A member's part.
pub(super) struct Member {
    head: Option<NodeId>,
    lease: Lease,
    heard: Option<Duration>,
    next_number: u64,
    renew_at: Option<Time>,
    /// When the newest renewal was sent that is known to have been granted: what the lease counts from.
    granted_from: Option<Instant>,
    /// Actors whose end the head has to hear of.
    listed: BTreeSet<u64>,
    views: BTreeMap<u8, Option<Members>>,
    keyed: BTreeMap<u8, Keyed>,
    /// Requests that are sent a second time.
    again: Vec<Request>,
}

enum Keyed {
    Coming(Vec<KeyedAsker>),
    Active(u64),
}

pub(super) enum KeyedAsker {
    Far(Asker),
    Near(Arc<CallParams>),
}

/// What a named actor acts under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenure {
    pub(super) name: u8,
    pub(super) fence: Fence,
}

fn name_of(name: u8) -> String {
    format!("n{name}")
}

fn group_of(group: u8) -> GroupName {
    GroupName { name: format!("g{group}"), message: "simulation::Report".to_owned() }
}

impl Member {
    pub(super) fn new(times: &LeaseTimes) -> Self {
        Member {
            head: None,
            lease: Lease::new(times),
            heard: None,
            next_number: 0,
            renew_at: None,
            granted_from: None,
            listed: BTreeSet::new(),
            views: BTreeMap::new(),
            keyed: BTreeMap::new(),
            again: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

impl World<'_> {
    pub(super) fn lease_times(&self) -> LeaseTimes {
        LeaseTimes::of(Duration::from_micros(self.params.lease))
    }

    fn member(&mut self, life: LifeId) -> &mut Member {
        &mut self.lives[life as usize].member
    }

    fn is_up(&self, life: LifeId) -> bool {
        self.lives[life as usize].up
    }

    /// A life begins.
    pub(super) fn services_start(&mut self, life: LifeId) {
        if !self.params.services {
            return;
        }
        let node = self.node_of(life);
        let id = self.lives[life as usize].id().clone();
        if node == 0 {
            let directory = Directory::new(id.clone(), self.lease_times());
            let began = self.instant(node);
            let (followers, changed, holders, renewed) =
                (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            let head = Head { directory, began, followers, changed, tick_at: None, holders, renewed };
            self.lives[life as usize].head = Some(head);
            self.member(life).head = Some(id);
            return;
        }
        if let Some(head) = self.slots[0].life {
            let head = self.lives[head as usize].id().clone();
            self.member(life).head = Some(head);
        }
    }

    /// A control link to `peer` is up.
    pub(super) fn control_up(&mut self, life: LifeId, peer: &NodeId) {
        if !self.params.services || self.node_of(life) == 0 || peer.name != self.head_name() {
            return;
        }
        let now = self.now;
        let member = self.member(life);
        let head = member.head.get_or_insert_with(|| peer.clone());
        if head.uid == peer.uid {
            member.renew_at = Some(now);
            self.plan(now, Event::Renew(life));
        }
    }

    fn head_name(&self) -> Arc<str> {
        "node-0".into()
    }

    fn is_head(&self, life: LifeId) -> bool {
        self.lives[life as usize].head.is_some()
    }

    /// True while the life may act under names.
    pub(super) fn holds(&self, life: LifeId) -> bool {
        let one = &self.lives[life as usize];
        one.head.is_some() || one.member.lease.holds(self.instant(one.node))
    }

    // The lease.

    pub(super) fn renew(&mut self, life: LifeId) {
        let (now, node) = (self.now, self.node_of(life));
        let member = &mut self.lives[life as usize].member;
        if self.settled || member.renew_at.is_none_or(|at| at > now) {
            return;
        }
        member.renew_at = None;
        let instant = self.instant(node);
        if self.member(life).lease.is_over(instant) {
            return self.fence_off(life);
        }
        let times = self.lease_times();
        let member = self.member(life);
        let (head, heard) = (member.head.clone(), member.heard);
        if let Some(head) = head
            && self.link(life, &head, true).is_ok()
        {
            let renewal = Control::Directory(Request::Renew { heard });
            let after = Some(self.params.lease);
            self.ask_node(life, &head, Lane::Control, renewal, after, Wait::Renew { life, sent: instant });
        }
        if !self.is_up(life) {
            return;
        }
        let next = instant + times.heartbeat;
        let wake = self.member(life).lease.until().map_or(next, |until| until.min(next));
        let at = self.time(node, wake).max(now + 1);
        self.member(life).renew_at = Some(at);
        self.plan(at, Event::Renew(life));
    }

    pub(super) fn renewed(&mut self, life: LifeId, sent: Instant, answer: Option<Answer>) {
        if !self.is_up(life) {
            return;
        }
        let now = self.instant(self.node_of(life));
        let member = self.member(life);
        match answer {
            Some(Answer::Renewed { at }) => {
                member.heard = member.heard.max(Some(at));
                member.granted_from = member.granted_from.max(Some(sent));
                let sent = if planted::is(Bug::LeaseFromAnswer) { now } else { sent };
                member.lease.granted(sent, now);
            }
            Some(Answer::Refused(_)) => {
                self.reach(Branch::RenewalRefused);
                self.member(life).lease.refused();
            }
            _ => {}
        }
    }

    /// The lease is over: nothing acts any more, and this life ends. Another one may come.
    fn fence_off(&mut self, life: LifeId) {
        self.reach(Branch::FencedOff);
        self.fact(Fact::Fenced { life });
        for actor in self.member(life).listed.clone() {
            self.stop(life, actor);
        }
        let node = self.node_of(life);
        self.node_ends(node, false);
        self.plan(self.now + 500 * MS, Event::ComesBack(node));
    }

    pub(super) fn comes_back(&mut self, node: u8) {
        if !self.is_crashed(node) {
            self.node_starts(node);
        }
    }

    // The head.

    pub(super) fn serve_directory(&mut self, life: LifeId, from: &NodeId, request: Request) -> Answer {
        let now = self.instant(self.node_of(life));
        let from_life = self.judge.ledger.life_of(from.uid.0);
        let Some(head) = &mut self.lives[life as usize].head else {
            let head = from.clone();
            return Answer::Refused(Refusal::NotHead { head });
        };
        let answer = head.directory.request(from, request.clone(), now.saturating_duration_since(head.began));
        if let Some(from_life) = from_life {
            self.watch_names(life, from_life, &request, &answer);
        }
        self.directory_changed(life);
        answer
    }

    /// Tells the oracles what the head has decided.
    fn watch_names(&mut self, head: LifeId, life: LifeId, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Claim { name, actor, .. }, Answer::Granted(fence)) => {
                let name: u8 = name[1..].parse().unwrap_or(0);
                let before =
                    self.lives[head as usize].head.as_mut().and_then(|head| head.holders.insert(name, (life, actor.0)));
                let before = before.filter(|before| *before != (life, actor.0));
                if before.is_some() {
                    self.reach(Branch::NameHandedOn);
                }
                let now = self.instant(self.node_of(head));
                let times = self.lease_times();
                let renewed = &self.lives[head as usize].head.as_ref().map(|head| &head.renewed);
                let acts = before.is_some_and(|(life, actor)| {
                    let renewed = renewed.and_then(|renewed| renewed.get(&life));
                    renewed.is_some_and(|at| now < *at + times.lease + times.margin)
                        || (self.is_up(life) && self.is_alive(life, actor) == Some(true) && self.holds(life))
                });
                self.fact(Fact::NameGranted { head, life, actor: actor.0, name, fence: fence.0, overlaps: acts });
            }
            (Request::Claim { .. }, Answer::Taken(_)) => self.reach(Branch::NameTaken),
            (Request::Claim { .. } | Request::Join { .. }, Answer::Refused(Refusal::Repeated)) => {
                self.reach(Branch::RequestRepeated);
            }
            (Request::Renew { .. }, Answer::Renewed { .. }) => {
                let now = self.instant(self.node_of(head));
                if let Some(head) = &mut self.lives[head as usize].head {
                    head.renewed.insert(life, now);
                }
            }
            (Request::End { actor, .. }, Answer::Done) => {
                if let Some(head) = &mut self.lives[head as usize].head {
                    head.holders.retain(|_, holder| *holder != (life, actor.0));
                }
                self.fact(Fact::NameEnded { head, life, actor: actor.0 });
            }
            _ => {}
        }
    }

    /// Tells followers what has changed, and sees to the next lease that runs out.
    fn directory_changed(&mut self, life: LifeId) {
        let now = self.now;
        let Some(head) = &mut self.lives[life as usize].head else { return };
        let changed = head.directory.take_changed_groups();
        for group in &changed {
            head.changed.insert(group.clone(), now);
        }
        let (told, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut head.followers).into_iter().partition(|follower| changed.contains(&follower.group));
        head.followers = kept;
        let next = head.directory.next_deadline().map(|at| head.began + at);
        for Follower { asker, group, known } in told {
            self.serve_follower(life, asker, group, known);
        }
        let node = self.node_of(life);
        let Some(at) = next.map(|at| self.time(node, at).max(now + 1)) else { return };
        let Some(head) = &mut self.lives[life as usize].head else { return };
        if head.tick_at.is_none_or(|before| at < before || before <= now) {
            head.tick_at = Some(at);
            self.plan(at, Event::HeadTick(life));
        }
    }

    pub(super) fn head_tick(&mut self, life: LifeId) {
        let now = self.instant(self.node_of(life));
        let Some(head) = &mut self.lives[life as usize].head else { return };
        if head.tick_at.is_some_and(|at| at > self.now) || self.settled {
            return;
        }
        head.tick_at = None;
        let names = head.directory.names();
        head.directory.tick(now.saturating_duration_since(head.began));
        if head.directory.names() < names {
            self.reach(Branch::NameExpired);
        }
        self.directory_changed(life);
    }

    /// A peer of the head is gone, or silent.
    pub(super) fn head_lost(&mut self, life: LifeId, peer: u64) {
        if let Some(head) = &mut self.lives[life as usize].head {
            head.directory.lost(NodeUid(peer));
            self.directory_changed(life);
        }
    }

    /// The head has reaped a process that it started.
    pub(super) fn reaped(&mut self, life: LifeId, peer: u64) {
        if !self.is_up(life) {
            return;
        }
        let dead = self.judge.ledger.life_of(peer);
        if let Some(head) = &mut self.lives[life as usize].head {
            head.directory.dead(NodeUid(peer));
            if let Some(dead) = dead {
                head.renewed.remove(&dead);
            }
            self.reach(Branch::Reaped);
            self.directory_changed(life);
            self.peer_lost(life, peer, "its process has ended");
        }
    }

    pub(super) fn serve_follower(&mut self, life: LifeId, asker: Asker, group: GroupName, known: Option<u64>) {
        let from = self.judge.ledger.call(asker.op).caller;
        let from = self.lives[from as usize].id().clone();
        let answer = self.serve_directory(life, &from, Request::Members { group: group.clone() });
        match (&answer, &mut self.lives[life as usize].head) {
            (Answer::Members(members), Some(head)) if known == Some(members.version) => {
                head.followers.push(Follower { asker, group, known });
            }
            _ => self.tell_back(asker, Told::Directory(answer)),
        }
    }

    /// A request to the head is given up.
    pub(super) fn follower_leaves(&mut self, life: LifeId, op: crate::fact::Op) {
        if let Some(head) = &mut self.lives[life as usize].head {
            head.followers.retain(|follower| follower.asker.op != op);
        }
    }

    // A member.

    fn ask_head(&mut self, life: LifeId, request: Request, after: Option<Time>, wait: Wait) {
        if self.is_head(life) {
            let id = self.lives[life as usize].id().clone();
            let answer = self.serve_directory(life, &id, request);
            return self.goes_on(wait, Some(Told::Directory(answer)));
        }
        match self.member(life).head.clone() {
            Some(head) => {
                self.ask_node(life, &head, Lane::Control, Control::Directory(request), after, wait);
            }
            None => self.goes_on(wait, None),
        }
    }

    /// What a call of these kinds does first.
    pub(super) fn call_service(&mut self, plan: &Arc<CallParams>, life: LifeId) {
        if !self.params.services {
            return;
        }
        match plan.kind {
            Kind::Claim => self.claim(life, plan.message, plan.repeat),
            Kind::Named => {
                let request = Request::Find { name: name_of(plan.message), actor_type: TYPE.to_owned() };
                let wait = Wait::Find { life, plan: Arc::clone(plan) };
                self.ask_head(life, request, Some(CLAIM_WITHIN), wait);
            }
            Kind::Keyed => self.call_keyed(plan, life),
            Kind::Join | Kind::Leave => self.change_group(plan, life),
            _ => {}
        }
    }

    fn claim(&mut self, life: LifeId, name: u8, repeat: bool) {
        let actor = self.reserve(life);
        if !self.holds(life) {
            return self.activated(life, name, None);
        }
        let member = self.member(life);
        member.listed.insert(actor);
        let number = member.number();
        let (identity, actor_type) = (name_of(name), TYPE.to_owned());
        let request = Request::Claim { number, name: identity, actor: ActorId(actor), actor_type };
        self.may_repeat(life, &request, repeat);
        self.ask_head(life, request, Some(CLAIM_WITHIN), Wait::Claim { life, actor, name });
    }

    pub(super) fn claimed(&mut self, life: LifeId, actor: u64, name: u8, answer: Option<Answer>) {
        if !self.is_up(life) {
            return;
        }
        match answer {
            Some(Answer::Granted(fence)) if self.holds(life) => {
                self.create(life, actor, Some(Tenure { name, fence }));
                self.act(life, actor);
                self.activated(life, name, Some(actor));
            }
            Some(Answer::Taken(found)) => {
                self.release(life, actor);
                let found = (found.node.uid.0, found.actor.0);
                self.tell_keyed(life, name, Some(found));
            }
            // The answer may have been under way for longer than the lease lasts, or the claim may be granted yet.
            _ => {
                self.release(life, actor);
                self.activated(life, name, None);
            }
        }
    }

    /// Some requests come twice, the second time much later.
    fn may_repeat(&mut self, life: LifeId, request: &Request, repeat: bool) {
        if repeat {
            let member = self.member(life);
            member.again.push(request.clone());
            let number = member.again.len() as u32 - 1;
            let at = self.now + self.random.below(3 * SECOND);
            self.plan(at, Event::Again(life, number));
        }
    }

    pub(super) fn again(&mut self, life: LifeId, number: u32) {
        if self.is_up(life) && !self.settled {
            let request = self.member(life).again[number as usize].clone();
            self.ask_head(life, request, Some(CLAIM_WITHIN), Wait::Nothing);
        }
    }

    /// An actor that may hold something has ended: what follows its end comes after the head knows.
    pub(super) fn release(&mut self, life: LifeId, actor: u64) {
        if !self.member(life).listed.remove(&actor) {
            return self.publish(life, actor);
        }
        let number = self.member(life).number();
        let request = Request::End { number, actor: ActorId(actor) };
        self.ask_head(life, request, None, Wait::End { life, actor });
    }

    /// A named actor does something by itself.
    pub(super) fn act(&mut self, life: LifeId, actor: u64) {
        if self.settled || self.is_alive(life, actor) != Some(true) || !self.may_act(life, actor) {
            return;
        }
        let rest = self.params.lease / 10 + self.random.below(self.params.lease / 10);
        self.plan(self.now + rest, Event::Act(life, actor));
    }

    /// Looks at the lease before an actor does anything; ends it if that is over.
    pub(super) fn may_act(&mut self, life: LifeId, actor: u64) -> bool {
        let Some(Tenure { name, fence }) = self.lives[life as usize].actors.get(&actor).and_then(|one| one.tenure)
        else {
            return true;
        };
        if !self.holds(life) && !planted::is(Bug::LeaseIgnored) {
            self.reach(Branch::ActedAfterLease);
            self.stop(life, actor);
            return false;
        }
        let head = self.member(life).head.as_ref().map_or(0, |head| head.uid.0);
        if let Some(head) = self.judge.ledger.life_of(head) {
            let one = &self.lives[life as usize];
            let (now, lease) = (self.instant(one.node), self.lease_times().lease);
            let leased = one.head.is_some() || one.member.granted_from.is_some_and(|from| now < from + lease);
            self.fact(Fact::NameServed { head, life, actor, name, fence: fence.0, leased });
        }
        true
    }

    // Keyed actors.

    fn call_keyed(&mut self, plan: &Arc<CallParams>, life: LifeId) {
        let one = &self.lives[life as usize];
        let peers = one.peers.values().filter(|peer| peer.data.is_some() && peer.control.is_some());
        let nodes: Vec<&NodeId> = peers.map(|peer| &peer.id).chain([one.id()]).collect();
        let Some(home) = rendezvous(schema_hash(&name_of(KEYED + plan.message)), nodes).cloned() else { return };
        if home == *one.id() {
            return self.activate(life, plan.message, KeyedAsker::Near(Arc::clone(plan)));
        }
        self.reach(Branch::KeyedAfar);
        let wait = Wait::Find { life, plan: Arc::clone(plan) };
        let control = Control::Activate { key: plan.message };
        self.ask_node(life, &home, Lane::Control, control, Some(CLAIM_WITHIN), wait);
    }

    pub(super) fn activate(&mut self, life: LifeId, key: u8, asker: KeyedAsker) {
        if let Some(Keyed::Active(actor)) = self.member(life).keyed.get(&key) {
            let actor = *actor;
            if self.is_alive(life, actor) == Some(true) {
                let uid = self.lives[life as usize].uid;
                return self.tell_keyed_one(life, asker, Some((uid, actor)));
            }
            self.member(life).keyed.remove(&key);
        }
        if let Some(Keyed::Coming(askers)) = self.member(life).keyed.get_mut(&key) {
            askers.push(asker);
            return;
        }
        self.member(life).keyed.insert(key, Keyed::Coming(vec![asker]));
        self.claim(life, KEYED + key, false);
    }

    /// A claim has come to its end; if it was for a keyed actor, those who wait for that are told.
    fn activated(&mut self, life: LifeId, name: u8, actor: Option<u64>) {
        let uid = self.lives[life as usize].uid;
        self.tell_keyed(life, name, actor.map(|actor| (uid, actor)));
    }

    fn tell_keyed(&mut self, life: LifeId, name: u8, found: Option<Found>) {
        let Some(key) = name.checked_sub(KEYED) else { return };
        let Some(Keyed::Coming(askers)) = self.member(life).keyed.remove(&key) else { return };
        let uid = self.lives[life as usize].uid;
        if let Some((_, actor)) = found.filter(|(node, _)| *node == uid) {
            self.member(life).keyed.insert(key, Keyed::Active(actor));
        }
        for asker in askers {
            self.tell_keyed_one(life, asker, found);
        }
    }

    fn tell_keyed_one(&mut self, life: LifeId, asker: KeyedAsker, found: Option<Found>) {
        match (asker, found) {
            (KeyedAsker::Far(asker), found) => self.tell_back(asker, Told::Active(found)),
            (KeyedAsker::Near(plan), Some(found)) => self.call_found(&plan, life, found),
            (KeyedAsker::Near(_), None) => {}
        }
    }

    pub(super) fn call_found(&mut self, plan: &Arc<CallParams>, caller: LifeId, (uid, actor): Found) {
        if let Some(life) = self.judge.ledger.life_of(uid).filter(|_| self.is_up(caller)) {
            self.reach(Branch::FoundByName);
            self.issue_to(plan, caller, life, ActorId(actor), None, None);
        }
    }

    // Groups.

    fn change_group(&mut self, plan: &Arc<CallParams>, life: LifeId) {
        let group = plan.message % GROUPS;
        if !self.member(life).views.contains_key(&group) && !self.is_head(life) {
            self.member(life).views.insert(group, None);
            self.follow(life, group);
        }
        let actor = self.actor_at(life, plan.actor);
        if !self.holds(life) || self.is_alive(life, actor.0) != Some(true) {
            return;
        }
        let member = self.member(life);
        member.listed.insert(actor.0);
        let (number, group) = (member.number(), group_of(group));
        if plan.kind == Kind::Leave {
            let request = Request::Leave { number, group, actor };
            return self.ask_head(life, request, Some(CLAIM_WITHIN), Wait::Nothing);
        }
        let request = Request::Join { number, group, actor };
        self.may_repeat(life, &request, plan.repeat);
        self.ask_head(life, request, Some(CLAIM_WITHIN), Wait::Join { life, actor: actor.0 });
    }

    pub(super) fn joined(&mut self, life: LifeId, actor: u64) {
        if self.is_up(life) && !self.member(life).listed.contains(&actor) {
            // It has ended meanwhile, and its end may have overtaken this.
            let number = self.member(life).number();
            self.ask_head(life, Request::End { number, actor: ActorId(actor) }, Some(CLAIM_WITHIN), Wait::Nothing);
        }
    }

    /// Asks what is new in a group.
    pub(super) fn follow(&mut self, life: LifeId, group: u8) {
        if !self.is_up(life) || self.settled {
            return;
        }
        let member = self.member(life);
        let known = member.views.get(&group).and_then(|view| Some(view.as_ref()?.version));
        match member.head.clone() {
            Some(head) => {
                let control = Control::Follow { group: group_of(group), known };
                self.ask_node(life, &head, Lane::Control, control, None, Wait::Follow { life, group });
            }
            None => self.followed(life, group, None),
        }
    }

    pub(super) fn followed(&mut self, life: LifeId, group: u8, answer: Option<Answer>) {
        if !self.is_up(life) || self.settled {
            return;
        }
        match answer {
            Some(Answer::Members(heard)) => {
                self.reach(Branch::GroupNews);
                let view = self.member(life).views.entry(group).or_default();
                let newer = |known: &Members| heard.at >= known.at && !planted::is(Bug::ViewKept);
                if view.as_ref().is_none_or(newer) {
                    *view = Some(heard);
                }
                self.follow(life, group);
            }
            _ => {
                let at = self.now + self.params.lease / 16;
                self.plan(at, Event::Follow(life, group));
            }
        }
    }

    // The end.

    /// True when nobody is about to lose its lease, or to get one.
    pub(super) fn services_settled(&self) -> bool {
        let settled = |life: &super::nodes::Life| {
            let now = self.instant(life.node);
            let Some(head) = life.member.head.as_ref().filter(|_| life.head.is_none()) else { return true };
            let linked = life.peers.get(&head.uid.0).is_some_and(|peer| peer.control.is_some());
            match life.member.lease.until() {
                _ if life.member.lease.is_over(now) => false,
                Some(_) => linked,
                None => !linked,
            }
        };
        !self.params.services || self.lives.iter().filter(|life| life.up).all(settled)
    }

    /// What the oracles look at when the world rests.
    pub(super) fn services_rest(&self) -> ServicesRest {
        let mut rest = ServicesRest::default();
        let Some(head_life) = self.slots[0].life.filter(|_| self.params.services) else { return rest };
        let Some(head) = &self.lives[head_life as usize].head else { return rest };
        let head_id = self.lives[head_life as usize].id();
        for (number, life) in self.lives.iter().enumerate().filter(|(_, life)| life.up) {
            let number = number as LifeId;
            if life.member.head.as_ref() != Some(head_id) || !self.holds(number) {
                continue;
            }
            for (group, view) in &life.member.views {
                let name = group_of(*group);
                let mut asked = head.directory.clone();
                let now = self.instant(0).saturating_duration_since(head.began);
                let Answer::Members(members) = asked.request(life.id(), Request::Members { group: name.clone() }, now)
                else {
                    continue;
                };
                let since = head.changed.get(&name).copied().unwrap_or(0);
                if view.as_ref().is_none_or(|view| view.members != members.members)
                    && self.now > since.max(self.params.healed_at()) + CONVERGED_AFTER
                {
                    rest.stale_views.push((number, *group));
                }
                let dead = |found: &&mobula_core::directory::Found| {
                    found.node == *life.id() && self.is_alive(number, found.actor.0) != Some(true)
                };
                rest.dead_members.extend(members.members.iter().filter(dead).map(|found| (number, found.actor.0)));
            }
            for (actor, one) in &life.actors {
                let Some(tenure) = one.tenure.filter(|_| one.is_alive()) else { continue };
                let found = head.directory.find(&name_of(tenure.name), TYPE);
                if found.is_none_or(|found| found.node != *life.id() || found.actor.0 != *actor) {
                    rest.lost_names.push((number, *actor, tenure.name));
                }
            }
        }
        for name in 0..NAMES {
            let Some(found) = head.directory.find(&name_of(name), TYPE) else { continue };
            if let Some(life) = self.judge.ledger.life_of(found.node.uid.0)
                && self.is_up(life)
                && self.holds(life)
                && self.is_alive(life, found.actor.0) != Some(true)
            {
                rest.dead_names.push((life, found.actor.0, name));
            }
        }
        rest
    }

    /// Followers at the head that nobody stands behind any more.
    pub(super) fn followers_left(&self) -> usize {
        self.slots[0].life.and_then(|life| self.lives[life as usize].head.as_ref()).map_or(0, |head| {
            let live = |follower: &&Follower| {
                let end = follower.asker.end;
                self.ends[end as usize].over.is_none() && !self.judge.ledger.tainted.contains(&end)
            };
            head.followers.iter().filter(live).count()
        })
    }
}
