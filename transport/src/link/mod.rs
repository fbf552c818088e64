//! A session with its connection, and with those that follow when one breaks: senders write from their own thread, the
//! [`Driver`] reads where it is polled.
//!
//! Waking another thread costs some 20 us, a write some 5. So a sender on another thread writes at once while the link is
//! quiet. Beside the driver, or on a link that is busy already, senders only append and wake the driver, which writes
//! all of that together: a small write of its own would wake the peer early, for one message instead of many. Who goes on sending
//! without awaiting writes every 8 KiB, so that the peer works meanwhile. See `docs/decisions/0002` and `0014`.

mod beside;
mod driver;
mod gathered;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use futures::task::AtomicWaker;
use mobula_core::codec::EncodeError;
use mobula_core::frame::{Body, MessageIndex};
use mobula_core::{ActorId, CallError, Deadline, NodeId, RequestId};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use driver::Driver;
pub use gathered::{Gathering, gather, settle};
use writer::{Drained, Writer};

use crate::resume::Returned;
use crate::session::{Accepted, Call, Event, Hello, IntoBody, Payload, Session, SessionConfig, SessionError};
use crate::wire::Wire;

/// Now, as the runtime sees it: virtual under a paused or simulated clock. The only clock of this crate.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Whoever waits for an answer, for many of them, or for a place in the out-queue.
pub trait Waiter: Clone + Send + 'static {
    /// The answer, or why there is none. Called on the thread that reads the connection.
    fn answer(self, answer: Result<&[u8], CallError>);
    /// The tell that stood in line is on its way.
    fn accepted(self);
    /// One of many answers. Called as `answer` is. One that nobody awaits may be dropped.
    ///
    /// # Errors
    /// [`SessionError`] closes the connection: it is one too many.
    fn item(&self, _payload: &[u8]) -> Result<(), SessionError> {
        Ok(())
    }
}

/// A message for an actor of this node.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Present if the sender wants to hear of it.
    pub request: Option<RequestId>,
    /// The sender wants no answer, only to hear that the message is in the mailbox.
    pub post: bool,
    /// The actor.
    pub target: ActorId,
    /// The message's type, as [defined](Inbound::define) on this connection.
    pub message: MessageIndex,
    /// After this, nobody waits.
    pub deadline: Deadline,
    /// The message.
    pub payload: Payload<'a>,
}

/// What one connection's incoming requests are handed to, on the thread that reads it.
pub trait Inbound<R: Waiter>: Send + 'static {
    /// The peer's hello has come; everything else comes after it.
    fn opened(&mut self, _link: &Arc<Link<R>>, _hello: &Hello) {}
    /// The peer introduces a message type; indices count up from 0.
    fn define(&mut self, index: MessageIndex, name: &str, schema: u64);
    /// A message has come.
    ///
    /// # Errors
    /// [`SessionError`] closes the connection; a message that is merely refused is answered instead.
    fn request(&mut self, link: &Arc<Link<R>>, request: Request<'_>) -> Result<(), SessionError>;
    /// The sender of a request no longer waits for it.
    fn cancel(&mut self, request: RequestId);
    /// The sender of a request has taken so many items of its answer.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    fn more(&mut self, _link: &Arc<Link<R>>, _request: RequestId, _count: u32) -> Result<(), SessionError> {
        Ok(())
    }
    /// A tell to an actor of the peer reached no handler.
    fn undelivered(&mut self, _link: &Arc<Link<R>>, _target: ActorId, _message: &'static str, _error: CallError) {}
    /// The connection has ended.
    fn closed(&mut self, link: &Arc<Link<R>>, reason: &str);
}

/// The link has ended, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connection to {peer} ended: {reason}")]
pub struct LinkClosed {
    /// The other side, as far as known.
    pub peer: NodeId,
    /// What happened.
    pub reason: String,
    /// The peer lives and does not know the session any more: what was under way is in doubt for ever, and nothing of this
    /// life of the peer is to be accepted any more.
    pub quarantined: bool,
}

/// The current thread, as long as it lives. Costs less than its `ThreadId`, which comes with a counted handle.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// 20 us, about what waking a thread takes: a link that was not written for so long is quiet.
const QUIET_NS: u64 = 20_000;

/// 8 KiB, some 200 small asks: what goes on queueing beyond it would keep the peer idle.
const EARLY_BYTES: usize = 8 * 1024;

/// More than the fields of a frame take.
const HEAD_ROOM_BYTES: usize = 32;

