//! Tells that were accepted and then reached no handler: counted where they end, told to the node that sent them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Context};
use mobula_core::{ActorId, CallError, NodeId, NodeUid, RemoteMessage};
use parking_lot::RwLock;

use crate::acceptance::Acceptance;
use crate::inbound::FlowTicket;
use crate::mailbox::Letter;
use crate::node::Node;
use crate::scope;

/// A tell that reached no handler, as the hook of [`Node::on_dead_letter`] sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Where the actor lives that it was for.
    pub node: NodeId,
    /// The actor that it was for. [`ActorId::NODE`] if there was none: a router had nobody to send it to.
    pub actor: ActorId,
    /// The registered name of the message.
    pub message: &'static str,
    /// Why it was not handled.
    pub reason: CallError,
    /// The message itself, where it never left this process: `body.downcast::<M>()`.
    pub body: Option<Box<dyn Any + Send>>,
}

/// A letter that was refused, and whose sender has no other way to hear of it.
pub(crate) enum Undelivered {
    Near {
        message: &'static str,
        body: Box<dyn Any + Send>,
        reason: CallError,
        /// Its sender may yet hear of it.
        sender: Option<Arc<Acceptance>>,
    },
    /// The ticket knows whose it was.
    Far { ticket: FlowTicket, reason: CallError },
}

impl Undelivered {
    pub(crate) fn near<M: RemoteMessage>(message: M, reason: CallError, sender: Option<Arc<Acceptance>>) -> Self {
        Undelivered::Near { message: M::NAME, body: Box::new(message), reason, sender }
    }
}

type Hook = Arc<dyn Fn(DeadLetter) + Send + Sync>;

/// The dead letters of one node.
#[derive(Default)]
pub(crate) struct DeadLetters {
    count: AtomicU64,
    hook: RwLock<Option<Hook>>,
}

thread_local! {
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl DeadLetters {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn set_hook(&self, hook: Hook) {
        let before = self.hook.write().replace(hook);
        // What the user's hook holds is dropped without our lock.
        drop(before);
    }

    /// Hands a letter to the hook, which may do as it likes: no lock is held, its panic ends here, and what it tells in
    /// vain itself is not told to it again.
    fn show(&self, letter: DeadLetter) {
        let hook = self.hook.read().clone();
        let again = IN_HOOK.replace(true);
        let shown = catch_unwind(AssertUnwindSafe(|| match hook {
            Some(hook) if !again => hook(letter),
            _ => drop(letter),
        }));
        IN_HOOK.set(again);
        if shown.is_err() {
            tracing::error!("the hook for dead letters panicked");
        }
    }
}

impl Node {
    /// Calls `hook` for each tell from this node that was accepted and then reached no handler, and for each whose error
    /// nobody looked at. It replaces the hook before.
    ///
    /// It runs on the thread where the loss was noticed, often an actor's: it should be quick, and pass on what takes
    /// long. It may send. What is lost with a connection is not among these, since nobody knows how far it came;
    /// [`tell_acked`](crate::ActorRef::tell_acked) tells that.
    pub fn on_dead_letter(&self, hook: impl Fn(DeadLetter) + Send + Sync + 'static) {
        self.dead_letters().set_hook(Arc::new(hook));
    }

    /// A tell to `actor` ended here.
    pub(crate) fn undelivered(&self, actor: ActorId, what: Undelivered) {
        match what {
            Undelivered::Near { message, body, reason, sender } => {
                let letter = DeadLetter { node: self.id().clone(), actor, message, reason, body: Some(body) };
                match sender {
                    Some(sender) => sender.refuse(Unheard::new(Some(self.clone()), letter)),
                    None => self.dead_letter(letter),
                }
            }
            Undelivered::Far { ticket, reason } => {
                self.count_dead_letter(actor, &reason);
                ticket.undelivered(&reason);
            }
        }
    }

    /// A tell from this node ended here.
    pub(crate) fn dead_letter(&self, letter: DeadLetter) {
        self.count_dead_letter(letter.actor, &letter.reason);
        self.dead_letters().show(letter);
    }

    /// A tell from this node ended elsewhere, and was counted there.
    pub(crate) fn dead_letter_elsewhere(&self, letter: DeadLetter) {
        self.dead_letters().show(letter);
    }

    pub(crate) fn count_dead_letter(&self, target: ActorId, reason: &CallError) {
        self.dead_letters().count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(node = %self.id(), %target, %reason, "dead letter");
    }
}

/// An error that nobody has looked at yet. Dropped like that, its message is a dead letter.
pub(crate) struct Unheard(Option<Box<(Option<Node>, DeadLetter)>>);

impl Unheard {
    pub(crate) fn new(node: Option<Node>, letter: DeadLetter) -> Self {
        Unheard(Some(Box::new((node, letter))))
    }

    /// Of a tell to `actor`, of `node`, that got no place there. None if its sender has heard of that already.
    pub(crate) fn of_refused<A: Actor<Context = Context<A>>>(
        node: &Node,
        actor: ActorId,
        letter: Box<dyn Letter<A>>,
        error: CallError,
    ) -> Option<Self> {
        match letter.refuse(error)? {
            Undelivered::Near { message, body, reason, .. } => {
                let letter = DeadLetter { node: node.id().clone(), actor, message, reason, body: Some(body) };
                Some(Unheard::new(Some(node.clone()), letter))
            }
            // Letters of this process come back as such.
            Undelivered::Far { .. } => None,
        }
    }

    /// Of a tell that there was nobody to send to. `node` is the one that would have sent it.
    pub(crate) fn to_nobody<M: RemoteMessage>(node: Option<&Node>, message: Option<M>, reason: CallError) -> Self {
        let node = sending_node(node);
        let id = node.as_ref().map_or_else(|| NodeId::new("", NodeUid(0)), |node| node.id().clone());
        let body = message.map(|message| Box::new(message) as Box<dyn Any + Send>);
        let letter = DeadLetter { node: id, actor: ActorId::NODE, message: M::NAME, reason, body };
        Unheard::new(node, letter)
    }

    /// The error, once.
    pub(crate) fn hear(&mut self) -> Option<CallError> {
        self.0.take().map(|unheard| unheard.1.reason)
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Some(unheard) = self.0.take()
            && let (Some(node), letter) = *unheard
        {
            node.dead_letter(letter);
        }
    }
}

/// The node to which a message belongs that `via` sends, if any.
pub(crate) fn sending_node(via: Option<&Node>) -> Option<Node> {
    via.cloned().or_else(scope::current_node)
}
