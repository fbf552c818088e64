//! Which actors of one node are linked with which others: the table, what its ends say to each other, and who has to hear
//! of an end. No I/O.
//!
//! The two ends of a link speak by signals that keep their order in each direction, and that cross each other: an `Unlink`
//! may be under way while the other end is linked anew. So an unlink has a number, and its end hears nothing of the
//! peer's links until the peer has confirmed it: those were made before the peer knew. This is Erlang's rule since OTP 23.
//!
//! Whoever has to hear of one end hears of it in the order of ids, so that the same events have the same outcome.

use std::collections::BTreeMap;

use crate::planted::{self, Bug};
use crate::{ActorAddress, ActorId, NodeUid, limits};

/// The links of one node's actors. Each link stands once at each of its two ends.
#[derive(Debug)]
pub struct LinkTable {
    by_actor: BTreeMap<ActorId, BTreeMap<ActorAddress, End>>,
    unlinks: u64,
    links_max: usize,
}

/// One end of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Linked,
    /// Unlinked here, and the peer has not confirmed the unlink with this number.
    Unlinking(u64),
}

/// An actor has as many links as it may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooManyLinks {
    /// Whose links they are.
    pub actor: ActorId,
    /// So many.
    pub limit: usize,
}

impl Default for LinkTable {
    fn default() -> Self {
        Self::new()
    }
}

impl LinkTable {
    /// An empty table, with room for [`limits::LINKS_MAX`] links of each actor.
    pub fn new() -> Self {
        Self::with_limit(limits::LINKS_MAX)
    }

    fn with_limit(links_max: usize) -> Self {
        LinkTable { by_actor: BTreeMap::new(), unlinks: 0, links_max }
    }

    /// Links `actor` of this node with `peer`, of another. True if the peer has to be told; false if they are linked already:
    /// there is at most one link a pair.
    ///
    /// # Errors
    /// [`TooManyLinks`].
    pub fn link(&mut self, actor: ActorId, peer: ActorAddress) -> Result<bool, TooManyLinks> {
        self.has_room(actor, &peer)?;
        let peers = self.by_actor.entry(actor).or_default();
        if planted::is(Bug::HalfLink) && peers.len() == 1 {
            return Ok(true);
        }
        let before = peers.insert(peer, End::Linked);
        // After an unlink that is not confirmed yet, the peer hears of both in their order.
        Ok(before != Some(End::Linked))
    }

    /// Links two actors of this node. False if they are linked already.
    ///
    /// # Errors
    /// [`TooManyLinks`] of either.
    pub fn link_near(&mut self, one: &ActorAddress, other: &ActorAddress) -> Result<bool, TooManyLinks> {
        self.has_room(one.actor, other)?;
        self.has_room(other.actor, one)?;
        self.by_actor.entry(other.actor).or_default().insert(one.clone(), End::Linked);
        Ok(self.by_actor.entry(one.actor).or_default().insert(other.clone(), End::Linked).is_none())
    }

    fn has_room(&self, actor: ActorId, peer: &ActorAddress) -> Result<(), TooManyLinks> {
        match self.by_actor.get(&actor) {
            Some(peers) if peers.len() >= self.links_max && !peers.contains_key(peer) => {
                Err(TooManyLinks { actor, limit: self.links_max })
            }
            _ => Ok(()),
        }
    }

    /// Takes the link with a peer of another node away. The number of the `Unlink` that the peer has to be sent, if there was
    /// a link.
    pub fn unlink(&mut self, actor: ActorId, peer: &ActorAddress) -> Option<u64> {
        let end = self.by_actor.get_mut(&actor)?.get_mut(peer).filter(|end| **end == End::Linked)?;
        self.unlinks += 1;
        *end = End::Unlinking(self.unlinks);
        Some(self.unlinks)
    }

