//! Bugs that can be switched on, one at a time, to see that the simulator's oracles find them.
//!
//! Without the feature `planted`, which nothing but the simulator's own feature of that name turns on, [`is`] is plainly
//! false and the compiler removes what depends on it.

macro_rules! bugs {
    ($($bug:ident: $name:literal, $text:literal;)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Bug { $($bug,)* }

        /// Every bug: its name, and what it does.
        pub const BUGS: &[(Bug, &str, &str)] = &[$((Bug::$bug, $name, $text),)*];
    };
}

bugs! {
    CreditLeaked: "credit-leaked", "of credit that comes back for several messages, one is lost";
    CreditIgnored: "credit-ignored", "a sender without credit sends all the same";
    WindowIgnored: "window-ignored", "the byte window does not hold senders back";
    StaleAccepted: "stale-accepted", "a handshake for an earlier life is accepted";
    ReplayAccepted: "replay-accepted", "a handshake is accepted a second time";
    SpoofAccepted: "spoof-accepted", "the hello may name another node than the one that was proven";
    LateReplyDelivered: "late-reply-delivered", "a late reply goes to the next ask in its slot";
    LineOvertaken: "line-overtaken", "the second in line overtakes the first";
    TellInLineLost: "tell-in-line-lost", "a tell that stood in line is accepted and not sent";
    DeadFrameSent: "dead-frame-sent", "an ask that ended in line is sent all the same";
    BudgetStale: "budget-stale", "time spent in line is not taken from the time left";
    PendingForgotten: "pending-forgotten", "the end of a session does not fail its pending asks";
    SentFlagWrong: "sent-flag-wrong", "the end of a session says of sent asks that they were not sent";
    DownUnnoticed: "down-unnoticed", "a silent peer is never noticed";
    WrittenForgotten: "written-forgotten", "of what is written, a byte is forgotten now and then";
    DefineSkipped: "define-skipped", "a message type is used before it is introduced";
    LargeOvertaken: "large-overtaken", "a small message overtakes a large one that is half sent";
    FragmentLost: "fragment-lost", "a fragment in the middle of a large message is not sent";
    FragmentsKept: "fragments-kept", "a large message that was given up half-way keeps its credit";
    ExpiredRun: "expired-run", "expired work is started";
    CancelIgnored: "cancel-ignored", "cancelled work is started";
    RestartLosesMail: "restart-loses-mail", "a restart loses queued mail";
    StopForgetsMail: "stop-forgets-mail", "the end of an actor does not answer its queued mail";
    MarginForgotten: "margin-forgotten", "the head hands names on when the lease is over, without the margin";
    NameFreedEarly: "name-freed-early", "the head hands names on when it loses the connection to their node";
    FenceRepeated: "fence-repeated", "a name is handed on under the token of the one before";
    RepeatDone: "repeat-done", "a repeated request to the head is done again";
    EndedStaysMember: "ended-stays-member", "an actor that has ended stays in its groups";
    LeaseFromAnswer: "lease-from-answer", "a lease counts from the answer, not from the question";
    LeaseIgnored: "lease-ignored", "a named actor acts although its node's lease is over";
    ViewKept: "view-kept", "a node keeps its first view of a group";
    MonitorLost: "monitor-lost", "a monitor that comes after its actor's end is never told";
    DownTwice: "down-twice", "a monitor that has told of an end tells of the node's loss, too";
    HalfLink: "half-link", "the second link of an actor does not get into the table";
    LinkKept: "link-kept", "the loss of a node ends only one link with it";
    ItemCreditLeaked: "item-credit-leaked", "of credit that comes back for several items, one is lost";
    ItemCreditIgnored: "item-credit-ignored", "a producer without credit sends its items all the same";
    StopOrderWrong: "stop-order-wrong", "a supervisor stops its children in the order of their start";
    BudgetEndless: "budget-endless", "failures are forgotten, so a supervisor restarts for ever";
    BackoffForgotten: "backoff-forgotten", "every restart comes as soon as the first";
    SiblingsKept: "siblings-kept", "a failure restarts nobody but the one that failed";
    NodeDownEarly: "node-down-early", "the head takes a node for dead as soon as it suspects it";
    GoneForgotten: "gone-forgotten", "a node that is over may come back under its uid";
    WorkerTwice: "worker-twice", "a worker is started again before the one before it was reaped";
    OldIsNews: "old-is-news", "the head takes a copy of an old heartbeat or registration for news";
    JobTwice: "job-twice", "a repeated request begins a second job";
    AckOffByOne: "ack-off-by-one", "a reader acknowledges a byte more than it has";
    ResumedTwice: "resumed-twice", "after a reconnect also what the peer has comes again";
    ResumeSkips: "resume-skips", "after a reconnect what was cut off is not sent again";
    ResumeReordered: "resume-reordered", "after a reconnect the newest goes first";
    QuarantineIgnored: "quarantine-ignored", "a session goes on that its peer has given up";
    MuteUnnoticed: "mute-unnoticed", "a connection that carries nothing any more is not asked";
    MuteGivenUp: "mute-given-up", "a peer whose thread is at work is given up";
    IsolatedKept: "isolated-kept", "the process of a lease that was given back goes on";
    LeaseUnwritten: "lease-unwritten", "the head gives a lease and does not write it down";
    NameHeldTwice: "name-held-twice", "the names of a keeper that is about to end are free at once";
    NameUnwritten: "name-unwritten", "the head gives a name and does not write it down";
    NameKept: "name-kept", "of a name that is given back the head forgets only the record";
    KeeperCutShort: "keeper-cut-short", "a keeper ends although it keeps actors";
    IsolatedRoomEarly: "isolated-room-early", "what an isolated lease had is free before its process has ended";
    IsolatedRoomLost: "isolated-room-lost", "what an isolated lease had stays taken";
    IsolatedUncounted: "isolated-uncounted", "a node takes any number of isolated workers";
    NodeForgotten: "node-forgotten", "a node that was away while the head was is taken for dead at once";
    AnsweredTwice: "answered-twice", "an ask that has ended takes another answer";
    DrainCuts: "drain-cuts", "the news that a node drains fails what is under way to it";
    DrainIgnored: "drain-ignored", "a node that has said that it drains is sent new calls";
    NeighbourHeld: "neighbour-held", "while one actor's messages stand in line, so do those for its neighbours";
    StreamLooksWhole: "stream-looks-whole", "a stream whose node is lost looks like one that has ended";
    ProducerKept: "producer-kept", "a producer goes on although its reader has gone";
    ExitUntold: "exit-untold", "the end of an actor is not told to other nodes' actors that are linked with it";
    TokenUnspent: "token-unspent", "a use of a token is not counted";
    TokenOverTaken: "token-over-taken", "a token is taken after its time";
    TokenAnyRole: "token-any-role", "a token gives any role";
    TokenUnsigned: "token-unsigned", "a request is taken that the token's holder did not sign";
    TokenKept: "token-kept", "a token that was taken back is still accepted";
    OldListAdopted: "old-list-adopted", "an older list of those cut off replaces a newer one";
    CutForgotten: "cut-forgotten", "of several that are cut off at once, one keeps its connections";
    CutTooShort: "cut-too-short", "a life is let in again while its certificate lasts";
    ReturnedTwice: "returned-twice", "a life that has come back as another comes back again";
}

