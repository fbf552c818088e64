//! Faults: what they do when they begin, and what is put right when they end.

use bytes::BytesMut;
use mobula_core::frame::{self, Head, MessageIndex};
use mobula_core::{ActorId, Budget, NodeId, NodeUid, RequestId};
use mobula_transport::preface::{DIAL_BYTES, Dial, Purpose, Secret, VERSIONS, Versions};
use mobula_transport::{Hello, Lane};

use super::ends::{Stage, hello_frame};
use super::{Event, World};
use crate::fact::{Closure, EndId, Fact, LifeId};
use crate::params::{Fault, Forgery, Intruder, MS};
use crate::reach::Branch;

impl World<'_> {
    pub(super) fn fault_begins(&mut self, number: u16) {
        let plan = self.params.faults[usize::from(number)];
        self.fact(Fact::FaultBegins { fault: number });
        self.judge.line(self.now, || format!("    fault {number}: {plan:?}"));
        match plan.fault {
            Fault::Crash { node, silent } => {
                if silent {
                    self.reach(Branch::SilentCrash);
                }
                self.node_ends(node, silent);
            }
            Fault::Pause { node } => self.slots[usize::from(node)].paused += 1,
            Fault::Slow { node, by } => self.slots[usize::from(node)].slow = by,
            Fault::Cut { a, b, one_way, lossy } => self.cut(a, b, one_way, lossy, 1),
            Fault::Stall { a, b, control } => self.stall(a, b, control, true),
            Fault::Delay { a, b, by } if a != b => self.ways.delay(a, b, by),
            Fault::Delay { .. } => {}
            Fault::Reset { a, b, control, bytes } => {
                if let Some(end) = self.end_between(a, b, control) {
                    let pipe = self.ends[end as usize].pipe;
                    self.pipes[pipe as usize].reset_after = Some(usize::from(bytes) + 1);
                }
            }
            Fault::Forge { a, b, control, forgery } => {
                if let Some(end) = self.end_between(a, b, control) {
                    self.forge(end, forgery);
                }
            }
            Fault::Dial { b, intruder } => self.intrude(b, intruder),
            Fault::Jump { node, by } => {
                self.reach(Branch::ClockJumped);
                self.clocks.jump(node, by);
                // Timers that are due now.
                for end in 0..self.ends.len() as EndId {
                    if self.ends[end as usize].life.is_some_and(|life| self.node_of(life) == node) {
                        self.wake(end);
                    }
                }
            }
            Fault::Flap { .. } => self.flaps(number),
            Fault::Mute { a, b } => {
                // Without a way back it is left to the system, which gives up after a quarter of an hour.
                if let Some(end) = self.end_between(a, b, false).filter(|end| self.ends[*end as usize].back.has) {
                    let pipe = self.ends[end as usize].pipe;
                    self.pipes[pipe as usize].mute = true;
                }
            }
            Fault::Forget { a, b, control } => {
                if let Some(end) = self.end_between(b, a, control) {
                    self.reset(end, true);
                    self.end_over(end, Closure::Forgotten, "forgotten");
                }
            }
            Fault::Busy { node } => self.slots[usize::from(node)].busy += 1,
            Fault::Drain { node } => self.drain_begins(node),
        }
    }

    /// A node says to its peers, also to those that connect later, that it is about to end: as `Node::go_away` in actors.
    fn drain_begins(&mut self, node: u8) {
        let Some(life) = self.slots[usize::from(node)].life else { return };
        if std::mem::replace(&mut self.lives[life as usize].leaves, true) {
            return;
        }
        self.fact(Fact::DrainBegins { life });
        for end in 0..self.ends.len() as EndId {
            let one = &self.ends[end as usize];
            if one.life == Some(life) && one.attached && one.lane == Lane::Data && one.over.is_none() {
                self.answer_with(end, |session| session.go_away("drained"));
            }
        }
    }

    /// It ends with a goodbye to all: as `Node::shut_down`.
    fn drain_ends(&mut self, node: u8) {
        let Some(life) = self.slots[usize::from(node)].life.filter(|life| self.lives[*life as usize].leaves) else {
            return;
        };
        self.reach(Branch::Drained);
        self.fact(Fact::DrainEnds { life });
        for end in 0..self.ends.len() as EndId {
            let one = &self.ends[end as usize];
            if one.life == Some(life) && one.attached && one.over.is_none() {
                self.answer_with(end, |session| session.goodbye("drained"));
                self.flush(end);
            }
        }
        self.node_ends(node, false);
        self.plan(self.now + 500 * MS, Event::ComesBack(node));
    }

    /// A flapping way is cut, or is open again.
    pub(super) fn flaps(&mut self, number: u16) {
        let plan = self.params.faults[usize::from(number)];
        let Fault::Flap { a, b, each } = plan.fault else { return };
        if self.now >= plan.until {
            return;
        }
        let opens = self.flapping.remove(&number);
        if !opens {
            self.flapping.insert(number);
        }
        self.cut(a, b, false, false, if opens { -1 } else { 1 });
        self.plan(self.now + each, Event::Flaps(number));
    }

    /// True while a crash holds the node down.
    pub(super) fn is_crashed(&self, node: u8) -> bool {
        let down = |f: &crate::params::FaultParams| {
            matches!(f.fault, Fault::Crash { node: n, .. } if n == node) && f.at <= self.now && f.until > self.now
        };
        self.params.faults.iter().any(down)
    }

    pub(super) fn fault_ends(&mut self, number: u16) {
        let plan = self.params.faults[usize::from(number)];
        self.fact(Fact::FaultEnds { fault: number });
        match plan.fault {
            Fault::Crash { node, .. } => {
                self.machine_is_back(node);
                // Two crashes may overlap; the last one's end brings it back.
                if !self.is_crashed(node) {
                    self.plan(self.now, Event::NodeStarts(node));
                }
            }
            Fault::Pause { node } => {
                let slot = &mut self.slots[usize::from(node)];
                slot.paused -= 1;
                if slot.paused == 0 {
                    self.judge.reach(Branch::Paused);
                    for event in std::mem::take(&mut slot.deferred) {
                        self.plan(self.now, event);
                    }
                }
            }
            Fault::Busy { node } => {
                let slot = &mut self.slots[usize::from(node)];
                slot.busy -= 1;
                if slot.busy == 0 {
                    for event in std::mem::take(&mut slot.waiting) {
                        self.plan(self.now, event);
                    }
                }
            }
            Fault::Slow { node, .. } => self.slots[usize::from(node)].slow = 0,
            Fault::Cut { a, b, one_way, lossy } => {
                if one_way && plan.until - plan.at > self.params.down_after + self.params.heartbeat {
                    self.reach(Branch::OneWayCut);
                }
                self.cut(a, b, one_way, lossy, -1);
            }
            Fault::Stall { a, b, control } => self.stall(a, b, control, false),
            Fault::Delay { a, b, .. } if a != b => self.ways.delay(a, b, 0),
            // What has not come to its byte by now never does: a healed world is not to be disturbed.
            Fault::Reset { a, b, .. } => {
                for pipe in self.pipes.iter_mut().filter(|pipe| (pipe.from, pipe.to) == (Some(a), Some(b))) {
                    pipe.reset_after = None;
                }
            }
            Fault::Drain { node } => self.drain_ends(node),
            Fault::Flap { a, b, .. } if self.flapping.remove(&number) => self.cut(a, b, false, false, -1),
            _ => {}
        }
    }

    fn cut(&mut self, a: u8, b: u8, one_way: bool, lossy: bool, by: i32) {
        if a == b {
            return;
        }
        self.ways.cut(a, b, lossy, by);
        if !one_way {
            self.ways.cut(b, a, lossy, by);
        }
        if by < 0 {
            self.way_opens(a, b);
            self.way_opens(b, a);
        }
    }

    fn stall(&mut self, a: u8, b: u8, control: bool, begins: bool) {
        if begins {
            if let Some(end) = self.end_between(a, b, control) {
                let pipe = self.ends[end as usize].pipe;
                self.pipes[pipe as usize].stalled += 1;
            }
            return;
        }
        for pipe in self.pipes.iter_mut().filter(|pipe| (pipe.from, pipe.to) == (Some(a), Some(b)) && !pipe.mute) {
            pipe.stalled = 0;
        }
        self.way_opens(a, b);
    }

    /// The end at `a` of its newest connection to `b`.
    fn end_between(&self, a: u8, b: u8, control: bool) -> Option<EndId> {
        let lane = if control { Lane::Control } else { Lane::Data };
        (0..self.ends.len() as EndId).rev().find(|end| {
            let one = &self.ends[*end as usize];
            let pipe = &self.pipes[one.pipe as usize];
            one.over.is_none() && one.lane == lane && (pipe.from, pipe.to) == (Some(a), Some(b))
        })
    }

    fn forge(&mut self, end: EndId, forgery: Forgery) {
        let mut bytes = BytesMut::new();
        match forgery {
            Forgery::Noise => {
                for _ in 0..self.random.between(1, 200) {
                    bytes.extend_from_slice(&[self.random.bits() as u8]);
                }
            }
            Forgery::HugeLength => bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x11, 0]),
            Forgery::Replay => bytes.extend_from_slice(&self.ends[end as usize].recent),
            Forgery::Flip => {
                bytes.extend_from_slice(&self.ends[end as usize].recent);
                let at = self.random.below(bytes.len() as u64) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            Forgery::Frame => self.forged_frame(&mut bytes),
        }
        self.fact(Fact::Forged { end });
        // The other side may have taken the connection up for its session already, while this one has not.
        let pipe = self.ends[end as usize].pipe;
        if let Some(reader) = self.pipes[(pipe ^ 1) as usize].owner
            && reader != end ^ 1
        {
            self.fact(Fact::Forged { end: reader });
        }
        self.send(end, &bytes);
    }

    /// Well-formed, with small numbers, so that they mean something to the receiver.
    fn forged_frame(&mut self, bytes: &mut BytesMut) {
        let r = &mut self.random;
        let request = RequestId(r.below(4) << 32 | r.below(4));
        let (target, message) = (ActorId(r.below(4)), MessageIndex(r.below(2) as u32));
        let budget = Budget(r.below(2000) as u32);
        let body = r.below(256) as u8;
        match r.below(9) {
            7 => frame::write_bare(bytes, Head::FragmentDrop { number: r.below(3) as u32 }),
            8 => {
                let number = r.below(3) as u32;
                let head = if r.one_in(2) { Head::Fragment { number } } else { Head::FragmentEnd { number } };
                // As above.
                let _ = frame::write(bytes, head, |out| {
                    out.extend_from_slice(&[0x12, 0, body, 1, 2]);
                    Ok(())
                });
            }
            0 => frame::write_bare(bytes, Head::Cancel { request }),
            1 => frame::write_bare(bytes, Head::Credit { target, count: r.pick(&[0, 1, 5, u32::MAX]) }),
            2 => frame::write_bare(bytes, Head::Ping { nonce: 1 }),
            kind => {
                let head = match kind {
                    3 => Head::Reply { request },
                    4 => Head::Failure { request },
                    5 => Head::Tell { target, message, budget },
                    _ => Head::Ask { request, target, message, budget },
                };
                // A body of a few bytes fits.
                let _ = frame::write(bytes, head, |out| {
                    out.extend_from_slice(&[body, 1, 2]);
                    Ok(())
                });
            }
        }
    }

    fn intrude(&mut self, b: u8, intruder: Intruder) {
        let Some(acceptor) = self.slots[usize::from(b)].life else { return };
        let mut nonce = [9; 32];
        nonce[..8].copy_from_slice(&self.random.bits().to_be_bytes());
        let current = NodeUid(self.lives[acceptor as usize].uid);
        let lane = if self.random.one_in(2) { Lane::Control } else { Lane::Data };
        let mut dial = Dial {
            dialer: NodeUid(self.random.bits()),
            target: current,
            lane,
            versions: VERSIONS,
            purpose: Purpose::Open,
            nonce,
        };
        let own = self.secret.clone();
        let bytes: [u8; DIAL_BYTES] = match intruder {
            Intruder::Stranger => dial.encode(&Secret::from_bytes([8; 32])),
            Intruder::Replayer => {
                let heard: Vec<_> =
                    self.overheard.iter().filter(|(node, _)| *node == b).map(|(_, sent)| *sent).collect();
                let Some(sent) = (!heard.is_empty()).then(|| heard[self.random.below(heard.len() as u64) as usize])
                else {
                    return;
                };
                sent
            }
            Intruder::Stale => {
                let earlier = |life: &LifeId| {
                    let life = &self.lives[*life as usize];
                    life.node == b && !life.up
                };
                let Some(life) = (0..self.lives.len() as LifeId).find(earlier) else { return };
                dial.target = NodeUid(self.lives[life as usize].uid);
                dial.encode(&own)
            }
            Intruder::Version => {
                dial.versions = Versions { min: VERSIONS.max + 1, max: VERSIONS.max + 3 };
                dial.encode(&own)
            }
            Intruder::Spoofer | Intruder::Mute => dial.encode(&own),
        };
        let Some(end) = self.connect(None, b, b, lane, Stage::Accepting) else { return };
        self.ends[(end ^ 1) as usize].intruder = Some(intruder);
        self.fact(Fact::Forged { end });
        self.send(end, &bytes);
        if intruder == Intruder::Spoofer {
            let node = NodeId::new("node-0", current);
            let hello = Hello { node, pid: 1, capabilities: Hello::CAPABILITIES, credit_messages: 4 };
            self.send(end, &hello_frame(&hello));
        }
    }
}
