//! Ray's programming model in Rust: stateful actors and stateless tasks, written as plain Rust, that run anywhere on a
//! cluster.
//!
//! ```
//! use mobula::prelude::*;
//!
//! struct Counter {
//!     count: i64,
//! }
//!
//! #[mobula::actor]
//! impl Counter {
//!     fn new(start: i64) -> Self {
//!         Counter { count: start }
//!     }
//!     fn increment(&mut self, by: i64) -> i64 {
//!         self.count += by;
//!         self.count
//!     }
//! }
//!
//! #[mobula::task]
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! #[mobula::main]
//! async fn main() -> mobula::Result<()> {
//!     let cluster = Cluster::connect().await?; // in this process; `Cluster::local(3)` starts three of it
//!     let hits = cluster.spawn(Counter::actor(5)).await?;
//!     assert_eq!(hits.increment(1).await?, 6);
//!     assert_eq!(cluster.submit(square::task(4)).await?, 16);
//!     Ok(())
//! }
//! ```
//!
//! The plain actix way is the same thing by hand: an [`actix::Actor`], a [`Handler`](actix::Handler) for each message,
//! `#[derive(RemoteMessage)]` on the messages, and one [`remote_actor!`] line that lists what may come from other nodes.
//!
//! Nothing but re-exports lives here. Promises: `docs/semantics.md`.
pub use actix;
pub use mobula_actors::{
    ActorEntry, ActorRef, ActorSpec, Ask, CallContext, DeadLetter, Down, FlatAsk, MailboxPolicy, MessageTable, Monitor,
    Node, NodeReport, Placement, Recipient, RemoteActor, RemoteTask, SpawnError, TaskEntry, TaskError, TaskSpec, Tell,
    current_call, current_node, register_actor, register_task, remote_actor, shapes, this,
};
pub use mobula_actors::{
    ActorList, AddChild, ChildInfo, ChildSpec, Children, DeleteChild, Exit, Linking, MonitorGuard, MonitorRef, Orphans,
    RestartChild, Restarted, SupervisionTree, Supervisor, SupervisorError, SupervisorSpec, TerminateChild, TreeActor,
    put_off_stop, stop_with, trap_exits,
};
pub use mobula_actors::{AskAll, MemberId, RoutedAsk, Routee, Router, RouterKeeper, Routing, Takes};
pub use mobula_actors::{Demand, Granted, NodeResources, PlacementError, granted};
pub use mobula_actors::{Fence, Group, GroupEvent, GroupEvents, fence};
pub use mobula_actors::{Forward, ItemSender, ReplyItems, ReplyStream, StreamMessage};
pub use mobula_actors::{KeyedActor, KeyedEntry, KeyedRef, keyed_actor};
pub use mobula_actors::{
    MemorySnapshots, SaveSnapshot, Snapshot, SnapshotEntry, SnapshotError, SnapshotFailure, SnapshotPolicy,
    SnapshotStore, register_snapshot, save_snapshot,
};
pub use mobula_actors::{Stashable, Timer, Timers, timers, unstash_all};
pub use mobula_actors::{StuckActor, ThreadLook};
pub use mobula_cluster::{Cluster, ClusterBuilder, ClusterError, MainResult, NodeInfo, ObjectRef, run_main};
pub use mobula_cluster::{NodeEvents, NodeState, PlacementGroup, Pool, PoolBuilder};
pub use mobula_core::cluster::{
    Amount, GpuShare, GroupId, GroupPhase, GroupStrategy, Infeasible, LabelSelector, Labels, LeaseId,
    PlacementGroupRow, Refused, Resources, ToAmount,
};
pub use mobula_core::{
    ActorAddress, ActorId, CallError, ExitReason, Generation, Never, NodeId, NodeUid, Outcome, RemoteMessage,
    RestartPolicy, limits, schema_hash,
};
pub use mobula_core::{ChildError, ChildState, RestartType, Strategy, Work};
pub use mobula_macros::{RemoteMessage, actor, main, task};
pub use serde;

/// Any error of a program: what `?` makes of all of them.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of a program's `main`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most programs need.
pub mod prelude {
    pub use crate::{
        ActorRef, CallError, Cluster, NodeId, ObjectRef, Outcome, Pool, Recipient, RemoteActor, RemoteMessage,
        RemoteTask, Router, SpawnError, TaskError,
    };
}

/// The programs in these pages are compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/book/from-actix.md")]
    struct FromActix;
    #[doc = include_str!("../../docs/book/from-ray-actors.md")]
    struct FromRayActors;
    #[doc = include_str!("../../docs/book/counted-lines.md")]
    struct CountedLines;
    #[doc = include_str!("../../docs/book/resources.md")]
    struct ResourcesAndPlacement;
    #[doc = include_str!("../../docs/book/from-erlang-and-akka.md")]
    struct FromErlangAndAkka;
}
