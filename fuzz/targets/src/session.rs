//! Two sessions that talk to each other as the bytes say, with forged bytes between theirs.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mobula_core::frame::{self, Head};
use mobula_core::{ActorId, CallError, Deadline, MessageKey, NodeId, NodeUid, RequestId, limits};
use mobula_transport::{Call, Event, Hello, Lane, ReceiveCredit, Received, Session, SessionConfig};

const CREDIT: u32 = 3;

fn id(uid: u64) -> NodeId {
    NodeId::new("peer", NodeUid(uid))
}

fn hello_of(uid: u64, packs: bool) -> Hello {
    let capabilities = Hello::CAPABILITIES | if packs { Hello::LZ4 } else { 0 };
    Hello { node: id(uid), pid: 1, capabilities, credit_messages: CREDIT }
}

/// Any body of a hello, and any frames after it, are taken or refused with an error.
pub(crate) fn hello(data: &[u8]) {
    let now = origin();
    let mut session = Session::<u32>::new(SessionConfig::new(Lane::Data), &hello_of(1, true), Some(NodeUid(2)), now);
    let (body, rest) = data.split_at(data.len().min(usize::from(data.first().copied().unwrap_or(0))));
    let mut stream = BytesMut::new();
    let put = |out: &mut BytesMut| {
        out.extend_from_slice(body.get(1..).unwrap_or_default());
        Ok(())
    };
    frame::write(&mut stream, Head::Hello, put).expect("it is small");
    stream.extend_from_slice(rest);
    let mut from = 0;
    while let Ok(Some((frame, length))) = frame::decode(&stream[from..], limits::FRAME_BYTES_MAX) {
        from += length;
        if session.receive(frame, now).is_err() {
            break;
        }
        assert!(session.peer().is_some_and(|peer| peer.node.uid == NodeUid(2)), "another than the proven one");
    }
    session.close(&id(2), "over");
}

#[expect(clippy::disallowed_methods, reason = "the origin of the time that is handed out")]
fn origin() -> Instant {
    Instant::now()
}

struct Peer {
    session: Session<u32>,
    uid: u64,
    /// On its way to the other, not yet read there.
    pipe: BytesMut,
    to_answer: VecDeque<RequestId>,
    asked: Vec<RequestId>,
    credit: HashMap<ActorId, ReceiveCredit>,
    /// The last message that came for each actor.
    last: HashMap<ActorId, u32>,
    closed: bool,
}

struct World {
    peers: [Peer; 2],
    now: Instant,
    /// How often each call has ended.
    ends: HashMap<u32, u32>,
    next: u32,
    /// Something was forged, so order and end are the forger's.
    forged: bool,
}

/// Each byte is a step, some with a number after them. Of an odd number of bytes, both pack what they send.
pub(crate) fn two_peers(data: &[u8]) {
    let packs = !data.len().is_multiple_of(2);
    let now = origin();
    let peer = |uid| Peer {
        session: Session::new(
            // Small, so that windows fill and messages go in fragments.
            SessionConfig {
                send_window_bytes: 2_000,
                fragment_bytes: 60,
                pack_above_bytes: 40,
                ..SessionConfig::new(Lane::Control)
            },
            &hello_of(uid, packs),
            Some(NodeUid(3 - uid)),
            now,
        ),
        uid,
        pipe: BytesMut::new(),
        to_answer: VecDeque::new(),
        asked: Vec::new(),
        credit: HashMap::new(),
        last: HashMap::new(),
        closed: false,
    };
    let mut world = World { peers: [peer(1), peer(2)], now, ends: HashMap::new(), next: 0, forged: false };
    let mut steps = data.iter().copied();
    while let Some(step) = steps.next() {
        world.step(step, &mut steps);
    }
    for side in 0..2 {
        world.close(side);
    }
    for (call, ends) in &world.ends {
        assert_eq!(*ends, 1, "call {call} has {ends} ends");
    }
}

impl World {
    fn step(&mut self, step: u8, steps: &mut impl Iterator<Item = u8>) {
        let side = usize::from(step >> 7);
        let mut number = || usize::from(steps.next().unwrap_or(1));
        match step & 15 {
            0..=2 => self.ask(side, number()),
            3 | 4 => self.tell(side, number()),
            5 | 6 => self.deliver(side, number()),
            7 | 8 => {
                self.deliver(0, usize::MAX);
                self.deliver(1, usize::MAX);
            }
            9 | 10 => self.answer(side, step & 16 == 0, number()),
            11 => self.cancel(side, number()),
            12 => self.pass(Duration::from_millis(20) * number() as u32),
            13 => {
                let forged: Vec<u8> = steps.by_ref().take(usize::from(step >> 4 & 7) * 8 + 1).collect();
                self.peers[side].pipe.extend_from_slice(&forged);
                self.forged = true;
            }
            14 => {
                let at = number();
                if let Some(byte) = self.peers[side].pipe.get_mut(at) {
                    *byte ^= 1 << (step >> 4 & 7);
                    self.forged = true;
                }
            }
            _ if step & 112 == 96 => self.peers[side].session.go_away("enough"),
            _ if step & 112 == 112 => {
                self.peers[side].session.goodbye("enough");
                self.transmit(side);
                self.close(side);
            }
            _ => self.transmit(side),
        }
    }

    fn call(&self, number: usize) -> Call {
        Call {
            target: ActorId(1 + number as u64 % 3),
            key: MessageKey(1),
            name: "fuzz::Note",
            schema: 1,
            deadline: Deadline::after(self.now, Duration::from_millis(100) * (number as u32 / 3)),
        }
    }

