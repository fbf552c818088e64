//! The process that makes a host a node of a cluster: it joins, keeps the host's one port, and runs the processes of jobs. One of the nodes is the
//! head as well, and keeps what all have agreed on.
//!
//! Start at [`run`]. `membership` is how a node comes in and stays, `agent` its lease, `processes` and `child` what runs on it, `door` its port; `keeper` drives the head's decisions
//! (`mobula-head`), and `service` answers those who ask, `answers` with decisions alone.
mod agent;
mod answers;
mod bells;
mod cgroup;
mod child;
mod door;
mod error;
mod holder;
mod host;
mod job_logs;
mod keeper;
mod local_door;
mod membership;
mod name_wait;
mod node;
mod nodes;
mod options;
mod output;
mod people;
mod processes;
mod programs;
mod questions;
mod service;
#[cfg(feature = "etcd")]
mod several;

pub use cgroup::{Cgroups, cgroups};
pub use error::DaemonError;
pub use holder::Holder;
pub use host::memory_bytes;
pub use membership::kept_membership;
pub use node::{listening_at, run};
pub use options::{HEAD_PORT, NODE_PORT, NodeOptions, NodePart, PROGRAMS_BYTES_MAX, Ready};

/// For simulations; no promise holds for it.
#[doc(hidden)]
pub mod private {
    pub use crate::agent::{About, Agent, End, Hosted};
    pub use crate::answers::{Answers, Trust};
    pub use crate::keeper::{Keeper, Outside};
    pub use crate::processes::tell_of_end;
}
