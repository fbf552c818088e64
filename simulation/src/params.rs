//! What a world is made of, drawn from its seed and then explicit, so that a failing world can be made smaller.

use std::sync::Arc;

use mobula_core::{RestartType, Strategy, limits};
use mobula_transport::preface::{VERSIONS, Versions};
use serde::Serialize;

use crate::random::Random;

/// Microseconds since the world began.
pub type Time = u64;

/// One millisecond.
pub const MS: Time = 1000;
/// One second.
pub const SECOND: Time = 1_000_000;

/// A world.
#[derive(Clone, Debug, Serialize)]
pub struct Params {
    /// Decides delays and splits; what happens is listed below.
    pub seed: u64,
    /// Nodes: 1 to 9.
    pub nodes: u8,
    /// The newest version of the protocol that each node speaks.
    pub versions: Vec<u16>,
    /// The actors that each life of a node starts with.
    pub actors: Vec<ActorParams>,
    /// Calls, by time.
    pub calls: Vec<CallParams>,
    /// Faults, by time.
    pub faults: Vec<FaultParams>,
    /// The shortest way between two nodes.
    pub latency: Time,
    /// Added to it at random.
    pub jitter: Time,
    /// Messages that a node takes for one actor.
    pub credit_messages: u32,
    /// Bytes queued towards one peer before senders wait.
    pub send_window_bytes: usize,
    /// Larger frames go in fragments of this size.
    pub fragment_bytes: usize,
    /// Bytes that a connection holds in each direction.
    pub socket_bytes: usize,
    /// The interval of heartbeats.
    pub heartbeat: Time,
    /// Silence after which a peer is down.
    pub down_after: Time,
    /// Time for handshake and hello.
    pub handshake: Time,
    /// Restarts of one actor within 10 s.
    pub restarts_max: u32,
    /// Actors are monitored and linked; there are names as well if [`services`](Self::services) says so.
    pub watched: bool,
    /// Node 0 keeps a directory of names and groups, where the others hold leases.
    pub services: bool,
    /// Items of one stream that may be under way.
    pub stream_window: u32,
    /// A supervisor has the actors that each life starts with; none: each is its own.
    pub supervised: Option<Supervised>,
    /// How long a lease lasts.
    pub lease: Time,
    /// Bytes that are kept for a peer until it has acknowledged them.
    pub resume_bytes: usize,
    /// Whoever accepted a connection does not know where its dialer listens.
    pub blind: bool,
    /// How much faster each node's clock runs, in parts per million.
    pub clocks_ppm: Vec<i32>,
}

/// A supervisor of the first actors of each life.
#[derive(Clone, Debug, Serialize)]
pub struct Supervised {
    /// Who is restarted when one of them fails.
    pub strategy: Strategy,
    /// After which ends each begins again.
    pub restart: Vec<RestartType>,
}

/// An actor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ActorParams {
    /// One message after the other, or many at a time.
    pub serial: bool,
    /// Its mailbox.
    pub capacity: usize,
}

/// What a call wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Kind {
    /// An answer.
    Ask,
    /// None.
    Tell,
    /// A new actor, from the node itself.
    Spawn,
    /// The end of the actor, from the node itself.
    Stop,
    /// To be told when the actor ends.
    Monitor,
    /// That an actor of the caller ends with the target, and the other way round.
    Link,
    /// That it does so no more.
    Unlink,
    /// A new actor of the caller's, under a name.
    Claim,
    /// An answer of whoever bears a name.
    Named,
    /// An answer of the actor that a key belongs to.
    Keyed,
    /// An actor of the caller in a group.
    Join,
    /// The same out of it.
    Leave,
    /// Answers of many items.
    Stream,
    /// Something of a node itself; never drawn.
    Control,
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Ending {
    /// With a reply.
    Reply,
    /// With an error of its own.
    Error,
    /// With a panic.
    Panic,
    /// With a reply, and its actor stops.
    Stop,
    /// With a reply that comes after the deadline.
    Late,
}

