//! Section 6: a child has one life at a time; children stop one after the other, the last one first; a failure restarts whom the
//! strategy names and nobody rests too short; beyond the restarts that are allowed in 10 s nobody starts any more.

use std::collections::BTreeMap;

use mobula_core::{RestartType, Strategy};

use super::{Oracle, View};
use crate::fact::{Fact, HowEnded, LifeId};
use crate::params::{MS, SECOND, Supervised, Time};

#[derive(Default)]
pub(super) struct SupervisionOracle {
    supervisors: BTreeMap<LifeId, Supervisor>,
}

#[derive(Default)]
struct Supervisor {
    children: BTreeMap<u32, Child>,
    /// Failures that were followed, or had to be followed, by a restart.
    failures: Vec<Time>,
    /// Who failed last, when, and how long the rest is at least.
    last: Option<(u32, Time, Time)>,
    /// After this nobody may start any more. In that very moment a start may have been on its way.
    doomed: Option<Time>,
    /// It cannot be said whether a failure was within the window.
    unsure: bool,
}

#[derive(Default)]
struct Child {
    state: State,
    since: Time,
    /// It is off, and about to start again.
    returns: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Off,
    Starting,
    Running,
    Stopping,
}

const WINDOW: Time = 10 * SECOND;

impl Oracle for SupervisionOracle {
    fn promise(&self) -> &'static str {
        "§6 children stop in reverse order, restarts rest and are bounded"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        let Some(plan) = &view.params.supervised else { return Ok(()) };
        let now = view.now;
        match *fact {
            Fact::ChildStarts { life, child } => {
                let one = self.supervisors.entry(life).or_default();
                one.may_start(plan, life, child, now)?;
                one.children.insert(child, Child { state: State::Starting, since: now, returns: false });
            }
            Fact::ChildRuns { life, child } => {
                let one = self.supervisors.entry(life).or_default();
                if let Some(child) = one.children.get_mut(&child).filter(|child| child.state == State::Starting) {
                    child.state = State::Running;
                }
            }
            Fact::ChildStops { life, child } => {
                let one = self.supervisors.entry(life).or_default();
                let later = one
                    .children
                    .iter()
                    .find(|(other, state)| **other > child && matches!(state.state, State::Running | State::Stopping));
                if let Some((later, _)) = later {
                    return Err(format!("child {child} of life {life} is stopped before child {later}"));
                }
                match one.children.get_mut(&child) {
                    Some(child) if child.state != State::Off => child.state = State::Stopping,
                    _ => return Err(format!("child {child} of life {life} is stopped, and does not run")),
                }
            }
            Fact::ChildEnds { life, child, how } => {
                let one = self.supervisors.entry(life).or_default();
                let state = one.children.entry(child).or_default();
                let by_itself = state.state != State::Stopping;
                state.state = State::Off;
                state.returns = true;
                let restarts = match plan.restart[child as usize] {
                    RestartType::Permanent => true,
                    RestartType::Transient => how == HowEnded::Failed,
                    RestartType::Temporary => false,
                };
                if !restarts && by_itself {
                    state.returns = false;
                }
                if by_itself && how != HowEnded::Told && restarts && one.doomed.is_none() {
                    // Among siblings that are being restarted it may be none of its supervisor's failures.
                    let busy = |(other, state): (&u32, &Child)| {
                        *other != child && (state.returns || matches!(state.state, State::Starting | State::Stopping))
                    };
                    one.unsure |= plan.strategy != Strategy::OneForOne && one.children.iter().any(busy);
                    one.failed(child, now, view);
                }
            }
            Fact::SupervisorEnds { life, failed } => {
                let one = self.supervisors.entry(life).or_default();
                if failed && one.doomed.is_none() && !one.unsure {
                    return Err(format!("the supervisor of life {life} gives up within its restarts"));
                }
                if let Some((child, _)) = one.children.iter().find(|(_, child)| child.state != State::Off) {
                    return Err(format!("the supervisor of life {life} ends before its child {child}"));
                }
                one.doomed.get_or_insert(now);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Supervisor {
    fn failed(&mut self, child: u32, now: Time, view: &View<'_>) {
        // Its clock is not the world's, and may have jumped.
        let slack = 2 * view.params.skew_ppm() * WINDOW / 1_000_000 + MS;
        let jumped = view.params.faults.iter().any(|fault| matches!(fault.fault, crate::params::Fault::Jump { .. }));
        let within = |at: &&Time| now - **at < WINDOW;
        let unsure = |at: &Time| (now - *at).abs_diff(WINDOW) <= slack;
        self.unsure |= jumped || self.failures.iter().any(unsure);
        let before = self.failures.iter().filter(within).count() as u32;
        if before >= view.params.restarts_max {
            if !self.unsure {
                self.doomed.get_or_insert(now);
            }
            return;
        }
        self.failures.push(now);
        let rest = if self.unsure { 0 } else { ((50 * MS) << before).min(10 * SECOND) * 4 / 5 };
        // Less by a clock that is fast, and moments are rounded.
        let rest = rest - (rest * 2 * view.params.skew_ppm() / 1_000_000) - rest / 100;
        self.last = Some((child, now, rest));
    }

    fn may_start(&self, plan: &Supervised, life: LifeId, child: u32, now: Time) -> Result<(), String> {
        if self.doomed.is_some_and(|at| now > at) {
            return Err(format!("child {child} of life {life} starts, and the restarts are used up"));
        }
        if self.children.get(&child).is_some_and(|child| child.state != State::Off) {
            return Err(format!("child {child} of life {life} starts, and its life before has not ended"));
        }
        let Some((failed, at, rest)) = self.last else { return Ok(()) };
        if failed == child && now < at + rest {
            return Err(format!("child {child} of life {life} starts {} us after its failure", now - at));
        }
        let from = match plan.strategy {
            Strategy::OneForOne => return Ok(()),
            Strategy::OneForAll => 0,
            Strategy::RestForOne => failed,
        };
        let kept = self
            .children
            .iter()
            .find(|(other, state)| **other >= from && state.state == State::Running && state.since < at);
        match kept {
            Some((other, _)) => {
                Err(format!("child {failed} of life {life} failed, and child {other} was not restarted"))
            }
            None => Ok(()),
        }
    }
}
