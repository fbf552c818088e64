//! The head in tier 1: the real keeper of the head over its records, the real membership of nodes and the real control protocol between them, each host
//! one of a simulated network with a clock of its own, in one thread and virtual time. The oracles are those of tier 0.
//!
//! What the head's process does is in `head_host.rs` and `service.rs`, a machine in `node_host.rs` and `processes.rs`, those who use the cluster in
//! `client_host.rs`, connections in `net.rs`, what goes wrong in `faults.rs`. `state.rs` is where all of them tell what happened.

mod campaign;
mod client_host;
mod faults;
mod head_host;
mod net;
mod node_host;
mod params;
mod processes;
mod reach;
mod service;
mod state;

use std::time::Duration;

pub use campaign::{Counts, Kind, Report, Summary};
pub use params::{Fault, Params, What};
pub use reach::Branch;

use crate::head::CALM;
use crate::params::Time;
use crate::tier1::{end_hosts, network};

/// What the network moves in one step; nothing arrives sooner.
const TICK: Duration = Duration::from_millis(5);

/// Connections that wait at the head's door, and messages in each.
const TCP_CAPACITY: usize = 4096;

/// Runs a world.
pub fn run(params: &Params, traced: bool) -> Report {
    state::begin(params, traced);
    let mut network = network(params.seed, TICK, params.latency, params.jitter);
    let mut sim = network.tcp_capacity(TCP_CAPACITY).build();
    sim.host(net::HEAD, head_host::run);
    for host in 0..params.hosts {
        sim.host(node_host::name(host), move || node_host::run(host));
    }
    for client in 0..params.clients {
        sim.host(client_host::name(client), move || client_host::run(client));
    }
    sim.host(client_host::OPERATOR, client_host::operate);
    let mut faults = faults::Faults::new(params);
    let end = params.calm_at + CALM;
    let mut now = 0;
    while now < end && !state::is_violated() {
        faults.happen(&mut sim, now);
        if let Err(error) = sim.step() {
            state::accuse("I31 no peer input panics", format!("a host ends: {error}"));
        }
        now = sim.elapsed().as_micros() as Time;
        state::set_clock(now);
    }
    if !state::is_violated() {
        state::rest();
    }
    let report = state::end();
    let hosts = (0..params.hosts).map(node_host::name).chain((0..params.clients).map(client_host::name));
    end_hosts(&mut sim, hosts.chain([net::HEAD.to_owned(), client_host::OPERATOR.to_owned()]));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_repeats() {
        let params = Params::draw(1);
        let (first, second) = (run(&params, true), run(&params, true));
        let differs = first.lines.iter().zip(&second.lines).find(|(first, second)| first != second);
        assert_eq!(differs, None);
        assert_eq!(first.hash, second.hash);
        assert!(first.violation.is_none(), "{:?}", first.violation);
        assert!(first.counts.processes > 0 && first.counts.leases > 0, "{:?}", first.counts);
    }
}