/// A call, or a burst of equal ones.
#[derive(Clone, Debug, Serialize)]
pub struct CallParams {
    /// When.
    pub at: Time,
    /// The calling node.
    pub caller: u8,
    /// The called node.
    pub target: u8,
    /// The place of the actor among those of its node.
    pub actor: u8,
    /// Calls the actor of an earlier life, if there was one.
    pub stale: bool,
    /// What is wanted.
    pub kind: Kind,
    /// Which of three message types.
    pub message: u8,
    /// Time until nobody waits.
    pub deadline: Option<Time>,
    /// Length of the message.
    pub padding: u16,
    /// How long the handler takes.
    pub work: Time,
    /// How it ends.
    pub ending: Ending,
    /// What the handler asks others for.
    pub nested: Vec<Arc<CallParams>>,
    /// The caller gives up after this.
    pub cancel_after: Option<Time>,
    /// How many of them.
    pub burst: u16,
    /// How many items a stream has.
    pub items: u16,
    /// A request to the head is sent a second time.
    pub repeat: bool,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FaultParams {
    /// When it begins.
    pub at: Time,
    /// When it is over.
    pub until: Time,
    /// What it is.
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[allow(missing_docs)]
pub enum Fault {
    /// A node dies; it comes back as another life when the fault ends. `silent`: its machine dies, so no connection is
    /// closed.
    Crash { node: u8, silent: bool },
    /// A node does nothing.
    Pause { node: u8 },
    /// Each thing a node does comes up to so much later.
    Slow { node: u8, by: Time },
    /// No byte passes from `a` to `b`, nor back unless `one_way`. `lossy`: connections that sent any are reset.
    Cut { a: u8, b: u8, one_way: bool, lossy: bool },
    /// The connection of the lane is reset after so many further bytes from `a` to `b`.
    Reset { a: u8, b: u8, control: bool, bytes: u16 },
    /// The connection of the lane delivers nothing from `a` to `b`.
    Stall { a: u8, b: u8, control: bool },
    /// Bytes from `a` to `b` take up to so much longer.
    Delay { a: u8, b: u8, by: Time },
    /// `a` sends what it should not to `b` on the lane.
    Forge { a: u8, b: u8, control: bool, forgery: Forgery },
    /// The clock of a node jumps ahead by so much.
    Jump { node: u8, by: Time },
    /// As [`Cut`](Self::Cut) in both directions, off and on again each so often.
    Flap { a: u8, b: u8, each: Time },
    /// The data connection carries nothing from `a` to `b` any more, for ever, if it has a way back.
    Mute { a: u8, b: u8 },
    /// `b` ends its session of the lane with `a`, which hears no word of that.
    Forget { a: u8, b: u8, control: bool },
    /// The threads of a node's actors are at work: they read no connection.
    Busy { node: u8 },
    /// Somebody dials `b` who should not.
    Dial { b: u8, intruder: Intruder },
    /// A node says that it is about to end, finishes what it has, ends in order, and comes back as another life.
    Drain { node: u8 },
}

/// What is sent on a proven connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[allow(missing_docs)]
pub enum Forgery {
    Noise,
    HugeLength,
    /// The last frames once more.
    Replay,
    /// A frame that is well-formed and means nothing good.
    Frame,
    /// The last frames with a flipped bit.
    Flip,
}

/// Who dials.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[allow(missing_docs)]
pub enum Intruder {
    /// Somebody without the secret.
    Stranger,
    /// Somebody who recorded a handshake with this node, perhaps with an earlier life.
    Replayer,
    /// A node that wants an earlier life.
    Stale,
    /// A node with other versions.
    Version,
    /// A node that says hello under another's name.
    Spoofer,
    /// A node that never says anything.
    Mute,
}

/// The work of all calls together; what is queued when the faults end has to be done within 30 s.
const WORK_MAX: Time = 12 * SECOND;

impl Params {
    /// What `node` speaks.
    pub fn versions_of(&self, node: u8) -> Versions {
        Versions { max: self.versions[usize::from(node)], ..VERSIONS }
    }

    /// The world of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let nodes = r.pick(&[1, 2, 2, 2, 2, 3, 3, 3, 4, 5, 5, 7, 9]);
        let duration = r.between(1, 12) * SECOND + r.pick(&[0, 0, 0, 0, 0, 25]) * SECOND;
        let heartbeat = r.pick(&[100, 500, 500, 500, 1000]) * MS;
        let down_after = match r.below(3) {
            0 => limits::DOWN_AFTER.as_micros() as Time,
            _ => heartbeat * r.between(4, 12),
        };
        let actor = |r: &mut Random| ActorParams { serial: !r.one_in(3), capacity: r.pick(&[1, 2, 16, 1024]) };
        let actors = (0..r.between(1, 4)).map(|_| actor(r)).collect();
        let mut params = Params {
            seed: r.bits(),
            nodes,
            versions: (0..nodes).map(|_| if r.one_in(4) { VERSIONS.min } else { VERSIONS.max }).collect(),
            actors,
            calls: Vec::new(),
            faults: Vec::new(),
            latency: r.between(20, 1500),
            jitter: r.pick(&[0, 100, 5000]),
            credit_messages: r.pick(&[1, 2, 3, 8, 16, 64, 1024]),
            send_window_bytes: r.pick(&[200, 2000, 20_000, 1 << 20]),
            fragment_bytes: r.pick(&[90, 300, limits::FRAGMENT_BYTES]),
            socket_bytes: r.pick(&[64, 600, 4000, 65_536, 65_536]),
            heartbeat,
            down_after,
            handshake: r.pick(&[1, 5, 5]) * SECOND,
            restarts_max: r.pick(&[0, 1, 3, 5]),
            watched: !r.one_in(4),
            services: false,
            stream_window: r.pick(&[1, 2, 8, limits::STREAM_WINDOW_ITEMS]),
            supervised: None,
            lease: r.pick(&[1, 2, 4, 8]) * SECOND,
            // Not less than what is acknowledged at once.
            resume_bytes: r.pick(&[140_000, limits::RESUME_BYTES_MAX]),
            blind: r.one_in(3),
            clocks_ppm: Vec::new(),
        };
        params.services = params.watched && r.one_in(2);
        if params.watched && r.one_in(3) {
            params.supervised = Some(params.draw_supervised(r));
        }
        let spread = r.pick(&[0, 0, 10_000, 50_000]);
        params.clocks_ppm = (0..nodes).map(|_| r.between(0, 2 * spread) as i32 - spread as i32).collect();
        // A byte or two at a time has its price; the world has to come to an end.
        if params.socket_bytes == 64 {
            params.latency = params.latency.min(200);
            params.jitter = params.jitter.min(100);
        }
        let mut work_left = WORK_MAX;
        let theme = r.below(6);
        for _ in 0..r.pick(&[3, 10, 30, 60, 120]) {
            let mut call = params.draw_call(r, duration, theme, 0);
            if call.work * Time::from(call.burst) > work_left {
                call.work = 0;
            }
            work_left -= call.work * Time::from(call.burst);
            params.calls.push(call);
        }
        params.calls.sort_by_key(|call| call.at);
        for _ in 0..r.pick(&[0, 1, 1, 2, 3, 5, 8]) {
            let fault = params.draw_fault(r, duration);
            params.faults.push(fault);
            if let Fault::Crash { node, .. } = fault.fault
                && r.one_in(3)
            {
                let at = fault.until + r.below(SECOND);
                let fault = Fault::Dial { b: node, intruder: r.pick(&[Intruder::Stale, Intruder::Replayer]) };
                params.faults.push(FaultParams { at, until: at, fault });
            }
        }
        params.faults.sort_by_key(|fault| fault.at);
        params.claim_what_is_cut_off(r);
        params.run_leases_out(r, duration);
        params.link_what_ends(r);
        if r.one_in(6) {
            params.drain(r, duration);
        }
        params.calls.sort_by_key(|call| call.at);
        params.faults.sort_by_key(|fault| fault.at);
        params
    }

    /// Where a node is cut off from the head for about a lease, others want its names just then.
    pub(crate) fn claim_what_is_cut_off(&mut self, r: &mut Random) {
        let cut_off = |fault: &FaultParams| match fault.fault {
            Fault::Cut { a, b: 0, .. } if fault.until - fault.at >= self.lease => Some((fault.at, a)),
            _ => None,
        };
        let cuts: Vec<_> = self.faults.iter().filter(|_| self.services).filter_map(cut_off).collect();
        for (at, node) in cuts {
            for message in 0..3 {
                let claim = |at, caller| CallParams { at, caller, message, ..CallParams::plain(Kind::Claim) };
                self.calls.push(claim(at.saturating_sub(r.below(SECOND)), node));
                for _ in 0..3 {
                    self.calls.push(claim(at + self.lease + r.below(self.lease / 2), self.node(r)));
                }
            }
        }
    }

    /// Where there are names: one node's lease runs out while actors there act under names that nobody else wants.
    fn run_leases_out(&mut self, r: &mut Random, duration: Time) {
        if !self.services || self.nodes == 1 || !r.one_in(3) {
            return;
        }
        let node = r.between(1, u64::from(self.nodes) - 1) as u8;
        let at = self.lease + SECOND + r.below(duration);
        let first = r.between(3, 12) as u8;
        for message in first..first + 3 {
            let at = at - self.lease - r.below(SECOND);
            self.calls.push(CallParams { at, caller: node, message, ..CallParams::plain(Kind::Claim) });
        }
        let mut add = |at, long, fault| self.faults.push(FaultParams { at, until: at + long, fault });
        // By a clock that runs a twentieth slow the lease lasts that much longer.
        let long = self.lease + self.lease / 8;
        match r.below(4) {
            // Who goes on after a pause may act before it looks at its lease.
            0 => add(at, long + r.below(self.lease / 4), Fault::Pause { node }),
            1 => add(at, 0, Fault::Jump { node, by: long }),
            // The last answers of the head are late, so they say little of what is left.
            _ => {
                let by = (self.lease / 2).min(self.down_after * 3 / 4);
                add(at - self.lease, 2 * self.lease + by, Fault::Delay { a: 0, b: node, by });
                add(at, 2 * self.lease, Fault::Cut { a: node, b: 0, one_way: true, lossy: false });
            }
        }
    }

    /// A node drains, while others ask it for something that takes a while. In half of the worlds nothing else goes wrong.
    fn drain(&mut self, r: &mut Random, duration: Time) {
        if r.one_in(2) {
            self.faults.clear();
        }
        let (node, at) = (self.node(r), SECOND / 2 + r.below(duration));
        let until = at + r.between(200 * MS, 6 * SECOND);
        self.faults.push(FaultParams { at, until, fault: Fault::Drain { node } });
        for _ in 0..r.between(1, 4) {
            let at = at.saturating_sub(r.below(400 * MS)) + r.below(100 * MS);
            let ask = CallParams { at, caller: self.node(r), target: node, ..CallParams::plain(Kind::Ask) };
            let (work, burst) = (r.pick(&[1, 20, 150]) * MS, r.between(1, 6) as u16);
            self.calls.push(CallParams { deadline: Some(8 * SECOND), actor: r.below(4) as u8, work, burst, ..ask });
        }
    }

    /// Several actors of one node are linked with actors of another shortly before that is lost.
    fn link_what_ends(&mut self, r: &mut Random) {
        if !self.watched || self.supervised.is_some() || self.actors.len() < 2 || self.nodes == 1 {
            return;
        }
        let down_after = self.down_after + self.heartbeat + SECOND;
        let lost = |fault: &FaultParams| match fault.fault {
            Fault::Crash { node, .. } => Some((fault.at, node)),
            Fault::Cut { a, .. } if fault.until - fault.at > down_after => Some((fault.at, a)),
            _ => None,
        };
        for (at, target) in self.faults.iter().filter_map(lost).collect::<Vec<_>>() {
            let caller = (target + r.between(1, u64::from(self.nodes) - 1) as u8) % self.nodes;
            let at = at.saturating_sub(r.between(20 * MS, 400 * MS));
            for actor in 0..self.actors.len() as u8 {
                let link = CallParams { at, caller, target, actor, message: actor, ..CallParams::plain(Kind::Link) };
                self.calls.push(link);
            }
        }
    }

    /// When the last fault is over and the last call is made.
    pub fn healed_at(&self) -> Time {
        let calls = self.calls.iter().map(|call| call.at);
        let over = |fault: &FaultParams| match fault.fault {
            // What was delayed is under way for so long.
            Fault::Delay { by, .. } => fault.until + by,
            // By then the connection is replaced.
            Fault::Mute { .. } => fault.until.max(fault.at + self.down_after),
            // By then it is back.
            Fault::Drain { .. } => fault.until + SECOND,
            _ => fault.until,
        };
        calls.chain(self.faults.iter().map(over)).max().unwrap_or(0)
    }

    /// How far from the world's the worst clock may run, in parts per million.
    pub fn skew_ppm(&self) -> Time {
        self.clocks_ppm.iter().map(|ppm| Time::from(ppm.unsigned_abs())).max().unwrap_or(0)
    }

    /// How much faster than the world's the fastest clock may run.
    pub fn fast_ppm(&self) -> Time {
        self.clocks_ppm.iter().copied().max().map_or(0, |ppm| ppm.max(0) as Time)
    }

    fn node(&self, r: &mut Random) -> u8 {
        r.below(self.nodes.into()) as u8
    }

    pub(crate) fn draw_call(&self, r: &mut Random, duration: Time, theme: u64, depth: u32) -> CallParams {
        let kind = match r.below(12) {
            0 if depth == 0 => Kind::Spawn,
            1 if depth == 0 && r.one_in(2) => Kind::Stop,
            2..=4 if depth == 0 => Kind::Tell,
            _ => Kind::Ask,
        };
        let kind = if depth == 0 { self.draw_service(r).unwrap_or(kind) } else { kind };
        let single = !matches!(kind, Kind::Ask | Kind::Tell | Kind::Spawn | Kind::Stop);
        let ending = match r.below(16) {
            0 => Ending::Error,
            1 => Ending::Panic,
            2 if r.one_in(4) => Ending::Stop,
            3 => Ending::Late,
            _ => Ending::Reply,
        };
        let deadline = match r.below(6) {
            0 if depth == 0 && ending != Ending::Late => None,
            1 => Some(r.between(0, 20) * MS),
            2 | 3 => Some(r.between(10, 900) * MS),
            _ => Some(r.between(1, 8) * SECOND),
        };
        let ending = if kind == Kind::Stream { Ending::Reply } else { ending };
        let deadline = if kind == Kind::Stream && r.one_in(2) { None } else { deadline };
        let fan = depth < 2 && !single && r.one_in(if theme == 1 { 2 } else { 10 });
        let nested = if fan { r.between(1, 4) } else { 0 };
        let nested: Vec<_> = (0..nested).map(|_| Arc::new(self.draw_call(r, duration, theme, depth + 1))).collect();
        let slow = if theme == 2 { 3 } else { 8 };
        let work = if r.one_in(slow) { r.pick(&[100, 2000, 20_000, 300_000, 2_000_000]) } else { 0 };
        let flood = if theme == 3 { 2 } else { 10 };
        // As much as is kept for a peer, where that is little.
        let longest = if theme == 3 && self.resume_bytes < limits::RESUME_BYTES_MAX { 400 } else { 120 };
        let burst = if depth == 0 && nested.is_empty() && r.one_in(flood) { r.between(2, longest) } else { 1 };
        let burst = if single { burst.min(3) } else { burst };
        CallParams {
            at: r.below(duration),
            caller: self.node(r),
            target: self.node(r),
            actor: if self.watched && r.one_in(4) { r.below(12) as u8 } else { r.below(4) as u8 },
            stale: r.one_in(12),
            kind,
            message: r.below(3) as u8,
            deadline,
            padding: r.pick(&[0, 0, 10, 100, 600]),
            work,
            ending,
            nested,
            cancel_after: (kind != Kind::Tell && r.one_in(8)).then(|| r.pick(&[0, 1, 10, 200, 2000]) * MS),
            burst: burst as u16,
            items: if kind == Kind::Stream { r.pick(&[0, 1, 5, 40, 150]) } else { 0 },
            repeat: self.services && r.one_in(3),
        }
    }

    pub(crate) fn draw_supervised(&self, r: &mut Random) -> Supervised {
        let strategy = r.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]);
        let types = [RestartType::Permanent, RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
        Supervised { strategy, restart: self.actors.iter().map(|_| r.pick(&types)).collect() }
    }

