//! Bodies that travel compressed, where both ends have said that they read them: LZ4, block by block.
//!
//! | offset | bytes | field    | meaning                                                          |
//! |-------:|------:|----------|------------------------------------------------------------------|
//! |      0 |     4 | unpacked | bytes of the body as it was                                      |
//! |      4 |     … | blocks   | each a length u32 and so many bytes                              |
//! |      … |  rest | filling  | zeros, up to a [share](limits::PACKED_RATIO_MAX) of the unpacked |
//!
//! A block holds [`limits::PACK_BLOCK_BYTES`] of the body, the last one what is left; so nothing in it says how much it unpacks
//! to. One whose length is just that holds them as they are, else they are an LZ4 block of its own.
//!
//! What is announced is compared with the limits and with what has come before anything is allocated, and memory grows with what
//! was really unpacked.

use bytes::{Buf, BufMut, BytesMut};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::limits;

/// After so many blocks that brought nothing, the rest is not tried.
const TRIED_BLOCKS: usize = 4;

/// What is packed has to save a sixteenth at least.
const SAVED_SHARE: usize = 16;

/// A packed body breaks the rules; its connection is closed, others are not touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// More is announced than a message may have. Nothing was allocated for it.
    #[error("PackedTooLarge: a body of {declared} bytes was announced, at most {max} are accepted")]
    TooLarge {
        /// Bytes of the body, as it says.
        declared: usize,
        /// The limit.
        max: usize,
    },
    /// More is announced than so few bytes may stand for. Nothing was allocated for it.
    #[error("PackedTooTight: {declared} bytes were announced in {have}, at most {ratio_max} times as many may be")]
    TooTight {
        /// Bytes of the body, as it says.
        declared: usize,
        /// Bytes that came.
        have: usize,
        /// The limit, [`limits::PACKED_RATIO_MAX`].
        ratio_max: usize,
    },
    /// It ends within a length or a block.
    #[error("PackedTruncated: block {block} needs {need} bytes, {have} are there")]
    Truncated {
        /// Which block, from 0.
        block: usize,
        /// Bytes that it takes.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A block is longer than what it stands for.
    #[error("PackedBlockTooLarge: block {block} has {bytes} bytes, and stands for {max}")]
    BlockTooLarge {
        /// Which block, from 0.
        block: usize,
        /// Its bytes.
        bytes: usize,
        /// What it stands for.
        max: usize,
    },
    /// A block is no LZ4, or would unpack to more than it stands for.
    #[error("PackedCorrupt: block {block} is not LZ4 of {expected} bytes")]
    Corrupt {
        /// Which block, from 0.
        block: usize,
        /// What it stands for.
        expected: usize,
    },
    /// A block unpacks to less than it stands for.
    #[error("PackedWrongSize: block {block} unpacks to {found} bytes, and stands for {expected}")]
    WrongSize {
        /// Which block, from 0.
        block: usize,
        /// What it unpacks to.
        found: usize,
        /// What it stands for.
        expected: usize,
    },
    /// What follows the last block is not filling.
    #[error("PackedTrailingBytes: {extra} bytes after the last block, and not all of them are 0")]
    TrailingBytes {
        /// Bytes after the last block.
        extra: usize,
    },
}

/// The packed form of `body`, behind `room` bytes for what goes in front of it; none if it does not get shorter by a sixteenth.
pub(crate) fn pack(body: &[u8], room: usize) -> Option<BytesMut> {
    let declared = u32::try_from(body.len()).ok()?;
    let mut out = BytesMut::with_capacity(room + 4 + body.len().min(limits::PACK_BLOCK_BYTES));
    out.put_bytes(0, room);
    out.put_u32(declared);
    let is_worth_it = |out: &BytesMut, of: usize| out.len() - room <= of - of / SAVED_SHARE;
    let mut table = match body.len() {
        // So that positions fit into 16 bits.
        0..0xffff => CompressTable::small(),
        _ => CompressTable::large(),
    };
    for (number, block) in body.chunks(limits::PACK_BLOCK_BYTES).enumerate() {
        if number == TRIED_BLOCKS && !is_worth_it(&out, number * limits::PACK_BLOCK_BYTES) {
            return None;
        }
        let at = out.len() + 4;
        out.resize(at + get_maximum_output_size(block.len()), 0);
        // There is room for the worst.
        let length = compress_into_with_table(block, &mut out[at..], &mut table).unwrap_or(usize::MAX);
        if length < block.len() {
            out.truncate(at + length);
        } else {
            out.truncate(at);
            out.extend_from_slice(block);
        }
        let length = (out.len() - at) as u32;
        out[at - 4..at].copy_from_slice(&length.to_be_bytes());
    }
    if !is_worth_it(&out, body.len()) {
        return None;
    }
    let least = room + body.len().div_ceil(limits::PACKED_RATIO_MAX);
    if out.len() < least {
        out.resize(least, 0);
    }
    Some(out)
}

