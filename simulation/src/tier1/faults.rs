//! What goes wrong, and when it is over.

use turmoil::Sim;

use super::net::{Way, set_ways};
use super::{host, state};
use crate::fact::Fact;
use crate::params::{Fault, Params, Time};

pub(super) struct Faults {
    params: Params,
    /// When a fault begins or ends, in order: time, begins, number.
    plan: Vec<(Time, bool, u16)>,
    next: usize,
    active: Vec<bool>,
    /// How many crashes hold a node down.
    down: Vec<u32>,
}

impl Faults {
    pub(super) fn new(params: &Params) -> Self {
        let number = |(number, fault): (usize, &crate::params::FaultParams)| {
            [(fault.at, true, number as u16), (fault.until, false, number as u16)]
        };
        let mut plan: Vec<_> = params.faults.iter().enumerate().flat_map(number).collect();
        plan.sort_by_key(|(at, begins, number)| (*at, !begins, *number));
        let active = vec![false; params.faults.len()];
        Faults { params: params.clone(), plan, next: 0, active, down: vec![0; params.nodes.into()] }
    }

    /// Does what is due.
    pub(super) fn happen(&mut self, sim: &mut Sim<'_>, now: Time) {
        for node in state::take_fenced() {
            // As the daemon does with a process that has lost its lease.
            if self.down[usize::from(node)] == 0 {
                state::node_down(node, false);
                sim.crash(host::name(node));
                sim.bounce(host::name(node));
            }
        }
        while let Some((_, begins, number)) = self.plan.get(self.next).copied().filter(|(at, ..)| *at <= now) {
            self.next += 1;
            self.active[usize::from(number)] = begins;
            let fault = self.params.faults[usize::from(number)].fault;
            state::fact(if begins { Fact::FaultBegins { fault: number } } else { Fact::FaultEnds { fault: number } });
            match (fault, begins) {
                (Fault::Crash { node, silent }, true) => {
                    if silent {
                        self.set_ways_of(sim, node);
                    }
                    self.down[usize::from(node)] += 1;
                    if self.down[usize::from(node)] == 1 {
                        state::node_down(node, silent);
                        sim.crash(host::name(node));
                    }
                }
                (Fault::Crash { node, .. }, false) => {
                    self.down[usize::from(node)] -= 1;
                    self.set_ways_of(sim, node);
                    if self.down[usize::from(node)] == 0 {
                        sim.bounce(host::name(node));
                    }
                }
                // What comes before it does itself: see `host.rs`.
                (Fault::Drain { node }, false) if state::leaves(node) && self.down[usize::from(node)] == 0 => {
                    state::node_down(node, false);
                    sim.crash(host::name(node));
                    sim.bounce(host::name(node));
                }
                (Fault::Cut { a, b, .. }, _) => self.set_ways(sim, a, b),
                (Fault::Delay { a, b, .. }, _) => self.set_delay(sim, a, b),
                _ => {}
            }
        }
    }

    fn set_ways_of(&self, sim: &Sim<'_>, node: u8) {
        (0..self.params.nodes).filter(|other| *other != node).for_each(|other| self.set_ways(sim, node, other));
    }

    /// Makes the two ways between `a` and `b` what the faults of now ask for.
    fn set_ways(&self, sim: &Sim<'_>, a: u8, b: u8) {
        set_ways(sim, &host::name(a), &host::name(b), (self.way(a, b), self.way(b, a)));
    }

    fn way(&self, from: u8, to: u8) -> Way {
        let of = |fault: &Fault| match *fault {
            Fault::Cut { a, b, lossy, .. } if (a, b) == (from, to) => Some(lossy),
            Fault::Cut { a, b, one_way: false, lossy } if (b, a) == (from, to) => Some(lossy),
            Fault::Crash { node, silent: true } if node == from || node == to => Some(true),
            _ => None,
        };
        let ways = self.active().filter_map(of).map(|lossy| if lossy { Way::Lost } else { Way::Held });
        ways.max().unwrap_or(Way::Open)
    }

    fn set_delay(&self, sim: &Sim<'_>, a: u8, b: u8) {
        let between = |fault: &Fault| match *fault {
            Fault::Delay { a: x, b: y, by } if (x, y) == (a, b) || (y, x) == (a, b) => Some(by),
            _ => None,
        };
        let by = self.active().filter_map(between).max().unwrap_or(self.params.jitter);
        let longest = std::time::Duration::from_micros(self.params.latency + by);
        sim.set_link_max_message_latency(host::name(a), host::name(b), longest);
    }

    fn active(&self) -> impl Iterator<Item = &Fault> {
        let faults = self.params.faults.iter().zip(&self.active);
        faults.filter(|(_, active)| **active).map(|(fault, _)| &fault.fault)
    }
}
