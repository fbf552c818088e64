//! Where the items of one stream wait for their reader. Filled by a handler of this process, or by a connection.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mobula_core::planted::{self, Bug};
use mobula_core::{CallError, codec, limits};
use mobula_transport::{CreditViolation, ItemWindow, SessionError};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::call_context::{NearCall, Token};
use crate::expiry::Expire;
use crate::reply::{Answer, NearStream};

pub(crate) struct Channel<T>(Mutex<State<T>>);

struct State<T> {
    window: ItemWindow,
    items: VecDeque<T>,
    /// Behind the last item. The error is told once.
    end: Option<Result<(), CallError>>,
    begun: bool,
    /// The reader has gone.
    gone: bool,
    reader: Option<Waker>,
    /// A producer of this process that waits for room.
    producer: Option<Waker>,
    token: Option<Arc<Token>>,
}

/// What the reader finds.
pub(super) enum Next<T> {
    Item {
        item: T,
        /// So many more may come.
        more: Option<u32>,
    },
    Error(CallError),
    End,
}

impl<T> Channel<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Channel(Mutex::new(State {
            window: ItemWindow::new(limits::STREAM_WINDOW_ITEMS),
            items: VecDeque::new(),
            end: None,
            begun: false,
            gone: false,
            reader: None,
            producer: None,
            token: None,
        })))
    }

    /// Ready when an item may be put; an error if nobody will read it.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let mut state = self.0.lock();
        if state.gone || state.end.is_some() {
            return Poll::Ready(Err(CallError::Cancelled { started: true }));
        }
        if state.window.is_open() {
            return Poll::Ready(Ok(()));
        }
        state.producer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// # Errors
    /// [`CreditViolation`] if there was no room for it.
    pub(super) fn put(&self, item: T) -> Result<(), CreditViolation> {
        let mut state = self.0.lock();
        if state.gone || state.end.is_some() {
            // The user's to drop, without our lock.
            drop(state);
            return Ok(());
        }
        state.window.on_item()?;
        state.items.push_back(item);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// No item comes any more. The first end holds.
    pub(super) fn finish(&self, end: Result<(), CallError>, fire: bool) {
        let mut state = self.0.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let (reader, producer) = (state.reader.take(), state.producer.take());
        let token = state.token.take();
        drop(state);
        if let Some(token) = token.filter(|_| fire) {
            token.fire();
        }
        reader.into_iter().chain(producer).for_each(Waker::wake);
    }

    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        let mut state = self.0.lock();
        if let Some(item) = state.items.pop_front() {
            let more = state.window.on_taken();
            let producer = if more.is_some() { state.producer.take() } else { None };
            drop(state);
            if let Some(producer) = producer {
                producer.wake();
            }
            return Poll::Ready(Next::Item { item, more });
        }
        match state.end.replace(Ok(())) {
            Some(Err(error)) => Poll::Ready(Next::Error(error)),
            Some(Ok(())) => Poll::Ready(Next::End),
            None => {
                state.end = None;
                match &mut state.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// The reader has gone, and with it what it has not read.
    pub(super) fn abandon(&self) {
        let mut state = self.0.lock();
        state.gone = true;
        let items = std::mem::take(&mut state.items);
        let (producer, token) = (state.producer.take(), state.token.take());
        drop(state);
        drop(items);
        if let Some(token) = token {
            token.fire();
        }
        if let Some(producer) = producer {
            producer.wake();
        }
    }
}

impl<T: Send + 'static> NearCall for Channel<T> {
    fn token(&self) -> Option<Arc<Token>> {
        let mut state = self.0.lock();
        if state.gone || state.end.is_some() {
            return Some(Token::new_fired());
        }
        Some(Arc::clone(state.token.get_or_insert_default()))
    }

    fn items(self: Arc<Self>) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(self)
    }
}

impl<T: Send + 'static> NearStream for Channel<T> {
    fn end(&self, end: Result<(), CallError>) {
        self.finish(end, false);
    }

    fn begin(&self) -> bool {
        let mut state = self.0.lock();
        state.begun = !state.gone && state.end.is_none();
        state.begun
    }

    fn is_cancelled(&self) -> bool {
        self.0.lock().gone
    }
}

impl<T: Send> Expire for Channel<T> {
    fn expire(&self) {
        let started = self.0.lock().begun;
        self.finish(Err(CallError::DeadlineExceeded { started }), true);
    }
}

impl<T: DeserializeOwned + Send> Answer for Channel<T> {
    fn answer(&self, answer: Result<&[u8], CallError>) {
        let end = match answer {
            Err(CallError::Unreachable { .. }) if planted::is(Bug::StreamLooksWhole) => Ok(()),
            answer => answer.map(|_| ()),
        };
        self.finish(end, false);
    }

    fn item(&self, payload: &[u8]) -> Result<(), SessionError> {
        match codec::decode(payload) {
            Ok(item) => self.put(item)?,
            Err(error) => {
                let error = CallError::Decode { reason: format!("an item: {error}"), reply: true };
                self.finish(Err(error), false);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    fn next(channel: &Channel<u32>) -> Option<Result<Option<u32>, CallError>> {
        match channel.poll_next(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(Next::Item { item, .. }) => Some(Ok(Some(item))),
            Poll::Ready(Next::End) => Some(Ok(None)),
            Poll::Ready(Next::Error(error)) => Some(Err(error)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_end_comes_behind_the_items_and_its_error_once() {
        let channel = Channel::new();
        assert_eq!(next(&channel), None);
        channel.put(1).expect("there is room");
        channel.finish(Err(CallError::Stopped), false);
        channel.finish(Ok(()), false);
        channel.put(2).expect("dropped");
        assert_eq!(next(&channel), Some(Ok(Some(1))));
        assert_eq!(next(&channel), Some(Err(CallError::Stopped)));
        assert_eq!((next(&channel), next(&channel)), (Some(Ok(None)), Some(Ok(None))));
    }

    #[test]
    fn there_is_room_for_the_window_and_no_more() {
        let channel = Channel::new();
        let mut cx = Context::from_waker(noop_waker_ref());
        for item in 0..limits::STREAM_WINDOW_ITEMS {
            assert_eq!(channel.poll_room(&mut cx), Poll::Ready(Ok(())));
            channel.put(item).expect("there is room");
        }
        assert!(channel.poll_room(&mut cx).is_pending());
        assert!(channel.put(99).is_err());
        channel.abandon();
        assert_eq!(channel.poll_room(&mut cx), Poll::Ready(Err(CallError::Cancelled { started: true })));
    }
}
