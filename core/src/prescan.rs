//! Walks MessagePack bytes from a peer before serde sees them.
//!
//! serde recurses as deep as the input says, and rmp-serde's depth limit does not count enums: 120 kB of
//! nested one-key maps abort the process. [`prescan`] reads the same bytes with a loop, allocates nothing, and
//! lets through only what is one complete value within [`PrescanLimits`].
//!
//! It checks structure alone: that strings are UTF-8 and that values have the expected types stays serde's part.
//!
//! | marker                         | after it                            | size of what follows                |
//! |--------------------------------|-------------------------------------|-------------------------------------|
//! | `00-7f` `e0-ff` `c0` `c2` `c3` | nothing                             | 0 bytes                             |
//! | `ca-d3`                        | a number                            | 1, 2, 4 or 8 bytes                  |
//! | `d4-d8`                        | type, data                          | 2, 3, 5, 9 or 17 bytes              |
//! | `a0-bf` `d9-db` `c4-c6`        | length unless in the marker, data   | as declared, in bytes               |
//! | `c7-c9`                        | length, type, data                  | as declared, in bytes               |
//! | `90-9f` `dc` `dd`              | count unless in the marker, items   | as declared, in values              |
//! | `80-8f` `de` `df`              | count unless in the marker, entries | twice the declared count, in values |
//! | `c1`                           | refused: reserved by the format     |                                     |

use crate::limits::DEPTH_MAX;

/// 1,000,000: the most values inside the arrays and maps of one payload.
pub const ELEMENTS_MAX: u32 = 1_000_000;

/// Checks that `bytes` are exactly one complete MessagePack value within `limits`.
///
/// Takes time in proportion to the number of values read (strings and binaries are skipped, not read), never
/// recurses and never allocates. It stops at the first fault, which is the one reported.
/// # Errors
/// [`PrescanError`] names the limit or the offset. The bytes are unfit for decoding; nothing else is affected.
pub fn prescan(bytes: &[u8], limits: &PrescanLimits) -> Result<(), PrescanError> {
    let limit = limits.depth_max.min(DEPTH_MAX);
    let mut cursor = Cursor { bytes, offset: 0, elements_left: limits.elements_max, elements_max: limits.elements_max };
    if let Some(mut left) = cursor.value()? {
        if limit == 0 {
            return Err(PrescanError::TooDeep { limit });
        }
        // Most messages are one flat map: they end here, before the 256 bytes that `nested` has to clear.
        while left > 0 {
            left -= 1;
            if let Some(inner) = cursor.value()? {
                nested(&mut cursor, left, inner, limit)?;
                break;
            }
        }
    }
    match cursor.have() {
        0 => Ok(()),
        extra => Err(PrescanError::TrailingBytes { extra }),
    }
}

/// What a payload from a peer may contain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrescanLimits {
    /// Arrays and maps open at once, empty ones too; a lone scalar has depth 0. Default [`DEPTH_MAX`], which is also
    /// what a larger value means. Each level costs the decoder one or more stack frames.
    pub depth_max: usize,
    /// Values inside all arrays and maps together; a map entry is two, its key and its value. Default
    /// [`ELEMENTS_MAX`]. Bounds the decoder's time and, times the size of the decoded type, its memory.
    pub elements_max: u32,
}

impl Default for PrescanLimits {
    fn default() -> Self {
        PrescanLimits { depth_max: DEPTH_MAX, elements_max: ELEMENTS_MAX }
    }
}

