//! An end of a connection: handshake, then a real session, driven in the order of the real driver: write, timers, read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BytesMut};
use mobula_core::codec::{self, EncodeError};
use mobula_core::frame::{self, Frame, Head};
use mobula_core::{ActorId, CallError, NodeId, NodeUid, RequestId, limits};
use mobula_transport::preface::{ACCEPT_BYTES, DIAL_BYTES, Dial, PrefaceError, Purpose, VERSIONS, check_answer};
use mobula_transport::resume::{Arrived, Kept, Resume};
use mobula_transport::{
    Event as SessionEvent, Hello, Lane, ReceiveCredit, Received, Session, SessionConfig, SessionError,
};
use serde::{Deserialize, Serialize};

use super::back::{Back, shows_death};
use super::control::{Control, Told};
use super::net::{Pipe, Read};
use super::{Event, World};
use crate::fact::{Closure, EndId, Fact, LifeId, Op, Rule, Verdict};
use crate::oracles::Gauge;
use crate::params::{Intruder, Time};
use crate::reach::Branch;

/// What every message of a world carries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) op: Op,
    pub(super) padding: String,
    pub(super) control: Control,
}

/// What every reply carries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) op: Op,
    pub(super) error: bool,
    pub(super) told: Told,
}

pub(super) enum Stage {
    Dialling {
        dial: Dial,
        sent: [u8; DIAL_BYTES],
    },
    Accepting,
    Open,
    /// Looks for the peer of an end whose connection has broken, or is mute.
    Looking {
        dial: Dial,
        sent: [u8; DIAL_BYTES],
        of: EndId,
        resume: Resume,
        proven: bool,
    },
    /// Hears at the door which session the dialer comes back to.
    Returning,
    /// Waits for its session's end to take it up.
    Handed,
}

/// Messages from one end to one actor.
pub(super) struct Flow {
    pub(super) credit: ReceiveCredit,
    /// Arrived and not begun.
    pub(super) waiting: u32,
}

pub(super) struct End {
    /// None: an intruder's.
    pub(super) life: Option<LifeId>,
    pub(super) lane: Lane,
    pub(super) version: u16,
    pub(super) stage: Stage,
    pub(super) session: Option<Session<Op>>,
    /// Who was proven.
    pub(super) peer: Option<NodeId>,
    /// Who the other end really belongs to, if it is no node's.
    pub(super) intruder: Option<Intruder>,
    pub(super) attached: bool,
    pub(super) over: Option<Closure>,
    /// What it writes to now; it reads the other one of the pair.
    pub(super) pipe: EndId,
    /// What is written, and kept where the connection has a way back. None only while it is being written.
    pub(super) kept: Option<Kept>,
    /// Acks and resumes: no part of the stream.
    pub(super) aside: BytesMut,
    ack: Option<u64>,
    pub(super) arrived: Arrived,
    pub(super) back: Back,
    pub(super) inbox: BytesMut,
    /// The last bytes that went out, for those who replay them.
    pub(super) recent: Vec<u8>,
    pub(super) flows: BTreeMap<u64, Flow>,
    pub(super) cancelled: BTreeSet<u64>,
    /// Asks that arrived and are not answered.
    pub(super) asked: BTreeMap<u64, Op>,
    planned: bool,
    pub(super) timer_at: Option<Time>,
    /// When nothing was queued here for the last time.
    empty_at: Time,
    pub(super) exempt_bytes: usize,
}

impl End {
    fn new(pipe: EndId, life: Option<LifeId>, lane: Lane, stage: Stage, now: Time) -> Self {
        End {
            life,
            lane,
            version: 0,
            stage,
            session: None,
            peer: None,
            intruder: None,
            attached: false,
            over: None,
            pipe,
            kept: Some(Kept::new(false)),
            aside: BytesMut::new(),
            ack: None,
            arrived: Arrived::default(),
            back: Back::default(),
            inbox: BytesMut::new(),
            recent: Vec::new(),
            flows: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            asked: BTreeMap::new(),
            planned: false,
            timer_at: None,
            empty_at: now,
            exempt_bytes: 0,
        }
    }

