//! The reading half of a link, its timers, and the writing of what others left queued.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mobula_core::frame::{self, Frame, FrameError, Kind};
use mobula_core::{CallError, limits};
use tokio::io::AsyncRead;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::beside::Beside;
use super::writer::Drained;
use super::{Inbound, Link, Request, State, Waiter, deliver, now};
use crate::resume::{Absence, Arrived, Found, Next, Resume, Returned, Suspicion, WayBack};
use crate::session::{Payload, Received, SessionError};

/// Reads a link's connection, writes what others left queued, and keeps its timers. A future that ends with the link.
pub struct Driver<R: Waiter, I: Inbound<R>> {
    link: Arc<Link<R>>,
    read: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    /// Answers of the buffer and where they stand, to be handed on without the session's lock. Empty in between.
    answers: Vec<(R, Range<usize>)>,
    inbound: I,
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
    /// The last read has brought much, so the next one will.
    busy: bool,
    opened: bool,
    done: bool,
    arrived: Arrived,
    /// The peer expects acks.
    acks: bool,
    way_back: Option<WayBack>,
    /// There is no connection now.
    away: Option<Away>,
    /// There is one that may be mute.
    beside: Option<Beside>,
    /// Attempts to restore a connection, over the session's life.
    attempts: u32,
}

/// The time without a connection.
struct Away {
    absence: Absence,
    /// How the connection broke, and what became of the latest attempt to restore it.
    reason: String,
    latest: String,
    looking: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
    sleep: Pin<Box<Sleep>>,
}

/// What one read asks for, and what the buffer falls back to after a large frame.
const READ_BYTES: usize = 64 * 1024;
/// What it asks for while every read fills its buffer: fewer system calls, and fewer frames that are cut at a buffer's end and moved.
const READ_BYTES_BUSY: usize = 256 * 1024;
/// How long a peer is listened to that cannot be written to. The end of its bytes comes with the failure, or soon.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// Reads of one turn; after them the neighbours on the thread get theirs.
const READS_PER_TURN: usize = 4;
/// Frames that the session takes in before they are handed on.
const FRAMES_PER_LOCK: usize = 64;

#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("connection closed by the peer")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection broke, and the peer's process has ended.
    #[error("{0}")]
    Dead(String),
    #[error("{0}")]
    NotRestored(String),
    #[error("{0}")]
    Quarantined(String),
}

impl End {
    /// True if the connection broke under the session, which may go on over another.
    fn is_break(&self) -> bool {
        matches!(self, End::Eof | End::Io(_) | End::Session(SessionError::Frame(FrameError::Cut { .. })))
    }
}

