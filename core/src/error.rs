//! The errors of a call. Each answers its reader's first question: may I try again?

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ActorId, Generation, NodeId};

/// How far a call came before it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Nothing left this process. Repeating is safe.
    NotSent,
    /// The handler never ran. Repeating is safe.
    NotStarted,
    /// The handler may or may not have run. Repeat only what may happen twice.
    Unknown,
    /// The handler ran, and this is its answer. Repeating runs it again.
    Done,
}

impl Outcome {
    /// True where a repetition cannot make the handler run twice.
    pub fn is_retry_safe(self) -> bool {
        matches!(self, Outcome::NotSent | Outcome::NotStarted)
    }

    fn advice(self) -> &'static str {
        match self {
            Outcome::NotSent => "nothing was sent; safe to retry",
            Outcome::NotStarted => "the handler did not run; safe to retry",
            Outcome::Unknown => "the handler may have run; retry only if twice does no harm",
            Outcome::Done => "the handler ran; a retry runs it again",
        }
    }
}

/// The error type of a handler that has none. It has no values.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

/// Why a call to an actor has no answer, or which error the handler itself returned.
///
/// [`outcome`](Self::outcome) tells whether a retry is safe, and the text says it too. `E` is the handler's own
/// error type, where it has one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallError<E = Never> {
    /// The mailbox or the line before it is full.
    Full {
        /// Messages that fit.
        limit: u64,
    },
    /// A limit of the node, not of one mailbox, is reached.
    Overloaded {
        /// What there is too much of.
        what: String,
        /// How much of it is allowed.
        limit: u64,
        /// How long to wait at least before trying again.
        retry_after: Duration,
    },
    /// The node has no such actor: it has stopped, or never was.
    NoSuchActor {
        /// The id that was asked for.
        actor: ActorId,
    },
    /// The reference belongs to an earlier life of its node.
    StaleIncarnation {
        /// The node and life that the reference names.
        node: NodeId,
    },
    /// The node and this one speak no version of the protocol in common.
    VersionIncompatible {
        /// The node.
        node: NodeId,
        /// What both speak.
        reason: String,
    },
    /// The caller may not do this.
    Unauthorized {
        /// The rule that forbids it.
        rule: String,
    },
    /// The actor does not accept this message type from afar.
    UnknownMessage {
        /// The registered name of the message.
        message: String,
        /// The registered name of the actor's type.
        actor_type: String,
    },
    /// Both sides know the message type, and differ in its definition.
    SchemaMismatch {
        /// The registered name.
        name: String,
        /// The receiver's hash.
        ours: u64,
        /// The sender's hash.
        theirs: u64,
    },
    /// The bytes are not what the type asks for.
    Decode {
        /// What was found, and where.
        reason: String,
        /// True if it was the answer that could not be read: the handler has run.
        reply: bool,
    },
    /// The value could not be written as MessagePack, or is larger than a frame may be.
    Encode {
        /// What failed, or which limit was passed.
        reason: String,
        /// True if it was the answer that could not be written: the handler has run.
        reply: bool,
    },
    /// The actor ended before it came to this message.
    Stopped,
    /// The mailbox is full while the actor rests after a failure, before its next life begins.
    Restarting,
    /// Nobody waited any longer.
    DeadlineExceeded {
        /// False if the handler is known not to have run.
        started: bool,
    },
    /// The caller gave the call up.
    Cancelled {
        /// False if the handler is known not to have run.
        started: bool,
    },
    /// An actor asked itself from an exclusive handler (`async fn` with `&mut self`), which could only wait for itself.
    Deadlock {
        /// The actor.
        actor: ActorId,
    },
    /// The node cannot be reached: its process ended, or the connection to it is gone.
    Unreachable {
        /// The node.
        node: NodeId,
        /// True if the message had been written before.
        sent: bool,
        /// What happened.
        reason: String,
    },
    /// What was said to this life of the node may be lost, so it is not spoken to any more: for ever.
    Quarantined {
        /// The node.
        node: NodeId,
        /// True if the message had been written before.
        sent: bool,
        /// What happened.
        reason: String,
    },
    /// The handler panicked. The actor restarts as its policy says; the message is not tried again.
    Panicked {
        /// The actor.
        actor: ActorId,
        /// The registered name of the message, or its type's name.
        message: String,
        /// The panic's text.
        text: String,
        /// The life of the actor in which it happened.
        generation: Generation,
    },
    /// The handler's own error.
    Handler(E),
}

