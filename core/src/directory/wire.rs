//! What members ask the head, and what it answers.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ActorId, NodeId};

/// The token of a grant. Tokens grow: whoever holds a name later has a larger one, so a store that remembers the largest
/// it has seen can refuse what an earlier holder still sends.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A member asks the head. What changes something bears a number, never used for anything else by that member: a
/// repetition has no second effect.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Begins or prolongs the member's lease.
    Renew {
        /// The time in the last answer to a renewal that has arrived. Without it the head could not know that its
        /// answers are lost on the way.
        heard: Option<Duration>,
    },
    /// Asks for a name.
    Claim {
        /// Of this request.
        number: u64,
        /// The name.
        name: String,
        /// Who is to hold it; an actor of the asking member.
        actor: ActorId,
        /// Its registered type.
        actor_type: String,
    },
    /// The actor has ended: whatever it holds is free.
    End {
        /// Of this request.
        number: u64,
        /// An actor of the asking member.
        actor: ActorId,
    },
    /// Puts an actor into a group, or keeps it there.
    Join {
        /// Of this request.
        number: u64,
        /// The group.
        group: GroupName,
        /// An actor of the asking member.
        actor: ActorId,
    },
    /// Takes an actor out of a group.
    Leave {
        /// Of this request.
        number: u64,
        /// The group.
        group: GroupName,
        /// An actor of the asking member.
        actor: ActorId,
    },
    /// Asks who is in a group.
    Members {
        /// The group.
        group: GroupName,
    },
    /// Asks who holds a name.
    Find {
        /// The name.
        name: String,
        /// Only an actor of this registered type is meant.
        actor_type: String,
    },
}

/// The head answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The lease lasts from the moment at which the renewal was sent.
    Renewed {
        /// The head's time, to be repeated in the next renewal.
        at: Duration,
    },
    /// The name is the actor's, until it ends or its node's lease is over.
    Granted(Fence),
    /// Somebody else holds the name.
    Taken(Found),
    /// It is so now.
    Done,
    /// The group is so since change number `at`.
    Changed {
        /// See [`Members::at`].
        at: u64,
    },
    /// Who is in the group.
    Members(Members),
    /// Who holds the name.
    Found(Option<Found>),
    /// The head does not do it.
    Refused(Refusal),
}

/// A group: actors that take one message, under one name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct GroupName {
    /// The user's name for it.
    pub name: String,
    /// The registered name of the message.
    pub message: String,
}

/// Who is in a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// Differs whenever the members do. 0 for an empty group.
    pub version: u64,
    /// The number of the last change of any group that is contained.
    pub at: u64,
    /// The members, each once.
    pub members: Vec<Found>,
}

/// An actor of some node.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Found {
    /// Where it lives.
    pub node: NodeId,
    /// Which it is.
    pub actor: ActorId,
}

/// Why the head refuses a request. Nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The node that was asked is not the head.
    #[error("{head} keeps the directory of the cluster, another node was asked")]
    NotHead {
        /// Who is, as far as the asked node knows.
        head: NodeId,
    },
    /// The member's lease is over, or it never had one. This life of it gets no other.
    #[error("the node's lease with the head is over: what it held is given to others, and it has to end")]
    LeaseOver,
    /// A repetition of a request whose effect is past.
    #[error("the request came a second time, after its effect had ended")]
    Repeated,
    /// The directory, or the group, is full.
    #[error("no room: {limit} entries is the most")]
    Full {
        /// [`limits::DIRECTORY_ENTRIES_MAX`](crate::limits::DIRECTORY_ENTRIES_MAX), or
        /// [`limits::GROUP_MEMBERS_MAX`](crate::limits::GROUP_MEMBERS_MAX).
        limit: u64,
    },
    /// The name cannot be one.
    #[error("a name has 1 to {limit} bytes, not {bytes}")]
    BadName {
        /// Its length.
        bytes: u64,
        /// [`limits::NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX).
        limit: u64,
    },
}
