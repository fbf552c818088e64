//! Large frames on their way: cut into fragments that take turns with each other and let other frames between them.
//!
//! A frame begins with its first fragment and counts as sent with its last. What was begun earlier is not overtaken by
//! what says that it comes after it, see [`Fragmenting::ticket`]; everything else may.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use mobula_core::frame::Head;
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, RequestId, limits};

use super::outgoing::Outgoing;

/// Whose large frame it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Of {
    /// The head of the line to this target.
    Line(ActorId),
    /// The answer to this request of the peer.
    Answer(RequestId),
}

struct UnderWay {
    number: u32,
    ticket: Ticket,
    of: Of,
    whole_bytes: usize,
    rest: BytesMut,
}

enum Waiting {
    Line { target: ActorId, bytes: usize },
    Answer { request: RequestId, frame: BytesMut },
}

/// It goes after all large frames with a smaller ticket.
struct Held {
    ticket: Ticket,
    request: RequestId,
    frame: BytesMut,
}

/// The place of something among the large frames: everything with a smaller one goes first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ticket(u64);

pub(super) struct Fragmenting {
    fragment_bytes: usize,
    /// Whose turn is next stands first.
    under_way: VecDeque<UnderWay>,
    /// Whole size of all that is under way: what the peer may have to keep.
    under_way_bytes: usize,
    waiting: VecDeque<(Ticket, Waiting)>,
    held: VecDeque<Held>,
    next_number: u32,
    next_ticket: u64,
    /// Bytes of anything that were written since the last fragment was queued.
    passed_bytes: usize,
}

/// So many fragments' worth of other frames go between two fragments, if there are so many. Then the next one goes,
/// however much else is queued: a fifth of the connection is theirs.
const OTHERS_SHARE: usize = 4;

/// So many fragments are queued at a time. They are written together: with two, a large message took more system calls, and woke the peer
/// more often, than its bytes are worth; more than eight bring nothing (decision 0014).
const QUEUED: usize = 8;

impl Fragmenting {
    pub(super) fn new(fragment_bytes: usize) -> Self {
        Fragmenting {
            fragment_bytes: fragment_bytes.max(1),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            next_number: 0,
            next_ticket: 1,
            passed_bytes: 0,
        }
    }

    /// Bytes of large frames that were not yet queued as fragments, those of lines aside that have not begun.
    pub(super) fn bytes(&self) -> usize {
        let under_way: usize = self.under_way.iter().map(|one| one.rest.len()).sum();
        let waiting = self.waiting.iter().map(|(_, one)| match one {
            Waiting::Line { .. } => 0,
            Waiting::Answer { frame, .. } => frame.len(),
        });
        under_way + waiting.sum::<usize>() + self.held.iter().map(|held| held.frame.len()).sum::<usize>()
    }

