//! Answers of many items, as users make and read them: a producer that ends, fails in its midst, or is cut off, and a reader
//! that is quick, slow, or gives up.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler};
use futures::{StreamExt, poll};
use mobula::{ItemSender, Node, RemoteMessage, ReplyItems, ReplyStream, StreamMessage};
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::{sleep, timeout};

use super::calls::{self, Done, Open, Target};
use super::state;
use super::worker::{Job, Work, Worker, stop_this};
use crate::fact::{Fact, LifeId, Op, Verdict};
use crate::params::{CallParams, Ending, MS, Time};
use crate::reach::Branch;

/// Answered with the items of its plan.
#[derive(Debug, Serialize, Deserialize, RemoteMessage)]
pub(super) struct Flow(pub(super) Work);

impl StreamMessage for Flow {
    type Item = Item;
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item {
    op: Op,
    number: u32,
    #[serde(with = "serde_bytes")]
    padding: Vec<u8>,
    fit: Fit,
}

/// What some items have in them that cannot be written.
#[derive(Debug, Deserialize)]
struct Fit(bool);

impl Serialize for Fit {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.0 { out.serialize_newtype_struct("Fit", &true) } else { Err(S::Error::custom("as planned")) }
    }
}

impl Handler<Flow> for Worker {
    type Result = ReplyItems<Item>;

    fn handle(&mut self, Flow(work): Flow, _: &mut Context<Self>) -> Self::Result {
        let job = self.begin(work, false);
        ReplyItems::produce(move |sender| produce(job, sender))
    }
}

/// A producer, until it is over or dropped.
struct Producing(Op);

impl Drop for Producing {
    fn drop(&mut self) {
        state::fact(Fact::ProducerEnds { op: self.0 });
    }
}

async fn produce(job: Job, mut sender: ItemSender<Item>) {
    let (op, plan) = (job.op(), Arc::clone(&job.plan));
    state::fact(Fact::ProducerBegins { op });
    let _ends = Producing(op);
    let items = u32::from(plan.items);
    let pause = plan.work / Time::from(items.max(1));
    for number in 0..items {
        if number == items / 2 {
            turn(&job).await;
        }
        if pause > 0 {
            sleep(Duration::from_micros(pause)).await;
        }
        let fit = Fit(plan.ending != Ending::Error || number < items / 2);
        let item = Item { op, number, padding: vec![0x3c; plan.padding.into()], fit };
        let mut sent = pin!(sender.send(item));
        let sent = match poll!(&mut sent) {
            std::task::Poll::Ready(sent) => sent,
            std::task::Poll::Pending => {
                state::reach(Branch::ProducerHeld);
                sent.await
            }
        };
        if sent.is_err() {
            return;
        }
        state::fact(Fact::ItemSent { op, number });
    }
    if items == 0 {
        turn(&job).await;
    }
    state::fact(Fact::Finished { op });
}

/// What becomes of it half-way.
async fn turn(job: &Job) {
    match job.plan.ending {
        Ending::Panic => panic!("{}", state::PLANNED_PANIC),
        Ending::Stop => job.stop(stop_this),
        Ending::Late => {
            if let Some(deadline) = job.plan.deadline {
                sleep(Duration::from_micros(deadline + 100 * MS)).await;
            }
        }
        Ending::Reply | Ending::Error => {}
    }
}

/// Asks for a stream now. The future reads it, and is done when it has its end.
pub(super) fn ask(plan: &Arc<CallParams>, caller: LifeId, node: &Node, target: &Target) -> Done {
    let op = state::issue(plan, caller, target.place());
    state::fact(Fact::StreamAsked { op });
    let to = match plan.deadline {
        Some(after) => target.reference.with_deadline(Duration::from_micros(after)),
        None => target.reference.without_deadline(),
    };
    let stream = to.ask_stream(Flow(calls::work(op, plan, node)));
    let (open, cancel_after, plan) = (Open(op), plan.cancel_after, Arc::clone(plan));
    Box::pin(async move {
        let open = open;
        let read = read(op, &plan, stream);
        let end = match cancel_after {
            Some(after) => timeout(Duration::from_micros(after), read).await.ok(),
            None => Some(read.await),
        };
        match end {
            Some(end) => state::resolved(open.0, end),
            None => state::reach(Branch::StreamGivenUp),
        }
    })
}

async fn read(op: Op, plan: &CallParams, mut stream: ReplyStream<Item>) -> Verdict {
    let pace = [0, MS, 10 * MS][usize::from(plan.message) % 3];
    let until = plan.deadline.map(|after| state::now() + after);
    let accuse = |what: String| state::accuse("§8 items come in order, within their window", what);
    while let Some(item) = stream.next().await {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                if let Some(after) = Pin::new(&mut stream).next().await {
                    accuse(format!("#{op}: behind the error comes {after:?}"));
                }
                return calls::failed(&error);
            }
        };
        if item.op != op || item.padding.len() != usize::from(plan.padding) {
            accuse(format!("#{op} gets an item of #{} with {} bytes", item.op, item.padding.len()));
        }
        state::fact(Fact::ItemArrived { op, number: item.number });
        state::fact(Fact::ItemTaken { op });
        // What is left when the time is over is there at once.
        let left = until.map_or(pace, |until| pace.min(until.saturating_sub(state::now())));
        if left > 0 {
            sleep(Duration::from_micros(left)).await;
        }
    }
    Verdict::Replied { to: op }
}
