//! Which node a key belongs to: the same answer on every node that knows the same nodes, without asking anybody.
//!
//! Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996: the highest score wins. A node that goes
//! moves its own keys, and no other.

use crate::NodeId;
use crate::split_mix::mix;

/// The node among `nodes` to which the key with this hash belongs; none if there are none.
pub fn rendezvous<'a>(key: u64, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    nodes.into_iter().max_by_key(|node| (rendezvous_score(key, node.uid.0), node.uid))
}

/// What a place with this number bids for a key with this hash. The highest bidder has it.
pub fn rendezvous_score(key: u64, place: u64) -> u64 {
    mix(key ^ mix(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeUid, schema_hash};

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(|uid| NodeId::new(&format!("node-{uid}"), NodeUid(uid))).collect()
    }

    fn key(number: u64) -> u64 {
        schema_hash(&format!("account-{number}"))
    }

    #[test]
    fn keys_are_shared_out_evenly() {
        let nodes = nodes(5);
        let mut counts = [0_u64; 5];
        for number in 0..10_000 {
            let home = rendezvous(key(number), &nodes).expect("five nodes");
            counts[home.uid.0 as usize - 1] += 1;
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        assert_eq!(rendezvous(key(1), &[]), None);
    }

    #[test]
    fn a_node_that_goes_moves_its_own_keys_only() {
        let all = nodes(5);
        for number in 0..1_000 {
            let before = rendezvous(key(number), &all).expect("five nodes");
            let left = all.iter().filter(|node| node.uid.0 != 3);
            let after = rendezvous(key(number), left).expect("four nodes");
            assert!(before.uid.0 == 3 || before == after);
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter() {
        let forth = nodes(7);
        let back: Vec<NodeId> = forth.iter().rev().cloned().collect();
        assert!((0..1_000).all(|number| rendezvous(key(number), &forth) == rendezvous(key(number), &back)));
    }
}
