//! Why a node does not start, and the exit code that says so to programs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mobula_control::ControlError;
use mobula_head::store::{StoreError, TakeOverError};
use mobula_identity::{IdentityError, JoinError};
use mobula_transport::tls::TlsError;
use mobula_transport::unix::{DirectoryFault, UnixError};

use crate::holder::Holder;

/// Where a token comes from, and how it is given.
const TOKEN: &str = "a token: make one on the head's host with `mobula token create`, and give it by --token-file, --token-fd or stdin (--token-file -)";

/// A node does not start, or has to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The home is not as it has to be, or a node has it already.
    #[error(transparent)]
    Home(#[from] UnixError),
    /// The cluster's identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cluster could not be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The home has nothing to come back with.
    #[error("this home has kept no membership: joining takes {}", TOKEN)]
    NoMembership,
    /// What the home has kept is of no use any more.
    #[error(
        "this node was away for longer than its certificate lasts, and comes back as one that joins: that takes {}",
        TOKEN
    )]
    MembershipOver,
    /// The head does not take this node back.
    #[error(
        "JoinRejected: the head at {address} does not take this node back; its audit log says why: it was removed, or has come back already from a \
         copy of this home. To let it in anew takes {}",
        TOKEN
    )]
    NotTakenBack {
        /// The head.
        address: SocketAddr,
    },
    /// Another process has the port.
    #[error("port {} on {} is in use by {holder}: choose another, or stop that process", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// Who has it.
        holder: Holder,
    },
    /// A node that lives has the name.
    #[error(
        "the name {name} is in use: the node {holder} at {address} has it and lives; choose another with --name, or stop that node \
         (`mobula stop` on its host, or `mobula node drain {holder}`)"
    )]
    NameInUse {
        /// The name.
        name: std::sync::Arc<str>,
        /// The life that has it.
        holder: mobula_core::NodeUid,
        /// Where that is reached.
        address: String,
    },
    /// The port cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The head does not take this node.
    #[error("the head does not take this node: {0}")]
    Control(#[from] ControlError),
    /// What the head has written down cannot be used.
    #[error(transparent)]
    Records(#[from] TakeOverError),
    /// The records are those of another cluster.
    #[error(
        "the records at {store} are those of cluster {theirs}, and this head is of {ours}: all heads have the same authority; copy the file \
         identity/authority from the home of one of them to {}, or name another prefix behind the address", path.display()
    )]
    OtherCluster {
        /// Where the records are.
        store: String,
        /// Whose they are.
        theirs: String,
        /// Whose this head is.
        ours: String,
        /// Where its authority is, or would be.
        path: PathBuf,
    },
    /// An option makes no sense here.
    #[error("{0}")]
    Options(String),
    /// The node was fenced: it had no lease any more, and has ended all that ran on it.
    #[error(
        "this node has lost its lease and has ended what ran on it: start it again, and it comes back with a new life"
    )]
    Fenced,
    /// The head cannot go on.
    #[error("the head cannot go on: {0}")]
    Broken(String),
    /// The operating system says no.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        error: io::Error,
    },
}

impl DaemonError {
    /// What the process ends with: 2 for options, 4 for a port or a name that is taken, 5 for a home in use, 69 for a head that is not reached, 70
    /// for what ended in between, 77 for what may not be, 78 for files that are not as they have to be, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Options(_) | DaemonError::NoMembership | DaemonError::Join(JoinError::NoHeads) => 2,
            DaemonError::PortInUse { .. } | DaemonError::NameInUse { .. } => 4,
            DaemonError::Home(UnixError::InUse { .. }) => 5,
            DaemonError::Records(TakeOverError::Store(StoreError::Unavailable { .. })) => 69,
            DaemonError::Records(TakeOverError::Store(StoreError::Denied { .. })) => 77,
            DaemonError::Control(_) | DaemonError::Join(JoinError::Tls(_) | JoinError::Io { .. }) => 69,
            DaemonError::Fenced | DaemonError::Broken(_) => 70,
            DaemonError::Join(_)
            | DaemonError::MembershipOver
            | DaemonError::NotTakenBack { .. }
            | DaemonError::Identity(IdentityError::File { .. })
            | DaemonError::Home(UnixError::Directory {
                fault: DirectoryFault::Owner { .. } | DirectoryFault::Mode { .. } | DirectoryFault::Symlink,
                ..
            }) => 77,
            DaemonError::Records(_)
            | DaemonError::OtherCluster { .. }
            | DaemonError::Identity(IdentityError::Corrupt { .. }) => 78,
            _ => 1,
        }
    }
}
