//! What has happened, for the trace and for the oracles.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{JobId, LeaseId};

use crate::params::Time;

/// Something has happened.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A head has begun, with these leases and jobs among its records.
    HeadBegins {
        /// Its leases, and where they are.
        leases: BTreeMap<LeaseId, NodeUid>,
        /// Its jobs, and whether each is over or about to be.
        jobs: BTreeMap<JobId, bool>,
        /// What it knows of detached actors.
        kept: Kept,
    },
    /// The head was killed.
    HeadEnds,
    /// The head has answered a node, and not refused it.
    Accepted {
        /// The node.
        uid: NodeUid,
        /// It has said this after all else that had come from it.
        is_news: bool,
    },
    /// The head says that a node is over.
    Down {
        /// The node.
        uid: NodeUid,
        /// Only by its silence.
        silence: bool,
        /// For how long the node and the head had not been able to talk to each other, at most, in the time before.
        undisturbed: Option<Time>,
    },
    /// The last answer of the head reached a node so long ago that it ended all that ran on it.
    Fenced {
        /// The node.
        uid: NodeUid,
        /// How long ago it was that it had sent what was answered last.
        unanswered: Time,
    },
    /// A process has begun.
    Begins {
        /// Its uid.
        process: NodeUid,
        /// Where.
        node: NodeUid,
        /// Of which machine.
        host: u32,
        /// Whose.
        job: JobId,
        /// What it is for.
        role: Role,
    },
    /// A process has done something.
    Acts {
        /// Which.
        process: NodeUid,
    },
    /// A process has ended.
    Ends {
        /// Which.
        process: NodeUid,
        /// Its node was told to end it, while it would have gone on.
        told: bool,
    },
    /// A client has asked for a job to begin, and has its answer.
    JobGiven {
        /// Whose request.
        client: u32,
        /// The number of the request.
        request: u64,
        /// The answer.
        job: JobId,
    },
    /// There is a reason for the job to end: its client wants it, or is silent, or its driver has ended.
    JobMayEnd {
        /// Which.
        job: JobId,
    },
    /// A client hears that its job has ended.
    JobHasEnded {
        /// Which.
        job: JobId,
    },
    /// A client wants a lease.
    LeaseAsked {
        /// Which.
        lease: LeaseId,
        /// Cores, in ten-thousandths.
        parts: u64,
    },
    /// A client has been given a lease.
    LeaseGiven {
        /// Which.
        lease: LeaseId,
        /// Where.
        node: NodeUid,
        /// Cores, in ten-thousandths.
        parts: u64,
    },
    /// A client gives a lease back.
    LeaseReturned {
        /// Which.
        lease: LeaseId,
        /// The head has said that it is so.
        done: bool,
    },
    /// The head has said which job keeps the detached actors of the program of another.
    KeeperGiven {
        /// Who may call them.
        by: JobId,
        /// Which keeps them.
        keeper: JobId,
    },
    /// A keeper wants a name for an actor.
    NameAsked {
        /// Who.
        keeper: JobId,
        /// The number that it has drawn.
        number: u64,
        /// Which.
        name: &'static str,
    },
    /// The head has said that the name is the keeper's.
    NameGiven {
        /// Whose.
        keeper: JobId,
        /// The number that it has drawn.
        number: u64,
        /// Which.
        name: &'static str,
    },
    /// The actor of a name begins.
    ActorBegins {
        /// Whose.
        keeper: JobId,
        /// The number of its name.
        number: u64,
        /// In which process.
        process: NodeUid,
    },
    /// The actor of a name has ended, or nobody wants it any more, and its name is given back.
    NameLetGo {
        /// Whose.
        keeper: JobId,
        /// The number of its name.
        number: u64,
    },
    /// The head has said that the name is free again.
    NameReturned {
        /// Whose it was.
        keeper: JobId,
        /// Its number.
        number: u64,
    },
    /// A node may lose its workers: it is drained or removed.
    NodeMayEnd {
        /// Which.
        uid: NodeUid,
    },
    /// A cut or a pause is over. `node` is what the host's life was when it began.
    Heals {
        /// Which life.
        node: NodeUid,
        /// How long it was.
        lasted: Time,
        /// The host still believes in that life.
        lives_on: bool,
        /// The head, which has run meanwhile, does.
        believed: bool,
        /// The head was there all the time.
        head_was_there: bool,
    },
    /// Everything has been quiet for long enough.
    Rest {
        /// For each machine: its life, whether the head has it as up, and its processes.
        hosts: Vec<RestHost>,
        /// For each job that runs: its workers as the head sees them.
        jobs: BTreeMap<JobId, BTreeMap<NodeUid, NodeUid>>,
        /// The leases that the head has.
        leases: BTreeMap<LeaseId, NodeUid>,
        /// The workers of isolated leases, as the head sees them, and where.
        isolated: BTreeMap<LeaseId, (NodeUid, NodeUid)>,
        /// What the head knows of detached actors; the keepers are those that run.
        kept: Kept,
        /// The names of actors that live, and their keepers.
        served: BTreeMap<String, JobId>,
        /// For each node: what of its cores the head takes for given, and what is given by leases that are held.
        given: BTreeMap<NodeUid, (u64, u64)>,
        /// Requests of clients and keepers without an answer.
        unanswered: u32,
    },
}

/// What a head knows of detached actors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The jobs that keep them, and whether each is over or about to be.
    pub keepers: BTreeMap<JobId, bool>,
    /// Their names, and who keeps each.
    pub names: BTreeMap<String, JobId>,
    /// Which jobs may call those of which keepers.
    pub guests: BTreeSet<(JobId, JobId)>,
}

/// A machine at rest.
#[derive(Clone, Debug)]
pub(crate) struct RestHost {
    /// Which.
    pub host: u32,
    /// Its node's life.
    pub uid: Option<NodeUid>,
    /// The head has it as up.
    pub is_up: bool,
    /// What runs on it: whose, and what for.
    pub processes: BTreeMap<NodeUid, (JobId, Role)>,
}

/// What a process is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// It drives its job.
    Driver,
    /// It is the job's worker on its node, in this order.
    Worker(u32),
    /// It is the worker of one lease alone.
    Isolated(LeaseId),
}