/// Why a payload was refused. Offsets count bytes from the start of the payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrescanError {
    /// An array or map lies inside `limit` others.
    #[error("TooDeep: arrays and maps are nested deeper than {limit}")]
    TooDeep {
        /// The depth that was allowed.
        limit: usize,
    },
    /// The arrays and maps hold more values than allowed. Known from the declared counts, before the values are read.
    #[error("TooManyElements: more than {limit} values in arrays and maps")]
    TooManyElements {
        /// The number of values that was allowed.
        limit: u32,
    },
    /// A declared length or count cannot fit into what is left of the payload.
    #[error("LengthBeyondFrame: the value at byte {offset} declares {declared} to follow, {have} bytes are left")]
    LengthBeyondFrame {
        /// Where the marker of the value stands.
        offset: usize,
        /// Bytes for a string, binary or extension; values, each at least one byte, for an array or map.
        declared: u64,
        /// Bytes left after the length.
        have: usize,
    },
    /// The payload goes on after its one value.
    #[error("TrailingBytes: {extra} bytes after the end of the value")]
    TrailingBytes {
        /// Bytes too many.
        extra: usize,
    },
    /// The payload ends inside a number, a length or a fixed-size extension, or where a value has to begin.
    #[error("Truncated: the value at byte {offset} is cut short")]
    Truncated {
        /// Where the marker of the value stands, or would stand.
        offset: usize,
    },
    /// The marker `0xc1`, which the format reserves and never uses.
    #[error("ReservedMarker: 0xc1 at byte {offset}")]
    ReservedMarker {
        /// Where it stands.
        offset: usize,
    },
}

