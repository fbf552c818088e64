//! Placement groups, as programs have them.

use std::time::Duration;

use mobula_actors::{LeaseAnswer, LeaseRequest, Node, PlacementError};
use mobula_core::CallError;
use mobula_core::cluster::{GroupId, GroupStrategy, PlacementGroupRow, Resources};

/// Resources that are set aside together, all of them or none: made by [`Cluster::placement_group`](crate::Cluster::placement_group).
/// Actors are placed [in them](mobula_actors::ActorSpec::in_group).
///
/// What it has stays set aside until it is [removed](Self::remove), or the job ends; dropping the handle changes nothing.
#[derive(Clone, Debug)]
pub struct PlacementGroup {
    node: Node,
    id: GroupId,
}

impl PlacementGroup {
    pub(crate) async fn create(
        node: &Node,
        strategy: GroupStrategy,
        bundles: Vec<Resources>,
    ) -> Result<Self, PlacementError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| PlacementError::Bad { reason: error.to_string() })?;
        let number = u64::from_be_bytes(bytes);
        let request = LeaseRequest::CreateGroup { number, bundles, strategy };
        let row = group(node.ask_lessor(request, ANSWER).await?)?;
        Ok(PlacementGroup { node: node.clone(), id: row.id })
    }

    /// Which it is, as lists of the cluster show it.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Waits until every bundle has its node, and gives the nodes' lives in the order of the bundles. Bundles whose nodes are lost are laid out again, so
    /// it may be waited for more than once.
    ///
    /// # Errors
    /// [`PlacementError::NotReady`] after `within`; the group goes on waiting. Cancel-safe.
    pub async fn ready(&self, within: Duration) -> Result<PlacementGroupRow, PlacementError> {
        group(self.node.ask_lessor(LeaseRequest::AwaitGroup { group: self.id, within }, within).await?)
    }

    /// Gives back what was set aside. Actors in it are killed.
    ///
    /// # Errors
    /// [`PlacementError`]. Safe to repeat.
    pub async fn remove(&self) -> Result<(), PlacementError> {
        match self.node.ask_lessor(LeaseRequest::RemoveGroup { group: self.id }, ANSWER).await? {
            LeaseAnswer::Done => Ok(()),
            LeaseAnswer::Refused(error) => Err(error),
            _ => Err(unexpected()),
        }
    }
}

impl From<&PlacementGroup> for GroupId {
    fn from(group: &PlacementGroup) -> Self {
        group.id
    }
}

/// So long an answer may take that waits for nothing but the head.
pub(crate) const ANSWER: Duration = super::HEAD_PATIENCE;

fn group(answer: LeaseAnswer) -> Result<PlacementGroupRow, PlacementError> {
    match answer {
        LeaseAnswer::Group(row) => Ok(row),
        LeaseAnswer::Refused(error) => Err(error),
        _ => Err(unexpected()),
    }
}

pub(crate) fn unexpected() -> PlacementError {
    let reason = "the driver answered another question".to_owned();
    PlacementError::Call(CallError::Decode { reason, reply: true })
}
