//! Keepers: drivers of jobs that keep detached actors. They take names, serve them in workers of their jobs, give them back, and end when they have
//! kept none for a while.

use std::collections::BTreeMap;

use mobula_core::cluster::JobId;
use mobula_core::{NodeUid, limits};

use super::fact::{Fact, Role};
use super::params::MS;
use super::{Branch, Event, Peer, Reply, Request, World};
use crate::params::Time;

/// Few, so that many want the same.
pub(super) const NAMES: [&str; 3] = ["hits", "cart", "rank"];

/// Actors that a keeper has at once, and names that it asks for.
const ACTORS_MAX: usize = 4;

/// By clocks that differ by a twentieth at most.
const IDLE: Time = limits::KEEPER_IDLE.as_micros() as Time * 19 / 20;

/// The driver of a keeper.
pub(super) struct Keeper {
    job: JobId,
    host: u32,
    next_number: u64,
    actors: BTreeMap<u64, Actor>,
    close_at: Time,
}

/// A detached actor, or a name for one.
struct Actor {
    name: &'static str,
    /// The head has said that the name is its own.
    given: bool,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// The name is asked for, as long as somebody wants it.
    Asks { again_at: Time, until: Time },
    /// It lives in a worker.
    Lives { process: NodeUid, until: Time },
    /// The name is given back.
    Returns { again_at: Time },
}

impl World {
    /// The driver of a keeper has begun on a machine.
    pub(super) fn keeper_begins(&mut self, process: NodeUid, job: JobId, host: u32, starts: Time) {
        self.reach(Branch::KeeperRuns);
        let keeper = Keeper { job, host, next_number: 1, actors: BTreeMap::new(), close_at: 0 };
        self.keepers.insert(process, keeper);
        self.after(starts, Event::KeeperWakes(process));
    }

    pub(super) fn keeper_wakes(&mut self, process: NodeUid) {
        let Some(keeper) = self.keepers.get(&process) else { return };
        let (now, host) = (self.now, keeper.host);
        if let Some(thaws) = self.frozen_until(host) {
            return self.at(thaws, Event::KeeperWakes(process));
        }
        if !self.hosts[host as usize].has(process) {
            let had_some = keeper.actors.values().any(|actor| matches!(actor.state, State::Lives { .. }));
            self.keepers.remove(&process);
            if had_some {
                self.reach(Branch::KeeperLost);
            }
            return;
        }
        let next = self.random.between(50, 150) * MS;
        self.after(next, Event::KeeperWakes(process));
        if !self.may_act(host, process) {
            return;
        }
        for number in self.actors_that_end(process) {
            self.let_go(process, number);
        }
        let close_after = self.random.between(500, 2_500) * MS;
        let Some(keeper) = self.keepers.get_mut(&process) else { return };
        let mut requests = Vec::new();
        for (number, actor) in &mut keeper.actors {
            let (State::Asks { again_at, .. } | State::Returns { again_at }) = &mut actor.state else { continue };
            if now < *again_at {
                continue;
            }
            *again_at = now + 500 * MS;
            let (keeper, number, name) = (keeper.job, *number, actor.name);
            requests.push(match actor.state {
                State::Asks { .. } => Request::HoldName { keeper, process, number, name },
                _ => Request::ReleaseName { keeper, process, number },
            });
        }
        if now >= keeper.close_at {
            keeper.close_at = now + close_after;
            requests.push(Request::CloseKeeper(keeper.job, process));
        }
        requests.into_iter().for_each(|request| self.ask(host as Peer, request));
    }

    /// Actors of a keeper whose time is over, or whose processes have ended.
    fn actors_that_end(&mut self, process: NodeUid) -> Vec<u64> {
        let (now, hosts) = (self.now, &self.hosts);
        let Some(keeper) = self.keepers.get(&process) else { return Vec::new() };
        let is_lost = |process: NodeUid| !hosts.iter().any(|host| host.has(process));
        let (mut over, mut lost) = (Vec::new(), false);
        for (number, actor) in &keeper.actors {
            let ends = match actor.state {
                State::Asks { until, .. } => now >= until,
                State::Lives { process, until } => {
                    lost |= is_lost(process);
                    now >= until || is_lost(process)
                }
                State::Returns { .. } => false,
            };
            over.extend(ends.then_some(*number));
        }
        if lost {
            self.reach(Branch::ActorLost);
        }
        over
    }

    /// The drivers of all keepers are killed.
    pub(super) fn keepers_end(&mut self) {
        let keepers: Vec<_> = self.keepers.iter().map(|(process, keeper)| (*process, keeper.host)).collect();
        for (process, host) in keepers {
            self.process_ends(host, process, false);
        }
    }

    /// A process of another job wants an actor of this name, and has been let in.
    pub(super) fn keeper_is_asked(&mut self, job: JobId, name: &'static str) {
        let keeper = self.keepers.iter().find(|(_, keeper)| keeper.job == job);
        let Some((process, host)) = keeper.map(|(process, keeper)| (*process, keeper.host)) else { return };
        if let Some(thaws) = self.frozen_until(host) {
            return self.at(thaws, Event::ToKeeper(job, name));
        }
        if !self.may_act(host, process) {
            return;
        }
        let patience = if self.random.one_in(6) { self.random.below(1_500) * MS } else { Time::MAX / 2 };
        let until = self.now + patience;
        let Some(keeper) = self.keepers.get_mut(&process).filter(|keeper| keeper.actors.len() < ACTORS_MAX) else {
            return;
        };
        let number = keeper.next_number;
        keeper.next_number += 1;
        let state = State::Asks { again_at: 0, until };
        keeper.actors.insert(number, Actor { name, given: false, state });
        self.fact(Fact::NameAsked { keeper: job, number, name });
    }

