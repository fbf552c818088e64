//! Actors that come to an end, and actors that hear of it.

use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use mobula::{ActorRef, Down, Exit, MonitorGuard, MonitorRef, Recipient, RemoteMessage, stop_with, this, trap_exits};
use serde::{Deserialize, Serialize};

use crate::actors::Record;
use crate::gates;

/// How a mortal ends.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum How {
    /// It stops.
    Stop,
    /// It ends itself with this error.
    Error(String),
    /// It panics with this text.
    Panic(String),
}

/// An actor that ends when it is told to.
#[derive(Debug)]
pub struct Mortal;

impl Actor for Mortal {
    type Context = Context<Self>;
}

mobula::remote_actor!(Mortal, args: (), create: |()| Mortal, messages: [EndNow, Greet]);

/// Is answered.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Greet;

impl Handler<Greet> for Mortal {
    type Result = ();

    fn handle(&mut self, _: Greet, _: &mut Context<Self>) {}
}

/// Ends the actor, after it has told `to` the numbers below `count`.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct EndNow {
    /// How.
    pub how: How,
    /// Who is told numbers.
    pub to: Option<Recipient<Record>>,
    /// So many.
    pub count: u64,
}

impl EndNow {
    /// Without telling anybody anything.
    pub fn silently(how: How) -> Self {
        EndNow { how, to: None, count: 0 }
    }
}

impl Handler<EndNow> for Mortal {
    type Result = ();

    fn handle(&mut self, EndNow { how, to, count }: EndNow, ctx: &mut Context<Self>) {
        for number in 0..count {
            drop(to.as_ref().expect("somebody to tell").tell(Record(number)));
        }
        match how {
            How::Stop => ctx.stop(),
            How::Error(text) => assert!(stop_with(text), "a handler is a turn"),
            How::Panic(text) => panic!("{text}"),
        }
    }
}

/// Ends as soon as it has started.
#[derive(Debug)]
pub struct Mayfly(String);

impl Actor for Mayfly {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        stop_with(&self.0);
    }
}

mobula::remote_actor!(Mayfly, args: String, create: Mayfly, messages: []);

/// Tells when its lives begin and end.
#[derive(Debug)]
pub struct Worker(WorkerArgs);

/// What a worker is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerArgs {
    /// It is told this number when a life begins, and 100 more when one ends.
    pub number: u64,
    /// Who is told.
    pub log: Recipient<Record>,
    /// It does not stop when it is told to.
    pub stays: bool,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        drop(self.0.log.tell(Record(self.0.number)));
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.0.stays { Running::Continue } else { Running::Stop }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        drop(self.0.log.tell(Record(self.0.number + 100)));
    }
}

mobula::remote_actor!(Worker, args: WorkerArgs, create: Worker, messages: [EndNow, Greet]);

impl Handler<EndNow> for Worker {
    type Result = ();

    fn handle(&mut self, EndNow { how, .. }: EndNow, ctx: &mut Context<Self>) {
        match how {
            How::Stop => ctx.stop(),
            How::Error(text) => assert!(stop_with(text), "a handler is a turn"),
            How::Panic(text) => panic!("{text}"),
        }
    }
}

impl Handler<Greet> for Worker {
    type Result = ();

    fn handle(&mut self, _: Greet, _: &mut Context<Self>) {}
}

/// Starts once, and never again.
#[derive(Debug)]
pub struct OneStart(Recipient<Record>);

static STARTED: AtomicBool = AtomicBool::new(false);

impl Actor for OneStart {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        drop(self.0.tell(Record(0)));
        assert!(!STARTED.swap(true, Ordering::Relaxed), "no second start");
    }
}

mobula::remote_actor!(OneStart, args: Recipient<Record>, create: OneStart, messages: [EndNow]);

impl Handler<EndNow> for OneStart {
    type Result = ();

    fn handle(&mut self, _: EndNow, _: &mut Context<Self>) {
        panic!("the first");
    }
}

/// Sends itself, as it starts, what it panics at.
#[derive(Debug)]
pub struct Hasty;

impl Actor for Hasty {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        drop(this::<Self>().expect("its hook runs").tell(EndNow::silently(How::Stop)));
    }
}

mobula::remote_actor!(Hasty, args: (), create: |()| Hasty, messages: []);

impl Handler<EndNow> for Hasty {
    type Result = ();

