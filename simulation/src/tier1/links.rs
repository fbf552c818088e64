//! Links between workers, set and taken away by the node of one of them.

use std::sync::Arc;

use mobula::{ActorRef, CallError, ExitReason, Node};
use mobula_core::codec;

use super::calls::{Done, Target};
use super::state;
use super::worker::Worker;
use crate::fact::{Fact, LifeId};
use crate::params::{CallParams, Kind};
use crate::reach::Branch;

/// Links a worker of the caller with the target, or takes the link away.
pub(super) fn change(plan: &Arc<CallParams>, caller: LifeId, node: &Node, target: &Target) -> Done {
    let own = state::actor_of(caller, plan.message).and_then(|own| codec::decode::<ActorRef<Worker>>(&own).ok());
    let Some(own) = own.map(|own| node.reference_to(&own)) else { return Box::pin(std::future::ready(())) };
    let ((peer_life, peer), actor) = (target.place(), own.id().0);
    if (peer_life, peer) == (caller, actor) {
        return Box::pin(std::future::ready(()));
    }
    let on = plan.kind == Kind::Link;
    let done = match on {
        true => {
            state::fact(Fact::LinkAsked { life: caller, actor, peer_life, peer });
            own.link(&target.reference)
        }
        false => {
            state::reach(Branch::Unlinked);
            state::fact(Fact::UnlinkAsked { life: caller, actor, peer_life, peer });
            own.unlink(&target.reference)
        }
    };
    Box::pin(async move {
        match done.await {
            Ok(()) if !on => state::fact(Fact::Unlinked { life: caller, actor, peer_life, peer }),
            // Their limit is far above what is drawn.
            Err(error @ CallError::Overloaded { .. }) => state::accuse(PROMISE, error.to_string()),
            _ => {}
        }
    })
}

const PROMISE: &str = "§5 neither end of a link outlives the other, and nobody else ends by it";

/// A worker has ended for good, as a monitor on its own node says.
pub(super) fn ended(life: LifeId, actor: u64, reason: &ExitReason) {
    let by = match reason {
        ExitReason::Linked { with, cause } => {
            let by = state::life_of(&with.node).map(|life| (life, with.actor.0));
            if by.is_none() {
                state::accuse(PROMISE, format!("actor {actor} of life {life} ends by {with}, of no node"));
            }
            state::reach(Branch::EndedByLink);
            if matches!(**cause, ExitReason::NoConnection { .. }) {
                state::reach(Branch::LinkLost);
            }
            if !cause.is_abnormal() {
                state::accuse(PROMISE, format!("actor {actor} of life {life} ends by an end in order of {with}"));
            }
            by
        }
        _ => None,
    };
    state::fact(Fact::ActorEnded { life, actor, abnormal: reason.is_abnormal(), by });
    state::actor_over(life, actor);
}
