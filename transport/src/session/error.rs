//! Why a session ends.

use mobula_core::codec::DecodeError;
use mobula_core::frame::FrameError;
use mobula_core::packing::PackError;
use mobula_core::{limits, text};

use crate::credit::CreditViolation;
use crate::resume::ResumeError;

/// Why a session ends. The peer's other connections and other peers are not touched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Credit(#[from] CreditViolation),
    #[error("HelloExpected: another frame came before the peer's hello")]
    HelloExpected,
    #[error("HelloTwice: the peer sent a second hello")]
    HelloTwice,
    #[error("SpoofedSource: the peer proved to be {proven} and says that it is {claimed}")]
    SpoofedSource { proven: String, claimed: String },
    #[error("BadBody: {what}: {reason}")]
    BadBody { what: &'static str, reason: String },
    #[error("DefineOutOfOrder: message type {index} introduced, {expected} was next")]
    DefineOutOfOrder { index: u32, expected: u32 },
    #[error("TooManyMessageTypes: at most {max} per connection")]
    TooManyMessageTypes { max: usize },
    #[error("UndefinedMessage: message type {index} was never introduced")]
    UndefinedMessage { index: u32 },
    #[error("RequestTwice: request {request:x} is in progress already")]
    RequestTwice { request: u64 },
    #[error("FragmentsNotAgreed: a fragment came, and this side has not announced that it reads them")]
    FragmentsNotAgreed,
    #[error("FragmentOutOfOrder: large frame {number} begins, {expected} was next")]
    FragmentOutOfOrder { number: u32, expected: u32 },
    #[error("FragmentOfNothing: large frame {number} ends and had not begun")]
    FragmentOfNothing { number: u32 },
    #[error("TooManyFragmented: at most {max} large frames at the same time")]
    TooManyFragmented { max: usize },
    #[error("FragmentsTooLarge: unfinished large frames of more than {max} bytes together")]
    FragmentsTooLarge { max: usize },
    #[error("NotToBeFragmented: a frame of kind 0x{kind:02x} came in fragments")]
    NotToBeFragmented { kind: u8 },
    #[error("PackingNotAgreed: a packed body came, and this side has not announced that it reads them")]
    PackingNotAgreed,
    #[error(transparent)]
    Packing(#[from] PackError),
    #[error("ResumeOutOfPlace: a resume came within a session")]
    ResumeOutOfPlace,
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error("silent for {silence_ms} ms")]
    Silent { silence_ms: u64 },
    #[error("no hello within {waited_ms} ms")]
    NoHello { waited_ms: u64 },
    #[error("the peer said goodbye: {text}")]
    Goodbye { text: String },
}

/// Names from a peer reach logs and errors.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), SessionError> {
    let reason = if name.len() > limits::NAME_BYTES_MAX {
        format!("name above {} bytes", limits::NAME_BYTES_MAX)
    } else if name.chars().any(char::is_control) {
        "control character in a name".to_owned()
    } else {
        return Ok(());
    };
    Err(SessionError::BadBody { what, reason })
}

pub(super) fn bad_body(what: &'static str) -> impl FnOnce(DecodeError) -> SessionError {
    move |error| SessionError::BadBody { what, reason: cut(error.to_string()) }
}

/// Peer text that reaches logs and errors is bounded and has no control characters.
pub(crate) fn cut(peer: String) -> String {
    text::printable(&peer, limits::PEER_TEXT_BYTES_MAX)
}
