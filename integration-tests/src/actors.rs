//! Actors to be called, one written with `#[mobula::actor]` and the others in the plain actix way.

use std::time::Duration;

use actix::prelude::*;
use actix::{ActorFutureExt, AtomicResponse, WrapFuture};
use mobula::{ActorRef, CallError, Cluster, NodeId, RemoteMessage, current_node, this};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::gates;

/// The handler's own error, to be seen by the caller as it is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DivideError {
    /// What was to be divided.
    pub dividend: i64,
}

impl std::fmt::Display for DivideError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot divide {} by zero", self.dividend)
    }
}

impl std::error::Error for DivideError {}

/// A counter in the macro's way.
#[derive(Debug)]
pub struct Counter {
    count: i64,
}

#[mobula::actor]
impl Counter {
    /// Starts at `start`.
    ///
    /// # Panics
    /// If `start` is negative.
    pub fn new(start: i64) -> Self {
        assert!(start >= 0, "a counter cannot start at {start}");
        Counter { count: start }
    }

    /// Adds `by`; gives the total.
    pub fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    /// The total.
    pub fn get(&self) -> i64 {
        self.count
    }

    /// The total divided by `by`.
    pub fn divide(&self, by: i64) -> Result<i64, DivideError> {
        self.count.checked_div(by).ok_or(DivideError { dividend: self.count })
    }

    /// Panics with `text`.
    pub fn crash(&mut self, text: String) {
        panic!("{text} at {}", self.count)
    }
}

/// Keeps a log of what it was told, and can be held, blocked and made to panic.
#[derive(Debug)]
pub struct Probe {
    log: Vec<u64>,
}

impl Actor for Probe {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Probe,
    args: u64,
    create: |first| Probe { log: vec![first] },
    messages: [
        Record,
        Log,
        Fill,
        SlowToRead,
        Bytes,
        Hold,
        Block,
        Spin,
        Whereabouts,
        Fallen,
        Myself,
        Panic,
        PanicInFuture,
        PanicInActorFuture,
        PanicInExclusiveFuture,
    ]
);

/// Puts a number into the log. Answers the log's length.
#[derive(Clone, Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Record(pub u64);

impl Handler<Record> for Probe {
    type Result = u64;

    fn handle(&mut self, Record(number): Record, _: &mut Context<Self>) -> u64 {
        self.log.push(number);
        self.log.len() as u64
    }
}

/// The log; it begins with what the probe was made from.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<u64>")]
pub struct Log;

impl Handler<Log> for Probe {
    type Result = Vec<u64>;

    fn handle(&mut self, _: Log, _: &mut Context<Self>) -> Vec<u64> {
        self.log.clone()
    }
}

/// Bytes, to fill memory with. Only counted.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Fill(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl Handler<Fill> for Probe {
    type Result = ();

    fn handle(&mut self, Fill(bytes): Fill, _: &mut Context<Self>) {
        self.log.push(bytes.len() as u64);
    }
}

/// Bytes whose decoding passes a gate, so long as it takes.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct SlowToRead {
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The gate.
    pub gate: PassedBlocking,
}

/// A gate that is passed by whoever decodes this.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct PassedBlocking(pub String);

impl From<String> for PassedBlocking {
    fn from(gate: String) -> Self {
        gates::pass_blocking(&gate);
        PassedBlocking(gate)
    }
}

impl From<PassedBlocking> for String {
    fn from(PassedBlocking(gate): PassedBlocking) -> String {
        gate
    }
}

impl Handler<SlowToRead> for Probe {
    type Result = ();

    fn handle(&mut self, SlowToRead { bytes, .. }: SlowToRead, _: &mut Context<Self>) {
        self.log.push(bytes.len() as u64);
    }
}

/// Asks for so many bytes, each of them its place.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<u8>")]
pub struct Bytes(pub u64);

impl Handler<Bytes> for Probe {
    type Result = Vec<u8>;

    fn handle(&mut self, Bytes(count): Bytes, _: &mut Context<Self>) -> Vec<u8> {
        (0..count).map(|at| at as u8).collect()
    }
}

/// Waits at a gate, and takes no other message meanwhile. Its arbiter goes on.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Hold {
    /// The gate.
    pub gate: String,
}

impl Handler<Hold> for Probe {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Hold { gate }: Hold, _: &mut Context<Self>) -> Self::Result {
        AtomicResponse::new(Box::pin(async move { gates::pass(&gate).await }.into_actor(self)))
    }
}

