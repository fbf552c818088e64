//! What goes wrong, when it is over, and who starts again what has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::NodeUid;
use turmoil::Sim;

use super::net::HEAD;
use super::params::{Fault, Params, What};
use super::reach::Branch;
use super::{client_host, node_host, state};
use crate::head::LEASE_AND_MARGIN;
use crate::head::fact::Fact;
use crate::head::params::MS;
use crate::params::{SECOND, Time};
use crate::tier1::net::{Way, set_ways};

/// What is going to happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begins(usize),
    Ends(usize),
    HeadStarts,
    HostStarts(u32),
    /// Nothing goes wrong any more.
    Calm,
}

pub(super) struct Faults {
    params: Params,
    plan: BTreeMap<(Time, u64), Event>,
    next: u64,
    active: Vec<bool>,
    /// Not before then the head and each host start again.
    head_off_until: Time,
    off_until: Vec<Time>,
    /// Who is silent, since its machine is off.
    head_is_off: bool,
    is_off: Vec<bool>,
    /// For each way that is another: whom the host believed to be when it began, and the head's life.
    begun: BTreeMap<usize, (NodeUid, Option<u64>)>,
}

impl Faults {
    pub(super) fn new(params: &Params) -> Self {
        let hosts = params.hosts as usize;
        let mut faults = Faults {
            params: params.clone(),
            plan: BTreeMap::new(),
            next: 0,
            active: vec![false; params.faults.len()],
            head_off_until: 0,
            off_until: vec![0; hosts],
            head_is_off: false,
            is_off: vec![false; hosts],
            begun: BTreeMap::new(),
        };
        for (number, fault) in params.faults.iter().enumerate() {
            faults.at(fault.at, Event::Begins(number));
            faults.at(faults.until(fault), Event::Ends(number));
        }
        faults.at(params.calm_at, Event::Calm);
        faults
    }

    fn at(&mut self, at: Time, event: Event) {
        self.next += 1;
        self.plan.insert((at, self.next), event);
    }

    /// What begins late ends with everything else.
    fn until(&self, fault: &Fault) -> Time {
        (fault.at + fault.lasts).min(self.params.calm_at)
    }

