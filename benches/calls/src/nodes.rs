//! Two nodes of one process that live on its only thread.
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use mobula_actors::{Node, NodeConfig};
use mobula_core::NodeUid;
use mobula_transport::preface::{Acceptor, Secret, VERSIONS};
use mobula_transport::{Lane, Wire, memory, tcp};
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// What carries the bytes between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Road {
    Memory,
    Tcp,
}

/// Bytes that a memory wire holds in each direction; a socket of the system holds about as many.
const PIPE_BYTES: usize = 2 * 1024 * 1024;

/// Two nodes that are connected.
pub(crate) struct Two {
    pub(crate) caller: Node,
    pub(crate) home: Node,
}

impl Two {
    pub(crate) async fn start(road: Road) -> Result<Two> {
        let node = |name: &str, seed| {
            let config =
                NodeConfig { name: name.to_owned(), single_thread: true, seed: Some(seed), ..NodeConfig::default() };
            Node::start(config)
        };
        let two = Two { caller: node("caller", 1)?, home: node("home", 2)? };
        for lane in [Lane::Control, Lane::Data] {
            let (ours, theirs) = match road {
                Road::Memory => memory::pair(PIPE_BYTES),
                Road::Tcp => over_tcp(two.caller.id().uid, two.home.id().uid, lane).await?,
            };
            let there = two.caller.attach(lane, two.home.id().clone(), || Ok(ours));
            let here = two.home.attach(lane, two.caller.id().clone(), || Ok(theirs));
            tokio::try_join!(there, here)?;
        }
        Ok(two)
    }

    pub(crate) fn end(&self) {
        self.caller.shut_down("done");
        self.home.shut_down("done");
    }
}

async fn over_tcp(dialer: NodeUid, acceptor: NodeUid, lane: Lane) -> Result<(Wire, Wire)> {
    let secret = || Secret::from_bytes([7; 32]);
    let gate = Mutex::new(Acceptor::new(secret(), acceptor, VERSIONS));
    let listener = TcpListener::from_std(tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?)?;
    let address = listener.local_addr()?;
    let accepted = async {
        let (stream, address) = tcp::accept_next(&listener).await;
        tcp::accept(stream, address, &gate).await
    };
    let own = secret();
    let (theirs, ours) = tokio::try_join!(accepted, tcp::dial(address, &own, dialer, acceptor, lane))?;
    Ok((tcp::wire(ours)?, tcp::wire(theirs.0)?))
}
