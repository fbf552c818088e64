//! Memory under a slow consumer: eight senders on two nodes, one actor on a third that cannot keep up.
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, ResponseFuture};
use anyhow::{Context as _, Result, anyhow, ensure};
use futures::StreamExt;
use futures::future::try_join_all;
use mobula::{ActorRef, Cluster, NodeState, RemoteActor, RemoteMessage, limits};
use serde::{Deserialize, Serialize};

use crate::Plan;
use crate::measure::{Line, Series};
use crate::memory;

const SENDERS: usize = 8;
const TELLS: u64 = 1_000_000;
const PAYLOAD_BYTES: usize = 1024;

/// What the slow actor does for each message; much longer than it takes to send one.
const WORK: Duration = Duration::from_micros(10);

/// What may pass from the acceptance of the last tell until it is handled.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Bytes of a message beside its payload, while it waits: envelope, place in the queue, what the allocator adds.
const AROUND_BYTES: usize = 512;

#[derive(Deserialize, RemoteMessage, Serialize)]
struct Work(#[serde(with = "serde_bytes")] Vec<u8>);

#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "u64")]
struct HowMany;

#[derive(Default)]
struct Slow {
    handled: u64,
}

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<Work> for Slow {
    type Result = ();

    fn handle(&mut self, Work(bytes): Work, _: &mut Context<Self>) {
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            std::hint::black_box(&bytes);
        }
        self.handled += 1;
    }
}

impl Handler<HowMany> for Slow {
    type Result = u64;

    fn handle(&mut self, _: HowMany, _: &mut Context<Self>) -> u64 {
        self.handled
    }
}

mobula::remote_actor!(Slow, args: (), create: |()| Slow::default(), messages: [Work, HowMany]);

struct Sender;

impl Actor for Sender {
    type Context = Context<Self>;
}

/// Tells `to` to work so many times, as fast as it takes it.
#[derive(Deserialize, RemoteMessage, Serialize)]
#[rtype(result = "Result<(), String>")]
struct Send {
    to: ActorRef<Slow>,
    tells: u64,
}

impl Handler<Send> for Sender {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, Send { to, tells }: Send, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            for _ in 0..tells {
                to.tell(Work(vec![7; PAYLOAD_BYTES])).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }
}

mobula::remote_actor!(Sender, args: (), create: |()| Sender, messages: [Send]);

pub(crate) async fn actor(_: Plan) -> Result<Vec<Line>> {
    let cluster = Cluster::local(3).await?;
    let nodes: Vec<_> = cluster.nodes().into_iter().filter(|node| node.pid != std::process::id()).collect();
    let (busy, sending) = nodes.split_first().context("a cluster without nodes")?;
    ensure!(sending.len() == 2, "{} nodes are there to send", sending.len());
    let slow = cluster.spawn(Slow::spec(()).node_affinity(&busy.id)).await?;
    let mut senders = Vec::new();
    for number in 0..SENDERS {
        senders.push(cluster.spawn(Sender::spec(()).node_affinity(&sending[number % 2].id)).await?);
    }
    let send = |sender: &ActorRef<Sender>, tells: u64| {
        let asked = sender.with_deadline(Duration::MAX).ask(Send { to: slow.clone(), tells });
        async move { asked.await?.map_err(|error| anyhow!("a sender: {error}")) }
    };
    // Connections are there, and whatever is made once.
    try_join_all(senders.iter().map(|sender| send(sender, 100))).await?;
    slow.ask(HowMany).await?;

    let mut before = Vec::new();
    for node in &nodes {
        memory::forget_peak(node.pid)?;
        before.push(memory::peak_bytes(node.pid)?);
    }
    let mut states = cluster.watch_nodes();
    let sent = try_join_all(senders.iter().map(|sender| send(sender, TELLS / SENDERS as u64)));
    // Heartbeats have to be on time all along: a node that is late is told of as Suspect.
    let late = async {
        while let Some(node) = states.next().await {
            if node.state != NodeState::Up {
                return anyhow!("{} became {:?}", node.id, node.state);
            }
        }
        anyhow!("the states of nodes ended")
    };
    tokio::select! {
        sent = sent => { sent?; }
        late = late => return Err(late),
    }
    // Tells that were accepted by their senders' nodes may still be on their way.
    let (expected, given_up_at) = (TELLS + 100 * SENDERS as u64, Instant::now() + ARRIVAL);
    while slow.with_deadline(Duration::MAX).ask(HowMany).await? != expected {
        ensure!(Instant::now() < given_up_at, "not all of {expected} tells have arrived after {ARRIVAL:?}");
    }

    let message = PAYLOAD_BYTES + AROUND_BYTES;
    let consumer = (limits::MAILBOX_MESSAGES + sending.len() * limits::CREDIT_MESSAGES as usize) * message;
    let sender = limits::SEND_WINDOW_BYTES;
    let mut lines = Vec::new();
    for (name, bound, which) in [("slow-actor-memory", consumer, 0..1), ("slow-actor-senders", sender, 1..nodes.len())]
    {
        let (mut ours, mut allowed) = (Series::default(), Series::default());
        for (node, before) in nodes.iter().zip(&before).take(which.end).skip(which.start) {
            ours.push(memory::peak_bytes(node.pid)? as f64);
            allowed.push((before + bound as u64) as f64);
        }
        let reference = "resident before, and what the bounds allow";
        lines.push(Line { name, unit: "bytes", reference, ours, raw: allowed });
    }
    cluster.shutdown().await;
    Ok(lines)
}
