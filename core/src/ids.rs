//! A type for each kind of id, each saying what it outlives.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::readable;

/// One life of a node process. Random at every start and never reused, so that nothing meant for an earlier
/// life can reach a later one.
///
/// On the wire it is a number; in JSON 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeUid(pub u64);

impl Serialize for NodeUid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        readable::serialize(self.0, self, serializer)
    }
}

impl<'de> Deserialize<'de> for NodeUid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        readable::deserialize(deserializer, readable::from_hex).map(NodeUid)
    }
}

impl fmt::Display for NodeUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node: the name given by its operator, and the uid of this life. An address is not an identity.
/// Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct NodeId {
    /// The operator's name, e.g. `node-1`. May come back with another uid after a restart.
    pub name: Arc<str>,
    /// This life of the node.
    pub uid: NodeUid,
}

impl NodeId {
    /// Names one life of a node.
    pub fn new(name: &str, uid: NodeUid) -> Self {
        NodeId { name: Arc::from(name), uid }
    }
}

impl fmt::Display for NodeId {
    /// `node-1#9f3c00a1`: the name and the first half of the uid.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x}", self.name, self.uid.0 >> 32)
    }
}

/// An actor within one life of a node; never reused there. A restart under supervision keeps it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActorId(pub u64);

impl ActorId {
    /// The node itself: spawns, stops and questions about the node go here.
    pub const NODE: ActorId = ActorId(0);
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An actor, and the life of the node where it is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ActorAddress {
    /// The node.
    pub node: NodeId,
    /// The actor there.
    pub actor: ActorId,
}

impl fmt::Display for ActorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.actor, self.node)
    }
}

/// How often an actor has been restarted under supervision; 0 for its first life.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A request on one connection; never reused while that connection lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// The stable key of a message type: [`schema_hash`](crate::schema_hash) of its registered name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageKey(pub u64);

impl MessageKey {
    /// The key of the message type registered under `name`.
    pub const fn of(name: &str) -> Self {
        MessageKey(crate::schema_hash(name))
    }
}
