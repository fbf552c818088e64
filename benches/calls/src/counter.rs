//! The actor that is called.
use actix::{Actor, Context, Handler, Message};
use mobula_core::{RemoteMessage, schema_hash};
use serde::{Deserialize, Serialize};

/// Counts what it is sent.
pub(crate) struct Counter {
    count: i64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// Adds `by` and answers the new count.
#[derive(Deserialize, Serialize)]
pub(crate) struct Add {
    pub(crate) by: i64,
}

/// Takes bytes and counts them.
#[derive(Deserialize, Serialize)]
pub(crate) struct Absorb(#[serde(with = "serde_bytes")] pub(crate) Vec<u8>);

macro_rules! answers_the_count {
    ($message:ty, $name:literal) => {
        impl Message for $message {
            type Result = i64;
        }

        impl RemoteMessage for $message {
            const NAME: &'static str = $name;
            const SCHEMA: u64 = schema_hash($name);
            type Reply = i64;
        }
    };
}

answers_the_count!(Add, "mobula-calls::Add");
answers_the_count!(Absorb, "mobula-calls::Absorb");

impl Handler<Add> for Counter {
    type Result = i64;

    fn handle(&mut self, message: Add, _: &mut Context<Self>) -> i64 {
        self.count += message.by;
        self.count
    }
}

impl Handler<Absorb> for Counter {
    type Result = i64;

    fn handle(&mut self, Absorb(bytes): Absorb, _: &mut Context<Self>) -> i64 {
        self.count += bytes.len() as i64;
        self.count
    }
}

mobula_actors::remote_actor!(Counter, args: i64, create: |count| Counter { count }, messages: [Add, Absorb]);
