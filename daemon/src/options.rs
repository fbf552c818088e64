//! What an operator says about a node when it is started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mobula_core::LeaseTimes;
use mobula_core::cluster::{Labels, Resources};
use mobula_identity::Token;

/// The port of a head, where nobody says otherwise.
pub const HEAD_PORT: u16 = 6379;
/// The port of another node.
pub const NODE_PORT: u16 = 6380;
/// 8 GiB: programs of jobs that a node keeps.
pub const PROGRAMS_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// How a node is to be.
pub struct NodeOptions {
    /// Where its files are.
    pub home: PathBuf,
    /// Its name; by default the host's.
    pub name: Option<String>,
    /// The address that it listens on; by default all of the host.
    pub listen: IpAddr,
    /// Its one port; 0 lets the system choose.
    pub port: u16,
    /// The address by which others reach it; by default the host's way to the rest of the world.
    pub advertise: Option<IpAddr>,
    /// What it gives to jobs.
    pub resources: Resources,
    /// What its operator says of it.
    pub labels: Labels,
    /// What it is in the cluster.
    pub part: NodePart,
}

/// What a node is in its cluster.
pub enum NodePart {
    /// Its head, and a node as well.
    Head {
        /// The times of every node's lease.
        times: LeaseTimes,
        /// The life of the certificates that it gives.
        certificate_life: Duration,
        /// Where its records lie: a file in its home, or `etcd://..`, where several heads have them and one leads.
        store: Option<String>,
    },
    /// A node of the cluster whose head is at one of these addresses.
    Member {
        /// Where heads are, one at least.
        heads: Vec<SocketAddr>,
        /// What lets it join. Without one it comes back with what its home has kept of its last life.
        token: Option<Token>,
    },
}

/// A node that runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ready {
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Its life.
    pub uid: mobula_core::NodeUid,
}
