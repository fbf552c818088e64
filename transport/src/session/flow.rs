//! Which messages may go now and which stand in line: credit for each target, one byte window for all of them.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use mobula_core::frame::{self, WriteError};
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, CallError, Deadline, IdMap, RequestId, limits};

use super::encode_failure;
use super::fragmenting::{Fragmenting, Of, Ticket};
use super::outgoing::Outgoing;
use super::pending::Pending;
use super::types::Event;
use crate::credit::{CreditViolation, SendCredit};

/// A written frame that waits for credit or for the window.
pub(super) struct InLine<R> {
    pub(super) frame: BytesMut,
    pub(super) deadline: Deadline,
    pub(super) sender: Sender<R>,
    /// It is on its way in fragments, under this number; its credit is spent, and `frame` is empty.
    fragments: Option<u32>,
    /// It goes only when the large frames before this have left.
    after: Option<Ticket>,
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
    /// Its head is large, and waits for room among the other large frames.
    awaits_room: Option<Ticket>,
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

    /// Spends a credit if a message may go at once. The node itself needs none and does not wait for the window:
    /// control is not data.
    pub(super) fn may_send(&mut self, target: ActorId, out: &Outgoing) -> bool {
        if target == ActorId::NODE {
            return self.by_target.get(&target.0).is_none_or(|flow| flow.line.is_empty());
        }
        if planted::is(Bug::NeighbourHeld) && self.in_line > 0 {
            return false;
        }
        let flow = self.flow(target);
        let overtakes = flow.is_fragmenting() && planted::is(Bug::LargeOvertaken);
        (flow.line.is_empty() || overtakes) && !out.is_full() && flow.credit.spend()
    }

    fn flow(&mut self, target: ActorId) -> &mut Flow<R> {
        let window = if target == ActorId::NODE { 0 } else { self.credit_messages };
        self.by_target.entry(target.0).or_insert_with(|| Flow {
            credit: SendCredit::new(window),
            line: VecDeque::new(),
            dead: 0,
            stalled: false,
            awaits_room: None,
        })
    }

    /// What [`may_send`](Self::may_send) would answer.
    pub(super) fn has_credit(&self, target: ActorId, out: &Outgoing) -> bool {
        let flow = self.by_target.get(&target.0);
        if target == ActorId::NODE {
            return flow.is_none_or(|flow| flow.line.is_empty());
        }
        let credit = match flow {
            Some(flow) => flow.line.is_empty() && flow.credit.left() > 0,
            None => self.credit_messages > 0,
        };
        credit && !out.is_full()
    }

    /// The message that [`may_send`](Self::may_send) let go could not be written.
    pub(super) fn unspend(&mut self, target: ActorId) {
        if target == ActorId::NODE {
            return;
        }
        if let Some(flow) = self.by_target.get_mut(&target.0) {
            let _ = flow.credit.refill(1);
            self.forget_idle(target);
        }
    }

    /// Room in line for one more message. The node itself has it always: it is in line only for as long as a large
    /// message is under way, and what is refused there is the end of a link or of a monitor that nobody would hear of.
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub(super) fn admit_to_line(&self, target: ActorId) -> Result<(), CallError> {
        let limit = limits::LINE_MESSAGES_MAX;
        if target == ActorId::NODE || self.in_line < limit {
            Ok(())
        } else {
            Err(CallError::Full { limit: limit as u64 })
        }
    }

    pub(super) fn stand_in_line(&mut self, target: ActorId, waiting: InLine<R>, out: &Outgoing) {
        if let (Sender::Tell(_), Some(at)) = (&waiting.sender, waiting.deadline.instant()) {
            self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
        }
        self.in_line += 1;
        let flow = self.flow(target);
        flow.line.push_back(waiting);
        let stalls = out.is_full() && !std::mem::replace(&mut flow.stalled, true);
        if stalls {
            self.stalled.push_back(target);
        }
    }

    /// True if messages to the node itself stand in line.
    pub(super) fn node_waits(&self) -> bool {
        self.by_target.get(&ActorId::NODE.0).is_some_and(|flow| !flow.line.is_empty())
    }

