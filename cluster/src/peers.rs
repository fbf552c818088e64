//! Connecting nodes to each other: both lanes to a peer, and the door for those who connect to us.

use std::net::TcpListener;
use std::sync::Arc;

use mobula_actors::Node;
use mobula_core::{NodeId, limits};
use mobula_transport::Lane;
use mobula_transport::preface::{self, Acceptor, PrefaceError, Secret};
use mobula_transport::tcp::{self, ConnectError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::error::ClusterError;
use crate::handover::PeerAddress;

/// Connects `node` to `peer`: the control lane first, so that a peer is never used without being watched.
pub(crate) async fn connect(node: &Node, peer: &PeerAddress, secret: &Secret) -> Result<(), ClusterError> {
    for lane in [Lane::Control, Lane::Data] {
        let (own, id, address, secret) = (node.id().uid, peer.id.clone(), peer.address, secret.clone());
        // The handshake runs on the control runtime; the socket then moves to where its lane lives.
        let dialled = node.control_runtime().spawn(async move { tcp::dial(address, &secret, own, id.uid, lane).await });
        let stream = match dialled.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                if let ConnectError::Preface { error: error @ PrefaceError::VersionIncompatible { .. }, .. } = &error {
                    node.peer_incompatible(&peer.id, &error.to_string());
                }
                return Err(ClusterError::Connect { node: peer.id.to_string(), error });
            }
            Err(error) => return Err(ClusterError::Io(std::io::Error::other(error))),
        };
        node.attach(lane, peer.id.clone(), move || tcp::wire(stream)).await?;
    }
    Ok(())
}

/// Lets peers in that prove to belong to the cluster. Runs until the node ends.
pub(crate) fn open_door(node: &Node, listener: TcpListener, secret: Secret) {
    let node = node.clone();
    node.clone().control_runtime().spawn(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot listen"),
        };
        let acceptor = Arc::new(Mutex::new(Acceptor::new(secret, node.id().uid, preface::VERSIONS)));
        let places = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        loop {
            let (stream, address) = tcp::accept_next(&listener).await;
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%address, max = limits::HANDSHAKES_MAX, "too many handshakes at once, refused");
                continue;
            };
            let (node, acceptor) = (node.clone(), Arc::clone(&acceptor));
            tokio::spawn(async move {
                let accepted = tcp::accept(stream, address, &acceptor).await;
                drop(place);
                let (stream, dial) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => return tracing::warn!(node = %node.id(), %error, "connection refused"),
                };
                if dial.dialer == node.id().uid {
                    return tracing::warn!(node = %node.id(), %address, "connection refused: it claims to be this node");
                }
                // The name comes with the hello; until then the proven uid has to do.
                let peer = NodeId::new("peer", dial.dialer);
                if let Err(error) = node.attach(dial.lane, peer, move || tcp::wire(stream)).await {
                    tracing::warn!(node = %node.id(), %address, %error, "connection refused");
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use mobula_actors::NodeConfig;
    use mobula_core::{CallError, NodeUid, Outcome};
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
        let peer = PeerAddress { id: id.clone(), pid: 1, cpus: 1, address };
        let both = async { tokio::join!(connect(&node, &peer, &secret), accepting) };
        let (connected, _) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("an answer");
        assert!(connected.is_err_and(|error| error.to_string().contains("upgrade the older one")));
        let error = node.report_of(&id).await.expect_err("nothing in common");
        assert!(matches!(&error, CallError::VersionIncompatible { node, .. } if *node == id), "{error}");
        assert!(error.outcome() == Outcome::NotStarted && error.to_string().contains("1000..=1001"), "{error}");
        node.shut_down("the test is over");
    }
}