impl<E> CallError<E> {
    /// How far the call came: [`Outcome::is_retry_safe`] answers the usual question.
    pub fn outcome(&self) -> Outcome {
        match self {
            CallError::Full { .. }
            | CallError::Overloaded { .. }
            | CallError::NoSuchActor { .. }
            | CallError::StaleIncarnation { .. }
            | CallError::VersionIncompatible { .. }
            | CallError::Unauthorized { .. }
            | CallError::UnknownMessage { .. }
            | CallError::SchemaMismatch { .. }
            | CallError::Decode { reply: false, .. }
            | CallError::Stopped
            | CallError::Restarting
            | CallError::Deadlock { .. }
            | CallError::DeadlineExceeded { started: false }
            | CallError::Cancelled { started: false } => Outcome::NotStarted,
            CallError::Encode { reply: false, .. }
            | CallError::Unreachable { sent: false, .. }
            | CallError::Quarantined { sent: false, .. } => Outcome::NotSent,
            CallError::DeadlineExceeded { started: true }
            | CallError::Cancelled { started: true }
            | CallError::Unreachable { sent: true, .. }
            | CallError::Quarantined { sent: true, .. } => Outcome::Unknown,
            CallError::Panicked { .. }
            | CallError::Handler(_)
            | CallError::Decode { reply: true, .. }
            | CallError::Encode { reply: true, .. } => Outcome::Done,
        }
    }
}

impl CallError<Never> {
    /// The error for a peer that speaks `version` of the protocol: one with the same outcome, if it does not know this.
    pub fn in_version(&self, version: u16) -> CallError {
        let known = match self {
            CallError::Full { .. }
            | CallError::NoSuchActor { .. }
            | CallError::StaleIncarnation { .. }
            | CallError::UnknownMessage { .. }
            | CallError::SchemaMismatch { .. }
            | CallError::Decode { .. }
            | CallError::Encode { .. }
            | CallError::Stopped
            | CallError::Panicked { .. }
            | CallError::DeadlineExceeded { .. }
            | CallError::Cancelled { .. }
            | CallError::Unreachable { .. }
            | CallError::Handler(_) => true,
            CallError::Deadlock { .. } => version >= 2,
            CallError::Overloaded { .. }
            | CallError::Restarting
            | CallError::Quarantined { .. }
            | CallError::Unauthorized { .. }
            | CallError::VersionIncompatible { .. } => version >= 3,
        };
        if known {
            return self.clone();
        }
        let reason = self.to_string();
        match self.outcome() {
            Outcome::NotSent => CallError::Encode { reason, reply: false },
            Outcome::NotStarted => CallError::Decode { reason, reply: false },
            Outcome::Unknown => CallError::Cancelled { started: true },
            Outcome::Done => CallError::Decode { reason, reply: true },
        }
    }