    /// The last fragment of the head of the line has gone; the next advance goes on with the line.
    pub(super) fn head_has_left(&mut self, target: ActorId, pending: &mut Pending<R>, events: &mut VecDeque<Event<R>>) {
        let Some(flow) = self.by_target.get_mut(&target.0) else { return };
        let Some(waiting) = flow.line.pop_front() else { return };
        self.in_line -= 1;
        match waiting.sender {
            Sender::Ask(request) => pending.left_line(request),
            Sender::Tell(to) => events.push_back(Event::Accepted { to }),
        }
        flow.stall(target, &mut self.stalled);
    }

    /// An ask in line for `target` is no longer pending. Its frame is swept out once such frames are the majority; the
    /// number of one that is half sent is returned at once.
    pub(super) fn left_line(&mut self, target: ActorId, pending: &Pending<R>) -> Option<u32> {
        let flow = self.by_target.get_mut(&target.0)?;
        if let Some(number) = flow.line.front().filter(|head| head.is_dead(pending)).and_then(|head| head.fragments) {
            flow.line.pop_front();
            self.in_line -= 1;
            flow.unspend_fragments(target);
            flow.stall(target, &mut self.stalled);
            return Some(number);
        }
        flow.dead += 1;
        if flow.dead * 2 > flow.line.len() {
            let before = flow.line.len();
            flow.line.retain(|waiting| !waiting.is_dead(pending));
            self.in_line -= before - flow.line.len();
            flow.dead = 0;
            self.forget_idle(target);
        }
        None
    }