/// Waits at a gate, and blocks its whole thread meanwhile. On the arbiter that reads its node's connections, only an
/// [`Opener`] gets through to the gate.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Block {
    /// The gate.
    pub gate: String,
}

impl Handler<Block> for Probe {
    type Result = ();

    fn handle(&mut self, Block { gate }: Block, _: &mut Context<Self>) {
        gates::pass_blocking(&gate);
    }
}

/// Enters a gate and never comes back, busy for ever.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Spin {
    /// The gate; it has to be open.
    pub gate: String,
}

impl Handler<Spin> for Probe {
    type Result = ();

    fn handle(&mut self, Spin { gate }: Spin, _: &mut Context<Self>) {
        gates::pass_blocking(&gate);
        loop {
            std::hint::spin_loop();
        }
    }
}

/// Where an actor lives.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The process.
    pub pid: u32,
    /// The thread, as the standard library calls it.
    pub thread: String,
    /// The node.
    pub node: NodeId,
}

/// Asks where the actor lives.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Place")]
pub struct Whereabouts;

impl Handler<Whereabouts> for Probe {
    type Result = MessageResult<Whereabouts>;

    fn handle(&mut self, _: Whereabouts, _: &mut Context<Self>) -> Self::Result {
        let node = current_node().expect("a handler runs on a node").id().clone();
        MessageResult(Place { pid: std::process::id(), thread: format!("{:?}", std::thread::current().id()), node })
    }
}

/// Asks which nodes are down, as the actor's process sees it.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<NodeId>")]
pub struct Fallen;

impl Handler<Fallen> for Probe {
    type Result = ResponseFuture<Vec<NodeId>>;

    fn handle(&mut self, _: Fallen, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async {
            let cluster = Cluster::connect().await.expect("it is part of one");
            cluster.nodes().into_iter().filter(|node| !node.alive).map(|node| node.id).collect()
        })
    }
}

/// Asks the actor for a reference to itself.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "ActorRef<Probe>")]
pub struct Myself;

impl Handler<Myself> for Probe {
    type Result = MessageResult<Myself>;

    fn handle(&mut self, _: Myself, _: &mut Context<Self>) -> Self::Result {
        MessageResult(this::<Probe>().expect("a handler of this type is running"))
    }
}

/// A message that the probe handles and does not list: it works at home only.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Unlisted;

impl Handler<Unlisted> for Probe {
    type Result = u64;

    fn handle(&mut self, _: Unlisted, _: &mut Context<Self>) -> u64 {
        7
    }
}

/// Panics when it is dropped unhandled. For use at home only.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Grenade {
    /// Not handled yet.
    pub live: bool,
}

impl Handler<Grenade> for Probe {
    type Result = ();

    fn handle(&mut self, mut grenade: Grenade, _: &mut Context<Self>) {
        grenade.live = false;
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(!self.live, "dropped unhandled");
    }
}

/// Panics in the handler.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Panic(pub String);

impl Handler<Panic> for Probe {
    type Result = ();

    fn handle(&mut self, Panic(text): Panic, _: &mut Context<Self>) {
        panic!("{text}")
    }
}

/// Panics in a future that runs beside the actor.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct PanicInFuture(pub String);

impl Handler<PanicInFuture> for Probe {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, PanicInFuture(text): PanicInFuture, _: &mut Context<Self>) -> Self::Result {
        Box::pin(panic_later(text))
    }
}

/// Panics in a future of the actor, other messages running between.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct PanicInActorFuture(pub String);

impl Handler<PanicInActorFuture> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, PanicInActorFuture(text): PanicInActorFuture, _: &mut Context<Self>) -> Self::Result {
        Box::pin(panic_later(text).into_actor(self).map(|(), _, _| ()))
    }
}

/// Panics in a future of the actor, other messages waiting.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct PanicInExclusiveFuture(pub String);

impl Handler<PanicInExclusiveFuture> for Probe {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, PanicInExclusiveFuture(text): PanicInExclusiveFuture, _: &mut Context<Self>) -> Self::Result {
        AtomicResponse::new(Box::pin(panic_later(text).into_actor(self)))
    }
}

/// Not at its first poll: the handler has returned by then.
async fn panic_later(text: String) {
    tokio::task::yield_now().await;
    panic!("{text}")
}

/// Passes messages on to probes elsewhere.
#[derive(Debug)]
pub struct Relay {
    /// It was made with this one.
    first: Option<ActorRef<Probe>>,
    nested: Vec<Nested>,
}

