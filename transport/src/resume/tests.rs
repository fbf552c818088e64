//! Two lives of the resume machines under any schedule of cuts, lost tails and acks.

use bytes::{Buf, BytesMut};
use mobula_core::SplitMix64;
use mobula_core::frame::{self, Frame, Head};
use mobula_core::limits;

use super::kept::ResumeError;
use super::{Arrived, Kept};

/// One side: what it sends, what it has, and its end of the connection.
struct Side {
    kept: Kept,
    arrived: Arrived,
    /// On its way to the other side.
    wire: BytesMut,
    /// Read and not yet a whole frame.
    buffer: BytesMut,
    sent: u64,
    heard: u64,
    ack: Option<u64>,
    batch: BytesMut,
}

const BYTES_MAX: usize = 20_000;

impl Side {
    fn new() -> Self {
        Side {
            kept: Kept::with_bytes_max(BYTES_MAX),
            arrived: Arrived::default(),
            wire: BytesMut::new(),
            buffer: BytesMut::new(),
            sent: 0,
            heard: 0,
            ack: None,
            batch: BytesMut::new(),
        }
    }

    fn send(&mut self, count: u64, padding: usize) {
        if self.kept.is_full() {
            return;
        }
        for _ in 0..count {
            let sent = self.sent;
            self.sent += 1;
            let body = |out: &mut BytesMut| {
                out.extend_from_slice(&sent.to_be_bytes());
                out.resize(out.len() + padding, 0xc0);
                Ok(())
            };
            frame::write(&mut self.batch, Head::Hello, body).expect("small");
        }
        self.kept.push(&mut self.batch);
        assert!(self.batch.is_empty());
    }

    /// Writes at most so many bytes; an ack only where a frame has ended.
    fn write(&mut self, most: usize) {
        if self.kept.unwritten().is_empty()
            && let Some(received) = self.ack.take()
        {
            frame::write_bare(&mut self.wire, Head::Ack { received });
        }
        let piece = self.kept.unwritten();
        let count = piece.len().min(most);
        self.wire.extend_from_slice(&piece[..count]);
        assert!(self.kept.wrote(count) <= count);
    }

    fn read(&mut self, from: &mut BytesMut, most: usize) {
        self.buffer.extend_from_slice(&from.split_to(from.len().min(most)));
        while let Some((frame, length)) = frame::decode(&self.buffer, limits::FRAME_BYTES_MAX).expect("whole frames") {
            self.arrived.count(&frame, length);
            match frame {
                Frame::Ack { received } => self.kept.acked(received).expect("honest"),
                Frame::Hello { body } => {
                    let number = u64::from_be_bytes(*body.first_chunk().expect("a number"));
                    assert_eq!(number, self.heard, "lost, doubled or out of order");
                    self.heard += 1;
                }
                other => panic!("{other:?}"),
            }
            self.buffer.advance(length);
        }
    }
}

/// The connection breaks: of what is under way nothing more arrives, and what came of a frame is dropped.
fn reconnect(sides: &mut [Side; 2]) {
    for side in sides.iter_mut() {
        side.wire.clear();
        side.buffer.clear();
        side.ack = None;
        side.arrived.told();
    }
    let [one, other] = sides;
    one.kept.resume(other.arrived.received()).expect("still kept");
    other.kept.resume(one.arrived.received()).expect("still kept");
}

fn run(seed: u64) -> u64 {
    let mut random = SplitMix64::new(seed);
    let mut sides = [Side::new(), Side::new()];
    let mut cuts = 0;
    for _ in 0..2_000 {
        let from = (random.bits() % 2) as usize;
        let number = random.bits();
        match random.bits() % 16 {
            0..=3 => sides[from].send(1 + number % 40, (number >> 8) as usize % 60),
            4 => sides[from].send(1, (number >> 8) as usize % 9_000),
            5..=8 => sides[from].write(number as usize % 3_000),
            9..=12 => {
                let mut wire = std::mem::take(&mut sides[from].wire);
                sides[1 - from].read(&mut wire, number as usize % 3_000);
                wire.unsplit(std::mem::take(&mut sides[from].wire));
                sides[from].wire = wire;
            }
            13 | 14 => sides[from].ack = Some(sides[from].arrived.received()),
            _ => {
                cuts += 1;
                reconnect(&mut sides);
            }
        }
        for side in &sides {
            // One batch may pass the bound.
            assert!(side.kept.kept_bytes() <= BYTES_MAX + 40 * 80 + 9_100, "{}", side.kept.kept_bytes());
        }
    }
    reconnect(&mut sides);
    for _ in 0..200 {
        for from in 0..2 {
            while !sides[from].kept.unwritten().is_empty() {
                sides[from].write(usize::MAX);
            }
            let mut wire = std::mem::take(&mut sides[from].wire);
            sides[1 - from].read(&mut wire, usize::MAX);
        }
    }
    for from in 0..2 {
        assert_eq!(sides[1 - from].heard, sides[from].sent, "seed {seed}: some are lost");
        assert!(sides[from].sent > 0);
        let received = sides[1 - from].arrived.received();
        sides[from].kept.acked(received).expect("honest");
        assert_eq!(sides[from].kept.kept_bytes(), 0, "seed {seed}: what is acknowledged is not kept");
    }
    cuts
}

