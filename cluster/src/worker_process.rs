//! A worker process of a job: becomes what the node that has started it says, and ends with it.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mobula_actors::{Node, NodeConfig};
use mobula_control::handover::{FromWorker, Part, Receiver, ToWorker, send};

use crate::cluster::{self, Cluster};
use crate::members::NodeInfo;
use crate::mesh::Mesh;
use crate::node_process::{begin_process, end_now};

/// How long a process for one actor tries to reach all others of its job before it is used all the same.
const MEETING: Duration = Duration::from_secs(5);

/// Serves as a worker until the node that has started it ends.
pub(crate) fn run(socket: UnixStream) -> ExitCode {
    begin_process();
    let mut receiver = Receiver::of_node(&socket);
    let part = match receiver.receive() {
        Ok(ToWorker::Begin(part)) => part,
        Ok(_) => return fail(&socket, "it was told something before it had a part"),
        // Without a node there is nothing to be.
        Err(_) => return ExitCode::FAILURE,
    };
    let isolated = part.isolated;
    let system = actix_rt::System::new();
    let begun = system.block_on(async { begin(*part) });
    let (node, mesh) = match begun {
        Ok(begun) => begun,
        Err(reason) => return fail(&socket, &reason),
    };
    // One for one actor has met the others before it is used: whoever is handed a reference to that actor reaches it.
    if !isolated && send(&socket, &FromWorker::Ready, None).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(watched) = socket.try_clone() else { return fail(&socket, "no descriptor is left") };
    let hears = node.clone();
    let heard = std::thread::Builder::new()
        .name("mobula-node-watch".to_owned())
        .spawn(move || hear(&watched, &hears, &mesh, isolated));
    if let Err(error) = heard {
        return fail(&socket, &error.to_string());
    }
    // Everything else happens on this thread's arbiter and on the control runtime.
    system.block_on(std::future::pending::<()>());
    drop(node);
    ExitCode::SUCCESS
}

fn begin(part: Part) -> Result<(Node, Arc<Mesh>), String> {
    let config = NodeConfig {
        name: part.id.name.to_string(),
        uid: Some(part.id.uid),
        cpus: part.cpus,
        arbiters: part.arbiters.saturating_sub(1),
        use_current_thread: true,
        lease: part.lease,
        ..NodeConfig::default()
    };
    let node = Node::start(config).map_err(|error| error.to_string())?;
    if let Some(url) = &part.snapshots {
        node.set_snapshot_store(mobula_snapshots::open(url).map_err(|error| error.to_string())?);
    }
    node.set_head(&part.driver);
    let fenced = node.fenced();
    node.control_runtime().spawn(async move {
        fenced.await;
        // Only a new life may come back. Its node sees its end.
        end_now();
    });
    let mut own = NodeInfo::new(node.id().clone(), std::process::id(), None, part.cpus);
    (own.resources, own.labels, own.host) = (part.resources, part.labels, part.host);
    own.isolated = part.isolated;
    let own_cluster = Cluster::of_node(node.clone(), vec![own]);
    let credentials = part.proof.credentials();
    let mesh = Mesh::new(&own_cluster, &credentials, part.job, Some(part.number), part.keeper);
    let mesh = mesh.map_err(|error| error.to_string())?;
    cluster::set_current(own_cluster);
    Ok((node, mesh))
}

/// Hears what the node says, however busy the arbiters are. Its end is the end of this process.
fn hear(socket: &UnixStream, node: &Node, mesh: &Arc<Mesh>, mut is_to_meet: bool) {
    let mut receiver = Receiver::of_node(socket);
    while let Ok(message) = receiver.receive() {
        match message {
            ToWorker::Peers(peers) => {
                let others: Vec<_> = peers.iter().filter(|peer| peer.ready).map(|peer| peer.id.clone()).collect();
                let met = mesh.update(peers);
                if std::mem::take(&mut is_to_meet) {
                    let Ok(socket) = socket.try_clone() else { break };
                    let own = node.clone();
                    node.control_runtime().spawn(async move {
                        let greeted = async {
                            futures::future::join_all(met).await;
                            futures::future::join_all(others.iter().map(|other| own.greet(other))).await;
                        };
                        let _ = tokio::time::timeout(MEETING, greeted).await;
                        if send(&socket, &FromWorker::Ready, None).is_err() {
                            end_now();
                        }
                    });
                }
            }
            ToWorker::Keepers(keepers) => mesh.update_keepers(keepers),
            ToWorker::Connection => {
                if let Some(descriptor) = receiver.descriptor() {
                    mesh.accept(descriptor.into());
                }
            }
            ToWorker::Renew(proof) => mesh.renew(&proof.credentials()),
            ToWorker::CutOff(list) => mesh.cut_off(list),
            ToWorker::Leave { reason, within } => {
                let (node, runtime) = (node.clone(), node.control_runtime());
                runtime.spawn(async move {
                    node.leave(&reason, within).await;
                    end_now();
                });
            }
            // It has its part.
            ToWorker::Begin(_) => break,
        }
    }
    end_now();
}

fn fail(socket: &UnixStream, reason: &str) -> ExitCode {
    let _ = send(socket, &FromWorker::Failed(reason.to_owned()), None);
    ExitCode::FAILURE
}
