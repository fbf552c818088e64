//! Supervision: the real `Supervision` over the first actors of each life, and a model of what `actors/src/supervisor.rs` does
//! for it. Some children are slow to stop, some do not stop at all.

use std::time::Duration;

use mobula_core::{ChildKey, Effect, ExitReason, RestartPolicy, Supervision};

use super::{Event, World};
use crate::fact::{Fact, HowEnded, LifeId};
use crate::params::{MS, Time};
use crate::reach::Branch;

/// What a child has to stop in order.
const SHUTDOWN: Duration = Duration::from_millis(500);

pub(super) struct Supervisor {
    machine: Supervision,
    tick_at: Option<Time>,
    /// By child: an order to stop it that is under way.
    stopping: Vec<bool>,
}

/// The children are the first actors, in order.
fn actor_of(child: u32) -> u64 {
    u64::from(child) + 1
}

impl World<'_> {
    /// The first actors of a life, under a supervisor if the world has one.
    pub(super) fn first_actors(&mut self, life: LifeId) {
        let actors = self.params.actors.len();
        for _ in 0..actors {
            self.spawn(life);
        }
        let Some(plan) = &self.params.supervised else { return };
        let policy = RestartPolicy { restarts_max: self.params.restarts_max, ..RestartPolicy::default() };
        let mut machine = Supervision::new(plan.strategy, policy);
        let now = self.instant(self.node_of(life));
        for child in 0..actors {
            self.rests(life, actor_of(child as u32));
        }
        // A fresh one is not stopping.
        let _ = machine.add(plan.restart.iter().map(|restart| (*restart, SHUTDOWN)), now);
        let supervisor = Supervisor { machine, tick_at: None, stopping: vec![false; actors] };
        self.lives[life as usize].supervisor = Some(supervisor);
        self.supervise(life);
    }

    /// The child that an actor is, if its supervisor still has to do with it.
    pub(super) fn child_of(&self, life: LifeId, actor: u64) -> Option<u32> {
        let supervisor = self.lives[life as usize].supervisor.as_ref()?;
        let child = u32::try_from(actor.checked_sub(1)?).ok()?;
        supervisor.machine.state_of(ChildKey(child)).map(|_| child)
    }

    /// A life of a child has ended by itself, or by somebody else's order.
    pub(super) fn child_ends(&mut self, life: LifeId, child: u32, how: HowEnded) {
        self.fact(Fact::ChildEnds { life, child, how });
        let reason = match how {
            HowEnded::Failed => ExitReason::Panicked { text: "planned".to_owned() },
            HowEnded::Normal => ExitReason::Normal,
            HowEnded::Ordered | HowEnded::Told => ExitReason::Shutdown,
        };
        let (now, jitter) = (self.instant(self.node_of(life)), self.random.unit());
        if let Some(supervisor) = &mut self.lives[life as usize].supervisor {
            supervisor.stopping[child as usize] = false;
            supervisor.machine.ended(ChildKey(child), reason, now, jitter);
        }
        self.supervise(life);
    }

    pub(super) fn child_started(&mut self, life: LifeId, child: u32) {
        let now = self.instant(self.node_of(life));
        if !self.lives[life as usize].up {
            return;
        }
        self.fact(Fact::ChildRuns { life, child });
        self.reborn(life, actor_of(child));
        if let Some(supervisor) = &mut self.lives[life as usize].supervisor {
            supervisor.machine.started(ChildKey(child), now);
        }
        self.supervise(life);
    }

    /// A child has obeyed.
    pub(super) fn child_stopped(&mut self, life: LifeId, child: u32) {
        let Some(supervisor) = &self.lives[life as usize].supervisor else { return };
        if self.lives[life as usize].up && supervisor.stopping[child as usize] {
            self.interrupt(life, actor_of(child));
            self.child_ends(life, child, HowEnded::Told);
        }
    }

    pub(super) fn child_tick(&mut self, life: LifeId) {
        let now = self.instant(self.node_of(life));
        // Those of a life that is over are gone.
        let Some(supervisor) = &mut self.lives[life as usize].supervisor else { return };
        if supervisor.tick_at.is_none_or(|at| at > self.now) {
            return;
        }
        supervisor.tick_at = None;
        supervisor.machine.tick(now);
        self.supervise(life);
    }

    /// Does what the supervisor wants.
    fn supervise(&mut self, life: LifeId) {
        loop {
            let Some(supervisor) = &mut self.lives[life as usize].supervisor else { return };
            let effects = supervisor.machine.poll_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.child_effect(life, effect);
            }
        }
        let node = self.node_of(life);
        let next = self.lives[life as usize].supervisor.as_ref().and_then(|supervisor| supervisor.machine.next_tick());
        let Some(at) = next.map(|at| self.time(node, at).max(self.now + 1)) else { return };
        let now = self.now;
        if let Some(supervisor) = &mut self.lives[life as usize].supervisor
            && supervisor.tick_at.is_none_or(|before| at < before || before <= now)
        {
            supervisor.tick_at = Some(at);
            self.plan(at, Event::ChildTick(life));
        }
    }

    fn child_effect(&mut self, life: LifeId, effect: Effect) {
        match effect {
            Effect::Start(ChildKey(child)) => {
                self.fact(Fact::ChildStarts { life, child });
                let at = self.now + self.random.below(2 * MS);
                self.plan(at, Event::ChildStarted(life, child));
            }
            Effect::Stop(ChildKey(child)) => {
                self.fact(Fact::ChildStops { life, child });
                self.reach(Branch::SiblingStopped);
                if let Some(supervisor) = &mut self.lives[life as usize].supervisor {
                    supervisor.stopping[child as usize] = true;
                }
                // One in eight does not hear it.
                if !self.random.one_in(8) {
                    let at = self.now + self.random.below(50 * MS);
                    self.plan(at, Event::ChildStopped(life, child));
                }
            }
            Effect::Kill(ChildKey(child)) => {
                self.reach(Branch::ChildKilled);
                // Nor that, one in four.
                if !self.random.one_in(4) {
                    self.plan(self.now + MS, Event::ChildStopped(life, child));
                }
            }
            Effect::Abandon(ChildKey(child)) => {
                self.reach(Branch::ChildAbandoned);
                self.interrupt(life, actor_of(child));
                self.fact(Fact::ChildEnds { life, child, how: HowEnded::Told });
            }
            Effect::Dismiss(ChildKey(child)) => self.dismiss(life, actor_of(child)),
            Effect::End(cause) => {
                self.reach(Branch::SupervisorEnded);
                self.fact(Fact::SupervisorEnds { life, failed: cause.is_some() });
            }
        }
    }

    /// True if no child is about to be started or stopped.
    pub(super) fn children_settled(&self) -> bool {
        let supervisors = self.lives.iter().filter(|life| life.up).filter_map(|life| life.supervisor.as_ref());
        supervisors.into_iter().all(|supervisor| supervisor.machine.is_settled())
    }
}
