//! The nodes of the cluster as this process sees them, and where the next actor goes. No I/O.

use std::net::SocketAddr;

use mobula_actors::{Placement, SpawnError};
use mobula_core::cluster::{Amount, Labels, Resources};
use mobula_core::{NodeId, NodeUid};
use tokio::sync::watch;

/// One node of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name and life.
    pub id: NodeId,
    /// Its process.
    pub pid: u32,
    /// Where it listens; none for a node inside this process.
    pub address: Option<SocketAddr>,
    /// Task slots.
    pub cpus: u32,
    /// False once it is down, for ever in this life.
    pub alive: bool,
    /// What this process knows of its health.
    pub state: NodeState,
    /// What it gives to actors that ask for [resources](mobula_actors::ActorSpec::cpus).
    pub resources: Resources,
    /// What is said of it.
    pub labels: Labels,
    /// The life of the node that has started it, which outlives it; on a cluster of its own processes its own.
    pub host: NodeUid,
    /// It is for one actor alone, and no node to anybody else.
    pub(crate) isolated: bool,
}

impl NodeInfo {
    /// A node that is up and gives its cores.
    pub(crate) fn new(id: NodeId, pid: u32, address: Option<SocketAddr>, cpus: u32) -> Self {
        let (host, resources) = (id.uid, Resources::cpus(Amount::units(u64::from(cpus))));
        let (alive, state, labels) = (true, NodeState::Up, Labels::new());
        NodeInfo { id, pid, address, cpus, alive, state, resources, labels, host, isolated: false }
    }
}

/// The health of a node, as another sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NodeState {
    /// It is heard.
    Up,
    /// It has been silent for 3 s, or three eighths of the lease. It may come back, and nothing is done about it.
    Suspect,
    /// It is lost or dead, for ever in this life.
    Down,
}

/// The members, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Members {
    members: Vec<Member>,
    next_in_turn: usize,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Member {
    info: NodeInfo,
    /// Actors that this process has placed there.
    placed: u64,
}

impl Member {
    /// Something may be placed there.
    fn takes_more(&self) -> bool {
        self.info.alive && !self.info.isolated
    }
}

impl Members {
    pub(crate) fn new(nodes: Vec<NodeInfo>) -> Self {
        let members = nodes.into_iter().map(|info| Member { info, placed: 0 }).collect();
        Members { members, next_in_turn: 0, changed: watch::Sender::new(()) }
    }

