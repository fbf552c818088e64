//! What a supervisor does when its children start, end and fail: the decisions, as a plain state machine.
//!
//! Events and `now` in, [`Effect`]s out. The driver (`supervisor.rs` in the crate of the actors) starts, stops and kills
//! children, and reports what became of them. It calls [`Supervision::tick`] at [`Supervision::next_tick`].
//!
//! What has to be done in order is a *run*: children that are stopped one after the other, a rest, and children that are
//! started one after the other. One for one, each failed child has a run of its own; otherwise there is one for all that
//! is to be restarted, and a failure during it starts it anew with whatever it has to cover.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};
use crate::{Decision, ExitReason, RestartBudget, RestartPolicy, limits};

/// Which children are restarted when one of them has failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Strategy {
    /// The one that failed.
    #[default]
    OneForOne,
    /// All of them: those that still run are stopped first, the last one first.
    OneForAll,
    /// The one that failed and those that were started after it.
    RestForOne,
}

/// After which ends a child begins again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum RestartType {
    /// After each.
    #[default]
    Permanent,
    /// After an abnormal one: not after [`Normal`](ExitReason::Normal) and [`Shutdown`](ExitReason::Shutdown).
    Transient,
    /// Never. It is forgotten when it has ended.
    Temporary,
}

impl RestartType {
    fn restarts_after(self, reason: &ExitReason) -> bool {
        match self {
            RestartType::Permanent => true,
            RestartType::Transient => !matches!(reason, ExitReason::Normal | ExitReason::Shutdown),
            RestartType::Temporary => false,
        }
    }
}

/// A child of one supervisor; not used again there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChildKey(pub u32);

/// What the driver has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Begin a life of the child: its first, or the next one in the same place. Answered by
    /// [`started`](Supervision::started) or [`ended`](Supervision::ended).
    Start(ChildKey),
    /// End the child's life in order. Answered by [`ended`](Supervision::ended).
    Stop(ChildKey),
    /// End it without waiting for its hooks. Answered by [`ended`](Supervision::ended).
    Kill(ChildKey),
    /// Its life has ended, and no other follows: release what is left of it.
    Dismiss(ChildKey),
    /// It was killed and does not end: give it up. A next life begins elsewhere.
    Abandon(ChildKey),
    /// All children are gone, and the supervisor ends: by order, or for the reason of this child.
    End(Option<(ChildKey, ExitReason)>),
}

/// A request about a child that does not fit its state.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum ChildError {
    /// There is none.
    #[error("the supervisor has no such child")]
    Unknown,
    /// It runs, or is about to.
    #[error("the child runs: terminate it first")]
    Running,
    /// The supervisor is at its end.
    #[error("the supervisor is stopping")]
    Stopping,
}

/// How a child is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ChildState {
    /// It does not run, and is not about to.
    Off,
    /// It waits for its turn to start, or rests before its next life.
    Waiting,
    /// It has been told to start.
    Starting,
    /// It runs.
    Running,
    /// It has been told to stop.
    Stopping,
}

#[derive(Debug)]
struct Child {
    key: ChildKey,
    restart: RestartType,
    shutdown: Duration,
    state: ChildState,
    /// While it is stopping: the next thing to do about it, and when.
    overdue: Option<(Overdue, Instant)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Overdue {
    Kill,
    Abandon,
}

/// A year.
const REST_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug)]
struct Run {
    stop: VecDeque<ChildKey>,
    start: VecDeque<ChildKey>,
    not_before: Instant,
    stopping: Option<ChildKey>,
    starting: Option<ChildKey>,
}

#[derive(Debug, Eq, PartialEq)]
enum Phase {
    Running,
    Ending(Option<(ChildKey, ExitReason)>),
    Over,
}

/// The children of one supervisor, and what is to be done about them.
#[derive(Debug)]
pub struct Supervision {
    strategy: Strategy,
    budget: RestartBudget,
    children: Vec<Child>,
    next_key: u32,
    runs: Vec<Run>,
    phase: Phase,
    effects: Vec<Effect>,
}

