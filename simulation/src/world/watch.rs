//! Monitors and links: the real `LinkTable`, and a model of what `actors/src/monitor.rs` and `link.rs` do around it.

use std::sync::Arc;

use mobula_core::planted::{self, Bug};
use mobula_core::{ActorAddress, ActorId, NodeId, NodeUid};
use mobula_transport::Lane;

use super::control::{Asker, Control, Signal, Told, Wait};
use super::{Event, World};
use crate::fact::{Fact, LifeId, News, Op};
use crate::oracles::LinkEnd;
use crate::params::{CallParams, Kind};
use crate::reach::Branch;

pub(super) struct Monitor {
    pub(super) life: LifeId,
    /// Its question, if it goes to another node.
    op: Option<Op>,
    target: (LifeId, u64),
    over: bool,
}

/// Whoever is told of an actor's end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watcher {
    Near(u32),
    Far(Asker),
}

impl World<'_> {
    // Monitors.

    pub(super) fn monitor(&mut self, plan: &Arc<CallParams>, caller: LifeId) {
        let Some(life) = self.target_life(plan) else { return };
        let actor = self.actor_at(life, plan.actor).0;
        let monitor = self.monitors.len() as u32;
        self.monitors.push(Monitor { life: caller, op: None, target: (life, actor), over: false });
        self.fact(Fact::MonitorSet { monitor, life: caller, target: life, actor });
        if let Some(after) = plan.cancel_after {
            self.plan(self.now + after, Event::Demonitor(monitor));
        }
        if life == caller {
            if !self.watch(life, actor, Watcher::Near(monitor)) {
                self.fire(monitor, News::NoProc);
            }
            return;
        }
        // Over the data lane, behind what the actor has sent here.
        let to = self.lives[life as usize].id().clone();
        let op = self.ask_node(caller, &to, Lane::Data, Control::AwaitEnd { actor }, None, Wait::Monitor { monitor });
        self.monitors[monitor as usize].op = op;
    }

    /// Registers a watcher. False if the actor's end is past.
    fn watch(&mut self, life: LifeId, actor: u64, watcher: Watcher) -> bool {
        let lost = planted::is(Bug::MonitorLost);
        match self.lives[life as usize].actors.get_mut(&actor) {
            Some(one) if !one.published => {
                one.watchers.push(watcher);
                true
            }
            Some(_) => lost,
            None => false,
        }
    }

    pub(super) fn await_end(&mut self, life: LifeId, actor: u64, asker: Asker) {
        if !self.watch(life, actor, Watcher::Far(asker)) {
            self.reach(Branch::MonitorOfNobody);
            self.tell_back(asker, Told::Ended { no_proc: true });
        }
    }

    pub(super) fn monitor_answered(&mut self, monitor: u32, told: Option<Told>) {
        let news = match told {
            Some(Told::Ended { no_proc: true }) => News::NoProc,
            Some(Told::Ended { no_proc: false }) => News::Ended,
            _ => News::NoConnection,
        };
        self.fire(monitor, news);
    }

    fn fire(&mut self, monitor: u32, news: News) {
        let one = &mut self.monitors[monitor as usize];
        if (one.over && !planted::is(Bug::DownTwice)) || !self.lives[one.life as usize].up {
            return;
        }
        one.over = true;
        self.reach(if news == News::Ended { Branch::MonitorFired } else { Branch::MonitorUnreached });
        self.fact(Fact::MonitorFired { monitor, news });
    }

    /// The monitor is dropped.
    pub(super) fn demonitor(&mut self, monitor: u32) {
        let one = &mut self.monitors[monitor as usize];
        if one.over || !self.lives[one.life as usize].up {
            return;
        }
        one.over = true;
        self.fact(Fact::MonitorDropped { monitor });
        if let Some(op) = self.monitors[monitor as usize].op {
            self.cancel(op);
        }
        let life = self.monitors[monitor as usize].life;
        for one in self.lives[life as usize].actors.values_mut() {
            one.watchers.retain(|watcher| !matches!(watcher, Watcher::Near(number) if *number == monitor));
        }
    }

    /// A request to this node is given up.
    pub(super) fn forget_asker(&mut self, life: LifeId, op: Op) {
        self.follower_leaves(life, op);
        for one in self.lives[life as usize].actors.values_mut() {
            one.watchers.retain(|watcher| !matches!(watcher, Watcher::Far(asker) if asker.op == op));
        }
    }

    /// The end of an actor is told to those who wait for it; its names are free by now.
    pub(super) fn publish(&mut self, life: LifeId, actor: u64) {
        if !self.lives[life as usize].up {
            return;
        }
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if std::mem::replace(&mut one.published, true) {
            return;
        }
        let (watchers, normal) = (std::mem::take(&mut one.watchers), one.ends_normally);
        for watcher in watchers {
            match watcher {
                Watcher::Near(monitor) => self.fire(monitor, News::Ended),
                Watcher::Far(asker) => self.tell_back(asker, Told::Ended { no_proc: false }),
            }
        }
        for peer in self.lives[life as usize].links.ended(ActorId(actor)) {
            self.tell_end(life, actor, &peer, normal);
        }
    }

    // Links.

    fn address(&self, life: LifeId, actor: u64) -> ActorAddress {
        ActorAddress { node: self.lives[life as usize].id().clone(), actor: ActorId(actor) }
    }

    /// Links an actor of the caller with another, or takes the link away.
    pub(super) fn change_link(&mut self, plan: &Arc<CallParams>, life: LifeId) {
        let Some(peer_life) = self.target_life(plan) else { return };
        let (actor, peer_actor) = (self.actor_at(life, plan.message).0, self.actor_at(peer_life, plan.actor).0);
        // What becomes of a child its supervisor decides.
        let supervised = self.child_of(life, actor).is_some() || self.child_of(peer_life, peer_actor).is_some();
        if (life, actor) == (peer_life, peer_actor) || supervised || self.is_alive(life, actor) != Some(true) {
            return;
        }
        let (own, peer) = (self.address(life, actor), self.address(peer_life, peer_actor));
        let ends = LinkEnd { life, actor, peer_life, peer: peer_actor };
        if plan.kind == Kind::Unlink {
            return self.unlink(ends, &own, &peer);
        }
        let near = life == peer_life;
        let table = &mut self.lives[life as usize].links;
        let linked = if near { table.link_near(&own, &peer) } else { table.link(own.actor, peer.clone()) };
        let Ok(is_new) = linked else { return };
        if is_new {
            self.fact(Fact::LinkSet { life, actor, peer_life, peer: peer_actor });
        }
        if is_new && near {
            self.fact(Fact::LinkSet { life, actor: peer_actor, peer_life, peer: actor });
        }
        if is_new && !near && !self.signal(life, &peer.node, Signal::Link { from: actor, to: peer_actor }) {
            self.exit(life, actor, &peer, false);
        }
        if near && self.is_alive(life, peer_actor) != Some(true) {
            self.lives[life as usize].links.take(peer.actor, &own);
            self.exit(life, actor, &peer, false);
        }
    }

    fn unlink(&mut self, LinkEnd { life, actor, peer_life, peer }: LinkEnd, own: &ActorAddress, other: &ActorAddress) {
        self.fact(Fact::LinkGone { life, actor, peer_life, peer });
        let near = life == peer_life;
        if near {
            self.fact(Fact::LinkGone { life, actor: peer, peer_life, peer: actor });
        }
        let table = &mut self.lives[life as usize].links;
        if near {
            table.take(other.actor, own);
            table.take(own.actor, other);
        } else if let Some(number) = table.unlink(own.actor, other) {
            self.reach(Branch::Unlinked);
            self.signal(life, &other.node, Signal::Unlink { from: actor, to: peer, number });
        }
    }

    fn tell_end(&mut self, life: LifeId, actor: u64, peer: &ActorAddress, normal: bool) {
        let own = self.address(life, actor);
        if peer.node == own.node {
            if normal {
                self.fact(Fact::LinkGone { life, actor: peer.actor.0, peer_life: life, peer: actor });
            }
            self.exit(life, peer.actor.0, &own, normal);
        } else {
            self.signal(life, &peer.node, Signal::Exit { from: actor, to: peer.actor.0, normal });
        }
    }

    /// `from` has ended, which ends `actor` if they are linked.
    fn exit(&mut self, life: LifeId, actor: u64, from: &ActorAddress, normal: bool) {
        if self.lives[life as usize].links.take(ActorId(actor), from) && !normal {
            self.reach(Branch::EndedByLink);
            self.stop(life, actor);
        }
    }

    pub(super) fn hear_signal(&mut self, life: LifeId, peer: &NodeId, signal: Signal) {
        let (Signal::Link { from, to }
        | Signal::Unlink { from, to, .. }
        | Signal::Unlinked { from, to, .. }
        | Signal::Exit { from, to, .. }) = signal;
        let other = ActorAddress { node: peer.clone(), actor: ActorId(from) };
        if let (Signal::Unlink { .. } | Signal::Exit { normal: true, .. }, Some(peer_life)) =
            (signal, self.judge.ledger.life_of(peer.uid.0))
        {
            self.fact(Fact::LinkGone { life, actor: to, peer_life, peer: from });
        }
        match signal {
            Signal::Link { .. } => {
                let heard = self.lives[life as usize].links.heard_link(ActorId(to), other.clone());
                let Ok(is_new @ true) = heard else { return };
                if let Some(peer_life) = self.judge.ledger.life_of(peer.uid.0).filter(|_| is_new) {
                    self.fact(Fact::LinkSet { life, actor: to, peer_life, peer: from });
                }
                let gone = self.is_alive(life, to) != Some(true);
                if gone && self.lives[life as usize].links.take(ActorId(to), &other) {
                    self.reach(Branch::LinkWithNobody);
                    self.signal(life, peer, Signal::Exit { from: to, to: from, normal: false });
                }
                // A loss that came before is told here.
                if self.link(life, peer, false).is_err() {
                    self.exit(life, to, &other, false);
                }
            }
            Signal::Unlink { number, .. } => {
                self.lives[life as usize].links.heard_unlink(ActorId(to), &other);
                self.signal(life, peer, Signal::Unlinked { from: to, to: from, number });
            }
            Signal::Unlinked { number, .. } => {
                self.lives[life as usize].links.heard_unlinked(ActorId(to), &other, number);
            }
            Signal::Exit { normal, .. } => self.exit(life, to, &other, normal),
        }
    }

    /// A node is lost, and with it what was linked there.
    pub(super) fn links_lost(&mut self, life: LifeId, peer: u64) {
        for (actor, _) in self.lives[life as usize].links.node_lost(NodeUid(peer)) {
            self.reach(Branch::LinkLost);
            self.stop(life, actor.0);
        }
    }

    // The end.

    /// Ends of links that stand between lives that are connected, and who is connected with whom.
    pub(super) fn links_rest(&self) -> (Vec<LinkEnd>, Vec<(LifeId, LifeId)>) {
        let up: Vec<LifeId> = (0..self.lives.len() as LifeId).filter(|life| self.lives[*life as usize].up).collect();
        let has = |life: LifeId, peer: LifeId| {
            let uid = self.lives[peer as usize].uid;
            life == peer || self.lives[life as usize].peers.get(&uid).is_some_and(|peer| peer.data.is_some())
        };
        let mut ends = Vec::new();
        let mut connected = Vec::new();
        for life in &up {
            for peer_life in up.iter().filter(|peer| has(*life, **peer) && has(**peer, *life)) {
                connected.push((*life, *peer_life));
                let node = self.lives[*peer_life as usize].id();
                for (actor, peer) in self.lives[*life as usize].links.of_node(node.uid) {
                    ends.push(LinkEnd { life: *life, actor: actor.0, peer_life: *peer_life, peer: peer.0 });
                }
            }
        }
        ends.sort();
        (ends, connected)
    }

    /// Watchers of others whose question nobody waits for any more.
    pub(super) fn watchers_left(&self) -> usize {
        let live = |watcher: &&Watcher| match watcher {
            Watcher::Near(monitor) => self.monitors[*monitor as usize].over,
            Watcher::Far(asker) => {
                let forgotten = self.judge.ledger.call(asker.op).verdict.is_some();
                forgotten
                    && self.ends[asker.end as usize].over.is_none()
                    && !self.judge.ledger.tainted.contains(&asker.end)
            }
        };
        let actors = self.lives.iter().filter(|life| life.up).flat_map(|life| life.actors.values());
        actors.flat_map(|one| &one.watchers).filter(live).count()
    }

    /// Gives up what would wait for ever, but for what should have been told by now.
    pub(super) fn stop_waiting(&mut self) {
        let monitors: Vec<u32> = (0..self.monitors.len() as u32).collect();
        for monitor in monitors {
            // Of an end that should have been told by now it still has to tell.
            let (life, actor) = self.monitors[monitor as usize].target;
            if self.lives[life as usize].up && self.is_alive(life, actor) == Some(true) {
                self.demonitor(monitor);
            }
        }
        let follows: Vec<Op> =
            self.waits.iter().filter(|(_, wait)| matches!(wait, Wait::Follow { .. })).map(|(op, _)| *op).collect();
        for op in follows {
            self.cancel(op);
        }
    }
}
