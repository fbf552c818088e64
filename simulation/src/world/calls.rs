//! Calls, from the caller's side: how they are sent, given up, and how they end.

use std::sync::Arc;

use mobula_core::{ActorId, MessageKey};
use mobula_transport::{Accepted, Call};

use super::actors::{Letter, Way};
use super::ends::body;
use super::{Event, World};
use crate::fact::{Fact, LifeId, Op, Verdict};
use crate::ledger::Entry;
use crate::params::{CallParams, Kind, Time};
use crate::reach::Branch;

/// The handler that asks: life, actor, job.
pub(super) type Parent = (LifeId, u64, u32);

const NAMES: [&str; 3] = ["simulation::Ask", "simulation::Count", "simulation::Report"];

impl World<'_> {
    pub(super) fn call(&mut self, call: u32) {
        let plan = Arc::new(self.params.calls[call as usize].clone());
        let Some(caller) = self.slots[usize::from(plan.caller)].life else { return };
        for _ in 0..plan.burst {
            if self.slots[usize::from(plan.caller)].life != Some(caller) {
                return;
            }
            match plan.kind {
                Kind::Ask | Kind::Tell | Kind::Spawn | Kind::Stop | Kind::Stream => {
                    self.issue(&plan, caller, None, None);
                }
                Kind::Monitor => self.monitor(&plan, caller),
                Kind::Link | Kind::Unlink => self.change_link(&plan, caller),
                _ => self.call_service(&plan, caller),
            }
        }
    }

    /// Makes a call. None if there is nobody to be called, or if it ended at once.
    pub(super) fn issue(
        &mut self,
        plan: &Arc<CallParams>,
        caller: LifeId,
        parent: Option<Parent>,
        cap: Option<Time>,
    ) -> Option<Op> {
        let life = self.target_life(plan)?;
        let to_node = matches!(plan.kind, Kind::Spawn | Kind::Stop);
        let actor = if to_node { ActorId::NODE } else { self.actor_at(life, plan.actor) };
        self.issue_to(plan, caller, life, actor, parent, cap)
    }

    /// As [`issue`](Self::issue), to an actor that is known.
    pub(super) fn issue_to(
        &mut self,
        plan: &Arc<CallParams>,
        caller: LifeId,
        life: LifeId,
        actor: ActorId,
        parent: Option<Parent>,
        cap: Option<Time>,
    ) -> Option<Op> {
        let to_node = actor == ActorId::NODE;
        // Nested asks inherit the smaller of their own deadline and what is left.
        let own = plan.deadline.map(|after| self.after(self.node_of(caller), after));
        let deadline = own.into_iter().chain(cap).min();
        let target = self.lives[life as usize].id().clone();
        let near = life == caller;
        let link = if near { None } else { Some(self.link(caller, &target, to_node)) };
        let op = self.judge.ledger.calls.len() as Op;
        let end = link.as_ref().and_then(|link| link.as_ref().ok()).copied();
        let issued = Entry::issued(plan, caller, (life, actor.0), self.now, deadline);
        self.judge.ledger.calls.push(Entry { end, ..issued });
        self.parents.push(None);
        self.requests.push(None);
        self.fact(Fact::Issued { op });
        self.judge.line(self.now, || {
            format!("    #{op}: {:?} of life {caller} to actor {actor} of life {life}, until {deadline:?}", plan.kind)
        });
        if let Some(after) = plan.cancel_after {
            self.plan(self.now + after, Event::Cancel(op));
        }
        match link {
            None => self.call_near(op, life, actor.0),
            Some(Err(error)) => {
                if matches!(error, mobula_core::CallError::StaleIncarnation { .. }) {
                    self.reach(Branch::StaleReference);
                }
                self.resolve(op, Verdict::of(&error));
            }
            Some(Ok(end)) => {
                if plan.kind == Kind::Stream {
                    self.reads(op);
                }
                self.call_far(op, end, actor);
            }
        }
        if parent.is_some() && self.judge.ledger.call(op).is_ask() && self.judge.ledger.call(op).verdict.is_none() {
            self.parents[op as usize] = parent;
            return Some(op);
        }
        None
    }

    pub(super) fn target_life(&self, plan: &CallParams) -> Option<LifeId> {
        let of_node = |life: &LifeId| self.lives[*life as usize].node == plan.target;
        let mut lives = (0..self.lives.len() as LifeId).rev().filter(of_node);
        let newest = lives.next();
        if plan.stale { lives.next().or(newest) } else { newest }
    }

    fn call_near(&mut self, op: Op, life: LifeId, actor: u64) {
        let (plan, deadline) = (self.judge.ledger.call(op).plan.clone(), self.judge.ledger.call(op).deadline);
        let is_ask = plan.kind != Kind::Tell;
        if actor == 0 {
            self.fact(Fact::Arrived { op, life, end: None, deadline: None });
            self.fact(Fact::Started { op, life, actor: 0, generation: 0 });
            self.perform(life, op);
            self.fact(Fact::Finished { op });
            return self.resolve(op, Verdict::Replied { to: op });
        }
        match self.is_alive(life, actor) {
            Some(true) => {}
            Some(false) => return self.resolve(op, Verdict::Stopped),
            None => return self.resolve(op, Verdict::NoSuchActor),
        }
        if is_ask {
            self.reach(Branch::AskLocal);
            if let Some(at) = deadline {
                self.plan(at, Event::LocalDeadline(op));
            }
        }
        self.fact(Fact::Arrived { op, life, end: None, deadline });
        let way = if is_ask { Way::Near(op) } else { Way::None };
        let inside = self.put(life, actor, Letter { op: Some(op), plan, way, deadline, ticket: None, in_line: false });
        if inside {
            self.fact(Fact::Queued { op, queued_bytes_before: 0 });
        } else if !is_ask {
            self.reach(Branch::LineOfMailbox);
            self.fact(Fact::InLine { op, window_full: false });
        }
    }

    fn call_far(&mut self, op: Op, end: u32, actor: ActorId) {
        let entry = self.judge.ledger.call(op);
        let node = self.node_of(entry.caller);
        let (plan, deadline) = (entry.plan.clone(), self.deadline(node, entry.deadline));
        let (now, name) = (self.instant(node), NAMES[usize::from(plan.message) % NAMES.len()]);
        let call = Call { target: actor, key: MessageKey::of(name), name, schema: 1, deadline };
        let one = &mut self.ends[end as usize];
        let Some(session) = &mut one.session else { return };
        let queued_bytes_before = session.queued_bytes();
        let write = body(op, plan.padding);
        let accepted = if plan.kind == Kind::Tell {
            session.tell(&call, || op, now, write)
        } else {
            match session.ask(&call, op, now, write) {
                Ok((request, accepted)) => {
                    self.requests[op as usize] = Some(request);
                    Ok(accepted)
                }
                Err((error, _)) => Err(error),
            }
        };
        let window_full = session.queued_bytes() >= self.params.send_window_bytes;
        if actor == ActorId::NODE {
            // Requests to the node itself wait for no window.
            one.exempt_bytes += session.queued_bytes().saturating_sub(queued_bytes_before);
        }
        match accepted {
            Ok(Accepted::Queued) => self.fact(Fact::Queued { op, queued_bytes_before }),
            Ok(Accepted::InLine) => {
                self.reach(Branch::StoodInLine);
                if queued_bytes_before >= self.params.send_window_bytes {
                    self.reach(Branch::WindowFull);
                }
                self.fact(Fact::InLine { op, window_full });
            }
            Err(error) => self.resolve(op, Verdict::of(&error)),
        }
        self.wake(end);
    }

    pub(super) fn local_deadline(&mut self, op: Op) {
        if self.judge.ledger.open.contains(&op) {
            self.reach(Branch::DeadlineLocal);
            self.resolve(op, Verdict::Deadline { started: true });
        }
    }

    /// The caller gives up, if it still waits.
    pub(super) fn cancel(&mut self, op: Op) {
        if !self.judge.ledger.open.contains(&op) || !self.judge.ledger.call(op).is_ask() {
            return;
        }
        let entry = self.judge.ledger.call(op);
        match (entry.end, self.requests[op as usize]) {
            (Some(end), Some(request)) => {
                let one = &mut self.ends[end as usize];
                let Some(session) = &mut one.session else { return };
                let before = session.queued_bytes();
                let given_up = session.cancel(request);
                one.exempt_bytes += session.queued_bytes().saturating_sub(before);
                // Without a result its outcome is among the events that were not fetched yet.
                let told = session.queued_bytes() > before;
                if given_up.is_some() {
                    self.wake(end);
                    if !told {
                        self.reach(Branch::CancelledInLine);
                        self.fact(Fact::LeftLine { op });
                    }
                    self.resolve(op, Verdict::Cancelled);
                }
            }
            _ => {
                self.fact(Fact::CancelArrived { op });
                self.resolve(op, Verdict::Cancelled);
            }
        }
    }

    /// A call has ended.
    pub(super) fn resolve(&mut self, op: Op, verdict: Verdict) {
        let entry = self.judge.ledger.call(op);
        let (far, in_line) = (entry.end.is_some(), entry.in_line);
        let (to, is_to_node) = (entry.target.0, entry.is_to_node());
        match verdict {
            Verdict::Replied { .. } if far => self.reach(Branch::AskReplied),
            Verdict::Deadline { started: true } if far => self.reach(Branch::DeadlineRemote),
            Verdict::Deadline { started: false } if in_line => self.reach(Branch::ExpiredInLine),
            Verdict::Unreachable { sent: true } => self.reach(Branch::UnreachableSent),
            Verdict::Unreachable { sent: false } if in_line => self.reach(Branch::UnreachableUnsent),
            _ => {}
        }
        if far && !is_to_node && self.lives[to as usize].up && self.lives[to as usize].leaves {
            match verdict {
                Verdict::Unreachable { sent: false } => self.reach(Branch::TurnedAway),
                Verdict::Replied { .. } => self.reach(Branch::FinishedInDrain),
                _ => {}
            }
        }
        self.fact(Fact::Resolved { op, verdict });
        if !matches!(verdict, Verdict::Replied { .. }) {
            self.readers.remove(&op);
        }
        // Whoever waits goes on in a turn of its own, as a task that is woken does: not in the midst of what answers.
        if let Some((life, actor, job)) = self.parents[op as usize].take() {
            self.plan(self.now, Event::Answered(life, actor, job));
        }
        if let Some(wait) = self.waits.remove(&op) {
            self.goes_on(wait, None);
        }
    }
}
