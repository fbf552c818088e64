//! Workers under a supervisor: what can be seen of their lives, in the words of the supervisor's oracle.
//!
//! Nobody but the supervisor sees its orders. A life that ends without a panic, and has not stopped itself, was told to
//! end; so in these worlds nobody else stops or kills a worker, and none is linked.

use std::time::Duration;

use mobula::{ActorRef, ChildSpec, ExitReason, Node, RemoteActor, Supervisor, SupervisorSpec, current_node, fence};
use mobula_actors::WeakNode;
use tokio::task::spawn_local;

use super::state;
use super::worker::{Seat, Worker};
use crate::fact::LifeId;
use crate::params::{Params, SECOND, Supervised};

/// The workers of a life of a node, as children of one supervisor.
pub(super) async fn start(
    node: &Node,
    life: LifeId,
    params: &Params,
    plan: &Supervised,
) -> Result<Vec<ActorRef<Worker>>, Box<dyn std::error::Error>> {
    let mut spec =
        SupervisorSpec::new(plan.strategy).intensity(params.restarts_max, Duration::from_micros(10 * SECOND));
    for (child, (actor, restart)) in params.actors.iter().zip(&plan.restart).enumerate() {
        let worker = Worker::spec(Seat { life, child: Some(child as u32), name: None }).mailbox(actor.capacity);
        spec = spec.child(ChildSpec::new(child.to_string(), worker).restart(*restart));
    }
    let supervisor = node.spawn(Supervisor::spec(spec)).await?;
    let (end, home) = (supervisor.monitor(), node.downgrade());
    spawn_local(async move {
        let failed = matches!(end.await.reason, ExitReason::ChildFailed { .. });
        if goes_on(&home) {
            state::supervisor_ends(life, failed);
        }
    });
    let mut children = Vec::new();
    for child in 0..params.actors.len() {
        children.extend(supervisor.child(&child.to_string()).await?);
    }
    Ok(children)
}

/// A life of a child, or of who has a name, from its constructor until its state is dropped.
pub(super) struct Living {
    seat: Seat,
    actor: u64,
    home: Option<WeakNode>,
}

/// False once the node has ended: nobody stops its children in order then.
fn goes_on(home: &WeakNode) -> bool {
    home.upgrade().is_some_and(|node| !node.is_closed())
}

impl Living {
    /// None of a worker that is nobody's child and has no name.
    pub(super) fn begin(seat: Seat, actor: u64) -> Option<Self> {
        match (seat.child, seat.name) {
            (Some(child), _) => state::child_begins(seat.life, child),
            (None, Some(name)) => state::name_begins(seat.life, actor, name, fence().map_or(0, |fence| fence.0)),
            (None, None) => return None,
        }
        Some(Living { seat, actor, home: current_node().map(|node| node.downgrade()) })
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if let Some(child) = self.seat.child
            && self.home.as_ref().is_some_and(goes_on)
        {
            state::child_ends(self.seat.life, self.actor, child);
        }
        if let Some(name) = self.seat.name {
            state::name_ends(self.seat.life, self.actor, name);
        }
    }
}
