//! I20 for leases: a pause far below the lease fences nobody off. Whoever is fenced off had lost its connection to the head, or
//! one of the two was hindered for a good part of the lease. A renewal goes ahead of what is queued, but not of what is being
//! written: through a slow node and a small socket that takes many steps, so such a node counts as hindered all the time.

use std::collections::BTreeSet;

use super::i20_no_false_death::blame;
use super::{Oracle, View};
use crate::fact::{Fact, LifeId};
use crate::params::{Fault, SECOND, Time};

#[derive(Default)]
pub(super) struct Leases {
    lost: BTreeSet<(LifeId, u64)>,
}

impl Oracle for Leases {
    fn promise(&self) -> &'static str {
        "I20 a pause under 2 s fences nobody off"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::PeerLost { life, peer } => {
                self.lost.insert((life, peer));
                Ok(())
            }
            Fact::Fenced { life } => {
                let own = &view.ledger.lives[life as usize];
                let heads = view.ledger.lives.iter().enumerate().filter(|(_, head)| head.node == 0);
                let lost = heads.into_iter().any(|(number, head)| {
                    head.until.is_some()
                        || self.lost.contains(&(life, head.uid))
                        || self.lost.contains(&(number as LifeId, own.uid))
                });
                let since = view.now.saturating_sub(2 * view.params.lease + SECOND);
                let blamed = blame(view, own.node, 0, since) + trickle(view, own.node, since) + trickle(view, 0, since);
                if lost || blamed >= view.params.lease / 2 {
                    return Ok(());
                }
                Err(format!(
                    "life {life} is fenced off; it was hindered for {blamed} us, its lease lasts {}",
                    view.params.lease
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A socket of this size takes what is written at a time in a few steps.
const ROOMY_BYTES: usize = 4000;

/// How long `node` was slow, where it sends a little at a time.
fn trickle(view: &View<'_>, node: u8, since: Time) -> Time {
    if view.params.socket_bytes >= ROOMY_BYTES {
        return 0;
    }
    let slow = view.params.faults.iter().filter(|f| matches!(f.fault, Fault::Slow { node: n, .. } if n == node));
    slow.map(|fault| view.now.min(fault.until).saturating_sub(since.max(fault.at))).sum()
}
