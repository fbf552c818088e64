//! How an actor came to its end, as those who monitor it learn it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ActorAddress, limits};

/// Why an actor is no more. The reasons are Erlang's, where it has them.
///
/// One end may cause another, through a link or up a tree of supervisors. [`root_cause`](Self::root_cause) gives where it
/// began, and the text tells it, too.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It stopped itself.
    Normal,
    /// It was told to stop, or its node shut down in order.
    Shutdown,
    /// It was killed: none of its hooks ran.
    Killed,
    /// It ended itself with an error.
    Error {
        /// What it said.
        text: String,
    },
    /// It panicked, and was not restarted any more.
    Panicked {
        /// The last panic's text.
        text: String,
    },
    /// There was no such actor when the monitor was set up.
    NoProc,
    /// Its node was lost. What became of the actor is not known; for the monitor it is the end.
    NoConnection {
        /// How the loss was noticed.
        reason: String,
    },
    /// Its node lives, and it will never be known what became of what was said to it. Nothing of that life of the node is
    /// accepted any more, so for the monitor it is the end.
    Quarantined {
        /// How that came about.
        reason: String,
    },
    /// An actor that it was linked with came to an end that was not normal.
    Linked {
        /// Which actor.
        with: ActorAddress,
        /// How that one ended.
        cause: Box<ExitReason>,
    },
    /// It was a supervisor, and the restarts of its children were used up.
    ChildFailed {
        /// What it called the child that failed last.
        child: String,
        /// How that one failed.
        cause: Box<ExitReason>,
    },
}

impl ExitReason {
    /// True for every end that an actor does not come to by itself and in order.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, ExitReason::Normal)
    }

    /// The end of an actor by a link with `with`, which ended by `cause`.
    pub fn linked(with: ActorAddress, cause: ExitReason) -> Self {
        ExitReason::Linked { with, cause: Box::new(cause.with_room()) }
    }

    /// The end of a supervisor whose restarts were used up when `child` failed by `cause`.
    pub fn child_failed(child: String, cause: ExitReason) -> Self {
        ExitReason::ChildFailed { child, cause: Box::new(cause.with_room()) }
    }

    /// The end that caused this one, if another did.
    pub fn cause(&self) -> Option<&ExitReason> {
        match self {
            ExitReason::Linked { cause, .. } | ExitReason::ChildFailed { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// Where it began: the cause of the cause, and so on. An end without a cause is its own.
    pub fn root_cause(&self) -> &ExitReason {
        let mut root = self;
        while let Some(cause) = root.cause() {
            root = cause;
        }
        root
    }

    /// The same, short enough to become a cause: of a chain that is too long only the root stays.
    fn with_room(self) -> Self {
        let mut length = 1;
        let mut at = &self;
        while let Some(cause) = at.cause() {
            length += 1;
            at = cause;
        }
        if length < limits::CAUSES_MAX { self } else { at.clone() }
    }
}

impl std::error::Error for ExitReason {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().map(|cause| cause as _)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("it stopped"),
            ExitReason::Shutdown => f.write_str("it was told to stop"),
            ExitReason::Killed => f.write_str("it was killed"),
            ExitReason::Error { text } => write!(f, "it ended with an error: {text}"),
            ExitReason::Panicked { text } => write!(f, "it panicked: {text}"),
            ExitReason::NoProc => f.write_str("there was no such actor"),
            ExitReason::NoConnection { reason } => write!(f, "its node was lost: {reason}"),
            ExitReason::Quarantined { reason } => write!(f, "its node was quarantined: {reason}"),
            ExitReason::ChildFailed { child, cause } => {
                write!(f, "its child `{child}` failed, and its restarts were used up: {cause}")
            }
            ExitReason::Linked { with, cause } => write!(f, "it was linked with {with}: {cause}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActorId, NodeId, NodeUid, codec};

    fn at(actor: u64) -> ActorAddress {
        ActorAddress { node: NodeId::new("node-1", NodeUid(1 << 32)), actor: ActorId(actor) }
    }

    #[test]
    fn the_root_cause_is_told_and_found() {
        let root = ExitReason::Panicked { text: "boom".to_owned() };
        let end = ExitReason::linked(at(2), ExitReason::linked(at(1), root.clone()));
        assert_eq!(end.root_cause(), &root);
        assert_eq!(end.cause().and_then(ExitReason::cause), Some(&root));
        let text = end.to_string();
        assert!(text.contains("2@node-1#00000001") && text.contains("1@node-1") && text.ends_with("boom"), "{text}");
    }

    #[test]
    fn a_chain_is_bounded_and_keeps_its_root() {
        let root = ExitReason::Error { text: "out of ink".to_owned() };
        let mut end = root.clone();
        for actor in 0..1000 {
            end = ExitReason::linked(at(actor), end);
            let bytes = codec::encode(&end).expect("plain data");
            assert_eq!(codec::decode::<ExitReason>(&bytes).expect("not too deep"), end);
        }
        assert_eq!(end.root_cause(), &root);
    }
}
