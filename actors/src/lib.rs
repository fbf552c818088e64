//! Actors, near and far: one mailbox, one kind of reference, one supervision.
//!
//! A [`Node`] hosts actors on its arbiters. [`ActorRef`] calls an actor wherever it lives. [`RemoteActor`] says what
//! may be called from afar, [`RemoteTask`] what may be run as a task by the node's task actors. `cell` is the only
//! module that touches actix's internals.
//!
//! Promises: `docs/semantics.md`. This crate knows connections only as [`mobula_transport::Link`]s; who is in the
//! cluster, and where something is placed, is decided elsewhere.
mod acceptance;
mod actor;
mod actor_ref;
mod ask;
mod begin;
mod call_context;
mod cell;
mod chance;
mod child;
mod child_lease;
mod compress;
mod control;
mod dead_letter;
mod directory;
mod encode_local;
mod envelope;
mod expiry;
mod far;
mod forward;
mod graceful;
mod group;
mod guest;
mod inbound;
mod keyed;
mod late;
mod leaving;
mod link;
mod mailbox;
mod monitor;
mod node;
mod placing;
mod recipient;
mod registry;
mod reply;
mod requests;
mod respond;
mod router;
mod scope;
mod serving;
mod sessions;
pub mod shapes;
mod snapshot;
mod spares;
mod spawn;
mod stash;
mod stream;
mod stuck;
mod supervised;
mod supervisor;
mod task;
mod threads;
mod timers;
mod tree;
mod vitals;
mod waiting;
mod way;

pub use actor::{ActorSpec, MessageTable, Placement, RemoteActor};
pub use actor_ref::ActorRef;
pub use ask::{Ask, FlatAsk, Tell};
pub use call_context::{CallContext, current_call};
pub use child::{ChildInfo, ChildSpec, SupervisorError, SupervisorSpec};
pub use control::{NodeReport, SpawnError};
pub use dead_letter::DeadLetter;
pub use forward::Forward;
pub use group::{Group, GroupEvent, GroupEvents};
pub use keyed::{KeyedActor, KeyedRef};
pub use link::{Exit, Linking, trap_exits};
pub use mailbox::MailboxPolicy;
pub use mobula_core::{Fence, LeaseTimes, schema_hash};
pub use monitor::{Down, Monitor, MonitorGuard, MonitorRef};
pub use node::{Node, NodeConfig, NodeError, NodeLink, WeakNode};
pub use placing::{Demand, Granted, LeaseAnswer, LeaseRequest, Lessor, NodeResources, PlacementError, Seat};
pub use recipient::Recipient;
pub use registry::{ActorEntry, KeyedEntry, Registry, RegistryError, TaskEntry};
pub use reply::Pending;
pub use router::{AskAll, MemberId, RoutedAsk, Routee, Router, RouterKeeper, Routing, Takes};
pub use scope::{current_node, fence, granted, put_off_stop, stop_with, this};
pub use snapshot::{
    MemorySnapshots, SaveSnapshot, Snapshot, SnapshotEntry, SnapshotError, SnapshotFailure, SnapshotPolicy,
    SnapshotStore, save_snapshot,
};
pub use stash::{Stashable, unstash_all};
pub use stream::{ItemSender, ReplyItems, ReplyStream, StreamMessage};
pub use stuck::{StuckActor, ThreadLook};
pub use supervised::Orphans;
pub use supervisor::{AddChild, Children, DeleteChild, RestartChild, Supervisor, TerminateChild};
pub use task::{RemoteTask, Run, TaskError, TaskPanicked, TaskRunner, TaskSpec};
pub use timers::{Timer, Timers, timers};
pub use tree::{ActorList, SupervisionTree, TreeActor};
pub use vitals::Restarted;

#[doc(hidden)]
pub mod private {
    pub use inventory;

    /// For the macro of keyed actors: only what can be saved is.
    pub fn saved_as<A: crate::Snapshot>(policy: crate::SnapshotPolicy) -> Option<crate::SnapshotPolicy> {
        Some(policy)
    }
}