    pub(super) fn gauge(&self, end: EndId) -> Option<Gauge> {
        let session = self.session.as_ref()?;
        Some(Gauge {
            end,
            control: self.lane == Lane::Control,
            queued_bytes: session.queued_bytes(),
            unsent_large_bytes: session.unsent_large_bytes(),
            reassembly_bytes: session.reassembly_bytes(),
            exempt_bytes: self.exempt_bytes,
            in_line: session.in_line(),
            pending: session.pending(),
            targets: session.targets(),
            mail_max: self.flows.values().map(|flow| flow.waiting).max().unwrap_or(0),
            inbox_bytes: self.inbox.len(),
            kept_bytes: self.kept.as_ref().map_or(0, Kept::kept_bytes),
        })
    }

    /// True if the thread of actors reads it.
    pub(super) fn is_data_session(&self) -> bool {
        self.lane == Lane::Data && matches!(self.stage, Stage::Open)
    }

    /// What belonged to one connection is forgotten with it: the peer sends what was cut off again.
    pub(super) fn clear_connection(&mut self) {
        self.inbox.clear();
        self.aside.clear();
        self.ack = None;
    }
}

impl World<'_> {
    /// Opens a connection from a life to what runs on `to`, in the hope that it is `target`.
    pub(super) fn dial(&mut self, from: LifeId, to: u8, target: NodeId, lane: Lane) {
        let dialer = NodeUid(self.lives[from as usize].uid);
        let mut nonce = [0; 32];
        for part in nonce.chunks_mut(8) {
            part.copy_from_slice(&self.random.bits().to_be_bytes());
        }
        let node = self.lives[from as usize].node;
        let versions = self.params.versions_of(node);
        let dial = Dial { dialer, target: target.uid, lane, versions, purpose: Purpose::Open, nonce };
        let sent = dial.encode(&self.secret);
        let Some(end) = self.connect(Some(from), node, to, lane, Stage::Dialling { dial, sent }) else { return };
        self.ends[end as usize].peer = Some(target);
        self.send(end, &sent);
    }

    /// A connection to the life that runs on `to`; none if that is down.
    pub(super) fn connect(
        &mut self,
        life: Option<LifeId>,
        node: u8,
        to: u8,
        lane: Lane,
        stage: Stage,
    ) -> Option<EndId> {
        let acceptor = self.slots[usize::from(to)].life?;
        let end = self.ends.len() as EndId;
        self.ends.push(End::new(end, life, lane, stage, self.now));
        self.ends.push(End::new(end + 1, Some(acceptor), lane, Stage::Accepting, self.now));
        // An intruder stands beside the acceptor: no fault of the network is about it.
        let (from, back) = if life.is_some() { (Some(node), Some(to)) } else { (None, None) };
        self.pipes.push(Pipe::new(end, from, back));
        self.pipes.push(Pipe::new(end + 1, back, from));
        for end in [end, end + 1] {
            self.plan(self.now + self.params.handshake, Event::HandshakeOver(end));
        }
        Some(end)
    }

    /// The node of an end; of an intruder's, the first.
    fn node_at(&self, end: EndId) -> u8 {
        self.ends[end as usize].life.map_or(0, |life| self.node_of(life))
    }

    pub(super) fn instant_at(&self, end: EndId) -> std::time::Instant {
        self.instant(self.node_at(end))
    }

    /// Lets the end's driver have a turn soon.
    pub(super) fn wake(&mut self, end: EndId) {
        let one = &mut self.ends[end as usize];
        let Some(life) = one.life else { return };
        if one.over.is_some() || std::mem::replace(&mut one.planned, true) {
            return;
        }
        let node = self.lives[life as usize].node;
        let at = self.soon(node);
        self.plan(at, Event::Drive(end));
    }

    pub(super) fn handshake_over(&mut self, end: EndId) {
        let one = &self.ends[end as usize];
        if one.over.is_none() && one.life.is_some() && !matches!(one.stage, Stage::Open | Stage::Handed) {
            self.reach(Branch::HandshakeLate);
            self.end_over(end, Closure::Handshake, "no handshake in time");
        }
    }

    pub(super) fn drive(&mut self, end: EndId) {
        let one = &mut self.ends[end as usize];
        one.planned = false;
        if one.over.is_some() {
            return;
        }
        let result = match &one.stage {
            Stage::Open => self.drive_session(end),
            Stage::Dialling { .. } | Stage::Looking { .. } => self.dialling(end),
            Stage::Accepting => self.accepting(end),
            Stage::Returning => self.fill(end).and_then(|()| self.door_hears(end)),
            // What has come by now is the session's.
            Stage::Handed => return,
        };
        if let Err((why, reason)) = result {
            self.fails(end, why, &reason);
        }
        let Some(gauge) = self.ends[end as usize].gauge(end) else { return };
        if self.ends[end as usize].over.is_none() {
            self.judge.gauge(&gauge, self.params, self.now);
            self.arm(end);
        }
    }

    fn arm(&mut self, end: EndId) {
        let next = self.ends[end as usize].session.as_ref().and_then(Session::poll_timeout);
        let (back, nobody) = self.ends[end as usize].back.next(self.instant_at(end));
        let Some(life) = self.ends[end as usize].life else { return };
        let node = self.node_of(life);
        let timers = next.into_iter().chain(back).min().map(|next| self.time(node, next));
        let Some(at) = timers.into_iter().chain(nobody).min().map(|at| at.max(self.now + 1)) else { return };
        let one = &mut self.ends[end as usize];
        if one.timer_at.is_none_or(|armed| at < armed || armed <= self.now) {
            one.timer_at = Some(at);
            self.plan(at, Event::Timer(end));
        }
    }

    fn dialling(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        self.fill(end)?;
        let one = &mut self.ends[end as usize];
        let (dial, sent) = match &one.stage {
            Stage::Dialling { dial, sent } | Stage::Looking { dial, sent, proven: false, .. } => (dial, sent),
            _ => return self.looker_hears(end),
        };
        let Some(answer) = one.inbox.first_chunk::<ACCEPT_BYTES>() else { return Ok(()) };
        let checked = check_answer(&self.secret, dial, sent, answer);
        one.inbox.advance(ACCEPT_BYTES);
        match checked {
            Ok(version) => {
                self.ends[end as usize].version = version;
                if let Stage::Dialling { dial, .. } = self.ends[end as usize].stage {
                    return self.open(end, &dial, true);
                }
                self.looker_is_welcome(end)
            }
            Err(error) => {
                self.search_fails(end, shows_death(&error));
                Err((Closure::Handshake, error.to_string()))
            }
        }
    }

    fn accepting(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        self.fill(end)?;
        let one = &mut self.ends[end as usize];
        let intruder = one.intruder;
        let Some(life) = one.life else { return Ok(()) };
        let Some(bytes) = one.inbox.first_chunk::<DIAL_BYTES>().copied() else { return Ok(()) };
        one.inbox.advance(DIAL_BYTES);
        let (verdict, answer) = self.lives[life as usize].acceptor.check(&bytes);
        if let Some(answer) = answer {
            self.send(end, &answer);
        }
        match verdict {
            Ok(dial) => {
                let (target, dialer) = (dial.target.0, dial.dialer.0);
                self.fact(Fact::Admitted { life, target, dialer, intruder });
                // What never arrived could still be used once: by whoever is first.
                self.overheard.push((self.lives[life as usize].node, bytes));
                let one = &mut self.ends[end as usize];
                one.lane = dial.lane;
                one.version = self.lives[life as usize].acceptor.agreed(&dial);
                one.peer = Some(NodeId::new("peer", dial.dialer));
                match dial.purpose {
                    Purpose::Open => self.open(end, &dial, false),
                    Purpose::Resume => {
                        one.stage = Stage::Returning;
                        self.door_hears(end)
                    }
                    // It has its answer.
                    Purpose::Probe => {
                        self.reach(Branch::Probed);
                        Err((Closure::Moved, "probed".to_owned()))
                    }
                }
            }
            Err(error) => {
                self.fact(Fact::Refused { life, intruder });
                match error {
                    PrefaceError::Replayed => self.reach(Branch::ReplayRefused),
                    PrefaceError::StaleIncarnation { .. } => self.reach(Branch::StaleRefused),
                    PrefaceError::Unauthorized => self.reach(Branch::StrangerRefused),
                    PrefaceError::VersionIncompatible { .. } => self.reach(Branch::VersionRefused),
                    _ => {}
                }
                Err((Closure::Handshake, error.to_string()))
            }
        }
    }

    fn fill(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        let mut inbox = std::mem::take(&mut self.ends[end as usize].inbox);
        let read = self.read(end, &mut inbox);
        let have = inbox.len();
        self.ends[end as usize].inbox = inbox;
        match read {
            Read::Nothing | Read::Some => Ok(()),
            Read::Eof if have > 0 => Err((Closure::CutInFrame, "the connection ended within a frame".to_owned())),
            Read::Eof => Err((Closure::Eof, "connection closed by the peer".to_owned())),
            Read::Reset => Err((Closure::Reset, "connection reset by peer".to_owned())),
        }
    }

    fn open(&mut self, end: EndId, dial: &Dial, dials: bool) -> Result<(), (Closure, String)> {
        self.has_way_back(end, dial, dials);
        let now = self.instant_at(end);
        let resume_bytes = self.params.resume_bytes;
        let one = &mut self.ends[end as usize];
        let (Some(life), Some(peer)) = (one.life, &one.peer) else { return Ok(()) };
        let micros = std::time::Duration::from_micros;
        let config = SessionConfig {
            heartbeat_interval: micros(self.params.heartbeat),
            down_after: micros(self.params.down_after),
            hello_deadline: micros(self.params.handshake),
            send_window_bytes: self.params.send_window_bytes,
            fragment_bytes: self.params.fragment_bytes,
            version: one.version,
            ..SessionConfig::new(one.lane)
        };
        if one.version < VERSIONS.max {
            self.judge.reach(Branch::OlderVersion);
        }
        let hello = self.lives[life as usize].hello.clone();
        one.session = Some(Session::new(config, &hello, Some(peer.uid), now));
        if one.back.has {
            one.kept = Some(Kept::with_bytes_max(resume_bytes));
        }
        one.stage = Stage::Open;
        one.empty_at = self.now;
        self.drive_session(end)
    }

    /// A turn of a session, over its connection, or without one.
    fn drive_session(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        if !self.is_here(end)? {
            return Ok(());
        }
        match self.turn(end) {
            Err((why, _)) if self.ends[end as usize].over.is_none() && self.is_break(end, why) => {
                self.go_away(end, why);
                self.is_here(end).map(drop)
            }
            result => result,
        }
    }

    fn turn(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        self.flush(end);
        self.timers(end)?;
        self.search_ends(end)?;
        self.flush(end);
        self.timers(end)?;
        if self.ends[end as usize].back.holds() {
            return Ok(());
        }
        self.fill_and_receive(end)?;
        self.flush(end);
        self.events(end);
        Ok(())
    }

    pub(super) fn timers(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        let now = self.instant_at(end);
        self.suspect(end)?;
        for _ in 0..100 {
            let Some(session) = &mut self.ends[end as usize].session else { return Ok(()) };
            if session.poll_timeout().is_none_or(|at| at > now) {
                return Ok(());
            }
            let (heard, before) = (session.heard(), session.queued_bytes());
            let timed_out = session.handle_timeout(now);
            // A cancel for each ask that has expired.
            let cancels = session.queued_bytes().saturating_sub(before);
            self.ends[end as usize].exempt_bytes += cancels;
            if let Err(error) = timed_out {
                let heard = self.time(self.node_at(end), heard);
                return Err((closure(&error, heard), error.to_string()));
            }
            self.flush(end);
            self.events(end);
        }
        self.judge
            .accuse(Some(("I14 timers return to baseline", format!("end {end}: a timer nothing serves"))), self.now);
        Ok(())
    }

    fn fill_and_receive(&mut self, end: EndId) -> Result<(), (Closure, String)> {
        let ended = self.fill(end);
        let now = self.instant_at(end);
        let inbox = std::mem::take(&mut self.ends[end as usize].inbox);
        let mut rest = &inbox[..];
        let mut batch = Vec::new();
        let mut result = Ok(());
        let one = &mut self.ends[end as usize];
        let (Some(session), arrived) = (&mut one.session, &mut one.arrived) else { return Ok(()) };
        let (known, late_before) = (session.peer().is_some(), session.late_replies());
        let left = session.peer_leaves().is_some();
        let (acks, mut heartbeat, mut answer, mut acked) = (session.config().version >= 3, false, false, None);
        loop {
            let received = match frame::decode(rest, limits::FRAME_BYTES_MAX) {
                Ok(Some((frame, length))) => {
                    rest = &rest[length..];
                    arrived.count(&frame, length);
                    heartbeat |= matches!(frame, Frame::Ping { .. });
                    answer |= matches!(frame, Frame::Pong { .. } | Frame::Ack { .. });
                    session.receive(frame, now)
                }
                Ok(None) => break,
                Err(error) => Err(error.into()),
            };
            match received {
                Ok(Received::Nothing) => {}
                Ok(Received::Ack { received }) => acked = Some(received),
                Ok(received) => batch.push(received),
                Err(error) => {
                    result = Err((closure(&error, 0), error.to_string()));
                    break;
                }
            }
        }
        let peer = session.peer().filter(|_| !known).map(|hello| hello.node.clone());
        let late = session.late_replies() > late_before;
        let leaves = !left && session.peer_leaves().is_some();
        if acks && let Some(received) = arrived.ack(heartbeat) {
            one.ack = Some(received);
        }
        if let (Some(received), Some(kept)) = (acked, &mut one.kept) {
            self.judge.reach(Branch::Acked);
            if let Err(error) = kept.acked(received) {
                result = Err((Closure::Rule(Rule::Ack), error.to_string()));
            }
        }
        if rest.len() < inbox.len() {
            self.heard(end, answer);
        }
        if late {
            self.reach(Branch::LateReply);
        }
        if leaves {
            self.fact(Fact::DrainHeard { end });
        }
        if let Some(peer) = peer {
            // Before the first message is handled: the peer may have been declared lost meanwhile.
            self.attach(end, peer);
            if self.ends[end as usize].over.is_some() {
                return Ok(());
            }
        }
        let mut violation = Ok(());
        for received in batch {
            match received {
                Received::Nothing | Received::Ack { .. } | Received::Define { .. } => {}
                // Not sent by these nodes; an intruder may.
                Received::Undelivered { .. } => {}
                Received::Item { to, payload } => violation = violation.and(self.item_arrives(to, &payload)),
                Received::More { request, count } => {
                    violation = violation.and(self.more_arrives(end, request, count));
                }
                Received::Reply { to, payload } => {
                    let verdict = match codec::decode::<Reply>(&payload) {
                        Ok(Reply { op, error: false, told }) => (Verdict::Replied { to: op }, told),
                        Ok(Reply { op, error: true, told }) => (Verdict::HandlerError { to: op }, told),
                        Err(_) => (Verdict::Decode { reply: true }, Told::Nothing),
                    };
                    self.answered(to, verdict.0, verdict.1);
                }
                Received::Failure { to, error } => self.resolve(to, Verdict::of(&error)),
                Received::Cancel { request } => self.cancel_arrives(end, request),
                Received::Request { request, target, deadline, payload, .. } => {
                    if violation.is_ok() {
                        let deadline = deadline.instant().map(|at| self.time(self.node_at(end), at));
                        violation = self.request(end, request, target, deadline, &payload);
                    }
                }
            }
        }
        let unread = BytesMut::from(rest);
        self.ends[end as usize].inbox = unread;
        violation.map_err(|error| (closure(&error, 0), error.to_string()))?;
        result?;
        // What came before the end has been taken in by now.
        match ended {
            Err((Closure::CutInFrame, _)) if self.ends[end as usize].inbox.is_empty() => {
                Err((Closure::Eof, "connection closed by the peer".to_owned()))
            }
            ended => ended,
        }
    }

    /// Writes what is queued, as far as the system takes it: as `transport/src/link/writer.rs` does.
    pub(super) fn flush(&mut self, end: EndId) {
        let now = self.instant_at(end);
        let mut written = 0;
        loop {
            let one = &mut self.ends[end as usize];
            let (Some(session), Some(mut kept)) = (&mut one.session, one.kept.take()) else { return };
            if one.aside.is_empty() && kept.unwritten().is_empty() {
                if let Some(received) = one.ack.take() {
                    frame::write_bare(&mut one.aside, Head::Ack { received });
                } else {
                    if written > 0 {
                        session.handle_written(std::mem::take(&mut written), now);
                    }
                    let mut batch = BytesMut::new();
                    if kept.is_full() {
                        self.judge.reach(Branch::KeptFull);
                    } else {
                        session.take_transmit_into(&mut batch);
                    }
                    if batch.is_empty() {
                        if session.queued_bytes() == 0 {
                            one.empty_at = self.now;
                            one.exempt_bytes = 0;
                        }
                        one.kept = Some(kept);
                        return;
                    }
                    self.leaves(end, &batch);
                    kept.push(&mut batch);
                }
            }
            let mut aside = std::mem::take(&mut self.ends[end as usize].aside);
            let (is_aside, most) = (!aside.is_empty(), kept.unwritten().len().max(aside.len()));
            let count = if is_aside { self.write(end, &aside) } else { self.write(end, kept.unwritten()) };
            if is_aside {
                aside.advance(count.min(aside.len()));
            } else if count > 0 {
                written += kept.wrote(count.min(most));
            }
            let one = &mut self.ends[end as usize];
            one.aside = aside;
            one.kept = Some(kept);
            if count == 0 {
                if written > 0
                    && let Some(session) = &mut one.session
                {
                    session.handle_written(written, now);
                }
                self.reach(Branch::SocketFull);
                return;
            }
        }
    }

    /// Writes down which messages leave the session.
    fn leaves(&mut self, end: EndId, batch: &[u8]) {
        let one = &mut self.ends[end as usize];
        one.recent.clear();
        one.recent.extend_from_slice(&batch[..batch.len().min(400)]);
        let empty_at = one.empty_at;
        let mut rest = batch;
        while let Ok(Some((frame, length))) = frame::decode(rest, limits::FRAME_BYTES_MAX) {
            rest = &rest[length..];
            match frame {
                Frame::FragmentEnd { .. } => self.judge.reach(Branch::SentInFragments),
                Frame::FragmentDrop { .. } => self.judge.reach(Branch::HalfSentGivenUp),
                _ => {}
            }
            if let Frame::Ask { payload, budget, .. } | Frame::Tell { payload, budget, .. } = frame
                && let Ok(message) = codec::decode::<Message>(payload)
            {
                self.fact(Fact::Wired { op: message.op, budget_ms: budget.0, empty_at });
            }
        }
    }

    /// Passes on what the session has to tell.
    pub(super) fn events(&mut self, end: EndId) {
        loop {
            let event = self.ends[end as usize].session.as_mut().and_then(Session::poll_event);
            match event {
                None => return,
                Some(SessionEvent::Accepted { to }) => {
                    self.reach(Branch::TellFromLine);
                    self.resolve(to, Verdict::Accepted);
                }
                Some(SessionEvent::Failed { to, error }) => self.resolve(to, Verdict::of(&error)),
            }
        }
    }

    fn fails(&mut self, end: EndId, why: Closure, reason: &str) {
        match why {
            Closure::Silent { .. } => self.reach(Branch::Silent),
            Closure::NoHello => self.reach(Branch::NoHello),
            Closure::Goodbye => self.reach(Branch::Goodbye),
            Closure::CutInFrame => self.reach(Branch::CutInFrame),
            Closure::Rule(Rule::Spoofed) => self.reach(Branch::SpoofRefused),
            Closure::Rule(_) => self.reach(Branch::ForgedRefused),
            _ => {}
        }
        if matches!(why, Closure::Silent { .. } | Closure::NoHello | Closure::Rule(_) | Closure::CutInFrame)
            && self.ends[end as usize].back.away.is_none()
            && let Some(session) = &mut self.ends[end as usize].session
        {
            session.goodbye(reason);
            self.flush(end);
        }
        self.end_over(end, why, reason);
    }

    /// Ends an end: what waits fails, the connection closes, and the peer is lost.
    pub(super) fn end_over(&mut self, end: EndId, why: Closure, reason: &str) {
        let one = &mut self.ends[end as usize];
        if one.over.is_some() {
            return;
        }
        if matches!(why, Closure::OtherLane | Closure::LostBefore)
            && let Some(session) = &mut one.session
        {
            // So that the peer, if it lives, knows that this is no break.
            session.goodbye(reason);
            self.flush(end);
        }
        let one = &mut self.ends[end as usize];
        one.over = Some(why);
        let (life, peer) = (one.life, one.peer.clone());
        if let (Some(session), Some(peer)) = (&mut one.session, &peer) {
            match why {
                Closure::Quarantined => session.quarantine(peer, reason),
                _ => session.close(peer, reason),
            }
        }
        self.fact(Fact::LinkDown { end, why });
        self.nobody_comes_back(end);
        self.search_fails(end, false);
        self.events(end);
        self.close_pipe(end);
        self.ends[end as usize].flows.clear();
        self.streams_over(end);
        if let (Some(life), Some(peer)) = (life, peer)
            && matches!(self.ends[end as usize].stage, Stage::Open | Stage::Dialling { .. })
        {
            self.peer_lost(life, peer.uid.0, reason);
        }
    }

    /// Returns credit to the other end.
    pub(super) fn grant(&mut self, end: EndId, target: u64, count: u32) {
        self.answer_with(end, |session| session.grant(ActorId(target), count));
    }

    /// Lets the session queue something that never waits.
    pub(super) fn answer_with(&mut self, end: EndId, put: impl FnOnce(&mut Session<Op>)) {
        let one = &mut self.ends[end as usize];
        let Some(session) = &mut one.session else { return };
        let before = session.queued_bytes();
        put(session);
        one.exempt_bytes += session.queued_bytes().saturating_sub(before);
        self.wake(end);
    }

    /// Answers what keeps a lease.
    pub(super) fn answer_ahead(&mut self, end: EndId, request: RequestId, reply: &Reply) {
        self.ends[end as usize].asked.remove(&request.0);
        self.answer_with(end, |session| {
            // Of bounded size: it fits.
            let _ = session.reply_ahead(request, |out: &mut BytesMut| codec::encode_into(reply, out));
        });
    }

    /// Answers a request of the other end.
    pub(super) fn answer(&mut self, end: EndId, request: RequestId, answer: Result<Reply, CallError>) {
        self.ends[end as usize].asked.remove(&request.0);
        self.answer_with(end, |session| match answer {
            Ok(reply) => {
                // Of bounded size: it fits.
                let _ = session.reply(request, |out: &mut BytesMut| codec::encode_into(&reply, out));
            }
            Err(error) => session.fail(request, &error),
        });
    }
}

