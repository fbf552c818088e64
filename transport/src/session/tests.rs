//! The session alone: frames and `now` by hand, no sleeping, no sockets.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use mobula_core::codec::{self, EncodeError};
use mobula_core::frame::{self, Frame, FrameError, MessageIndex};
use mobula_core::{ActorId, Budget, CallError, Deadline, MessageKey, NodeId, NodeUid, RequestId, limits};

use super::{Accepted, Call, Event, Hello, Lane, Payload, Received, Session, SessionConfig, SessionError};
use crate::credit::{CreditViolation, ReceiveCredit};

mod ahead;
mod answers;
mod cancelling;
mod closing;
mod credit;
mod deadlines;
mod fragments;
mod heartbeats;
mod leaving;
mod model;
mod opening;
mod order;
mod packing;
mod posts;
mod streams;
mod types;

const A: ActorId = ActorId(1);
const B: ActorId = ActorId(2);
const LONG_NAME: &str = {
    const BYTES: [u8; limits::NAME_BYTES_MAX + 1] = [b'n'; limits::NAME_BYTES_MAX + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(name) => name,
        Err(_) => panic!("ASCII"),
    }
};

#[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
fn start() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn peer_id() -> NodeId {
    NodeId::new("peer", NodeUid(2))
}

fn hello(node: NodeId, credit_messages: u32) -> Hello {
    Hello { node, pid: 1, capabilities: Hello::CAPABILITIES, credit_messages }
}

fn us() -> Hello {
    hello(NodeId::new("us", NodeUid(1)), 8)
}

fn call(target: ActorId, deadline: Deadline) -> Call {
    Call { target, key: MessageKey(1), name: "test::Note", schema: 9, deadline }
}

fn to(target: ActorId) -> Call {
    call(target, Deadline::NEVER)
}

fn text(text: &str) -> impl FnOnce(&mut BytesMut) -> Result<(), EncodeError> + '_ {
    move |out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn unwritable(_: &mut BytesMut) -> Result<(), EncodeError> {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("broken"))
        }
    }
    codec::encode(&Broken).map(|_| ())
}

/// A session, what callers keep with it, and a clock that only the test turns.
struct Bench {
    session: Session<&'static str>,
    now: Instant,
}

impl Bench {
    fn new(config: SessionConfig) -> Self {
        let now = start();
        Bench { session: Session::new(config, &us(), Some(NodeUid(2)), now), now }
    }

    /// Both hellos are through; the peer takes `credit` messages for each actor.
    fn open_with(config: SessionConfig, credit: u32) -> Self {
        let mut bench = Bench::new(config);
        assert_eq!(bench.sent(), ["hello"]);
        bench.receive_hello(&hello(peer_id(), credit)).expect("a fine hello");
        bench
    }

    fn open(credit: u32) -> Self {
        Bench::open_with(SessionConfig::new(Lane::Data), credit)
    }

    fn receive<'a>(&mut self, frame: Frame<'a>) -> Result<Received<'a, &'static str>, SessionError> {
        self.session.receive(frame, self.now)
    }

    fn receive_hello(&mut self, hello: &Hello) -> Result<(), SessionError> {
        let body = codec::encode(hello).expect("plain data");
        self.receive(Frame::Hello { body: &body }).map(|received| assert!(matches!(received, Received::Nothing)))
    }

    fn credit(&mut self, target: ActorId, count: u32) {
        let received = self.receive(Frame::Credit { target, count });
        assert!(matches!(received, Ok(Received::Nothing)), "{received:?}");
    }

    fn ask(&mut self, call: &Call, body: &'static str) -> (RequestId, Accepted) {
        self.session.ask(call, body, self.now, text(body)).expect("accepted")
    }

    fn tell(&mut self, call: &Call, body: &'static str) -> Accepted {
        self.session.tell(call, || body, self.now, text(body)).expect("accepted")
    }

    fn answer(&mut self, request: RequestId) -> Option<&'static str> {
        match self.receive(Frame::Reply { request, payload: b"" }) {
            Ok(Received::Reply { to, .. }) => Some(to),
            Ok(Received::Nothing) => None,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that is queued, written to the end: `ask 1 a` is the message `a` to actor 1.
    fn sent(&mut self) -> Vec<String> {
        let bytes = self.session.take_transmit();
        self.session.handle_written(bytes.len(), self.now);
        shown(&bytes)
    }

    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.session.poll_event() {
            events.push(match event {
                Event::Accepted { to } => format!("{to} accepted"),
                Event::Failed { to, error: CallError::DeadlineExceeded { started } } => {
                    format!("{to} late, started {started}")
                }
                Event::Failed { to, error: CallError::Unreachable { sent, .. } } => {
                    format!("{to} unreachable, sent {sent}")
                }
                Event::Failed { to, error } => format!("{to} {error:?}"),
            });
        }
        events
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now).expect("nothing ends the session");
    }

    fn after(&self, time: Duration) -> Deadline {
        Deadline::after(self.now, time)
    }
}

fn shown(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while let Some((frame, length)) = frame::decode(rest, limits::FRAME_BYTES_MAX).expect("own bytes") {
        let utf8 = |bytes| String::from_utf8_lossy(bytes);
        frames.push(match frame {
            Frame::Ping { .. } => "ping".to_owned(),
            Frame::Pong { nonce } => format!("pong {nonce}"),
            Frame::Hello { .. } => "hello".to_owned(),
            Frame::Goodbye { .. } => "goodbye".to_owned(),
            Frame::GoAway { .. } => "go-away".to_owned(),
            Frame::Ack { received } => format!("ack {received}"),
            Frame::Resume { received, .. } => format!("resume {received}"),
            Frame::Define { index, .. } => format!("define {}", index.0),
            Frame::Ask { target, payload, .. } => format!("ask {target} {}", utf8(payload)),
            Frame::Post { target, payload, .. } => format!("post {target} {}", utf8(payload)),
            Frame::Item { payload, .. } => format!("item {}", utf8(payload)),
            Frame::More { request, count } => format!("more {:x} {count}", request.0),
            Frame::Undelivered { target, message, .. } => format!("undelivered {target} {}", message.0),
            Frame::Tell { target, payload, .. } => format!("tell {target} {}", utf8(payload)),
            Frame::Reply { payload, .. } => format!("reply {}", utf8(payload)),
            Frame::Failure { .. } => "failure".to_owned(),
            Frame::Cancel { request } => format!("cancel {:x}", request.0),
            Frame::Credit { target, count } => format!("credit {target} {count}"),
            Frame::Fragment { number, bytes } => format!("fragment {number} of {}", bytes.len()),
            Frame::FragmentEnd { number, bytes } => format!("end of {number} of {}", bytes.len()),
            Frame::FragmentDrop { number } => format!("drop {number}"),
            Frame::Packed { frame } => format!("packed of {}", frame.len()),
        });
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "whole frames only");
    frames
}
