//! The history of every call and of every life: what the oracles judge by.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::fact::{EndId, Fact, LifeId, Op, Skip, Verdict};
use crate::params::{CallParams, Kind, Time};

/// In place of an actor's number: the node itself, over the data lane. Over the control lane it is 0.
pub const DATA_NODE: u64 = u64::MAX;

/// A life of a node.
#[derive(Clone, Debug)]
pub struct LifeEntry {
    /// Which node.
    pub node: u8,
    /// Never comes back.
    pub uid: u64,
    /// When it began.
    pub from: Time,
    /// When it ended.
    pub until: Option<Time>,
}

/// A call, and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it wants.
    pub plan: Arc<CallParams>,
    /// Who calls.
    pub caller: LifeId,
    /// Whom: a life and an actor of it.
    pub target: (LifeId, u64),
    /// When.
    pub issued: Time,
    /// Until when.
    pub deadline: Option<Time>,
    /// The caller's end of the connection over which it goes, if it does.
    pub end: Option<EndId>,
    /// It is no work: a renewal that is sent again and again, or a question that waits for what may never be.
    pub background: bool,
    /// It goes ahead of what was asked before it.
    pub ahead: bool,
    /// The session has said that it is on its way.
    pub known_sent: bool,
    /// It stood in line.
    pub in_line: bool,
    /// It was given up while it stood there.
    pub left_line: bool,
    /// It left the session.
    pub wired: Option<Time>,
    /// It came to the target's node so often, the last time with this deadline.
    pub arrived: u32,
    /// The receiver's view of its deadline.
    pub deadline_there: Option<Time>,
    /// A handler began so often.
    pub started: u32,
    /// When.
    pub started_at: Option<Time>,
    /// The handler ended.
    pub finished: bool,
    /// It was not handled.
    pub skipped: Option<Skip>,
    /// The receiver knows that it was given up.
    pub cancel_arrived: Option<Time>,
    /// How it ended for the caller, and when.
    pub verdict: Option<(Time, Verdict)>,
}

impl Entry {
    /// A call that was made just now, at `issued`, and has gone nowhere yet.
    pub fn issued(
        plan: &Arc<CallParams>,
        caller: LifeId,
        target: (LifeId, u64),
        issued: Time,
        deadline: Option<Time>,
    ) -> Self {
        Entry {
            plan: Arc::clone(plan),
            caller,
            target,
            issued,
            deadline,
            end: None,
            background: false,
            ahead: false,
            known_sent: false,
            in_line: false,
            left_line: false,
            wired: None,
            arrived: 0,
            deadline_there: None,
            started: 0,
            started_at: None,
            finished: false,
            skipped: None,
            cancel_arrived: None,
            verdict: None,
        }
    }

    /// True if it goes to the node itself, not to an actor.
    pub fn is_to_node(&self) -> bool {
        matches!(self.target.1, 0 | DATA_NODE)
    }

    /// True if it wants an answer.
    pub fn is_ask(&self) -> bool {
        self.plan.kind != Kind::Tell
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Lives, by number.
    pub lives: Vec<LifeEntry>,
    /// Calls, by number.
    pub calls: Vec<Entry>,
    /// Calls without a verdict that are owed one.
    pub open: BTreeSet<Op>,
    /// Ends of connections on which something was forged, and their other ends.
    pub tainted: BTreeSet<EndId>,
}

impl Ledger {
    /// The entry of `op`.
    pub fn call(&self, op: Op) -> &Entry {
        &self.calls[op as usize]
    }

    /// True if what happened to `op` says nothing, since its connection carried forged frames.
    pub fn is_tainted(&self, op: Op) -> bool {
        self.call(op).end.is_some_and(|end| self.tainted.contains(&end))
    }

    /// Calls that must still get an outcome. After forged bytes a receiver may wait for the rest of a frame that nobody
    /// sends: only deadlines help there.
    pub fn owed(&self) -> impl Iterator<Item = Op> + '_ {
        let owed = |op: &Op| !self.call(*op).background && (self.call(*op).deadline.is_some() || !self.is_tainted(*op));
        self.open.iter().copied().filter(owed)
    }

    /// The life with this uid.
    pub fn life_of(&self, uid: u64) -> Option<LifeId> {
        self.lives.iter().position(|life| life.uid == uid).map(|life| life as LifeId)
    }

    /// Writes a fact down.
    pub fn apply(&mut self, fact: &Fact, now: Time) {
        match *fact {
            Fact::NodeUp { node, uid, .. } => self.lives.push(LifeEntry { node, uid, from: now, until: None }),
            Fact::NodeDown { life, .. } => self.lives[life as usize].until = Some(now),
            Fact::Forged { end } => {
                self.tainted.insert(end);
                self.tainted.insert(end ^ 1);
            }
            Fact::Issued { op } if self.call(op).is_ask() => {
                self.open.insert(op);
            }
            Fact::Queued { op, .. } => self.calls[op as usize].known_sent = true,
            Fact::InLine { op, .. } => {
                self.calls[op as usize].in_line = true;
                self.open.insert(op);
            }
            Fact::LeftLine { op } => self.calls[op as usize].left_line = true,
            Fact::Wired { op, .. } => self.calls[op as usize].wired = Some(now),
            Fact::Arrived { op, deadline, .. } => {
                let call = &mut self.calls[op as usize];
                call.arrived += 1;
                call.deadline_there = deadline;
            }
            Fact::Started { op, .. } => {
                let call = &mut self.calls[op as usize];
                call.started += 1;
                call.started_at = Some(now);
            }
            Fact::Finished { op } => self.calls[op as usize].finished = true,
            Fact::Skipped { op, why } => self.calls[op as usize].skipped = Some(why),
            Fact::CancelArrived { op } => {
                self.calls[op as usize].cancel_arrived.get_or_insert(now);
            }
            Fact::Resolved { op, verdict } => {
                self.open.remove(&op);
                let call = &mut self.calls[op as usize];
                call.known_sent |= verdict == Verdict::Accepted;
                call.verdict.get_or_insert((now, verdict));
            }
            _ => {}
        }
    }
}