    /// Those on which something may be placed, and that ever were.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        self.members.iter().filter(|member| !member.info.isolated).map(|member| member.info.clone()).collect()
    }

    /// Every process that lives, also those for one actor.
    pub(crate) fn processes(&self) -> Vec<NodeId> {
        self.members.iter().filter(|member| member.info.alive).map(|member| member.info.id.clone()).collect()
    }

    /// Where keyed actors may live.
    pub(crate) fn homes(&self) -> Vec<NodeId> {
        self.members.iter().filter(|member| !member.info.isolated).map(|member| member.info.id.clone()).collect()
    }

    /// The process with this life, if it lives.
    pub(crate) fn life(&self, uid: NodeUid) -> Option<NodeId> {
        let live = self.members.iter().find(|member| member.info.alive && member.info.id.uid == uid);
        live.map(|member| member.info.id.clone())
    }

    /// A node has come. False if it was known.
    pub(crate) fn add(&mut self, info: NodeInfo) -> bool {
        let is_new = self.members.iter().all(|member| member.info.id != info.id);
        if is_new {
            self.members.push(Member { info, placed: 0 });
            self.changed.send_replace(());
        }
        is_new
    }

    /// Marks a node as down. False if it was already, or is unknown.
    pub(crate) fn down(&mut self, node: &NodeId) -> bool {
        let at = self.members.iter().position(|member| member.info.id == *node);
        let was_up = at.is_some_and(|at| {
            let info = &mut self.members[at].info;
            info.state = NodeState::Down;
            let was_up = std::mem::replace(&mut info.alive, false);
            if info.isolated {
                // As many come as there are actors, and nobody lists them.
                self.members.remove(at);
            }
            was_up
        });
        if was_up {
            self.changed.send_replace(());
        }
        was_up
    }

    /// A node that is not down is silent, or heard again.
    pub(crate) fn suspect(&mut self, node: &NodeId, silent: bool) {
        let state = if silent { NodeState::Suspect } else { NodeState::Up };
        let member = self.members.iter_mut().find(|member| member.info.id == *node && member.info.alive);
        if let Some(member) = member.filter(|member| member.info.state != state) {
            member.info.state = state;
            self.changed.send_replace(());
        }
    }

    /// Hears of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The host of a node that lives.
    pub(crate) fn host_of(&self, node: &NodeId) -> Option<NodeUid> {
        self.members.iter().find(|member| member.takes_more() && member.info.id == *node).map(|member| member.info.host)
    }

    /// The host of the latest node of that name, which may be between two lives.
    pub(crate) fn host_named(&self, name: &str) -> Option<NodeUid> {
        let of_name = self.members.iter().rev().find(|member| *member.info.id.name == *name);
        of_name.map(|member| member.info.host)
    }

    /// The node that lives on a host.
    pub(crate) fn on_host(&self, host: NodeUid) -> Option<NodeId> {
        let live = self.members.iter().rev().find(|member| member.takes_more() && member.info.host == host);
        live.map(|member| member.info.id.clone())
    }

    /// Chooses the node for an actor, and counts it there.
    pub(crate) fn place(&mut self, placement: &Placement) -> Result<NodeId, SpawnError> {
        let chosen = match placement {
            Placement::Node(node) => {
                self.members.iter().position(|member| member.takes_more() && member.info.id == *node)
            }
            Placement::Spread => self.next_alive(),
            Placement::Named { name, soft } => {
                let is_it = |member: &Member| member.takes_more() && *member.info.id.name == **name;
                let found = self.members.iter().position(is_it);
                if *soft { found.or_else(|| self.least_placed()) } else { found }
            }
            _ => self.least_placed(),
        };
        let Some(member) = chosen.and_then(|index| self.members.get_mut(index)) else {
            let wanted = match placement {
                Placement::Node(node) => node.to_string(),
                Placement::Named { name, .. } => name.clone(),
                _ => "any live node".to_owned(),
            };
            return Err(SpawnError::NoSuchNode { wanted, have: self.alive() });
        };
        member.placed += 1;
        Ok(member.info.id.clone())
    }

    fn next_alive(&mut self) -> Option<usize> {
        let count = self.members.len();
        let index =
            (0..count).map(|step| (self.next_in_turn + step) % count).find(|i| self.members[*i].takes_more())?;
        self.next_in_turn = index + 1;
        Some(index)
    }

    fn least_placed(&self) -> Option<usize> {
        let alive = self.members.iter().enumerate().filter(|(_, member)| member.takes_more());
        alive.min_by_key(|(_, member)| member.placed).map(|(index, _)| index)
    }

    /// As the refusal of a node that is not there says it.
    pub(crate) fn no_such_node(&self, wanted: String) -> String {
        SpawnError::NoSuchNode { wanted, have: self.alive() }.to_string()
    }

    fn alive(&self) -> String {
        let alive = self.members.iter().filter(|member| member.takes_more());
        let alive: Vec<_> = alive.map(|member| member.info.id.to_string()).collect();
        if alive.is_empty() { "no live node".to_owned() } else { alive.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::NodeUid;

    use super::*;

    fn node(number: u64) -> NodeInfo {
        let id = NodeId::new(&format!("node-{number}"), NodeUid(number));
        NodeInfo::new(id, 0, None, 1)
    }

    #[test]
    fn a_node_that_comes_later_takes_part() {
        let mut members = three();
        let changes = members.subscribe();
        assert!(members.add(node(4)) && !members.add(node(4)));
        assert!(changes.has_changed().expect("the members are there"));
        let place = |members: &mut Members| members.place(&Placement::Spread).expect("alive").uid.0;
        assert_eq!([1, 2, 3, 4, 1].map(|_| place(&mut members)), [1, 2, 3, 4, 1]);
        assert!(members.down(&node(4).id) && !members.add(node(4)), "a life that is over does not come back");
    }

    fn three() -> Members {
        Members::new((1..=3).map(node).collect())
    }

    #[test]
    fn spread_goes_round_and_skips_the_dead() {
        let mut members = three();
        let place = |members: &mut Members| members.place(&Placement::Spread).expect("alive").uid.0;
        assert_eq!([1, 2, 3, 1].map(|_| place(&mut members)), [1, 2, 3, 1]);
        assert!(members.down(&node(2).id));
        assert!(!members.down(&node(2).id));
        assert_eq!([1, 2, 3].map(|_| place(&mut members)), [3, 1, 3]);
    }

    #[test]
    fn the_default_is_the_emptiest_node() {
        let mut members = three();
        members.place(&Placement::Node(node(1).id)).expect("alive");
        let chosen: Vec<u64> = (0..5).map(|_| members.place(&Placement::Default).expect("alive").uid.0).collect();
        assert_eq!(chosen, [2, 3, 1, 2, 3]);
    }

    #[test]
    fn a_node_is_found_by_its_name_whichever_life_it_has() {
        let mut members = three();
        let named = |soft| Placement::Named { name: "node-2".to_owned(), soft };
        assert_eq!(members.place(&named(false)).expect("alive").uid.0, 2);
        members.down(&node(2).id);
        let error = members.place(&named(false)).expect_err("between two lives").to_string();
        assert!(error.contains("node-2") && error.contains("node-1#"), "{error}");
        assert_ne!(members.place(&named(true)).expect("another will do").uid.0, 2);
        // A process that comes after it on the same host has its name.
        let mut next = node(2);
        next.id = NodeId::new("node-2", NodeUid(22));
        assert!(members.add(next.clone()));
        assert_eq!(members.place(&named(false)).expect("alive"), next.id);
        assert_eq!((members.host_named("node-2"), members.on_host(NodeUid(2))), (Some(NodeUid(2)), Some(next.id)));
        assert_eq!((members.host_of(&node(2).id), members.host_of(&node(1).id)), (None, Some(NodeUid(1))));
    }

    #[test]
    fn nothing_goes_to_a_process_for_one_actor() {
        let mut members = three();
        let mut own = node(4);
        (own.id, own.host, own.isolated) = (NodeId::new("node-1", NodeUid(4)), NodeUid(1), true);
        assert!(members.add(own.clone()));
        for _ in 0..4 {
            assert_ne!(members.place(&Placement::Spread).expect("alive"), own.id);
            assert_ne!(members.place(&Placement::Default).expect("alive"), own.id);
        }
        let named = Placement::Named { name: "node-1".to_owned(), soft: false };
        assert_eq!(members.place(&named).expect("alive"), node(1).id);
        members.place(&Placement::Node(own.id.clone())).expect_err("no node to anybody else");
        assert_eq!((members.nodes().len(), members.homes().len(), members.processes().len()), (3, 3, 4));
        assert_eq!((members.on_host(NodeUid(1)), members.host_of(&own.id)), (Some(node(1).id), None));
        assert_eq!(members.life(NodeUid(4)), Some(own.id.clone()));
        assert!(members.down(&own.id) && !members.down(&own.id));
        assert_eq!((members.life(NodeUid(4)), members.members.len()), (None, 3), "it leaves nothing behind");
    }

    #[test]
    fn a_node_that_is_not_there_is_refused_with_what_is() {
        let mut members = three();
        members.down(&node(3).id);
        let error = members.place(&Placement::Node(node(3).id)).expect_err("down");
        let text = error.to_string();
        assert!(text.contains("node-3#") && text.contains("node-1#") && text.contains("node-2#"), "{text}");
        members.down(&node(1).id);
        members.down(&node(2).id);
        assert!(members.place(&Placement::Default).expect_err("none left").to_string().contains("no live node"));
    }
}
