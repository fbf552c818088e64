//! What the head wants done after a decision, and what has changed since it was last asked.

use std::collections::BTreeSet;

use mobula_core::NodeUid;
use mobula_core::cluster::{DeathProof, JobId, LeaseId, Revision};

use crate::records::Key;

/// What the head's driver has to do, in the order in which it is given.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Write all of this or nothing, in one transaction that is fenced by the head's term. Until it is on disk no answer that was given
    /// since the last effects may leave, nor may anything after it be done. If it cannot be written, the head has to end: what it
    /// knows is not what the store knows.
    Persist(Vec<Write>),
    /// End every connection of this life, and accept none again.
    CutOff(NodeUid),
    /// The node is over, for ever.
    NodeDown {
        /// Which.
        uid: NodeUid,
        /// How that is known.
        proof: DeathProof,
    },
    /// What is to run on this node has changed: it asks for its assignment.
    NodeChanged(NodeUid),
    /// The job's view has changed: its driver asks for it.
    JobChanged(JobId),
    /// A request that waited has its answer: whoever waits asks again.
    Decided(LeaseId),
    /// Something that lists show has changed.
    ViewChanged(Revision),
}

/// One record is to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// It is so now.
    Put {
        /// Which.
        key: String,
        /// Its bytes, with their version.
        value: Vec<u8>,
    },
    /// It is no more.
    Delete {
        /// Which.
        key: String,
    },
}

/// What has changed since the effects were last taken.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) dirty: BTreeSet<Key>,
    pub(crate) cut: BTreeSet<NodeUid>,
    pub(crate) down: Vec<(NodeUid, DeathProof)>,
    pub(crate) nodes: BTreeSet<NodeUid>,
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) decided: BTreeSet<LeaseId>,
    pub(crate) view: bool,
}
