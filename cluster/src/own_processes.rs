//! Processes for one actor each, on a cluster of this driver's own processes: started, ended and reaped as the head inside the driver says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use mobula_actors::{Node, WeakNode};
use mobula_core::cluster::{GpuShare, VISIBLE_DEVICES, visible_devices};
use mobula_core::{LeaseTimes, NodeUid, limits};
use mobula_transport::preface::Secret;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::ClusterError;
use crate::handover::{PeerAddress, ToNode};
use crate::leases::Embedded;
use crate::members::Members;
use crate::node_process::node_info;
use crate::peers;
use crate::process::{Line, NodeProcess};
use crate::watch as watching;

/// What a process that is to end in order takes beyond its time.
const LEAVE_MARGIN: Duration = Duration::from_millis(500);

/// How the processes of this cluster are started.
pub(crate) struct Recipe {
    pub(crate) executable: PathBuf,
    pub(crate) secret: Secret,
    pub(crate) lease: LeaseTimes,
    pub(crate) snapshots: Option<String>,
    pub(crate) encode_local_calls: bool,
    pub(crate) compress_above_bytes: Option<usize>,
}

/// A process that is to run.
pub(crate) struct OwnProcess {
    /// Beside this node, whose name it has.
    pub(crate) node: NodeUid,
    /// The GPUs that it may see.
    pub(crate) gpus: Vec<GpuShare>,
}

/// The processes for one actor each.
pub(crate) struct OwnProcesses {
    node: WeakNode,
    recipe: Recipe,
    members: OnceLock<Weak<Mutex<Members>>>,
    table: Mutex<Table>,
    /// One joins after the other: each connects to those before it.
    joining: tokio::sync::Mutex<()>,
    /// How many run; told whenever one is over.
    count: watch::Sender<usize>,
}

struct Table {
    over: bool,
    running: BTreeMap<NodeUid, Running>,
    /// All processes that have joined and are not known to have ended, in that order.
    joined: Vec<(PeerAddress, Line)>,
}

#[derive(Default)]
struct Running {
    unwanted: bool,
    process: Option<Arc<NodeProcess>>,
}

