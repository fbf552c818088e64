//! The network: bytes that take their time, in order, in pieces; ways that are cut; connections that end.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Event, World};
use crate::fact::EndId;
use crate::params::Time;
use crate::reach::Branch;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) from: Option<u8>,
    pub(super) to: Option<u8>,
    /// Who writes it, and reads the other one of the pair. None: it was left.
    pub(super) owner: Option<EndId>,
    pieces: VecDeque<(Time, Bytes)>,
    bytes: usize,
    last: Time,
    /// The sender has closed it.
    pub(super) fin: Option<Time>,
    /// The connection is reset.
    pub(super) reset: Option<Time>,
    /// Reset after so many bytes.
    pub(super) reset_after: Option<usize>,
    pub(super) stalled: u32,
    /// Nothing comes through any more, for ever.
    pub(super) mute: bool,
    /// Its sender vanished without a word.
    pub(super) dead: bool,
    /// Bytes were lost in a cut.
    pub(super) doomed: bool,
    /// The writer waits for room.
    pub(super) wants_room: bool,
}

/// What is between each two nodes.
#[derive(Debug)]
pub(super) struct Ways {
    nodes: usize,
    cut: Vec<u32>,
    lossy: Vec<u32>,
    delay: Vec<Time>,
}

/// What a read finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Read {
    Nothing,
    Some,
    Eof,
    Reset,
}

impl Pipe {
    pub(super) fn new(owner: EndId, from: Option<u8>, to: Option<u8>) -> Self {
        Pipe { owner: Some(owner), from, to, ..Pipe::default() }
    }
}

impl Ways {
    pub(super) fn new(nodes: usize) -> Self {
        Ways { nodes, cut: vec![0; nodes * nodes], lossy: vec![0; nodes * nodes], delay: vec![0; nodes * nodes] }
    }

    fn at(&self, from: u8, to: u8) -> usize {
        usize::from(from) * self.nodes + usize::from(to)
    }

    pub(super) fn cut(&mut self, from: u8, to: u8, lossy: bool, by: i32) {
        let at = self.at(from, to);
        self.cut[at] = self.cut[at].saturating_add_signed(by);
        if lossy {
            self.lossy[at] = self.lossy[at].saturating_add_signed(by);
        }
    }

    pub(super) fn delay(&mut self, from: u8, to: u8, by: Time) {
        let at = self.at(from, to);
        self.delay[at] = by;
    }

    fn of<T: Copy + Default>(&self, list: &[T], pipe: &Pipe) -> T {
        match (pipe.from, pipe.to) {
            (Some(from), Some(to)) => list[self.at(from, to)],
            _ => T::default(),
        }
    }
}

