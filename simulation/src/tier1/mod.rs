//! Tier 1: the real nodes. actix actors in their cells, supervision, mailboxes, links and the handshake, each node a host
//! of a simulated network with a clock of its own, all in one thread and virtual time. The oracles are tier 0's.
//!
//! What a node does besides is in `host.rs`, what its actors do in `worker.rs`, how calls are made and judged in
//! `calls.rs`, answers of many items in `streams.rs`, links in `links.rs`, names in `names.rs`, supervised workers in `children.rs`, what goes
//! wrong in `faults.rs`. `state.rs` is where all of them tell what happened.

mod calls;
mod children;
mod draw;
mod faults;
mod host;
mod links;
mod names;
pub(crate) mod net;
mod state;
mod streams;
mod worker;

use std::time::Duration;

use turmoil::{Builder, Sim};

use crate::oracles::Rest;
use crate::params::{Params, SECOND, Time};
use crate::world::Report;

pub use draw::draw;

/// What the network moves in one step; nothing arrives sooner.
const TICK: Duration = Duration::from_millis(1);

/// After the last fault: for the silent to be given up, and for the news of that.
const REST_AFTER: Time = 13 * SECOND;
/// For the names of a node to be free: after the last fault, since then the head hears no more of who is dead, and after each
/// fence, since up to then it may hear of a node that hears no answers. A lease and its margin, and something for the way.
const NAMES_AFTER: Time = 12 * SECOND;
/// After the last fault everything has to have its outcome.
const REST_AT_LAST: Time = 31 * SECOND;

/// Runs the world of `params` until it rests or breaks a promise.
pub fn run(params: &Params, traced: bool) -> Report {
    state::begin(params, traced);
    let mut sim = network(params.seed, TICK, params.latency, params.jitter).build();
    for number in 0..params.nodes {
        sim.host(host::name(number), move || host::run(number));
    }
    let mut faults = faults::Faults::new(params);
    let healed_at = params.healed_at();
    let mut now = 0;
    loop {
        faults.happen(&mut sim, now);
        if let Err(error) = sim.step() {
            state::accuse("I31 no peer input panics", format!("a host ends: {error}"));
        }
        now = sim.elapsed().as_micros() as Time;
        state::set_clock(now);
        if state::is_violated() || now > healed_at + REST_AT_LAST {
            break;
        }
        if now > healed_at + REST_AFTER && state::owed() == 0 && state::names_are_looked_at() {
            break;
        }
    }
    state::rest(&Rest { healed_at, services: state::names_at_rest(), ..Rest::default() });
    let report = state::end();
    end_hosts(&mut sim, (0..params.nodes).map(host::name));
    report
}

/// A network of `seed` that moves what is on it every `tick`, and on which a message takes `latency` at least, and at most `jitter` in addition: both in microseconds.
pub(crate) fn network(seed: u64, tick: Duration, latency: Time, jitter: Time) -> Builder {
    let micros = Duration::from_micros;
    let mut network = Builder::new();
    network
        .rng_seed(seed)
        .tick_duration(tick)
        .min_message_latency(micros(latency))
        .max_message_latency(micros(latency + jitter))
        .simulation_duration(Duration::from_secs(24 * 3600));
    network
}

/// Ends the hosts that still run. Streams say goodbye to their network, which has to be there for that.
pub(crate) fn end_hosts(sim: &mut Sim<'_>, names: impl IntoIterator<Item = String>) {
    for name in names {
        if sim.is_host_running(name.clone()) {
            sim.crash(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_repeats() {
        let params = draw(1);
        let (first, second) = (run(&params, true), run(&params, true));
        let differs = first.lines.iter().zip(&second.lines).find(|(first, second)| first != second);
        assert_eq!(differs, None);
        assert_eq!(first.hash, second.hash);
        assert!(first.violation.is_none(), "{:?}", first.violation);
        assert!(first.calls > 0 && first.facts > first.calls);
    }
}
