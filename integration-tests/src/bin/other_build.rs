//! A build that differs from its peers': it registers the names of the tests' types with other definitions, and knows
//! some of them not at all. It does not link the tests' library.

use actix::{Actor, Context, Handler};
use mobula::RemoteMessage;
use serde::{Deserialize, Serialize};

/// Made from other arguments.
struct Probe;

impl Actor for Probe {
    type Context = Context<Self>;
}

mobula::remote_actor!(Probe, args: String, create: |_| Probe, messages: [Record]);

#[derive(Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
struct Record(u64);

impl Handler<Record> for Probe {
    type Result = u64;

    fn handle(&mut self, Record(number): Record, _: &mut Context<Self>) -> u64 {
        number
    }
}

/// Made from the same arguments; one method takes others, and the rest are missing.
struct Counter;

#[mobula::actor]
impl Counter {
    fn new(start: i64) -> Self {
        let _ = start;
        Counter
    }

    fn increment(&mut self, by: i32) -> i64 {
        by.into()
    }
}

#[mobula::task]
fn square(x: u32) -> u32 {
    x * x
}

#[mobula::main]
async fn main() {
    let _ = (Counter::actor(0), square::task(0));
    eprintln!("the tests start this program as a node");
}