    /// What is not about a message, if this world has it.
    fn draw_service(&self, r: &mut Random) -> Option<Kind> {
        if !self.watched {
            return None;
        }
        Some(match r.below(20) {
            0 => Kind::Monitor,
            1 => Kind::Link,
            2 => Kind::Unlink,
            9 | 10 => Kind::Stream,
            3 | 4 | 11 if self.services => Kind::Claim,
            5 if self.services => Kind::Named,
            6 if self.services => Kind::Keyed,
            7 if self.services => Kind::Join,
            8 if self.services && r.one_in(2) => Kind::Leave,
            _ => return None,
        })
    }

    fn draw_fault(&self, r: &mut Random, duration: Time) -> FaultParams {
        let (a, mut b) = (self.node(r), self.node(r));
        if a == b {
            b = (b + 1) % self.nodes;
        }
        let control = r.one_in(2);
        let at = r.below(duration);
        let long = r.pick(&[50 * MS, 500 * MS, 1900 * MS, 4 * SECOND, 14 * SECOND]);
        let long = r.between(long / 2, long);
        let fault = match r.below(24) {
            // Long enough to be noticed, by whatever clocks.
            23 => {
                let long = (self.down_after + self.heartbeat) * 11 / 10 + SECOND;
                let fault = Fault::Cut { a, b, one_way: r.one_in(2), lossy: false };
                return FaultParams { at, until: at + long, fault };
            }
            16 | 17 => Fault::Reset { a, b, control, bytes: r.below(600) as u16 },
            18 | 19 => Fault::Mute { a, b },
            20 => Fault::Busy { node: a },
            21 if r.one_in(2) => Fault::Forget { a, b, control },
            21 => Fault::Reset { a, b, control, bytes: r.below(3000) as u16 },
            0 | 1 => Fault::Crash { node: a, silent: r.one_in(3) },
            2 | 3 => Fault::Pause { node: a },
            4 => Fault::Slow { node: a, by: r.pick(&[1, 10, 40]) * MS },
            // About as long as a lease: what was said meanwhile comes just before or after its end.
            5 if self.services && a != 0 && r.one_in(2) => {
                let long = self.lease + r.below(self.lease / 10);
                return FaultParams {
                    at,
                    until: at + long,
                    fault: Fault::Cut { a, b: 0, one_way: true, lossy: false },
                };
            }
            5..=7 => Fault::Cut { a, b, one_way: r.one_in(2), lossy: r.one_in(3) },
            8 => Fault::Reset { a, b, control, bytes: r.below(600) as u16 },
            9 => Fault::Stall { a, b, control },
            10 => Fault::Delay { a, b, by: r.pick(&[10 * MS, 400 * MS, 5 * SECOND]) },
            // A peer that lies about its own actors takes their names away.
            11 | 12 if self.services => Fault::Reset { a, b, control, bytes: r.below(600) as u16 },
            13 => Fault::Flap { a, b, each: r.pick(&[20, 200, 1200]) * MS },
            // The head's clock has to be right within the margin of a lease, so only its members' may be wrong.
            14 if a != 0 => Fault::Jump { node: a, by: r.pick(&[10 * MS, SECOND, 7 * SECOND]) },
            11 | 12 => {
                let kinds = [
                    Forgery::Noise,
                    Forgery::HugeLength,
                    Forgery::Replay,
                    Forgery::Frame,
                    Forgery::Frame,
                    Forgery::Flip,
                ];
                Fault::Forge { a, b, control, forgery: r.pick(&kinds) }
            }
            _ => {
                let intruders = [
                    Intruder::Stranger,
                    Intruder::Replayer,
                    Intruder::Replayer,
                    Intruder::Replayer,
                    Intruder::Stale,
                    Intruder::Version,
                    Intruder::Spoofer,
                    Intruder::Mute,
                ];
                Fault::Dial { b: a, intruder: r.pick(&intruders) }
            }
        };
        FaultParams { at, until: at + long, fault }
    }
}

