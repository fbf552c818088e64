//! A machine: the real membership of a node, from its start to its end.

use std::net::SocketAddr;

use mobula_control::Client;
use mobula_core::NodeId;
use mobula_core::cluster::{Labels, Usage};
use mobula_daemon::private::{About, Agent};
use mobula_identity::Role;
use tokio::sync::watch;

use super::net::{Who, target};
use super::processes::SimProcesses;
use super::state;
use crate::head::{HOST_PARTS, parts};

/// The network's name of a host.
pub(super) fn name(host: u32) -> String {
    format!("host-{host}")
}

/// One life of a host's daemon. Whoever watches over it starts the next.
pub(super) async fn run(host: u32) -> turmoil::Result {
    let (stop, stopped) = watch::channel(false);
    let (uid, streams, replaces) = state::node_begins(host, stop);
    let who = Who { role: Role::Worker, life: uid, line: state::line_of(host), job: None };
    let agent = Agent {
        about: About {
            id: NodeId::new(&name(host), uid),
            address: SocketAddr::from(([10, 0, 0, host as u8], 6379)),
            resources: parts(HOST_PARTS),
            labels: Labels::new(),
            replaces,
        },
        target: target(who, &streams, Some(uid)),
        processes: SimProcesses::new(uid, host, Client::new(target(who, &streams, None))),
        load: Box::new(Usage::default),
        stop: stopped,
        ready: watch::Sender::new(false),
    };
    let mut taken = agent.ready.subscribe();
    tokio::spawn(async move {
        if taken.wait_for(|taken| *taken).await.is_ok() {
            state::node_is_taken(uid);
        }
    });
    let ended = agent.run().await;
    state::node_ends(uid, ended.ok());
    std::future::pending().await
}
