//! What a node says to the head, and what the head wants of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Executable, GpuShare, HeadTime, JobId, Labels, LeaseId, Resources, Revision, UnixTime, WorkerId};
use crate::{LeaseTimes, NodeUid};

/// A node enters the cluster, or comes back to a head that was away.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// This life of the node. The same again means the same life.
    pub uid: NodeUid,
    /// The operator's name for it; one live node of the cluster has it.
    pub name: Arc<str>,
    /// `HOST:PORT` at which others reach it.
    pub address: String,
    /// What it has to give.
    pub resources: Resources,
    /// What its operator says of it.
    pub labels: Labels,
    /// Cores of the host, whatever of them the node gives.
    pub cores: u32,
    /// Of the program.
    pub version: String,
    /// Of the host, as in `x86_64-linux-gnu`.
    pub architecture: String,
    /// What runs already.
    pub running: Running,
    /// An earlier life of this node on this host that is known to be dead with all its workers, since its daemon holds the lock that the
    /// earlier one held. Frees at once what that life had. Believed of a life from which this one has come back, and of the head's own host.
    pub replaces: Option<NodeUid>,
    /// Of what this life says to the head, counted from 1 together with its heartbeats, as [`Beat::number`].
    #[serde(default)]
    pub number: u64,
}

/// What runs on a node.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The newest [`Assignment`] that has been acted on: what it does not have has ended.
    pub seen: Revision,
    /// Worker processes that have not been reaped.
    pub workers: Vec<RunningWorker>,
    /// Drivers that have not been reaped.
    pub drivers: Vec<NodeUid>,
}

/// A worker process that has not been reaped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RunningWorker {
    /// Which.
    pub uid: WorkerId,
    /// It accepts connections.
    pub ready: bool,
    /// The process.
    pub pid: u32,
}

/// The answer to a [`Registration`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// What is to run.
    pub assignment: Assignment,
    /// The times of the node's lease.
    pub times: LeaseTimes,
    /// The head's time, to be repeated in the next [`Beat`].
    pub at: HeadTime,
}

/// A node lives. Sent every [`LeaseTimes::heartbeat`]; its answer prolongs the node's lease.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Of this life's registrations and heartbeats, counted from 1. What does not come after all that the head has had is a copy that was late or repeated,
    /// and no news. 0 from a node that does not count: always taken for news.
    #[serde(default)]
    pub number: u64,
    /// What runs.
    pub running: Running,
    /// How busy the host is.
    pub used: Usage,
    /// The time in the newest answer that has arrived. Without it the head could not know that its answers are lost on the way.
    pub heard: Option<HeadTime>,
}

/// The answer to a [`Beat`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BeatAnswer {
    /// The head's time, to be repeated in the next beat.
    pub at: HeadTime,
    /// The newest [`Assignment`]; if it is newer than what the node has, it asks for it.
    pub assignment: Revision,
}

/// How busy a host is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Hundredths of one core: 250 is two cores and a half.
    pub cpu_percent: u32,
    /// Bytes of memory in use.
    pub memory_bytes: u64,
    /// Bytes of memory that the host has.
    pub memory_total_bytes: u64,
}

/// All that is to run on a node. The node starts what is missing, ends what is too much, and says what really runs. What processes are started with
/// ([`Launch`]) it asks for when it starts them: so this is small however much that is, and may be sent with every change.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Of this state.
    pub revision: Revision,
    /// Worker processes.
    pub workers: Vec<WorkerSpec>,
    /// Drivers of jobs that were submitted.
    pub drivers: Vec<DriverSpec>,
    /// The node's life is over: everything ends at once, and nothing of it comes back.
    pub fenced: bool,
    /// The node is to leave: when nothing runs any more, it says so and goes.
    pub draining: bool,
}

/// A worker process that is to run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// Its life.
    pub uid: WorkerId,
    /// Whose it is.
    pub job: JobId,
    /// Its place among the workers of the job: from 0, kept over restarts on the same node, given to no other node.
    pub order: u32,
    /// The job's program.
    pub executable: Executable,
    /// It is for the actor of one lease alone.
    #[serde(default)]
    pub isolated: Option<IsolatedWorker>,
    /// The job keeps detached actors: processes of other jobs may call them.
    #[serde(default)]
    pub keeper: bool,
}

/// What a worker process has that is for the actor of one lease alone. It is started once, and never again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct IsolatedWorker {
    /// The lease.
    pub lease: LeaseId,
    /// The GPUs of the node that it may see.
    pub gpus: Vec<GpuShare>,
}

/// A driver that is to run; once, and never again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DriverSpec {
    /// Its life.
    pub uid: NodeUid,
    /// The job that it drives.
    pub job: JobId,
    /// The job's program.
    pub executable: Executable,
    /// The program is to keep detached actors, and its `main` is not to run.
    #[serde(default)]
    pub keeper: bool,
}

/// What the processes of a job are started with, all of them. At most [`JOB_TEXT_BYTES_MAX`](crate::limits::JOB_TEXT_BYTES_MAX).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Of the program, without its name.
    pub arguments: Vec<String>,
    /// Added to the environment.
    pub environment: BTreeMap<String, String>,
}

/// How a node is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodePhase {
    /// It has registered, or the head has come back, and no heartbeat has come since. Nothing new is placed on it.
    Joining,
    /// It takes part.
    Up,
    /// Silent for [`LeaseTimes::suspect_after`]: nothing new is placed on it.
    Suspect,
    /// It finishes what it has, and takes nothing new.
    Draining,
    /// Over, for ever.
    Down,
}

/// How a node's death is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeathProof {
    /// It has said so itself, or its successor on the host has.
    Reaped,
    /// Its lease and the margin are over: if it lives, it has fenced itself.
    Silence,
}

/// A node, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeRow {
    /// This life.
    pub uid: NodeUid,
    /// The operator's name.
    pub name: Arc<str>,
    /// Where others reach it.
    pub address: String,
    /// How it is doing.
    pub phase: NodePhase,
    /// For a node that is down: how that is known.
    pub death: Option<DeathProof>,
    /// What it gives.
    pub total: Resources,
    /// What of that is free.
    pub available: Resources,
    /// What its operator says of it.
    pub labels: Labels,
    /// Cores of the host.
    pub cores: u32,
    /// Of its program.
    pub version: String,
    /// Of the host.
    pub architecture: String,
    /// How busy the host is.
    pub used: Usage,
    /// Worker processes that are to run.
    pub workers: u32,
    /// Leases on it.
    pub leases: u32,
    /// When it came.
    pub since: UnixTime,
    /// How long ago it was heard.
    pub silent: Duration,
}

impl NodeRow {
    /// A row; what is not given is empty.
    pub fn new(uid: NodeUid, name: Arc<str>, phase: NodePhase) -> Self {
        NodeRow {
            uid,
            name,
            address: String::new(),
            phase,
            death: None,
            total: Resources::new(),
            available: Resources::new(),
            labels: Labels::new(),
            cores: 0,
            version: String::new(),
            architecture: String::new(),
            used: Usage::default(),
            workers: 0,
            leases: 0,
            since: UnixTime::default(),
            silent: Duration::ZERO,
        }
    }
}
