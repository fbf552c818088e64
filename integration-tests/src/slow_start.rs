//! An actor whose constructor waits at a gate.

use actix::{Actor, Context, Handler};

use crate::actors::Record;
use crate::gates;

/// Made from the name of a gate, which its constructor passes. Wants a thread of its own.
#[derive(Debug)]
pub struct SlowStart;

impl Actor for SlowStart {
    type Context = Context<Self>;
}

impl Handler<Record> for SlowStart {
    type Result = u64;

    fn handle(&mut self, Record(number): Record, _: &mut Context<Self>) -> u64 {
        number
    }
}

mobula::remote_actor!(
    SlowStart,
    args: String,
    create: |gate| {
        gates::pass_blocking(&gate);
        SlowStart
    },
    messages: [Record]
);