    /// Does what is due.
    pub(super) fn happen(&mut self, sim: &mut Sim<'_>, now: Time) {
        if state::take_broken() {
            let away = state::draw(|random| random.between(50, 9_000)) * MS;
            self.head_ends(sim, (now + away).min(self.params.calm_at.max(now)), false);
        }
        for host in state::take_ended() {
            // As an operator's supervisor does it.
            let away = state::draw(|random| random.between(300, 2_000)) * MS;
            self.host_ends(sim, host, now + away, false, false);
        }
        while let Some(entry) = self.plan.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Event::Begins(number) => self.begins(sim, number, now),
                Event::Ends(number) => self.ends(sim, number, now),
                Event::HeadStarts if now >= self.head_off_until && !sim.is_host_running(HEAD) => {
                    self.head_is_off = false;
                    self.set_all_ways(sim);
                    sim.bounce(HEAD);
                }
                Event::HostStarts(host)
                    if now >= self.off_until[host as usize] && !sim.is_host_running(node_host::name(host)) =>
                {
                    self.is_off[host as usize] = false;
                    self.set_ways(sim, host);
                    sim.bounce(node_host::name(host));
                }
                Event::HeadStarts | Event::HostStarts(_) => {}
                Event::Calm => state::spare_the_head(),
            }
        }
        state::let_end();
    }

    fn head_ends(&mut self, sim: &mut Sim<'_>, until: Time, silent: bool) {
        self.head_is_off |= silent;
        self.set_all_ways(sim);
        if state::head_ends() {
            sim.crash(HEAD);
        }
        self.head_off_until = self.head_off_until.max(until);
        self.at(self.head_off_until, Event::HeadStarts);
    }

    fn host_ends(&mut self, sim: &mut Sim<'_>, host: u32, until: Time, silent: bool, forgets: bool) {
        let number = host as usize;
        self.is_off[number] |= silent;
        self.set_ways(sim, host);
        if sim.is_host_running(node_host::name(host)) {
            state::node_down(host, forgets);
            sim.crash(node_host::name(host));
        }
        self.off_until[number] = self.off_until[number].max(until);
        self.at(self.off_until[number], Event::HostStarts(host));
    }

    fn begins(&mut self, sim: &mut Sim<'_>, number: usize, now: Time) {
        let fault = self.params.faults[number];
        let until = self.until(&fault);
        self.active[number] = true;
        state::line(|| format!("fault until {:.3}: {:?}", until as f64 / 1e6, fault.what));
        match fault.what {
            What::Cut { peer, .. } | What::Hold { peer } => {
                self.set_ways(sim, peer);
                let believes = if peer < self.params.hosts { state::believes(peer) } else { None };
                self.begun.extend(believes.map(|uid| (number, (uid, state::head_life()))));
            }
            What::Delay { peer, .. } => self.set_delay(sim, peer),
            What::CrashHead { silent } => self.head_ends(sim, until, silent),
            What::Crash { host, silent, forgets } => self.host_ends(sim, host, until, silent, forgets),
            What::Stop { host } => state::stop(host),
            What::Drain { host } => {
                // A head that comes back gives the whole time again; it has to pass before the end.
                let within = Duration::from_micros((until - now).min(6 * SECOND));
                state::believes(host).into_iter().for_each(|uid| state::order(uid, Some(within)));
            }
            What::Remove { host } => state::believes(host).into_iter().for_each(|uid| state::order(uid, None)),
        }
    }

    fn ends(&mut self, sim: &mut Sim<'_>, number: usize, now: Time) {
        self.active[number] = false;
        let Fault { at, what, .. } = self.params.faults[number];
        match what {
            What::Cut { peer, .. } | What::Hold { peer } => self.set_ways(sim, peer),
            What::Delay { peer, .. } => self.set_delay(sim, peer),
            _ => {}
        }
        let Some((node, head)) = self.begun.remove(&number) else { return };
        let lasted = now - at;
        if lasted > LEASE_AND_MARGIN {
            match what {
                What::Cut { from, to, .. } if from != to => state::reach(Branch::OneWay),
                What::Hold { .. } => state::reach(Branch::Held),
                _ => {}
            }
        }
        let lives_on = what.peer().and_then(state::believes) == Some(node);
        let head_was_there = head.is_some() && state::head_life() == head;
        let believed = state::is_believed(node);
        state::fact(Fact::Heals { node, lasted, lives_on, believed, head_was_there });
    }

    fn name(&self, peer: u32) -> String {
        match peer.checked_sub(self.params.hosts) {
            None => node_host::name(peer),
            Some(client) => client_host::name(client),
        }
    }

    fn set_all_ways(&self, sim: &Sim<'_>) {
        (0..self.params.hosts + self.params.clients).for_each(|peer| self.set_ways(sim, peer));
        let way = if self.head_is_off { Way::Lost } else { Way::Open };
        set_ways(sim, client_host::OPERATOR, HEAD, (way, way));
    }

    /// Makes the two ways between a peer and the head what the faults of now ask for.
    fn set_ways(&self, sim: &Sim<'_>, peer: u32) {
        let is_off = self.head_is_off || self.is_off.get(peer as usize).is_some_and(|off| *off);
        let mut ways = if is_off { (Way::Lost, Way::Lost) } else { (Way::Open, Way::Open) };
        for what in self.active().filter(|what| what.peer() == Some(peer)) {
            let (there, back) = match what {
                What::Cut { from, to, .. } => (from.then_some(Way::Lost), to.then_some(Way::Lost)),
                What::Hold { .. } => (Some(Way::Held), Some(Way::Held)),
                _ => (None, None),
            };
            ways = (there.map_or(ways.0, |way| way.max(ways.0)), back.map_or(ways.1, |way| way.max(ways.1)));
        }
        set_ways(sim, &self.name(peer), HEAD, ways);
    }

    fn set_delay(&self, sim: &Sim<'_>, peer: u32) {
        let of = |what| match what {
            What::Delay { peer: other, by } if other == peer => Some(by),
            _ => None,
        };
        let by = self.active().filter_map(of).max().unwrap_or(self.params.jitter);
        sim.set_link_max_message_latency(self.name(peer), HEAD, Duration::from_micros(self.params.latency + by));
    }

    fn active(&self) -> impl Iterator<Item = What> + '_ {
        let faults = self.params.faults.iter().zip(&self.active);
        faults.filter(|(_, active)| **active).map(|(fault, _)| fault.what)
    }
}
