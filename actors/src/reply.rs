//! How an answer finds its way back: a slot that a future polls, or a request of another node.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use mobula_core::codec::{self, EncodeError};
use mobula_core::{CallError, RequestId};
use mobula_transport::{SessionError, Waiter};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call_context::{Caller, NearCall, Token};
use crate::encode_local::Pass;
use crate::expiry::Expire;
use crate::inbound::FlowTicket;
use crate::node::Node;
use crate::scope;
use crate::spares;

/// Where one answer of type `T` is put and picked up, once.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Empty {
        waker: Option<Waker>,
        /// The handler has begun.
        begun: bool,
        /// And has put its message aside, to begin again.
        aside: bool,
        /// Made when the handler asks for it.
        token: Option<Arc<Token>>,
    },
    Full(Result<T, CallError>),
    /// Picked up, or nobody wants it any more.
    Over {
        cancelled: bool,
    },
}

/// What nobody waits for any more.
pub(crate) enum Withdrawn<T> {
    /// There was no answer yet.
    Open,
    /// It was there, and not picked up.
    Answer(Result<T, CallError>),
    Over,
}

impl<T> State<T> {
    fn new() -> Self {
        State::Empty { waker: None, begun: false, aside: false, token: None }
    }
}

impl<T: 'static> Slot<T> {
    pub(crate) fn new() -> Arc<Self> {
        spares::take().unwrap_or_else(|| Arc::new(Slot { state: Mutex::new(State::new()) }))
    }

    /// Its one asker has gone: if nobody else holds it, it serves the next.
    pub(crate) fn spare(mut slot: Arc<Self>) {
        if let Some(unused) = Arc::get_mut(&mut slot) {
            let before = std::mem::replace(unused.state.get_mut(), State::new());
            spares::keep::<Self, _>(slot);
            drop(before);
        }
    }
}

impl<T> Slot<T> {
    pub(crate) fn put(&self, answer: Result<T, CallError>) {
        drop(self.offer(answer));
    }

    /// As [`put`](Self::put). It comes back if nobody waits for it.
    pub(crate) fn offer(&self, answer: Result<T, CallError>) -> Option<Result<T, CallError>> {
        let mut state = self.state.lock();
        let State::Empty { waker, .. } = &mut *state else { return Some(answer) };
        let waker = waker.take();
        *state = State::Full(answer);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// The handler begins. False if nobody waits any more: then it must not.
    fn begin(&self) -> bool {
        match &mut *self.state.lock() {
            State::Empty { begun, aside, .. } => {
                (*begun, *aside) = (true, false);
                true
            }
            State::Full(_) | State::Over { .. } => false,
        }
    }

    /// The handler has put its message aside, to begin again later.
    fn put_aside(&self) {
        if let State::Empty { aside, .. } = &mut *self.state.lock() {
            *aside = true;
        }
    }

    /// Ready once; a further poll after that stays pending.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, CallError>> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Empty { waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Full(_) => match std::mem::replace(&mut *state, State::Over { cancelled: false }) {
                State::Full(answer) => Poll::Ready(answer),
                State::Empty { .. } | State::Over { .. } => Poll::Pending,
            },
            State::Over { .. } => Poll::Pending,
        }
    }

    /// Nobody waits any more. True if there was no answer yet.
    pub(crate) fn cancel(&self) -> bool {
        // An answer that nobody picks up is the user's to drop, without our lock.
        matches!(self.withdraw(), Withdrawn::Open)
    }

    /// As [`cancel`](Self::cancel). Gives what was there.
    pub(crate) fn withdraw(&self) -> Withdrawn<T> {
        let mut state = self.state.lock();
        if matches!(*state, State::Over { .. }) {
            return Withdrawn::Over;
        }
        let before = std::mem::replace(&mut *state, State::Over { cancelled: true });
        drop(state);
        match before {
            State::Empty { token, .. } => {
                if let Some(token) = token {
                    token.fire();
                }
                Withdrawn::Open
            }
            State::Full(answer) => Withdrawn::Answer(answer),
            State::Over { .. } => Withdrawn::Over,
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*self.state.lock(), State::Over { cancelled: true })
    }

    /// The message waits for its handler: in the mailbox, or put aside.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(*self.state.lock(), State::Empty { begun: false, .. } | State::Empty { aside: true, .. })
    }
}

