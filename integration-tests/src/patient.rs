//! An actor whose handlers take long, in each of actix's ways, and look who still waits for them.

use std::time::Duration;

use actix::prelude::*;
use actix::{ActorFutureExt, AtomicResponse, WrapFuture};
use mobula::{ActorRef, CallError, Forward, RemoteMessage, current_call, this};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::actors::{Entered, GateKeeper, Hold, Panic, Probe, Record};
use crate::gates;

/// Waits as it is told.
#[derive(Debug)]
pub struct Patient {
    asked: Vec<Asked>,
}

impl Actor for Patient {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Patient,
    args: (),
    create: |()| Patient { asked: Vec::new() },
    messages: [AskBeside, AskInside, AskAlone, AskEnded, AskedSoFar, AwaitCancel, ComputeUntilCancelled, HasCall, Witness]
);

/// How an ask ended that a handler made after it had waited for something else.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// After this time.
    pub after: Duration,
    /// The probe's answer.
    pub answer: Result<(), CallError>,
    /// Whether the handler knew its call after the wait.
    pub knew_its_call: bool,
}

async fn ask_later(to: ActorRef<Probe>, gate: String) -> Asked {
    let begun = Instant::now();
    // By now the handler has returned.
    tokio::task::yield_now().await;
    let knew_its_call = current_call().is_some();
    let answer = to.ask(Hold { gate }).await;
    Asked { after: begun.elapsed(), answer, knew_its_call }
}

/// Asks `to` to hold, from a future beside the actor, after it has waited once.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AskBeside {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// Where it holds.
    pub gate: String,
}

impl Handler<AskBeside> for Patient {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, AskBeside { to, gate }: AskBeside, _: &mut Context<Self>) -> Self::Result {
        let own = this::<Patient>().expect("a handler of this type is running");
        Box::pin(async move {
            let asked = ask_later(to, gate).await;
            own.try_tell(AskEnded(asked)).expect("an idle actor has room");
        })
    }
}

/// As [`AskBeside`], from a future of the actor, among others.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AskInside {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// Where it holds.
    pub gate: String,
}

impl Handler<AskInside> for Patient {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, AskInside { to, gate }: AskInside, _: &mut Context<Self>) -> Self::Result {
        Box::pin(ask_later(to, gate).into_actor(self).map(|asked, patient, _| patient.asked.push(asked)))
    }
}

/// As [`AskBeside`], from a future that has the actor to itself.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AskAlone {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// Where it holds.
    pub gate: String,
}

impl Handler<AskAlone> for Patient {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, AskAlone { to, gate }: AskAlone, _: &mut Context<Self>) -> Self::Result {
        let asked = ask_later(to, gate).into_actor(self);
        AtomicResponse::new(Box::pin(asked.map(|asked, patient, _| patient.asked.push(asked))))
    }
}

/// An ask beside the actor has ended.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AskEnded(pub Asked);

impl Handler<AskEnded> for Patient {
    type Result = ();

    fn handle(&mut self, AskEnded(asked): AskEnded, _: &mut Context<Self>) {
        self.asked.push(asked);
    }
}

/// All that were asked, and have ended, so far.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Vec<Asked>")]
pub struct AskedSoFar;

impl Handler<AskedSoFar> for Patient {
    type Result = MessageResult<AskedSoFar>;

    fn handle(&mut self, _: AskedSoFar, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.asked.clone())
    }
}

/// Enters one gate, waits until nobody wants the answer any more, and enters the other.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct AwaitCancel {
    /// Entered at the beginning; it has to be open.
    pub begun: String,
    /// Entered when the call is cancelled.
    pub cancelled: String,
}

impl Handler<AwaitCancel> for Patient {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, AwaitCancel { begun, cancelled }: AwaitCancel, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            let call = current_call().expect("this is a handler's future");
            assert!(!call.is_cancelled(), "somebody waits until the gate says that it has begun");
            gates::pass(&begun).await;
            call.cancelled().await;
            assert!(call.is_cancelled(), "it has just said so");
            gates::pass(&cancelled).await;
        })
    }
}

/// Enters a gate and computes until nobody wants the answer any more.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct ComputeUntilCancelled {
    /// The gate; it has to be open.
    pub begun: String,
}

impl Handler<ComputeUntilCancelled> for Patient {
    type Result = ();

    fn handle(&mut self, ComputeUntilCancelled { begun }: ComputeUntilCancelled, _: &mut Context<Self>) {
        gates::pass_blocking(&begun);
        let call = current_call().expect("this is a handler");
        while !call.is_cancelled() {
            std::thread::yield_now();
        }
    }
}

/// Whether a handler has a call with a deadline, and what runs beside it has none.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(bool, bool)")]
pub struct HasCall;

impl Handler<HasCall> for Patient {
    type Result = ResponseFuture<(bool, bool)>;

    fn handle(&mut self, _: HasCall, _: &mut Context<Self>) -> Self::Result {
        let has = current_call().is_some_and(|call| call.deadline().is_some());
        let beside = actix::spawn(async { current_call().is_some() });
        Box::pin(async move { (has, beside.await.expect("it does not panic")) })
    }
}

/// Answers when somebody has entered a gate of another node.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Witness {
    /// The keeper of that node.
    pub keeper: ActorRef<GateKeeper>,
    /// The gate.
    pub gate: String,
}

impl Handler<Witness> for Patient {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Witness { keeper, gate }: Witness, _: &mut Context<Self>) -> Self::Result {
        let entered = keeper.ask(Entered { gate, count: 1 });
        Box::pin(async move { entered.await.expect("the keeper answers") })
    }
}

/// Hands its callers on to others.
#[derive(Debug)]
pub struct FrontDesk;

impl Actor for FrontDesk {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    FrontDesk,
    args: (),
    create: |()| FrontDesk,
    messages: [RecordElsewhere, PanicElsewhere, WaitElsewhere]
);

/// Answered by the probe, as [`Record`] is.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct RecordElsewhere {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
    /// The number.
    pub number: u64,
}

impl Handler<RecordElsewhere> for FrontDesk {
    type Result = Forward<u64>;

    fn handle(&mut self, RecordElsewhere { to, number }: RecordElsewhere, _: &mut Context<Self>) -> Forward<u64> {
        Forward::to(&to, Record(number))
    }
}

/// Makes the probe panic.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct PanicElsewhere {
    /// A probe, anywhere.
    pub to: ActorRef<Probe>,
}

impl Handler<PanicElsewhere> for FrontDesk {
    type Result = Forward<()>;

    fn handle(&mut self, PanicElsewhere { to }: PanicElsewhere, _: &mut Context<Self>) -> Forward<()> {
        Forward::to(&to, Panic("elsewhere".to_owned()))
    }
}

/// Answered by the patient, as [`AwaitCancel`] is.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct WaitElsewhere {
    /// A patient, anywhere.
    pub to: ActorRef<Patient>,
    /// What it is to do.
    pub work: AwaitCancel,
}

impl Handler<WaitElsewhere> for FrontDesk {
    type Result = Forward<()>;

    fn handle(&mut self, WaitElsewhere { to, work }: WaitElsewhere, _: &mut Context<Self>) -> Forward<()> {
        Forward::to(&to, work)
    }
}
