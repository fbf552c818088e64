//! Where something goes: pure functions over what nodes have free. The same nodes and the same request give the same answer.
mod bundles;
mod pick;
mod room;

pub(crate) use bundles::{Layout, lay_out};
pub(crate) use pick::{Candidate, pick};
pub(crate) use room::{Room, ShareRoom};