impl Fault {
    /// True if it is about `node`.
    pub fn touches(&self, node: u8) -> bool {
        match *self {
            Fault::Crash { node: n, .. } | Fault::Pause { node: n } => n == node,
            Fault::Slow { node: n, .. } | Fault::Jump { node: n, .. } | Fault::Busy { node: n } => n == node,
            Fault::Dial { b, .. } => b == node,
            Fault::Drain { node: n } => n == node,
            Fault::Cut { a, b, .. }
            | Fault::Flap { a, b, .. }
            | Fault::Reset { a, b, .. }
            | Fault::Stall { a, b, .. }
            | Fault::Mute { a, b }
            | Fault::Forget { a, b, .. }
            | Fault::Delay { a, b, .. }
            | Fault::Forge { a, b, .. } => a == node || b == node,
        }
    }
}

impl CallParams {
    /// A call of node 0 to the first actor there, or for the first name, at the beginning.
    pub(crate) fn plain(kind: Kind) -> Self {
        CallParams {
            at: 0,
            caller: 0,
            target: 0,
            actor: 0,
            stale: false,
            kind,
            message: 0,
            deadline: None,
            padding: 0,
            work: 0,
            ending: Ending::Reply,
            nested: Vec::new(),
            cancel_after: None,
            burst: 1,
            items: 0,
            repeat: false,
        }
    }

    /// True if it, or what it leads to, is about `node`.
    pub fn touches(&self, node: u8) -> bool {
        self.caller == node || self.target == node || self.nested.iter().any(|call| call.touches(node))
    }
}
