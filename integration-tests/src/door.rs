//! Nodes of one process over TCP, with a secret that the test knows: so it can also play the peer that breaks rules.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mobula::{Node, NodeId, NodeUid};
use mobula_core::frame::{self, Head};
use mobula_core::{codec, limits};
use mobula_transport::preface::{Acceptor, Secret, VERSIONS};
use mobula_transport::{Hello, Lane, tcp};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Lets peers in that know `secret`. Gives the address.
///
/// # Panics
/// If there is no port.
pub fn open(node: &Node, secret: &Secret) -> SocketAddr {
    let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = Arc::new(Mutex::new(Acceptor::new(secret.clone(), node.id().uid, VERSIONS)));
    let node = node.clone();
    node.clone().control_runtime().spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime that does I/O");
        loop {
            let (stream, address) = tcp::accept_next(&listener).await;
            let (node, acceptor) = (node.clone(), Arc::clone(&acceptor));
            tokio::spawn(async move {
                if let Ok((stream, dial)) = tcp::accept(stream, address, &acceptor).await {
                    let peer = NodeId::new("peer", dial.dialer);
                    let _ = node.attach(dial.lane, peer, move || tcp::wire(stream)).await;
                }
            });
        }
    });
    address
}

/// Connects `node` to `peer` by both lanes.
///
/// # Panics
/// If that fails.
pub async fn connect(node: &Node, peer: &NodeId, address: SocketAddr, secret: &Secret) {
    for lane in [Lane::Control, Lane::Data] {
        let stream = tcp::dial(address, secret, node.id().uid, peer.uid, lane).await.expect("the peer lets us in");
        node.attach(lane, peer.clone(), move || tcp::wire(stream)).await.expect("the peer says hello");
    }
}

/// A peer that has shown that it belongs to the cluster, and may do with its connection what it likes.
#[derive(Debug)]
pub struct Insider {
    stream: TcpStream,
}

impl Insider {
    /// Connects to `target`, exchanges hellos, and so is a peer like others.
    ///
    /// # Panics
    /// If it is not let in.
    pub async fn connect(uid: NodeUid, target: NodeUid, address: SocketAddr, secret: &Secret) -> Insider {
        let agreed = tcp::dial(address, secret, uid, target, Lane::Data).await.expect("the peer lets us in");
        let mut insider = Insider { stream: TcpStream::from_std(agreed.stream).expect("a runtime that does I/O") };
        let hello = Hello {
            node: NodeId::new("insider", uid),
            pid: std::process::id(),
            capabilities: 0,
            credit_messages: limits::CREDIT_MESSAGES,
        };
        let mut bytes = bytes_of(Head::Hello, &hello);
        insider.send(&bytes).await;
        bytes.resize(4, 0);
        insider.stream.read_exact(&mut bytes).await.expect("the peer's hello");
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.resize(length as usize, 0);
        insider.stream.read_exact(&mut bytes).await.expect("the peer's hello");
        insider
    }

    /// Sends what no honest peer would.
    ///
    /// # Panics
    /// If the connection takes nothing.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection takes it");
    }

    /// Says that nothing more will come.
    ///
    /// # Panics
    /// If the connection is gone.
    pub async fn send_end(&mut self) {
        self.stream.shutdown().await.expect("the connection is there");
    }

    /// All that the peer sends until it closes the connection.
    pub async fn read_to_the_end(mut self) -> Vec<u8> {
        let mut received = Vec::new();
        // A reset is an end, too; what came before it is kept.
        let _ = self.stream.read_to_end(&mut received).await;
        received
    }
}

fn bytes_of(head: Head, body: &impl serde::Serialize) -> Vec<u8> {
    let mut out = Default::default();
    frame::write(&mut out, head, |out| codec::encode_into(body, out)).expect("it is small");
    out.to_vec()
}