/// One connection to one peer, to be shared by all who send to it.
pub struct Link<R> {
    peer: NodeId,
    session: Mutex<Session<R>>,
    writer: Mutex<Writer>,
    /// Somebody has written or is about to, and the driver will come round: append only.
    hot: AtomicBool,
    /// More is about to be queued, and goes with what is queued: the driver leaves it.
    held: AtomicBool,
    ending: AtomicBool,
    opened: Instant,
    /// When something was last written, in nanoseconds since `opened`.
    written_ns: AtomicU64,
    /// With so many bytes queued, a sender beside the driver writes before it awaits anything.
    early_at: AtomicUsize,
    /// Bodies above this are packed before the session is locked. Nothing is until the peer has said that it reads them.
    pack_above: AtomicUsize,
    /// Answers up to this wait for others of their turn.
    gathered_bytes_max: usize,
    /// Threads that have gathered something for this link.
    gathered_by: AtomicUsize,
    driver: AtomicWaker,
    /// The thread that polls the driver.
    home: OnceLock<usize>,
    state: watch::Sender<State>,
    /// The session's name, where the peer may come back to it.
    resumable: Option<u64>,
    back: Mutex<Back>,
}

/// Connections that take the place of a broken one, as the peer makes them.
#[derive(Default)]
struct Back {
    /// The peer's latest attempt.
    attempt: u32,
    /// Not yet taken up by the driver.
    returned: Option<Returned>,
}

#[derive(Clone, Debug)]
enum State {
    Opening,
    Open(Hello),
    Closed(LinkClosed),
}

impl<R: Waiter> Link<R> {
    /// Opens a link over `wire` to `peer`, which the handshake has proven. The driver has to be spawned where the
    /// connection lives; it owns `inbound`.
    pub fn open<I: Inbound<R>>(
        wire: Wire,
        config: SessionConfig,
        hello: &Hello,
        peer: NodeId,
        inbound: I,
    ) -> (Arc<Self>, Driver<R, I>) {
        let config = SessionConfig { version: wire.version, ..config };
        let way_back = wire.way_back;
        let session = Session::new(config, hello, Some(peer.uid), now());
        let link = Arc::new(Link {
            peer,
            session: Mutex::new(session),
            writer: Mutex::new(Writer::new(wire.write, way_back.is_some())),
            hot: AtomicBool::new(true),
            held: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            opened: now(),
            written_ns: AtomicU64::new(0),
            early_at: AtomicUsize::new(EARLY_BYTES),
            pack_above: AtomicUsize::new(usize::MAX),
            gathered_by: AtomicUsize::new(0),
            gathered_bytes_max: config
                .fragment_bytes
                .min(config.message_bytes_max)
                .min(gathered::ANSWER_BYTES_MAX)
                .saturating_sub(HEAD_ROOM_BYTES),
            driver: AtomicWaker::new(),
            home: OnceLock::new(),
            state: watch::Sender::new(State::Opening),
            resumable: way_back.as_ref().filter(|way_back| !way_back.dials).map(|way_back| way_back.session),
            back: Mutex::default(),
        });
        let driver = Driver::new(Arc::clone(&link), wire.read, way_back, inbound);
        (link, driver)
    }

    /// The other side.
    pub fn peer(&self) -> &NodeId {
        &self.peer
    }