/// Writes a message.
pub(super) fn body(op: Op, padding: u16) -> impl FnOnce(&mut BytesMut) -> Result<(), EncodeError> {
    let message = move || Message { op, padding: "x".repeat(usize::from(padding)), control: Control::Planned };
    move |out| codec::encode_into(&message(), out)
}

/// The hello of an intruder.
pub(super) fn hello_frame(hello: &Hello) -> BytesMut {
    let mut out = BytesMut::new();
    // Plain data of bounded size: writing it cannot fail.
    let _ = frame::write(&mut out, frame::Head::Hello, |out| codec::encode_into(hello, out));
    out
}

fn closure(error: &SessionError, heard: Time) -> Closure {
    match error {
        SessionError::Silent { .. } => Closure::Silent { heard },
        SessionError::NoHello { .. } => Closure::NoHello,
        SessionError::Goodbye { .. } => Closure::Goodbye,
        SessionError::Frame(frame::FrameError::Cut { .. }) => Closure::CutInFrame,
        SessionError::Frame(_) => Closure::Rule(Rule::Frame),
        SessionError::Credit(_) => Closure::Rule(Rule::Credit),
        SessionError::HelloExpected | SessionError::HelloTwice => Closure::Rule(Rule::Hello),
        SessionError::SpoofedSource { .. } => Closure::Rule(Rule::Spoofed),
        SessionError::BadBody { .. } => Closure::Rule(Rule::Body),
        SessionError::DefineOutOfOrder { .. } => Closure::Rule(Rule::Define),
        SessionError::UndefinedMessage { .. } => Closure::Rule(Rule::Undefined),
        SessionError::FragmentsNotAgreed
        | SessionError::FragmentOutOfOrder { .. }
        | SessionError::FragmentOfNothing { .. }
        | SessionError::TooManyFragmented { .. }
        | SessionError::FragmentsTooLarge { .. }
        | SessionError::NotToBeFragmented { .. } => Closure::Rule(Rule::Fragment),
        SessionError::Resume(_) | SessionError::ResumeOutOfPlace => Closure::Rule(Rule::Ack),
        _ => Closure::Rule(Rule::Other),
    }
}