/// Those of the head, which its own world finds.
pub const HEAD_BUGS: &[Bug] = &[
    Bug::NodeDownEarly,
    Bug::GoneForgotten,
    Bug::OldIsNews,
    Bug::WorkerTwice,
    Bug::JobTwice,
    Bug::IsolatedKept,
    Bug::LeaseUnwritten,
    Bug::NodeForgotten,
    Bug::NameHeldTwice,
    Bug::NameUnwritten,
    Bug::NameKept,
    Bug::KeeperCutShort,
    Bug::IsolatedRoomEarly,
    Bug::IsolatedRoomLost,
    Bug::IsolatedUncounted,
];

/// Those of what nodes do around the decisions, which only whole nodes show.
pub const NODE_BUGS: &[Bug] = &[Bug::StreamLooksWhole, Bug::ProducerKept, Bug::ExitUntold];

/// Those of tokens and revocations, which the world of identities finds.
pub const IDENTITY_BUGS: &[Bug] = &[
    Bug::TokenUnspent,
    Bug::TokenOverTaken,
    Bug::TokenAnyRole,
    Bug::TokenUnsigned,
    Bug::TokenKept,
    Bug::OldListAdopted,
    Bug::CutForgotten,
    Bug::CutTooShort,
    Bug::ReturnedTwice,
];

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// Plants a bug in the whole process, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(u8::MAX, |bug| bug as u8), std::sync::atomic::Ordering::Relaxed);
}

/// True if `bug` is planted.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// False: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
