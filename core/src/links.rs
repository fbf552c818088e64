//! Which actors of one node are linked with which others: the table, and who has to hear of an end. No I/O.

use std::collections::{HashMap, HashSet};

use crate::{ActorAddress, ActorId, NodeUid};

/// The links of one node's actors. Each link stands once at each of its two ends.
#[derive(Debug, Default)]
pub struct LinkTable {
    by_actor: HashMap<ActorId, HashSet<ActorAddress>>,
}

impl LinkTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Links `actor` of this node with `peer`. False if they are linked already: there is at most one link a pair.
    pub fn link(&mut self, actor: ActorId, peer: ActorAddress) -> bool {
        self.by_actor.entry(actor).or_default().insert(peer)
    }

    /// Takes the link away at this end. True if there was one: an end that `peer` comes to counts only then.
    pub fn unlink(&mut self, actor: ActorId, peer: &ActorAddress) -> bool {
        let Some(peers) = self.by_actor.get_mut(&actor) else { return false };
        let was = peers.remove(peer);
        if peers.is_empty() {
            self.by_actor.remove(&actor);
        }
        was
    }

    /// `actor` has ended: takes all its links away and gives those who have to hear of it.
    pub fn ended(&mut self, actor: ActorId) -> Vec<ActorAddress> {
        self.by_actor.remove(&actor).unwrap_or_default().into_iter().collect()
    }

    /// A node is lost: takes the links with its actors away and gives them, this node's end first.
    pub fn node_lost(&mut self, node: NodeUid) -> Vec<(ActorId, ActorAddress)> {
        let mut lost = Vec::new();
        self.by_actor.retain(|actor, peers| {
            lost.extend(peers.iter().filter(|peer| peer.node.uid == node).map(|peer| (*actor, peer.clone())));
            peers.retain(|peer| peer.node.uid != node);
            !peers.is_empty()
        });
        lost
    }

    /// Ends of links that stand here.
    pub fn len(&self) -> usize {
        self.by_actor.values().map(HashSet::len).sum()
    }

    /// True if nothing is linked.
    pub fn is_empty(&self) -> bool {
        self.by_actor.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn at(node: u64, actor: u64) -> ActorAddress {
        ActorAddress { node: NodeId::new("node", NodeUid(node)), actor: ActorId(actor) }
    }

    #[test]
    fn at_most_one_link_a_pair() {
        let mut table = LinkTable::new();
        assert!(table.link(ActorId(1), at(2, 7)));
        assert!(!table.link(ActorId(1), at(2, 7)));
        assert_eq!(table.len(), 1);
        assert!(table.unlink(ActorId(1), &at(2, 7)));
        assert!(!table.unlink(ActorId(1), &at(2, 7)), "an end after an unlink must not count");
        assert!(table.is_empty());
    }

    #[test]
    fn an_end_is_told_to_each_peer_once() {
        let mut table = LinkTable::new();
        table.link(ActorId(1), at(2, 7));
        table.link(ActorId(1), at(3, 7));
        let mut told = table.ended(ActorId(1));
        told.sort();
        assert_eq!(told, [at(2, 7), at(3, 7)]);
        assert!(table.ended(ActorId(1)).is_empty() && table.is_empty());
    }

    #[test]
    fn a_lost_node_takes_its_links_and_no_others() {
        let mut table = LinkTable::new();
        for (actor, peer) in [(1, at(2, 7)), (1, at(3, 7)), (4, at(2, 8))] {
            table.link(ActorId(actor), peer);
        }
        let mut lost = table.node_lost(NodeUid(2));
        lost.sort();
        assert_eq!(lost, [(ActorId(1), at(2, 7)), (ActorId(4), at(2, 8))]);
        assert_eq!(table.ended(ActorId(1)), [at(3, 7)]);
        assert!(table.is_empty());
    }
}