    /// True if nothing large is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty()
    }

    /// True if nothing is under way or waits, answers behind large ones among it.
    pub(super) fn holds_nothing(&self) -> bool {
        self.is_idle() && self.held.is_empty()
    }

    /// True if there is an answer to `request` that later ones must not overtake.
    pub(super) fn is_answering(&self, request: RequestId) -> bool {
        if self.holds_nothing() {
            return false;
        }
        let waits = |one: &Waiting| matches!(one, Waiting::Answer { request: other, .. } if *other == request);
        self.under_way.iter().any(|one| one.of == Of::Answer(request))
            || self.waiting.iter().any(|(_, one)| waits(one))
            || self.held.iter().any(|held| held.request == request)
    }

    /// True if a frame of `bytes` may begin now.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.under_way_bytes + bytes <= limits::MESSAGE_BYTES_MAX;
        self.under_way.is_empty() || (self.under_way.len() < limits::FRAGMENTED_MAX && fits)
    }

    /// A place after everything large that has come so far.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// True if all large frames before `ticket` have left.
    pub(super) fn is_past(&self, ticket: Ticket) -> bool {
        let under_way = self.under_way.iter().map(|one| one.ticket);
        under_way.chain(self.waiting.iter().map(|one| one.0)).all(|other| other > ticket)
    }

    /// Begins a frame, length prefix included, for which there [is room](Self::has_room). Returns its number. `ticket`
    /// is what it has waited with.
    pub(super) fn begin(&mut self, mut frame: BytesMut, of: Of, ticket: Option<Ticket>, out: &mut Outgoing) -> u32 {
        let ticket = ticket.unwrap_or_else(|| self.ticket());
        frame.advance(4);
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.under_way_bytes += frame.len();
        let mut one = UnderWay { number, ticket, of, whole_bytes: frame.len(), rest: frame };
        self.put_piece(&mut one, out);
        self.under_way.push_back(one);
        number
    }

    /// Lets the head of a line wait until there is room for it.
    pub(super) fn wait_in_line(&mut self, target: ActorId, bytes: usize) -> Ticket {
        let ticket = self.ticket();
        self.waiting.push_back((ticket, Waiting::Line { target, bytes }));
        ticket
    }

    /// Sends a large answer as soon as there is room for it.
    pub(super) fn answer(&mut self, request: RequestId, frame: BytesMut, out: &mut Outgoing) {
        let ticket = self.ticket();
        self.answer_with(ticket, request, frame, out);
    }

    fn answer_with(&mut self, ticket: Ticket, request: RequestId, frame: BytesMut, out: &mut Outgoing) {
        if self.has_room(frame.len()) {
            self.begin(frame, Of::Answer(request), Some(ticket), out);
        } else {
            self.waiting.push_back((ticket, Waiting::Answer { request, frame }));
        }
    }

    /// Sends an answer when everything large that has come before it has left.
    pub(super) fn hold(&mut self, request: RequestId, frame: BytesMut) {
        let ticket = self.ticket();
        self.held.push_back(Held { ticket, request, frame });
    }

    /// Queues the next fragments, as far as it is their turn. Returns the line whose head has left with one, to be
    /// called again.
    pub(super) fn advance(&mut self, out: &mut Outgoing) -> Option<ActorId> {
        loop {
            let low = out.queued_bytes() < QUEUED * self.fragment_bytes;
            if !low && self.passed_bytes < OTHERS_SHARE * self.fragment_bytes {
                break;
            }
            let Some(mut one) = self.under_way.pop_front() else { break };
            if self.put_piece(&mut one, out) {
                self.under_way_bytes -= one.whole_bytes;
                self.release(out);
                if let Of::Line(target) = one.of {
                    return Some(target);
                }
            } else {
                self.under_way.push_back(one);
            }
        }
        None
    }

    /// Begins answers for which there is room by now. Returns the next line whose head may begin.
    pub(super) fn next_waiting(&mut self, out: &mut Outgoing) -> Option<ActorId> {
        loop {
            let bytes = match self.waiting.front()? {
                (_, Waiting::Line { bytes, .. }) => *bytes,
                (_, Waiting::Answer { frame, .. }) => frame.len(),
            };
            if !self.has_room(bytes) {
                return None;
            }
            match self.waiting.pop_front()? {
                (_, Waiting::Line { target, .. }) => return Some(target),
                (ticket, Waiting::Answer { request, frame }) => {
                    self.begin(frame, Of::Answer(request), Some(ticket), out);
                }
            }
        }
    }

    /// Gives up what has begun; the peer forgets what it has of it.
    pub(super) fn give_up(&mut self, number: u32, out: &mut Outgoing) {
        if let Some(at) = self.under_way.iter().position(|one| one.number == number)
            && let Some(one) = self.under_way.remove(at)
        {
            self.under_way_bytes -= one.whole_bytes;
            out.put_bare(Head::FragmentDrop { number });
            self.release(out);
        }
    }

    /// Queues the held answers that need not wait any longer.
    fn release(&mut self, out: &mut Outgoing) {
        while let Some(held) = self.held.front()
            && self.is_past(held.ticket)
            && let Some(Held { ticket, request, frame }) = self.held.pop_front()
        {
            if out.is_large(&frame) {
                self.answer_with(ticket, request, frame, out);
            } else {
                out.put_frame(&frame);
            }
        }
    }

    /// So many bytes have been written.
    pub(super) fn written(&mut self, bytes: usize) {
        self.passed_bytes = self.passed_bytes.saturating_add(bytes);
    }

    pub(super) fn clear(&mut self) {
        *self = Fragmenting::new(self.fragment_bytes);
    }

    /// Queues the next piece. True if it was the last.
    fn put_piece(&mut self, one: &mut UnderWay, out: &mut Outgoing) -> bool {
        let bytes = one.rest.len().min(self.fragment_bytes);
        let last = bytes == one.rest.len();
        let first = one.rest.len() == one.whole_bytes;
        if !planted::is(Bug::FragmentLost) || first || last {
            let number = one.number;
            let head = if last { Head::FragmentEnd { number } } else { Head::Fragment { number } };
            out.put_bytes(head, &one.rest[..bytes]);
        }
        one.rest.advance(bytes);
        self.passed_bytes = 0;
        last
    }
}
