//! Streams of answers: the real credit of both sides, and a model of what `actors/src/stream` does around it.

use mobula_core::codec;
use mobula_core::planted::{self, Bug};
use mobula_core::{CallError, RequestId};
use mobula_transport::{ItemWindow, SendCredit, SessionError};
use serde::{Deserialize, Serialize};

use super::{Event, World};
use crate::fact::{EndId, Fact, LifeId, Op};
use crate::params::{MS, Time};
use crate::reach::Branch;

/// The handler's side of a stream.
pub(super) struct Producer {
    pub(super) op: Op,
    pub(super) life: LifeId,
    pub(super) actor: u64,
    pub(super) job: u32,
    next: u32,
    credit: SendCredit,
    blocked: bool,
}

/// The caller's side.
pub(super) struct Reader {
    window: ItemWindow,
    waiting: u32,
    /// How long it takes over an item.
    pace: Time,
    takes: bool,
}

#[derive(Serialize, Deserialize)]
struct Item {
    op: Op,
    number: u32,
}

impl World<'_> {
    /// A handler answers with a stream.
    pub(super) fn stream_begins(&mut self, end: EndId, request: RequestId, op: Op, handler: (LifeId, u64, u32)) {
        let credit = SendCredit::new(self.params.stream_window);
        let (life, actor, job) = handler;
        if self.ends[end as usize].over.is_some() {
            // Nobody reads any more.
            return self.give_up_job(life, actor, job, CallError::Cancelled { started: true });
        }
        self.producers.insert((end, request.0), Producer { op, life, actor, job, next: 0, credit, blocked: false });
        self.plan(self.now, Event::Produce(end, request.0));
    }

    pub(super) fn produce(&mut self, end: EndId, request: u64) {
        let Some(producer) = self.producers.get_mut(&(end, request)) else { return };
        let (op, handler) = (producer.op, (producer.life, producer.actor, producer.job));
        let plan = self.judge.ledger.call(op).plan.clone();
        if producer.next >= u32::from(plan.items) {
            self.producers.remove(&(end, request));
            return self.work_done(handler.0, handler.1, handler.2);
        }
        let may = (producer.credit.left() > 0 && producer.credit.spend()) || planted::is(Bug::ItemCreditIgnored);
        producer.blocked = !may;
        if !may {
            return self.reach(Branch::ProducerHeld);
        }
        let number = producer.next;
        producer.next += 1;
        let mut failed = None;
        self.answer_with(end, |session| {
            failed = session
                .item(RequestId(request), |out: &mut bytes::BytesMut| codec::encode_into(&Item { op, number }, out))
                .err();
        });
        if let Some(error) = failed {
            self.reach(Branch::StreamRefused);
            return self.stream_ends(end, request, error);
        }
        self.fact(Fact::ItemSent { op, number });
        let pause = plan.work / Time::from(plan.items.max(1)) + self.random.below(MS);
        self.plan(self.now + pause, Event::Produce(end, request));
    }

    /// The stream is cut off.
    pub(super) fn stream_ends(&mut self, end: EndId, request: u64, error: CallError) {
        if let Some(producer) = self.producers.remove(&(end, request)) {
            self.give_up_job(producer.life, producer.actor, producer.job, error);
        }
    }

    /// A connection is over, and with it its streams.
    pub(super) fn streams_over(&mut self, end: EndId) {
        let of_end: Vec<u64> =
            self.producers.range((end, 0)..=(end, u64::MAX)).map(|((_, request), _)| *request).collect();
        for request in of_end {
            self.stream_ends(end, request, CallError::Cancelled { started: true });
        }
    }

    /// The reader has taken items.
    pub(super) fn more_arrives(&mut self, end: EndId, request: RequestId, count: u32) -> Result<(), SessionError> {
        let Some(producer) = self.producers.get_mut(&(end, request.0)) else { return Ok(()) };
        producer.credit.refill(count)?;
        if std::mem::take(&mut producer.blocked) {
            self.plan(self.now, Event::Produce(end, request.0));
        }
        Ok(())
    }

    // The reader.

    pub(super) fn reads(&mut self, op: Op) {
        let window = ItemWindow::new(self.params.stream_window);
        let pace = [0, MS, 10 * MS][usize::from(self.judge.ledger.call(op).plan.message) % 3];
        self.readers.insert(op, Reader { window, waiting: 0, pace, takes: false });
    }

    pub(super) fn item_arrives(&mut self, op: Op, payload: &[u8]) -> Result<(), SessionError> {
        let (Ok(item), Some(reader)) = (codec::decode::<Item>(payload), self.readers.get_mut(&op)) else {
            return Ok(());
        };
        reader.window.on_item()?;
        reader.waiting += 1;
        let (idle, pace) = (!std::mem::replace(&mut reader.takes, true), reader.pace);
        if item.op == op {
            self.fact(Fact::ItemArrived { op, number: item.number });
        }
        if idle {
            self.plan(self.now + pace, Event::Take(op));
        }
        Ok(())
    }

    pub(super) fn take_item(&mut self, op: Op) {
        let Some(reader) = self.readers.get_mut(&op) else { return };
        reader.takes = false;
        if reader.waiting == 0 {
            return;
        }
        reader.waiting -= 1;
        let (more, pace) = (reader.window.on_taken(), reader.pace);
        if reader.waiting > 0 {
            reader.takes = true;
            self.plan(self.now + 1 + pace, Event::Take(op));
        }
        self.fact(Fact::ItemTaken { op });
        if let (Some(count), Some(request), Some(end)) =
            (more, self.requests[op as usize], self.judge.ledger.call(op).end)
        {
            self.answer_with(end, |session| session.more(request, count));
        }
    }
}
