//! Packed bodies.

use mobula_core::limits;
use mobula_core::packing::{PackError, unpack};

/// Any bytes are refused, or stand for a body as long as they say, which is within the limits; and a limit that is one byte less
/// refuses it before anything else is looked at.
pub(crate) fn packed(data: &[u8]) {
    let Ok(body) = unpack(data, limits::MESSAGE_BYTES_MAX) else { return };
    let declared = data.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize);
    assert_eq!(declared, Some(body.len()));
    assert!(body.len() <= data.len() * limits::PACKED_RATIO_MAX);
    if let Some(max) = body.len().checked_sub(1) {
        assert_eq!(unpack(data, max), Err(PackError::TooLarge { declared: body.len(), max }));
    }
}
