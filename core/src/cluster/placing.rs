//! Where something is to be: what is asked for, and what is answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Amount, GroupId, JobId, LabelSelector, Lack, LeaseId, Platform, Resources, WorkerId};
use crate::NodeUid;

/// Resources are asked for. Asking again with the same id is asking for the same, and how a request that waits learns what became
/// of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Whose the lease is to be, and which.
    pub lease: LeaseId,
    /// How much.
    pub resources: Resources,
    /// Where.
    pub strategy: PlaceStrategy,
    /// A node that is preferred where the strategy leaves a choice: of two that are as good, this one.
    pub near: Option<NodeUid>,
    /// How long to wait until it is free; zero for not at all.
    pub wait: Duration,
    /// Wait also for nodes that are not there yet, instead of failing at once with what there is.
    pub for_new_nodes: bool,
    /// With a worker process of its own there, which ends with the lease, and the lease with it.
    #[serde(default)]
    pub isolated: bool,
}

/// How a node is chosen among those that have room.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PlaceStrategy {
    /// Nodes are filled one after the other up to half of what they have, then evenly.
    #[default]
    Default,
    /// The least used node.
    Spread,
    /// This node. A soft wish is for any other if it cannot be.
    Node {
        /// Which.
        node: NodeUid,
        /// Any other will do.
        soft: bool,
    },
    /// A node with such labels. A soft wish is for any other if it cannot be.
    Labels {
        /// Which.
        selector: LabelSelector,
        /// Any other will do.
        soft: bool,
    },
    /// Within what a placement group has set aside.
    Group {
        /// Which.
        group: GroupId,
        /// In this bundle, counted from 0; without it in the first that has room.
        bundle: Option<u32>,
    },
}

/// What became of a request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Placing {
    /// It is the job's, until it is released, or the job or the node ends.
    Placed(Placed),
    /// It waits. `Effect::Decided` of the head tells when it is worth to ask again.
    Waiting,
}

/// A lease that was given.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Which.
    pub lease: LeaseId,
    /// Where.
    pub node: NodeUid,
    /// Which GPUs, and how much of each.
    pub gpus: Vec<GpuShare>,
    /// The worker process of an isolated lease; none from a head that knows no such leases.
    #[serde(default)]
    pub worker: Option<WorkerId>,
}

/// A part of one GPU, or all of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct GpuShare {
    /// Which, on its node, from 0.
    pub index: u32,
    /// How much of it.
    pub amount: Amount,
}

/// A request that no node of the cluster can ever satisfy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Infeasible {
    /// What was asked for.
    pub asked: Resources,
    /// The most that any one node has of each.
    pub best: Resources,
    /// Why some of the nodes do not fit; [`limits::SHORTFALLS_MAX`](crate::limits::SHORTFALLS_MAX) of them.
    pub nodes: Vec<Shortfall>,
    /// How many nodes there are.
    pub node_count: u32,
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no node can ever give {}: ", self.asked)?;
        if self.node_count == 0 {
            return f.write_str("there is no node");
        }
        write!(f, "the most that one node has is {}", self.best)?;
        for shortfall in &self.nodes {
            write!(f, "; {} {}", shortfall.node, shortfall.why)?;
        }
        let more = (self.node_count as usize).saturating_sub(self.nodes.len());
        if more > 0 { write!(f, "; and {more} nodes more") } else { Ok(()) }
    }
}

/// Why a node does not fit.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The node's name.
    pub node: Arc<str>,
    /// Why.
    pub why: WhyNot,
}

/// Why a node does not fit.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WhyNot {
    /// It has too little of this, also when nothing is in use.
    TooSmall(Vec<Lack>),
    /// Its labels are not those that were asked for.
    Labels,
    /// Another node was asked for.
    NotThisNode,
    /// It is to leave.
    Draining,
    /// It cannot start what the job's program was built for.
    Platform {
        /// What it is.
        node: String,
        /// What the program is built for.
        program: Platform,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::TooSmall(lacks) => {
                f.write_str("has ")?;
                let mut between = "";
                lacks.iter().try_for_each(|lack| write!(f, "{}{lack}", std::mem::replace(&mut between, ", ")))
            }
            WhyNot::Labels => f.write_str("has other labels"),
            WhyNot::NotThisNode => f.write_str("is not the one that was asked for"),
            WhyNot::Draining => f.write_str("is to leave"),
            WhyNot::Platform { node, program } => write!(f, "is {node}, and the program is built for {program}"),
        }
    }
}

/// A lease, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseRow {
    /// Which.
    pub id: LeaseId,
    /// Where.
    pub node: NodeUid,
    /// How much.
    pub resources: Resources,
    /// Which GPUs.
    pub gpus: Vec<GpuShare>,
    /// In which bundle of which group.
    pub bundle: Option<(GroupId, u32)>,
}

impl LeaseRow {
    /// A row.
    pub fn new(
        id: LeaseId,
        node: NodeUid,
        resources: Resources,
        gpus: Vec<GpuShare>,
        bundle: Option<(GroupId, u32)>,
    ) -> Self {
        LeaseRow { id, node, resources, gpus, bundle }
    }
}

/// Resources are to be set aside, all of them or none. Asking again with the same id is asking for the same.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NewGroup {
    /// Whose the group is to be, and which.
    pub group: GroupId,
    /// What, each on one node.
    pub bundles: Vec<Resources>,
    /// How the bundles are laid out.
    pub strategy: GroupStrategy,
    /// Wait also for nodes that are not there yet, instead of failing at once.
    pub for_new_nodes: bool,
}

/// How the bundles of a placement group are laid out.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupStrategy {
    /// On as few nodes as can be.
    #[default]
    Pack,
    /// On as many nodes as can be.
    Spread,
    /// On one node.
    StrictPack,
    /// Each on a node of its own.
    StrictSpread,
}

/// How a placement group is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GroupPhase {
    /// It waits for room.
    Pending,
    /// Every bundle has its node.
    Ready,
    /// The nodes of some bundles are lost, and these wait for others.
    Partial,
}

/// A placement group, as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementGroupRow {
    /// Which.
    pub id: GroupId,
    /// Whose it is.
    pub job: JobId,
    /// How it is doing.
    pub phase: GroupPhase,
    /// How its bundles are laid out.
    pub strategy: GroupStrategy,
    /// Each bundle, and its node if it has one.
    pub bundles: Vec<(Resources, Option<NodeUid>)>,
}

impl PlacementGroupRow {
    /// A row.
    pub fn new(
        id: GroupId,
        phase: GroupPhase,
        strategy: GroupStrategy,
        bundles: Vec<(Resources, Option<NodeUid>)>,
    ) -> Self {
        PlacementGroupRow { id, job: id.job, phase, strategy, bundles }
    }
}

/// The cluster in a few numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// Nodes that are not down.
    pub nodes: u32,
    /// Of these, those that take part.
    pub nodes_up: u32,
    /// Jobs that are not over.
    pub jobs: u32,
    /// Worker processes that are to run.
    pub workers: u32,
    /// Leases.
    pub leases: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Placement groups.
    pub groups: u32,
    /// What all nodes have.
    pub total: Resources,
    /// What of that is free.
    pub available: Resources,
}

impl Summary {
    /// Of nothing.
    pub fn new() -> Self {
        Summary::default()
    }
}
