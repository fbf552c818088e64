//! Two sessions back to back under a random scheduler: whatever the order of events, every ask has one outcome, no
//! message comes twice, each target hears its sender in order, and nothing is left behind.
//!
//! Checked are I1 (the 50 ms are the driver's), I2, I3, I7, I8 and I14 of `docs/semantics.md`.

use std::collections::{BTreeMap, VecDeque};

use mobula_core::Generation;

use super::*;

const SEEDS: u64 = 500;
const STEPS: usize = 800;
/// Target 0 is the node itself.
const TARGETS: usize = 4;

#[test]
fn two_sessions_keep_their_promises_under_any_schedule() {
    let mut seen = BTreeMap::new();
    for seed in 0..SEEDS {
        // Shown only if the test fails, and then the last line names the schedule.
        println!("seed {seed}");
        World::new(seed).run(&mut seen);
    }
    println!("{seen:?}");
    for state in [
        "answered",
        "failed",
        "cancelled",
        "late",
        "late in line",
        "unreachable",
        "unreachable in line",
        "accepted from line",
        "refused",
        "closed",
        "silent",
        "late reply",
        "turned away",
        "packed",
    ] {
        let times = seen.get(state).copied().unwrap_or(0);
        assert!(times > 20, "`{state}` was seen {times} times: these schedules prove nothing about it");
    }
}

/// xorshift64; Marsaglia 2003.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The place of an operation in [`World::operations`]; also what its message carries.
type Number = usize;

#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Answered,
    Cancelled,
    Accepted,
    Failed(CallError),
}

#[derive(Debug)]
struct Operation {
    side: usize,
    target: ActorId,
    request: Option<RequestId>,
    /// Went out with the call itself, not by way of the line.
    at_once: bool,
    outcome: Option<Outcome>,
    deliveries: usize,
}

impl Operation {
    /// True if the session has said that the message left.
    fn is_known_sent(&self) -> bool {
        self.at_once || self.outcome == Some(Outcome::Accepted)
    }
}

/// A message that has arrived.
struct Mail {
    number: Number,
    request: Option<RequestId>,
    deadline: Deadline,
}

struct Side {
    session: Session<Number>,
    fragment_bytes: usize,
    /// Taken from the session, not yet on the wire.
    unsent: BytesMut,
    /// On the wire towards this side, and what it has read of a frame.
    wire: VecDeque<u8>,
    inbox: BytesMut,
    /// What the actors here have not taken up.
    mailboxes: [VecDeque<Mail>; TARGETS],
    credit: [ReceiveCredit; TARGETS],
    /// Requests that actors here work on.
    held: Vec<Mail>,
    introduced: [bool; 3],
    closed: bool,
}