    /// Sends an ask; `waiter` gets the answer. Written at once if the link is quiet.
    ///
    /// # Errors
    /// With the waiter handed back: nothing was sent.
    pub fn ask(
        &self,
        call: &Call,
        waiter: R,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<RequestId, (CallError, R)> {
        self.ask_at(now(), call, waiter, body)
    }

    /// As [`ask`](Self::ask), where the clock has been read already: it is `now`.
    ///
    /// # Errors
    /// With the waiter handed back: nothing was sent.
    pub fn ask_at(
        &self,
        now: Instant,
        call: &Call,
        waiter: R,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<RequestId, (CallError, R)> {
        let body = self.body(body);
        gathered::settle_of(self);
        let mut session = self.session.lock();
        let (request, _) = session.ask(call, waiter, now, body)?;
        let queued_bytes = session.queued_bytes();
        drop(session);
        self.sent(now, queued_bytes);
        Ok(request)
    }

    /// As [`ask`](Self::ask), to the node itself and ahead of all that is queued: for what keeps a lease.
    ///
    /// # Errors
    /// With the waiter handed back: nothing was sent.
    pub fn ask_ahead(
        &self,
        call: &Call,
        waiter: R,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<RequestId, (CallError, R)> {
        let body = body.into_body();
        let now = now();
        gathered::settle_of(self);
        let mut session = self.session.lock();
        let (request, _) = session.ask_ahead(call, waiter, now, body)?;
        let queued_bytes = session.queued_bytes();
        drop(session);
        self.sent(now, queued_bytes);
        Ok(request)
    }

    /// Sends a tell. `waiter` is made and kept only if the message has to stand in line.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn tell(
        &self,
        call: &Call,
        waiter: impl FnOnce() -> R,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<Accepted, CallError> {
        let body = self.body(body);
        let now = now();
        gathered::settle_of(self);
        let mut session = self.session.lock();
        let accepted = session.tell(call, waiter, now, body)?;
        let queued_bytes = session.queued_bytes();
        drop(session);
        self.sent(now, queued_bytes);
        Ok(accepted)
    }

    /// Sends a tell whose `waiter` hears that the message is in its target's mailbox. Otherwise as [`ask`](Self::ask).
    ///
    /// # Errors
    /// With the waiter handed back: nothing was sent.
    pub fn post(
        &self,
        call: &Call,
        waiter: R,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<RequestId, (CallError, R)> {
        let body = self.body(body);
        let now = now();
        gathered::settle_of(self);
        let mut session = self.session.lock();
        let (request, _) = session.post(call, waiter, now, body)?;
        let queued_bytes = session.queued_bytes();
        drop(session);
        self.sent(now, queued_bytes);
        Ok(request)
    }

    /// The body of a message or an answer, packed if that has been agreed on.
    #[inline]
    fn body(&self, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> Result<Body, EncodeError> {
        body.into_body().map(|body| body.packed(self.pack_above.load(Ordering::Relaxed)))
    }

    /// True if a message to `target` would not have to stand in line.
    pub fn has_credit(&self, target: ActorId) -> bool {
        self.session.lock().has_credit(target)
    }

    /// Gives an ask up; its waiter comes back unanswered, unless the answer was there first.
    pub fn cancel(&self, request: RequestId) -> Option<R> {
        gathered::settle_of(self);
        let waiter = self.session.lock().cancel(request);
        if waiter.is_some() {
            self.kick();
        }
        waiter
    }

    /// Queues the answer to a request; [`kick`](Self::kick) sends it. A result that cannot be written becomes a failure.
    ///
    /// Within a turn of an actor answers are [gathered](gather), and queued together.
    pub fn reply(self: &Arc<Self>, request: RequestId, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) {
        let body = match self.body(body) {
            Ok(body) if gathered::is_on() && body.bytes().len() <= self.gathered_bytes_max && !body.is_packed() => {
                return gathered::reply(self, request, body);
            }
            body => body,
        };
        gathered::settle_of(self);
        let mut session = self.session.lock();
        if let Err(error) = session.reply(request, body) {
            session.fail(request, &error);
        }
    }

    /// As [`reply`](Self::reply), but not ahead of large messages and answers that were sent before.
    pub fn reply_in_order(&self, request: RequestId, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) {
        let body = self.body(body);
        gathered::settle_of(self);
        let mut session = self.session.lock();
        if let Err(error) = session.reply_in_order(request, body) {
            session.fail(request, &error);
        }
    }

    /// As [`reply`](Self::reply), ahead of all that is queued: the answer to what [went ahead](Self::ask_ahead).
    pub fn reply_ahead(&self, request: RequestId, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) {
        let body = body.into_body();
        gathered::settle_of(self);
        let mut session = self.session.lock();
        if let Err(error) = session.reply_ahead(request, body) {
            session.fail(request, &error);
        }
    }

    /// Queues the failure of a request; [`kick`](Self::kick) sends it.
    pub fn fail(&self, request: RequestId, error: &CallError) {
        gathered::settle_of(self);
        self.session.lock().fail(request, error);
    }

    /// Queues one of many answers to a request; [`kick`](Self::kick) sends it.
    ///
    /// # Errors
    /// [`CallError::Encode`] if it cannot be written.
    pub fn item(
        &self,
        request: RequestId,
        body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), CallError> {
        let body = self.body(body);
        gathered::settle_of(self);
        self.session.lock().item(request, body)
    }

    /// Queues leave to send more items in answer to an ask of this side; [`kick`](Self::kick) sends it.
    pub fn more(&self, request: RequestId, count: u32) {
        gathered::settle_of(self);
        self.session.lock().more(request, count);
    }

    /// Queues the return of a tell that reached no handler; [`kick`](Self::kick) sends it.
    pub fn undelivered(&self, target: ActorId, message: MessageIndex, error: &CallError) {
        gathered::settle_of(self);
        self.session.lock().undelivered(target, message, error);
    }

    /// Queues credit for messages that `target` has taken up; [`kick`](Self::kick) sends it. Within a turn it is
    /// [gathered](gather) as answers are.
    pub fn grant(self: &Arc<Self>, target: ActorId, count: u32) {
        if gathered::is_on() {
            return gathered::grant(self, target, count);
        }
        self.session.lock().grant(target, count);
    }

    /// Something was queued by a sender at `now`; all in all `queued_bytes` are.
    fn sent(&self, now: Instant, queued_bytes: usize) {
        if !self.is_home() && self.is_quiet(now) {
            self.kick();
            // It may have to look after an earlier deadline.
            return self.driver.wake();
        }
        // Beside the driver there is no thread to wake: it comes round as soon as the sender awaits anything.
        if !self.hot.swap(true, Ordering::AcqRel) {
            self.driver.wake();
        }
        if queued_bytes >= self.early_at.load(Ordering::Relaxed) && self.is_home() {
            self.write_early();
        }
    }

    /// The sender goes on without awaiting: the peer begins meanwhile.
    fn write_early(&self) {
        if let Some(mut writer) = self.writer.try_lock() {
            // A broken connection is found by the driver, too, and handled there.
            let _ = self.drain(&mut writer);
        }
    }

    /// True on the thread that polls the driver.
    fn is_home(&self) -> bool {
        self.home.get().is_some_and(|home| *home == this_thread())
    }

    /// True if nothing was written for as long as it takes to wake a thread.
    fn is_quiet(&self, now: Instant) -> bool {
        let since_opened = u64::try_from(now.saturating_duration_since(self.opened).as_nanos()).unwrap_or(u64::MAX);
        since_opened.saturating_sub(self.written_ns.load(Ordering::Relaxed)) > QUIET_NS
    }

    /// What is queued may wait for more that is about to follow it: the driver leaves it until somebody
    /// [kicks](Self::kick), which the caller has to do, and soon.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Sends what is queued: now and from this thread, unless the driver is about to.
    pub fn kick(&self) {
        gathered::settle_of(self);
        self.held.store(false, Ordering::Release);
        if !self.hot.swap(true, Ordering::AcqRel) && !self.write_all() {
            self.driver.wake();
        }
    }

    /// Writes what is queued, as the one who made it hot. False if there is something left to do for the driver.
    fn write_all(&self) -> bool {
        // Once more for what others queue meanwhile.
        for _ in 0..2 {
            let Some(mut writer) = self.writer.try_lock() else { return false };
            // A broken connection is found by the driver, too, and handled there.
            let done = matches!(self.drain(&mut writer), Ok(Drained::All));
            drop(writer);
            if !done {
                return false;
            }
            self.hot.store(false, Ordering::SeqCst);
            let session = self.session.lock();
            let (queued, told) = (session.has_transmit(), session.has_event());
            drop(session);
            if told {
                return false;
            }
            // Who queued that may have seen that it was hot.
            if !queued || self.hot.swap(true, Ordering::AcqRel) {
                return true;
            }
        }
        false
    }

    fn drain(&self, writer: &mut Writer) -> io::Result<Drained> {
        let before = writer.written_bytes();
        let done = writer.drain(&self.session)?;
        if writer.written_bytes() != before {
            let since_opened = now().saturating_duration_since(self.opened).as_nanos();
            self.written_ns.store(u64::try_from(since_opened).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        // What the wire does not take is not offered again with every message.
        let left_bytes = if done == Drained::All { 0 } else { self.session.lock().queued_bytes() };
        self.early_at.store(left_bytes + EARLY_BYTES, Ordering::Relaxed);
        Ok(done)
    }

    /// The session to which the peer may [come back](Self::come_back), if it dialled and can.
    pub fn session(&self) -> Option<u64> {
        self.resumable
    }

    /// The peer has dialled again, and says where it stands: the session goes on over the new connection.
    ///
    /// # Errors
    /// With the connection handed back: the link has ended, or a later attempt of the peer was here before.
    pub fn come_back(&self, returned: Returned) -> Result<(), Returned> {
        let mut back = self.back.lock();
        let known = self.resumable == Some(returned.resume.session) && returned.resume.attempt > back.attempt;
        if !known || self.ending.load(Ordering::Acquire) {
            return Err(returned);
        }
        back.attempt = returned.resume.attempt;
        let overtaken = back.returned.replace(returned);
        drop(back);
        drop(overtaken);
        self.driver.wake();
        Ok(())
    }

    /// Ends the link: whatever waits fails now with `reason`.
    pub fn close(&self, reason: &str) {
        self.end(reason, false);
    }

    fn end(&self, reason: &str, quarantined: bool) {
        let mut events = Vec::new();
        {
            let mut session = self.session.lock();
            match quarantined {
                true => session.quarantine(&self.peer, reason),
                false => session.close(&self.peer, reason),
            }
            while let Some(event) = session.poll_event() {
                events.push(event);
            }
        }
        events.into_iter().for_each(deliver);
        self.state.send_if_modified(|state| {
            if matches!(state, State::Closed(_)) {
                return false;
            }
            *state = State::Closed(LinkClosed { peer: self.peer.clone(), reason: reason.to_owned(), quarantined });
            true
        });
        self.ending.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Says goodbye to the peer, as far as the socket takes it at once, and ends the link.
    pub fn goodbye(&self, reason: &str) {
        gathered::settle_of(self);
        self.session.lock().goodbye(reason);
        let _ = self.drain(&mut self.writer.lock());
        self.close(reason);
    }

    /// Says to the peer that this side is about to end on purpose, as far as it [understands](Hello::GO_AWAY) that: it starts
    /// nothing new here. Calls in progress go on in both directions, until the link ends.
    pub fn go_away(&self, reason: &str) {
        self.session.lock().go_away(reason);
        self.kick();
    }

    /// Why the peer is about to end, if it has said so: calls to its actors fail with [`CallError::Unreachable`], which says
    /// that they were not sent.
    pub fn peer_leaves(&self) -> Option<String> {
        self.session.lock().peer_leaves().map(str::to_owned)
    }

    /// As [`goodbye`](Self::goodbye), since it will never be known what became of what was under way.
    pub fn quarantine(&self, reason: &str) {
        self.session.lock().goodbye(reason);
        let _ = self.drain(&mut self.writer.lock());
        self.end(reason, true);
    }

    /// Waits for the peer's hello.
    ///
    /// # Errors
    /// [`LinkClosed`] if the connection ends first. Cancel-safe.
    pub async fn opened(&self) -> Result<Hello, LinkClosed> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Opening)).await;
        match state.as_deref() {
            Ok(State::Open(hello)) => Ok(hello.clone()),
            Ok(State::Closed(closed)) => Err(closed.clone()),
            _ => Err(self.dropped()),
        }
    }

    /// Waits for the end of the link. Cancel-safe.
    pub async fn closed(&self) -> LinkClosed {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        match state.as_deref() {
            Ok(State::Closed(closed)) => closed.clone(),
            _ => self.dropped(),
        }
    }

    fn dropped(&self) -> LinkClosed {
        LinkClosed { peer: self.peer.clone(), reason: "dropped".to_owned(), quarantined: false }
    }

    /// How the link ended, once it has.
    pub fn end_of(&self) -> Option<LinkClosed> {
        match &*self.state.borrow() {
            State::Closed(closed) => Some(closed.clone()),
            _ => None,
        }
    }

    /// Bytes that are to be written, of large messages that are half sent, and of the peer's that have not come completely. What a
    /// thread has [gathered](gather) counts for one.
    pub fn bytes_under_way(&self) -> usize {
        // Before the session is looked at, which takes over what threads have gathered.
        let gathered_by = self.gathered_by.load(Ordering::SeqCst);
        let session = self.session.lock();
        gathered_by + session.queued_bytes() + session.unsent_large_bytes() + session.reassembly_bytes()
    }

    /// Asks that wait for their answer.
    pub fn pending(&self) -> usize {
        self.session.lock().pending()
    }

    /// When anything was last heard from the peer on this link.
    pub fn heard(&self) -> Instant {
        self.session.lock().heard()
    }
}

impl<R> std::fmt::Debug for Link<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.peer)
    }
}

fn deliver<R: Waiter>(event: Event<R>) {
    match event {
        Event::Accepted { to } => to.accepted(),
        Event::Failed { to, error } => to.answer(Err(error)),
    }
}
