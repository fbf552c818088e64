//! Which node.

use mobula_core::NodeUid;
use mobula_core::cluster::{Amount, Resources};

use super::Room;

/// A node on which something new may be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) uid: NodeUid,
    /// The order in which nodes came.
    pub(crate) joined: u64,
    pub(crate) total: &'a Resources,
    pub(crate) room: &'a Room,
    /// Leases on it.
    pub(crate) leases: usize,
}

/// In ten-thousandths.
const HALF: u64 = 5_000;

impl Candidate<'_> {
    /// How full the node would be with `asked` on it: the fullest of its resources, in ten-thousandths.
    fn load(&self, asked: &Resources) -> u64 {
        let load = |total: Amount, free: Amount, asked: Amount| {
            let total = u128::from(total.as_parts());
            let used = total.saturating_sub(u128::from(free.as_parts())) + u128::from(asked.as_parts());
            (used * 10_000).checked_div(total).map_or(0, |load| load as u64)
        };
        let (total, free) = (self.total, &self.room.free);
        let known = load(total.cpus, free.cpus, asked.cpus).max(load(total.gpus, free.gpus, asked.gpus)).max(load(
            total.memory,
            free.memory,
            asked.memory,
        ));
        let custom = asked.custom.iter().map(|(name, asked)| load(total.get(name), free.get(name), *asked));
        custom.fold(known, u64::max)
    }
}

/// The best of the nodes that have room for `asked`. Spread: the least full. Else the first that stays at most half full, and if there is
/// none the least full. Of two that are as good `near` is better, then the one that came first.
pub(crate) fn pick<'a>(
    nodes: impl Iterator<Item = Candidate<'a>>,
    asked: &Resources,
    spread: bool,
    near: Option<NodeUid>,
) -> Option<NodeUid> {
    // What needs nothing would fill the first node for ever.
    let spread = spread || asked.is_empty();
    let fitting = nodes.filter(|node| node.room.fits(asked));
    let best = fitting.min_by_key(|node| {
        let load = node.load(asked);
        let (load, leases) = match spread {
            true => (load, node.leases),
            false if load <= HALF => (0, 0),
            false => (load, 0),
        };
        (load, leases, near != Some(node.uid), node.joined)
    });
    best.map(|node| node.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nodes(Vec<(Resources, Room, usize)>);

    impl Nodes {
        fn new(count: usize, cpus: u64) -> Self {
            let total = Resources::cpus(Amount::units(cpus));
            Nodes((0..count).map(|_| (total.clone(), Room::of(&total), 0)).collect())
        }

        fn place(&mut self, asked: &Resources, spread: bool, near: Option<u64>) -> Option<u64> {
            let nodes = self.0.iter().enumerate().map(|(at, (total, room, leases))| Candidate {
                uid: NodeUid(at as u64),
                joined: at as u64,
                total,
                room,
                leases: *leases,
            });
            let at = pick(nodes, asked, spread, near.map(NodeUid))?;
            let (_, room, leases) = &mut self.0[at.0 as usize];
            room.take(asked).expect("it fits");
            *leases += 1;
            Some(at.0)
        }
    }

    fn one() -> Resources {
        Resources::cpus(Amount::ONE)
    }

    #[test]
    fn nodes_are_filled_to_half_one_after_the_other_then_evenly() {
        let mut nodes = Nodes::new(3, 4);
        let places: Vec<_> = (0..13).map(|_| nodes.place(&one(), false, None)).collect();
        let first: Vec<_> = [0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2].into_iter().map(Some).collect();
        assert_eq!(places[..12], first[..]);
        assert_eq!(places[12], None, "all is in use");
    }

    #[test]
    fn spread_takes_the_least_used() {
        let mut nodes = Nodes::new(3, 4);
        let places: Vec<_> = (0..4).filter_map(|_| nodes.place(&one(), true, None)).collect();
        assert_eq!(places, [0, 1, 2, 0]);
    }

    #[test]
    fn what_needs_nothing_is_spread() {
        let mut nodes = Nodes::new(3, 4);
        let places: Vec<_> = (0..6).filter_map(|_| nodes.place(&Resources::new(), false, None)).collect();
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn near_is_better_where_it_is_as_good() {
        let mut nodes = Nodes::new(3, 4);
        let places: Vec<_> = (0..4).filter_map(|_| nodes.place(&one(), false, Some(2))).collect();
        assert_eq!(places, [2, 2, 0, 0], "up to half");
    }

    #[test]
    fn the_fullest_resource_counts() {
        let total = Resources::cpus(Amount::units(100)).with_memory(Amount::units(10));
        let mut nodes = Nodes((0..2).map(|_| (total.clone(), Room::of(&total), 0)).collect());
        let asked = one().with_memory(Amount::units(4));
        let places: Vec<_> = (0..2).filter_map(|_| nodes.place(&asked, false, None)).collect();
        assert_eq!(places, [0, 1]);
    }
}