impl Supervision {
    /// A supervisor without children, that restarts as `policy` says: counted for all children together.
    pub fn new(strategy: Strategy, policy: RestartPolicy) -> Self {
        Supervision {
            strategy,
            budget: RestartBudget::new(policy),
            children: Vec::new(),
            next_key: 0,
            runs: Vec::new(),
            phase: Phase::Running,
            effects: Vec::new(),
        }
    }

    /// Adds children at the end and starts them, each after the one before has started. `shutdown` is the time each has
    /// to stop in order; without bound if a clock cannot show it.
    ///
    /// # Errors
    /// [`ChildError::Stopping`].
    pub fn add(
        &mut self,
        children: impl IntoIterator<Item = (RestartType, Duration)>,
        now: Instant,
    ) -> Result<Vec<ChildKey>, ChildError> {
        self.check_running()?;
        let mut keys = Vec::new();
        for (restart, shutdown) in children {
            let key = ChildKey(self.next_key);
            self.next_key += 1;
            self.children.push(Child { key, restart, shutdown, state: ChildState::Waiting, overdue: None });
            keys.push(key);
        }
        self.run(VecDeque::new(), keys.iter().copied().collect(), now, now);
        Ok(keys)
    }

    /// Stops a child, for good unless it is [restarted](Self::restart).
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn terminate(&mut self, key: ChildKey, now: Instant) -> Result<(), ChildError> {
        self.check_running()?;
        let state = self.child(key).ok_or(ChildError::Unknown)?.state;
        for run in &mut self.runs {
            run.start.retain(|waiting| *waiting != key);
        }
        match state {
            ChildState::Waiting => {
                self.set(key, ChildState::Off);
                self.effects.push(Effect::Dismiss(key));
                self.step(now);
            }
            ChildState::Starting | ChildState::Running => self.run(VecDeque::from([key]), VecDeque::new(), now, now),
            ChildState::Stopping | ChildState::Off => self.step(now),
        }
        Ok(())
    }

