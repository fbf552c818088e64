//! Frames: one, and a stream of them in pieces.

use mobula_core::frame::{self, Frame};
use mobula_core::limits;

/// The first frame of any bytes lies within them, and is the same however much follows it.
pub(crate) fn frame(data: &[u8]) {
    for bytes_max in [limits::FRAME_BYTES_MAX, 64] {
        if let Ok(Some((whole, length))) = frame::decode(data, bytes_max) {
            assert!((6..=data.len()).contains(&length) && length <= bytes_max + 4);
            let Ok(Some((alone, again))) = frame::decode(&data[..length], bytes_max) else {
                panic!("what follows a frame changes it");
            };
            assert_eq!((whole, length), (alone, again));
            assert!(matches!(frame::decode(&data[..length - 1], bytes_max), Ok(None)), "a frame that is not whole");
        }
    }
}

/// A stream gives the same frames and the same end, whole or in pieces of any size. The first byte is the seed of the pieces.
pub(crate) fn frame_stream(data: &[u8]) {
    let Some((seed, stream)) = data.split_first() else { return };
    let whole = read(stream, |left| left);
    let mut state = u64::from(*seed) | 0x100;
    let pieces = read(stream, |left| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (1 + (state >> 33) as usize % 40).min(left)
    });
    assert_eq!(whole, pieces);
}

/// A hash of all frames, how many they were, and how the stream ended.
fn read(stream: &[u8], mut piece: impl FnMut(usize) -> usize) -> (u64, usize, String) {
    let (mut hash, mut count, mut from, mut have) = (0_u64, 0, 0, 0);
    loop {
        match frame::decode(&stream[from..have], limits::FRAME_BYTES_MAX) {
            Ok(Some((frame, length))) => {
                count += 1;
                hash = hash.wrapping_mul(31).wrapping_add(hash_of(&frame));
                from += length;
            }
            Ok(None) if have < stream.len() => have += piece(stream.len() - have),
            Ok(None) => return (hash, count, format!("{} left", have - from)),
            Err(error) => return (hash, count, error.to_string()),
        }
    }
}

fn hash_of(frame: &Frame<'_>) -> u64 {
    struct Hashed(u64);
    impl std::fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hashed = Hashed(0xcbf2_9ce4_8422_2325);
    // Its `Debug` shows every field; nothing of it is kept.
    let _ = std::fmt::Write::write_fmt(&mut hashed, format_args!("{frame:?}"));
    hashed.0
}