impl<T: Send> Expire for Slot<T> {
    fn expire(&self) {
        let mut state = self.state.lock();
        let State::Empty { waker, begun, token, .. } = &mut *state else { return };
        let (waker, started, token) = (waker.take(), *begun, token.take());
        // What has not begun under this lock finds the slot full, and does not begin.
        *state = State::Full(Err(CallError::DeadlineExceeded { started }));
        drop(state);
        if let Some(token) = token {
            token.fire();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Send> NearCall for Slot<T> {
    fn token(&self) -> Option<Arc<Token>> {
        match &mut *self.state.lock() {
            State::Empty { token, .. } => Some(Arc::clone(token.get_or_insert_default())),
            State::Full(Err(_)) | State::Over { cancelled: true } => Some(Token::new_fired()),
            State::Full(Ok(_)) | State::Over { cancelled: false } => None,
        }
    }
}

/// A slot as the connection sees it: bytes in, type known to the slot alone.
pub(crate) trait Answer: Send + Sync {
    fn answer(&self, answer: Result<&[u8], CallError>);
    /// A tell in line has left.
    fn accepted(&self) {}
    /// One of many answers.
    ///
    /// # Errors
    /// It closes the connection.
    fn item(&self, _payload: &[u8]) -> Result<(), SessionError> {
        // Nobody waits for such.
        Ok(())
    }
}

/// A stream that is answered within the process.
pub(crate) trait NearStream: NearCall {
    fn end(&self, end: Result<(), CallError>);
    /// The handler begins. False if nobody waits any more: then it must not.
    fn begin(&self) -> bool;
    fn is_cancelled(&self) -> bool;
}

/// Whoever reads a stream, wherever its answers come from; what they are it knows alone.
pub(crate) trait StreamReader: NearStream + Answer {}

impl<R: NearStream + Answer> StreamReader for R {}

impl<T: DeserializeOwned + Send> Answer for Slot<T> {
    fn answer(&self, answer: Result<&[u8], CallError>) {
        self.put(answer.and_then(|bytes| {
            codec::decode(bytes).map_err(|error| CallError::Decode { reason: error.to_string(), reply: true })
        }));
    }

    fn item(&self, _: &[u8]) -> Result<(), SessionError> {
        let reason = "the message is answered with a stream: send it with `ask_stream`".to_owned();
        self.put(Err(CallError::Decode { reason, reply: true }));
        Ok(())
    }
}

/// What a connection keeps for whoever waits for an answer.
#[derive(Clone)]
pub struct Pending(pub(crate) Arc<dyn Answer>);

impl Waiter for Pending {
    fn answer(self, answer: Result<&[u8], CallError>) {
        self.0.answer(answer);
    }

    fn accepted(self) {
        self.0.accepted();
    }

    fn item(&self, payload: &[u8]) -> Result<(), SessionError> {
        self.0.item(payload)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

/// The one answer that a message is owed. Dropped unused, it says that the actor stopped, or, if the handler has begun,
/// that it was cut off.
pub(crate) struct ReplyTo<T> {
    way: Option<Way<T>>,
    begun: bool,
    /// Lives as long as the answer is owed.
    owes: Option<Arc<()>>,
    /// What the answer goes through, where calls within the node are encoded.
    pass: Option<(Node, Pass<T>)>,
}

enum Way<T> {
    Near(Arc<Slot<T>>),
    /// The answer itself says only that it has ended.
    Stream(Arc<dyn NearStream>),
    Far {
        ticket: FlowTicket,
        request: RequestId,
        encode: fn(&T, &mut BytesMut) -> Result<(), EncodeError>,
    },
}

impl<T> ReplyTo<T> {
    pub(crate) fn near(slot: Arc<Slot<T>>) -> Self {
        ReplyTo { way: Some(Way::Near(slot)), begun: false, owes: None, pass: None }
    }

    pub(crate) fn stream(stream: Arc<dyn NearStream>) -> Self {
        ReplyTo { way: Some(Way::Stream(stream)), begun: false, owes: None, pass: None }
    }

    /// To a request that is [in progress](crate::requests) until this has its answer, and that holds its credit until it is
    /// begun.
    pub(crate) fn far(ticket: FlowTicket, request: RequestId) -> Self
    where
        T: Serialize,
    {
        let way = Some(Way::Far { ticket, request, encode: codec::encode_into::<T> });
        ReplyTo { way, begun: false, owes: None, pass: None }
    }

    /// The same, which holds `owes` until it has its answer.
    pub(crate) fn owing(mut self, owes: Arc<()>) -> Self {
        self.owes = Some(owes);
        self
    }

    /// The same, within a node that may encode its own calls.
    pub(crate) fn passing(mut self, node: &Node) -> Self
    where
        T: Serialize + DeserializeOwned,
    {
        self.pass = node.pass_answer().map(|pass| (node.clone(), pass));
        self
    }

    pub(crate) fn send(mut self, answer: Result<T, CallError>) {
        self.answer(answer);
    }

    /// The message is not handled for this reason, or not any further.
    pub(crate) fn refuse(mut self, error: CallError) {
        self.answer(Err(match error {
            CallError::Stopped if self.begun => CallError::Cancelled { started: true },
            CallError::Cancelled { started: false } => CallError::Cancelled { started: self.begun },
            CallError::DeadlineExceeded { started: false } => CallError::DeadlineExceeded { started: self.begun },
            error => error,
        }));
    }

    fn answer(&mut self, answer: Result<T, CallError>) {
        match self.way.take() {
            Some(Way::Near(slot)) => slot.put(match self.pass.take() {
                Some((node, pass)) => answer.and_then(|value| pass(&node, value)),
                None => answer,
            }),
            Some(Way::Stream(stream)) => stream.end(answer.map(|_| ())),
            Some(Way::Far { ticket, request, encode }) => {
                let flow = ticket.flow();
                flow.requests.end(request);
                match answer {
                    Ok(value) => flow.link.reply(request, |out| encode(&value, out)),
                    Err(error) => flow.link.fail(request, &error),
                }
                scope::touch(&flow.link);
            }
            None => {}
        }
    }

    /// The handler begins. False if its caller has just given up, and it must not.
    pub(crate) fn begin(&mut self) -> bool {
        self.begun = match &mut self.way {
            Some(Way::Near(slot)) => slot.begin(),
            Some(Way::Stream(stream)) => stream.begin(),
            Some(Way::Far { ticket, .. }) => {
                ticket.return_credit();
                true
            }
            None => true,
        };
        self.begun
    }

    /// Who waits for it.
    pub(crate) fn caller(&self) -> Caller
    where
        T: Send + 'static,
    {
        match &self.way {
            Some(Way::Near(slot)) => Caller::Near(Arc::clone(slot) as _),
            Some(Way::Stream(stream)) => Caller::Near(Arc::clone(stream) as _),
            Some(Way::Far { ticket, request, .. }) => Caller::Far(Arc::clone(ticket.flow()), *request),
            None => Caller::Nobody,
        }
    }

    /// The handler has put its message aside.
    pub(crate) fn put_aside(&self) {
        if let Some(Way::Near(slot)) = &self.way {
            slot.put_aside();
        }
    }

    /// True if the caller has given up.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.way {
            Some(Way::Near(slot)) => slot.is_cancelled(),
            Some(Way::Stream(stream)) => stream.is_cancelled(),
            Some(Way::Far { ticket, request, .. }) => ticket.flow().requests.is_cancelled(*request),
            None => false,
        }
    }
}

impl<T> Drop for ReplyTo<T> {
    fn drop(&mut self) {
        self.answer(Err(if self.begun { CallError::Cancelled { started: true } } else { CallError::Stopped }));
    }
}