    /// The same error where the handler might also have returned one of its own.
    pub fn widen<E>(self) -> CallError<E> {
        match self {
            CallError::Full { limit } => CallError::Full { limit },
            CallError::Overloaded { what, limit, retry_after } => CallError::Overloaded { what, limit, retry_after },
            CallError::NoSuchActor { actor } => CallError::NoSuchActor { actor },
            CallError::StaleIncarnation { node } => CallError::StaleIncarnation { node },
            CallError::VersionIncompatible { node, reason } => CallError::VersionIncompatible { node, reason },
            CallError::Unauthorized { rule } => CallError::Unauthorized { rule },
            CallError::UnknownMessage { message, actor_type } => CallError::UnknownMessage { message, actor_type },
            CallError::SchemaMismatch { name, ours, theirs } => CallError::SchemaMismatch { name, ours, theirs },
            CallError::Decode { reason, reply } => CallError::Decode { reason, reply },
            CallError::Encode { reason, reply } => CallError::Encode { reason, reply },
            CallError::Stopped => CallError::Stopped,
            CallError::Restarting => CallError::Restarting,
            CallError::DeadlineExceeded { started } => CallError::DeadlineExceeded { started },
            CallError::Cancelled { started } => CallError::Cancelled { started },
            CallError::Deadlock { actor } => CallError::Deadlock { actor },
            CallError::Unreachable { node, sent, reason } => CallError::Unreachable { node, sent, reason },
            CallError::Quarantined { node, sent, reason } => CallError::Quarantined { node, sent, reason },
            CallError::Panicked { actor, message, text, generation } => {
                CallError::Panicked { actor, message, text, generation }
            }
            CallError::Handler(never) => match never {},
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Full { limit } => write!(f, "mailbox full: {limit} messages wait already")?,
            CallError::Overloaded { what, limit, retry_after } => write!(
                f,
                "the node is overloaded: {what}, {limit} at most; wait {} ms at least",
                retry_after.as_millis()
            )?,
            CallError::NoSuchActor { actor } => {
                write!(f, "no actor {actor} on that node: it has stopped or never was")?
            }
            CallError::StaleIncarnation { node } => {
                write!(f, "the reference belongs to {node}, an earlier life of that node")?;
            }
            CallError::VersionIncompatible { node, reason } => {
                write!(f, "{node} speaks no version of the protocol that this node speaks: {reason}")?;
            }
            CallError::Unauthorized { rule } => write!(f, "not allowed: {rule}")?,
            CallError::UnknownMessage { message, actor_type } => write!(
                f,
                "actor type `{actor_type}` accepts no message `{message}` from afar: list it in `remote_actor!`, and \
                 link the crate that registers it (`use that_crate as _;`)"
            )?,
            CallError::SchemaMismatch { name, ours, theirs } => write!(
                f,
                "`{name}` is defined differently on the two nodes (receiver {ours:016x}, sender {theirs:016x}): run \
                 the same build on both"
            )?,
            CallError::Decode { reason, reply } => write!(f, "unreadable {}: {reason}", side(*reply))?,
            CallError::Encode { reason, reply } => write!(f, "cannot write the {}: {reason}", side(*reply))?,
            CallError::Stopped => write!(f, "the actor stopped before it came to this message")?,
            CallError::Restarting => {
                write!(f, "the actor has failed and begins again soon, and its mailbox is full meanwhile")?;
            }
            CallError::DeadlineExceeded { .. } => write!(f, "deadline exceeded")?,
            CallError::Cancelled { .. } => write!(f, "cancelled")?,
            CallError::Deadlock { actor } => write!(
                f,
                "actor {actor} asked itself from an exclusive handler, which would wait for itself: call the method on \
                 `self`, or use a tell"
            )?,
            CallError::Unreachable { node, reason, .. } => write!(f, "{node} is unreachable: {reason}")?,
            CallError::Quarantined { node, reason, .. } => {
                write!(f, "{node} is quarantined, so only a new life of it will be spoken to: {reason}")?;
            }
            CallError::Panicked { actor, message, text, generation } => {
                write!(f, "actor {actor} (generation {generation}) panicked while handling `{message}`: {text}")?;
            }
            CallError::Handler(error) => return write!(f, "{error}"),
        }
        write!(f, " ({})", self.outcome().advice())
    }
}

