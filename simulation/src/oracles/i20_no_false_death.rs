//! I20: a pause below 2 s kills nobody. More exactly: whoever falls silent for a peer was hindered for as long as the
//! peer waited, but for a heartbeat and the way: by a pause, a cut, a stall, a delay, slowness or its death. Or it has given the
//! peer up itself, and its goodbye was lost: then it does not come back to a connection that it has closed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, View, hindered};
use crate::fact::{Closure, EndId, Fact, LifeId};
use crate::params::{Fault, MS};

#[derive(Default)]
pub(super) struct NoFalseDeath {
    ends: BTreeMap<EndId, (LifeId, u64)>,
    lost: BTreeSet<(LifeId, u64)>,
}

impl Oracle for NoFalseDeath {
    fn promise(&self) -> &'static str {
        "I20 a pause under 2 s kills nobody"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkUp { end, life, peer, .. } => {
                self.ends.insert(end, (life, peer));
            }
            Fact::PeerLost { life, peer } => {
                self.lost.insert((life, peer));
            }
            Fact::LinkDown { end, why: Closure::Silent { heard } } if !view.ledger.tainted.contains(&end) => {
                let Some((life, peer)) = self.ends.get(&end).copied() else { return Ok(()) };
                let own = &view.ledger.lives[life as usize];
                let Some(number) = view.ledger.life_of(peer) else { return Ok(()) };
                if self.lost.contains(&(number, own.uid)) {
                    return Ok(());
                }
                let peer = &view.ledger.lives[number as usize];
                let blamed = blame(view, own.node, peer.node, heard)
                    + peer.until.map_or(0, |until| view.now.saturating_sub(until.max(heard)));
                let way = view.params.latency + view.params.jitter;
                let silence = view.now - heard;
                if silence > blamed + view.params.heartbeat + 4 * way + 100 * MS {
                    return Err(format!("end {end} was silent for {silence} us, hindered for {blamed} us"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// How long faults may have kept `peer` from being heard by `own`.
pub(super) fn blame(view: &View<'_>, own: u8, peer: u8, heard: u64) -> u64 {
    let mut sum = hindered(view.params, own, heard, view.now) + hindered(view.params, peer, heard, view.now);
    for fault in &view.params.faults {
        let pair = |a: u8, b: u8| (a, b) == (peer, own) || (a, b) == (own, peer);
        // Cuts delay what is under way when they end; what was delayed by 5 s arrives within 5 s of the fault.
        let overlap = |after: u64| view.now.min(fault.until + after).saturating_sub(heard.max(fault.at));
        sum += match fault.fault {
            Fault::Cut { a, b, .. } | Fault::Stall { a, b, .. } | Fault::Flap { a, b, .. } if pair(a, b) => overlap(0),
            Fault::Delay { a, b, by } if pair(a, b) => overlap(by),
            _ => 0,
        };
    }
    sum
}
