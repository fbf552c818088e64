//! The promises of `docs/semantics.md`, section 10, each in a file of its own, watched at every step.

mod i01_one_outcome;
mod i02_no_message_twice;
mod i03_order;
mod i04_monitor_once;
mod i05_one_activation;
mod i07_memory;
mod i08_outcome_is_true;
mod i09_stale_incarnation;
mod i10_uids;
mod i12_views;
mod i13_resolves;
mod i14_baseline;
mod i20_leases;
mod i20_no_false_death;
mod i21_both_sides;
mod i22_neighbours;
mod i23_one_panic;
mod i24_drain;
mod i25_versions;
mod i26_cancelled;
mod i27_repeated;
mod i29_intruders;
mod i31_rules;
mod s02_resumed;
mod s04_expired;
mod s05_links;
mod s05_links_seen;
mod s06_supervision;
mod s08_streams;

use crate::fact::{EndId, Fact, LifeId, Op};
use crate::ledger::Ledger;
use crate::params::{Params, Time};

/// What an oracle knows when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The history, the present fact not yet among it.
    pub ledger: &'a Ledger,
    /// The world.
    pub params: &'a Params,
    /// Now.
    pub now: Time,
}

/// Measures of one end of a connection, taken after each of its turns.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Which end.
    pub end: EndId,
    /// True for the control lane.
    pub control: bool,
    /// Bytes that are not written yet.
    pub queued_bytes: usize,
    /// Bytes of large messages that wait for their turn.
    pub unsent_large_bytes: usize,
    /// Bytes of the peer's large messages that are not complete.
    pub reassembly_bytes: usize,
    /// Of these at most, bytes that never wait: answers, credit, cancels.
    pub exempt_bytes: usize,
    /// Messages in line.
    pub in_line: usize,
    /// Asks without an answer.
    pub pending: usize,
    /// Targets with messages under way or in line.
    pub targets: usize,
    /// The most messages of this connection that one actor has not begun.
    pub mail_max: u32,
    /// Bytes read and not yet understood.
    pub inbox_bytes: usize,
    /// Bytes that are kept until the peer has acknowledged them.
    pub kept_bytes: usize,
}

/// The world has come to rest.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Every end that is still up, all credit returned.
    pub gauges: Vec<Gauge>,
    /// Calls whose handlers run, or whose messages are in mailboxes.
    pub unfinished: Vec<Op>,
    /// When all faults were over.
    pub healed_at: Time,
    /// Names, groups and links.
    pub services: ServicesRest,
}

/// What names, groups and links look like when the world has come to rest: what should not be there.
#[derive(Clone, Debug, Default)]
pub struct ServicesRest {
    /// Nodes with a lease whose view of a group is not the head's, and which group.
    pub stale_views: Vec<(LifeId, u8)>,
    /// Members of groups that have ended.
    pub dead_members: Vec<(LifeId, u64)>,
    /// Live actors of nodes with a lease whose names the head does not know.
    pub lost_names: Vec<(LifeId, u64, u8)>,
    /// Names that the head keeps for actors that have ended.
    pub dead_names: Vec<(LifeId, u64, u8)>,
    /// When all of this was looked at.
    pub looked_at: Time,
    /// Ends of links that stand between lives that are connected.
    pub links: Vec<LinkEnd>,
    /// Lives that have each other.
    pub connected: Vec<(LifeId, LifeId)>,
    /// Questions that are kept, and that nobody waits for.
    pub left: usize,
}

/// One end of a link, and the actor at the other.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LinkEnd {
    /// The life where it stands.
    pub life: LifeId,
    /// Its actor.
    pub actor: u64,
    /// The other's life.
    pub peer_life: LifeId,
    /// The other actor.
    pub peer: u64,
}

/// Watches one promise.
pub trait Oracle {
    /// Its number and what it says.
    fn promise(&self) -> &'static str;

    /// Looks at a fact before it is written into the ledger.
    ///
    /// # Errors
    /// What breaks the promise.
    fn fact(&mut self, _: &Fact, _: &View<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Looks at a connection after a turn.
    ///
    /// # Errors
    /// What breaks the promise.
    fn gauge(&mut self, _: &Gauge, _: &View<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Looks at the world when it has come to rest, or should have.
    ///
    /// # Errors
    /// What breaks the promise.
    fn rest(&mut self, _: &Rest, _: &View<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// One of each.
pub fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(i01_one_outcome::OneOutcome),
        Box::new(i02_no_message_twice::NoMessageTwice),
        Box::new(i03_order::Order::default()),
        Box::new(i04_monitor_once::MonitorOnce::default()),
        Box::new(i05_one_activation::OneActivation::default()),
        Box::new(i07_memory::Memory),
        Box::new(i08_outcome_is_true::OutcomeIsTrue),
        Box::new(i09_stale_incarnation::StaleIncarnation::default()),
        Box::new(i10_uids::Uids),
        Box::new(i12_views::Views),
        Box::new(i13_resolves::Resolves),
        Box::new(i14_baseline::Baseline),
        Box::new(i20_leases::Leases::default()),
        Box::new(i20_no_false_death::NoFalseDeath::default()),
        Box::new(i21_both_sides::BothSides::default()),
        Box::new(i22_neighbours::Neighbours::default()),
        Box::new(i23_one_panic::OnePanic::default()),
        Box::new(i24_drain::Drain::default()),
        Box::new(i25_versions::Versions),
        Box::new(i26_cancelled::Cancelled),
        Box::new(i27_repeated::Repeated::default()),
        Box::new(i29_intruders::Intruders),
        Box::new(i31_rules::Rules),
        Box::new(s02_resumed::Resumed::default()),
        Box::new(s04_expired::Expired),
        Box::new(s05_links::Links::default()),
        Box::new(s05_links_seen::LinksSeen::default()),
        Box::new(s06_supervision::SupervisionOracle::default()),
        Box::new(s08_streams::Streams::default()),
    ]
}

/// Time during which `node` may have been unable to act, within `from..until`: pauses, slowness, crashes.
pub(crate) fn hindered(params: &Params, node: u8, from: Time, until: Time) -> Time {
    use crate::params::Fault;
    let mut sum = 0;
    for fault in &params.faults {
        let overlap = until.min(fault.until).saturating_sub(from.max(fault.at));
        match fault.fault {
            Fault::Pause { node: n } | Fault::Crash { node: n, .. } if n == node => sum += overlap,
            // Several steps of a slow node may follow each other, each late.
            Fault::Slow { node: n, by } if n == node && overlap > 0 => sum += 8 * by,
            // Who reads a clock that has jumped believes to have waited for so long.
            // By a clock that runs a twentieth slow, as much takes the world so much longer.
            Fault::Jump { node: n, by } if n == node && from <= fault.at + by && fault.at <= until => {
                sum += by + by / 19
            }
            _ => {}
        }
    }
    sum
}

/// Time during which the threads of a node's actors read nothing, within `from..until`.
pub(crate) fn at_work(params: &Params, node: u8, from: Time, until: Time) -> Time {
    use crate::params::Fault;
    let busy = params.faults.iter().filter(|fault| matches!(fault.fault, Fault::Busy { node: n } if n == node));
    busy.map(|fault| until.min(fault.until).saturating_sub(from.max(fault.at))).sum()
}
