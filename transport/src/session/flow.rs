//! Which messages may go now and which stand in line: credit for each target, one byte window for all of them.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, CallError, Deadline, IdMap, RequestId, frame, limits};

use super::outgoing::Outgoing;
use super::pending::Pending;
use super::types::Event;
use crate::credit::{CreditViolation, SendCredit};

/// A written frame that waits for credit or for the window.
pub(super) struct InLine<R> {
    pub(super) frame: BytesMut,
    pub(super) deadline: Deadline,
    pub(super) sender: Sender<R>,
}

pub(super) enum Sender<R> {
    /// Kept among the pending asks. No longer there once it was given up or has expired: its frame is then dead.
    Ask(RequestId),
    Tell(R),
}

struct Flow<R> {
    credit: SendCredit,
    line: VecDeque<InLine<R>>,
    /// Dead frames in `line`, about to be swept out.
    dead: usize,
    /// It is in the queue of those that wait for the window.
    stalled: bool,
}

/// The messages to each target that are under way or stand in line. A target with neither has no entry.
pub(super) struct Flows<R> {
    by_target: IdMap<u64, Flow<R>>,
    /// What the peer takes for one target; 0 until its hello says.
    credit_messages: u32,
    in_line: usize,
    stalled: VecDeque<ActorId>,
    /// No tell in line has an earlier deadline; all may have a later one.
    earliest: Option<Instant>,
}

impl<R> Flows<R> {
    pub(super) fn new() -> Self {
        Flows { by_target: IdMap::default(), credit_messages: 0, in_line: 0, stalled: VecDeque::new(), earliest: None }
    }

