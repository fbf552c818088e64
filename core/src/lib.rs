//! The words that every other crate of Mobula speaks: ids, the remote message trait, frames and their
//! MessagePack bodies, limits, errors that tell whether a retry is safe, and deadlines.
//!
//! This crate knows no clock, no socket and no actix. Time, where it matters, is an argument.
//! Bytes on the wire are specified in `docs/protocol.md`; its worked examples are read by the tests here.
mod child_lease;
pub mod cluster;
pub mod codec;
mod deadline;
pub mod directory;
mod error;
mod exit;
pub mod frame;
mod hash;
mod ids;
pub mod limits;
mod links;
mod message;
pub mod packing;
mod panic;
#[doc(hidden)]
pub mod planted;
pub mod prescan;
#[doc(hidden)]
pub mod readable;
mod rendezvous;
mod restart;
mod small;
mod split_mix;
mod stuck;
mod supervision;
pub mod text;

pub use child_lease::ChildLeases;
pub use deadline::{Budget, Deadline};
pub use directory::{Fence, LeaseTimes};
pub use error::{CallError, Never, Outcome};
pub use exit::ExitReason;
pub use hash::{IdHasher, IdMap, schema_hash};
pub use ids::{ActorAddress, ActorId, Generation, MessageKey, NodeId, NodeUid, RequestId};
pub use links::{LinkTable, TooManyLinks};
pub use message::RemoteMessage;
pub use panic::panic_text;
pub use rendezvous::{rendezvous, rendezvous_score};
pub use restart::{Decision, RestartBudget, RestartPolicy, backoff};
pub use split_mix::SplitMix64;
pub use stuck::{Busy, StuckWatch, Work};
pub use supervision::{ChildError, ChildKey, ChildState, Effect, RestartType, Strategy, Supervision};
