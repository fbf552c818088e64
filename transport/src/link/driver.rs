//! The reading half of a link, its timers, and the writing of what others left queued.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mobula_core::frame::{self, FrameError};
use mobula_core::limits;
use tokio::io::AsyncRead;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::writer::Drained;
use super::{Inbound, Link, Request, State, Waiter, deliver, now};
use crate::session::{Received, SessionError};

/// Reads a link's connection, writes what others left queued, and keeps its timers. A future that ends with the link.
pub struct Driver<R: Waiter, I: Inbound<R>> {
    link: Arc<Link<R>>,
    read: Box<dyn AsyncRead + Send + Unpin>,
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
    pub(super) fn new(link: Arc<Link<R>>, read: Box<dyn AsyncRead + Send + Unpin>, inbound: I) -> Self {
        Driver {
            link,
            read,
            buffer: BytesMut::new(),
            inbound,
            sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(now()))),
            armed: None,
            broken: None,
            opened: false,
            done: false,
        }
    }

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
        let mut opened = None;
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
                opened = Some(hello.clone());
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
        let mut violation = Ok(());
        for received in batch {
            match received {
                Received::Nothing => {}
                Received::Reply { to, payload } => to.answer(Ok(&payload)),
                Received::Failure { to, error } => to.answer(Err(error)),
                Received::Define { index, name, schema } => self.inbound.define(index, &name, schema),
                Received::Cancel { request } => self.inbound.cancel(request),
                Received::Undelivered { target, message, error } => {
                    self.inbound.undelivered(&self.link, target, message, error);
                }
                // After a violation nothing is accepted, but answers still reach those who wait for them.
                Received::Item { to, payload } => {
                    if violation.is_ok() {
                        violation = to.item(&payload);
                    }
                }
                Received::More { request, count } => {
                    if violation.is_ok() {
                        violation = self.inbound.more(&self.link, request, count);
                    }
                }
                Received::Request { request, post, target, message, deadline, payload } => {
                    if violation.is_ok() {
                        let request = Request { request, post, target, message, deadline, payload };
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
            self.link.writer.lock().end();
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
        this.link.home.get_or_init(|| std::thread::current().id());
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
