//! What happens in a world, one fact at a time: the trace, its hash, and all that the oracles see.

use std::fmt;

use mobula_core::{CallError, Outcome};

use crate::params::{Intruder, Time};

/// The number of a call in the [ledger](crate::ledger::Ledger); what its message carries.
pub type Op = u32;
/// The number of a life of a node.
pub type LifeId = u32;
/// One end of one connection; the other end is `end ^ 1`.
pub type EndId = u32;

/// Something that happened.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum Fact {
    NodeUp { life: LifeId, node: u8, uid: u64 },
    NodeDown { life: LifeId, silent: bool },
    DrainBegins { life: LifeId },
    DrainHeard { end: EndId },
    DrainEnds { life: LifeId },
    FaultBegins { fault: u16 },
    FaultEnds { fault: u16 },
    Admitted { life: LifeId, target: u64, dialer: u64, intruder: Option<Intruder> },
    Refused { life: LifeId, intruder: Option<Intruder> },
    LinkUp { end: EndId, life: LifeId, peer: u64, proven: u64, control: bool },
    LinkDown { end: EndId, why: Closure },
    PeerLost { life: LifeId, peer: u64 },
    Broken { end: EndId, why: Closure },
    Resumed { end: EndId },
    Forged { end: EndId },
    Issued { op: Op },
    Queued { op: Op, queued_bytes_before: usize },
    InLine { op: Op, window_full: bool },
    LeftLine { op: Op },
    Wired { op: Op, budget_ms: u32, empty_at: Time },
    Arrived { op: Op, life: LifeId, end: Option<EndId>, deadline: Option<Time> },
    Started { op: Op, life: LifeId, actor: u64, generation: u32 },
    Finished { op: Op },
    Skipped { op: Op, why: Skip },
    CancelArrived { op: Op },
    Resolved { op: Op, verdict: Verdict },
    ActorFailed { life: LifeId, actor: u64, mail: u32 },
    ActorBack { life: LifeId, actor: u64, mail: u32 },
    ActorOver { life: LifeId, actor: u64 },
    Fenced { life: LifeId },
    NameGranted { head: LifeId, life: LifeId, actor: u64, name: u8, fence: u64, overlaps: bool },
    NameServed { head: LifeId, life: LifeId, actor: u64, name: u8, fence: u64, leased: bool },
    NameEnded { head: LifeId, life: LifeId, actor: u64 },
    LinkSet { life: LifeId, actor: u64, peer_life: LifeId, peer: u64 },
    LinkGone { life: LifeId, actor: u64, peer_life: LifeId, peer: u64 },
    LinkAsked { life: LifeId, actor: u64, peer_life: LifeId, peer: u64 },
    UnlinkAsked { life: LifeId, actor: u64, peer_life: LifeId, peer: u64 },
    Unlinked { life: LifeId, actor: u64, peer_life: LifeId, peer: u64 },
    ActorEnded { life: LifeId, actor: u64, abnormal: bool, by: Option<(LifeId, u64)> },
    StreamAsked { op: Op },
    ProducerBegins { op: Op },
    ProducerEnds { op: Op },
    ItemSent { op: Op, number: u32 },
    ItemArrived { op: Op, number: u32 },
    ItemTaken { op: Op },
    ChildStarts { life: LifeId, child: u32 },
    ChildRuns { life: LifeId, child: u32 },
    ChildStops { life: LifeId, child: u32 },
    ChildEnds { life: LifeId, child: u32, how: HowEnded },
    SupervisorEnds { life: LifeId, failed: bool },
    MonitorSet { monitor: u32, life: LifeId, target: LifeId, actor: u64 },
    MonitorFired { monitor: u32, news: News },
    MonitorDropped { monitor: u32 },
}

/// What a monitor says of an actor's end.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum News {
    /// How it came to its end.
    Ended,
    /// There was no such actor.
    NoProc,
    /// Its node was lost.
    NoConnection,
}

/// How a life of a supervised child ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum HowEnded {
    /// By a panic.
    Failed,
    /// By its own will, in order.
    Normal,
    /// By somebody's order, but not its supervisor's.
    Ordered,
    /// By its supervisor's order.
    Told,
}

/// Why an end of a connection is over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum Closure {
    Silent {
        heard: Time,
    },
    NoHello,
    Handshake,
    Goodbye,
    Eof,
    CutInFrame,
    Reset,
    OtherLane,
    LostBefore,
    /// It did not come back in time.
    NotRestored,
    /// The peer's process has ended.
    Dead,
    /// The peer lives, and the session cannot go on.
    Quarantined,
    /// By a fault.
    Forgotten,
    /// Another end has its connection, or nobody wants it any more.
    Moved,
    Rule(Rule),
}

/// Which rule the peer broke.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum Rule {
    Frame,
    Credit,
    Hello,
    Spoofed,
    Body,
    Define,
    Undefined,
    Fragment,
    Ack,
    Other,
}

/// Why a message that arrived was not handled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum Skip {
    Expired,
    Cancelled,
    Stopped,
    NoSuchActor,
}

