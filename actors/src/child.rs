//! Trees of supervisors as data: what a supervisor is made from.

use std::time::Duration;

use mobula_core::{ActorAddress, ChildError, ChildState, RestartPolicy, RestartType, Strategy, codec, limits};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::actor::{ActorSpec, RemoteActor, SpawnOptions};
use crate::placing::Demand;
use crate::supervised::Orphans;
use crate::supervisor::Supervisor;

/// What a supervisor is made from: its children, and what it does when one of them fails.
///
/// It is plain data. A supervisor can live on any node, be restarted, and be the child of another:
///
/// ```ignore
/// let inner = SupervisorSpec::new(Strategy::OneForAll).child(ChildSpec::new("cache", Cache::actor()));
/// let outer = SupervisorSpec::new(Strategy::OneForOne)
///     .child(ChildSpec::new("inner", Supervisor::spec(inner)))
///     .child(ChildSpec::new("door", Door::actor()).transient());
/// let supervisor = cluster.spawn(Supervisor::spec(outer)).await?;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SupervisorSpec {
    pub(crate) strategy: Strategy,
    pub(crate) policy: RestartPolicy,
    pub(crate) children: Vec<ChildSpec>,
}

impl SupervisorSpec {
    /// A supervisor without children. It allows 3 restarts in 10 s, all children together; with one more it stops them
    /// and ends with the failure as its reason.
    pub fn new(strategy: Strategy) -> Self {
        SupervisorSpec { strategy, policy: RestartPolicy::default(), children: Vec::new() }
    }

    /// One more child, started after those before it and stopped before them.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Restarts that are allowed within `window`. Default 3 in 10 s.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, window: Duration) -> Self {
        self.policy.restarts_max = restarts;
        self.policy.window = window;
        self
    }

    /// The rest before a restart: the first, doubling up to the longest. Default 50 ms and 10 s, give or take a fifth.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.policy.backoff_min = min;
        self.policy.backoff_max = max;
        self
    }
}

/// A child of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildSpec {
    pub(crate) id: String,
    pub(crate) actor_type: String,
    pub(crate) schema: u64,
    /// Or why they cannot be written.
    pub(crate) args: Result<ByteBuf, String>,
    pub(crate) options: SpawnOptions,
    pub(crate) demand: Demand,
    pub(crate) restart: RestartType,
    pub(crate) shutdown: Duration,
    pub(crate) orphans: Orphans,
}

impl ChildSpec {
    /// A permanent child, which its supervisor calls `id`. It lives on its supervisor's node unless `spec` places it on
    /// another or spreads it. Arguments that cannot be encoded fail its start.
    pub fn new<A: RemoteActor>(id: impl Into<String>, spec: ActorSpec<A>) -> Self {
        ChildSpec {
            id: id.into(),
            actor_type: A::NAME.to_owned(),
            schema: A::SCHEMA,
            args: codec::encode(&spec.args).map(ByteBuf::from).map_err(|error| error.to_string()),
            demand: spec.demand,
            options: spec.options,
            restart: RestartType::Permanent,
            shutdown: if A::NAME == Supervisor::NAME { Duration::MAX } else { limits::CHILD_SHUTDOWN },
            orphans: Orphans::Stop,
        }
    }

    /// After which ends it begins again.
    #[must_use]
    pub fn restart(mut self, restart: RestartType) -> Self {
        self.restart = restart;
        self
    }

    /// Begins again only after an abnormal end.
    #[must_use]
    pub fn transient(self) -> Self {
        self.restart(RestartType::Transient)
    }

    /// Never begins again.
    #[must_use]
    pub fn temporary(self) -> Self {
        self.restart(RestartType::Temporary)
    }

    /// Time to stop in order, before it is killed. Default 5 s; a supervisor has as long as its own children need.
    #[must_use]
    pub fn shutdown(mut self, wait: Duration) -> Self {
        self.shutdown = wait;
        self
    }

    /// What becomes of it when it is on another node than its supervisor, and nothing is heard of that. By default it stops.
    #[must_use]
    pub fn orphans(mut self, orphans: Orphans) -> Self {
        self.orphans = orphans;
        self
    }
}

/// A child, as its supervisor sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ChildInfo {
    /// What the supervisor calls it.
    pub id: String,
    /// The registered name of its type.
    pub actor_type: String,
    /// Where it is, if it is anywhere. The same after a restart.
    pub actor: Option<ActorAddress>,
    /// After which ends it begins again.
    pub restart: RestartType,
    /// How it is doing.
    pub state: ChildState,
}

/// A supervisor cannot do what was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum SupervisorError {
    /// It has a child of this name already.
    #[error("the supervisor has a child `{id}` already")]
    Taken {
        /// The name.
        id: String,
    },
    /// The child's state does not allow it.
    #[error("child `{id}`: {error}")]
    Child {
        /// The name.
        id: String,
        /// Why not.
        error: ChildError,
    },
}
