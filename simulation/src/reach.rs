//! Rare branches, counted: a long run that never takes one proves nothing about it, and fails.

use std::marker::PhantomData;

/// The rare branches of a kind of worlds.
pub trait Branches: Copy {
    /// What they are, in order.
    const TEXTS: &'static [&'static str];

    /// Which of them this is.
    fn number(self) -> usize;
}

macro_rules! branches {
    ($name:ident; $($branch:ident: $text:literal,)*) => {
        /// A branch that enough seeds have to take.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(missing_docs)]
        pub enum $name { $($branch,)* }

        impl $crate::reach::Branches for $name {
            const TEXTS: &'static [&'static str] = &[$($text,)*];

            fn number(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use branches;

branches! {
    Branch;
    AskReplied: "an ask between nodes is replied to",
    AskLocal: "an ask within a node",
    HandlerError: "a handler returns an error",
    Nested: "a handler asks through a third node",
    StoodInLine: "a message stands in line",
    TellFromLine: "a tell that stood in line is accepted",
    ExpiredInLine: "a message expires in line",
    CancelledInLine: "an ask is cancelled in line",
    CancelArrived: "a cancel reaches the receiver",
    CancelSkips: "queued work is skipped, since cancelled",
    ExpiredAtStart: "queued work is skipped, since expired",
    LateReply: "a reply comes after its deadline",
    DeadlineRemote: "an ask between nodes runs out of time",
    DeadlineLocal: "an ask within a node runs out of time",
    NoSuchActor: "a message to an actor that is gone",
    Stopped: "a message in the mailbox of an actor that stops",
    Panicked: "a handler panics",
    MailKept: "an actor restarts with mail in its box",
    GaveUp: "an actor uses its restarts up",
    LineOfMailbox: "a local tell waits for room in the mailbox",
    StaleReference: "a reference to an earlier life",
    UnreachableSent: "a sent ask fails with its link",
    UnreachableUnsent: "an ask in line fails with its link",
    Silent: "a peer falls silent",
    NoHello: "a hello does not come in time",
    HandshakeLate: "a handshake does not end in time",
    Goodbye: "a goodbye arrives",
    CutInFrame: "a connection ends within a frame",
    Reset: "a connection is reset",
    SocketFull: "a socket takes no more",
    OlderVersion: "a connection in an older version of the protocol",
    SentInFragments: "a large message goes in fragments",
    HalfSentGivenUp: "a large message is given up half-way",
    WindowFull: "the byte window is full",
    NodeRestarted: "a node comes back as another life",
    Drained: "a node drains and ends in order",
    TurnedAway: "a call to a node that drains comes back unsent",
    FinishedInDrain: "a node that drains answers what it has",
    SilentCrash: "a machine dies without a word",
    Paused: "a node pauses and goes on",
    OneWayCut: "a one-way cut is noticed by both",
    ReplayRefused: "a replayed handshake is refused",
    StaleRefused: "a handshake for an earlier life is refused",
    StrangerRefused: "a stranger is refused",
    SpoofRefused: "a hello under another's name is refused",
    VersionRefused: "a handshake without a common version",
    ForgedRefused: "forged bytes end a connection",
    ForgedSurvived: "forged bytes are taken for a message",
    SpawnedAfar: "an actor is made by another node",
    StoppedAfar: "an actor is stopped by another node",
    TurnUsedUp: "an actor yields after a full turn",
    NameTaken: "a name is refused, since it is taken",
    NameHandedOn: "a name is handed on to another actor",
    NameExpired: "a name is free, since its holder's lease is over",
    RequestRepeated: "a request to the head comes again, after its effect has ended",
    RenewalRefused: "the head renews a lease no more",
    FencedOff: "a node without a lease ends itself",
    ActedAfterLease: "a named actor finds its node's lease over",
    Reaped: "the head reaps a process",
    FoundByName: "an actor is found by name or key",
    KeyedAfar: "a keyed actor belongs to another node",
    GroupNews: "a node hears of a group's members",
    MonitorFired: "a monitor tells of an end",
    MonitorUnreached: "a monitor tells that nobody is there, or that the node is lost",
    MonitorOfNobody: "a monitor comes after its actor's end",
    Unlinked: "a link between nodes is taken away",
    LinkWithNobody: "a link reaches an actor that has ended",
    EndedByLink: "an actor ends by the end of another",
    LinkLost: "an actor ends by the loss of another's node",
    ClockJumped: "a clock jumps",
    ProducerHeld: "a producer waits for its reader",
    StreamRefused: "a stream is refused by an older version of the protocol",
    StreamGivenUp: "a stream is given up half-way",
    SiblingStopped: "a supervisor stops a child",
    ChildKilled: "a child that does not stop is killed",
    ChildAbandoned: "a child that does not die is given up",
    SupervisorEnded: "a supervisor gives up",
    CameBack: "a session goes on over another connection",
    ResumeRefused: "a session cannot go on, for the peer has given it up",
    NotRestored: "a connection is not restored in time",
    MuteReplaced: "a mute connection is replaced",
    LookedInVain: "a peer that is looked for beside its connection takes up no other",
    AttemptOvertaken: "an attempt to come back is overtaken by the next",
    Probed: "whoever accepted asks whether its dialer lives",
    Acked: "what was written is acknowledged",
    KeptFull: "as much is kept for the peer as may be",
}

/// How often each branch was taken.
#[derive(Clone, Debug)]
pub struct Reached<B = Branch>(Vec<u64>, PhantomData<B>);

impl<B: Branches> Default for Reached<B> {
    fn default() -> Self {
        Reached(vec![0; B::TEXTS.len()], PhantomData)
    }
}

impl<B: Branches> Reached<B> {
    /// `branch` is taken.
    pub fn reach(&mut self, branch: B) {
        self.0[branch.number()] += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// Branches that were never taken.
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts().filter(|(_, count)| *count == 0).map(|(text, _)| text).collect()
    }

    /// All branches with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        B::TEXTS.iter().copied().zip(self.0.iter().copied())
    }
}