    /// Messages that stand in line, dead ones among them.
    pub(super) fn in_line(&self) -> usize {
        self.in_line
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Targets that have an entry.
    pub(super) fn entries(&self) -> usize {
        self.by_target.len()
    }

    #[cfg(test)]
    pub(super) fn stalled(&self) -> usize {
        self.stalled.len()
    }

    /// Spends a credit if a message may go at once. The node itself is never made to wait: control is not data.
    pub(super) fn may_send(&mut self, target: ActorId, out: &Outgoing) -> bool {
        if target == ActorId::NODE {
            return true;
        }
        let window = self.credit_messages;
        let flow = self.by_target.entry(target.0).or_insert_with(|| Flow {
            credit: SendCredit::new(window),
            line: VecDeque::new(),
            dead: 0,
            stalled: false,
        });
        flow.line.is_empty() && !out.is_full() && flow.credit.spend()
    }

    /// What [`may_send`](Self::may_send) would answer.
    pub(super) fn has_credit(&self, target: ActorId, out: &Outgoing) -> bool {
        let credit = match self.by_target.get(&target.0) {
            Some(flow) => flow.line.is_empty() && flow.credit.left() > 0,
            None => self.credit_messages > 0,
        };
        target == ActorId::NODE || (credit && !out.is_full())
    }

    /// The message that [`may_send`](Self::may_send) let go could not be written.
    pub(super) fn unspend(&mut self, target: ActorId) {
        if let Some(flow) = self.by_target.get_mut(&target.0) {
            let _ = flow.credit.refill(1);
            self.forget_idle(target);
        }
    }

    /// Room in line for one more message.
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub(super) fn admit_to_line(&self) -> Result<(), CallError> {
        let limit = limits::LINE_MESSAGES_MAX;
        if self.in_line < limit { Ok(()) } else { Err(CallError::Full { limit: limit as u64 }) }
    }

    pub(super) fn stand_in_line(&mut self, target: ActorId, waiting: InLine<R>, out: &Outgoing) {
        let Some(flow) = self.by_target.get_mut(&target.0) else { return };
        if out.is_full() {
            flow.stall(target, &mut self.stalled);
        }
        if let (Sender::Tell(_), Some(at)) = (&waiting.sender, waiting.deadline.instant()) {
            self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
        }
        flow.line.push_back(waiting);
        self.in_line += 1;
    }

    /// An ask in line for `target` is no longer pending. Its frame is swept out once such frames are the majority.
    pub(super) fn left_line(&mut self, target: ActorId, pending: &Pending<R>) {
        let Some(flow) = self.by_target.get_mut(&target.0) else { return };
        flow.dead += 1;
        if flow.dead * 2 > flow.line.len() {
            let before = flow.line.len();
            flow.line.retain(|waiting| !waiting.is_dead(pending));
            self.in_line -= before - flow.line.len();
            flow.dead = 0;
        }
    }

    /// The peer's hello has come: what stood in line for it may go.
    pub(super) fn open(&mut self, credit_messages: u32) -> Vec<ActorId> {
        self.credit_messages = credit_messages;
        for flow in self.by_target.values_mut() {
            flow.credit = SendCredit::new(credit_messages);
        }
        self.by_target.keys().map(|target| ActorId(*target)).collect()
    }

    /// Puts back what the peer has returned.
    pub(super) fn refill(&mut self, target: ActorId, count: u32) -> Result<(), CreditViolation> {
        match self.by_target.get_mut(&target.0) {
            Some(flow) => flow.credit.refill(count),
            None => Err(CreditViolation { window: self.credit_messages }),
        }
    }

    /// The next target that waits for the window.
    pub(super) fn next_stalled(&mut self) -> Option<ActorId> {
        let target = self.stalled.pop_front()?;
        if let Some(flow) = self.by_target.get_mut(&target.0) {
            flow.stalled = false;
        }
        Some(target)
    }

    /// Sends from the head of the line to `target` what credit and window allow.
    pub(super) fn advance(
        &mut self,
        target: ActorId,
        now: Instant,
        out: &mut Outgoing,
        pending: &mut Pending<R>,
        events: &mut VecDeque<Event<R>>,
    ) {
        let Some(flow) = self.by_target.get_mut(&target.0) else { return };
        if planted::is(Bug::LineOvertaken) && flow.line.len() > 1 {
            flow.line.swap(0, 1);
        }
        while let Some(waiting) = flow.line.front_mut() {
            // What nobody waits for leaves the line without using credit.
            let live = !waiting.deadline.is_over(now) && !waiting.is_dead(pending);
            if live {
                if out.is_full() {
                    flow.stall(target, &mut self.stalled);
                    break;
                }
                if !flow.credit.spend() {
                    break;
                }
                if !planted::is(Bug::BudgetStale) {
                    frame::patch_budget(&mut waiting.frame, waiting.deadline.budget(now));
                }
                if !(planted::is(Bug::TellInLineLost) && matches!(waiting.sender, Sender::Tell(_))) {
                    out.put_frame(&waiting.frame);
                }
            }
            let Some(waiting) = flow.line.pop_front() else { break };
            self.in_line -= 1;
            match waiting.sender {
                Sender::Ask(request) if live => pending.left_line(request),
                Sender::Ask(request) => match pending.take(request) {
                    Some(ask) => events.push_back(expired_in_line(ask.reply)),
                    None => flow.dead = flow.dead.saturating_sub(1),
                },
                Sender::Tell(to) if live => events.push_back(Event::Accepted { to }),
                Sender::Tell(to) => events.push_back(expired_in_line(to)),
            }
        }
        self.forget_idle(target);
    }

    /// Fails the tells in line whose deadline `now` has reached.
    pub(super) fn expire(&mut self, now: Instant, pending: &Pending<R>, events: &mut VecDeque<Event<R>>) {
        self.earliest = None;
        for flow in self.by_target.values_mut() {
            let leaves = |waiting: &InLine<R>| match waiting.sender {
                Sender::Ask(_) => waiting.is_dead(pending),
                Sender::Tell(_) => waiting.deadline.is_over(now),
            };
            if flow.line.iter().any(leaves) {
                let (left, stays): (VecDeque<_>, VecDeque<_>) = flow.line.drain(..).partition(leaves);
                self.in_line -= left.len();
                flow.line = stays;
                flow.dead = 0;
                for waiting in left {
                    if let Sender::Tell(to) = waiting.sender {
                        events.push_back(expired_in_line(to));
                    }
                }
            }
            let tells = flow.line.iter().filter(|waiting| matches!(waiting.sender, Sender::Tell(_)));
            let next = tells.filter_map(|tell| tell.deadline.instant()).min();
            self.earliest = self.earliest.into_iter().chain(next).min();
        }
    }

    /// Empties all lines. Yields the tells that stood there.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = R> + '_ {
        self.in_line = 0;
        self.stalled.clear();
        self.earliest = None;
        self.by_target.drain().flat_map(|(_, flow)| flow.line).filter_map(|waiting| match waiting.sender {
            Sender::Tell(to) => Some(to),
            Sender::Ask(_) => None,
        })
    }

    /// Drops the entry of a target that has nothing under way and nothing in line.
    pub(super) fn forget_idle(&mut self, target: ActorId) {
        let idle = |flow: &Flow<R>| flow.line.is_empty() && flow.credit.is_full() && !flow.stalled;
        if self.by_target.get(&target.0).is_some_and(idle) {
            self.by_target.remove(&target.0);
        }
    }
}

impl<R> Flow<R> {
    fn stall(&mut self, target: ActorId, stalled: &mut VecDeque<ActorId>) {
        if !std::mem::replace(&mut self.stalled, true) {
            stalled.push_back(target);
        }
    }
}

impl<R> InLine<R> {
    fn is_dead(&self, pending: &Pending<R>) -> bool {
        let gone = |request| pending.get(request).is_none() && !planted::is(Bug::DeadFrameSent);
        matches!(self.sender, Sender::Ask(request) if gone(request))
    }
}

fn expired_in_line<R>(to: R) -> Event<R> {
    Event::Failed { to, error: CallError::DeadlineExceeded { started: false } }
}
