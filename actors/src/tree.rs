//! The actors of one node or of many, and who supervises whom, to be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mobula_core::{ActorAddress, Generation, limits};
use serde::{Deserialize, Serialize};

use crate::actor::RemoteActor;
use crate::node::Node;
use crate::supervisor::Supervisor;

/// An actor, as lists and trees show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TreeActor {
    /// Where it is.
    pub actor: ActorAddress,
    /// The registered name of its type.
    pub actor_type: String,
    /// Its own name, if it has one.
    pub name: Option<String>,
    /// Its present life.
    pub generation: Generation,
    /// Its supervisor, and what that one calls it.
    pub child_of: Option<(ActorAddress, String)>,
    /// Messages in its mailbox.
    #[serde(default)]
    pub waiting: u64,
}

/// Actors, those of one node in the order of their creation.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ActorList {
    /// They.
    pub actors: Vec<TreeActor>,
    /// Actors that there are and that are not listed.
    pub left_out: u64,
}

impl ActorList {
    /// The first `limit` of an actor's node.
    pub(crate) fn of(node: &Node, limit: usize) -> Self {
        let mut actors = all_of(node);
        let left_out = actors.len().saturating_sub(limit.min(limits::TREE_ACTORS_MAX));
        actors.truncate(actors.len() - left_out);
        ActorList { actors, left_out: left_out as u64 }
    }

    /// Adds what another node has told, until there are `limit`.
    pub fn add(&mut self, other: ActorList, limit: usize) {
        let room = limit.saturating_sub(self.actors.len());
        self.left_out += other.left_out + other.actors.len().saturating_sub(room) as u64;
        self.actors.extend(other.actors.into_iter().take(room));
    }
}

/// Those that are actors of their own, the oldest first.
fn all_of(node: &Node) -> Vec<TreeActor> {
    let mut actors: Vec<_> = node.actors().iter().filter_map(|actor| actor.in_tree()).collect();
    actors.sort_by_key(|actor| actor.actor.actor);
    actors
}

/// The trees of supervisors, with whom they supervise. Its text has a line for each actor, children below their
/// supervisor.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SupervisionTree {
    /// Supervisors and their children, those of one node in the order of their creation.
    pub actors: Vec<TreeActor>,
    /// Actors that stand in no tree.
    pub others: u64,
    /// Actors that do and are not listed: a node lists [`limits::TREE_ACTORS_MAX`].
    pub left_out: u64,
}

impl SupervisionTree {
    /// The trees of an actor's node.
    pub(crate) fn of(node: &Node) -> Self {
        let mut tree = SupervisionTree::default();
        for actor in all_of(node) {
            if actor.child_of.is_none() && actor.actor_type != Supervisor::NAME {
                tree.others += 1;
            } else if tree.actors.len() < limits::TREE_ACTORS_MAX {
                tree.actors.push(actor);
            } else {
                tree.left_out += 1;
            }
        }
        tree
    }

    /// Adds what another node has told.
    pub fn add(&mut self, other: SupervisionTree) {
        self.actors.extend(other.actors);
        self.others += other.others;
        self.left_out += other.left_out;
    }

    /// The children of `supervisor` that are listed.
    pub fn children_of(&self, supervisor: &ActorAddress) -> impl Iterator<Item = &TreeActor> {
        self.actors.iter().filter(move |actor| actor.child_of.as_ref().is_some_and(|(by, _)| by == supervisor))
    }
}

impl fmt::Display for TreeActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, child)) = &self.child_of {
            write!(f, "{child}: ")?;
        }
        write!(f, "{} {}", self.actor_type, self.actor)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        match self.generation {
            Generation(0) => Ok(()),
            Generation(restarts) => write!(f, ", restarted {restarts}x"),
        }
    }
}

impl fmt::Display for SupervisionTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: BTreeSet<_> = self.actors.iter().map(|actor| &actor.actor).collect();
        let mut children: BTreeMap<_, Vec<&TreeActor>> = BTreeMap::new();
        let mut open = Vec::new();
        for actor in &self.actors {
            match &actor.child_of {
                Some((by, _)) if listed.contains(by) => children.entry(by).or_default().push(actor),
                // Also the children of a supervisor that is not in sight.
                _ => open.push((0, actor)),
            }
        }
        open.reverse();
        while let Some((depth, actor)) = open.pop() {
            writeln!(f, "{:indent$}{actor}", "", indent = 2 * depth)?;
            // Taken out, so that each actor comes once, whatever a peer claims.
            let below = children.remove(&actor.actor).unwrap_or_default();
            open.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
        }
        match (self.others, self.left_out) {
            (0, 0) => Ok(()),
            (others, 0) => writeln!(f, "and {others} in no tree"),
            (others, left_out) => writeln!(f, "and {left_out} more, and {others} in no tree"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::{ActorId, NodeId, NodeUid};

    use super::*;

    fn at(node: u64, actor: u64) -> ActorAddress {
        ActorAddress { node: NodeId::new(&format!("node-{node}"), NodeUid(node << 32)), actor: ActorId(actor) }
    }

    fn actor(at: ActorAddress, actor_type: &str, child_of: Option<(ActorAddress, &str)>) -> TreeActor {
        let child_of = child_of.map(|(by, child)| (by, child.to_owned()));
        let (actor_type, generation) = (actor_type.to_owned(), Generation(0));
        TreeActor { actor: at, actor_type, name: None, generation, child_of, waiting: 0 }
    }

    #[test]
    fn children_stand_below_their_supervisor_also_across_nodes() {
        let mut tree = SupervisionTree {
            actors: vec![
                actor(at(1, 1), "Supervisor", None),
                actor(at(1, 2), "Supervisor", Some((at(1, 1), "inner"))),
                actor(at(1, 3), "Door", Some((at(1, 1), "door"))),
            ],
            others: 2,
            left_out: 0,
        };
        let mut cache = actor(at(2, 9), "Cache", Some((at(1, 2), "cache")));
        cache.generation = Generation(3);
        cache.name = Some("hits".to_owned());
        tree.add(SupervisionTree { actors: vec![cache], others: 1, left_out: 0 });
        let text = "Supervisor 1@node-1#00000001\n  inner: Supervisor 2@node-1#00000001\n    \
                    cache: Cache 9@node-2#00000002 `hits`, restarted 3x\n  door: Door 3@node-1#00000001\n\
                    and 3 in no tree\n";
        assert_eq!(tree.to_string(), text);
    }

    #[test]
    fn a_ring_of_claims_ends() {
        let actors = vec![
            actor(at(1, 1), "Supervisor", Some((at(1, 2), "two"))),
            actor(at(1, 2), "Supervisor", Some((at(1, 1), "one"))),
            actor(at(1, 3), "Orphan", Some((at(7, 7), "lost"))),
        ];
        let tree = SupervisionTree { actors, others: 0, left_out: 0 };
        assert_eq!(tree.to_string(), "lost: Orphan 3@node-1#00000001\n");
    }
}
