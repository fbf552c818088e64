//! Connecting nodes to each other: both lanes to a peer, the door for those who connect to us, and the way back for both when a
//! connection breaks.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use mobula_actors::Node;
use mobula_core::{IdMap, NodeId, NodeUid};
use mobula_transport::preface::{self, Acceptor, Dial, PrefaceError, Purpose, Secret};
use mobula_transport::tcp::{self, ConnectError};
use mobula_transport::tls::{Door, Entrance};
use mobula_transport::{Agreed, Lane};
use parking_lot::Mutex;

use crate::error::ClusterError;

/// Where other nodes listen, as far as this process was told: there it can ask whether they live.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<IdMap<u64, SocketAddr>>>);

impl Addresses {
    /// That life listens there.
    pub fn learn(&self, life: NodeUid, address: SocketAddr) {
        self.0.lock().insert(life.0, address);
    }

    fn of(&self, life: NodeUid) -> Option<SocketAddr> {
        self.0.lock().get(&life.0).copied()
    }
}

/// Connects `node` to `peer`, which listens at `address`: the control lane first, so that a peer is never used without being
/// watched.
///
/// # Errors
/// [`ClusterError::Connect`], or what came of the hellos.
pub async fn connect(node: &Node, peer: &NodeId, address: SocketAddr, secret: &Secret) -> Result<(), ClusterError> {
    for lane in [Lane::Control, Lane::Data] {
        let (own, target, dialling) = (node.id().uid, peer.uid, secret.clone());
        // The handshake runs on the control runtime; the socket then moves to where its lane lives.
        let runtime = node.control_runtime().clone();
        let dialled = runtime.spawn(async move { tcp::dial(address, &dialling, own, target, lane).await });
        let agreed = match dialled.await {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(error)) => {
                if let ConnectError::Preface { error: error @ PrefaceError::VersionIncompatible { .. }, .. } = &error {
                    node.peer_incompatible(peer, &error.to_string());
                }
                return Err(ClusterError::Connect { node: peer.to_string(), error });
            }
            Err(error) => return Err(ClusterError::Io(std::io::Error::other(error))),
        };
        let way_back = tcp::redial(address, secret, own, target, lane, agreed.session, runtime);
        node.attach(lane, peer.clone(), move || Ok(tcp::wire(agreed)?.with_way_back(way_back))).await?;
    }
    Ok(())
}

/// Lets peers in that prove to belong to the cluster. Runs until the node ends.
pub fn open_door(node: &Node, listener: TcpListener, secret: Secret, addresses: Addresses) {
    let node = node.clone();
    node.clone().control_runtime().spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener);
        let entrance = match listener.and_then(|listener| Entrance::open(listener, Door::on_loopback())) {
            Ok(entrance) => entrance,
            Err(error) => return tracing::error!(%error, "cannot listen"),
        };
        let acceptor = Arc::new(Mutex::new(Acceptor::new(secret.clone(), node.id().uid, preface::VERSIONS)));
        loop {
            let (stream, address, mut place) = entrance.next().await;
            let (node, acceptor) = (node.clone(), Arc::clone(&acceptor));
            let (secret, addresses) = (secret.clone(), addresses.clone());
            tokio::spawn(async move {
                let accepted = place.hold(tcp::accept(stream, address, &acceptor)).await;
                let (agreed, dial) = match accepted {
                    None => return tracing::debug!(%address, "too slow for a full door, dropped"),
                    Some(Ok(accepted)) => accepted,
                    // A process that is killed leaves in the middle of a handshake, and so does whoever looks for open ports.
                    Some(Err(error)) if error.is_departure() => {
                        return tracing::debug!(node = %node.id(), %error, "connection not opened");
                    }
                    Some(Err(error)) => return tracing::warn!(node = %node.id(), %error, "connection refused"),
                };
                if dial.dialer == node.id().uid {
                    return tracing::warn!(node = %node.id(), %address, "connection refused: it claims to be this node");
                }
                match dial.purpose {
                    Purpose::Open => {
                        drop(place);
                        let runtime = node.control_runtime().clone();
                        let known = addresses.clone();
                        let find = move || known.of(dial.dialer);
                        let (own, session) = (node.id().uid, agreed.session);
                        let way_back = tcp::ask_after(find, &secret, own, dial.dialer, dial.lane, session, runtime);
                        // The name comes with the hello; until then the proven uid has to do.
                        let peer = NodeId::new("peer", dial.dialer);
                        let wire = move || Ok(tcp::wire(agreed)?.with_way_back(way_back));
                        if let Err(error) = node.attach(dial.lane, peer, wire).await {
                            // The peer is of the cluster, and says itself what it was refused for.
                            tracing::debug!(node = %node.id(), %address, %error, "connection not opened");
                        }
                    }
                    Purpose::Resume => come_back(&node, agreed, dial, address).await,
                    // It has its answer.
                    Purpose::Probe => {}
                }
            });
        }
    });
}

/// A peer whose connection broke is here again.
async fn come_back(node: &Node, agreed: Agreed<std::net::TcpStream>, dial: Dial, address: SocketAddr) {
    let returned = match tcp::hear_resume(agreed, address).await {
        Ok(returned) => returned,
        Err(error) => return tracing::debug!(node = %node.id(), %error, "connection not restored"),
    };
    if let Err((returned, reason)) = node.come_back(dial.dialer, returned) {
        tracing::warn!(node = %node.id(), %address, %reason, "connection not restored");
        returned.refuse(&reason).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use mobula_actors::NodeConfig;
    use mobula_core::{CallError, Outcome};
    use mobula_transport::preface::Versions;

    use super::*;

    #[tokio::test]
    async fn calls_to_a_node_without_a_common_version_say_so() {
        let node = Node::start(NodeConfig::default()).expect("a node");
        let (secret, id) = (Secret::from_bytes([7; 32]), NodeId::new("later", NodeUid(7)));
        let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let later = Acceptor::new(secret.clone(), id.uid, Versions { min: 1000, max: 1001 });
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime that does I/O");
        let accepting = async {
            let (stream, address) = tcp::accept_next(&listener).await;
            tcp::accept(stream, address, &Mutex::new(later)).await.map(drop)
        };
        let both = async { tokio::join!(connect(&node, &id, address, &secret), accepting) };
        let (connected, _) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("an answer");
        assert!(connected.is_err_and(|error| error.to_string().contains("upgrade the older one")));
        let error = node.report_of(&id).await.expect_err("nothing in common");
        assert!(matches!(&error, CallError::VersionIncompatible { node, .. } if *node == id), "{error}");
        assert!(error.outcome() == Outcome::NotStarted && error.to_string().contains("1000..=1001"), "{error}");
        node.shut_down("the test is over");
    }
}