impl<R: Waiter, I: Inbound<R>> Driver<R, I> {
    pub(super) fn new(
        link: Arc<Link<R>>,
        read: Box<dyn AsyncRead + Send + Unpin>,
        way_back: Option<WayBack>,
        inbound: I,
    ) -> Self {
        let config = *link.session.lock().config();
        let acks = config.version >= 3;
        let beside = Beside::new(&config, way_back.as_ref(), now());
        Driver {
            link,
            read,
            buffer: BytesMut::new(),
            answers: Vec::new(),
            inbound,
            sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(now()))),
            armed: None,
            broken: None,
            busy: false,
            opened: false,
            done: false,
            arrived: Arrived::default(),
            acks,
            way_back,
            away: None,
            beside,
            attempts: 0,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // Taken first, so that the lock is not held.
        let returned = self.link.back.lock().returned.take();
        if let Some(returned) = returned {
            self.come_back(returned, true)?;
        }
        loop {
            if self.away.is_some() {
                match self.wait(cx)? {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Ok(()),
                }
            }
            match self.converse(cx) {
                Err(end) if end.is_break() && self.way_back.is_some() => self.go_away(&end),
                result => return result,
            }
        }
    }

    /// What a driver does while there is a connection.
    fn converse(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.broken.is_none() {
            match self.work(cx) {
                Err(End::Io(error)) => self.broken = Some(error),
                result => return result,
            }
            self.sleep.as_mut().reset(tokio::time::Instant::from_std(now() + LAST_WORDS_DEADLINE));
        }
        self.last_words(cx)
    }

    /// The connection has broken. From here on the session goes on without one.
    fn go_away(&mut self, end: &End) {
        let Some(way_back) = &self.way_back else { return };
        tracing::debug!(peer = %self.link.peer, reason = %end, "connection broken");
        let looks = way_back.seek.can_look();
        let window = match looks {
            true => self.link.session.lock().config().down_after,
            false => limits::RESUME_WINDOW_BLIND,
        };
        let now = now();
        let seed = way_back.session ^ u64::from(self.attempts);
        self.away = Some(Away {
            absence: Absence::begin(now, window, looks, seed),
            reason: end.to_string(),
            latest: "nobody came back".to_owned(),
            looking: None,
            sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(now))),
        });
        self.link.writer.lock().pause();
        self.read = Box::new(tokio::io::empty());
        // The peer sends what was cut off again from where the frame begins.
        self.buffer.clear();
        self.broken = None;
        self.armed = None;
        if let Some(beside) = &mut self.beside {
            beside.stop();
        }
    }

    /// Looks for the peer and waits for it; ready when it is back.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        // Deadlines and heartbeats pass as ever.
        self.flush(cx)?;
        self.timers(cx)?;
        loop {
            let (Some(away), Some(way_back)) = (&mut self.away, &mut self.way_back) else {
                return Ok(Poll::Ready(()));
            };
            if let Some(looking) = &mut away.looking
                && let Poll::Ready(found) = looking.as_mut().poll(cx)
            {
                away.looking = None;
                match found {
                    Found::Back(returned) => {
                        self.come_back(returned, false)?;
                        continue;
                    }
                    Found::Dead { reason } => return Err(End::Dead(format!("{}: {reason}", away.reason))),
                    Found::Refused { reason } => {
                        return Err(End::Quarantined(format!("the peer does not resume the session: {reason}")));
                    }
                    Found::NotYet { reason } => {
                        away.latest = reason;
                        away.absence.looked_in_vain(now());
                    }
                }
            }
            let at = match away.absence.next(now()) {
                Next::GiveUp { waited } => {
                    let Away { reason, latest, .. } = away;
                    let waited_ms = waited.as_millis();
                    return Err(End::NotRestored(format!("{reason}; not restored within {waited_ms} ms: {latest}")));
                }
                Next::Look if away.looking.is_none() => {
                    self.attempts += 1;
                    let (session, attempt) = (way_back.session, self.attempts);
                    let resume = Resume { session, received: self.arrived.received(), attempt };
                    away.looking = Some(way_back.seek.look(resume));
                    continue;
                }
                Next::Look => away.absence.until(),
                Next::Wait(at) => at,
            };
            away.sleep.as_mut().reset(tokio::time::Instant::from_std(at));
            if away.sleep.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Goes on over a new connection. If the peer made it, it is to be told where this side stands.
    fn come_back(&mut self, returned: Returned, answer: bool) -> Result<(), End> {
        let Returned { wire, resume } = returned;
        let wire = match wire() {
            Ok(wire) => wire,
            Err(error) => {
                // There will be another.
                match &mut self.away {
                    Some(away) => away.absence.looked_in_vain(now()),
                    None => self.go_away(&End::Io(error)),
                }
                return Ok(());
            }
        };
        let answer = answer.then(|| Resume { received: self.arrived.received(), ..resume });
        let resumed = self.link.writer.lock().resume(wire.write, resume.received, answer);
        if let Err(error) = resumed {
            let reason = error.to_string();
            self.link.writer.lock().refuse(&reason);
            return Err(End::Quarantined(reason));
        }
        tracing::debug!(peer = %self.link.peer, attempt = resume.attempt, "connection restored");
        self.read = wire.read;
        self.buffer.clear();
        self.arrived.told();
        (self.away, self.broken, self.armed) = (None, None, None);
        if let Some(beside) = &mut self.beside {
            beside.begin(now());
        }
        Ok(())
    }

    /// A peer that does not answer is asked, and then looked for.
    fn suspect(&mut self) {
        let (Some(beside), Some(way_back)) = (&mut self.beside, &mut self.way_back) else { return };
        match beside.step(now()) {
            Suspicion::None => {}
            Suspicion::Ask => self.link.session.lock().ping(),
            Suspicion::Look => {
                tracing::debug!(peer = %self.link.peer, "no answer comes over the connection");
                self.attempts += 1;
                let (session, attempt) = (way_back.session, self.attempts);
                beside.look(way_back, Resume { session, received: self.arrived.received(), attempt });
            }
        }
    }

    /// Sees what came of looking for a peer whose connection is mute. True if there is another connection now.
    fn look_beside(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.beside.as_mut().and_then(|beside| beside.poll(cx, now())) {
            None => Ok(false),
            // When to look again.
            Some(Found::NotYet { .. }) => self.timers(cx).map(|()| false),
            Some(Found::Back(returned)) => self.come_back(returned, false).map(|()| true),
            Some(Found::Dead { reason }) => Err(End::Dead(format!("no answer comes any more: {reason}"))),
            Some(Found::Refused { reason }) => {
                Err(End::Quarantined(format!("the peer does not resume the session: {reason}")))
            }
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.flush(cx)?;
        self.timers(cx)?;
        while self.look_beside(cx)? {
            self.flush(cx)?;
            self.timers(cx)?;
        }
        if self.beside.as_ref().is_some_and(Beside::holds) {
            return Ok(());
        }
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
        if self.link.held.load(Ordering::Acquire) {
            self.events();
            return Ok(());
        }
        let mut writer = self.link.writer.lock();
        loop {
            match self.link.drain(&mut writer)? {
                Drained::All => break,
                Drained::Paused => {
                    cx.waker().wake_by_ref();
                    break;
                }
                Drained::Full => match writer.poll_writable(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => break,
                },
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
            let doubt = self.beside.as_ref().and_then(Beside::next);
            let Some(at) = next.into_iter().chain(doubt).min() else { return Ok(()) };
            if self.armed != Some(at) {
                self.sleep.as_mut().reset(tokio::time::Instant::from_std(at));
                self.armed = Some(at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.armed = None;
            self.link.session.lock().handle_timeout(now())?;
            self.suspect();
            self.flush(cx)?;
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let asked = if self.busy { READ_BYTES_BUSY } else { READ_BYTES };
        if self.buffer.capacity() - self.buffer.len() < asked / 4 {
            self.buffer.reserve(asked);
        }
        let count = ready!(poll_read_buf(Pin::new(&mut self.read), cx, &mut self.buffer))?;
        self.busy = count >= READ_BYTES / 2;
        if count == 0 {
            return Poll::Ready(Err(match self.buffer.len() {
                0 => End::Eof,
                have => SessionError::from(FrameError::Cut { have }).into(),
            }));
        }
        let held_bytes = self.buffer.capacity();
        let result = self.receive();
        if self.buffer.is_empty() && (held_bytes > 16 * READ_BYTES || (!self.busy && held_bytes > 2 * READ_BYTES)) {
            self.buffer = BytesMut::new();
        }
        Poll::Ready(result)
    }

    fn receive(&mut self) -> Result<(), End> {
        let now = now();
        let mut answers = std::mem::take(&mut self.answers);
        let mut used = 0;
        let (mut result, mut violation) = (Ok(()), Ok(()));
        let mut acked = None;
        let (mut heartbeat, mut answered) = (false, false);
        // Of how many types the session knows requests, once it does.
        let mut types = None;
        let mut more = true;
        while more {
            // Requests need nothing else of the session, and go on without its lock.
            while let Some(types) = types
                && let Some((request, length)) = plain_request(&self.buffer[used..], types, now)
            {
                if self.link.ending.load(Ordering::Relaxed) {
                    break;
                }
                used += length;
                self.arrived.count_bytes(length);
                if violation.is_ok() {
                    violation = self.inbound.request(&self.link, request);
                }
            }
            let (mut opened, mut other) = (None, None);
            {
                let mut session = self.link.session.lock();
                if used > 0 {
                    session.note_heard(now);
                }
                types = session.types_of_requests();
                // Few at a time: they lie close together, and the session is locked for a moment only.
                while answers.len() < FRAMES_PER_LOCK {
                    let received = match frame::decode(&self.buffer[used..], limits::FRAME_BYTES_MAX) {
                        Ok(Some((Frame::Reply { request, payload }, length))) if types.is_some() => {
                            used += length;
                            self.arrived.count_bytes(length);
                            if let Some(to) = session.answered(request, now) {
                                answers.push((to, used - payload.len()..used));
                            }
                            continue;
                        }
                        Ok(Some((frame, length))) => {
                            used += length;
                            self.arrived.count(&frame, length);
                            heartbeat |= matches!(frame, Frame::Ping { .. });
                            answered |= matches!(frame, Frame::Pong { .. } | Frame::Ack { .. });
                            session.receive(frame, now)
                        }
                        Ok(None) => {
                            more = false;
                            break;
                        }
                        Err(error) => Err(error.into()),
                    };
                    match received {
                        Ok(Received::Nothing) => {}
                        Ok(Received::Ack { received }) => acked = Some(received),
                        Ok(received) => {
                            other = Some(received);
                            break;
                        }
                        Err(error) => {
                            result = Err(End::from(error));
                            more = false;
                            break;
                        }
                    }
                }
                types = session.types_of_requests();
                if !self.opened
                    && let Some(hello) = session.peer()
                {
                    self.opened = true;
                    opened = Some(hello.clone());
                    self.link.pack_above.store(session.packs_above().unwrap_or(usize::MAX), Ordering::Relaxed);
                }
            }
            if let Some(hello) = opened {
                self.inbound.opened(&self.link, &hello);
                self.link.state.send_if_modified(|state| {
                    let opening = matches!(state, State::Opening);
                    if opening {
                        *state = State::Open(hello);
                    }
                    opening
                });
                if self.link.ending.load(Ordering::Acquire) {
                    // The peer is not wanted, and so is nothing that it sent.
                    return Ok(());
                }
            }
            for (to, payload) in answers.drain(..) {
                to.answer(Ok(&self.buffer[payload]));
            }
            if let Some(received) = other {
                hand_over(&self.link, &mut self.inbound, received, &mut violation);
            }
        }
        self.answers = answers;
        self.buffer.advance(used);
        if used > 0
            && let Some(beside) = &mut self.beside
        {
            beside.heard(answered, now);
        }
        let ack = if self.acks { self.arrived.ack(heartbeat) } else { None };
        if acked.is_some() || ack.is_some() {
            let mut writer = self.link.writer.lock();
            if let Some(received) = ack {
                writer.ack(received);
            }
            if let Some(received) = acked
                && let Err(error) = writer.acked(received)
            {
                result = Err(SessionError::from(error).into());
            }
        }
        violation?;
        result
    }

    /// A write has failed. What the peer sent before, perhaps answers and a goodbye, is still on its way to be read.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..READS_PER_TURN {
            let over = self.sleep.as_mut().poll(cx).is_ready();
            match self.read(cx) {
                Poll::Ready(Ok(())) if !over => {}
                // With a way back, whatever does not come now is sent again.
                Poll::Pending if !over && self.way_back.is_none() => return Ok(()),
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

    fn finish(&mut self, reason: &str, quarantined: bool) {
        if !std::mem::replace(&mut self.done, true) {
            self.link.end(reason, quarantined);
            // A connection that came too late.
            let returned = self.link.back.lock().returned.take();
            drop(returned);
            self.away = None;
            self.link.writer.lock().end();
            let state = self.link.state.borrow().clone();
            if let State::Closed(closed) = state {
                self.inbound.closed(&self.link, &closed.reason);
            }
        }
    }
}

/// The next frame, if it is a message of one of the first `types` of the peer, and its length.
#[inline]
fn plain_request(buffer: &[u8], types: u32, now: Instant) -> Option<(Request<'_>, usize)> {
    let kind = buffer.get(4)?;
    if *kind != Kind::Ask as u8 && *kind != Kind::Tell as u8 {
        return None;
    }
    // What is wrong with a frame, the session says.
    let (frame, length) = frame::decode(buffer, limits::FRAME_BYTES_MAX).ok()??;
    let (request, target, message, budget, payload) = match frame {
        Frame::Ask { request, target, message, budget, payload } => (Some(request), target, message, budget, payload),
        Frame::Tell { target, message, budget, payload } => (None, target, message, budget, payload),
        _ => return None,
    };
    let (deadline, payload) = (budget.deadline(now), Payload::Whole(payload));
    let request = Request { request, post: false, target, message, deadline, payload };
    (message.0 < types).then_some((request, length))
}

/// Hands on what has come. After a violation nothing is accepted, but answers still reach those who wait for them.
fn hand_over<R: Waiter, I: Inbound<R>>(
    link: &Arc<Link<R>>,
    inbound: &mut I,
    received: Received<'_, R>,
    violation: &mut Result<(), SessionError>,
) {
    match received {
        Received::Nothing | Received::Ack { .. } => {}
        Received::Reply { to, payload } => match payload.unpacked() {
            Ok(payload) => to.answer(Ok(&payload)),
            Err(error) => {
                to.answer(Err(CallError::Decode { reason: error.to_string(), reply: true }));
                if violation.is_ok() {
                    *violation = Err(error.into());
                }
            }
        },
        Received::Failure { to, error } => to.answer(Err(error)),
        Received::Define { index, name, schema } => inbound.define(index, &name, schema),
        Received::Cancel { request } => inbound.cancel(request),
        Received::Undelivered { target, message, error } => inbound.undelivered(link, target, message, error),
        Received::Item { .. } | Received::More { .. } | Received::Request { .. } if violation.is_err() => {}
        Received::Item { to, payload } => {
            *violation = payload.unpacked().map_err(Into::into).and_then(|payload| to.item(&payload));
        }
        Received::More { request, count } => *violation = inbound.more(link, request, count),
        Received::Request { request, post, target, message, deadline, payload } => {
            *violation = payload.unpacked().map_err(Into::into).and_then(|payload| {
                inbound.request(link, Request { request, post, target, message, deadline, payload })
            });
        }
    }
}

impl<R: Waiter + Unpin, I: Inbound<R> + Unpin> Future for Driver<R, I> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.link.driver.register(cx.waker());
        this.link.home.get_or_init(super::this_thread);
        let result = if this.link.ending.load(Ordering::Acquire) { Ok(()) } else { this.turn(cx) };
        if let Err(end) = result {
            if let End::Session(error) = &end
                && !matches!(error, SessionError::Goodbye { .. })
            {
                // So that the peer's log names the rule that it broke.
                this.link.goodbye(&end.to_string());
            }
            tracing::debug!(peer = %this.link.peer, reason = %end, "connection ended");
            this.finish(&end.to_string(), matches!(end, End::Quarantined(_)));
            return Poll::Ready(());
        }
        if this.link.ending.load(Ordering::Acquire) {
            this.finish("closed", false);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<R: Waiter, I: Inbound<R>> Drop for Driver<R, I> {
    fn drop(&mut self) {
        self.finish("the thread that read the connection ended", false);
    }
}