    fn ask(&mut self, side: usize, number: usize) {
        let call = self.call(number);
        self.next += 1;
        let waiter = self.next;
        self.ends.insert(waiter, 0);
        let body = body(waiter, number);
        let peer = &mut self.peers[side];
        match peer.session.ask(&call, waiter, self.now, |out: &mut BytesMut| {
            out.extend_from_slice(&body);
            Ok(())
        }) {
            Ok((request, _)) => peer.asked.push(request),
            Err((_, waiter)) => self.end(waiter),
        }
        self.events(side);
    }

    fn tell(&mut self, side: usize, number: usize) {
        let call = self.call(number);
        self.next += 1;
        let waiter = self.next;
        let body = body(waiter, number);
        let mut waits = false;
        let told = self.peers[side].session.tell(
            &call,
            || {
                waits = true;
                waiter
            },
            self.now,
            |out: &mut BytesMut| {
                out.extend_from_slice(&body);
                Ok(())
            },
        );
        if waits && told.is_ok() {
            self.ends.insert(waiter, 0);
        }
        self.events(side);
    }

    fn transmit(&mut self, side: usize) {
        let peer = &mut self.peers[side];
        let bytes = peer.session.take_transmit();
        peer.pipe.extend_from_slice(&bytes);
        peer.session.handle_written(bytes.len(), self.now);
        self.events(side);
    }

    /// The other side reads up to `most` bytes' worth of frames.
    fn deliver(&mut self, side: usize, most: usize) {
        self.transmit(side);
        let other = 1 - side;
        let mut pipe = std::mem::take(&mut self.peers[side].pipe);
        let end = pipe.len().min(most.saturating_mul(4));
        let mut from = 0;
        let mut violated = false;
        let mut ended = Vec::new();
        while !self.peers[other].closed && !violated {
            let reader = &mut self.peers[other];
            let (frame, length) = match frame::decode(&pipe[from..end], limits::FRAME_BYTES_MAX) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(_) => {
                    assert!(self.forged, "a session writes frames that none can read");
                    violated = true;
                    break;
                }
            };
            from += length;
            match reader.session.receive(frame, self.now) {
                Ok(Received::Request { request, target, payload, .. }) => {
                    let Ok(payload) = payload.unpacked() else {
                        assert!(self.forged, "a session packs what none can unpack");
                        violated = true;
                        continue;
                    };
                    let order = payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
                    if !self.forged {
                        let last = reader.last.insert(target, order.expect("an honest message"));
                        assert!(last < order, "{order:?} came after {last:?}");
                    }
                    let credit = reader.credit.entry(target).or_insert_with(|| ReceiveCredit::new(CREDIT));
                    if credit.on_message().is_err() {
                        assert!(self.forged, "more than the credit was sent");
                        violated = true;
                    } else if let Some(count) = credit.on_taken() {
                        reader.session.grant(target, count);
                    }
                    reader.to_answer.extend(request);
                }
                Ok(Received::Reply { to, payload }) => {
                    assert!(payload.unpacked().is_ok() || self.forged, "a session packs what none can unpack");
                    ended.push(to);
                }
                Ok(Received::Failure { to, .. }) => ended.push(to),
                Ok(_) => {}
                // A goodbye is an end that an honest session can bring about.
                Err(error) => {
                    assert!(self.forged || error.to_string().contains("goodbye"), "{error}");
                    violated = true;
                }
            }
        }
        pipe.advance(from);
        self.peers[side].pipe = pipe;
        ended.into_iter().for_each(|to| self.end(to));
        self.events(other);
        if violated {
            self.close(other);
        }
    }

    fn answer(&mut self, side: usize, well: bool, number: usize) {
        let peer = &mut self.peers[side];
        if let Some(request) = peer.to_answer.pop_front() {
            if well {
                let _ = peer.session.reply(request, |out: &mut BytesMut| {
                    out.extend_from_slice(&vec![0xc0; number]);
                    Ok(())
                });
            } else {
                peer.session.fail(request, &CallError::Stopped);
            }
        }
    }

    fn cancel(&mut self, side: usize, number: usize) {
        let peer = &mut self.peers[side];
        if peer.asked.is_empty() {
            return;
        }
        let request = peer.asked[number % peer.asked.len()];
        if let Some(waiter) = peer.session.cancel(request) {
            self.end(waiter);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in 0..2 {
            if self.peers[side].session.handle_timeout(self.now).is_err() {
                self.close(side);
            }
            self.events(side);
        }
    }

    fn close(&mut self, side: usize) {
        let peer = &mut self.peers[side];
        peer.closed = true;
        let other = id(3 - peer.uid);
        peer.session.close(&other, "over");
        self.events(side);
        let peer = &self.peers[side];
        assert_eq!((peer.session.pending(), peer.session.in_line()), (0, 0), "a closed session keeps nobody waiting");
    }

    fn events(&mut self, side: usize) {
        while let Some(event) = self.peers[side].session.poll_event() {
            match event {
                Event::Accepted { to } | Event::Failed { to, .. } => self.end(to),
            }
        }
    }

    fn end(&mut self, call: u32) {
        let ends = self.ends.get_mut(&call).expect("it was a call of ours");
        *ends += 1;
        assert_eq!(*ends, 1, "call {call} ended twice");
    }
}

/// A message with its number, and as long as the number says, so that windows fill.
fn body(order: u32, number: usize) -> Vec<u8> {
    let mut body = order.to_be_bytes().to_vec();
    body.resize(4 + number, 0xc0);
    body
}
