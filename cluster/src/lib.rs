//! From nodes to a cluster: who belongs to it, where actors and tasks are placed, and how node processes are started,
//! joined and ended.
//!
//! [`Cluster`] is the handle that programs use. [`run_main`] makes one executable serve as driver and as node.
//! Placement and the task queue decide without I/O; `process` and `node_process` are the two ends of a started node.
mod builder;
mod cluster;
mod driver;
mod error;
mod handover;
mod keepers;
mod leases;
mod meeting;
mod members;
mod mesh;
mod node_events;
mod node_process;
mod own_processes;
mod peers;
mod pool;
mod process;
mod run_main;
mod task_pool;
mod task_queue;
mod tell_actors;
mod watch;
mod worker_process;

/// For tests that start and connect nodes themselves, and for the daemons that start the processes of jobs.
#[doc(hidden)]
pub mod private {
    pub use crate::driver::{driver_variable, live_workers};
    pub use crate::keepers::FollowedKeepers;
    pub use crate::peers::{Addresses, connect, open_door};
}

pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use error::ClusterError;
pub use leases::PlacementGroup;
pub use members::{NodeInfo, NodeState};
pub use node_events::NodeEvents;
pub use pool::{Pool, PoolBuilder};
pub use run_main::{MainResult, run_main};
pub use task_pool::ObjectRef;