    /// The peer's hello has come: what stood in line for it may go.
    pub(super) fn open(&mut self, credit_messages: u32) -> Vec<ActorId> {
        self.credit_messages = credit_messages;
        for (target, flow) in &mut self.by_target {
            if *target != ActorId::NODE.0 {
                flow.credit = SendCredit::new(credit_messages);
            }
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

    /// The room that the head of the line to `target` waited for is there.
    pub(super) fn has_room(&mut self, target: ActorId) -> Option<Ticket> {
        self.by_target.get_mut(&target.0).and_then(|flow| flow.awaits_room.take())
    }

    /// Sends from the head of the line to `target` what credit and window allow. A large head begins, with the ticket
    /// `waited` if it has waited for room, and the line goes on when it has left.
    pub(super) fn advance(&mut self, target: ActorId, waited: Option<Ticket>, now: Instant, way: &mut Way<'_, R>) {
        let Way { out, fragmenting, pending, events } = way;
        let opened = self.credit_messages > 0;
        let Some(flow) = self.by_target.get_mut(&target.0) else { return };
        let is_node = target == ActorId::NODE;
        if planted::is(Bug::LineOvertaken) && flow.line.len() > 1 && !flow.is_fragmenting() {
            flow.line.swap(0, 1);
        }
        while let Some(waiting) = flow.line.front_mut() {
            if waiting.fragments.is_some() || !opened {
                break;
            }
            // What nobody waits for leaves the line without using credit.
            let live = !waiting.deadline.is_over(now) && !waiting.is_dead(pending);
            let large = out.is_large(&waiting.frame);
            let bytes = waiting.frame.len().saturating_sub(4);
            if live && bytes > out.frame_bytes_max() {
                // It was written before the peer said that it reads no fragments.
                let error = || encode_failure(WriteError::TooLarge { bytes, max: out.frame_bytes_max() });
                let Some(waiting) = flow.line.pop_front() else { break };
                self.in_line -= 1;
                let to = match waiting.sender {
                    Sender::Ask(request) => pending.take(request).map(|ask| ask.reply),
                    Sender::Tell(to) => Some(to),
                };
                events.extend(to.map(|to| Event::Failed { to, error: error() }));
                continue;
            }
            if live {
                if waiting.after.is_some_and(|after| !fragmenting.is_past(after)) {
                    break;
                }
                if !is_node && out.is_full() {
                    flow.stall(target, &mut self.stalled);
                    break;
                }
                if large && !fragmenting.has_room(bytes) {
                    if flow.awaits_room.is_none() {
                        flow.awaits_room = Some(fragmenting.wait_in_line(target, bytes));
                    }
                    break;
                }
                if !is_node && !flow.credit.spend() {
                    break;
                }
                if !planted::is(Bug::BudgetStale) {
                    frame::patch_budget(&mut waiting.frame, waiting.deadline.budget(now));
                }
                if large {
                    let frame = std::mem::take(&mut waiting.frame);
                    waiting.fragments = Some(fragmenting.begin(frame, Of::Line(target), waited, out));
                    break;
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

    /// Fails the tells in line whose deadline `now` has reached. Returns the numbers of those that were half sent.
    pub(super) fn expire(&mut self, now: Instant, pending: &Pending<R>, events: &mut VecDeque<Event<R>>) -> Vec<u32> {
        self.earliest = None;
        let mut half_sent = Vec::new();
        for (target, flow) in &mut self.by_target {
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
                    if let Some(number) = waiting.fragments {
                        half_sent.push(number);
                        flow.unspend_fragments(ActorId(*target));
                        flow.stall(ActorId(*target), &mut self.stalled);
                    }
                    if let Sender::Tell(to) = waiting.sender {
                        events.push_back(expired_in_line(to));
                    }
                }
            }
            let tells = flow.line.iter().filter(|waiting| matches!(waiting.sender, Sender::Tell(_)));
            let next = tells.filter_map(|tell| tell.deadline.instant()).min();
            self.earliest = self.earliest.into_iter().chain(next).min();
        }
        self.forget_idle(ActorId::NODE);
        half_sent
    }

    /// Nothing new goes to actors any more: fails with `error` what stands in line for them. What is half sent goes on.
    pub(super) fn give_back(&mut self, error: &CallError, pending: &mut Pending<R>, events: &mut VecDeque<Event<R>>) {
        let mut emptied = Vec::new();
        self.earliest = None;
        for (target, flow) in &mut self.by_target {
            let goes_on = match *target == ActorId::NODE.0 {
                true => flow.line.len(),
                false => usize::from(flow.is_fragmenting()),
            };
            for waiting in flow.line.drain(goes_on..) {
                self.in_line -= 1;
                let to = match waiting.sender {
                    // None if it was given up before.
                    Sender::Ask(request) => pending.take(request).map(|ask| ask.reply),
                    Sender::Tell(to) => Some(to),
                };
                events.extend(to.map(|to| Event::Failed { to, error: error.clone() }));
            }
            if *target != ActorId::NODE.0 {
                flow.dead = 0;
                emptied.push(ActorId(*target));
            }
            let tells = flow.line.iter().filter(|waiting| matches!(waiting.sender, Sender::Tell(_)));
            let next = tells.filter_map(|tell| tell.deadline.instant()).min();
            self.earliest = self.earliest.into_iter().chain(next).min();
        }
        emptied.into_iter().for_each(|target| self.forget_idle(target));
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

/// What a line sends by.
pub(super) struct Way<'a, R> {
    pub(super) out: &'a mut Outgoing,
    pub(super) fragmenting: &'a mut Fragmenting,
    pub(super) pending: &'a mut Pending<R>,
    pub(super) events: &'a mut VecDeque<Event<R>>,
}

impl<R> Flow<R> {
    /// True if the head of the line is half sent.
    fn is_fragmenting(&self) -> bool {
        self.line.front().is_some_and(|head| head.fragments.is_some())
    }

    /// The peer never sees the message whose fragments were given up, so it returns no credit for it.
    fn unspend_fragments(&mut self, target: ActorId) {
        if target != ActorId::NODE && !planted::is(Bug::FragmentsKept) {
            let _ = self.credit.refill(1);
        }
    }

    fn stall(&mut self, target: ActorId, stalled: &mut VecDeque<ActorId>) {
        if !std::mem::replace(&mut self.stalled, true) {
            stalled.push_back(target);
        }
    }
}

impl<R> InLine<R> {
    pub(super) fn new(frame: BytesMut, deadline: Deadline, sender: Sender<R>, after: Option<Ticket>) -> Self {
        InLine { frame, deadline, sender, fragments: None, after }
    }

    fn is_dead(&self, pending: &Pending<R>) -> bool {
        let gone = |request| pending.get(request).is_none() && !planted::is(Bug::DeadFrameSent);
        matches!(self.sender, Sender::Ask(request) if gone(request))
    }
}

fn expired_in_line<R>(to: R) -> Event<R> {
    Event::Failed { to, error: CallError::DeadlineExceeded { started: false } }
}
