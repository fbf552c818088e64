//! A session with its connection: senders write from their own thread, the [`Driver`] reads where it is polled.
//!
//! Waking another thread costs some 20 us, a write some 5. So a sender on another thread writes at once while the link is
//! quiet. Beside the driver, or on a link that is busy already, senders only append and wake the driver, which writes
//! all of that together: a small write of its own would wake the peer early, for one message instead of many.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use mobula_core::codec::EncodeError;
use mobula_core::frame::{self, FrameError, MessageIndex};
use mobula_core::{ActorId, CallError, Deadline, NodeId, RequestId, limits};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use crate::session::{Accepted, Call, Event, Hello, Received, Session, SessionConfig, SessionError};
use crate::wire::{Wire, WireWrite};

/// Now, as the runtime sees it: virtual under a paused or simulated clock. The only clock of this crate.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Whoever waits for an answer, or for a place in the out-queue.
pub trait Waiter: Send + 'static {
    /// The answer, or why there is none. Called on the thread that reads the connection.
    fn answer(self, answer: Result<&[u8], CallError>);
    /// The tell that stood in line is on its way.
    fn accepted(self);
}

/// A message for an actor of this node.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Present if the sender wants an answer.
    pub request: Option<RequestId>,
    /// The actor.
    pub target: ActorId,
    /// The message's type, as [defined](Inbound::define) on this connection.
    pub message: MessageIndex,
    /// After this, nobody waits.
    pub deadline: Deadline,
    /// The message, in the read buffer.
    pub payload: &'a [u8],
}

/// What one connection's incoming requests are handed to, on the thread that reads it.
pub trait Inbound<R: Waiter>: Send + 'static {
    /// The peer introduces a message type; indices count up from 0.
    fn define(&mut self, index: MessageIndex, name: &str, schema: u64);
    /// A message has come.
    ///
    /// # Errors
    /// [`SessionError`] closes the connection; a message that is merely refused is answered instead.
    fn request(&mut self, link: &Arc<Link<R>>, request: Request<'_>) -> Result<(), SessionError>;
    /// The sender of a request no longer waits for it.
    fn cancel(&mut self, request: RequestId);
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
}

/// 20 us, about what waking a thread takes: a link that was not written for so long is quiet.
const QUIET_NS: u64 = 20_000;

