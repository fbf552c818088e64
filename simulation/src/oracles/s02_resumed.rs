//! Section 2: a session whose connections break goes on over another one, and nothing of it is lost. It ends only where the
//! peer has ended or has given it up, or could not be reached for as long as it is waited for; a mute connection and a thread
//! at work end none. (What is doubled or out of order I2 and I3 hear of.)

use std::collections::{BTreeMap, BTreeSet};

use super::i20_no_false_death::blame;
use super::{Oracle, Rest, View, at_work};
use crate::fact::{Closure, EndId, Fact, LifeId, Op};
use crate::params::{Fault, SECOND, Time};

#[derive(Default)]
pub(super) struct Resumed {
    up: BTreeMap<EndId, (LifeId, u64)>,
    broken: BTreeMap<EndId, Time>,
    lost: BTreeSet<(LifeId, u64)>,
}

impl Oracle for Resumed {
    fn promise(&self) -> &'static str {
        "§2 a session outlives its connections and loses nothing"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkUp { end, life, peer, .. } => {
                self.up.insert(end, (life, peer));
            }
            Fact::Broken { end, .. } => {
                self.broken.insert(end, view.now);
            }
            Fact::PeerLost { life, peer } => {
                self.lost.insert((life, peer));
            }
            Fact::LinkDown { end, why } => {
                let Some((life, peer)) = self.up.remove(&end) else { return Ok(()) };
                if !view.ledger.tainted.contains(&end) {
                    return self.ends(end, life, peer, why, view);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self, _: &Rest, view: &View<'_>) -> Result<(), String> {
        for (op, call) in view.ledger.calls.iter().enumerate() {
            let lives = |life: LifeId| view.ledger.lives[life as usize].until.is_none();
            let stands = call.end.is_some_and(|end| self.up.contains_key(&end) && self.up.contains_key(&(end ^ 1)));
            let stands = stands && lives(call.caller) && lives(call.target.0) && !view.ledger.is_tainted(op as Op);
            // What left just now is on its way.
            let left = call.wired.is_some_and(|at| at + 2 * SECOND < view.now);
            if stands && left && call.arrived == 0 {
                return Err(format!("#{op} left and never arrived, and its session goes on"));
            }
        }
        Ok(())
    }
}

impl Resumed {
    fn ends(&self, end: EndId, life: LifeId, peer: u64, why: Closure, view: &View<'_>) -> Result<(), String> {
        let own = &view.ledger.lives[life as usize];
        let Some(other) = view.ledger.life_of(peer) else { return Ok(()) };
        let other_life = &view.ledger.lives[other as usize];
        match why {
            Closure::Eof | Closure::Reset | Closure::CutInFrame => {
                let resumes = |node: u8| view.params.versions[usize::from(node)] >= 3;
                if resumes(own.node) && resumes(other_life.node) {
                    return Err(format!("end {end} ends with its connection: {why:?}"));
                }
            }
            Closure::Dead if other_life.until.is_none() => {
                return Err(format!("end {end} says that life {other} has ended, and it lives"));
            }
            Closure::Quarantined if !self.lost.contains(&(other, own.uid)) => {
                return Err(format!("end {end} is quarantined, and life {other} has not given life {life} up"));
            }
            Closure::NotRestored if other_life.until.is_none() && !self.lost.contains(&(other, own.uid)) => {
                let Some(since) = self.broken.get(&end).copied() else {
                    return Err(format!("end {end} was not restored, and had not broken"));
                };
                let mute = view.params.faults.iter().filter_map(|fault| match fault.fault {
                    Fault::Mute { a, b }
                        if (a, b) == (own.node, other_life.node) || (b, a) == (own.node, other_life.node) =>
                    {
                        Some(view.now.saturating_sub(since.max(fault.at)))
                    }
                    _ => None,
                });
                let work = at_work(view.params, own.node, since, view.now)
                    + at_work(view.params, other_life.node, since, view.now);
                let blamed = blame(view, own.node, other_life.node, since) + work + mute.sum::<Time>();
                let waited = view.now - since;
                // An attempt under way may have to end before the next one begins.
                if waited > blamed + view.params.handshake + SECOND {
                    return Err(format!("end {end} is given up after {waited} us, hindered for {blamed} us"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
