//! An actor that does not stop when it is told to.

use actix::{Actor, ActorContext, Context, Handler, Running};
use mobula::{RemoteMessage, put_off_stop};
use serde::{Deserialize, Serialize};

use crate::actors::{Panic, Record};

/// Declines stops, or puts them off, until it is told to finish.
#[derive(Debug)]
pub struct Stubborn {
    puts_off: bool,
    done: bool,
}

impl Actor for Stubborn {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.done {
            return Running::Stop;
        }
        if self.puts_off {
            assert!(put_off_stop(), "a hook is a turn");
        }
        Running::Continue
    }
}

impl Handler<Record> for Stubborn {
    type Result = u64;

    fn handle(&mut self, Record(number): Record, _: &mut Context<Self>) -> u64 {
        number
    }
}

impl Handler<Panic> for Stubborn {
    type Result = ();

    fn handle(&mut self, Panic(text): Panic, _: &mut Context<Self>) {
        panic!("{text}");
    }
}

/// Makes it stop.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
pub struct Finish;

impl Handler<Finish> for Stubborn {
    type Result = ();

    fn handle(&mut self, _: Finish, ctx: &mut Context<Self>) {
        self.done = true;
        ctx.stop();
    }
}

mobula::remote_actor!(
    Stubborn,
    args: bool,
    create: |puts_off| Stubborn { puts_off, done: false },
    messages: [Record, Panic, Finish]
);