/// The body that `packed` stands for, if it takes at most `max` bytes.
///
/// Holds, beside the result, nothing; and that never takes more than [`limits::PACKED_RATIO_MAX`] times what `packed` does, and
/// room to grow.
///
/// # Errors
/// [`PackError`].
pub fn unpack(packed: &[u8], max: usize) -> Result<BytesMut, PackError> {
    let Some((declared, mut rest)) = packed.split_first_chunk::<4>() else {
        return Err(PackError::Truncated { block: 0, need: 4, have: packed.len() });
    };
    let declared = u32::from_be_bytes(*declared) as usize;
    if declared > max {
        return Err(PackError::TooLarge { declared, max });
    }
    if declared > packed.len().saturating_mul(limits::PACKED_RATIO_MAX) {
        let (have, ratio_max) = (packed.len(), limits::PACKED_RATIO_MAX);
        return Err(PackError::TooTight { declared, have, ratio_max });
    }
    let mut out = BytesMut::new();
    for block in 0.. {
        let expected = (declared - out.len()).min(limits::PACK_BLOCK_BYTES);
        if expected == 0 {
            break;
        }
        let truncated = |need, have| PackError::Truncated { block, need, have };
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Err(truncated(4, rest.len())) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > expected {
            return Err(PackError::BlockTooLarge { block, bytes: length, max: expected });
        }
        let Some(bytes) = after.get(..length) else { return Err(truncated(length, after.len())) };
        rest = &after[length..];
        if length == expected {
            out.extend_from_slice(bytes);
            continue;
        }
        let at = out.len();
        out.resize(at + expected, 0);
        match decompress_into(bytes, &mut out[at..]) {
            Ok(found) if found == expected => {}
            Ok(found) => return Err(PackError::WrongSize { block, found, expected }),
            Err(_) => return Err(PackError::Corrupt { block, expected }),
        }
    }
    match rest.iter().any(|byte| *byte != 0) {
        true => Err(PackError::TrailingBytes { extra: rest.remaining() }),
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = limits::PACK_BLOCK_BYTES;

    /// Bytes that do not get shorter.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as u8
        };
        std::iter::repeat_with(next).take(bytes).collect()
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..)
            .flat_map(|line: u32| format!("line {line} of the log of node-{}\n", line % 7).into_bytes())
            .take(bytes)
            .collect()
    }

    fn declared(bytes: u32, rest: &[u8]) -> Vec<u8> {
        [&bytes.to_be_bytes()[..], rest].concat()
    }

    #[test]
    fn what_is_packed_comes_back() {
        for bytes in [20, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77, 1 << 20] {
            for body in [text(bytes), vec![0; bytes], [noise(bytes / 8), text(bytes)].concat()] {
                let Some(packed) = pack(&body, 30) else {
                    assert!(body.len() < 200, "{} bytes did not get shorter", body.len());
                    continue;
                };
                assert!(packed[..30].iter().all(|byte| *byte == 0), "the room in front of it");
                assert!(packed.len() - 30 <= body.len() - body.len() / 16);
                assert!((packed.len() - 30) * limits::PACKED_RATIO_MAX >= body.len(), "a peer would refuse it");
                assert_eq!(unpack(&packed[30..], body.len()), Ok(BytesMut::from(&body[..])));
            }
        }
    }

    #[test]
    fn what_does_not_get_shorter_stays_as_it_is() {
        for bytes in [0, 1, 10, 1000, BLOCK, 3 * BLOCK, 100 * BLOCK] {
            assert_eq!(pack(&noise(bytes), 30), None, "{bytes}");
        }
        // Not even what follows the beginning, if that is long.
        assert_eq!(pack(&[noise(4 * BLOCK), text(BLOCK)].concat(), 0), None);
        // Blocks that bring nothing are kept as they are between others.
        let mixed = [text(BLOCK), noise(BLOCK), text(BLOCK)].concat();
        let packed = pack(&mixed, 0).expect("two thirds of it get shorter");
        assert!(packed.windows(8).any(|window| *window == mixed[BLOCK..BLOCK + 8]));
        assert_eq!(unpack(&packed, mixed.len()), Ok(BytesMut::from(&mixed[..])));
    }

    #[test]
    fn the_size_of_the_body_is_bounded_at_the_border() {
        let packed = pack(&text(10_000), 0).expect("a text");
        assert!(unpack(&packed, 10_001).is_ok());
        assert!(unpack(&packed, 10_000).is_ok());
        assert_eq!(unpack(&packed, 9_999), Err(PackError::TooLarge { declared: 10_000, max: 9_999 }));
        let most = declared(u32::MAX, &[0; 100]);
        let error = Err(PackError::TooLarge { declared: u32::MAX as usize, max: limits::MESSAGE_BYTES_MAX });
        assert_eq!(unpack(&most, limits::MESSAGE_BYTES_MAX), error);
    }

    #[test]
    fn the_ratio_is_bounded_at_the_border() {
        let zeros = pack(&vec![0; 1 << 20], 0).expect("zeros");
        assert_eq!(zeros.len(), (1 << 20) / limits::PACKED_RATIO_MAX, "filled up to what a peer takes");
        assert_eq!(unpack(&zeros, 1 << 20).map(|body| body.len()), Ok(1 << 20));
        let one_more = [&zeros[..], b"\0"].concat();
        assert_eq!(unpack(&one_more, 1 << 20).map(|body| body.len()), Ok(1 << 20));
        let have = zeros.len() - 1;
        let tight = PackError::TooTight { declared: 1 << 20, have, ratio_max: limits::PACKED_RATIO_MAX };
        assert_eq!(unpack(&zeros[..have], 1 << 20), Err(tight));
        // A bomb costs nothing before it is refused.
        let bomb = declared(limits::MESSAGE_BYTES_MAX as u32, &[0xff; 60_000]);
        assert!(matches!(unpack(&bomb, limits::MESSAGE_BYTES_MAX), Err(PackError::TooTight { .. })));
    }

    #[test]
    fn each_fault_has_its_error() {
        let max = limits::MESSAGE_BYTES_MAX;
        let truncated = |block, need, have| Err(PackError::Truncated { block, need, have });
        assert_eq!(unpack(b"\0\0\0", max), truncated(0, 4, 3));
        assert_eq!(unpack(&declared(5, b"\0\0\0"), max), truncated(0, 4, 3));
        assert_eq!(unpack(&declared(5, b"\0\0\0\x05abcd"), max), truncated(0, 5, 4));
        assert_eq!(unpack(&declared(5, b"\0\0\0\x05abcde"), max), Ok(BytesMut::from("abcde")));
        let large = PackError::BlockTooLarge { block: 0, bytes: 6, max: 5 };
        assert_eq!(unpack(&declared(5, b"\0\0\0\x06abcdef"), max), Err(large));
        // A literal run of 3, and of 9, where 5 are announced.
        let wrong = PackError::WrongSize { block: 0, found: 3, expected: 5 };
        assert_eq!(unpack(&declared(5, b"\0\0\0\x04\x30abc"), max), Err(wrong));
        let corrupt = PackError::Corrupt { block: 0, expected: 5 };
        assert_eq!(unpack(&declared(5, b"\0\0\0\x04\x90abc"), max), Err(corrupt));
        assert_eq!(unpack(&declared(5, b"\0\0\0\0"), max), Err(corrupt));
        // The second block is counted from 0, too.
        let second =
            [&declared(BLOCK as u32 + 5, &(BLOCK as u32).to_be_bytes())[..], &[7; BLOCK], b"\0\0\0\x02ab"].concat();
        assert!(matches!(unpack(&second, max), Err(PackError::Corrupt { block: 1, expected: 5 })));
        assert_eq!(unpack(&declared(2, b"\0\0\0\x02ab\0\0"), max), Ok(BytesMut::from("ab")));
        let trailing = PackError::TrailingBytes { extra: 2 };
        assert_eq!(unpack(&declared(2, b"\0\0\0\x02ab\0\x01"), max), Err(trailing));
        assert_eq!(unpack(&declared(0, b""), max), Ok(BytesMut::new()));
    }

    #[test]
    fn any_change_is_found_or_gives_a_body_of_the_announced_size() {
        let packed = pack(&text(3 * BLOCK / 2), 0).expect("a text");
        for at in (0..packed.len()).step_by(97).chain(0..200) {
            for bit in 0..8 {
                let mut changed = packed.clone();
                changed[at] ^= 1 << bit;
                let announced = u32::from_be_bytes([changed[0], changed[1], changed[2], changed[3]]) as usize;
                if let Ok(body) = unpack(&changed, limits::MESSAGE_BYTES_MAX) {
                    assert_eq!(body.len(), announced);
                }
            }
        }
    }
}
