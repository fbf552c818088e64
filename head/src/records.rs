//! What is written down, byte by byte: one record for each thing that the head must not forget.
//!
//! A record is one byte for its version, and a MessagePack map. A field may be added with a default; whatever else changes is another version.
//! `head/tests/records.rs` keeps the bytes of every version that ever was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mobula_core::NodeUid;
use mobula_core::cluster::{
    DeathProof, Executable, GpuShare, GroupId, GroupStrategy, JobId, JobKind, JobPhase, Labels, LeaseId, Platform,
    Resources, UnixTime, WorkerId, WorkerPolicy,
};
use mobula_core::codec::{self, EncodeError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of records that this program writes.
pub const RECORD_VERSION: u8 = 1;

/// Why records cannot be read. They stay as they are.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer program has written it.
    #[error(
        "record {key} has version {found}, this program reads versions up to {known}: start a newer one; nothing was changed"
    )]
    Newer {
        /// Which record.
        key: String,
        /// Its version.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
    /// It is not what was written.
    #[error("record {key} is corrupt: {reason}; nothing was changed")]
    Corrupt {
        /// Which record.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RecordError {
    pub(crate) fn corrupt(key: impl fmt::Display, reason: impl fmt::Display) -> Self {
        RecordError::Corrupt { key: key.to_string(), reason: reason.to_string() }
    }
}

/// Which record.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    Meta,
    Node(NodeUid),
    Gone(u64),
    Job(JobId),
    Slot(WorkerPlace),
    Group(GroupId),
    Lease(LeaseId),
    Name(JobId, u64),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Meta => write!(f, "meta"),
            Key::Node(uid) => write!(f, "node/{:016x}", uid.0),
            Key::Gone(number) => write!(f, "gone/{number:016x}"),
            Key::Job(job) => write!(f, "job/{:016x}", job.0),
            Key::Slot(WorkerPlace { job, node, lease: None }) => write!(f, "slot/{:016x}/{:016x}", job.0, node.0),
            Key::Slot(WorkerPlace { job, node, lease: Some(lease) }) => {
                write!(f, "slot/{:016x}/{:016x}/{lease:016x}", job.0, node.0)
            }
            Key::Group(group) => write!(f, "group/{:016x}/{:016x}", group.job.0, group.number),
            Key::Lease(lease) => write!(f, "lease/{:016x}/{:016x}", lease.job.0, lease.number),
            Key::Name(job, number) => write!(f, "name/{:016x}/{number:016x}", job.0),
        }
    }
}

impl Key {
    /// The key that this text is.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        let number = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
        let mut parts = text.split('/');
        let kind = parts.next()?;
        let (first, second, third) = (number(parts.next()), number(parts.next()), number(parts.next()));
        let key = match (kind, first, second) {
            ("meta", None, None) => Key::Meta,
            ("node", Some(uid), None) => Key::Node(NodeUid(uid)),
            ("gone", Some(at), None) => Key::Gone(at),
            ("job", Some(job), None) => Key::Job(JobId(job)),
            ("slot", Some(job), Some(node)) => {
                Key::Slot(WorkerPlace { job: JobId(job), node: NodeUid(node), lease: third })
            }
            ("group", Some(job), Some(number)) => Key::Group(GroupId { job: JobId(job), number }),
            ("lease", Some(job), Some(number)) => Key::Lease(LeaseId { job: JobId(job), number }),
            ("name", Some(job), Some(number)) => Key::Name(JobId(job), number),
            _ => return None,
        };
        // Only as it is written.
        (key.to_string() == text).then_some(key)
    }
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![RECORD_VERSION];
    bytes.extend(codec::encode(record)?);
    Ok(bytes)
}

/// The record that these bytes are.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    let Some((version, body)) = bytes.split_first() else { return Err(RecordError::corrupt(key, "it is empty")) };
    match *version {
        RECORD_VERSION => codec::decode(body).map_err(|error| RecordError::corrupt(key, error)),
        0 => Err(RecordError::corrupt(key, "no version is 0")),
        found => Err(RecordError::Newer { key: key.to_owned(), found, known: RECORD_VERSION }),
    }
}

