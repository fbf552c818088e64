//! An actor that knows others by one message only.

use actix::{Actor, Context, Handler, ResponseFuture};
use futures::TryStreamExt;
use mobula::{CallError, Recipient, RemoteMessage};
use serde::{Deserialize, Serialize};

use crate::actors::{Record, Unlisted};
use crate::streamer::CountTo;

/// Passes numbers on to whoever records them.
#[derive(Debug)]
pub struct Switchboard;

impl Actor for Switchboard {
    type Context = Context<Self>;
}

mobula::remote_actor!(Switchboard, args: (), create: |()| Switchboard, messages: [PassOn, PassOnUnlisted, ReadAll]);

/// Passes a number on.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, CallError>")]
pub struct PassOn {
    /// Anybody who records.
    pub to: Recipient<Record>,
    /// The number.
    pub number: u64,
}

impl Handler<PassOn> for Switchboard {
    type Result = ResponseFuture<Result<u64, CallError>>;

    fn handle(&mut self, PassOn { to, number }: PassOn, _: &mut Context<Self>) -> Self::Result {
        Box::pin(to.ask(Record(number)))
    }
}

/// Asks for what an actor handles and does not take from other nodes.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, CallError>")]
pub struct PassOnUnlisted {
    /// Somebody with a handler for it.
    pub to: Recipient<Unlisted>,
}

impl Handler<PassOnUnlisted> for Switchboard {
    type Result = ResponseFuture<Result<u64, CallError>>;

    fn handle(&mut self, PassOnUnlisted { to }: PassOnUnlisted, _: &mut Context<Self>) -> Self::Result {
        Box::pin(to.ask(Unlisted))
    }
}

/// Reads a stream to its end.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<Vec<u64>, CallError>")]
pub struct ReadAll {
    /// Who counts.
    pub from: Recipient<CountTo>,
    /// The last number.
    pub end: u64,
}

impl Handler<ReadAll> for Switchboard {
    type Result = ResponseFuture<Result<Vec<u64>, CallError>>;

    fn handle(&mut self, ReadAll { from, end }: ReadAll, _: &mut Context<Self>) -> Self::Result {
        Box::pin(from.ask_stream(CountTo(end)).try_collect())
    }
}
