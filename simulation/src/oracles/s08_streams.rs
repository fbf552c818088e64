//! Section 8 for streams: the items of an answer come all, in order, each once, before its end; no more of them wait than the
//! window has room for, and none comes after the end. Of whole nodes: a producer nobody reads from any more is over in 1 s.

use std::collections::{BTreeMap, BTreeSet};

use super::{Oracle, Rest, View};
use crate::fact::{Fact, Op, Verdict};
use crate::params::{Kind, SECOND};

#[derive(Default)]
pub(super) struct Streams {
    streams: BTreeMap<Op, Stream>,
    /// Those of whole nodes, also within one.
    asked: BTreeSet<Op>,
    producing: BTreeSet<Op>,
}

#[derive(Default)]
struct Stream {
    sent: u32,
    arrived: u32,
    taken: u32,
}

impl Oracle for Streams {
    fn promise(&self) -> &'static str {
        "§8 items come in order, within their window"
    }

    fn fact(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String> {
        match *fact {
            Fact::StreamAsked { op } => _ = self.asked.insert(op),
            Fact::ProducerBegins { op } => _ = self.producing.insert(op),
            Fact::ProducerEnds { op } => _ = self.producing.remove(&op),
            _ => {}
        }
        let (Fact::ItemSent { op, .. }
        | Fact::ItemArrived { op, .. }
        | Fact::ItemTaken { op }
        | Fact::Resolved { op, .. }) = *fact
        else {
            return Ok(());
        };
        let call = view.ledger.call(op);
        let judged = call.end.is_some() || self.asked.contains(&op);
        if call.plan.kind != Kind::Stream || !judged || view.ledger.is_tainted(op) {
            return Ok(());
        }
        let stream = self.streams.entry(op).or_default();
        match *fact {
            Fact::ItemSent { number, .. } => {
                if number != stream.sent {
                    return Err(format!("#{op}: item {number} is sent after {} others", stream.sent));
                }
                stream.sent += 1;
                let under_way = stream.sent - stream.taken;
                if under_way > view.params.stream_window {
                    let may = view.params.stream_window;
                    return Err(format!("#{op}: {under_way} items are under way, at most {may} may be"));
                }
            }
            Fact::ItemArrived { number, .. } => {
                if number != stream.arrived {
                    return Err(format!("#{op}: item {number} comes after {} others", stream.arrived));
                }
                if number >= stream.sent {
                    return Err(format!("#{op}: item {number} comes, and was never sent"));
                }
                if call.verdict.is_some() {
                    return Err(format!("#{op}: item {number} comes after the end"));
                }
                stream.arrived += 1;
            }
            Fact::ItemTaken { .. } => stream.taken += 1,
            Fact::Resolved { verdict: Verdict::Replied { .. }, .. } if stream.arrived != u32::from(call.plan.items) => {
                return Err(format!("#{op} ends after {} of {} items", stream.arrived, call.plan.items));
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self, _: &Rest, view: &View<'_>) -> Result<(), String> {
        for op in &self.producing {
            let call = view.ledger.call(*op);
            let up = view.ledger.lives[call.target.0 as usize].until.is_none();
            if let Some((at, verdict)) = call.verdict
                && up
                && at + SECOND < view.now
            {
                return Err(format!("#{op} ended {verdict:?} at {at}, and its producer goes on"));
            }
        }
        Ok(())
    }
}
