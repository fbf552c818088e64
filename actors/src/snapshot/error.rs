//! What goes wrong with snapshots.

use serde::{Deserialize, Serialize};

/// A snapshot could not be taken, written, read or used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The store does not do what it was asked.
    #[error("the snapshot store failed: {reason}")]
    Store {
        /// What it said.
        reason: String,
    },
    /// The bytes are not those that were written. They are left as they are.
    #[error("the snapshot is corrupt: {reason}")]
    Corrupt {
        /// What is wrong.
        reason: String,
    },
    /// A newer build wrote it. It is left as it is.
    #[error("the snapshot has format {version}, this build knows {known}: run the build that wrote it, or a later one")]
    NewerFormat {
        /// That of the snapshot.
        version: u32,
        /// The latest that this build reads.
        known: u32,
    },
    /// The state cannot be written down.
    #[error("the state cannot be encoded: {reason}")]
    Encode {
        /// What failed.
        reason: String,
    },
    /// The state that was saved is not one of this build's.
    #[error("the saved state does not fit the actor's: {reason}")]
    State {
        /// What was found.
        reason: String,
    },
    /// The state is too large.
    #[error("a snapshot of {bytes} bytes, at most {limit} are written")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// [`SNAPSHOT_BYTES_MAX`](mobula_core::limits::SNAPSHOT_BYTES_MAX).
        limit: u64,
    },
    /// Another actor holds the identity by now: this one saves nothing any more.
    #[error("a later actor holds the identity: holder {later} of it, this is {own}")]
    Fenced {
        /// The number of this holder.
        own: u64,
        /// The number of the latest.
        later: u64,
    },
    /// The executable does not say how the actor's state is taken.
    #[error("no snapshots of `{actor_type}` are registered: add `mobula::register_snapshot!` beside the actor")]
    NotRegistered {
        /// The registered name of the actor's type.
        actor_type: String,
    },
    /// Nobody saves here: the code does not run in a handler of an actor with snapshots, or the actor has ended.
    #[error("no actor with snapshots is running here")]
    NoSnapshots,
}