    /// Starts a child that is off.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn restart(&mut self, key: ChildKey, now: Instant) -> Result<(), ChildError> {
        self.check_running()?;
        match self.child(key).ok_or(ChildError::Unknown)?.state {
            ChildState::Off => {
                self.set(key, ChildState::Waiting);
                self.run(VecDeque::new(), VecDeque::from([key]), now, now);
                Ok(())
            }
            _ => Err(ChildError::Running),
        }
    }

    /// Forgets a child that is off.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn delete(&mut self, key: ChildKey) -> Result<(), ChildError> {
        match self.child(key).ok_or(ChildError::Unknown)?.state {
            ChildState::Off => {
                self.children.retain(|child| child.key != key);
                Ok(())
            }
            _ => Err(ChildError::Running),
        }
    }

    /// The child has begun.
    pub fn started(&mut self, key: ChildKey, now: Instant) {
        if self.state_of(key) != Some(ChildState::Starting) {
            return;
        }
        self.set(key, ChildState::Running);
        for run in &mut self.runs {
            if run.starting == Some(key) {
                run.starting = None;
            }
        }
        self.step(now);
    }

    /// The child's life has ended, or could not begin. `jitter` in 0..=1, as for
    /// [`RestartBudget::on_failure`](crate::RestartBudget::on_failure).
    pub fn ended(&mut self, key: ChildKey, reason: ExitReason, now: Instant, jitter: f64) {
        let Some(child) = self.children.iter_mut().find(|child| child.key == key) else { return };
        let (before, restart) = (child.state, child.restart);
        if matches!(before, ChildState::Off | ChildState::Waiting) {
            return;
        }
        child.overdue = None;
        let mut returns = false;
        for run in &mut self.runs {
            run.stopping = run.stopping.filter(|stopping| *stopping != key);
            run.starting = run.starting.filter(|starting| *starting != key);
            returns |= run.start.contains(&key);
        }
        let by_itself = before != ChildState::Stopping && self.phase == Phase::Running;
        if returns {
            self.set(key, ChildState::Waiting);
        } else if by_itself && restart.restarts_after(&reason) {
            match self.budget.on_failure(now, jitter) {
                Decision::RestartAfter(rest) => {
                    // A policy may come from a peer: a rest beyond what a clock can show is as good as this.
                    let at = now.checked_add(rest).unwrap_or(now + REST_MAX);
                    self.restart_after(key, now, at);
                }
                Decision::GiveUp => {
                    self.off(key);
                    self.end(Some((key, reason)), now);
                }
            }
        } else {
            self.off(key);
        }
        self.step(now);
    }

    /// The supervisor is to end: its children stop first, the last one first.
    pub fn stop(&mut self, now: Instant) {
        if self.phase == Phase::Running {
            self.end(None, now);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let mut abandoned = Vec::new();
        for child in &mut self.children {
            match child.overdue {
                Some((Overdue::Kill, at)) if at <= now => {
                    child.overdue = Some((Overdue::Abandon, now + limits::KILL_WAIT));
                    self.effects.push(Effect::Kill(child.key));
                }
                Some((Overdue::Abandon, at)) if at <= now => abandoned.push(child.key),
                _ => {}
            }
        }
        for key in abandoned {
            self.effects.push(Effect::Abandon(key));
            self.ended(key, ExitReason::Killed, now, 0.5);
        }
        self.step(now);
    }

    /// When [`tick`](Self::tick) is due.
    pub fn next_tick(&self) -> Option<Instant> {
        let overdue = self.children.iter().filter_map(|child| child.overdue.map(|(_, at)| at));
        let resting = self.runs.iter().filter(|run| run.is_resting()).map(|run| run.not_before);
        overdue.chain(resting).min()
    }

    /// The next thing to do, in order.
    pub fn poll_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How a child is doing. None if there is no such child.
    pub fn state_of(&self, key: ChildKey) -> Option<ChildState> {
        self.child(key).map(|child| child.state)
    }

    /// The children, in the order of their start.
    pub fn children(&self) -> impl Iterator<Item = ChildKey> {
        self.children.iter().map(|child| child.key)
    }

    /// True when the supervisor is stopping, or has.
    pub fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    /// True when all children are gone and nothing follows.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// True when every child that is to run does.
    pub fn is_settled(&self) -> bool {
        self.runs.is_empty()
    }

    fn child(&self, key: ChildKey) -> Option<&Child> {
        self.children.iter().find(|child| child.key == key)
    }

    fn set(&mut self, key: ChildKey, state: ChildState) {
        if let Some(child) = self.children.iter_mut().find(|child| child.key == key) {
            child.state = state;
        }
    }

    /// It has ended and does not come back by itself.
    fn off(&mut self, key: ChildKey) {
        self.set(key, ChildState::Off);
        self.effects.push(Effect::Dismiss(key));
        self.children.retain(|child| child.key != key || child.restart != RestartType::Temporary);
    }

    fn check_running(&self) -> Result<(), ChildError> {
        if self.phase == Phase::Running { Ok(()) } else { Err(ChildError::Stopping) }
    }

    /// `failed` begins again after a rest, and with it whom the strategy names.
    fn restart_after(&mut self, failed: ChildKey, now: Instant, not_before: Instant) {
        self.set(failed, ChildState::Waiting);
        let strategy = if planted::is(Bug::SiblingsKept) { Strategy::OneForOne } else { self.strategy };
        let from = match strategy {
            Strategy::OneForOne => {
                // In the midst of an ordered start, those behind it wait for it.
                let starts = self.runs.iter_mut().find(|run| run.stop.is_empty() && run.covers(failed));
                match starts {
                    Some(run) => {
                        run.start.push_front(failed);
                        run.not_before = not_before;
                    }
                    None => self.run(VecDeque::new(), VecDeque::from([failed]), not_before, now),
                }
                return;
            }
            Strategy::OneForAll => 0,
            Strategy::RestForOne => self.children.iter().position(|child| child.key == failed).unwrap_or(0),
        };
        let mut covered: BTreeSet<ChildKey> = self.runs.iter().flat_map(|run| run.start.iter().copied()).collect();
        covered.extend(self.runs.iter().flat_map(|run| run.stop.iter().copied()));
        let alive = |child: &&Child| matches!(child.state, ChildState::Starting | ChildState::Running);
        covered.extend(self.children[from..].iter().filter(alive).map(|child| child.key));
        covered.insert(failed);
        let covers = |child: &&Child| covered.contains(&child.key);
        let stop = self.children.iter().rev().filter(covers).filter(alive).map(|child| child.key).collect();
        let returns = |child: &&Child| match child.state {
            ChildState::Off => false,
            // Also a temporary one: it has not begun yet, and nobody else would ever start it.
            ChildState::Waiting => true,
            _ => child.restart != RestartType::Temporary,
        };
        // A child that is just being stopped to be restarted stays among those that start.
        let start = self.children.iter().filter(covers).filter(returns).map(|child| child.key).collect();
        self.replace_runs(stop, start, not_before, now);
    }

    fn end(&mut self, cause: Option<(ChildKey, ExitReason)>, now: Instant) {
        self.phase = Phase::Ending(cause);
        let waiting: Vec<_> = self.children.iter().filter(|child| child.state == ChildState::Waiting).collect();
        let waiting: Vec<_> = waiting.into_iter().map(|child| child.key).collect();
        waiting.into_iter().for_each(|key| self.off(key));
        let mut stop: VecDeque<_> = self.children.iter().rev().map(|child| child.key).collect();
        if planted::is(Bug::StopOrderWrong) {
            stop.make_contiguous().reverse();
        }
        self.replace_runs(stop, VecDeque::new(), now, now);
    }

    /// One run in place of all; who is being stopped or started at this moment is waited for.
    fn replace_runs(&mut self, stop: VecDeque<ChildKey>, start: VecDeque<ChildKey>, not_before: Instant, now: Instant) {
        let stopping = self.runs.iter().find_map(|run| run.stopping);
        let starting = self.runs.iter().find_map(|run| run.starting);
        self.runs.clear();
        self.runs.push(Run { stop, start, not_before, stopping, starting });
        self.step(now);
    }

    /// Beside the other runs one for one, else behind what is under way: two children never start at once then.
    fn run(&mut self, stop: VecDeque<ChildKey>, start: VecDeque<ChildKey>, not_before: Instant, now: Instant) {
        match self.runs.first_mut() {
            Some(run) if self.strategy != Strategy::OneForOne => {
                run.stop.extend(stop);
                run.start.extend(start);
            }
            _ => self.runs.push(Run { stop, start, not_before, stopping: None, starting: None }),
        }
        self.step(now);
    }

    /// Does what can be done now.
    fn step(&mut self, now: Instant) {
        for at in 0..self.runs.len() {
            self.step_run(at, now);
        }
        self.runs.retain(|run| !run.is_done());
        if self.runs.is_empty()
            && let Phase::Ending(cause) = &mut self.phase
        {
            let cause = cause.take();
            self.phase = Phase::Over;
            self.effects.push(Effect::End(cause));
        }
    }

    fn step_run(&mut self, at: usize, now: Instant) {
        while self.runs[at].stopping.is_none() {
            let Some(key) = self.runs[at].stop.pop_front() else { break };
            let Some(child) = self.children.iter_mut().find(|child| child.key == key) else { continue };
            match child.state {
                ChildState::Starting | ChildState::Running => {
                    child.state = ChildState::Stopping;
                    child.overdue = now.checked_add(child.shutdown).map(|at| (Overdue::Kill, at));
                    self.effects.push(Effect::Stop(key));
                    self.runs[at].stopping = Some(key);
                }
                // Another run does it already.
                ChildState::Stopping => self.runs[at].stopping = Some(key),
                ChildState::Off | ChildState::Waiting => {}
            }
        }
        let run = &mut self.runs[at];
        while run.stopping.is_none() && run.starting.is_none() && now >= run.not_before {
            let Some(key) = run.start.pop_front() else { break };
            let Some(child) = self.children.iter_mut().find(|child| child.key == key) else { continue };
            if child.state == ChildState::Waiting {
                child.state = ChildState::Starting;
                run.starting = Some(key);
                self.effects.push(Effect::Start(key));
            }
        }
    }
}

impl Run {
    fn is_done(&self) -> bool {
        self.stop.is_empty() && self.start.is_empty() && self.stopping.is_none() && self.starting.is_none()
    }

    fn is_resting(&self) -> bool {
        self.stop.is_empty() && self.stopping.is_none() && self.starting.is_none() && !self.start.is_empty()
    }

    /// An ordered start of several children, `key` among those that came first.
    fn covers(&self, key: ChildKey) -> bool {
        self.start.iter().any(|waiting| *waiting > key)
    }
}

#[cfg(test)]
#[path = "supervision_tests.rs"]
mod tests;
