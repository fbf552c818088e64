//! The child's side of supervision: whose child an actor is, and what its supervisor tells it.

use mobula_core::{ActorAddress, ActorId};
use serde::{Deserialize, Serialize};

use crate::control::{self, Control};
use crate::mailbox::Order;
use crate::node::Node;

/// What becomes of a child on another node than its supervisor's, when that node is lost or shows for the length of a lease (8 s,
/// [`limits::CHILD_LEASE`](mobula_core::limits::CHILD_LEASE)) no sign that it hears and is heard.
///
/// A node that is lost is lost for ever. One that is only silent for a while, less than the 10 s after which it is lost, finds
/// its children again: one that went on is its supervisor's as before, for one that stopped the supervisor hears of an end and
/// starts another.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Orphans {
    /// It stops.
    #[default]
    Stop,
    /// It goes on, and restarts by the restart policy of its own description.
    Detach,
}

/// Whose child an actor is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Supervised {
    pub(crate) by: ActorAddress,
    /// What the supervisor calls it.
    pub(crate) child: String,
    pub(crate) orphans: Orphans,
}

impl Supervised {
    /// The supervisor's node is lost.
    pub(crate) fn orphaned(&self) -> Order {
        match self.orphans {
            Orphans::Stop => Order::Dismiss,
            Orphans::Detach => Order::Detach,
        }
    }
}

/// What a supervisor tells its child.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum ChildOrder {
    /// End this life in order.
    Stop,
    /// End this life now.
    Kill,
    /// Begin the next life.
    Begin,
    /// End for good, in order.
    Dismiss,
    /// End for good, now.
    Discard,
}

/// Hands an order to a child that lives here. One that has ended needs none.
pub(crate) fn order(node: &Node, child: ActorId, order: ChildOrder) {
    let Some(child) = node.actor(child) else { return };
    child.order(match order {
        ChildOrder::Stop => Order::Stop(mobula_core::ExitReason::Shutdown),
        ChildOrder::Kill => Order::Kill,
        ChildOrder::Begin => Order::Begin,
        ChildOrder::Dismiss => Order::Dismiss,
        ChildOrder::Discard => Order::Discard,
    });
}

/// Sends an order to a child, wherever it lives. A node that cannot be reached is lost, and its actors with it.
pub(crate) fn send(node: &Node, child: &ActorAddress, what: ChildOrder) {
    if child.node == *node.id() {
        return order(node, child.actor, what);
    }
    let control = Control::Supervise { child: child.actor, order: what };
    let sent = node.control_link_to(&child.node).and_then(|link| control::tell(&link, &control));
    if let Err(error) = sent {
        tracing::debug!(%child, ?what, %error, "a child cannot be told");
    }
}
