//! Whether a tell has got into its actor's mailbox: what its sender waits for, shared with the letter on its way.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mobula_core::{CallError, RequestId, codec};
use parking_lot::Mutex;

use crate::dead_letter::Unheard;
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
    /// Its deadline has passed in line, where the letter still stands.
    Expired(Hearing),
    /// With the letter, until its sender hears of it.
    Refused(Option<Unheard>),
}

enum Hearing {
    Open,
    Heard,
    Abandoned,
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

    /// True if it answers a post of another node.
    pub(crate) fn is_far(&self) -> bool {
        self.far.is_some()
    }

    /// The message is in the mailbox. Nothing, if it was refused before.
    pub(crate) fn accept(&self) {
        if self.settle(State::Accepted)
            && let Some((flow, request)) = &self.far
        {
            flow.link.reply(*request, |out| codec::encode_into(&(), out));
            scope::touch(&flow.link);
        }
    }

    /// The post of another node will reach no handler. False if it was accepted before: then it is a dead letter.
    pub(crate) fn fail(&self, error: &CallError) -> bool {
        let Some((flow, request)) = &self.far else { return false };
        if !self.settle(State::Refused(None)) {
            return false;
        }
        flow.link.fail(*request, error);
        scope::touch(&flow.link);
        true
    }

    /// The message will reach no handler. The letter is a dead one unless its sender hears of it, now or later.
    pub(crate) fn refuse(&self, mut letter: Unheard) {
        let mut state = self.state.lock();
        let waker = match &mut *state {
            State::Waiting { waker, abandoned: false } => waker.take(),
            State::Expired(Hearing::Open) => None,
            State::Expired(Hearing::Heard) | State::Refused(_) => {
                letter.hear();
                return;
            }
            State::Waiting { abandoned: true, .. } | State::Expired(Hearing::Abandoned) | State::Accepted => {
                // Dropped without the lock: the user's hook runs.
                drop(state);
                return;
            }
        };
        *state = State::Refused(Some(letter));
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// True if it was still open.
    fn settle(&self, new: State) -> bool {
        let mut state = self.state.lock();
        let State::Waiting { waker, .. } = &mut *state else { return false };
        let waker = waker.take();
        *state = new;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The sender no longer waits. The message stays where it is.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        let unheard = match &mut *state {
            State::Waiting { waker, abandoned } => {
                *abandoned = true;
                *waker = None;
                None
            }
            State::Expired(hearing @ Hearing::Open) => {
                *hearing = Hearing::Abandoned;
                None
            }
            State::Refused(unheard) => unheard.take(),
            State::Expired(_) | State::Accepted => None,
        };
        drop(state);
        drop(unheard);
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
            State::Expired(hearing @ Hearing::Open) => {
                *hearing = Hearing::Heard;
                Poll::Ready(Err(CallError::DeadlineExceeded { started: false }))
            }
            State::Refused(unheard) => match unheard.as_mut().and_then(Unheard::hear) {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            State::Expired(_) => Poll::Pending,
        }
    }
}

impl Expire for Acceptance {
    fn expire(&self) {
        self.settle(State::Expired(Hearing::Open));
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use mobula_core::ActorId;

    use super::*;
    use crate::dead_letter::DeadLetter;
    use crate::{Node, NodeConfig};

    fn poll(acceptance: &Acceptance) -> Poll<Result<(), CallError>> {
        acceptance.poll(&mut Context::from_waker(noop_waker_ref()))
    }

    fn letter(node: &Node, reason: CallError) -> Unheard {
        let (id, actor) = (node.id().clone(), ActorId(7));
        Unheard::new(Some(node.clone()), DeadLetter { node: id, actor, message: "test::Note", reason, body: None })
    }

    #[test]
    fn a_letter_is_dead_unless_its_sender_hears_of_it() {
        const LATE: CallError = CallError::DeadlineExceeded { started: false };
        let node = Node::start(NodeConfig::default()).expect("a node");
        let dead = |what: &dyn Fn(&Acceptance)| {
            let before = node.report().dead_letters;
            what(&Acceptance::near());
            node.report().dead_letters - before
        };
        let refuse = |acceptance: &Acceptance| acceptance.refuse(letter(&node, CallError::Stopped));
        assert_eq!(
            dead(&|acceptance| {
                refuse(acceptance);
                assert_eq!(poll(acceptance), Poll::Ready(Err(CallError::Stopped)));
                assert!(poll(acceptance).is_pending(), "it is said once");
                acceptance.abandon();
            }),
            0,
            "heard"
        );
        assert_eq!(
            dead(&|acceptance| {
                refuse(acceptance);
                acceptance.abandon();
            }),
            1,
            "refused, and dropped unread"
        );
        assert_eq!(
            dead(&|acceptance| {
                acceptance.abandon();
                refuse(acceptance);
            }),
            1,
            "dropped, and refused later"
        );
        assert_eq!(
            dead(&|acceptance| {
                acceptance.accept();
                assert_eq!(poll(acceptance), Poll::Ready(Ok(())));
                refuse(acceptance);
                assert_eq!(poll(acceptance), Poll::Ready(Ok(())));
            }),
            1,
            "its sender has heard the contrary"
        );
        assert_eq!(
            dead(&|acceptance| {
                acceptance.expire();
                assert_eq!(poll(acceptance), Poll::Ready(Err(LATE)));
                refuse(acceptance);
            }),
            0,
            "late, and heard"
        );
        assert_eq!(
            dead(&|acceptance| {
                acceptance.expire();
                acceptance.abandon();
                refuse(acceptance);
            }),
            1,
            "late, and dropped unread"
        );
        assert_eq!(
            dead(&|acceptance| {
                acceptance.expire();
                refuse(acceptance);
                acceptance.accept();
                acceptance.abandon();
            }),
            1,
            "late, refused, and dropped unread"
        );
        node.shut_down("the test is over");
    }
}