impl World<'_> {
    /// Writes what fits; the rest has to wait for room.
    pub(super) fn write(&mut self, end: EndId, bytes: &[u8]) -> usize {
        let pipe = self.ends[end as usize].pipe;
        if self.pipes[pipe as usize].owner != Some(end) {
            return 0;
        }
        let room = self.params.socket_bytes.saturating_sub(self.pipes[pipe as usize].bytes);
        let mut count = room.min(bytes.len());
        if let Some(left) = self.pipes[pipe as usize].reset_after {
            count = count.min(left);
        }
        self.send(end, &bytes[..count]);
        if let Some(left) = &mut self.pipes[pipe as usize].reset_after {
            *left -= count;
            if *left == 0 {
                self.reach(Branch::Reset);
                self.reset(end, false);
                return bytes.len();
            }
        }
        if count < bytes.len() {
            self.pipes[pipe as usize].wants_room = true;
        }
        count
    }

    /// Puts bytes on the way, whatever their number.
    pub(super) fn send(&mut self, end: EndId, mut bytes: &[u8]) {
        let number = self.ends[end as usize].pipe;
        let pipe = &self.pipes[number as usize];
        if pipe.owner != Some(end) || !self.is_read(number) || pipe.reset.is_some() || pipe.dead {
            return;
        }
        let (cut, lossy) = (self.ways.of(&self.ways.cut, pipe), self.ways.of(&self.ways.lossy, pipe));
        let delay = self.ways.of(&self.ways.delay, pipe);
        if cut > 0 && lossy > 0 {
            self.pipes[number as usize].doomed = true;
        }
        while !bytes.is_empty() {
            let length =
                if self.random.one_in(3) { 1 + self.random.below(bytes.len() as u64) as usize } else { bytes.len() };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            let way = self.params.latency + self.random.below(self.params.jitter) + self.random.below(delay);
            let pipe = &mut self.pipes[number as usize];
            let ready = pipe.last.max(self.now + way);
            pipe.last = ready;
            pipe.bytes += piece.len();
            pipe.pieces.push_back((ready, Bytes::copy_from_slice(piece)));
            self.plan(ready, Event::Arrive(number ^ 1));
        }
    }

    /// Reads what has come to `end`.
    pub(super) fn read(&mut self, end: EndId, into: &mut BytesMut) -> Read {
        let own = self.ends[end as usize].pipe;
        if self.pipes[own as usize].owner != Some(end) {
            return Read::Nothing;
        }
        let pipe = &mut self.pipes[(own ^ 1) as usize];
        let reset = pipe.reset.is_some_and(|at| at <= self.now) && pipe.pieces.is_empty();
        if reset {
            return Read::Reset;
        }
        let cut = match (pipe.from, pipe.to) {
            (Some(from), Some(to)) => self.ways.cut[usize::from(from) * self.ways.nodes + usize::from(to)],
            _ => 0,
        };
        if cut > 0 || pipe.stalled > 0 || pipe.mute || pipe.dead {
            return Read::Nothing;
        }
        let mut read = 0;
        while read < READ_BYTES
            && let Some((ready, _)) = pipe.pieces.front()
            && *ready <= self.now
            && let Some((_, piece)) = pipe.pieces.pop_front()
        {
            into.extend_from_slice(&piece);
            read += piece.len();
        }
        pipe.bytes -= read;
        if read > 0 {
            let more = pipe.pieces.front().is_some_and(|(ready, _)| *ready <= self.now);
            let ended = pipe.pieces.is_empty() && (pipe.fin.is_some() || pipe.reset.is_some());
            let room = std::mem::take(&mut pipe.wants_room);
            if more || ended {
                self.plan(self.now + 1, Event::Arrive(own));
            }
            if room {
                self.plan(self.now + self.params.latency, Event::Arrive(own ^ 1));
            }
            return Read::Some;
        }
        if pipe.pieces.is_empty() && pipe.fin.is_some_and(|at| at <= self.now) { Read::Eof } else { Read::Nothing }
    }

    /// The sender closes its direction; what is under way still comes.
    pub(super) fn close_pipe(&mut self, end: EndId) {
        let number = self.ends[end as usize].pipe;
        let pipe = &mut self.pipes[number as usize];
        let at = pipe.last.max(self.now + self.params.latency);
        if !pipe.dead && pipe.fin.is_none() && pipe.owner == Some(end) {
            pipe.fin = Some(at);
            self.plan(at, Event::Arrive(number ^ 1));
        }
    }

    /// The connection is reset; with `at_once`, what is under way is lost.
    pub(super) fn reset(&mut self, end: EndId, at_once: bool) {
        self.reset_pipe(self.ends[end as usize].pipe, at_once);
    }

    /// As [`reset`](Self::reset), by one of its pipes.
    pub(super) fn reset_pipe(&mut self, pipe: EndId, at_once: bool) {
        for number in [pipe, pipe ^ 1] {
            let pipe = &mut self.pipes[number as usize];
            if at_once {
                pipe.bytes = 0;
                pipe.pieces.clear();
            }
            let at = if at_once { self.now } else { pipe.last.max(self.now + self.params.latency) };
            pipe.reset.get_or_insert(at);
            self.plan(at, Event::Arrive(number ^ 1));
        }
    }

    /// A way is open again: what was held back comes, or, where bytes were lost, a reset does.
    pub(super) fn way_opens(&mut self, from: u8, to: u8) {
        for number in 0..self.pipes.len() as EndId {
            let read = self.is_read(number);
            let pipe = &mut self.pipes[number as usize];
            if (pipe.from, pipe.to) == (Some(from), Some(to)) && read {
                if std::mem::take(&mut pipe.doomed) {
                    self.reset_pipe(number, true);
                }
                self.plan(self.now + self.params.latency, Event::Arrive(number ^ 1));
            }
        }
    }

    /// True if somebody reads the pipe.
    fn is_read(&self, pipe: EndId) -> bool {
        self.pipes[(pipe ^ 1) as usize].owner.is_some_and(|end| self.ends[end as usize].over.is_none())
    }

    /// Something has come for whoever reads beside this pipe.
    pub(super) fn arrives(&mut self, pipe: EndId) {
        if let Some(end) = self.pipes[pipe as usize].owner {
            self.wake(end);
        }
    }
}

/// What one read takes at most, as in the real driver.
const READ_BYTES: usize = 64 * 1024;
