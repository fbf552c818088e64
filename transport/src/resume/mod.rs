//! What lets a conversation outlive its connection, beneath the session, which does not know of it.
//!
//! Each direction is one stream of frames, counted in bytes from the first. The writer [keeps](Kept) what the reader has not
//! acknowledged; the reader [counts](Arrived) the frames that came whole. When a connection breaks, its [`Absence`] says when
//! to look for the peer and when to give it up. Over the next connection each side says how much it has, and the other goes on
//! exactly there: nothing is lost, and nothing can come twice. Acks and resumes are not part of the stream: they are
//! neither counted nor kept. A connection that is mute does not break; [`Doubt`] says when to look for the peer beside it.
mod absence;
mod arrived;
mod doubt;
mod exchange;
mod kept;
mod seeking;
mod way_back;

pub use absence::{Absence, Next};
pub use arrived::Arrived;
pub use doubt::{Doubt, Suspicion};
pub(crate) use exchange::{Answer, ask_to_resume, head, hear_resume};
pub use kept::{Kept, ResumeError};
pub(crate) use seeking::{Road, ask_after, redial};
pub use way_back::{Found, Resume, Returned, Seek, WayBack};

#[cfg(test)]
mod tests;