    pub(super) fn keeper_hears(&mut self, host: u32, reply: Reply) {
        match reply {
            Reply::Held { process, number, answer, .. } if self.may_act(host, process) => {
                let Some(keeper) = self.keepers.get(&process) else { return };
                let asks = |actor: &Actor| matches!(actor.state, State::Asks { .. });
                if !keeper.actors.get(&number).is_some_and(asks) {
                    return;
                }
                match answer {
                    Ok(()) => self.actor_begins(process, number),
                    // As also one does that does not know whether it was given.
                    Err(_) => self.let_go(process, number),
                }
            }
            Reply::NameFree { process, number, .. } => {
                if let Some(keeper) = self.keepers.get_mut(&process) {
                    keeper.actors.remove(&number);
                }
            }
            Reply::Closed(process, Ok(true)) if self.hosts[host as usize].has(process) => {
                self.reach(Branch::KeeperClosed);
                self.process_ends(host, process, false);
            }
            _ => {}
        }
    }

    fn actor_begins(&mut self, driver: NodeUid, number: u64) {
        let Some(job) = self.keepers.get(&driver).map(|keeper| keeper.job) else { return };
        let processes = self.hosts.iter().flat_map(|host| host.processes());
        let is_worker = |of: &JobId, role: &Role| *of == job && matches!(role, Role::Worker(_));
        let workers = processes.filter(|(_, (of, role))| is_worker(of, role)).map(|(process, _)| process);
        let workers: Vec<NodeUid> = workers.collect();
        if workers.is_empty() {
            return self.let_go(driver, number);
        }
        let process = self.random.pick(&workers);
        let (lives, forever) = (self.random.between(200, 8_000) * MS, self.random.one_in(8));
        let until = self.now + lives;
        let until = if forever || until >= self.params.calm_at { Time::MAX } else { until };
        if let Some(actor) = self.keepers.get_mut(&driver).and_then(|keeper| keeper.actors.get_mut(&number)) {
            actor.state = State::Lives { process, until };
        }
        self.fact(Fact::ActorBegins { keeper: job, number, process });
    }

    fn let_go(&mut self, process: NodeUid, number: u64) {
        let Some(keeper) = self.keepers.get_mut(&process) else { return };
        let Some(actor) = keeper.actors.get_mut(&number) else { return };
        actor.state = State::Returns { again_at: 0 };
        let keeper = keeper.job;
        self.fact(Fact::NameLetGo { keeper, number });
    }

    /// The head gives, or gives back, something that has to do with a keeper, and says so.
    pub(super) fn keeper_is_answered(&mut self, reply: &Reply) {
        match *reply {
            Reply::Opened { by, answer: Ok(keeper), .. } => {
                self.used.insert(keeper, self.now);
                self.fact(Fact::KeeperGiven { by, keeper });
            }
            Reply::Found(by, Ok(Some(keeper))) => {
                self.used.insert(keeper, self.now);
                self.fact(Fact::KeeperGiven { by, keeper });
            }
            Reply::Held { keeper, process, number, name, answer: Ok(()) } => {
                let known = self.keepers.get_mut(&process);
                if let Some(actor) = known.and_then(|keeper| keeper.actors.get_mut(&number)) {
                    actor.given = true;
                }
                self.names_given += 1;
                self.fact(Fact::NameGiven { keeper, number, name });
            }
            Reply::NameFree { keeper, number, .. } => {
                self.used.insert(keeper, self.now);
                self.fact(Fact::NameReturned { keeper, number });
            }
            _ => {}
        }
    }

    /// A keeper asks whether it may end: it may if it has given back all that it was given, and nobody has asked for it for long.
    pub(super) fn keeper_may_end(&mut self, job: JobId, driver: NodeUid) {
        let keeps = |actor: &Actor| actor.given && !matches!(actor.state, State::Returns { .. });
        let keeps = self.keepers.get(&driver).is_some_and(|keeper| keeper.actors.values().any(keeps));
        let used = self.used.get(&job).copied().unwrap_or_default().max(self.head.began);
        if !keeps && self.now >= used + IDLE {
            self.fact(Fact::JobMayEnd { job });
        }
    }

    /// The names of actors that live, and their keepers.
    pub(super) fn served(&self) -> BTreeMap<String, JobId> {
        let lives = |actor: &&Actor| matches!(actor.state, State::Lives { .. });
        let of = |keeper: &Keeper| {
            let names = keeper.actors.values().filter(lives).map(|actor| (actor.name.to_owned(), keeper.job));
            names.collect::<Vec<_>>()
        };
        self.running_keepers().flat_map(of).collect()
    }

    /// What keepers have asked for and not heard of.
    pub(super) fn keepers_unanswered(&self) -> u32 {
        let waits = |actor: &&Actor| !matches!(actor.state, State::Lives { .. });
        self.running_keepers().map(|keeper| keeper.actors.values().filter(waits).count() as u32).sum()
    }

    fn running_keepers(&self) -> impl Iterator<Item = &Keeper> {
        let runs = |(process, keeper): &(&NodeUid, &Keeper)| self.hosts[keeper.host as usize].has(**process);
        self.keepers.iter().filter(runs).map(|(_, keeper)| keeper)
    }

    /// A process runs, and its node's lease lets it do something.
    fn may_act(&self, host: u32, process: NodeUid) -> bool {
        self.hosts[host as usize].runs(process, self.local(host, self.now))
    }
}