/// One connection to one peer, to be shared by all who send to it.
pub struct Link<R> {
    peer: NodeId,
    session: Mutex<Session<R>>,
    writer: Mutex<Writer>,
    /// Somebody has written or is about to, and the driver will come round: append only.
    hot: AtomicBool,
    ending: AtomicBool,
    opened: Instant,
    /// When something was last written, in nanoseconds since `opened`.
    written_ns: AtomicU64,
    driver: AtomicWaker,
    /// The thread that polls the driver.
    home: OnceLock<ThreadId>,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
enum State {
    Opening,
    Open(Hello),
    Closed(LinkClosed),
}

struct Writer {
    wire: Box<dyn WireWrite>,
    unsent: BytesMut,
    written_bytes: u64,
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
        let session = Session::new(config, hello, Some(peer.uid), now());
        let link = Arc::new(Link {
            peer,
            session: Mutex::new(session),
            writer: Mutex::new(Writer { wire: wire.write, unsent: BytesMut::new(), written_bytes: 0 }),
            hot: AtomicBool::new(true),
            ending: AtomicBool::new(false),
            opened: now(),
            written_ns: AtomicU64::new(0),
            driver: AtomicWaker::new(),
            home: OnceLock::new(),
            state: watch::Sender::new(State::Opening),
        });
        let driver = Driver {
            link: Arc::clone(&link),
            read: wire.read,
            buffer: BytesMut::new(),
            inbound,
            sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(now()))),
            armed: None,
            broken: None,
            opened: false,
            done: false,
        };
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
        let now = now();
        let mut session = self.session.lock();
        let (request, _) = session.ask(call, waiter, now, body)?;
        drop(session);
        self.sent(now);
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
        let now = now();
        let accepted = self.session.lock().tell(call, waiter, now, body)?;
        self.sent(now);
        Ok(accepted)
    }

    /// True if a message to `target` would not have to stand in line.
    pub fn has_credit(&self, target: ActorId) -> bool {
        self.session.lock().has_credit(target)
    }

    /// Gives an ask up; its waiter comes back unanswered, unless the answer was there first.
    pub fn cancel(&self, request: RequestId) -> Option<R> {
        let waiter = self.session.lock().cancel(request);
        if waiter.is_some() {
            self.kick();
        }
        waiter
    }

    /// Queues the answer to a request; [`kick`](Self::kick) sends it. A result that cannot be written becomes a failure.
    pub fn reply(&self, request: RequestId, body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) {
        let mut session = self.session.lock();
        if let Err(error) = session.reply(request, body) {
            session.fail(request, &error);
        }
    }

    /// Queues the failure of a request; [`kick`](Self::kick) sends it.
    pub fn fail(&self, request: RequestId, error: &CallError) {
        self.session.lock().fail(request, error);
    }

    /// Queues credit for messages that `target` has taken up; [`kick`](Self::kick) sends it.
    pub fn grant(&self, target: ActorId, count: u32) {
        self.session.lock().grant(target, count);
    }

    /// Something was queued by a sender at `now`.
    fn sent(&self, now: Instant) {
        // Beside the driver there is no thread to wake: it comes round as soon as the sender awaits anything.
        if !self.is_home() && self.is_quiet(now) {
            self.kick();
        } else if !self.hot.swap(true, Ordering::AcqRel) {
            self.driver.wake();
        }
    }

    /// True on the thread that polls the driver.
    fn is_home(&self) -> bool {
        self.home.get().is_some_and(|home| *home == std::thread::current().id())
    }

    /// True if nothing was written for as long as it takes to wake a thread.
    fn is_quiet(&self, now: Instant) -> bool {
        let since_opened = u64::try_from(now.saturating_duration_since(self.opened).as_nanos()).unwrap_or(u64::MAX);
        since_opened.saturating_sub(self.written_ns.load(Ordering::Relaxed)) > QUIET_NS
    }

    /// Sends what is queued: now and from this thread, unless the driver is about to.
    pub fn kick(&self) {
        if self.hot.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(mut writer) = self.writer.try_lock() {
            // A broken connection is found by the driver, too, and handled there.
            let _ = self.drain(&mut writer);
        }
        self.driver.wake();
    }

    fn drain(&self, writer: &mut Writer) -> io::Result<bool> {
        let before = writer.written_bytes;
        let done = writer.drain(&self.session)?;
        if writer.written_bytes != before {
            let since_opened = now().saturating_duration_since(self.opened).as_nanos();
            self.written_ns.store(u64::try_from(since_opened).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(done)
    }

    /// Ends the link: whatever waits fails now with `reason`.
    pub fn close(&self, reason: &str) {
        let mut events = Vec::new();
        {
            let mut session = self.session.lock();
            session.close(&self.peer, reason);
            while let Some(event) = session.poll_event() {
                events.push(event);
            }
        }
        events.into_iter().for_each(deliver);
        self.state.send_if_modified(|state| {
            if matches!(state, State::Closed(_)) {
                return false;
            }
            *state = State::Closed(LinkClosed { peer: self.peer.clone(), reason: reason.to_owned() });
            true
        });
        self.ending.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Says goodbye to the peer, as far as the socket takes it at once, and ends the link.
    pub fn goodbye(&self, reason: &str) {
        self.session.lock().goodbye(reason);
        let _ = self.drain(&mut self.writer.lock());
        self.close(reason);
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
            _ => Err(LinkClosed { peer: self.peer.clone(), reason: "dropped".to_owned() }),
        }
    }

    /// Waits for the end of the link. Cancel-safe.
    pub async fn closed(&self) -> LinkClosed {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        match state.as_deref() {
            Ok(State::Closed(closed)) => closed.clone(),
            _ => LinkClosed { peer: self.peer.clone(), reason: "dropped".to_owned() },
        }
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

impl Writer {
    /// Writes until nothing is queued (true) or the wire takes no more (false).
    fn drain<R>(&mut self, session: &Mutex<Session<R>>) -> io::Result<bool> {
        let mut written = 0;
        loop {
            if self.unsent.is_empty() {
                let mut session = session.lock();
                if written > 0 {
                    session.handle_written(written, now());
                }
                session.take_transmit_into(&mut self.unsent);
                written = 0;
                if self.unsent.is_empty() {
                    return Ok(true);
                }
            }
            match self.wire.try_write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.unsent.advance(count);
                    written += count;
                    self.written_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if written > 0 {
                        session.lock().handle_written(written, now());
                    }
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads a link's connection, writes what others left queued, and keeps its timers. A future that ends with the link.
pub struct Driver<R: Waiter, I: Inbound<R>> {
    link: Arc<Link<R>>,
    read: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    inbound: I,
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
    opened: bool,
    done: bool,
}

/// What one read asks for, and what the buffer falls back to after a large frame.
const READ_BYTES: usize = 64 * 1024;
/// How long a peer is listened to that cannot be written to. The end of its bytes comes with the failure, or soon.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// Reads of one turn; after them the neighbours on the thread get theirs.
const READS_PER_TURN: usize = 4;

#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("connection closed by the peer")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl<R: Waiter, I: Inbound<R>> Driver<R, I> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.broken.is_none() {
            match self.work(cx) {
                Err(End::Io(error)) => self.broken = Some(error),
                result => return result,
            }
            self.sleep.as_mut().reset(tokio::time::Instant::from_std(now() + LAST_WORDS_DEADLINE));
        }
        self.last_words(cx)
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.flush(cx)?;
        self.timers(cx)?;
        for _ in 0..READS_PER_TURN {
            match self.read(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(()),
            }
            // Pongs and credit answers of this batch.
            self.flush(cx)?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.link.hot.store(false, Ordering::SeqCst);
        let mut writer = self.link.writer.lock();
        while !self.link.drain(&mut writer)? {
            match writer.wire.poll_writable(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => break,
            }
        }
        drop(writer);
        self.events();
        Ok(())
    }

    fn events(&self) {
        loop {
            // The lock must not be held while a waiter is told: waking it may send on this very link.
            let event = self.link.session.lock().poll_event();
            let Some(event) = event else { break };
            deliver(event);
        }
    }

    fn timers(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let next = self.link.session.lock().poll_timeout();
            let Some(at) = next else { return Ok(()) };
            if self.armed != Some(at) {
                self.sleep.as_mut().reset(tokio::time::Instant::from_std(at));
                self.armed = Some(at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.armed = None;
            self.link.session.lock().handle_timeout(now())?;
            self.flush(cx)?;
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
            self.buffer.reserve(READ_BYTES);
        }
        let count = ready!(poll_read_buf(Pin::new(&mut self.read), cx, &mut self.buffer))?;
        if count == 0 {
            return Poll::Ready(Err(match self.buffer.len() {
                0 => End::Eof,
                have => SessionError::from(FrameError::Cut { have }).into(),
            }));
        }
        let held_bytes = self.buffer.capacity();
        let result = self.receive();
        if self.buffer.is_empty() && held_bytes > 16 * READ_BYTES {
            self.buffer = BytesMut::new();
        }
        Poll::Ready(result)
    }

    fn receive(&mut self) -> Result<(), End> {
        let now = now();
        let mut batch = Vec::new();
        let mut used = 0;
        let mut result = Ok(());
        {
            let mut session = self.link.session.lock();
            loop {
                let received = match frame::decode(&self.buffer[used..], limits::FRAME_BYTES_MAX) {
                    Ok(Some((frame, length))) => {
                        used += length;
                        session.receive(frame, now)
                    }
                    Ok(None) => break,
                    Err(error) => Err(error.into()),
                };
                match received {
                    Ok(Received::Nothing) => {}
                    Ok(received) => batch.push(received),
                    Err(error) => {
                        result = Err(error.into());
                        break;
                    }
                }
            }
            if !self.opened
                && let Some(hello) = session.peer()
            {
                self.opened = true;
                let hello = hello.clone();
                self.link.state.send_if_modified(|state| {
                    let opening = matches!(state, State::Opening);
                    if opening {
                        *state = State::Open(hello);
                    }
                    opening
                });
            }
        }
        let mut violation = Ok(());
        for received in batch {
            match received {
                Received::Nothing => {}
                Received::Reply { to, payload } => to.answer(Ok(payload)),
                Received::Failure { to, error } => to.answer(Err(error)),
                Received::Define { index, name, schema } => self.inbound.define(index, &name, schema),
                Received::Cancel { request } => self.inbound.cancel(request),
                Received::Request { request, target, message, deadline, payload } => {
                    // After a violation nothing is accepted, but answers still reach those who wait for them.
                    if violation.is_ok() {
                        let request = Request { request, target, message, deadline, payload };
                        violation = self.inbound.request(&self.link, request);
                    }
                }
            }
        }
        self.buffer.advance(used);
        violation?;
        result
    }

    /// A write has failed. What the peer sent before, perhaps answers and a goodbye, is still on its way to be read.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..READS_PER_TURN {
            let over = self.sleep.as_mut().poll(cx).is_ready();
            match self.read(cx) {
                Poll::Ready(Ok(())) if !over => {}
                Poll::Pending if !over => return Ok(()),
                Poll::Ready(Err(End::Session(error)))
                    if !matches!(error, SessionError::Frame(FrameError::Cut { .. })) =>
                {
                    return Err(error.into());
                }
                _ => return Err(self.broken.take().map_or(End::Eof, End::Io)),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn finish(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.done, true) {
            self.link.close(reason);
            // Others still hold the link; the socket has to close all the same.
            self.link.writer.lock().wire = Box::new(Ended);
            let state = self.link.state.borrow().clone();
            if let State::Closed(closed) = state {
                self.inbound.closed(&self.link, &closed.reason);
            }
        }
    }
}

impl<R: Waiter, I: Inbound<R> + Unpin> Future for Driver<R, I> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.link.driver.register(cx.waker());
        let result = if this.link.ending.load(Ordering::Acquire) { Ok(()) } else { this.turn(cx) };
        if let Err(end) = result {
            if let End::Session(error) = &end
                && !matches!(error, SessionError::Goodbye { .. })
            {
                // So that the peer's log names the rule that it broke.
                this.link.goodbye(&end.to_string());
            }
            tracing::debug!(peer = %this.link.peer, reason = %end, "connection ended");
            this.finish(&end.to_string());
            return Poll::Ready(());
        }
        if this.link.ending.load(Ordering::Acquire) {
            this.finish("closed");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<R: Waiter, I: Inbound<R>> Drop for Driver<R, I> {
    fn drop(&mut self) {
        self.finish("the thread that read the connection ended");
    }
}

struct Ended;

impl WireWrite for Ended {
    fn try_write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn deliver<R: Waiter>(event: Event<R>) {
    match event {
        Event::Accepted { to } => to.accepted(),
        Event::Failed { to, error } => to.answer(Err(error)),
    }
}