/// Reads the `inner` values of a container of the second level, then the `left` values of the first.
fn nested(cursor: &mut Cursor<'_>, mut left: u32, inner: u32, limit: usize) -> Result<(), PrescanError> {
    let mut outer = [0; DEPTH_MAX];
    let outer = &mut outer[..limit - 1];
    let mut depth = 0;
    let mut opened = Some(inner);
    loop {
        if let Some(values) = opened {
            *outer.get_mut(depth).ok_or(PrescanError::TooDeep { limit })? = left;
            depth += 1;
            left = values;
        }
        while left == 0 {
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
            left = outer[depth];
        }
        left -= 1;
        opened = cursor.value()?;
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    elements_left: u32,
    elements_max: u32,
}

impl Cursor<'_> {
    /// Passes over one scalar, or over the header of an array or map, whose number of values it returns.
    #[inline(always)]
    fn value(&mut self) -> Result<Option<u32>, PrescanError> {
        let start = self.offset;
        let Some(&marker) = self.bytes.get(start) else {
            return Err(PrescanError::Truncated { offset: start });
        };
        self.offset += 1;
        match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(None),
            0x80..=0x8f => self.open(start, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => self.open(start, u64::from(marker & 0x0f)),
            0xa0..=0xbf => self.skip(start, u64::from(marker & 0x1f)),
            0xc1 => Err(PrescanError::ReservedMarker { offset: start }),
            0xc4 | 0xd9 => self.data::<1>(start),
            0xc5 | 0xda => self.data::<2>(start),
            0xc6 | 0xdb => self.data::<4>(start),
            0xc7 => self.extension::<1>(start),
            0xc8 => self.extension::<2>(start),
            0xc9 => self.extension::<4>(start),
            0xcc | 0xd0 => self.fixed(start, 1),
            0xcd | 0xd1 | 0xd4 => self.fixed(start, 2),
            0xd5 => self.fixed(start, 3),
            0xca | 0xce | 0xd2 => self.fixed(start, 4),
            0xd6 => self.fixed(start, 5),
            0xcb | 0xcf | 0xd3 => self.fixed(start, 8),
            0xd7 => self.fixed(start, 9),
            0xd8 => self.fixed(start, 17),
            0xdc => self.items::<2>(start, 1),
            0xdd => self.items::<4>(start, 1),
            0xde => self.items::<2>(start, 2),
            0xdf => self.items::<4>(start, 2),
        }
    }

    #[inline(always)]
    fn data<const N: usize>(&mut self, start: usize) -> Result<Option<u32>, PrescanError> {
        let declared = self.length::<N>(start)?;
        self.skip(start, declared)
    }

    #[inline(always)]
    fn extension<const N: usize>(&mut self, start: usize) -> Result<Option<u32>, PrescanError> {
        let declared = self.length::<N>(start)?;
        self.fixed(start, 1)?;
        self.skip(start, declared)
    }

    #[inline(always)]
    fn items<const N: usize>(&mut self, start: usize, values_each: u64) -> Result<Option<u32>, PrescanError> {
        let declared = self.length::<N>(start)?;
        self.open(start, declared * values_each)
    }

    /// Passes over `size` bytes that the marker alone announces.
    #[inline(always)]
    fn fixed(&mut self, start: usize, size: usize) -> Result<Option<u32>, PrescanError> {
        if size > self.have() {
            return Err(PrescanError::Truncated { offset: start });
        }
        self.offset += size;
        Ok(None)
    }

    /// Reads a big-endian length of `N` bytes.
    #[inline(always)]
    fn length<const N: usize>(&mut self, start: usize) -> Result<u64, PrescanError> {
        let Some(digits) = self.bytes[self.offset..].first_chunk::<N>() else {
            return Err(PrescanError::Truncated { offset: start });
        };
        self.offset += N;
        Ok(digits.iter().fold(0, |length, digit| length << 8 | u64::from(*digit)))
    }

    #[inline(always)]
    fn skip(&mut self, start: usize, declared: u64) -> Result<Option<u32>, PrescanError> {
        self.fits(start, declared)?;
        self.offset += declared as usize;
        Ok(None)
    }

    #[inline(always)]
    fn open(&mut self, start: usize, declared: u64) -> Result<Option<u32>, PrescanError> {
        // A value takes at least one byte, so a count above the rest is false whatever follows.
        self.fits(start, declared)?;
        if declared > u64::from(self.elements_left) {
            return Err(PrescanError::TooManyElements { limit: self.elements_max });
        }
        self.elements_left -= declared as u32;
        Ok(Some(declared as u32))
    }

    #[inline(always)]
    fn fits(&self, start: usize, declared: u64) -> Result<(), PrescanError> {
        let have = self.have();
        if declared > have as u64 {
            return Err(PrescanError::LengthBeyondFrame { offset: start, declared, have });
        }
        Ok(())
    }

    #[inline(always)]
    fn have(&self) -> usize {
        self.bytes.len() - self.offset
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<(), PrescanError> {
        prescan(bytes, &PrescanLimits::default())
    }

    /// `levels` arrays of one value, each inside the one before; the innermost holds nil.
    fn nest(levels: usize) -> Vec<u8> {
        let mut bytes = vec![0x91; levels];
        bytes.push(0xc0);
        bytes
    }

    /// One array of `count` nils.
    fn array(count: u32) -> Vec<u8> {
        let mut bytes = vec![0xdd];
        bytes.extend(count.to_be_bytes());
        bytes.resize(bytes.len() + count as usize, 0xc0);
        bytes
    }

    /// A complete value for every marker of the format but `c1`: marker, length, type, data.
    fn value_of(marker: u8) -> Vec<u8> {
        let rest: &[u8] = match marker {
            0x80..=0x8f => &[7; 30][..2 * usize::from(marker & 0x0f)],
            0x90..=0x9f => &[7; 15][..usize::from(marker & 0x0f)],
            0xa0..=0xbf => &[b'x'; 31][..usize::from(marker & 0x1f)],
            0xc4 | 0xd9 => b"\x03abc",
            0xc5 | 0xda => b"\0\x03abc",
            0xc6 | 0xdb => b"\0\0\0\x03abc",
            0xc7 => b"\x03tabc",
            0xc8 => b"\0\x03tabc",
            0xc9 => b"\0\0\0\x03tabc",
            0xcc | 0xd0 => b"1",
            0xcd | 0xd1 => b"12",
            0xca | 0xce | 0xd2 => b"1234",
            0xcb | 0xcf | 0xd3 => b"12345678",
            0xd4 => b"t1",
            0xd5 => b"t12",
            0xd6 => b"t1234",
            0xd7 => b"t12345678",
            0xd8 => b"t1234567812345678",
            0xdc => b"\0\x02\x07\x07",
            0xdd => b"\0\0\0\x02\x07\x07",
            0xde => b"\0\x01\x07\x07",
            0xdf => b"\0\0\0\x01\x07\x07",
            _ => b"",
        };
        [&[marker], rest].concat()
    }

    fn is_incomplete(result: Result<(), PrescanError>) -> bool {
        matches!(result, Err(PrescanError::Truncated { .. } | PrescanError::LengthBeyondFrame { .. }))
    }

    #[test]
    fn every_marker() {
        for marker in (0..=0xff).filter(|marker| *marker != 0xc1) {
            let mut bytes = value_of(marker);
            assert_eq!(scan(&bytes), Ok(()), "{bytes:02x?}");
            for end in 0..bytes.len() {
                assert!(is_incomplete(scan(&bytes[..end])), "{:02x?}", &bytes[..end]);
            }
            bytes.push(0);
            assert_eq!(scan(&bytes), Err(PrescanError::TrailingBytes { extra: 1 }), "{bytes:02x?}");
        }
        assert_eq!(scan(&[0xc1]), Err(PrescanError::ReservedMarker { offset: 0 }));
        assert_eq!(scan(&[0x92, 0x07, 0xc1]), Err(PrescanError::ReservedMarker { offset: 2 }));
    }

    #[test]
    fn every_marker_inside_others() {
        let mut bytes = vec![0xdc, 0, 255];
        bytes.extend((0..=0xff).filter(|marker| *marker != 0xc1).flat_map(value_of));
        assert_eq!(scan(&bytes), Ok(()));
        for end in 0..bytes.len() {
            assert!(is_incomplete(scan(&bytes[..end])), "cut to {end} bytes");
        }
        bytes.extend([1, 2]);
        assert_eq!(scan(&bytes), Err(PrescanError::TrailingBytes { extra: 2 }));
    }

    #[test]
    fn what_is_cut_short_is_named() {
        assert_eq!(scan(&[]), Err(PrescanError::Truncated { offset: 0 }));
        assert_eq!(scan(&[0xcf, 1, 2, 3]), Err(PrescanError::Truncated { offset: 0 }));
        assert_eq!(scan(&[0x92, 0xcd, 1]), Err(PrescanError::Truncated { offset: 1 }));
        assert_eq!(scan(&[0x91, 0xc7, 1]), Err(PrescanError::Truncated { offset: 1 }));
        assert_eq!(scan(&[0x92, 0x91, 0x07]), Err(PrescanError::Truncated { offset: 3 }));
    }

    #[test]
    fn declared_length() {
        let scan_of = |declared: u8| scan(&[0x91, 0xd9, declared, b'a', b'b', b'c']);
        assert_eq!(scan_of(2), Err(PrescanError::TrailingBytes { extra: 1 }));
        assert_eq!(scan_of(3), Ok(()));
        assert_eq!(scan_of(4), Err(PrescanError::LengthBeyondFrame { offset: 1, declared: 4, have: 3 }));
        assert_eq!(
            scan(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0]),
            Err(PrescanError::LengthBeyondFrame { offset: 0, declared: 4_294_967_295, have: 1 })
        );
    }

    #[test]
    fn declared_count() {
        assert_eq!(
            scan(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
            Err(PrescanError::LengthBeyondFrame { offset: 0, declared: 4_294_967_295, have: 0 })
        );
        assert_eq!(
            scan(&[0x91, 0xdf, 0xff, 0xff, 0xff, 0xff, 0, 0]),
            Err(PrescanError::LengthBeyondFrame { offset: 1, declared: 8_589_934_590, have: 2 })
        );
        assert_eq!(scan(&[0x82, 0, 0, 0]), Err(PrescanError::LengthBeyondFrame { offset: 0, declared: 4, have: 3 }));
    }

    #[test]
    fn depth() {
        let limit = DEPTH_MAX;
        assert_eq!(scan(&nest(limit - 1)), Ok(()));
        assert_eq!(scan(&nest(limit)), Ok(()));
        assert_eq!(scan(&nest(limit + 1)), Err(PrescanError::TooDeep { limit }));

        let ends_in_empty_map = |levels| [vec![0x91; levels - 1], vec![0x80]].concat();
        assert_eq!(scan(&ends_in_empty_map(limit)), Ok(()));
        assert_eq!(scan(&ends_in_empty_map(limit + 1)), Err(PrescanError::TooDeep { limit }));
    }

    #[test]
    fn depth_of_other_limits() {
        let scan_with = |depth_max, levels| {
            let limits = PrescanLimits { depth_max, ..PrescanLimits::default() };
            prescan(&nest(levels), &limits)
        };
        for limit in 0..4 {
            assert_eq!(scan_with(limit, limit), Ok(()));
            assert_eq!(scan_with(limit, limit + 1), Err(PrescanError::TooDeep { limit }));
        }
        assert_eq!(scan_with(usize::MAX, DEPTH_MAX), Ok(()));
        assert_eq!(scan_with(usize::MAX, DEPTH_MAX + 1), Err(PrescanError::TooDeep { limit: DEPTH_MAX }));
    }

    #[test]
    fn depth_returns_when_values_end() {
        let branch = nest(DEPTH_MAX - 1);
        let bytes = [&[0x93], &branch[..], &[0x07], &branch[..]].concat();
        assert_eq!(scan(&bytes), Ok(()));
    }

    #[test]
    fn half_a_million_one_entry_maps() {
        let bytes = [0x81, 0x00].repeat(500_000);
        assert_eq!(scan(&bytes), Err(PrescanError::TooDeep { limit: DEPTH_MAX }));
    }

    #[test]
    fn elements() {
        let limit = ELEMENTS_MAX;
        assert_eq!(scan(&array(limit - 1)), Ok(()));
        assert_eq!(scan(&array(limit)), Ok(()));
        assert_eq!(scan(&array(limit + 1)), Err(PrescanError::TooManyElements { limit }));
    }

    #[test]
    fn elements_of_all_containers_count() {
        // The outer array has 2, the map 1 entry of 2, the inner array 3.
        let bytes = [0x92, 0x81, 0x00, 0x00, 0x93, 0x00, 0x00, 0x00];
        let scan_with = |elements_max| prescan(&bytes, &PrescanLimits { elements_max, ..PrescanLimits::default() });
        assert_eq!(scan_with(8), Ok(()));
        assert_eq!(scan_with(7), Ok(()));
        assert_eq!(scan_with(6), Err(PrescanError::TooManyElements { limit: 6 }));
    }

    #[test]
    fn agrees_with_the_decoder_on_random_bytes() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..200_000 {
            // Half of the bytes are containers and strings, or else most inputs would end at a first scalar.
            let bytes: Vec<u8> = (0..1 + next() % 24)
                .map(|_| if next() % 2 == 0 { 0x80 + (next() % 0x60) as u8 } else { next() as u8 })
                .collect();
            let mut decoder = rmp_serde::Deserializer::new(&bytes[..]);
            let decoded = serde::de::IgnoredAny::deserialize(&mut decoder);
            match scan(&bytes) {
                Ok(()) => {
                    accepted += 1;
                    assert!(decoded.is_ok() && decoder.get_ref().is_empty(), "{bytes:02x?}: {decoded:?}");
                }
                Err(PrescanError::TrailingBytes { extra }) => {
                    assert!(decoded.is_ok() && decoder.get_ref().len() == extra, "{bytes:02x?}: {decoded:?}");
                }
                Err(_) => {
                    refused += 1;
                    assert!(decoded.is_err(), "{bytes:02x?}");
                }
            }
        }
        assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
    }
}