    /// Takes this end away, since `peer` has ended, was lost or lives here, too. True if there was a link: an end that
    /// `peer` comes to counts only then.
    pub fn take(&mut self, actor: ActorId, peer: &ActorAddress) -> bool {
        let Some(peers) = self.by_actor.get_mut(&actor) else { return false };
        let was = peers.remove(peer);
        if peers.is_empty() {
            self.by_actor.remove(&actor);
        }
        was == Some(End::Linked)
    }

    /// `peer` has linked itself with `actor`. False if that was before it knew that the two were unlinked here.
    ///
    /// # Errors
    /// [`TooManyLinks`].
    pub fn heard_link(&mut self, actor: ActorId, peer: ActorAddress) -> Result<bool, TooManyLinks> {
        self.has_room(actor, &peer)?;
        let end = self.by_actor.entry(actor).or_default().entry(peer).or_insert(End::Linked);
        Ok(*end == End::Linked)
    }

    /// `peer` has unlinked itself from `actor`, which has to be confirmed.
    pub fn heard_unlink(&mut self, actor: ActorId, peer: &ActorAddress) {
        if self.by_actor.get(&actor).and_then(|peers| peers.get(peer)) == Some(&End::Linked) {
            self.take(actor, peer);
        }
    }

    /// `peer` has confirmed the unlink with this number. One that was followed by a link does not matter any more.
    pub fn heard_unlinked(&mut self, actor: ActorId, peer: &ActorAddress, number: u64) {
        if self.by_actor.get(&actor).and_then(|peers| peers.get(peer)) == Some(&End::Unlinking(number)) {
            self.take(actor, peer);
        }
    }

    /// `actor` has ended: takes all its links away and gives those who have to hear of it, in the order of
    /// their addresses.
    pub fn ended(&mut self, actor: ActorId) -> Vec<ActorAddress> {
        let peers = self.by_actor.remove(&actor).unwrap_or_default();
        peers.into_iter().filter(|(_, end)| *end == End::Linked).map(|(peer, _)| peer).collect()
    }

    /// A node is lost: takes the links with its actors away and gives them in the order of their ids, this node's end
    /// first.
    pub fn node_lost(&mut self, node: NodeUid) -> Vec<(ActorId, ActorAddress)> {
        let mut lost = Vec::new();
        self.by_actor.retain(|actor, peers| {
            peers.retain(|peer, end| {
                let is_lost = peer.node.uid == node;
                if is_lost && *end == End::Linked && (lost.is_empty() || !planted::is(Bug::LinkKept)) {
                    lost.push((*actor, peer.clone()));
                }
                !is_lost
            });
            !peers.is_empty()
        });
        lost
    }

