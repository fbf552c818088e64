//! I21: a cut, one-way or not, that lasts longer than a peer may be silent is a partition for both sides: when it
//! ends, neither has the other. A life that ends meanwhile may have been heard until then, in the direction that is open: it is
//! waited for as long from its end on.

use std::collections::BTreeMap;

use super::{Oracle, View, hindered};
use crate::fact::{EndId, Fact, LifeId};
use crate::params::{Fault, MS, Time};

#[derive(Default)]
pub(super) struct BothSides {
    up: BTreeMap<EndId, (LifeId, u64, Time)>,
}

impl Oracle for BothSides {
    fn promise(&self) -> &'static str {
        "I21 a one-way cut is a partition for both sides"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkUp { end, life, peer, .. } => {
                self.up.insert(end, (life, peer, view.now));
            }
            Fact::LinkDown { end, .. } => {
                self.up.remove(&end);
            }
            Fact::NodeDown { life, .. } => self.up.retain(|_, link| link.0 != life),
            Fact::FaultEnds { fault } => return self.cut_ends(&view.params.faults[fault as usize], view),
            _ => {}
        }
        Ok(())
    }
}

impl BothSides {
    fn cut_ends(&self, cut: &crate::params::FaultParams, view: &View<'_>) -> Result<(), String> {
        let Fault::Cut { a, b, .. } = cut.fault else { return Ok(()) };
        let way = 4 * (view.params.latency + view.params.jitter);
        // By the slowest clock.
        let slowly = 2 * view.params.down_after * view.params.skew_ppm() / 1_000_000;
        let notices = view.params.down_after + view.params.heartbeat + way + 200 * MS + slowly;
        let other = |f: &&crate::params::FaultParams| {
            let delays = matches!(f.fault, Fault::Delay { by, .. } if f.until + by > cut.at);
            let about = f.fault.touches(a) || f.fault.touches(b);
            **f != *cut && about && f.at < cut.until && (f.until > cut.at || delays)
        };
        let undisturbed = !view.params.faults.iter().any(|f| other(&f));
        if view.now < cut.at + notices || !undisturbed || hindered(view.params, a, cut.at, view.now) > 0 {
            return Ok(());
        }
        for (end, (life, peer, since)) in &self.up {
            let own = view.ledger.lives[*life as usize].node;
            let Some(peer) = view.ledger.life_of(*peer) else { continue };
            let peer = &view.ledger.lives[peer as usize];
            let (heard_until, peer) = (peer.until.unwrap_or(0), peer.node);
            let noticed = view.now >= heard_until + notices;
            if *since < cut.at && noticed && ((own, peer) == (a, b) || (own, peer) == (b, a)) {
                let lasted = view.now - cut.at;
                return Err(format!("nodes {a} and {b} were cut for {lasted} us, and end {end} is still up"));
            }
        }
        Ok(())
    }
}
