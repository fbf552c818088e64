//! Whether a tell has got into its actor's mailbox: what its sender waits for, shared with the letter on its way.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mobula_core::{CallError, RequestId, codec};
use parking_lot::Mutex;

use crate::expiry::Expire;
use crate::inbound::Flow;
use crate::scope;

/// The acceptance of one tell, said once.
pub(crate) struct Acceptance {
    state: Mutex<State>,
    /// The post of another node that it answers.
    far: Option<(Arc<Flow>, RequestId)>,
}

enum State {
    Waiting {
        waker: Option<Waker>,
        /// The sender has dropped its future: nobody will hear.
        abandoned: bool,
    },
    Accepted,
    /// With the error until it is picked up.
    Refused(Option<CallError>),
}

impl Acceptance {
    pub(crate) fn near() -> Arc<Self> {
        Self::new(None)
    }

    pub(crate) fn far(flow: Arc<Flow>, request: RequestId) -> Arc<Self> {
        Self::new(Some((flow, request)))
    }

    fn new(far: Option<(Arc<Flow>, RequestId)>) -> Arc<Self> {
        Arc::new(Acceptance { state: Mutex::new(State::Waiting { waker: None, abandoned: false }), far })
    }

    /// The message is in the mailbox. Nothing, if it was refused before.
    pub(crate) fn accept(&self) {
        if self.settle(State::Accepted).is_some()
            && let Some((flow, request)) = &self.far
        {
            flow.link.reply(*request, |out| codec::encode_into(&(), out));
            scope::touch(&flow.link);
        }
    }

    /// The message will reach no handler. False if nobody hears of it this way: it was accepted before, or its sender
    /// does not wait.
    pub(crate) fn refuse(&self, error: &CallError) -> bool {
        if matches!(*self.state.lock(), State::Refused(_)) {
            return true;
        }
        let Some(abandoned) = self.settle(State::Refused(Some(error.clone()))) else { return false };
        if let Some((flow, request)) = &self.far {
            flow.link.fail(*request, error);
            scope::touch(&flow.link);
        }
        !abandoned
    }

    /// If it was still open, whether nobody waits.
    fn settle(&self, new: State) -> Option<bool> {
        let mut state = self.state.lock();
        let State::Waiting { waker, abandoned } = &mut *state else { return None };
        let (waker, abandoned) = (waker.take(), *abandoned);
        *state = new;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(abandoned)
    }

    /// The sender no longer waits. The message stays where it is.
    pub(crate) fn abandon(&self) {
        if let State::Waiting { waker, abandoned } = &mut *self.state.lock() {
            *abandoned = true;
            *waker = None;
        }
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        match &mut *self.state.lock() {
            State::Waiting { waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Accepted => Poll::Ready(Ok(())),
            State::Refused(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl Expire for Acceptance {
    fn expire(&self) {
        self.refuse(&CallError::DeadlineExceeded { started: false });
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    fn poll(acceptance: &Acceptance) -> Poll<Result<(), CallError>> {
        acceptance.poll(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn it_is_said_once() {
        let acceptance = Acceptance::near();
        assert!(poll(&acceptance).is_pending());
        acceptance.accept();
        assert_eq!(poll(&acceptance), Poll::Ready(Ok(())));
        assert!(!acceptance.refuse(&CallError::Stopped), "the sender has heard the contrary");
        assert_eq!(poll(&acceptance), Poll::Ready(Ok(())));
    }

    #[test]
    fn a_refusal_stands_and_is_picked_up_once() {
        let acceptance = Acceptance::near();
        assert!(acceptance.refuse(&CallError::Stopped));
        acceptance.accept();
        assert!(acceptance.refuse(&CallError::Full { limit: 1 }), "it has been told already");
        assert_eq!(poll(&acceptance), Poll::Ready(Err(CallError::Stopped)));
        assert!(poll(&acceptance).is_pending());
    }

    #[test]
    fn nobody_hears_of_what_was_abandoned() {
        let acceptance = Acceptance::near();
        acceptance.abandon();
        assert!(!acceptance.refuse(&CallError::Stopped));
    }
}
