//! Types that do not survive the wire, for what is to find them.

use actix::prelude::*;
use futures::stream;
use mobula::{ActorRef, RemoteMessage, ReplyItems, StreamMessage};
use serde::{Deserialize, Serialize};

use crate::streamer::NotThree;

/// Answers what it is told.
#[derive(Debug)]
pub struct Parrot;

impl Actor for Parrot {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Parrot,
    args: (),
    create: |()| Parrot,
    messages: [Forgetful, Repeat, RepeatNotThree, IsLocal, CountNotThree]
);

/// A number that gets lost on the way.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Forgetful {
    /// Not written, and read as 0.
    #[serde(skip)]
    pub number: u64,
}

impl Handler<Forgetful> for Parrot {
    type Result = u64;

    fn handle(&mut self, Forgetful { number }: Forgetful, _: &mut Context<Self>) -> u64 {
        number
    }
}

/// A message that cannot be written if it is 3.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Repeat(pub NotThree);

impl Handler<Repeat> for Parrot {
    type Result = u64;

    fn handle(&mut self, Repeat(number): Repeat, _: &mut Context<Self>) -> u64 {
        number.0
    }
}

/// An answer that cannot be written if it is 3.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "NotThree")]
pub struct RepeatNotThree(pub u64);

impl Handler<RepeatNotThree> for Parrot {
    type Result = MessageResult<RepeatNotThree>;

    fn handle(&mut self, RepeatNotThree(number): RepeatNotThree, _: &mut Context<Self>) -> Self::Result {
        MessageResult(NotThree(number))
    }
}

/// Whether a reference that comes in a message is a local one.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "bool")]
pub struct IsLocal(pub ActorRef<Parrot>);

impl Handler<IsLocal> for Parrot {
    type Result = bool;

    fn handle(&mut self, IsLocal(parrot): IsLocal, _: &mut Context<Self>) -> bool {
        parrot.is_local()
    }
}

/// Numbers from 1 to 5, of which the third cannot be written.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub struct CountNotThree;

impl StreamMessage for CountNotThree {
    type Item = NotThree;
}

impl Handler<CountNotThree> for Parrot {
    type Result = ReplyItems<NotThree>;

    fn handle(&mut self, _: CountNotThree, _: &mut Context<Self>) -> ReplyItems<NotThree> {
        ReplyItems::from_stream(stream::iter((1..=5).map(NotThree)))
    }
}
