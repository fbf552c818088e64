//! Why there is no cluster.

use std::io;
use std::time::Duration;

use mobula_actors::{NodeError, SnapshotError};
use mobula_control::ControlError;
use mobula_core::limits;
use mobula_transport::LinkClosed;
use mobula_transport::tcp::ConnectError;
use mobula_transport::tls::TlsError;

/// A cluster could not be started or joined. Whatever had been started for it is ended, so trying again is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A number is outside of what makes sense.
    #[error("{what} must be {valid}, not {value}")]
    BadNumber {
        /// What it is for.
        what: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        valid: &'static str,
    },
    /// This process has no node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A node process could not be started.
    #[error("cannot start {node} from {executable}: {error}")]
    Start {
        /// The node.
        node: String,
        /// What was to be run.
        executable: String,
        /// What the system said.
        error: io::Error,
    },
    /// A node process ended, or said why it cannot be a node, before it was ready.
    #[error("{node} did not become ready: {reason}")]
    NotReady {
        /// The node.
        node: String,
        /// What is known.
        reason: String,
    },
    /// A node process did not say anything.
    #[error(
        "{node} was not ready within {} s: does its `main` begin with `#[mobula::main]` or `mobula::run_main`?",
        after.as_secs()
    )]
    StartDeadline {
        /// The node.
        node: String,
        /// The limit.
        after: Duration,
    },
    /// A node cannot listen where it was told to.
    #[error("cannot start {node}: {error}")]
    Listen {
        /// The node.
        node: String,
        /// Why.
        error: ConnectError,
    },
    /// A connection between nodes failed.
    #[error("cannot connect to {node}: {error}")]
    Connect {
        /// The node.
        node: String,
        /// Why.
        error: ConnectError,
    },
    /// A connection between nodes ended before it was of use.
    #[error(transparent)]
    Link(#[from] LinkClosed),
    /// The running cluster was not reached, or does not do what it was asked for.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The certificate that the cluster has given cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The cluster has no worker for this program.
    #[error("no worker of the cluster became ready within {} s: {reason}", limits::NODE_START_DEADLINE.as_secs())]
    NoWorkers {
        /// What is known.
        reason: String,
    },
    /// The store for snapshots cannot be used.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// What this build cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The operating system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ClusterError {
    /// True if a port was taken: another may be free.
    pub fn is_port_in_use(&self) -> bool {
        matches!(self, ClusterError::Listen { error: ConnectError::PortInUse { .. }, .. })
    }

    pub(crate) fn too_many_nodes(value: usize) -> Option<Self> {
        let valid = "from 1 to 256";
        let within = (1..=limits::LOCAL_NODES_MAX).contains(&value);
        (!within).then(|| ClusterError::BadNumber { what: "the number of nodes", value: value.to_string(), valid })
    }
}