    fn handle(&mut self, _: EndNow, _: &mut Context<Self>) {
        panic!("too soon");
    }
}

/// What a sentry has heard, in order.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Heard {
    /// A number.
    Number(u64),
    /// An actor's end.
    Down(Down),
    /// The end of a linked actor.
    Exit(Exit),
}

/// Monitors others and keeps what it hears.
#[derive(Debug, Default)]
pub struct Sentry {
    guards: Vec<MonitorGuard>,
    heard: Vec<Heard>,
}

impl Actor for Sentry {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Sentry,
    args: (),
    create: |()| Sentry::default(),
    messages: [Guard, GuardAndBlock, Unguard, TrapExits, AllHeard, Record, Down]
);

impl Handler<Exit> for Sentry {
    type Result = ();

    fn handle(&mut self, exit: Exit, _: &mut Context<Self>) {
        self.heard.push(Heard::Exit(exit));
    }
}

/// Ends of linked actors are messages from now on.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
pub struct TrapExits;

impl Handler<TrapExits> for Sentry {
    type Result = bool;

    fn handle(&mut self, _: TrapExits, _: &mut Context<Self>) -> bool {
        trap_exits::<Self>()
    }
}

impl Handler<Record> for Sentry {
    type Result = u64;

    fn handle(&mut self, Record(number): Record, _: &mut Context<Self>) -> u64 {
        self.heard.push(Heard::Number(number));
        self.heard.len() as u64
    }
}

impl Handler<Down> for Sentry {
    type Result = ();

    fn handle(&mut self, down: Down, _: &mut Context<Self>) {
        self.heard.push(Heard::Down(down));
    }
}

/// Monitors a mortal. Answers the monitor when it is in force at the mortal's node.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "MonitorRef")]
pub struct Guard(pub ActorRef<Mortal>);

impl Handler<Guard> for Sentry {
    type Result = ResponseFuture<MonitorRef>;

    fn handle(&mut self, Guard(mortal): Guard, _: &mut Context<Self>) -> Self::Result {
        let guard = mortal.monitor_into(this::<Self>().expect("its handler runs"));
        let id = guard.id();
        self.guards.push(guard);
        // Behind the monitor on the same road.
        let greeted = mortal.ask(Greet);
        Box::pin(async move {
            // It may be dead.
            let _ = greeted.await;
            id
        })
    }
}

/// Drops all monitors.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Unguard;

impl Handler<Unguard> for Sentry {
    type Result = ();

    fn handle(&mut self, _: Unguard, _: &mut Context<Self>) {
        self.guards.clear();
    }
}

/// Monitors a mortal, waits at a gate with its whole thread, and ends the monitoring.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct GuardAndBlock {
    /// Whom.
    pub mortal: ActorRef<Mortal>,
    /// Where it waits.
    pub gate: String,
    /// Whether it flushes.
    pub flush: bool,
}

impl Handler<GuardAndBlock> for Sentry {
    type Result = ();

    fn handle(&mut self, GuardAndBlock { mortal, gate, flush }: GuardAndBlock, _: &mut Context<Self>) {
        let guard = mortal.monitor_into(this::<Self>().expect("its handler runs"));
        gates::pass_blocking(&gate);
        if flush {
            guard.flush();
        }
    }
}

/// Asks for everything heard so far.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<Heard>")]
pub struct AllHeard;

impl Handler<AllHeard> for Sentry {
    type Result = MessageResult<AllHeard>;

    fn handle(&mut self, _: AllHeard, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.heard.clone())
    }
}

/// Monitors in the macro's way, those of its own node.
#[derive(Debug, Default)]
pub struct Nurse {
    guards: Vec<MonitorGuard>,
    downs: Vec<Down>,
}

#[mobula::actor]
impl Nurse {
    /// One that has heard nothing.
    pub fn new() -> Self {
        Nurse::default()
    }

    /// Monitors a mortal.
    pub fn look_after(&mut self, mortal: ActorRef<Mortal>) {
        self.guards.push(mortal.monitor_into(this::<Self>().expect("its handler runs")));
    }

    /// The ends that it has heard of.
    pub fn downs(&self) -> Vec<Down> {
        self.downs.clone()
    }
}

impl Handler<Down> for Nurse {
    type Result = ();

    fn handle(&mut self, down: Down, _: &mut Context<Self>) {
        self.downs.push(down);
    }
}
