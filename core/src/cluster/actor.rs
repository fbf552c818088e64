//! Actors, as lists of the cluster show them.

use serde::{Deserialize, Serialize};

use super::JobId;
use crate::{ActorAddress, Generation};

/// An actor that lives, or is being restarted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorRow {
    /// Which, and the process that hosts it: a worker, by its uid and the name of its node, or the driver.
    pub actor: ActorAddress,
    /// The job that it belongs to.
    pub job: JobId,
    /// The registered name of its type.
    pub actor_type: String,
    /// Its own name, if it has one.
    pub name: Option<String>,
    /// How often it was restarted.
    pub restarts: Generation,
    /// Messages in its mailbox.
    pub waiting: u64,
}

impl ActorRow {
    /// A row of one without a name that was never restarted and has no mail.
    pub fn new(actor: ActorAddress, job: JobId, actor_type: String) -> Self {
        ActorRow { actor, job, actor_type, name: None, restarts: Generation(0), waiting: 0 }
    }
}