struct World {
    random: Random,
    now: Instant,
    time_step_ms: usize,
    sides: [Side; 2],
    operations: Vec<Operation>,
    silent: bool,
    packed: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let now = start();
        let lane = if random.one_in(2) { Lane::Control } else { Lane::Data };
        let sides = std::array::from_fn(|side| {
            let send_window_bytes = [60, 300, 3000][random.below(3)];
            let fragment_bytes = [20, 70, limits::FRAGMENT_BYTES][random.below(3)];
            let pack_above_bytes = 60;
            let config =
                SessionConfig { send_window_bytes, fragment_bytes, pack_above_bytes, ..SessionConfig::new(lane) };
            let window = 1 + random.below(8) as u32;
            let us = NodeUid(side as u64);
            let mut hello = hello(NodeId::new("side", us), window);
            // Bodies are packed in four worlds of nine.
            if !random.one_in(3) {
                hello.capabilities |= Hello::LZ4;
            }
            let session = Session::new(config, &hello, Some(NodeUid(1 - us.0)), now);
            Side {
                session,
                fragment_bytes,
                unsent: BytesMut::new(),
                wire: VecDeque::new(),
                inbox: BytesMut::new(),
                mailboxes: Default::default(),
                credit: std::array::from_fn(|_| ReceiveCredit::new(window)),
                held: Vec::new(),
                introduced: [false; 3],
                closed: false,
            }
        });
        let time_step_ms = [30, 300, 3000][random.below(3)];
        World { random, now, time_step_ms, sides, operations: Vec::new(), silent: false, packed: 0 }
    }

    fn run(mut self, seen: &mut BTreeMap<&'static str, usize>) {
        // In half of the runs the connection ends on its own, first for one side.
        let closes_at = self.random.below(2 * STEPS);
        // In a third of them one side says before that it is about to end.
        let leaves_at = self.random.below(3 * STEPS);
        for step in 0..STEPS {
            let side = self.random.below(2);
            if step == closes_at {
                self.close(side);
            }
            if step == leaves_at {
                self.sides[side].session.go_away("the shift is over");
            }
            self.step(side);
        }
        let ended = self.sides.iter().any(|side| side.closed);
        if !ended {
            self.settle();
        }
        let settled = !self.sides.iter().any(|side| side.closed);
        for side in 0..2 {
            self.close(side);
            self.fetch_events(side);
        }
        self.verdict(settled);
        *seen.entry("closed").or_default() += usize::from(ended);
        *seen.entry("silent").or_default() += usize::from(self.silent);
        *seen.entry("packed").or_default() += self.packed;
        self.count(seen);
    }

    fn step(&mut self, side: usize) {
        match self.random.below(32) {
            0..7 => self.send(side),
            7 | 8 => self.cancel(side),
            9..14 => {
                let part = if self.random.one_in(2) { 1.0 } else { self.random.below(100) as f64 / 100.0 };
                self.transmit(side, part);
            }
            14..21 => {
                let count = self.random.below(120);
                self.deliver(side, count);
            }
            21..25 => {
                let target = self.random.below(TARGETS);
                self.take_up(side, target);
            }
            25..29 => {
                self.answer_one(side);
            }
            29 | 30 => self.fetch_events(side),
            _ => {
                let time = self.random.below(self.time_step_ms);
                self.pass(ms(time as u64));
            }
        }
    }

    fn send(&mut self, side: usize) {
        let number = self.operations.len();
        let target = ActorId(self.random.below(TARGETS) as u64);
        let deadline = match self.random.below(3) {
            0 => Deadline::NEVER,
            _ => Deadline::after(self.now, ms(self.random.below(3000) as u64)),
        };
        let kind = self.random.below(3);
        let name = ["model::X", "model::Y", "model::Z"][kind];
        let call = Call { target, key: MessageKey(kind as u64), name, schema: 0, deadline };
        let padding = if self.random.one_in(8) { self.random.below(1000) } else { self.random.below(100) };
        let body = |out: &mut BytesMut| {
            out.extend_from_slice(&(number as u64).to_be_bytes());
            out.resize(out.len() + padding, 0);
            Ok(())
        };
        let session = &mut self.sides[side].session;
        let would_go = session.has_credit(target);
        let sent = if self.random.one_in(2) {
            session.ask(&call, number, self.now, body).map(|(request, accepted)| (Some(request), accepted)).map_err(
                |(error, back)| {
                    assert_eq!(back, number);
                    error
                },
            )
        } else {
            session.tell(&call, || number, self.now, body).map(|accepted| (None, accepted))
        };
        let mut operation = Operation { side, target, request: None, at_once: false, outcome: None, deliveries: 0 };
        match sent {
            Ok((request, accepted)) => {
                operation.request = request;
                operation.at_once = accepted == Accepted::Queued;
                // The first message of a type can be one too many, since its definition goes ahead of it.
                let first = !std::mem::replace(&mut self.sides[side].introduced[kind], true);
                // A large one leaves with its last fragment.
                let large = 40 + padding > self.sides[side].fragment_bytes;
                assert!(would_go == operation.at_once || first || large, "has_credit tells what happens");
            }
            Err(error) => operation.outcome = Some(Outcome::Failed(error)),
        }
        self.operations.push(operation);
    }

    fn cancel(&mut self, side: usize) {
        let is_open = |operation: &&mut Operation| {
            operation.side == side && operation.request.is_some() && operation.outcome.is_none()
        };
        let mut asks: Vec<_> = self.operations.iter_mut().filter(is_open).collect();
        if asks.is_empty() {
            return;
        }
        let operation = asks.swap_remove(self.random.below(asks.len()));
        // Without a result its outcome is among the events that were not fetched yet.
        if let Some(request) = operation.request
            && self.sides[side].session.cancel(request).is_some()
        {
            operation.outcome = Some(Outcome::Cancelled);
        }
    }

    fn transmit(&mut self, side: usize, part: f64) -> bool {
        let here = &mut self.sides[side];
        if here.unsent.is_empty() {
            here.unsent = here.session.take_transmit();
        }
        let count = (here.unsent.len() as f64 * part) as usize;
        let bytes = here.unsent.split_to(count);
        here.session.handle_written(count, self.now);
        self.sides[1 - side].wire.extend(&bytes);
        count > 0
    }

    fn deliver(&mut self, side: usize, count: usize) -> bool {
        let here = &mut self.sides[side];
        let count = count.min(here.wire.len());
        here.inbox.extend(here.wire.drain(..count));
        let inbox = std::mem::take(&mut here.inbox);
        let mut rest = &inbox[..];
        while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("whole frames") {
            let received = self.sides[side].session.receive(frame, self.now).expect("both keep the rules");
            rest = &rest[length..];
            match received {
                Received::Nothing | Received::Ack { .. } | Received::Define { .. } => {}
                Received::Reply { to, payload } => {
                    let payload = payload.unpacked().expect("both keep the rules");
                    assert_eq!(payload[..8], (to as u64).to_be_bytes(), "the answer to another ask");
                    self.resolve(to, Outcome::Answered);
                }
                Received::Failure { to, error } => self.resolve(to, Outcome::Failed(error)),
                Received::Request { request, target, deadline, payload, .. } => {
                    self.packed += usize::from(matches!(payload, Payload::Packed(_) | Payload::ReassembledPacked(_)));
                    let payload = payload.unpacked().expect("both keep the rules");
                    let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes) as Number);
                    let number = number.expect("every message carries its number");
                    self.arrived(side, target, Mail { number, request, deadline });
                }
                Received::Item { .. } | Received::More { .. } | Received::Undelivered { .. } => {
                    panic!("nobody sends it")
                }
                Received::Cancel { request } => {
                    let here = &mut self.sides[side];
                    here.held.retain(|mail| mail.request != Some(request));
                    for mail in here.mailboxes.iter_mut().flatten().filter(|mail| mail.request == Some(request)) {
                        mail.request = None;
                    }
                }
            }
        }
        self.sides[side].inbox = BytesMut::from(rest);
        count > 0
    }

    fn arrived(&mut self, side: usize, target: ActorId, mail: Mail) {
        let operation = &mut self.operations[mail.number];
        assert_eq!((operation.side, operation.target), (1 - side, target));
        assert!(operation.request.is_none() || operation.request == mail.request);
        operation.deliveries += 1;
        assert_eq!(operation.deliveries, 1, "{operation:?}");
        let later = &self.operations[mail.number + 1..];
        let overtaken = later.iter().any(|o| o.side != side && o.target == target && o.deliveries > 0);
        assert!(!overtaken, "message {} was overtaken", mail.number);
        let here = &mut self.sides[side];
        if target != ActorId::NODE {
            here.credit[target.0 as usize].on_message().expect("the sender keeps within the window");
        }
        here.mailboxes[target.0 as usize].push_back(mail);
    }

    fn take_up(&mut self, side: usize, target: usize) -> bool {
        let here = &mut self.sides[side];
        let Some(mail) = here.mailboxes[target].pop_front() else { return false };
        if mail.request.is_some() {
            here.held.push(mail);
        }
        if target != 0
            && let Some(count) = here.credit[target].on_taken()
        {
            here.session.grant(ActorId(target as u64), count);
        }
        true
    }

    fn answer_one(&mut self, side: usize) -> bool {
        let here = &mut self.sides[side];
        if here.held.is_empty() {
            return false;
        }
        let mail = here.held.swap_remove(self.random.below(here.held.len()));
        let request = mail.request.expect("only asks are held");
        let answer = (mail.number as u64).to_be_bytes();
        let padding = if self.random.one_in(4) { self.random.below(300) } else { 0 };
        match self.random.below(8) {
            // Some handlers never answer; the deadline does.
            0 if mail.deadline != Deadline::NEVER => {}
            0 | 1 => {
                let (message, text) = (String::new(), String::new());
                let error = CallError::Panicked { actor: A, message, text, generation: Generation(0) };
                here.session.fail(request, &error);
            }
            kind => {
                let body = |out: &mut BytesMut| {
                    out.extend_from_slice(&answer);
                    out.resize(out.len() + padding, 0);
                    Ok(())
                };
                match kind {
                    2 => here.session.reply_in_order(request, body).expect("it fits"),
                    _ => here.session.reply(request, body).expect("it fits"),
                }
            }
        }
        true
    }

    fn fetch_events(&mut self, side: usize) {
        while let Some(event) = self.sides[side].session.poll_event() {
            match event {
                Event::Accepted { to } => self.resolve(to, Outcome::Accepted),
                Event::Failed { to, error } => self.resolve(to, Outcome::Failed(error)),
            }
        }
    }

    fn resolve(&mut self, number: Number, outcome: Outcome) {
        let operation = &mut self.operations[number];
        assert_eq!(operation.outcome, None, "{operation:?} ends again, with {outcome:?}");
        operation.outcome = Some(outcome);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in 0..2 {
            let session = &mut self.sides[side].session;
            let mut rounds = 0;
            while session.poll_timeout().is_some_and(|at| at <= self.now) {
                rounds += 1;
                assert!(rounds < 100, "a timer that nothing serves");
                match session.handle_timeout(self.now) {
                    Ok(()) => {}
                    Err(SessionError::Silent { .. } | SessionError::NoHello { .. }) => {
                        self.silent = true;
                        session.close(&peer_id(), "silent");
                        self.sides[side].closed = true;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn close(&mut self, side: usize) {
        let side = &mut self.sides[side];
        side.session.close(&peer_id(), "cut");
        side.closed = true;
    }

    /// Lets everything under way arrive, be taken up, answered or overdue.
    fn settle(&mut self) {
        for _ in 0..8 {
            let mut busy = true;
            while busy {
                busy = false;
                for side in 0..2 {
                    busy |= self.transmit(side, 1.0) | self.deliver(side, usize::MAX);
                    for target in 0..TARGETS {
                        while self.take_up(side, target) {
                            busy = true;
                        }
                    }
                    while self.answer_one(side) {
                        busy = true;
                    }
                    self.fetch_events(side);
                }
            }
            self.pass(ms(500));
        }
        for side in 0..2 {
            self.fetch_events(side);
            for target in 1..TARGETS {
                if let Some(count) = self.sides[side].credit[target].settle() {
                    self.sides[side].session.grant(ActorId(target as u64), count);
                }
            }
            self.transmit(side, 1.0);
            self.deliver(1 - side, usize::MAX);
        }
        if self.sides.iter().any(|side| side.closed) {
            return;
        }
        for side in 0..2 {
            self.transmit(side, 1.0);
            let session = &self.sides[side].session;
            assert_eq!((session.pending(), session.in_line(), session.queued_bytes()), (0, 0, 0));
            assert_eq!((session.flows.entries(), session.flows.stalled()), (0, 0));
            assert_eq!((session.unsent_large_bytes(), session.reassembly_bytes()), (0, 0));
        }
    }

    fn verdict(&self, settled: bool) {
        for side in &self.sides {
            let session = &side.session;
            assert_eq!((session.pending(), session.in_line(), session.queued_bytes()), (0, 0, 0));
            assert_eq!((session.flows.entries(), session.flows.stalled()), (0, 0));
            assert_eq!((session.unsent_large_bytes(), session.reassembly_bytes()), (0, 0));
        }
        for (number, operation) in self.operations.iter().enumerate() {
            match &operation.outcome {
                None => assert!(operation.request.is_none() && operation.at_once, "no outcome: {operation:?}"),
                Some(Outcome::Accepted) => {
                    assert!(operation.request.is_none() && !operation.at_once, "{operation:?}");
                }
                Some(Outcome::Answered) => assert_eq!(operation.deliveries, 1, "{operation:?}"),
                Some(Outcome::Cancelled) => assert!(operation.request.is_some(), "{operation:?}"),
                Some(Outcome::Failed(error)) if error.outcome().is_retry_safe() => {
                    assert_eq!(operation.deliveries, 0, "{operation:?}");
                }
                Some(Outcome::Failed(_)) => assert!(operation.request.is_some(), "{operation:?}"),
            }
            if operation.is_known_sent() && operation.deliveries == 0 {
                assert!(!settled, "lost: {operation:?}");
                let mut later = self.operations[number..].iter();
                let gap = later.any(|o| (o.side, o.target) == (operation.side, operation.target) && o.deliveries > 0);
                assert!(!gap, "{number} is lost, and a later message came");
            }
        }
    }

    fn count(&self, seen: &mut BTreeMap<&'static str, usize>) {
        for operation in &self.operations {
            let state =
                match &operation.outcome {
                    None => continue,
                    Some(Outcome::Answered) => "answered",
                    Some(Outcome::Cancelled) => "cancelled",
                    Some(Outcome::Accepted) => "accepted from line",
                    Some(Outcome::Failed(CallError::DeadlineExceeded { started: true })) => "late",
                    Some(Outcome::Failed(CallError::DeadlineExceeded { started: false })) => "late in line",
                    Some(Outcome::Failed(CallError::Unreachable { sent: true, .. })) => "unreachable",
                    Some(Outcome::Failed(CallError::Unreachable { reason, .. }))
                        if reason.contains("shift is over") =>
                    {
                        "turned away"
                    }
                    Some(Outcome::Failed(CallError::Unreachable { sent: false, .. })) => {
                        if operation.request.is_some() { "unreachable in line" } else { "refused" }
                    }
                    Some(Outcome::Failed(_)) => "failed",
                };
            *seen.entry(state).or_default() += 1;
        }
        let late_replies: u64 = self.sides.iter().map(|side| side.session.late_replies()).sum();
        *seen.entry("late reply").or_default() += late_replies as usize;
    }
}
