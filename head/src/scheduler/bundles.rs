//! Where the bundles of a placement group go: all of them, or none.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_core::cluster::{GroupStrategy, Resources};

use super::{Candidate, Room, pick};
use crate::records::BundlePlace;

/// What is to be laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) bundles: &'a [Resources],
    pub(crate) strategy: GroupStrategy,
    /// Those that have a place keep it.
    pub(crate) places: &'a [Option<BundlePlace>],
}

/// A place for every bundle that has none, or nothing.
pub(crate) fn lay_out(nodes: &[Candidate<'_>], layout: Layout<'_>) -> Option<Vec<(usize, BundlePlace)>> {
    let mut missing: Vec<usize> =
        (0..layout.bundles.len()).filter(|at| layout.places.get(*at).is_none_or(Option::is_none)).collect();
    // The largest first: they have the fewest places.
    missing.sort_by(|a, b| layout.bundles[*b].cmp(&layout.bundles[*a]).then(a.cmp(b)));
    let used: BTreeSet<NodeUid> = layout.places.iter().flatten().map(|place| place.node).collect();
    match layout.strategy {
        GroupStrategy::StrictPack => on_one(nodes, &layout, &missing, &used),
        GroupStrategy::StrictSpread => each_on_its_own(nodes, &layout, &missing, &used),
        GroupStrategy::Pack => {
            on_one(nodes, &layout, &missing, &used).or_else(|| one_by_one(nodes, &layout, &missing, used, true))
        }
        _ => one_by_one(nodes, &layout, &missing, used, false),
    }
}

type Places = Vec<(usize, BundlePlace)>;

fn on_one(nodes: &[Candidate<'_>], layout: &Layout<'_>, missing: &[usize], used: &BTreeSet<NodeUid>) -> Option<Places> {
    if used.len() > 1 {
        return None;
    }
    let mut nodes: Vec<&Candidate<'_>> =
        nodes.iter().filter(|node| used.is_empty() || used.contains(&node.uid)).collect();
    nodes.sort_by_key(|node| node.joined);
    nodes.into_iter().find_map(|node| {
        let mut room = node.room.clone();
        let place = |at: &usize| {
            let gpus = room.take(&layout.bundles[*at])?;
            Some((*at, BundlePlace { node: node.uid, gpus }))
        };
        missing.iter().map(place).collect()
    })
}

/// One after the other: on nodes that the group uses if they are to be together, else on others if there are any.
fn one_by_one(
    nodes: &[Candidate<'_>],
    layout: &Layout<'_>,
    missing: &[usize],
    mut used: BTreeSet<NodeUid>,
    together: bool,
) -> Option<Places> {
    let mut rooms: BTreeMap<NodeUid, Room> = nodes.iter().map(|node| (node.uid, node.room.clone())).collect();
    let mut places = Places::new();
    for at in missing {
        let asked = &layout.bundles[*at];
        let choose = |first: bool| {
            let nodes = nodes.iter().filter(|node| !first || used.contains(&node.uid) == together);
            let nodes = nodes.filter_map(|node| Some(Candidate { room: rooms.get(&node.uid)?, ..*node }));
            pick(nodes, asked, !together, None)
        };
        let node = choose(true).or_else(|| choose(false))?;
        let gpus = rooms.get_mut(&node)?.take(asked)?;
        used.insert(node);
        places.push((*at, BundlePlace { node, gpus }));
    }
    Some(places)
}

/// A matching of bundles and nodes, found by augmenting paths (Kuhn, 1955): if there is one, it is found.
fn each_on_its_own(
    nodes: &[Candidate<'_>],
    layout: &Layout<'_>,
    missing: &[usize],
    used: &BTreeSet<NodeUid>,
) -> Option<Places> {
    let mut nodes: Vec<&Candidate<'_>> = nodes.iter().filter(|node| !used.contains(&node.uid)).collect();
    nodes.sort_by_key(|node| node.joined);
    if nodes.len() < missing.len() {
        return None;
    }
    let fits: Vec<Vec<usize>> = missing
        .iter()
        .map(|at| (0..nodes.len()).filter(|node| nodes[*node].room.fits(&layout.bundles[*at])).collect())
        .collect();
    // Which of the bundles has the node.
    let mut holder: Vec<Option<usize>> = vec![None; nodes.len()];
    for bundle in 0..missing.len() {
        if !augment(bundle, &fits, &mut holder) {
            return None;
        }
    }
    let held = holder.iter().enumerate().filter_map(|(node, bundle)| Some((node, (*bundle)?)));
    held.map(|(node, bundle)| {
        let at = missing[bundle];
        let gpus = nodes[node].room.clone().take(&layout.bundles[at])?;
        Some((at, BundlePlace { node: nodes[node].uid, gpus }))
    })
    .collect()
}

/// Gives `bundle` a node, moving others if need be. Breadth first: bundles are many, and the stack is not.
fn augment(bundle: usize, fits: &[Vec<usize>], holder: &mut [Option<usize>]) -> bool {
    // From which bundle each node was reached.
    let mut from: Vec<Option<usize>> = vec![None; holder.len()];
    let mut queue = std::collections::VecDeque::from([bundle]);
    while let Some(asking) = queue.pop_front() {
        for node in &fits[asking] {
            if from[*node].is_some() {
                continue;
            }
            from[*node] = Some(asking);
            match holder[*node] {
                Some(other) => queue.push_back(other),
                None => {
                    let mut node = *node;
                    while let Some(asking) = from[node] {
                        let before = holder.iter().position(|holder| *holder == Some(asking));
                        holder[node] = Some(asking);
                        match before {
                            Some(before) if asking != bundle => node = before,
                            _ => return true,
                        }
                    }
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use mobula_core::cluster::Amount;

    use super::*;

    fn cpus(count: u64) -> Resources {
        Resources::cpus(Amount::units(count))
    }

    /// The nodes of the bundles on nodes with so many cores.
    fn nodes_of(cores: &[u64], bundles: &[u64], strategy: GroupStrategy) -> Option<Vec<u64>> {
        let totals: Vec<Resources> = cores.iter().map(|count| cpus(*count)).collect();
        let rooms: Vec<Room> = totals.iter().map(Room::of).collect();
        let nodes: Vec<Candidate<'_>> = (0..cores.len())
            .map(|at| Candidate {
                uid: NodeUid(at as u64),
                joined: at as u64,
                total: &totals[at],
                room: &rooms[at],
                leases: 0,
            })
            .collect();
        let bundles: Vec<Resources> = bundles.iter().map(|count| cpus(*count)).collect();
        let mut places = lay_out(&nodes, Layout { bundles: &bundles, strategy, places: &[] })?;
        places.sort_by_key(|(at, _)| *at);
        Some(places.into_iter().map(|(_, place)| place.node.0).collect())
    }

    #[test]
    fn strict_pack_is_one_node_or_none() {
        assert_eq!(nodes_of(&[2, 4], &[2, 2], GroupStrategy::StrictPack), Some(vec![1, 1]));
        assert_eq!(nodes_of(&[3, 3], &[2, 2], GroupStrategy::StrictPack), None);
    }

    #[test]
    fn pack_takes_few_nodes() {
        assert_eq!(nodes_of(&[2, 4], &[2, 2], GroupStrategy::Pack), Some(vec![1, 1]));
        assert_eq!(nodes_of(&[2, 2, 2], &[1, 1, 1], GroupStrategy::Pack), Some(vec![0, 0, 1]));
        assert_eq!(nodes_of(&[1, 1], &[1, 1, 1], GroupStrategy::Pack), None, "all or nothing");
    }

    #[test]
    fn spread_takes_many_nodes_and_shares_them_if_it_must() {
        assert_eq!(nodes_of(&[4, 4, 4], &[1, 1, 1], GroupStrategy::Spread), Some(vec![0, 1, 2]));
        assert_eq!(nodes_of(&[4, 4], &[1, 1, 1], GroupStrategy::Spread).map(|nodes| nodes.len()), Some(3));
    }

    #[test]
    fn strict_spread_finds_a_matching_if_there_is_one() {
        assert_eq!(nodes_of(&[4, 4], &[1, 1, 1], GroupStrategy::StrictSpread), None);
        assert_eq!(nodes_of(&[4, 1, 2], &[1, 2, 4], GroupStrategy::StrictSpread), Some(vec![1, 2, 0]));
        // GPUs and cores pull in different directions: the first choice of the one is the only one of the other.
        let both = cpus(1).with_gpus(Amount::ONE);
        let totals = [both.clone(), cpus(8)];
        let rooms: Vec<Room> = totals.iter().map(Room::of).collect();
        let nodes: Vec<Candidate<'_>> = (0..2)
            .map(|at| Candidate {
                uid: NodeUid(at),
                joined: at,
                total: &totals[at as usize],
                room: &rooms[at as usize],
                leases: 0,
            })
            .collect();
        let bundles = [cpus(1), Resources::new().with_gpus(Amount::ONE)];
        let layout = Layout { bundles: &bundles, strategy: GroupStrategy::StrictSpread, places: &[] };
        let mut places = lay_out(&nodes, layout).expect("there is one");
        places.sort_by_key(|(at, _)| *at);
        assert_eq!(places.iter().map(|(_, place)| place.node.0).collect::<Vec<_>>(), [1, 0]);
    }

    /// Against trying every way, for small groups.
    #[test]
    fn strict_spread_is_exact() {
        let mut random = mobula_core::SplitMix64::new(7);
        let mut found = 0;
        for _ in 0..2_000 {
            let cores: Vec<u64> = (0..4).map(|_| random.bits() % 5).collect();
            let bundles: Vec<u64> = (0..1 + random.bits() % 4).map(|_| 1 + random.bits() % 4).collect();
            let got = nodes_of(&cores, &bundles, GroupStrategy::StrictSpread);
            assert_eq!(got.is_some(), exists(&cores, &bundles, 0), "{cores:?} {bundles:?}");
            if let Some(nodes) = got {
                found += 1;
                let distinct: BTreeSet<&u64> = nodes.iter().collect();
                assert_eq!(distinct.len(), nodes.len());
                assert!(nodes.iter().zip(&bundles).all(|(node, bundle)| cores[*node as usize] >= *bundle));
            }
        }
        assert!((200..1_800).contains(&found), "{found}");
    }

    fn exists(cores: &[u64], bundles: &[u64], used: u32) -> bool {
        let Some((first, rest)) = bundles.split_first() else { return true };
        (0..cores.len()).any(|at| used & (1 << at) == 0 && cores[at] >= *first && exists(cores, rest, used | 1 << at))
    }
}