impl Actor for Relay {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Relay,
    args: Option<ActorRef<Probe>>,
    create: |first| Relay { first, nested: Vec::new() },
    messages: [Forward, ForwardToFirst, AskNested, NestedEnded, NestedSoFar]
);

/// What came of a message that was passed on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The relay's process.
    pub via: u32,
    /// Whether the probe lives in the relay's process.
    pub was_local: bool,
    /// The probe's answer.
    pub answer: Result<u64, CallError>,
}

/// Passes a number on to the log of `to`.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Forwarded")]
pub struct Forward {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// The number.
    pub number: u64,
}

impl Handler<Forward> for Relay {
    type Result = ResponseFuture<Forwarded>;

    fn handle(&mut self, Forward { to, number }: Forward, _: &mut Context<Self>) -> Self::Result {
        forward(to, number)
    }
}

/// Passes a number on to the probe that the relay was made with.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Forwarded")]
pub struct ForwardToFirst(pub u64);

impl Handler<ForwardToFirst> for Relay {
    type Result = ResponseFuture<Forwarded>;

    fn handle(&mut self, ForwardToFirst(number): ForwardToFirst, _: &mut Context<Self>) -> Self::Result {
        forward(self.first.clone().expect("made with one"), number)
    }
}

fn forward(to: ActorRef<Probe>, number: u64) -> ResponseFuture<Forwarded> {
    let was_local = to.is_local();
    let asked = to.ask(Record(number));
    Box::pin(async move { Forwarded { via: std::process::id(), was_local, answer: asked.await } })
}

/// How an ask ended that a handler had made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Nested {
    /// After this time.
    pub after: Duration,
    /// The probe's answer.
    pub answer: Result<(), CallError>,
}

/// Makes the relay ask `to` to hold, which inherits the deadline of this message; the answer comes with that.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AskNested {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// Where it holds.
    pub gate: String,
    /// The nested ask's own deadline, if it has one.
    pub wait: Option<Duration>,
}

impl Handler<AskNested> for Relay {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, AskNested { to, gate, wait }: AskNested, _: &mut Context<Self>) -> Self::Result {
        let begun = Instant::now();
        let to = wait.map_or(to.clone(), |wait| to.with_deadline(wait));
        let asked = to.ask(Hold { gate });
        let relay = this::<Relay>().expect("a handler of this type is running");
        Box::pin(async move {
            let answer = asked.await;
            let told = relay.try_tell(NestedEnded(Nested { after: begun.elapsed(), answer }));
            told.expect("an idle actor has room");
        })
    }
}

/// A nested ask of the relay has ended.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct NestedEnded(pub Nested);

impl Handler<NestedEnded> for Relay {
    type Result = ();

    fn handle(&mut self, NestedEnded(nested): NestedEnded, _: &mut Context<Self>) {
        self.nested.push(nested);
    }
}

/// All nested asks that have ended so far.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<Nested>")]
pub struct NestedSoFar;

impl Handler<NestedSoFar> for Relay {
    type Result = MessageResult<NestedSoFar>;

    fn handle(&mut self, _: NestedSoFar, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.nested.clone())
    }
}

/// Watches and opens the gates of its process. Has a thread of its own, which nothing blocks.
#[derive(Debug)]
pub struct GateKeeper;

impl Actor for GateKeeper {
    type Context = Context<Self>;
}

mobula::remote_actor!(GateKeeper, args: (), create: |()| GateKeeper, messages: [Entered, Open]);

/// Answers when `count` have entered the gate.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Entered {
    /// The gate.
    pub gate: String,
    /// So many.
    pub count: u32,
}

impl Handler<Entered> for GateKeeper {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Entered { gate, count }: Entered, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { gates::entered(&gate, count).await })
    }
}

/// Opens a gate.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Open {
    /// The gate.
    pub gate: String,
}

impl Handler<Open> for GateKeeper {
    type Result = ();

    fn handle(&mut self, Open { gate }: Open, _: &mut Context<Self>) {
        gates::open(&gate);
    }
}

/// Opens a gate when it is created, on a thread of its own. Creating an actor takes neither the connection for
/// messages nor the arbiter that reads it, so this works while that one is blocked.
#[derive(Debug)]
pub struct Opener;

impl Actor for Opener {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Opener,
    args: String,
    create: |gate| {
        gates::open(&gate);
        Opener
    },
    messages: []
);
