//! Section 5 as users see it: of two actors that were linked and never unlinked, neither outlives an abnormal end of the
//! other, nor the loss of its node; nobody ends by a link with an actor that it was never linked with, that lives, that has
//! ended in order, or from which it was unlinked before.

use std::collections::{BTreeMap, BTreeSet};

use super::i04_monitor_once::disturbed;
use super::{Oracle, Rest, View};
use crate::fact::{Fact, LifeId};
use crate::params::{SECOND, Time};

#[derive(Default)]
pub(super) struct LinksSeen {
    pairs: BTreeMap<(Place, Place), Pair>,
    /// Who has ended, when, and whether in order.
    over: BTreeMap<Place, (Time, bool)>,
    /// Who has ended by whom.
    by: Vec<(Place, Place)>,
}

type Place = (LifeId, u64);

#[derive(Default)]
struct Pair {
    linked: BTreeSet<Place>,
    first: Time,
    last: Time,
    unlinked: BTreeSet<Place>,
    /// Since when there is no link any more, where that is certain.
    off: Option<Time>,
}

impl LinksSeen {
    fn pair(&mut self, one: Place, other: Place) -> &mut Pair {
        self.pairs.entry((one.min(other), one.max(other))).or_default()
    }

    /// What `own` has to do with an end of the `other` in a pair that was never unlinked.
    fn outlives(&self, own: Place, other: Place, pair: &Pair, view: &View<'_>) -> Option<String> {
        let is_up = |place: Place| view.ledger.lives[place.0 as usize].until.is_none();
        if self.over.contains_key(&own) || !is_up(own) {
            return None;
        }
        // Where the two nodes lost each other it may never have heard that it was linked.
        let node = |place: Place| view.ledger.lives[place.0 as usize].node;
        if !pair.linked.contains(&own) && own.0 != other.0 && disturbed(view, node(own), node(other)) {
            return None;
        }
        let gone = match self.over.get(&other) {
            // Who had ended before ends whoever is linked with it.
            Some((at, abnormal)) => (*abnormal || *at < pair.first) && at + SECOND < view.now,
            None => !is_up(other),
        };
        gone.then(|| format!("actor {own:?} lives, and {other:?}, with which it was linked, is gone"))
    }
}

impl Oracle for LinksSeen {
    fn promise(&self) -> &'static str {
        "§5 neither end of a link outlives the other, and nobody else ends by it"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::LinkAsked { life, actor, peer_life, peer } => {
                let pair = self.pair((life, actor), (peer_life, peer));
                if pair.linked.is_empty() {
                    pair.first = view.now;
                }
                pair.linked.insert((life, actor));
                pair.last = view.now;
                pair.off = None;
            }
            Fact::UnlinkAsked { life, actor, peer_life, peer } => {
                self.pair((life, actor), (peer_life, peer)).unlinked.insert((life, actor));
            }
            Fact::Unlinked { life, actor, peer_life, peer } => {
                let pair = self.pair((life, actor), (peer_life, peer));
                // Where the other has set a link, too, that may be on its way.
                if pair.linked.iter().all(|by| *by == (life, actor)) {
                    pair.off.get_or_insert(view.now);
                }
            }
            Fact::ActorEnded { life, actor, abnormal, by } => {
                self.over.insert((life, actor), (view.now, abnormal));
                if let Some(by) = by {
                    self.by.push(((life, actor), by));
                    let pair = self.pair((life, actor), by);
                    if pair.linked.is_empty() {
                        return Err(format!(
                            "actor {actor} of life {life} ends by {by:?}, with which it was never linked"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self, _: &Rest, view: &View<'_>) -> Result<(), String> {
        for ((one, other), pair) in self.pairs.iter().filter(|(_, pair)| pair.unlinked.is_empty()) {
            let outlives = self.outlives(*one, *other, pair, view);
            if let Some(what) = outlives.or_else(|| self.outlives(*other, *one, pair, view)) {
                return Err(what);
            }
        }
        for (own, by) in &self.by {
            let life = |place: &Place| &view.ledger.lives[place.0 as usize];
            let Some(pair) = self.pairs.get(&(*own.min(by), *own.max(by))) else { continue };
            match self.over.get(by) {
                // Unless the two were out of each other's reach before that, or one was linked with what had ended.
                Some((at, false))
                    if *at >= pair.last
                        && life(by).until.is_none_or(|until| until > *at)
                        && !disturbed(view, life(own).node, life(by).node) =>
                {
                    return Err(format!("actor {own:?} ends by {by:?}, which ended in order"));
                }
                // What it was told before it was unlinked it may still obey.
                Some((at, true)) if pair.off.is_some_and(|off| off + SECOND < *at) => {
                    return Err(format!("actor {own:?} ends by {by:?}, from which it was unlinked before"));
                }
                Some(_) => {}
                None if life(by).until.is_none() && !disturbed(view, life(own).node, life(by).node) => {
                    return Err(format!("actor {own:?} ends by {by:?}, which lives"));
                }
                None => {}
            }
        }
        Ok(())
    }
}