impl OwnProcesses {
    /// None so far, beside these nodes. `node` is the driver's.
    pub(crate) fn new(node: &Node, recipe: Recipe, joined: Vec<(PeerAddress, Line)>) -> Arc<Self> {
        Arc::new(OwnProcesses {
            node: node.downgrade(),
            recipe,
            members: OnceLock::new(),
            table: Mutex::new(Table { over: false, running: BTreeMap::new(), joined }),
            joining: tokio::sync::Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// The cluster that they are members of.
    pub(crate) fn place_in(&self, members: &Arc<Mutex<Members>>) {
        let _ = self.members.set(Arc::downgrade(members));
    }

    /// Makes what runs what `wanted` says. `head` hears of each end.
    pub(crate) fn reconcile(self: &Arc<Self>, wanted: BTreeMap<NodeUid, OwnProcess>, head: &Weak<Embedded>) {
        let Some(node) = self.node.upgrade() else { return };
        let mut table = self.table.lock();
        if table.over {
            return;
        }
        for (_, running) in table.running.iter_mut().filter(|(uid, _)| !wanted.contains_key(uid)) {
            if !std::mem::replace(&mut running.unwanted, true) {
                running.leave(&node);
            }
        }
        for (uid, process) in wanted {
            if table.running.contains_key(&uid) {
                continue;
            }
            table.running.insert(uid, Running::default());
            let (this, head) = (Arc::clone(self), head.clone());
            node.control_runtime().spawn(async move {
                let reason = match this.live(uid, process).await {
                    Ok(ended) => ended,
                    Err(error) => error.to_string(),
                };
                this.reaped(uid);
                // It is forgotten when the head wants it no more: else it would be started again.
                if let Some(head) = head.upgrade() {
                    head.process_ended(uid, &reason);
                }
                this.forget(uid);
            });
        }
        self.count.send_replace(table.running.len());
    }

    /// Ends all of them at once, and starts no other. Resolves when they have been reaped; they end also if nobody waits.
    pub(crate) fn end_all(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut table = self.table.lock();
        table.over = true;
        table.running.values().filter_map(|running| running.process.as_ref()).for_each(|process| process.end());
        let mut count = self.count.subscribe();
        async move {
            // The sender goes with the last of them.
            let _ = count.wait_for(|left| *left == 0).await;
        }
    }

    /// From its start to its end: how it has ended.
    async fn live(&self, uid: NodeUid, wanted: OwnProcess) -> Result<String, ClusterError> {
        let gone = |reason: &str| ClusterError::NotReady { node: uid.to_string(), reason: reason.to_owned() };
        let node = self.node.upgrade().ok_or_else(|| gone("the driver has ended"))?;
        let members = self.members.get().and_then(Weak::upgrade).ok_or_else(|| gone("the cluster has ended"))?;
        let host = members.lock().nodes().into_iter().find(|host| host.alive && host.id.uid == wanted.node);
        let host = host.ok_or_else(|| gone("the node beside which it was to run has ended"))?;
        let Recipe { executable, secret, lease, snapshots, encode_local_calls, compress_above_bytes } = &self.recipe;
        let part = ToNode::Become {
            name: host.id.name.to_string(),
            secret: secret.expose().to_vec(),
            cpus: 1,
            arbiters: 1,
            port: 0,
            driver: node.id().clone(),
            lease: *lease,
            snapshots: snapshots.clone(),
            encode_local_calls: *encode_local_calls,
            compress_above_bytes: *compress_above_bytes,
            uid: Some(uid),
        };
        let seen = std::env::var(VISIBLE_DEVICES).ok();
        let environment = vec![(VISIBLE_DEVICES, visible_devices(&wanted.gpus, seen.as_deref()))];
        let (mut process, mut own) = NodeProcess::start(executable.clone(), part, environment).await?;
        (own.labels, own.isolated) = (host.labels, true);
        let ended = process.ended();
        let joined = {
            let _one_by_one = self.joining.lock().await;
            let mut peers: Vec<PeerAddress> = self
                .table
                .lock()
                .joined
                .iter()
                .map(|(peer, _)| peer.clone())
                .filter(|peer| is_there(&members, peer))
                .collect();
            peers.push(own.clone());
            let joined = process.join(peers).await;
            let connected = match joined {
                Ok(()) => peers::connect(&node, &own.id, own.address, secret).await,
                failed => failed,
            };
            if connected.is_ok() {
                self.introduce(&node, &own, process.line()).await;
            }
            connected
        };
        let process = Arc::new(process);
        let is_wanted = joined.is_ok() && self.enter(uid, &process);
        if !is_wanted {
            process.end();
        } else {
            // Whoever waits for it uses it now.
            let mut info = node_info(&own);
            info.host = wanted.node;
            if members.lock().add(info) {
                watching::watch(&node, &members, &own.id, Some(process.ended()));
            }
        }
        drop((node, members, process));
        let ended = ended.await;
        joined.map(|()| ended)
    }

    /// Tells all that have joined before it of one that has.
    async fn introduce(&self, node: &Node, own: &PeerAddress, line: Line) {
        let lines: Vec<Line> = {
            let mut table = self.table.lock();
            let lines = table.joined.iter().map(|(_, line)| line.clone()).collect();
            table.joined.push((own.clone(), line));
            lines
        };
        let peer = own.clone();
        let told = node.control_runtime().spawn_blocking(move || {
            lines.iter().for_each(|line| line.tell(&ToNode::Peer { peer: peer.clone() }));
        });
        let _ = told.await;
    }

    /// It runs and is connected. False if it is not wanted any more.
    fn enter(&self, uid: NodeUid, process: &Arc<NodeProcess>) -> bool {
        let mut table = self.table.lock();
        let over = table.over;
        let Some(running) = table.running.get_mut(&uid) else { return false };
        running.process = Some(Arc::clone(process));
        !running.unwanted && !over
    }

    /// It is over, and nobody has to be told anything there.
    fn reaped(&self, uid: NodeUid) {
        let mut table = self.table.lock();
        table.joined.retain(|(peer, _)| peer.id.uid != uid);
        table.running.insert(uid, Running { unwanted: true, process: None });
    }

    fn forget(&self, uid: NodeUid) {
        let mut table = self.table.lock();
        table.running.remove(&uid);
        self.count.send_replace(table.running.len());
    }
}

impl Running {
    /// Lets it answer what it has begun, for [`limits::LEAVE_WITHIN`] at most. One that has not joined yet is ended when it has.
    fn leave(&self, node: &Node) {
        let Some(process) = self.process.clone() else { return };
        node.control_runtime().spawn(async move {
            let line = process.line();
            let within = limits::LEAVE_WITHIN;
            let reason = "its only actor has ended".to_owned();
            let told = tokio::task::spawn_blocking(move || line.tell(&ToNode::Leave { reason, within }));
            let _ = told.await;
            if tokio::time::timeout(within + LEAVE_MARGIN, process.ended()).await.is_err() {
                process.end();
            }
        });
    }
}

fn is_there(members: &Mutex<Members>, peer: &PeerAddress) -> bool {
    members.lock().life(peer.id.uid).is_some()
}
