//! Bodies of messages and answers on their way into a session.
//!
//! A [`Link`](crate::Link) writes them before it locks its session: a large value would hold up everybody who shares the
//! connection, and the user's own `Serialize` might call something that locks it again.

use std::cell::Cell;

use bytes::BytesMut;
use mobula_core::codec::EncodeError;
use mobula_core::frame::Body;

/// A spare buffer of a thread is kept up to this size.
const SPARE_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// What a session takes for a body: one that is written already, or what will write it.
pub trait IntoBody {
    /// The body.
    ///
    /// # Errors
    /// [`EncodeError`] if the value cannot be written.
    fn into_body(self) -> Result<Body, EncodeError>;
}

impl IntoBody for Result<Body, EncodeError> {
    fn into_body(self) -> Result<Body, EncodeError> {
        self
    }
}

impl<F: FnOnce(&mut BytesMut) -> Result<(), EncodeError>> IntoBody for F {
    fn into_body(self) -> Result<Body, EncodeError> {
        Body::write(SPARE.take().unwrap_or_default(), self)
    }
}

/// Keeps a buffer for the next body of this thread.
#[inline]
pub(crate) fn spare(body: Body) {
    let buffer = body.into_buffer();
    if buffer.capacity() <= SPARE_BYTES_MAX {
        SPARE.set(Some(buffer));
    }
}