/// How a call ended for its caller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)]
pub enum Verdict {
    /// The reply, which names the call that it answers.
    Replied {
        to: Op,
    },
    HandlerError {
        to: Op,
    },
    Accepted,
    Cancelled,
    /// The caller's node is gone.
    Orphaned,
    Full,
    NoSuchActor,
    Stale,
    Stopped,
    Deadline {
        started: bool,
    },
    CancelledThere {
        started: bool,
    },
    Unreachable {
        sent: bool,
    },
    Quarantined {
        sent: bool,
    },
    Panicked,
    Decode {
        reply: bool,
    },
    /// It cannot be said to this peer.
    Encode {
        reply: bool,
    },
    Other,
}

impl Verdict {
    /// The verdict that an error is.
    pub fn of(error: &CallError) -> Self {
        match *error {
            CallError::Full { .. } => Verdict::Full,
            CallError::NoSuchActor { .. } => Verdict::NoSuchActor,
            CallError::StaleIncarnation { .. } => Verdict::Stale,
            CallError::Stopped => Verdict::Stopped,
            CallError::DeadlineExceeded { started } => Verdict::Deadline { started },
            CallError::Cancelled { started } => Verdict::CancelledThere { started },
            CallError::Unreachable { sent, .. } => Verdict::Unreachable { sent },
            CallError::Quarantined { sent, .. } => Verdict::Quarantined { sent },
            CallError::Panicked { .. } => Verdict::Panicked,
            CallError::Decode { reply, .. } => Verdict::Decode { reply },
            CallError::Encode { reply, .. } => Verdict::Encode { reply },
            _ => Verdict::Other,
        }
    }

    /// What it says about the handler, as [`CallError::outcome`] does.
    pub fn outcome(self) -> Outcome {
        match self {
            Verdict::Replied { .. } | Verdict::HandlerError { .. } | Verdict::Panicked => Outcome::Done,
            Verdict::Decode { reply: true } | Verdict::Encode { reply: true } => Outcome::Done,
            Verdict::Full | Verdict::NoSuchActor | Verdict::Stale | Verdict::Stopped => Outcome::NotStarted,
            Verdict::Decode { reply: false } => Outcome::NotStarted,
            Verdict::Deadline { started: false } | Verdict::CancelledThere { started: false } => Outcome::NotStarted,
            Verdict::Unreachable { sent: false } | Verdict::Quarantined { sent: false } => Outcome::NotSent,
            Verdict::Encode { reply: false } => Outcome::NotSent,
            _ => Outcome::Unknown,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::NodeUp { life, node, uid } => write!(f, "node {node} starts: life {life}, uid {uid:016x}"),
            Fact::NodeDown { life, silent: false } => {
                write!(f, "life {life} ends, and its system closes its connections")
            }
            Fact::NodeDown { life, silent: true } => write!(f, "life {life} ends without a word"),
            Fact::DrainBegins { life } => write!(f, "life {life} says that it is about to end"),
            Fact::DrainHeard { end } => write!(f, "end {end} hears that its peer is about to end"),
            Fact::DrainEnds { life } => write!(f, "life {life} ends in order"),
            Fact::Admitted { life, dialer, intruder, .. } => match intruder {
                None => write!(f, "life {life} admits {dialer:016x}"),
                Some(intruder) => write!(f, "life {life} admits an intruder: {intruder:?}"),
            },
            Fact::Refused { life, intruder } => write!(f, "life {life} refuses a connection of {intruder:?}"),
            Fact::LinkUp { end, life, peer, control, .. } => {
                let lane = if *control { "control" } else { "data" };
                write!(f, "end {end} of life {life} is up: {lane} to {peer:016x}")
            }
            Fact::LinkDown { end, why } => write!(f, "end {end} is down: {why:?}"),
            Fact::PeerLost { life, peer } => write!(f, "life {life} declares {peer:016x} lost"),
            Fact::Wired { op, budget_ms, .. } => write!(f, "#{op} leaves the session, {budget_ms} ms left"),
            Fact::Arrived { op, life, end: Some(end), .. } => write!(f, "#{op} arrives at life {life} by end {end}"),
            Fact::Arrived { op, life, end: None, .. } => write!(f, "#{op} arrives at life {life}"),
            Fact::Started { op, life, actor, generation } => {
                write!(f, "#{op} starts in actor {actor} of life {life}, generation {generation}")
            }
            Fact::Skipped { op, why } => write!(f, "#{op} is not handled: {why:?}"),
            Fact::Resolved { op, verdict } => write!(f, "#{op} ends: {verdict:?} ({:?})", verdict.outcome()),
            Fact::ActorFailed { life, actor, mail } => {
                write!(f, "actor {actor} of life {life} panics, with {mail} messages queued")
            }
            Fact::ActorBack { life, actor, mail } => {
                write!(f, "actor {actor} of life {life} is back, with {mail} messages queued")
            }
            Fact::Fenced { life } => write!(f, "life {life} has lost its lease, and ends itself"),
            Fact::NameGranted { life, actor, name, fence, .. } => {
                write!(f, "name {name} is granted to actor {actor} of life {life}, with token {fence}")
            }
            Fact::NameServed { life, actor, name, fence, .. } => {
                write!(f, "actor {actor} of life {life} acts as name {name}, with token {fence}")
            }
            fact => write!(f, "{fact:?}"),
        }
    }
}
