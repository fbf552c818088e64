//! What two connected nodes say to each other, decided without clock, socket or thread.
//!
//! Frames and `now` come in as arguments; bytes to send, replies matched to their callers and events come out.
//! `R` is whatever the driver wants back with a reply: a future's slot, or an operation's number in a simulation.

mod body;
mod error;
mod flow;
mod fragmenting;
mod interned;
mod outgoing;
mod pending;
mod reassembly;
mod types;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use mobula_core::codec::{self, EncodeError};
use mobula_core::frame::{self, Body, Frame, FrameError, Head, Kind, MessageIndex, WriteError};
use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, CallError, NodeId, NodeUid, RequestId, limits};

pub use body::IntoBody;
pub(crate) use body::spare as keep_spare;
pub use error::SessionError;
pub(crate) use error::cut;
use error::{bad_body, check_name};
use flow::{Flows, InLine, Sender, Way};
use fragmenting::{Fragmenting, Ticket};
use interned::Interned;
use outgoing::{Outgoing, Put};
use pending::{Ask, Pending};
use reassembly::Reassembly;
pub use types::{Accepted, Call, Event, Hello, Lane, Payload, Received, SessionConfig};

/// What an ask is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    Ask,
    /// It goes before what is queued.
    Ahead,
    /// It is answered when the message is in its mailbox.
    Post,
}

/// How a session ended.
struct Closed {
    node: NodeId,
    reason: String,
    quarantined: bool,
}

/// The error of a call whose session has ended.
fn unreachable(node: &NodeId, sent: bool, reason: &str, quarantined: bool) -> CallError {
    let (node, reason) = (node.clone(), reason.to_owned());
    match quarantined {
        true => CallError::Quarantined { node, sent, reason },
        false => CallError::Unreachable { node, sent, reason },
    }
}

/// One conversation, over one connection or several that follow each other; see the [crate] for the whole.
pub struct Session<R> {
    config: SessionConfig,
    peer: Option<Hello>,
    /// What this side has announced.
    capabilities: u64,
    /// What the handshake proved; the hello has to agree.
    proven: Option<NodeUid>,
    opened: Instant,
    heard: Instant,
    next_ping: Instant,
    out: Outgoing,
    fragmenting: Fragmenting,
    reassembly: Reassembly,
    interned: Interned,
    pending: Pending<R>,
    flows: Flows<R>,
    events: VecDeque<Event<R>>,
    closed: Option<Closed>,
    late_replies: u64,
    /// Why this side is about to end, once it is.
    leaves: Option<String>,
    /// The same of the peer: nothing new is started there.
    peer_leaves: Option<String>,
}

impl<R> Session<R> {
    /// Opens a session at `now` and queues this side's hello. `proven` is the peer that the handshake proved.
    pub fn new(config: SessionConfig, hello: &Hello, proven: Option<NodeUid>, now: Instant) -> Self {
        let mut out = Outgoing::new(&config);
        out.put_hello(|out| codec::encode_into(hello, out));
        if config.version < 2 {
            out.never_fragment();
        }
        Session {
            config,
            peer: None,
            capabilities: hello.capabilities,
            proven,
            opened: now,
            heard: now,
            next_ping: now + config.heartbeat_interval,
            out,
            fragmenting: Fragmenting::new(config.fragment_bytes),
            reassembly: Reassembly::default(),
            interned: Interned::default(),
            pending: Pending::new(),
            flows: Flows::new(),
            events: VecDeque::new(),
            closed: None,
            late_replies: 0,
            leaves: None,
            peer_leaves: None,
        }
    }

    /// Its settings.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Above how many bytes bodies are packed, once it is known that both sides read them.
    pub fn packs_above(&self) -> Option<usize> {
        let peer_reads = self.peer.as_ref().is_some_and(|peer| peer.can(Hello::LZ4));
        (peer_reads && self.capabilities & Hello::LZ4 != 0).then_some(self.config.pack_above_bytes)
    }

    /// The body of a message, an answer or an item, packed if that has been agreed on, and has not been tried before.
    fn body(&self, body: impl IntoBody) -> Result<Body, EncodeError> {
        let body = body.into_body()?;
        Ok(match self.packs_above() {
            Some(above) => body.packed(above),
            None => body,
        })
    }

    /// The peer's hello, once it has come.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Asks that wait for their answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Messages that stand in line for credit or for the byte window.
    pub fn in_line(&self) -> usize {
        self.flows.in_line()
    }

    /// Targets to which messages are under way or stand in line, or that have not returned all credit.
    pub fn targets(&self) -> usize {
        self.flows.entries()
    }

