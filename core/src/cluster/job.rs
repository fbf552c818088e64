//! Jobs: what is asked for, and how they are doing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Executable, JobId, Labels, LeaseId, Platform, Resources, Revision, UnixTime, WorkerId};
use crate::NodeUid;

/// A job is to begin.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Drawn by whoever asks, and used for nothing else: the same again from the same submitter is the same job.
    pub request: u64,
    /// Where its driver runs.
    pub kind: JobKind,
    /// The command as its user gave it, for people.
    pub entrypoint: String,
    /// The program that its workers run, and its driver if that is on the cluster.
    pub executable: Executable,
    /// Of the program, without its name.
    pub arguments: Vec<String>,
    /// Added to the environment of its processes.
    pub environment: BTreeMap<String, String>,
    /// Who asks, as the connection has proven it.
    pub submitter: String,
    /// Where its worker processes are.
    pub workers: WorkerPolicy,
    /// What its program was built for: it is placed only where that runs. None for one that is not known, which is placed anywhere.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// Where a job's driver runs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JobKind {
    /// Outside: the process with this life asks, and is to be heard of within each lease.
    Outside {
        /// The driver's life.
        driver: NodeUid,
    },
    /// On a node that has this free. It is started once; if that node is lost, the job has failed.
    OnCluster {
        /// For the driver, as long as it runs.
        resources: Resources,
    },
}

/// Where a job's worker processes are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerPolicy {
    /// One on every node.
    #[default]
    EveryNode,
    /// One on every node on which the job has a lease.
    WhereLeased,
}

/// How a job is doing.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum JobPhase {
    /// Its driver waits for a node.
    Pending,
    /// Its driver runs.
    Running,
    /// Its driver has ended or is to end, and its processes are ending.
    Stopping,
    /// Its driver has ended with status 0.
    Succeeded,
    /// Its driver has ended in another way.
    Failed {
        /// How.
        reason: String,
    },
    /// Somebody has stopped it.
    Stopped,
}

impl JobPhase {
    /// True if it stays so.
    pub fn is_over(&self) -> bool {
        matches!(self, JobPhase::Succeeded | JobPhase::Failed { .. } | JobPhase::Stopped)
    }
}

impl fmt::Display for JobPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobPhase::Pending => "pending",
            JobPhase::Running => "running",
            JobPhase::Stopping => "stopping",
            JobPhase::Succeeded => "succeeded",
            JobPhase::Failed { reason } => return write!(f, "failed: {reason}"),
            JobPhase::Stopped => "stopped",
        })
    }
}

/// How a driver has ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DriverStatus {
    /// With status 0.
    Succeeded,
    /// In another way.
    Failed {
        /// How, as in `exit status 101` or `signal 9`.
        reason: String,
    },
}

/// A job, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRow {
    /// Which.
    pub id: JobId,
    /// How it is doing.
    pub phase: JobPhase,
    /// The command as its user gave it, cut at [`JOB_ROW_TEXT_BYTES_MAX`](crate::limits::JOB_ROW_TEXT_BYTES_MAX).
    pub entrypoint: String,
    /// Who asked for it.
    pub submitter: String,
    /// Its program.
    pub executable: Executable,
    /// The life of its driver, if it has begun.
    pub driver: Option<NodeUid>,
    /// The node of its driver, if that is on the cluster.
    pub driver_node: Option<NodeUid>,
    /// Worker processes that are to run.
    pub workers: u32,
    /// Leases that it holds.
    pub leases: u32,
    /// When it was asked for.
    pub created: UnixTime,
    /// When it was over.
    pub ended: Option<UnixTime>,
}

impl JobRow {
    /// A row; what is not given is empty.
    pub fn new(id: JobId, phase: JobPhase, executable: Executable) -> Self {
        JobRow {
            id,
            phase,
            entrypoint: String::new(),
            submitter: String::new(),
            executable,
            driver: None,
            driver_node: None,
            workers: 0,
            leases: 0,
            created: UnixTime::default(),
            ended: None,
        }
    }
}

/// How a worker process is doing.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WorkerPhase {
    /// It is to run, and has not said that it is ready.
    Starting,
    /// It accepts connections.
    Ready,
    /// It is over; another begins in its place if the job still runs.
    Ended {
        /// How.
        reason: String,
    },
}

/// A worker process, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// This life.
    pub uid: WorkerId,
    /// Whose it is.
    pub job: JobId,
    /// Where it is.
    pub node: NodeUid,
    /// Its place among the workers of the job.
    pub order: u32,
    /// How it is doing.
    pub phase: WorkerPhase,
    /// The process, once it is known.
    pub pid: Option<u32>,
    /// How often workers in its place have ended before it, since the head's start.
    pub restarts: u32,
    /// The lease for whose actor alone it is; none for all other actors and the tasks of its job.
    #[serde(default)]
    pub lease: Option<LeaseId>,
}

impl WorkerRow {
    /// A row of a worker that has not begun.
    pub fn new(uid: WorkerId, job: JobId, node: NodeUid, order: u32) -> Self {
        WorkerRow { uid, job, node, order, phase: WorkerPhase::Starting, pid: None, restarts: 0, lease: None }
    }
}

/// All that a job's driver has to know.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobView {
    /// Of this state.
    pub revision: Revision,
    /// Which job.
    pub job: JobId,
    /// How it is doing.
    pub phase: JobPhase,
    /// The life of its driver, if it has begun.
    pub driver: Option<NodeUid>,
    /// Its workers, by their order.
    pub workers: Vec<JobWorker>,
    /// Jobs that keep detached actors which its processes may call.
    #[serde(default)]
    pub keepers: Vec<JobId>,
}

impl JobView {
    /// A view.
    pub fn new(
        revision: Revision,
        job: JobId,
        phase: JobPhase,
        driver: Option<NodeUid>,
        workers: Vec<JobWorker>,
    ) -> Self {
        JobView { revision, job, phase, driver, workers, keepers: Vec::new() }
    }
}

/// A detached actor, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetachedRow {
    /// Its name.
    pub name: String,
    /// The job that keeps it.
    pub keeper: JobId,
    /// The life of the node on which that job's driver is, with which the actor would end.
    pub driver_node: Option<NodeUid>,
}

impl DetachedRow {
    /// A row.
    pub fn new(name: String, keeper: JobId, driver_node: Option<NodeUid>) -> Self {
        DetachedRow { name, keeper, driver_node }
    }
}

/// A worker, and how to reach it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct JobWorker {
    /// The worker.
    pub worker: WorkerRow,
    /// The name of its node.
    pub node_name: std::sync::Arc<str>,
    /// `HOST:PORT` of its node.
    pub address: String,
    /// Task slots: whole cores that its node gives, at least one.
    pub cpus: u32,
    /// What its node gives.
    #[serde(default)]
    pub resources: Resources,
    /// What is said of its node.
    #[serde(default)]
    pub labels: Labels,
}
