//! Links: two actors of which neither outlives an abnormal end of the other.
//!
//! Each end stands in the [`LinkTable`] of its node. The ends speak by signals over the data link between their nodes, in
//! order: so nothing that an actor sent before its end comes after the news of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Actor, Handler, Message};
use mobula_core::planted::{self, Bug};
use mobula_core::{
    ActorAddress, ActorId, CallError, ExitReason, LinkTable, NodeId, RemoteMessage, TooManyLinks, limits, schema_hash,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ask::Ask;
use crate::control::{self, Control, ControlReply};
use crate::monitor::reason_of;
use crate::node::{Node, unexpected};
use crate::reply::Slot;
use crate::scope;

/// An actor that this one was linked with has ended: a message to actors that [trap exits](trap_exits).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Which actor.
    pub actor: ActorAddress,
    /// How it ended; [`ExitReason::Normal`] is told, too.
    pub reason: ExitReason,
}

impl Message for Exit {
    type Result = ();
}

impl RemoteMessage for Exit {
    const NAME: &'static str = "mobula::Exit";
    const SCHEMA: u64 = schema_hash("1");
    type Reply = ();
}

/// From now on ends of linked actors are [`Exit`] messages to the actor whose handler, hook or constructor runs on this
/// thread, and do not end it. Usually called in `new` or in `started`.
///
/// True if that is an `A`; elsewhere nothing happens.
pub fn trap_exits<A>() -> bool
where
    A: Actor<Context = actix::Context<A>> + Handler<Exit>,
{
    let Some(this) = scope::this_shared::<A>() else { return false };
    this.trap(|shared, exit| crate::ActorRef::near(shared.clone()).signal(exit, Slot::new()));
    true
}

/// Says when an actor's node has set a link, or taken it away. Dropping it changes nothing.
#[derive(Debug)]
pub struct Linking(State);

#[derive(Debug)]
enum State {
    Known(Option<Result<(), CallError>>),
    Sent(Ask<Control>),
}

impl Linking {
    pub(crate) fn known(result: Result<(), CallError>) -> Self {
        Linking(State::Known(Some(result)))
    }

    pub(crate) fn sent(sent: Result<Ask<Control>, CallError>) -> Self {
        match sent {
            Ok(ask) => Linking(State::Sent(ask)),
            Err(error) => Linking(State::Known(Some(Err(error)))),
        }
    }
}

impl Future for Linking {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(result) => result.take().map_or(Poll::Pending, Poll::Ready),
            State::Sent(ask) => Pin::new(ask).poll(cx).map(|answer| match answer? {
                ControlReply::Linked(result) => result,
                _ => Err(unexpected()),
            }),
        }
    }
}

/// What one end of a link says to the other, on another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Signal {
    Link {
        from: ActorId,
        to: ActorId,
    },
    Unlink {
        from: ActorId,
        to: ActorId,
        number: u64,
    },
    /// The unlink with this number has arrived.
    Unlinked {
        from: ActorId,
        to: ActorId,
        number: u64,
    },
    Exit {
        from: ActorId,
        to: ActorId,
        reason: ExitReason,
    },
}

/// The links of a node.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<LinkTable>);

impl Links {
    /// Links `actor`, which lives or lived here, with `peer`, or takes the link away.
    ///
    /// # Errors
    /// [`CallError::Overloaded`] if one of this node has too many links.
    pub(crate) fn change(&self, node: &Node, actor: ActorId, peer: ActorAddress, on: bool) -> Result<(), CallError> {
        if on {
            return self.link(node, actor, peer);
        }
        self.unlink(node, actor, &peer);
        Ok(())
    }

    pub(crate) fn link(&self, node: &Node, actor: ActorId, peer: ActorAddress) -> Result<(), CallError> {
        let own = ActorAddress { node: node.id().clone(), actor };
        if own == peer {
            return Ok(());
        }
        let is_near = peer.node == own.node;
        let linked = match is_near {
            true => self.0.lock().link_near(&own, &peer),
            false => self.0.lock().link(actor, peer.clone()),
        };
        let is_new = linked.map_err(too_many)?;
        // A link that stands here is known at the other end, or on its way there.
        if is_new && !is_near {
            let signal = Signal::Link { from: actor, to: peer.actor };
            if let Err(error) = send(node, &peer, signal) {
                self.exit(node, actor, peer.clone(), reason_of(error));
            }
        }
        // After the table: an end that comes now finds the link there. Only this link: one that ends at this moment still
        // has to tell its others how.
        if is_near && node.actor(peer.actor).is_none() {
            self.0.lock().take(peer.actor, &own);
            self.exit(node, actor, peer.clone(), ExitReason::NoProc);
        }
        if node.actor(actor).is_none() && self.0.lock().take(actor, &peer) {
            self.tell_end(node, &own, peer, true, &ExitReason::NoProc);
        }
        Ok(())
    }

    fn unlink(&self, node: &Node, actor: ActorId, peer: &ActorAddress) {
        let own = ActorAddress { node: node.id().clone(), actor };
        if peer.node == own.node {
            let mut table = self.0.lock();
            table.take(peer.actor, &own);
            table.take(actor, peer);
            return;
        }
        let number = self.0.lock().unlink(actor, peer);
        if let Some(number) = number {
            // A peer that cannot be told is lost, and so is its end.
            let _ = send(node, peer, Signal::Unlink { from: actor, to: peer.actor, number });
        }
    }