#[test]
fn nothing_is_lost_doubled_or_reordered_under_any_schedule_of_cuts() {
    let cuts: u64 = (0..300).map(run).sum();
    assert!(cuts > 10_000, "{cuts}");
}

#[test]
fn what_a_peer_cannot_have_is_refused() {
    let mut kept = Kept::new(true);
    let mut batch = BytesMut::from(&[1_u8; 100][..]);
    kept.push(&mut batch);
    assert_eq!(kept.acked(1), Err(ResumeError::AckOfNothing { received: 1, written: 0 }));
    assert_eq!(kept.wrote(60), 60);
    assert_eq!(kept.acked(60), Ok(()));
    assert_eq!(kept.acked(59), Ok(()), "an old ack means nothing");
    assert_eq!(kept.resume(61), Err(ResumeError::AckOfNothing { received: 61, written: 60 }));
    assert_eq!(kept.resume(59), Err(ResumeError::NotKept { received: 59, acked: 60 }));
    assert_eq!(kept.resume(60), Ok(()));
    assert_eq!(kept.unwritten().len(), 40);
}

#[test]
fn a_peer_may_have_what_was_offered_and_is_not_known_to_be_written() {
    let mut kept = Kept::new(true);
    kept.push(&mut BytesMut::from(&[1_u8; 100][..]));
    // A wire that encrypts has sent 60 of them, and takes the rest later.
    assert_eq!(kept.unwritten().len(), 100);
    assert_eq!(kept.acked(60), Ok(()));
    assert_eq!(kept.unwritten().len(), 100, "it has to be offered again as it was");
    kept.push(&mut BytesMut::from(&vec![2_u8; 70_000][..]));
    assert_eq!(kept.resume(101).unwrap_err(), ResumeError::AckOfNothing { received: 101, written: 100 });
    assert_eq!(kept.resume(80), Ok(()));
    assert_eq!((kept.caught_up(), kept.written_bytes()), (80, 80), "the session hears that they have left");
    assert_eq!(kept.unwritten().len(), 20);
    assert_eq!(kept.wrote(20), 20);
    assert_eq!(kept.unwritten().len(), 70_000);
}

#[test]
fn what_is_sent_again_is_not_counted_again() {
    let mut kept = Kept::new(true);
    for part in 0..3_u8 {
        kept.push(&mut BytesMut::from(&vec![part; 5_000][..]));
    }
    while !kept.unwritten().is_empty() {
        let piece = kept.unwritten().len();
        assert_eq!(kept.wrote(piece), piece);
    }
    kept.resume(7_000).expect("kept");
    assert_eq!((kept.unwritten()[0], kept.unwritten().len()), (1, 3_000));
    kept.push(&mut BytesMut::from(&[9_u8; 10][..]));
    let mut first = 0;
    let mut again = Vec::new();
    while !kept.unwritten().is_empty() {
        let piece = kept.unwritten().to_vec();
        first += kept.wrote(piece.len());
        again.extend(piece);
    }
    assert_eq!((first, again.len()), (10, 8_010));
    assert_eq!(again[8_000..], [9; 10]);
}

#[test]
fn without_a_way_back_nothing_is_kept() {
    let mut kept = Kept::new(false);
    for _ in 0..1_000 {
        kept.push(&mut BytesMut::from(&[7_u8; 100][..]));
        assert_eq!(kept.unwritten().len(), 100);
        assert_eq!(kept.wrote(100), 100);
        assert_eq!((kept.kept_bytes(), kept.is_full()), (0, false));
    }
    assert_eq!(kept.acked(100_000), Ok(()));
    assert!(kept.acked(100_001).is_err());
}

#[test]
fn acks_are_due_after_so_many_bytes_and_with_a_heartbeat() {
    let mut arrived = Arrived::default();
    assert_eq!(arrived.ack(true), None);
    let hello = Frame::Hello { body: &[] };
    arrived.count(&hello, limits::ACK_BYTES as usize - 1);
    arrived.count(&Frame::Ack { received: 1 }, 14);
    assert_eq!(arrived.ack(false), None);
    arrived.count(&hello, 1);
    assert_eq!(arrived.ack(false), Some(limits::ACK_BYTES));
    arrived.count(&hello, 6);
    assert_eq!((arrived.ack(false), arrived.ack(true)), (None, Some(limits::ACK_BYTES + 6)));
    assert_eq!(arrived.ack(true), None);
}
