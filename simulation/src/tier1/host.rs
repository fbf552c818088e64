//! A node of the world, from its start to its crash.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mobula::{Node, NodeId, NodeUid, RemoteActor};
use mobula_actors::NodeConfig;
use mobula_core::codec;
use mobula_transport::preface::{self, Acceptor, Purpose, Secret};
use mobula_transport::stream::{Connecting, Parties};
use mobula_transport::{Lane, stream};
use parking_lot::Mutex;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use turmoil::net::{TcpListener, TcpStream};

use super::net::SimStream;
use super::worker::{Seat, Watcher, Worker};
use super::{calls, children, links, names, state};
use crate::fact::LifeId;
use crate::params::{Fault, Kind};
use crate::reach::Branch;

const PORT: u16 = 7000;
/// Between two tries to reach a peer that was up when this node started.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// For the last words of a node that ends in order.
const GOODBYE: Duration = Duration::from_millis(100);

/// The network's name of a node.
pub(super) fn name(node: u8) -> String {
    format!("node-{node}")
}

/// One life of a node.
pub(super) async fn run(number: u8) -> turmoil::Result {
    let params = state::params();
    let head = names::head_for(number).await;
    let (life, seed) = state::next_life();
    let config = NodeConfig { name: name(number), single_thread: true, seed: Some(seed), ..NodeConfig::default() };
    let node = Node::start(config)?;
    if let Some(head) = head {
        node.set_head(&head);
        names::look_after(&node, life);
    }
    state::node_up(number, node.id());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    spawn_local(open_door(node.clone(), life, listener));
    let watcher = node.spawn(Watcher::spec(())).await?;
    let workers = match &params.supervised {
        Some(plan) => children::start(&node, life, &params, plan).await?,
        None => {
            let mut workers = Vec::new();
            for actor in &params.actors {
                let spec = Worker::spec(Seat { life, child: None, name: None });
                workers.push(node.spawn(spec.restarts(params.restarts_max).mailbox(actor.capacity)).await?);
            }
            workers
        }
    };
    let mut actors = Vec::new();
    for worker in workers {
        actors.push(codec::encode(&worker)?);
        let (end, actor) = (worker.monitor(), worker.id().0);
        spawn_local(async move { links::ended(life, actor, &end.await.reason) });
    }
    state::ready(life, actors);
    for (peer_life, peer, id) in state::others(number) {
        spawn_local(connect(node.clone(), life, (peer_life, peer, id)));
    }
    let begun = Instant::now();
    let from = state::now();
    if params.services && number == 0 {
        names::look_at_last(&node);
    }
    for plan in params.calls.iter().filter(|plan| plan.caller == number && plan.at >= from) {
        let (plan, node, watcher) = (Arc::new(plan.clone()), node.clone(), watcher.clone());
        spawn_local(async move {
            sleep_until(begun + Duration::from_micros(plan.at - from)).await;
            if matches!(plan.kind, Kind::Claim | Kind::Named) {
                return names::call(plan, life, node).await;
            }
            for _ in 0..plan.burst {
                let Some(target) = calls::Target::of(&plan, &node) else { return };
                spawn_local(calls::make(&plan, life, &node, target, Some(&watcher)));
            }
        });
    }
    for fault in params.faults.iter().filter(|fault| fault.at >= from && fault.fault == (Fault::Drain { node: number }))
    {
        let (at, until) = (fault.at - from, fault.until - from);
        let micros = Duration::from_micros;
        spawn_local(drain(node.clone(), life, begun + micros(at), begun + micros(until) - GOODBYE));
    }
    std::future::pending().await
}

/// Says that the node is about to end, and ends it in order: as the daemon's processes do. The host ends a little later.
async fn drain(node: Node, life: LifeId, at: Instant, until: Instant) {
    sleep_until(at).await;
    state::drain_begins(life);
    node.go_away("drained");
    sleep_until(until).await;
    state::reach(Branch::Drained);
    state::drain_ends(life);
    node.shut_down("drained");
}

/// As every cluster's, known to its nodes only.
fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

async fn open_door(node: Node, life: LifeId, listener: TcpListener) {
    let acceptor = Arc::new(Mutex::new(Acceptor::new(secret(), node.id().uid, preface::VERSIONS)));
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (node, acceptor) = (node.clone(), Arc::clone(&acceptor));
        spawn_local(async move {
            let Ok((stream, dial)) = stream::accept(state::streams_of(life).add(stream), &acceptor).await else {
                return;
            };
            match dial.purpose {
                Purpose::Open => {
                    let peer = NodeId::new("peer", dial.dialer);
                    let parties = parties(&node, dial.dialer, dial.lane);
                    let way_back = state::node_of(dial.dialer)
                        .map(|number| stream::ask_after(move || connecting(life, number), parties, stream.session));
                    let wire = move || {
                        let wire = stream::wire(stream);
                        Ok(match way_back {
                            Some(way_back) => wire.with_way_back(way_back),
                            None => wire,
                        })
                    };
                    // An error has told the link and its peer already.
                    let _ = node.attach(dial.lane, peer, wire).await;
                }
                Purpose::Resume => {
                    let Ok(returned) = stream::hear_resume(stream).await else { return };
                    match node.come_back(dial.dialer, returned) {
                        Ok(()) => state::reach(Branch::CameBack),
                        Err((returned, reason)) => {
                            state::reach(Branch::ResumeRefused);
                            returned.refuse(&reason).await;
                        }
                    }
                }
                // It has its answer.
                Purpose::Probe => {}
            }
        });
    }
}

fn parties(node: &Node, peer: NodeUid, lane: Lane) -> Parties {
    Parties { secret: secret(), own: node.id().uid, peer, lane }
}

/// A stream of `life` to whatever life listens on that node.
fn connecting(life: LifeId, number: u8) -> Connecting<SimStream> {
    Box::pin(async move { Ok(state::streams_of(life).add(TcpStream::connect((name(number), PORT)).await?)) })
}

/// Connects to a peer on both lanes, the control lane first; tries until the peer's life is over.
async fn connect(node: Node, life: LifeId, (peer_life, peer, id): (LifeId, u8, NodeId)) {
    for lane in [Lane::Control, Lane::Data] {
        while state::is_up(peer_life) {
            let dialled = timeout(mobula_core::limits::HANDSHAKE_DEADLINE, async {
                let stream = connecting(life, peer).await?;
                stream::dial(stream, &secret(), node.id().uid, id.uid, lane, state::nonce()).await
            });
            if let Ok(Ok(stream)) = dialled.await {
                let way_back =
                    stream::redial(move || connecting(life, peer), parties(&node, id.uid, lane), stream.session);
                let wire = move || Ok(stream::wire(stream).with_way_back(way_back));
                if node.attach(lane, id.clone(), wire).await.is_ok() {
                    break;
                }
            }
            sleep(TRY_AGAIN_AFTER).await;
        }
    }
}
