//! How a cluster is to be started.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mobula_actors::NodeConfig;
use mobula_core::cluster::{Amount, Labels, Resources};
use mobula_core::{LeaseTimes, limits};

use crate::cluster::Cluster;
use crate::error::ClusterError;

/// Options of a cluster; made by [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `connect`"]
pub struct ClusterBuilder {
    pub(crate) nodes: Option<usize>,
    pub(crate) address: Option<String>,
    pub(crate) cpus_per_node: Option<u32>,
    pub(crate) arbiters_per_node: Option<usize>,
    pub(crate) base_port: Option<u16>,
    pub(crate) executable: Option<PathBuf>,
    pub(crate) lease: Option<Duration>,
    pub(crate) snapshots: Option<String>,
    pub(crate) encode_local_calls: bool,
    pub(crate) compress_above_bytes: Option<usize>,
    resources: Resources,
    of_node: BTreeMap<usize, (Resources, Labels)>,
}

impl ClusterBuilder {
    pub(crate) fn new() -> Self {
        ClusterBuilder {
            nodes: None,
            address: None,
            cpus_per_node: None,
            arbiters_per_node: None,
            base_port: None,
            executable: None,
            lease: None,
            snapshots: None,
            encode_local_calls: NodeConfig::default().encode_local_calls,
            compress_above_bytes: NodeConfig::default().compress_above_bytes,
            resources: Resources::new(),
            of_node: BTreeMap::new(),
        }
    }

    /// Starts so many node processes on this machine, 1 to 256. Without it the cluster lives inside this process.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Drives a job on the running cluster that is meant by this, which is read as `MOBULA_ADDRESS` is, see [`Cluster::connect`]: `10.0.0.1:6379`, for one. What is
    /// said of nodes, cores, ports and leases is for clusters that are started here. Where a node has started this process, as the driver of a job
    /// that was submitted or as a worker, it belongs to the cluster of that node, whatever is said here.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Task slots of each node. Default: the machine's cores, shared out among the nodes, at least 1.
    pub fn cpus_per_node(mut self, cpus: u32) -> Self {
        self.cpus_per_node = Some(cpus);
        self
    }