    /// `actor`, which lived here, has ended. Without having `lived`, it ends nobody.
    pub(crate) fn ended(&self, node: &Node, actor: ActorId, lived: bool, reason: &ExitReason) {
        let peers = self.0.lock().ended(actor);
        let own = ActorAddress { node: node.id().clone(), actor };
        for peer in peers {
            self.tell_end(node, &own, peer, lived, reason);
        }
    }

    /// Tells `peer` of the end of `own`, which it is linked with.
    fn tell_end(&self, node: &Node, own: &ActorAddress, peer: ActorAddress, lived: bool, reason: &ExitReason) {
        let (from, to) = (own.actor, peer.actor);
        let is_near = peer.node == own.node;
        if is_near && lived {
            self.exit(node, to, own.clone(), reason.clone());
        } else if is_near {
            self.0.lock().take(to, own);
        } else if !planted::is(Bug::ExitUntold) {
            let signal = match lived {
                true => Signal::Exit { from, to, reason: reason.clone() },
                // Nobody is left who waits for its confirmation.
                false => Signal::Unlink { from, to, number: 0 },
            };
            let _ = send(node, &peer, signal);
        }
    }

    /// A node is lost, and with it what was linked there.
    pub(crate) fn node_lost(&self, node: &Node, lost: &NodeId, reason: &ExitReason) {
        let links = self.0.lock().node_lost(lost.uid);
        for (actor, peer) in links {
            tell(node, actor, peer, reason.clone());
        }
    }

    /// A signal from an actor of `peer`.
    pub(crate) fn hear(&self, node: &Node, peer: &NodeId, signal: Signal) {
        let (Signal::Link { from, to }
        | Signal::Unlink { from, to, .. }
        | Signal::Unlinked { from, to, .. }
        | Signal::Exit { from, to, .. }) = signal;
        // The name in a reference is the one of the hello; the uid is what was proven.
        let Some(from_node) = node.peer_named(peer) else { return };
        let from = ActorAddress { node: from_node, actor: from };
        match signal {
            Signal::Link { .. } => self.hear_link(node, to, from),
            Signal::Unlink { number, .. } => {
                self.0.lock().heard_unlink(to, &from);
                let _ = send(node, &from, Signal::Unlinked { from: to, to: from.actor, number });
            }
            Signal::Unlinked { number, .. } => self.0.lock().heard_unlinked(to, &from, number),
            Signal::Exit { reason, .. } => self.exit(node, to, from, reason),
        }
    }

    fn hear_link(&self, node: &Node, to: ActorId, from: ActorAddress) {
        let linked = self.0.lock().heard_link(to, from.clone());
        let refusal = match linked {
            // It did not know yet that they were unlinked here.
            Ok(false) => return,
            Ok(true) if node.actor(to).is_none() && self.0.lock().take(to, &from) => Some(ExitReason::NoProc),
            Ok(true) => None,
            Err(error) => Some(ExitReason::Error { text: too_many(error).to_string() }),
        };
        if let Some(reason) = refusal {
            let _ = send(node, &from, Signal::Exit { from: to, to: from.actor, reason });
        }
        // After the table: a loss that comes now finds the link there, and one that came before is told here.
        if let Err(error) = node.link(&from.node, from.actor) {
            self.exit(node, to, from, reason_of(error));
        }
    }

    /// `from` has ended, which ends `actor` if they are linked.
    fn exit(&self, node: &Node, actor: ActorId, from: ActorAddress, reason: ExitReason) {
        let was = self.0.lock().take(actor, &from);
        if was {
            tell(node, actor, from, reason);
        }
    }

    /// A link, whether or not its ends live.
    #[cfg(test)]
    pub(crate) fn set_for_test(&self, one: &ActorAddress, other: &ActorAddress) {
        self.0.lock().link_near(one, other).expect("there is room");
    }

    /// Ends of links that stand here.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

fn too_many(TooManyLinks { actor, limit }: TooManyLinks) -> CallError {
    let (what, limit) = (format!("links of actor {actor}"), limit as u64);
    CallError::Overloaded { what, limit, retry_after: limits::OVERLOADED_RETRY_AFTER }
}

fn tell(node: &Node, actor: ActorId, from: ActorAddress, reason: ExitReason) {
    if let Some(actor) = node.actor(actor) {
        actor.exit(Exit { actor: from, reason });
    }
}

fn send(node: &Node, peer: &ActorAddress, signal: Signal) -> Result<(), CallError> {
    control::tell(&node.link(&peer.node, peer.actor)?, &Control::Signal(signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeConfig;

    #[test]
    fn a_link_with_one_that_ends_takes_none_of_its_others_away() {
        let node = Node::start(NodeConfig::default()).expect("a node");
        let at = |actor| ActorAddress { node: node.id().clone(), actor };
        let [ends, linked, late] = [1 << 40, 2 << 40, 3 << 40].map(ActorId);
        {
            let mut table = node.links().0.lock();
            table.link_near(&at(ends), &at(linked)).expect("there is room");
        }
        // No longer found, and its links are not told of its end yet.
        node.links().link(&node, late, at(ends)).expect("there is room");
        assert_eq!(node.links().0.lock().ended(ends), [at(linked)], "it has this one to tell, and no other");
        assert_eq!(node.links().0.lock().ended(linked), [at(ends)]);
        assert_eq!(node.links().len(), 0);
    }
}
