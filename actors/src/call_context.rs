//! What a handler may know of the call that it serves: until when somebody waits, and whether anybody still does.

use std::any::Any;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mobula_core::{Deadline, RequestId};
use tokio::sync::Notify;

use crate::inbound::Flow;
use crate::scope;

/// The call that the running code serves; see [`current_call`].
#[derive(Clone, Debug)]
pub struct CallContext {
    deadline: Deadline,
    token: Option<Arc<Token>>,
}

/// The call that the running code serves: in a handler, and in the future that a handler returned. None elsewhere, also
/// in what a handler has spawned.
///
/// Work that takes long looks whether it is still wanted. Nothing stops it by force: a handler that does not look runs to
/// its end, and its answer is dropped.
///
/// ```ignore
/// let call = mobula::current_call().expect("this is a handler");
/// while !call.is_cancelled() { .. }               // in a handler that computes
/// tokio::select! {                                // in one that waits
///     () = call.cancelled() => return,
///     row = rows.next() => ..
/// }
/// ```
pub fn current_call() -> Option<CallContext> {
    let call = scope::call();
    call.caller.map(|caller| CallContext { deadline: call.deadline, token: caller.token() })
}

impl CallContext {
    /// When nobody waits any more; none if the call has no deadline. What the handler asks in turn inherits it.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.instant()
    }

    /// True once nobody waits for the answer: the caller dropped its ask, the deadline has passed, or the connection to
    /// the caller's node has ended. A tell can only pass its deadline.
    pub fn is_cancelled(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.is_fired()) || self.is_late()
    }

    /// True once the deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_over(mobula_transport::now())
    }

    /// Ready once [`is_cancelled`](Self::is_cancelled) would be true; if it never is, never. Cancel-safe. To be awaited
    /// where tokio's timers run, as they do on the threads of actors.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (token, deadline) = (self.token.clone(), self.deadline);
        async move {
            let gone = pin!(async {
                match token {
                    Some(token) => token.fired().await,
                    None => pending().await,
                }
            });
            let late = pin!(async {
                match deadline.instant() {
                    Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await,
                    None => pending().await,
                }
            });
            futures::future::select(gone, late).await;
        }
    }
}

/// Fires once, for all who wait.
#[derive(Debug, Default)]
pub(crate) struct Token {
    fired: AtomicBool,
    waiting: Notify,
}

impl Token {
    pub(crate) fn new_fired() -> Arc<Self> {
        Arc::new(Token { fired: AtomicBool::new(true), waiting: Notify::new() })
    }

    /// To be called without a lock: it wakes.
    pub(crate) fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    fn is_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    async fn fired(&self) {
        let mut notified = pin!(self.waiting.notified());
        // In the queue first: what fires between the look and the wait must not be missed.
        notified.as_mut().enable();
        if !self.is_fired() {
            notified.await;
        }
    }
}

/// An ask of the own process, as its handler sees it.
pub(crate) trait NearCall: Send + Sync {
    /// What fires when nobody waits any more; none if the answer is there.
    fn token(&self) -> Option<Arc<Token>>;
    /// Where the items of the answer go, a `Channel` of their type, if it is a stream.
    fn items(self: Arc<Self>) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
}

/// Who waits for the handler that runs.
#[derive(Clone)]
pub(crate) enum Caller {
    /// It is a tell.
    Nobody,
    Near(Arc<dyn NearCall>),
    Far(Arc<Flow>, RequestId),
}

impl Caller {
    fn token(&self) -> Option<Arc<Token>> {
        match self {
            Caller::Nobody => None,
            Caller::Near(call) => call.token(),
            Caller::Far(flow, request) => flow.requests.token(*request),
        }
    }
}
