//! An actor that answers with many items.

use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;
use futures::stream;
use mobula::{RemoteMessage, ReplyItems, StreamMessage};
use serde::{Deserialize, Serialize};

use crate::gates;

/// Produces numbers.
#[derive(Debug)]
pub struct Streamer;

impl Actor for Streamer {
    type Context = Context<Self>;
}

mobula::remote_actor!(
    Streamer,
    args: (),
    create: |()| Streamer,
    messages: [CountTo, CountForEver, PanicAfter, Unreadable, Produced]
);

/// The numbers from 1 to this.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub struct CountTo(pub u64);

impl StreamMessage for CountTo {
    type Item = u64;
}

impl Handler<CountTo> for Streamer {
    type Result = ReplyItems<u64>;

    fn handle(&mut self, CountTo(end): CountTo, _: &mut Context<Self>) -> ReplyItems<u64> {
        ReplyItems::from_stream(stream::iter(1..=end))
    }
}

/// Numbers that were produced for [`CountForEver`] in this process.
static PRODUCED: AtomicU64 = AtomicU64::new(0);

/// Numbers until nobody wants them any more.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub struct CountForEver {
    /// Entered when the producer is dropped.
    pub ended: String,
}

impl StreamMessage for CountForEver {
    type Item = u64;
}

/// Enters a gate when it is dropped.
struct EntersAtTheEnd(String);

impl Drop for EntersAtTheEnd {
    fn drop(&mut self) {
        gates::open(&self.0);
        gates::pass_blocking(&self.0);
    }
}

impl Handler<CountForEver> for Streamer {
    type Result = ReplyItems<u64>;

    fn handle(&mut self, CountForEver { ended }: CountForEver, _: &mut Context<Self>) -> ReplyItems<u64> {
        ReplyItems::produce(|mut sender| async move {
            let _ends = EntersAtTheEnd(ended);
            for number in 1.. {
                PRODUCED.fetch_add(1, Ordering::Relaxed);
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        })
    }
}

/// How many numbers were produced for [`CountForEver`] in this process.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
pub struct Produced;

impl Handler<Produced> for Streamer {
    type Result = u64;

    fn handle(&mut self, _: Produced, _: &mut Context<Self>) -> u64 {
        PRODUCED.load(Ordering::Relaxed)
    }
}

/// So many numbers, and then a panic.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub struct PanicAfter(pub u64);

impl StreamMessage for PanicAfter {
    type Item = u64;
}

impl Handler<PanicAfter> for Streamer {
    type Result = ReplyItems<u64>;

    fn handle(&mut self, PanicAfter(end): PanicAfter, _: &mut Context<Self>) -> ReplyItems<u64> {
        ReplyItems::produce(move |mut sender| async move {
            for number in 1..=end {
                sender.send(number).await.expect("somebody reads");
            }
            panic!("out of numbers");
        })
    }
}

/// Gives out numbers; written with the macro.
#[derive(Debug)]
pub struct Dispenser {
    next: u64,
}

#[mobula::actor]
impl Dispenser {
    /// The first number is `next`.
    pub fn new(next: u64) -> Self {
        Dispenser { next }
    }

    /// The next numbers, so many, which nobody else gets.
    pub fn draw(&mut self, count: u64) -> ReplyItems<u64> {
        let first = self.next;
        self.next += count;
        ReplyItems::from_stream(stream::iter(first..self.next))
    }

    /// Numbers from the next on, until nobody wants them any more. Enters the gate `ended` when the producer is dropped.
    pub fn show(&self, ended: String) -> mobula::ReplyItems<Result<u64, String>> {
        let first = self.next;
        ReplyItems::produce(move |mut sender| async move {
            let _ends = EntersAtTheEnd(ended);
            for number in first.. {
                let item = if number % 2 == 0 { Ok(number) } else { Err(format!("{number} is odd")) };
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        })
    }
}

/// Items of which the third cannot be written.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub struct Unreadable;

/// A number that will not be written if it is 3.
#[derive(Debug, Deserialize)]
pub struct NotThree(pub u64);

impl Serialize for NotThree {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            3 => Err(serde::ser::Error::custom("three")),
            number => serializer.serialize_newtype_struct("NotThree", &number),
        }
    }
}

impl StreamMessage for Unreadable {
    type Item = NotThree;
}

impl Handler<Unreadable> for Streamer {
    type Result = ReplyItems<NotThree>;

    fn handle(&mut self, _: Unreadable, _: &mut Context<Self>) -> ReplyItems<NotThree> {
        ReplyItems::from_stream(stream::iter((1..=5).map(NotThree)))
    }
}