    /// Bytes that are queued and not yet [written](Self::handle_written).
    pub fn queued_bytes(&self) -> usize {
        self.out.queued_bytes()
    }

    /// Bytes of large messages and answers that have begun and are not queued yet, or that wait for their turn.
    pub fn unsent_large_bytes(&self) -> usize {
        self.fragmenting.bytes()
    }

    /// Bytes of the peer's large messages that have not come completely.
    pub fn reassembly_bytes(&self) -> usize {
        self.reassembly.bytes()
    }

    /// Answers that came after nobody waited for them any more.
    pub fn late_replies(&self) -> u64 {
        self.late_replies
    }

    /// When anything was last heard from the peer.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Sends an ask; its answer comes back with `reply`. `body` writes the message where it will be sent from.
    ///
    /// # Errors
    /// With `reply` handed back: the session is closed, the deadline is over, the line is full, or the body cannot be
    /// written. Nothing was sent.
    pub fn ask(
        &mut self,
        call: &Call,
        reply: R,
        now: Instant,
        body: impl IntoBody,
    ) -> Result<(RequestId, Accepted), (CallError, R)> {
        self.await_reply(call, reply, now, body, Manner::Ask)
    }

    /// As [`ask`](Self::ask), to the node itself and ahead of all that was sent before and has not left: for what keeps a
    /// lease, and depends on nothing else. What is large, or the first of its type, takes its turn; so does what is for an actor.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn ask_ahead(
        &mut self,
        call: &Call,
        reply: R,
        now: Instant,
        body: impl IntoBody,
    ) -> Result<(RequestId, Accepted), (CallError, R)> {
        self.await_reply(call, reply, now, body, Manner::Ahead)
    }

    /// Sends a tell whose `reply` comes back when the message is in its target's mailbox. Otherwise as
    /// [`ask`](Self::ask).
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn post(
        &mut self,
        call: &Call,
        reply: R,
        now: Instant,
        body: impl IntoBody,
    ) -> Result<(RequestId, Accepted), (CallError, R)> {
        self.await_reply(call, reply, now, body, Manner::Post)
    }

    fn await_reply(
        &mut self,
        call: &Call,
        reply: R,
        now: Instant,
        body: impl IntoBody,
        manner: Manner,
    ) -> Result<(RequestId, Accepted), (CallError, R)> {
        let post = manner == Manner::Post;
        if post && let Err(error) = self.needs_version(2, "acked tells", false) {
            return Err((error, reply));
        }
        let message = match self.admit(call, now) {
            Ok(message) => message,
            Err(error) => return Err((error, reply)),
        };
        let (request, target, budget) = (self.pending.next_id(), call.target, call.deadline.budget(now));
        let head = match post {
            true => Head::Post { request, target, message, budget },
            false => Head::Ask { request, target, message, budget },
        };
        let put = match manner {
            Manner::Ahead if call.target == ActorId::NODE => self.put_ahead(call, head, body, request),
            _ => self.put_or_line(call, head, body, || Sender::Ask(request)),
        };
        let accepted = match put {
            Ok(accepted) => accepted,
            Err(error) => return Err((error, reply)),
        };
        let in_line = accepted == Accepted::InLine;
        self.pending.insert(request, Ask { deadline: call.deadline, target: call.target, in_line, reply });
        if in_line {
            // A large message begins from the line, where later ones wait for its end.
            self.advance_line(call.target, now);
        }
        Ok((request, accepted))
    }

    /// Sends a tell. If it has to stand in line, `waiter` is kept and comes back with [`Event::Accepted`] or
    /// [`Event::Failed`]; otherwise it is never called.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn tell(
        &mut self,
        call: &Call,
        waiter: impl FnOnce() -> R,
        now: Instant,
        body: impl IntoBody,
    ) -> Result<Accepted, CallError> {
        let message = self.admit(call, now)?;
        let head = Head::Tell { target: call.target, message, budget: call.deadline.budget(now) };
        let accepted = self.put_or_line(call, head, body, || Sender::Tell(waiter()))?;
        if accepted == Accepted::InLine {
            self.advance_line(call.target, now);
        }
        Ok(accepted)
    }

    /// True if a message to `target` would not have to stand in line.
    pub fn has_credit(&mut self, target: ActorId) -> bool {
        // A try that fails says why.
        self.closed.is_some()
            || self.turns_away(target)
            || (!self.keeps_its_place(target) && self.flows.has_credit(target, &self.out))
    }

    /// True if nothing new may be sent to `target`. What is said to the node itself is about what is there.
    fn turns_away(&self, target: ActorId) -> bool {
        self.peer_leaves.is_some() && target != ActorId::NODE && !planted::is(Bug::DrainIgnored)
    }

    /// True if a message to `target` must not overtake large ones to others. On the data lane, what is said to the node
    /// itself may be about messages that are still on their way.
    fn keeps_its_place(&self, target: ActorId) -> bool {
        target == ActorId::NODE && self.config.lane == Lane::Data && !self.fragmenting.is_idle()
    }

    /// What the head of this side's line is to be given up for is no longer pending.
    fn left_line(&mut self, target: ActorId) {
        if let Some(number) = self.flows.left_line(target, &self.pending) {
            self.fragmenting.give_up(number, &mut self.out);
        }
    }

    /// Gives a pending ask up: its answer will be dropped, and the peer is told. Returns what was kept with it.
    pub fn cancel(&mut self, request: RequestId) -> Option<R> {
        let ask = self.pending.take(request)?;
        if ask.in_line {
            self.left_line(ask.target);
        } else {
            self.out.put_bare(Head::Cancel { request });
        }
        Some(ask.reply)
    }

    /// Answers a request of the peer.
    ///
    /// # Errors
    /// [`CallError::Encode`] if the result cannot be written; the caller then [fails](Self::fail) the request with it.
    pub fn reply(&mut self, request: RequestId, body: impl IntoBody) -> Result<(), CallError> {
        if self.closed.is_some() {
            return Ok(());
        }
        self.put_answer(Head::Reply { request }, request, body).map_err(reply_failure)
    }

    /// As [`reply`](Self::reply), ahead of all that was sent before and has not left: the answer to what
    /// [goes ahead](Self::ask_ahead).
    ///
    /// # Errors
    /// As for [`reply`](Self::reply).
    pub fn reply_ahead(&mut self, request: RequestId, body: impl IntoBody) -> Result<(), CallError> {
        if self.closed.is_some() {
            return Ok(());
        }
        let head = Head::Reply { request };
        let body = body.into_body().map_err(|error| reply_failure(error.into()))?;
        match self.out.put_ahead(head, body).map_err(reply_failure)? {
            Ok(()) => Ok(()),
            Err(body) => self.put_answer(head, request, Ok(body)).map_err(reply_failure),
        }
    }

    /// Takes over answers that were written beside the session, whole reply frames that are not large, and credit.
    pub(crate) fn put_answers(&mut self, frames: &[u8], credit: Option<(ActorId, u32)>) {
        if self.closed.is_some() {
            return;
        }
        if let Some((target, count)) = credit {
            self.out.put_bare(Head::Credit { target, count });
        }
        if self.fragmenting.holds_nothing() {
            return self.out.put_frame(frames);
        }
        let mut rest = frames;
        while let Ok(Some((Frame::Reply { request, payload }, length))) = frame::decode(rest, limits::FRAME_BYTES_MAX) {
            let body = |out: &mut BytesMut| {
                out.extend_from_slice(payload);
                Ok(())
            };
            // Copying cannot fail.
            let _ = self.put_answer(Head::Reply { request }, request, body);
            rest = &rest[length..];
        }
    }

    /// As [`reply`](Self::reply), behind every large message and answer that was sent before: a small answer that
    /// tells of them must not overtake them.
    ///
    /// # Errors
    /// As for [`reply`](Self::reply).
    pub fn reply_in_order(&mut self, request: RequestId, body: impl IntoBody) -> Result<(), CallError> {
        if self.closed.is_some() || self.fragmenting.is_idle() {
            return self.reply(request, body);
        }
        self.hold_answer(Head::Reply { request }, request, body).map_err(reply_failure)
    }

    fn put_answer(&mut self, head: Head, request: RequestId, body: impl IntoBody) -> Result<(), WriteError> {
        if self.fragmenting.is_answering(request) {
            return self.hold_answer(head, request, body);
        }
        let body = match head {
            Head::Failure { .. } => body.into_body()?,
            _ => self.body(body)?,
        };
        if let Put::Large(frame) = self.out.put(head, body)? {
            self.fragmenting.answer(request, frame, &mut self.out);
        }
        Ok(())
    }

    fn hold_answer(&mut self, head: Head, request: RequestId, body: impl IntoBody) -> Result<(), WriteError> {
        let body = match head {
            Head::Failure { .. } => body.into_body()?,
            _ => self.body(body)?,
        };
        let frame = body.into_frame(head, self.out.frame_bytes_max())?;
        self.fragmenting.hold(request, frame);
        Ok(())
    }

    /// Sends one of many answers to a request of the peer.
    ///
    /// # Errors
    /// [`CallError::Encode`] if the item cannot be written; the caller then [fails](Self::fail) the request with it.
    pub fn item(&mut self, request: RequestId, body: impl IntoBody) -> Result<(), CallError> {
        if self.closed.is_some() {
            return Ok(());
        }
        self.needs_version(2, "streams of answers", true)?;
        self.put_answer(Head::Item { request }, request, body).map_err(reply_failure)
    }

    /// Lets the peer send `count` more items in answer to `request`, if that is still open.
    pub fn more(&mut self, request: RequestId, count: u32) {
        if self.pending.get(request).is_some() {
            self.out.put_bare(Head::More { request, count });
        }
    }

    /// Hands a tell of the peer back, by the peer's own index of its type: it reached no handler.
    pub fn undelivered(&mut self, target: ActorId, message: MessageIndex, error: &CallError) {
        if self.closed.is_none() && self.config.version >= 2 {
            // As for a failure, writing it cannot fail.
            let _ = self.out.put_small(Head::Undelivered { target, message }, |out| codec::encode_into(error, out));
        }
    }

    /// Answers a request of the peer with a failure.
    pub fn fail(&mut self, request: RequestId, error: &CallError) {
        if self.closed.is_none() {
            // The error types are plain data, and their texts are cut: writing them cannot fail.
            let error = error.in_version(self.config.version);
            let _ = self
                .put_answer(Head::Failure { request }, request, |out: &mut BytesMut| codec::encode_into(&error, out));
        }
    }

    /// Returns credit for messages that `target` has taken up.
    pub fn grant(&mut self, target: ActorId, count: u32) {
        if self.closed.is_none() {
            self.out.put_bare(Head::Credit { target, count });
        }
    }

    /// Asks whether the peer hears anything. It answers with a pong, and with an ack of what has come.
    pub fn ping(&mut self) {
        if self.closed.is_none() {
            self.out.put_urgent(Head::Ping { nonce: 0 });
        }
    }

    /// Says goodbye, so that the peer knows it was no accident.
    pub fn goodbye(&mut self, text: &str) {
        if self.closed.is_none() {
            let _ = self.out.put_small(Head::Goodbye, |out| codec::encode_into(text, out));
        }
    }

    /// Says once that this side is about to end on purpose: the peer starts nothing new, and what is in progress in both
    /// directions goes on. A peer that does not [understand](Hello::GO_AWAY) this is not told.
    pub fn go_away(&mut self, text: &str) {
        if self.leaves.is_none() {
            self.leaves = Some(text.to_owned());
            self.tell_leave();
        }
    }

    /// Why the peer is about to end, if it has said so.
    pub fn peer_leaves(&self) -> Option<&str> {
        self.peer_leaves.as_deref()
    }

    /// Tells it as soon as it is known whether the peer understands.
    fn tell_leave(&mut self) {
        if let Some(text) = &self.leaves
            && self.closed.is_none()
            && self.peer.as_ref().is_some_and(|peer| peer.can(Hello::GO_AWAY))
        {
            // As for a goodbye.
            let _ = self.out.put_small(Head::GoAway, |out| codec::encode_into(text.as_str(), out));
        }
    }

    /// The peer is about to end. What stood in line comes back unsent, but for what is half sent already.
    fn receive_go_away(&mut self, text: String) {
        if self.peer_leaves.is_some() {
            return;
        }
        let error = self.left(&text);
        self.peer_leaves = Some(text);
        self.flows.give_back(&error, &mut self.pending, &mut self.events);
        if planted::is(Bug::DrainCuts) {
            let node = self.peer.as_ref().map_or_else(|| NodeId::new("", NodeUid(0)), |hello| hello.node.clone());
            let cut = unreachable(&node, true, "it drains", false);
            let under_way = self.pending.drain().map(|ask| Event::Failed { to: ask.reply, error: cut.clone() });
            self.events.extend(under_way);
        }
    }

    /// The error of a call to a peer that is about to end.
    fn left(&self, text: &str) -> CallError {
        let node = match &self.peer {
            Some(hello) => hello.node.clone(),
            None => NodeId::new("", NodeUid(0)),
        };
        CallError::Unreachable { node, sent: false, reason: format!("the node is about to end: {text}") }
    }

    /// Takes in one frame. A closed session takes in nothing.
    ///
    /// # Errors
    /// [`SessionError`]: the driver [closes](Self::close) the session with it.
    pub fn receive<'a>(&mut self, frame: Frame<'a>, now: Instant) -> Result<Received<'a, R>, SessionError>
    where
        R: Clone,
    {
        if self.closed.is_some() {
            return Ok(Received::Nothing);
        }
        self.heard = now;
        if self.peer.is_none() && !matches!(frame, Frame::Hello { .. }) {
            return Err(SessionError::HelloExpected);
        }
        let (frame, packed) = self.inside(frame)?;
        if let Some(kind) = frame.unknown_in(self.config.version) {
            return Err(FrameError::UnknownFrameKind { kind }.into());
        }
        let received = self.take_in(frame, now)?;
        Ok(if packed { received.marked_packed() } else { received })
    }

    /// The frame whose body is packed, if that has been agreed on.
    #[inline]
    fn inside<'a>(&self, frame: Frame<'a>) -> Result<(Frame<'a>, bool), SessionError> {
        match frame {
            Frame::Packed { .. } if self.capabilities & Hello::LZ4 == 0 => Err(SessionError::PackingNotAgreed),
            Frame::Packed { frame } => Ok((frame::decode_packed(frame)?, true)),
            plain => Ok((plain, false)),
        }
    }

    /// How many types of messages the peer has introduced, while asks and tells of such a type need nothing else of the
    /// session: it is open. Whatever else comes, it [receives](Self::receive).
    pub fn types_of_requests(&self) -> Option<u32> {
        (self.closed.is_none() && self.peer.is_some()).then(|| self.interned.theirs())
    }

    /// Whoever waits for the answer to `request` that came at `now`, if anybody does. To be called only while it is
    /// [open](Self::types_of_requests).
    pub(crate) fn answered(&mut self, request: RequestId, now: Instant) -> Option<R> {
        self.note_heard(now);
        self.take_answered(request)
    }

    /// Something came from the peer at `now` that the session was [not shown](Self::types_of_requests).
    pub(crate) fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes in a frame that came in fragments, the first at `began`: from then its budget counts.
    fn take_in_reassembled(&mut self, mut bytes: BytesMut, began: Instant) -> Result<Received<'static, R>, SessionError>
    where
        R: Clone,
    {
        let (frame, packed) = self.inside(frame::decode_unprefixed(&bytes)?)?;
        let message = matches!(frame, Frame::Ask { .. } | Frame::Tell { .. } | Frame::Post { .. });
        let answer = matches!(frame, Frame::Reply { .. } | Frame::Failure { .. } | Frame::Item { .. });
        if !message && !answer {
            return Err(SessionError::NotToBeFragmented { kind: bytes[0] });
        }
        let cut_off = |payload_bytes: usize, bytes: &mut BytesMut| bytes.split_off(bytes.len() - payload_bytes);
        let received = match self.take_in(frame, began)? {
            Received::Request { request, post, target, message, deadline, payload } => {
                let payload = Payload::Reassembled(cut_off(payload.len(), &mut bytes));
                Received::Request { request, post, target, message, deadline, payload }
            }
            Received::Item { to, payload } => {
                Received::Item { to, payload: Payload::Reassembled(cut_off(payload.len(), &mut bytes)) }
            }
            Received::Reply { to, payload } => {
                Received::Reply { to, payload: Payload::Reassembled(cut_off(payload.len(), &mut bytes)) }
            }
            Received::Failure { to, error } => Received::Failure { to, error },
            _ => Received::Nothing,
        };
        Ok(if packed { received.marked_packed() } else { received })
    }

    fn take_in<'a>(&mut self, frame: Frame<'a>, now: Instant) -> Result<Received<'a, R>, SessionError>
    where
        R: Clone,
    {
        match frame {
            Frame::Hello { body } => self.receive_hello(body, now)?,
            Frame::Ping { nonce } => self.out.put_urgent(Head::Pong { nonce }),
            Frame::Pong { .. } => {}
            Frame::Ack { received } => return Ok(Received::Ack { received }),
            // Between the preface and the stream, and nowhere else.
            Frame::Resume { .. } => return Err(SessionError::ResumeOutOfPlace),
            Frame::Goodbye { body } => {
                let text = codec::decode::<String>(body).map_err(bad_body("goodbye"))?;
                return Err(SessionError::Goodbye { text: cut(text) });
            }
            // Only who has said that it wants to be told is told.
            Frame::GoAway { .. } if self.capabilities & Hello::GO_AWAY == 0 => {
                return Err(FrameError::UnknownFrameKind { kind: Kind::GoAway as u8 }.into());
            }
            Frame::GoAway { body } => {
                let text = codec::decode::<String>(body).map_err(bad_body("go-away"))?;
                self.receive_go_away(cut(text));
            }
            Frame::Define { index, body } => {
                let (name, schema) = self.interned.define(index, body)?;
                return Ok(Received::Define { index, name, schema });
            }
            Frame::Ask { request, target, message, budget, payload } => {
                let deadline = budget.deadline(now);
                self.interned.check(message)?;
                let request = Some(request);
                return Ok(Received::Request {
                    request,
                    post: false,
                    target,
                    message,
                    deadline,
                    payload: Payload::Whole(payload),
                });
            }
            Frame::Post { request, target, message, budget, payload } => {
                let deadline = budget.deadline(now);
                self.interned.check(message)?;
                let request = Some(request);
                return Ok(Received::Request {
                    request,
                    post: true,
                    target,
                    message,
                    deadline,
                    payload: Payload::Whole(payload),
                });
            }
            Frame::Tell { target, message, budget, payload } => {
                let deadline = budget.deadline(now);
                self.interned.check(message)?;
                return Ok(Received::Request {
                    request: None,
                    post: false,
                    target,
                    message,
                    deadline,
                    payload: Payload::Whole(payload),
                });
            }
            Frame::Reply { request, payload } => {
                if let Some(to) = self.take_answered(request) {
                    return Ok(Received::Reply { to, payload: Payload::Whole(payload) });
                }
            }
            Frame::Failure { request, body } => {
                let error = codec::decode::<CallError>(body).map_err(bad_body("failure"))?;
                if let Some(to) = self.take_answered(request) {
                    return Ok(Received::Failure { to, error });
                }
            }
            Frame::Item { request, payload } => {
                if let Some(to) = self.awaits(request).cloned() {
                    return Ok(Received::Item { to, payload: Payload::Whole(payload) });
                }
                self.late_replies += 1;
            }
            Frame::Undelivered { target, message, body } => {
                let message = self.interned.name(message)?;
                let error = codec::decode::<CallError>(body).map_err(bad_body("undelivered"))?;
                return Ok(Received::Undelivered { target, message, error });
            }
            Frame::More { request, count } => return Ok(Received::More { request, count }),
            Frame::Cancel { request } => return Ok(Received::Cancel { request }),
            Frame::Credit { target, count } => self.receive_credit(target, count, now)?,
            Frame::Fragment { .. } | Frame::FragmentEnd { .. } | Frame::FragmentDrop { .. }
                if self.capabilities & Hello::FRAGMENTS == 0 =>
            {
                return Err(SessionError::FragmentsNotAgreed);
            }
            Frame::Fragment { number, bytes } => self.reassembly.add(number, bytes, now)?,
            Frame::FragmentEnd { number, bytes } => {
                let (frame, began) = self.reassembly.end(number, bytes)?;
                return self.take_in_reassembled(frame, began);
            }
            Frame::FragmentDrop { number } => self.reassembly.give_up(number)?,
            // What is inside of it is taken in.
            Frame::Packed { .. } => return Err(SessionError::PackingNotAgreed),
        }
        Ok(Received::Nothing)
    }

    /// Bytes to be written to the peer, in order; empty if there are none. The driver reports what it has written
    /// with [`handle_written`](Self::handle_written).
    pub fn take_transmit(&mut self) -> BytesMut {
        let mut bytes = BytesMut::new();
        self.out.take(&mut bytes);
        bytes
    }

    /// As [`take_transmit`](Self::take_transmit), into a buffer whose bytes have all been written and whose allocation is
    /// used again.
    pub fn take_transmit_into(&mut self, bytes: &mut BytesMut) {
        self.out.take(bytes);
    }

    /// True if there are [bytes to be written](Self::take_transmit).
    pub fn has_transmit(&self) -> bool {
        self.out.has_any()
    }

    /// True if there is an [event](Self::poll_event).
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The driver has written so many bytes; senders that waited for the window go on.
    pub fn handle_written(&mut self, bytes: usize, now: Instant) {
        self.out.written(bytes);
        self.fragmenting.written(bytes);
        while let Some(target) = self.fragmenting.advance(&mut self.out) {
            self.flows.head_has_left(target, &mut self.pending, &mut self.events);
        }
        while !self.out.is_full() {
            if let Some(target) = self.flows.next_stalled() {
                self.advance_line(target, now);
            } else if let Some(target) = self.fragmenting.next_waiting(&mut self.out) {
                let waited = self.flows.has_room(target);
                self.advance(target, waited, now);
            } else {
                break;
            }
        }
        if self.flows.node_waits() {
            self.advance_line(ActorId::NODE, now);
        }
    }

    /// The next moment at which [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed.is_some() {
            return None;
        }
        let mut next = self.pending.earliest().into_iter().chain(self.flows.earliest()).min();
        let mut at = |instant: Instant| next = Some(next.map_or(instant, |next| next.min(instant)));
        if self.peer.is_none() {
            at(self.opened + self.config.hello_deadline);
        }
        if self.config.lane == Lane::Control {
            at(self.next_ping);
            if !planted::is(Bug::DownUnnoticed) {
                at(self.heard + self.config.down_after);
            }
        }
        next
    }

    /// Does what has become due at `now`: heartbeats, expired asks and tells, the end of a silent peer.
    ///
    /// # Errors
    /// [`SessionError::Silent`] or [`SessionError::NoHello`]: the driver closes the session.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.closed.is_some() {
            return Ok(());
        }
        let ms = |since: Instant| u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        if self.peer.is_none() && now >= self.opened + self.config.hello_deadline {
            return Err(SessionError::NoHello { waited_ms: ms(self.opened) });
        }
        if self.config.lane == Lane::Control {
            if now >= self.heard + self.config.down_after && !planted::is(Bug::DownUnnoticed) {
                return Err(SessionError::Silent { silence_ms: ms(self.heard) });
            }
            if now >= self.next_ping {
                self.out.put_urgent(Head::Ping { nonce: ms(self.opened) });
                self.next_ping = now + self.config.heartbeat_interval;
            }
        }
        if self.pending.earliest().is_some_and(|at| at <= now) {
            self.expire_asks(now);
        }
        if self.flows.earliest().is_some_and(|at| at <= now) {
            for number in self.flows.expire(now, &self.pending, &mut self.events) {
                self.fragmenting.give_up(number, &mut self.out);
            }
        }
        Ok(())
    }

    /// What the driver has to pass on, oldest first.
    pub fn poll_event(&mut self) -> Option<Event<R>> {
        self.events.pop_front()
    }

    /// Ends the session: everything that waits fails now, with `reason`, and nothing is sent any more. `peer` names
    /// the other side where its hello never came.
    pub fn close(&mut self, peer: &NodeId, reason: &str) {
        self.close_with(peer, reason, false);
    }

    /// As [`close`](Self::close), since it will never be known what became of what was under way: the peer is alive and
    /// does not know this session any more.
    pub fn quarantine(&mut self, peer: &NodeId, reason: &str) {
        self.close_with(peer, reason, true);
    }

    fn close_with(&mut self, peer: &NodeId, reason: &str, quarantined: bool) {
        if self.closed.is_some() {
            return;
        }
        let node = self.peer.as_ref().map_or_else(|| peer.clone(), |hello| hello.node.clone());
        let unreachable = |sent| unreachable(&node, sent, reason, quarantined);
        for ask in self.pending.drain() {
            if planted::is(Bug::PendingForgotten) {
                continue;
            }
            let sent = !ask.in_line && !planted::is(Bug::SentFlagWrong);
            self.events.push_back(Event::Failed { to: ask.reply, error: unreachable(sent) });
        }
        for to in self.flows.drain() {
            self.events.push_back(Event::Failed { to, error: unreachable(false) });
        }
        self.out.clear();
        self.fragmenting.clear();
        self.reassembly.clear();
        self.closed = Some(Closed { node, reason: reason.to_owned(), quarantined });
    }

    /// # Errors
    /// [`CallError::Encode`] if the peer speaks an older version than `what` needs.
    fn needs_version(&self, version: u16, what: &str, reply: bool) -> Result<(), CallError> {
        let theirs = self.config.version;
        if theirs >= version {
            return Ok(());
        }
        let reason = format!("the peer speaks version {theirs} of the protocol, {what} need {version}: upgrade it");
        Err(CallError::Encode { reason, reply })
    }

    /// The index of the message's type; what may not be sent at all is refused here.
    fn admit(&mut self, call: &Call, now: Instant) -> Result<MessageIndex, CallError> {
        if let Some(Closed { node, reason, quarantined }) = &self.closed {
            return Err(unreachable(node, false, reason, *quarantined));
        }
        if let Some(text) = self.peer_leaves.as_deref().filter(|_| self.turns_away(call.target)) {
            return Err(self.left(text));
        }
        if call.deadline.is_over(now) {
            return Err(CallError::DeadlineExceeded { started: false });
        }
        self.interned.index(call, &mut self.out)
    }

    fn put_or_line(
        &mut self,
        call: &Call,
        head: Head,
        body: impl IntoBody,
        sender: impl FnOnce() -> Sender<R>,
    ) -> Result<Accepted, CallError> {
        let body = self.body(body).map_err(|error| encode_failure(error.into()))?;
        let in_order = self.keeps_its_place(call.target);
        if !in_order && self.flows.may_send(call.target, &self.out) {
            return match self.out.put(head, body) {
                Ok(Put::Queued) => Ok(Accepted::Queued),
                Ok(Put::Large(frame)) => {
                    self.flows.unspend(call.target);
                    let waiting = InLine::new(frame, call.deadline, sender(), None);
                    self.flows.stand_in_line(call.target, waiting, &self.out);
                    Ok(Accepted::InLine)
                }
                Err(error) => {
                    self.flows.unspend(call.target);
                    Err(encode_failure(error))
                }
            };
        }
        let max = self.out.frame_bytes_max();
        let admitted = self.flows.admit_to_line(call.target);
        let frame = match admitted.and_then(|()| body.into_frame(head, max).map_err(encode_failure)) {
            Ok(frame) => frame,
            Err(error) => {
                self.flows.forget_idle(call.target);
                return Err(error);
            }
        };
        let after = in_order.then(|| self.fragmenting.ticket());
        self.flows.stand_in_line(call.target, InLine::new(frame, call.deadline, sender(), after), &self.out);
        Ok(Accepted::InLine)
    }

    fn put_ahead(
        &mut self,
        call: &Call,
        head: Head,
        body: impl IntoBody,
        request: RequestId,
    ) -> Result<Accepted, CallError> {
        let body = body.into_body().map_err(|error| encode_failure(error.into()))?;
        match self.out.put_ahead(head, body).map_err(encode_failure)? {
            Ok(()) => Ok(Accepted::Queued),
            Err(body) => self.put_or_line(call, head, Ok(body), || Sender::Ask(request)),
        }
    }

    fn advance_line(&mut self, target: ActorId, now: Instant) {
        self.advance(target, None, now);
    }

    fn advance(&mut self, target: ActorId, waited: Option<Ticket>, now: Instant) {
        let Session { out, fragmenting, pending, events, .. } = self;
        self.flows.advance(target, waited, now, &mut Way { out, fragmenting, pending, events });
    }

    fn receive_hello(&mut self, body: &[u8], now: Instant) -> Result<(), SessionError> {
        if self.peer.is_some() {
            return Err(SessionError::HelloTwice);
        }
        let hello = codec::decode::<Hello>(body).map_err(bad_body("hello"))?;
        check_name("hello", &hello.node.name)?;
        if hello.credit_messages == 0 {
            return Err(SessionError::BadBody { what: "hello", reason: "a window of 0 messages".to_owned() });
        }
        if let Some(proven) = self.proven
            && proven != hello.node.uid
            && !planted::is(Bug::SpoofAccepted)
        {
            return Err(SessionError::SpoofedSource {
                proven: proven.to_string(),
                claimed: hello.node.uid.to_string(),
            });
        }
        if !hello.can(Hello::FRAGMENTS) || self.config.version < 2 {
            self.out.never_fragment();
        }
        let waiting = self.flows.open(hello.credit_messages);
        self.peer = Some(hello);
        self.tell_leave();
        for target in waiting {
            self.advance_line(target, now);
        }
        Ok(())
    }

    fn receive_credit(&mut self, target: ActorId, count: u32, now: Instant) -> Result<(), SessionError> {
        self.flows.refill(target, count)?;
        self.advance_line(target, now);
        Ok(())
    }

    /// An answer to what is still in line was invented by the peer, and counts as late.
    fn take_answered(&mut self, request: RequestId) -> Option<R> {
        if self.awaits(request).is_none() {
            self.late_replies += 1;
            return None;
        }
        self.pending.take(request).map(|ask| ask.reply)
    }

    fn awaits(&self, request: RequestId) -> Option<&R> {
        self.pending.get(request).filter(|ask| !ask.in_line).map(|ask| &ask.reply)
    }

    fn expire_asks(&mut self, now: Instant) {
        for request in self.pending.due(now) {
            let Some(ask) = self.pending.take(request) else { continue };
            if ask.in_line {
                self.left_line(ask.target);
            } else {
                // The work for it can stop, or need not begin.
                self.out.put_bare(Head::Cancel { request });
            }
            let error = CallError::DeadlineExceeded { started: !ask.in_line };
            self.events.push_back(Event::Failed { to: ask.reply, error });
        }
    }
}

fn reply_failure(error: WriteError) -> CallError {
    CallError::Encode { reason: error.to_string(), reply: true }
}

fn encode_failure(error: WriteError) -> CallError {
    CallError::Encode { reason: error.to_string(), reply: false }
}

#[cfg(test)]
mod tests;