    /// The links with actors of `node`: this node's end first.
    pub fn of_node(&self, node: NodeUid) -> impl Iterator<Item = (ActorId, ActorId)> + '_ {
        let there = move |(peer, end): &(&ActorAddress, &End)| peer.node.uid == node && **end == End::Linked;
        self.by_actor
            .iter()
            .flat_map(move |(actor, peers)| peers.iter().filter(there).map(|(peer, _)| (*actor, peer.actor)))
    }

    /// Ends of links that stand here, those that wait for the peer's word as well.
    pub fn len(&self) -> usize {
        self.by_actor.values().map(BTreeMap::len).sum()
    }

    /// True if nothing is linked.
    pub fn is_empty(&self) -> bool {
        self.by_actor.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{NodeId, SplitMix64};

    fn at(node: u64, actor: u64) -> ActorAddress {
        ActorAddress { node: NodeId::new("node", NodeUid(node)), actor: ActorId(actor) }
    }

    #[test]
    fn at_most_one_link_a_pair() {
        let mut table = LinkTable::new();
        assert_eq!(table.link(ActorId(1), at(2, 7)), Ok(true));
        assert_eq!(table.link(ActorId(1), at(2, 7)), Ok(false));
        assert_eq!(table.len(), 1);
        let number = table.unlink(ActorId(1), &at(2, 7)).expect("they were linked");
        assert_eq!(table.unlink(ActorId(1), &at(2, 7)), None);
        assert!(!table.take(ActorId(1), &at(2, 7)), "an end after an unlink must not count");
        table.heard_unlinked(ActorId(1), &at(2, 7), number);
        assert!(table.is_empty());
    }

    #[test]
    fn an_actor_has_so_many_links_and_no_more() {
        let mut table = LinkTable::with_limit(2);
        let full = Err(TooManyLinks { actor: ActorId(1), limit: 2 });
        assert_eq!(table.link(ActorId(1), at(2, 1)), Ok(true));
        assert_eq!(table.heard_link(ActorId(1), at(2, 2)), Ok(true));
        assert_eq!(table.link(ActorId(1), at(2, 3)), full);
        assert_eq!(table.heard_link(ActorId(1), at(2, 3)), full);
        assert_eq!(table.link_near(&at(9, 4), &at(9, 1)), full);
        assert_eq!(table.heard_link(ActorId(1), at(2, 2)), Ok(true), "it is one of the two");
        assert_eq!(table.len(), 2, "nothing is left of what was refused");
        assert!(table.take(ActorId(1), &at(2, 1)));
        assert_eq!(table.link(ActorId(1), at(2, 3)), Ok(true));
    }

    #[test]
    fn an_end_is_told_to_each_peer_once() {
        let mut table = LinkTable::new();
        for peer in [at(2, 7), at(3, 7), at(4, 7)] {
            assert_eq!(table.link(ActorId(1), peer), Ok(true));
        }
        table.unlink(ActorId(1), &at(4, 7));
        assert_eq!(table.ended(ActorId(1)), [at(2, 7), at(3, 7)]);
        assert!(table.ended(ActorId(1)).is_empty() && table.is_empty());
    }

    #[test]
    fn a_lost_node_takes_its_links_and_no_others() {
        let mut table = LinkTable::new();
        for (actor, peer) in [(1, at(2, 7)), (1, at(3, 7)), (4, at(2, 8)), (5, at(2, 9))] {
            assert_eq!(table.link(ActorId(actor), peer), Ok(true));
        }
        table.unlink(ActorId(5), &at(2, 9));
        assert_eq!(table.node_lost(NodeUid(2)), [(ActorId(1), at(2, 7)), (ActorId(4), at(2, 8))]);
        assert_eq!(table.ended(ActorId(1)), [at(3, 7)]);
        assert!(table.is_empty());
    }

    /// An actor that is linked with several of what is lost ends by one of them, and it has to be the same one each time.
    #[test]
    fn ends_are_told_in_the_order_of_ids() {
        let mut table = LinkTable::new();
        for number in 0..40 {
            let (actor, peer) = (ActorId(1 + number * 3 % 5), at(2, 1 + number * 7 % 40));
            assert_eq!(table.link(actor, peer), Ok(true));
            assert_eq!(table.link(actor, at(3, 1 + number * 11 % 40)), Ok(true));
        }
        let lost = table.node_lost(NodeUid(2));
        assert_eq!(lost.len(), 40);
        assert!(lost.is_sorted(), "{lost:?}");
        let told = table.ended(ActorId(2));
        assert_eq!(told.len(), 8);
        assert!(told.is_sorted(), "{told:?}");
    }

    #[derive(Clone, Copy, Debug)]
    enum Signal {
        Link,
        Unlink(u64),
        Unlinked(u64),
        Exit,
    }

    /// One end of the pair, on a node of its own.
    struct Side {
        table: LinkTable,
        own: ActorAddress,
        peer: ActorAddress,
        alive: bool,
        /// It was told of the other's end while they were linked.
        exits: u32,
        /// The last of its own calls was a link.
        wants: Option<bool>,
    }

    impl Side {
        fn new(own: ActorAddress, peer: ActorAddress) -> Self {
            Side { table: LinkTable::new(), own, peer, alive: true, exits: 0, wants: None }
        }

        fn call(&mut self, on: bool, out: &mut VecDeque<Signal>) {
            self.wants = Some(on);
            match on {
                true if self.table.link(self.own.actor, self.peer.clone()) == Ok(true) => out.push_back(Signal::Link),
                true => {}
                false => out.extend(self.table.unlink(self.own.actor, &self.peer).map(Signal::Unlink)),
            }
        }

        fn end(&mut self, out: &mut VecDeque<Signal>) {
            self.alive = false;
            out.extend(self.table.ended(self.own.actor).iter().map(|_| Signal::Exit));
        }

        fn hear(&mut self, signal: Signal, out: &mut VecDeque<Signal>) {
            match signal {
                Signal::Link if !self.alive => out.push_back(Signal::Exit),
                Signal::Link => drop(self.table.heard_link(self.own.actor, self.peer.clone())),
                Signal::Unlink(number) => {
                    self.table.heard_unlink(self.own.actor, &self.peer);
                    out.push_back(Signal::Unlinked(number));
                }
                Signal::Unlinked(number) => self.table.heard_unlinked(self.own.actor, &self.peer, number),
                Signal::Exit => self.exits += u32::from(self.table.take(self.own.actor, &self.peer)),
            }
        }

        fn is_linked(&self) -> bool {
            self.table.by_actor.get(&self.own.actor).and_then(|peers| peers.get(&self.peer)) == Some(&End::Linked)
        }
    }

    /// Two actors link and unlink each other, their signals cross at will, and one may end: when all has arrived, both ends
    /// say the same, it is what both wanted last if they wanted the same, and nothing is left of an actor that has ended.
    #[test]
    fn crossing_links_and_unlinks_leave_no_half_of_a_link() {
        for seed in 0..50_000 {
            let mut random = SplitMix64::new(seed);
            let mut sides = [Side::new(at(1, 1), at(2, 2)), Side::new(at(2, 2), at(1, 1))];
            // What is on its way to each.
            let mut queues = [VecDeque::new(), VecDeque::new()];
            let mut calls = 1 + random.bits() % 8;
            let ends = random.bits().is_multiple_of(4);
            let mut told = true;
            while calls > 0 || queues.iter().any(|queue| !queue.is_empty()) {
                let drawn = random.bits();
                let at = (drawn & 1) as usize;
                let [first, second] = &mut queues;
                let (to_it, to_other) = if at == 0 { (first, second) } else { (second, first) };
                if calls > 0 && drawn & 2 == 0 {
                    calls -= 1;
                    if ends && calls == 0 && sides[0].alive {
                        told = sides[0].is_linked();
                        sides[0].end(&mut queues[1]);
                    } else if sides[at].alive {
                        sides[at].call(drawn & 4 == 0, to_other);
                    }
                } else if let Some(signal) = to_it.pop_front() {
                    sides[at].hear(signal, to_other);
                }
            }
            let [one, other] = &sides;
            if ends {
                assert!(one.table.is_empty() && other.table.is_empty(), "seed {seed}: something is left");
                assert!(other.exits <= 1, "seed {seed}");
                // Whoever called last and meant a link hears of the end, unless the other had taken it away.
                if told && other.wants == Some(true) {
                    assert_eq!(other.exits, 1, "seed {seed}: linked with nobody, and not told");
                }
                continue;
            }
            assert_eq!(one.is_linked(), other.is_linked(), "seed {seed}: half of a link");
            assert_eq!(one.table.len(), usize::from(one.is_linked()), "seed {seed}: an unlink that nobody confirms");
            assert_eq!(other.table.len(), usize::from(other.is_linked()), "seed {seed}");
            match (one.wants, other.wants) {
                (Some(one_wants), Some(other_wants)) if one_wants == other_wants => {
                    assert_eq!(one.is_linked(), one_wants, "seed {seed}: both wanted it otherwise");
                }
                (Some(wants), None) | (None, Some(wants)) => assert_eq!(one.is_linked(), wants, "seed {seed}"),
                _ => {}
            }
        }
    }
}