/// Numbers that are given once.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetaRecord {
    pub(crate) next_job: u64,
    pub(crate) next_gone: u64,
    pub(crate) next_joined: u64,
}

/// A node that is not over.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) uid: NodeUid,
    pub(crate) name: Arc<str>,
    pub(crate) address: String,
    pub(crate) resources: Resources,
    pub(crate) labels: Labels,
    pub(crate) cores: u32,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// The order in which nodes came.
    pub(crate) joined: u64,
    pub(crate) since: UnixTime,
    /// How long it has to finish, if it is to leave.
    pub(crate) drain: Option<Duration>,
    pub(crate) removed: bool,
}

/// A life that is over.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct GoneRecord {
    pub(crate) uid: NodeUid,
    pub(crate) name: Arc<str>,
    pub(crate) at: UnixTime,
    pub(crate) proof: DeathProof,
}

/// A job.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) id: JobId,
    pub(crate) request: u64,
    pub(crate) kind: JobKind,
    pub(crate) entrypoint: String,
    pub(crate) executable: Executable,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) submitter: String,
    pub(crate) workers: WorkerPolicy,
    pub(crate) driver: Option<NodeUid>,
    pub(crate) driver_node: Option<NodeUid>,
    /// The process of a driver on the cluster is known to have ended.
    pub(crate) driver_over: bool,
    /// How it will end, or has.
    pub(crate) outcome: Option<JobPhase>,
    pub(crate) over: bool,
    pub(crate) next_order: u32,
    pub(crate) created: UnixTime,
    pub(crate) ended: Option<UnixTime>,
    /// It keeps detached actors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keeper: bool,
    /// Jobs that do, whose actors its processes may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keepers: Vec<JobId>,
    /// Nodes that had workers of it and have none any more: what those have printed may still come.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) printed_on: BTreeSet<NodeUid>,
    /// What its program was built for, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// The name of a detached actor.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) keeper: JobId,
    pub(crate) number: u64,
    pub(crate) name: String,
}

/// Where a worker is: a job has one on a node for all its actors there, and one for each isolated lease.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct WorkerPlace {
    pub(crate) job: JobId,
    pub(crate) node: NodeUid,
    /// The number of the isolated lease.
    pub(crate) lease: Option<u64>,
}

impl WorkerPlace {
    /// That of all actors of a job on a node, but for the isolated ones.
    pub(crate) fn shared(job: JobId, node: NodeUid) -> Self {
        WorkerPlace { job, node, lease: None }
    }

    /// The isolated lease whose place it is.
    pub(crate) fn lease_id(self) -> Option<LeaseId> {
        self.lease.map(|number| LeaseId { job: self.job, number })
    }
}

/// The place of a job's worker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) job: JobId,
    pub(crate) node: NodeUid,
    pub(crate) order: u32,
    /// The worker that is not known to have ended.
    pub(crate) worker: Option<WorkerId>,
    /// The number of the isolated lease, if it is for that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<u64>,
}

impl SlotRecord {
    pub(crate) fn place(&self) -> WorkerPlace {
        WorkerPlace { job: self.job, node: self.node, lease: self.lease }
    }
}

/// A placement group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) id: GroupId,
    pub(crate) bundles: Vec<Resources>,
    pub(crate) strategy: GroupStrategy,
    /// For each bundle.
    pub(crate) places: Vec<Option<BundlePlace>>,
    /// It was given back, and workers of isolated leases in it have not been reaped yet: only bundles with such have a place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

/// Where a bundle is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct BundlePlace {
    pub(crate) node: NodeUid,
    pub(crate) gpus: Vec<GpuShare>,
}

/// A lease.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) id: LeaseId,
    pub(crate) node: NodeUid,
    pub(crate) resources: Resources,
    pub(crate) gpus: Vec<GpuShare>,
    pub(crate) bundle: Option<(GroupId, u32)>,
    /// It has a worker of its own, and ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) isolated: bool,
    /// It was given back, and its worker has not been reaped yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) released: bool,
}

impl LeaseRecord {
    /// The worker in which its actor is.
    pub(crate) fn worker_place(&self) -> WorkerPlace {
        let lease = self.isolated.then_some(self.id.number);
        WorkerPlace { job: self.id.job, node: self.node, lease }
    }
}