    /// What each node gives to actors that ask for resources, beside its cores. Cores that are named here are given instead of
    /// [`cpus_per_node`](Self::cpus_per_node), which stay the task slots.
    pub fn resources_per_node(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// What one node gives beside that, and its labels. The first of several has number 1; the only one of a cluster inside this process has 0.
    pub fn node(mut self, number: usize, resources: Resources, labels: Labels) -> Self {
        self.of_node.insert(number, (resources, labels));
        self
    }

    /// Threads for actors in each node. Default: as many as [`cpus_per_node`](Self::cpus_per_node) for a cluster inside
    /// this process, and 1 for node processes, where the thread that reads a connection is then the one that answers.
    pub fn arbiters_per_node(mut self, arbiters: usize) -> Self {
        self.arbiters_per_node = Some(arbiters);
        self
    }

    /// The first node listens on this port of 127.0.0.1, the second on the next, and so on. Default: ports that the
    /// system chooses.
    pub fn base_port(mut self, port: u16) -> Self {
        self.base_port = Some(port);
        self
    }

    /// What node processes run. Default: this executable. Its `main` must begin with `run_main` or `#[mobula::main]`,
    /// and it must register the types that are used.
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Writes and reads messages, answers and items within a process as well, as the wire would: tests then find the types
    /// that do not survive it. Default false, or true where the environment says `MOBULA_ENCODE_LOCAL=1`.
    pub fn encode_local_calls(mut self, encode: bool) -> Self {
        self.encode_local_calls = encode;
        self
    }

    /// Compresses messages, answers and items of more than `bytes` between this process and the nodes that it starts, and among these, where that
    /// makes them shorter. With a running cluster, its workers have to be told, too: with `MOBULA_COMPRESS_ABOVE` in the job's
    /// environment. Default: nothing is compressed, or what this process's environment says there.
    pub fn compress_above_bytes(mut self, bytes: usize) -> Self {
        self.compress_above_bytes = Some(bytes);
        self
    }

    /// How long a node may be without an answer from the head before it stops its named actors and ends. The names of
    /// a node that is frozen or cut off are given again a quarter of that later, and a node is suspected after three
    /// eighths of it. Default 8 s ([`limits::LEASE`]), at least 100 ms. A short lease takes a slow node for a frozen
    /// one.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Where the snapshots of named and keyed actors lie: `file:///var/lib/mobula/snapshots`, a directory that all nodes reach, or
    /// `memory:///name` for a cluster inside this process. What
    /// another cluster has left there under the same names is found. Default: nowhere, and snapshots serve restarts only.
    pub fn snapshots(mut self, url: impl Into<String>) -> Self {
        self.snapshots = Some(url.into());
        self
    }

    /// Starts the cluster, or joins the one at [`address`](Self::address).
    ///
    /// # Errors
    /// [`ClusterError`]; what had been started is ended.
    pub async fn connect(self) -> Result<Cluster, ClusterError> {
        if self.address.is_some()
            && let Some(running) = Cluster::running_as(&self).await?
        {
            return Ok(running);
        }
        match self.nodes {
            None => Cluster::embedded(&self),
            Some(nodes) => match ClusterError::too_many_nodes(nodes) {
                Some(error) => Err(error),
                None => Cluster::start_local(&self, nodes).await,
            },
        }
    }

    pub(crate) fn cpus(&self) -> Result<u32, ClusterError> {
        match self.cpus_per_node {
            Some(cpus @ (0 | 4097..)) => {
                let value = cpus.to_string();
                Err(ClusterError::BadNumber { what: "the task slots of a node", value, valid: "from 1 to 4096" })
            }
            Some(cpus) => Ok(cpus),
            None => {
                let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                Ok(u32::try_from((cores / self.nodes.unwrap_or(1).max(1)).max(1)).unwrap_or(1))
            }
        }
    }

    pub(crate) fn arbiters(&self, default: usize) -> Result<usize, ClusterError> {
        match self.arbiters_per_node {
            Some(arbiters @ (0 | 1025..)) => {
                let value = arbiters.to_string();
                Err(ClusterError::BadNumber { what: "the actor threads of a node", value, valid: "from 1 to 1024" })
            }
            Some(arbiters) => Ok(arbiters),
            None => Ok(default),
        }
    }

    pub(crate) fn lease_times(&self) -> Result<LeaseTimes, ClusterError> {
        match self.lease {
            None => Ok(LeaseTimes::default()),
            Some(lease) if (limits::LEASE_MIN..=limits::LEASE_MAX).contains(&lease) => Ok(LeaseTimes::of(lease)),
            Some(lease) => Err(ClusterError::BadNumber {
                what: "the lease of a node",
                value: format!("{lease:?}"),
                valid: "from 100 ms to 1 hour",
            }),
        }
    }

    /// What the node with this number gives, and its labels.
    pub(crate) fn gives(&self, number: usize, cpus: u32) -> Result<(Resources, Labels), ClusterError> {
        let mut all = self.resources.clone();
        let mut labels = Labels::new();
        if let Some((more, of_node)) = self.of_node.get(&number) {
            all.put(more);
            labels = of_node.clone();
        }
        if all.cpus.is_zero() {
            all.cpus = Amount::units(u64::from(cpus));
        }
        let checked = all.check().and_then(|()| labels.check("--labels"));
        match checked {
            Ok(()) => Ok((all, labels)),
            Err(bad) => Err(ClusterError::Unsupported(format!("node {number} cannot give that: {bad}"))),
        }
    }

    /// The port of the node with this number, counted from 0.
    pub(crate) fn port(&self, number: usize) -> Result<u16, ClusterError> {
        let Some(base) = self.base_port else { return Ok(0) };
        u16::try_from(number).ok().and_then(|number| base.checked_add(number)).ok_or_else(|| ClusterError::BadNumber {
            what: "the port of the last node",
            value: (usize::from(base) + number).to_string(),
            valid: "at most 65535",
        })
    }
}
