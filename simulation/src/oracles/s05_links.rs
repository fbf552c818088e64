//! Section 5: links are symmetric, and neither end outlives an abnormal end of the other, nor the loss of its node.

use std::collections::{BTreeMap, BTreeSet};

use super::{LinkEnd, Oracle, Rest, View};
use crate::fact::{EndId, Fact, LifeId};
use crate::params::Time;

#[derive(Default)]
pub(super) struct Links {
    /// Ends of links that were set, and neither taken away nor told of an end in order: who, and with whom. Each end for
    /// itself: what one says comes to the other later, and in its order.
    set: BTreeSet<(Place, Place)>,
    /// Who has ended, and when.
    over: BTreeMap<Place, Time>,
    /// The two lives that each connection joins.
    ends: BTreeMap<EndId, (LifeId, u64)>,
}

type Place = (LifeId, u64);

impl Oracle for Links {
    fn promise(&self) -> &'static str {
        "§5 links are symmetric, and neither end outlives the other"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkUp { end, life, peer, .. } => {
                self.ends.insert(end, (life, peer));
            }
            Fact::LinkSet { life, actor, peer_life, peer } => {
                self.set.insert(((life, actor), (peer_life, peer)));
            }
            Fact::LinkGone { life, actor, peer_life, peer } => {
                self.set.remove(&((life, actor), (peer_life, peer)));
            }
            Fact::ActorOver { life, actor } => {
                self.over.entry((life, actor)).or_insert(view.now);
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self, rest: &Rest, view: &View<'_>) -> Result<(), String> {
        let forged = view.ledger.tainted.iter().filter_map(|end| self.ends.get(end));
        let forged: BTreeSet<(LifeId, LifeId)> =
            forged.filter_map(|(life, peer)| Some((*life, view.ledger.life_of(*peer)?))).collect();
        // Who lies about its own links harms those.
        let is_forged = |one: LifeId, other: LifeId| forged.contains(&(one, other)) || forged.contains(&(other, one));
        for end in &rest.services.links {
            let LinkEnd { life, actor, peer_life, peer } = *end;
            if is_forged(life, peer_life) {
                continue;
            }
            let back = LinkEnd { life: peer_life, actor: peer, peer_life: life, peer: actor };
            if rest.services.links.binary_search(&back).is_err() {
                return Err(format!("a link stands at one end only: {end:?}"));
            }
            // What ends while the world is taken down was alive when its links were looked at.
            if self.over.get(&(life, actor)).is_some_and(|at| *at < rest.services.looked_at) {
                return Err(format!("a link of an actor that has ended: {end:?}"));
            }
        }
        for (own, peer) in &self.set {
            let up = view.ledger.lives[own.0 as usize].until.is_none();
            let gone = !rest.services.connected.contains(&(own.0, peer.0)) || self.over.contains_key(peer);
            if up && gone && !self.over.contains_key(own) && !is_forged(own.0, peer.0) {
                return Err(format!("actor {own:?} lives, and {peer:?}, with which it was linked, is gone"));
            }
        }
        Ok(())
    }
}
