//! The promises of `docs/semantics.md`, section 10, each in a file of its own, watched at every step.

mod i01_one_outcome;
mod i02_no_message_twice;
mod i03_order;
mod i04_monitor_once;
mod i07_memory;
mod i08_outcome_is_true;
mod i09_stale_incarnation;
mod i10_uids;
mod i13_resolves;
mod i14_baseline;
mod i20_no_false_death;
mod i21_both_sides;
mod i23_one_panic;
mod i26_cancelled;
mod i29_intruders;
mod i31_rules;
mod s04_expired;

use crate::fact::{EndId, Fact, Op};
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
        Box::new(i07_memory::Memory),
        Box::new(i08_outcome_is_true::OutcomeIsTrue),
        Box::new(i09_stale_incarnation::StaleIncarnation::default()),
        Box::new(i10_uids::Uids),
        Box::new(i13_resolves::Resolves),
        Box::new(i14_baseline::Baseline),
        Box::new(i20_no_false_death::NoFalseDeath::default()),
        Box::new(i21_both_sides::BothSides::default()),
        Box::new(i23_one_panic::OnePanic::default()),
        Box::new(i26_cancelled::Cancelled),
        Box::new(i29_intruders::Intruders),
        Box::new(i31_rules::Rules),
        Box::new(s04_expired::Expired),
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
            _ => {}
        }
    }
    sum
}
