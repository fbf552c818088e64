//! An actor with methods of all three shapes: plain, beside all others, alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;
use mobula::shapes::{Concurrent, Exclusive};
use mobula::{ActorRef, CallError, NodeId, RemoteMessage, current_node, this};
use serde::{Deserialize, Serialize};

use crate::actors::{DivideError, Hold, Probe};
use crate::gates;

/// Its list is its own; what all clones share is the count.
#[derive(Clone, Debug, Default)]
pub struct Waiter {
    list: Vec<u64>,
    /// Told by every clone that begins, also by those that never return.
    begun: Arc<AtomicU64>,
    /// Set by `stopping`, to the length of the list that it saw.
    at_stop: Option<ActorRef<Probe>>,
}

#[mobula::actor(manual_actor)]
impl Waiter {
    /// Its list begins with `first`; `at_stop` is told how long the list is when the actor stops.
    pub fn new(first: u64, at_stop: Option<ActorRef<Probe>>) -> Self {
        Waiter { list: vec![first], begun: Arc::default(), at_stop }
    }

    /// Puts `number` on the list.
    pub fn record(&mut self, number: u64) {
        self.list.push(number);
    }

    /// The list.
    pub fn list(&self) -> Vec<u64> {
        self.list.clone()
    }

    /// How many concurrent methods have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits at a gate beside all others. Gives the list as it was when it began.
    pub async fn look(&self, gate: String) -> Vec<u64> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        gates::pass(&gate).await;
        self.list.clone()
    }

    /// Puts `number` on the list, waits at a gate alone, puts it there again.
    pub async fn record_twice(&mut self, gate: String, number: u64) -> u64 {
        self.list.push(number);
        gates::pass(&gate).await;
        self.list.push(number);
        self.list.len() as u64
    }

    /// Divides, alone, and not at once.
    pub async fn divide(&mut self, by: i64) -> Result<i64, DivideError> {
        tokio::task::yield_now().await;
        let dividend = self.list.len() as i64;
        dividend.checked_div(by).ok_or(DivideError { dividend })
    }

    /// Panics beside all others, and not at once.
    pub async fn panic_beside(&self, text: String) {
        tokio::task::yield_now().await;
        panic!("{text}")
    }

    /// Panics alone, and not at once.
    pub async fn panic_alone(&mut self, text: String) {
        self.list.clear();
        tokio::task::yield_now().await;
        panic!("{text}")
    }

    /// Waits at a gate alone, and panics then.
    pub async fn panic_at_gate(&mut self, gate: String, text: String) {
        gates::pass(&gate).await;
        panic!("{text}")
    }

    /// Ends itself with `error`, and waits at a gate alone before it does.
    pub async fn end_at_gate(&mut self, gate: String, error: String) {
        assert!(mobula::stop_with(error), "a handler is a turn");
        gates::pass(&gate).await;
    }

    /// Tells itself the numbers below `count` while nobody else can be served, and waits for each to be accepted.
    pub async fn tell_itself_alone(&mut self, count: u64) -> Result<(), CallError> {
        let this = this::<Waiter>().expect("it runs in this actor");
        for number in 0..count {
            this.tell(WaiterRecord { number }).await?;
        }
        Ok(())
    }

    /// Asks itself for the list, from beside.
    pub async fn ask_itself_beside(&self) -> Result<Vec<u64>, CallError> {
        tokio::task::yield_now().await;
        this::<Waiter>().expect("it runs in this actor").list().await
    }

    /// Asks itself for the list while nobody else can be served.
    pub async fn ask_itself_alone(&mut self) -> Result<Vec<u64>, CallError> {
        tokio::task::yield_now().await;
        this::<Waiter>().expect("it runs in this actor").list().await
    }

    /// Where it is and how its ask of a probe that holds ended: beside all others, after an await.
    pub async fn ask_beside(&self, to: ActorRef<Probe>, gate: String, heard: ActorRef<Waiter>) -> NodeId {
        ask_held(to, gate, heard).await
    }

    /// The same, alone.
    pub async fn ask_alone(&mut self, to: ActorRef<Probe>, gate: String, heard: ActorRef<Waiter>) -> NodeId {
        ask_held(to, gate, heard).await
    }
}

/// Tells `heard` that an ask without a deadline of its own has ended by the one it inherited.
async fn ask_held(to: ActorRef<Probe>, gate: String, heard: ActorRef<Waiter>) -> NodeId {
    tokio::task::yield_now().await;
    let here = current_node().expect("a handler runs on a node").id().clone();
    if matches!(to.without_deadline().ask(Hold { gate }).await, Err(CallError::DeadlineExceeded { .. })) {
        heard.try_tell(WaiterRecord { number: 1 }).expect("an idle actor has room");
    }
    here
}

impl Actor for Waiter {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(probe) = &self.at_stop {
            drop(probe.tell(crate::actors::Record(self.list.len() as u64)));
        }
    }
}

/// The same shapes in the plain actix way.
#[derive(Debug, Default)]
pub struct PlainWaiter {
    list: Vec<u64>,
}

impl Actor for PlainWaiter {
    type Context = Context<Self>;
}

mobula::remote_actor!(PlainWaiter, args: (), create: |()| PlainWaiter::default(), messages: [Beside, Alone, PanicAlone, PanicByAddress]);

/// Waits at the gate beside all others; gives twice the number.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Beside(pub String, pub u64);

impl Handler<Beside> for PlainWaiter {
    type Result = Concurrent<Beside>;

    fn handle(&mut self, Beside(gate, number): Beside, _: &mut Context<Self>) -> Self::Result {
        Concurrent::new(async move {
            gates::pass(&gate).await;
            number * 2
        })
    }
}

/// Puts the number on the list, alone; gives the list.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<u64>")]
pub struct Alone(pub u64);

impl Handler<Alone> for PlainWaiter {
    type Result = Exclusive<Self, Alone>;

    fn handle(&mut self, Alone(number): Alone, _: &mut Context<Self>) -> Self::Result {
        Exclusive::on_state_of(self, move |mut waiter| async move {
            tokio::task::yield_now().await;
            waiter.list.push(number);
            (waiter.list.clone(), waiter)
        })
    }
}

/// Panics alone, and not at once.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct PanicAlone(pub String);

impl Handler<PanicAlone> for PlainWaiter {
    type Result = Exclusive<Self, PanicAlone>;

    fn handle(&mut self, PanicAlone(text): PanicAlone, _: &mut Context<Self>) -> Self::Result {
        Exclusive::on_state_of(self, move |_| async move {
            tokio::task::yield_now().await;
            panic!("{text}")
        })
    }
}

/// Sends itself, by its actix address, what panics beside all others. Answers whether it has.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
pub struct PanicByAddress(pub String);

impl Handler<PanicByAddress> for PlainWaiter {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, PanicByAddress(text): PanicByAddress, ctx: &mut Context<Self>) -> Self::Result {
        let sent = ctx.address().send(PanicBeside(text));
        Box::pin(async move { sent.await.is_err() })
    }
}

/// For the address alone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct PanicBeside(String);

impl Handler<PanicBeside> for PlainWaiter {
    type Result = Concurrent<PanicBeside>;

    fn handle(&mut self, PanicBeside(text): PanicBeside, _: &mut Context<Self>) -> Self::Result {
        Concurrent::new(async move { panic!("{text}") })
    }
}
