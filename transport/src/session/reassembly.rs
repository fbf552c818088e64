//! Fragments of the peer's large frames, put together again. Memory grows with what has arrived.

use std::time::Instant;

use bytes::BytesMut;
use mobula_core::limits;

use super::error::SessionError;

struct Part {
    number: u32,
    began: Instant,
    bytes: BytesMut,
}

#[derive(Default)]
pub(super) struct Reassembly {
    parts: Vec<Part>,
    next_number: u32,
    bytes: usize,
}

impl Reassembly {
    /// Bytes of frames that are not complete.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a fragment after which more come.
    pub(super) fn add(&mut self, number: u32, bytes: &[u8], now: Instant) -> Result<(), SessionError> {
        let at = match self.parts.iter().position(|part| part.number == number) {
            Some(at) => at,
            None => self.begin(number, now)?,
        };
        self.append(at, bytes)
    }

    /// Takes in a last fragment. Returns the whole frame and when its first fragment came.
    pub(super) fn end(&mut self, number: u32, bytes: &[u8]) -> Result<(BytesMut, Instant), SessionError> {
        let at = self.find(number)?;
        self.append(at, bytes)?;
        Ok(self.remove(at))
    }

    /// Forgets a frame that the peer has given up.
    pub(super) fn give_up(&mut self, number: u32) -> Result<(), SessionError> {
        let at = self.find(number)?;
        self.remove(at);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    fn begin(&mut self, number: u32, now: Instant) -> Result<usize, SessionError> {
        if number != self.next_number {
            return Err(SessionError::FragmentOutOfOrder { number, expected: self.next_number });
        }
        if self.parts.len() >= limits::FRAGMENTED_MAX {
            return Err(SessionError::TooManyFragmented { max: limits::FRAGMENTED_MAX });
        }
        self.next_number = number.wrapping_add(1);
        self.parts.push(Part { number, began: now, bytes: BytesMut::new() });
        Ok(self.parts.len() - 1)
    }

    fn find(&self, number: u32) -> Result<usize, SessionError> {
        let found = self.parts.iter().position(|part| part.number == number);
        found.ok_or(SessionError::FragmentOfNothing { number })
    }

    fn append(&mut self, at: usize, bytes: &[u8]) -> Result<(), SessionError> {
        if self.bytes + bytes.len() > limits::MESSAGE_BYTES_MAX {
            return Err(SessionError::FragmentsTooLarge { max: limits::MESSAGE_BYTES_MAX });
        }
        self.bytes += bytes.len();
        self.parts[at].bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn remove(&mut self, at: usize) -> (BytesMut, Instant) {
        let Part { bytes, began, .. } = self.parts.swap_remove(at);
        self.bytes -= bytes.len();
        (bytes, began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the origin of the time that the tests hand out")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn frames_come_together_beside_each_other() {
        let mut reassembly = Reassembly::default();
        let now = start();
        let later = now + std::time::Duration::from_secs(1);
        reassembly.add(0, b"he", now).expect("begins");
        reassembly.add(1, b"good", later).expect("begins");
        reassembly.add(0, b"ll", later).expect("goes on");
        assert_eq!(reassembly.bytes(), 8);
        assert_eq!(reassembly.end(0, b"o"), Ok((BytesMut::from("hello"), now)));
        assert_eq!(reassembly.end(1, b"bye"), Ok((BytesMut::from("goodbye"), later)));
        assert_eq!(reassembly.bytes(), 0);
    }

    #[test]
    fn what_was_given_up_is_forgotten_and_its_number_is_not_used_again() {
        let mut reassembly = Reassembly::default();
        let now = start();
        reassembly.add(0, b"he", now).expect("begins");
        reassembly.give_up(0).expect("it had begun");
        assert_eq!(reassembly.bytes(), 0);
        assert_eq!(reassembly.end(0, b"o"), Err(SessionError::FragmentOfNothing { number: 0 }));
        assert_eq!(reassembly.give_up(0), Err(SessionError::FragmentOfNothing { number: 0 }));
        let again = reassembly.add(0, b"he", now);
        assert_eq!(again, Err(SessionError::FragmentOutOfOrder { number: 0, expected: 1 }));
    }

    #[test]
    fn one_more_than_may_be_on_their_way_is_refused() {
        let mut reassembly = Reassembly::default();
        let max = limits::FRAGMENTED_MAX;
        for number in 0..max as u32 {
            reassembly.add(number, b"x", start()).expect("within the limit");
        }
        let more = reassembly.add(max as u32, b"x", start());
        assert_eq!(more, Err(SessionError::TooManyFragmented { max }));
        reassembly.end(3, b"x").expect("it had begun");
        reassembly.add(max as u32, b"x", start()).expect("there is room again");
    }

    #[test]
    fn all_unfinished_frames_together_are_bounded() {
        let mut reassembly = Reassembly { bytes: limits::MESSAGE_BYTES_MAX - 3, ..Reassembly::default() };
        reassembly.add(0, b"ab", start()).expect("one byte less");
        reassembly.add(0, b"c", start()).expect("exactly the limit");
        let more = reassembly.add(0, b"d", start());
        assert_eq!(more, Err(SessionError::FragmentsTooLarge { max: limits::MESSAGE_BYTES_MAX }));
    }
}
