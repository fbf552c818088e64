//! Why the head does not do what it was asked for. Nothing has changed then.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BadFlag, GroupId, Infeasible, JobId, LeaseId, Platform};
use crate::{NodeUid, Outcome};

/// The head does not do it, and nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refused {
    /// This life of the node is over: down, drained or removed. It ends, and may come back with another uid.
    #[error("the life {uid} of the node is over for ever: it has to end, and to come back with a new one")]
    Gone {
        /// Which.
        uid: NodeUid,
    },
    /// The node's lease is over. It fences itself; soon it is [`Gone`](Self::Gone).
    #[error("the lease of node {uid} is over: it has to end what runs on it, and to come back with a new life")]
    LeaseOver {
        /// Which.
        uid: NodeUid,
    },
    /// The head does not know this node: it registers.
    #[error("the head does not know node {uid}: register it first")]
    NotRegistered {
        /// Which.
        uid: NodeUid,
    },
    /// Another live node has the name.
    #[error("the name {name} belongs to node {holder}: choose another, or try again in {} ms if that one has ended", retry_after.as_millis())]
    NameInUse {
        /// The name.
        name: Arc<str>,
        /// Who has it.
        holder: NodeUid,
        /// When it is free at the latest, if its holder is dead.
        retry_after: Duration,
        /// `HOST:PORT` at which its holder is reached; empty from a head that does not say so.
        #[serde(default)]
        address: String,
    },
    /// The uid belongs to something else in the cluster.
    #[error("the uid {uid} belongs to something else: draw another")]
    UidInUse {
        /// Which.
        uid: NodeUid,
    },
    /// There is no such node.
    #[error("there is no node {uid}")]
    NoSuchNode {
        /// Which was asked for.
        uid: NodeUid,
    },
    /// There is no such job, or it was over so long ago that it is forgotten.
    #[error("there is no {job}, or it is over and forgotten")]
    NoSuchJob {
        /// Which was asked for.
        job: JobId,
    },
    /// The job is over or about to be.
    #[error("{job} has ended or is ending")]
    JobEnded {
        /// Which.
        job: JobId,
    },
    /// Another process drives the job.
    #[error("{job} is driven by another process")]
    NotTheDriver {
        /// Which.
        job: JobId,
    },
    /// There is no such placement group.
    #[error("there is no placement group {group}")]
    NoSuchGroup {
        /// Which was asked for.
        group: GroupId,
    },
    /// The group has no such bundle.
    #[error("placement group {group} has {bundles} bundles, counted from 0")]
    NoSuchBundle {
        /// Which group.
        group: GroupId,
        /// How many it has.
        bundles: u32,
    },
    /// The bundle can never give so much.
    #[error("no bundle of placement group {group} that was asked for has so much")]
    BundleTooSmall {
        /// Which group.
        group: GroupId,
    },
    /// No node can ever give so much.
    #[error("{0}")]
    Infeasible(Box<Infeasible>),
    /// No room came free in time.
    #[error("{lease} has waited for its time without a place: safe to ask again with a new number")]
    WaitedInVain {
        /// Which.
        lease: LeaseId,
    },
    /// A repetition of a request whose effect is past.
    #[error("{lease} was given and is over: a new one needs a new number")]
    Repeated {
        /// Which.
        lease: LeaseId,
    },
    /// The same number was used for something else.
    #[error("the number of this request was used for another: draw a new one")]
    OtherRequest,
    /// The head keeps no more of these.
    #[error("the head has {limit} {what} at most: safe to try again later")]
    Full {
        /// Of what.
        what: String,
        /// How many.
        limit: u64,
    },
    /// Something is too long.
    #[error("{what} has {bytes} bytes, {limit} are the most")]
    TooLong {
        /// What.
        what: String,
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        limit: u64,
    },
    /// Something is not valid.
    #[error(transparent)]
    Bad(#[from] BadFlag),
    /// The process of an isolated lease has ended, and the lease with it.
    #[error("the process of {lease} has ended, and its output may say why: {reason}")]
    ProcessEnded {
        /// Which.
        lease: LeaseId,
        /// How, as in `exit status 101` or `signal 9`.
        reason: String,
    },
    /// A detached actor has the name.
    #[error(
        "the name `{name}` belongs to a detached actor that {keeper} keeps: find it, stop it, or choose another name"
    )]
    NameHeld {
        /// The name.
        name: String,
        /// The job that keeps the actor.
        keeper: JobId,
    },
    /// Only a job that the head has begun for it keeps detached actors.
    #[error("{job} keeps no detached actors")]
    NotAKeeper {
        /// Which was asked.
        job: JobId,
    },
    /// No node can start the program.
    #[error("the program is built for {program}, and no node can start that: found {}; build it for one of these, or add a node", nodes.join(", "))]
    WrongPlatform {
        /// What it is built for.
        program: Platform,
        /// What nodes are, each kind once; [`limits::SHORTFALLS_MAX`](crate::limits::SHORTFALLS_MAX) of them.
        nodes: Vec<String>,
    },
}

impl Refused {
    /// Nothing has changed, so repeating does no harm; whether it helps is said by the error.
    pub fn outcome(&self) -> Outcome {
        Outcome::NotStarted
    }

    /// True if the same request can be granted later, without anything else being done.
    pub fn may_pass(&self) -> bool {
        matches!(self, Refused::NameInUse { .. } | Refused::Full { .. } | Refused::NameHeld { .. })
    }
}
