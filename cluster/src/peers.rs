//! Connecting nodes to each other: both lanes to a peer, and the door for those who connect to us.

use std::net::TcpListener;
use std::sync::Arc;

use mobula_actors::Node;
use mobula_core::{NodeId, limits};
use mobula_transport::preface::{self, Acceptor, Secret};
use mobula_transport::{Lane, tcp};
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
            Ok(Err(error)) => return Err(ClusterError::Connect { node: peer.id.to_string(), error }),
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