fn side(reply: bool) -> &'static str {
    if reply { "reply" } else { "message" }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Handler(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeUid, codec};

    #[test]
    fn errors_survive_the_wire_and_say_whether_to_retry() {
        let node = NodeId::new("node-1", NodeUid(7));
        let errors: Vec<(CallError, Outcome)> = vec![
            (CallError::Full { limit: 3 }, Outcome::NotStarted),
            (
                CallError::Overloaded { what: "spawns".into(), limit: 3, retry_after: Duration::from_millis(100) },
                Outcome::NotStarted,
            ),
            (CallError::VersionIncompatible { node: node.clone(), reason: "x".into() }, Outcome::NotStarted),
            (CallError::Unauthorized { rule: "an observer sends nothing".into() }, Outcome::NotStarted),
            (CallError::Restarting, Outcome::NotStarted),
            (CallError::Quarantined { node: node.clone(), sent: false, reason: "x".into() }, Outcome::NotSent),
            (CallError::Quarantined { node: node.clone(), sent: true, reason: "x".into() }, Outcome::Unknown),
            (CallError::NoSuchActor { actor: ActorId(9) }, Outcome::NotStarted),
            (CallError::StaleIncarnation { node: node.clone() }, Outcome::NotStarted),
            (CallError::Stopped, Outcome::NotStarted),
            (CallError::Deadlock { actor: ActorId(9) }, Outcome::NotStarted),
            (CallError::DeadlineExceeded { started: false }, Outcome::NotStarted),
            (CallError::DeadlineExceeded { started: true }, Outcome::Unknown),
            (CallError::Unreachable { node: node.clone(), sent: false, reason: "x".into() }, Outcome::NotSent),
            (CallError::Unreachable { node, sent: true, reason: "x".into() }, Outcome::Unknown),
            (
                CallError::Panicked {
                    actor: ActorId(1),
                    message: "m".into(),
                    text: "boom".into(),
                    generation: Generation(2),
                },
                Outcome::Done,
            ),
        ];
        for (error, outcome) in errors {
            assert_eq!(error.outcome(), outcome);
            assert!(error.to_string().contains("retry"), "{error}");
            let bytes = codec::encode(&error).expect("plain data");
            assert_eq!(codec::decode::<CallError>(&bytes).expect("own bytes"), error);
        }
    }

    #[test]
    fn an_older_peer_gets_an_error_that_it_knows_with_the_same_outcome() {
        let node = NodeId::new("node-1", NodeUid(7));
        let retry_after = Duration::from_millis(100);
        let later: [(CallError, &str); 7] = [
            (CallError::Deadlock { actor: ActorId(9) }, "asked itself"),
            (CallError::Overloaded { what: "spawns".into(), limit: 3, retry_after }, "spawns, 3 at most; wait 100 ms"),
            (CallError::VersionIncompatible { node: node.clone(), reason: "x".into() }, "no version"),
            (CallError::Unauthorized { rule: "an observer sends nothing".into() }, "an observer"),
            (CallError::Restarting, "begins again"),
            (CallError::Quarantined { node: node.clone(), sent: false, reason: "x".into() }, "quarantined"),
            (CallError::Quarantined { node, sent: true, reason: "x".into() }, "cancelled"),
        ];
        for (error, text) in later {
            let since = if matches!(error, CallError::Deadlock { .. }) { 2 } else { 3 };
            assert_eq!(error.in_version(since), error);
            let old = error.in_version(since - 1);
            assert_eq!(old.outcome(), error.outcome(), "{error}");
            assert_eq!(old.in_version(1), old, "every version knows it");
            assert!(old.to_string().contains(text), "{old}");
        }
        assert_eq!(CallError::<Never>::Stopped.in_version(1), CallError::Stopped);
    }

    #[test]
    fn a_handlers_error_is_kept_as_it_is() {
        let error: CallError<Box<str>> = CallError::Handler("out of ink".into());
        assert_eq!(error.to_string(), "out of ink");
        assert_eq!(error.outcome(), Outcome::Done);
    }
}
