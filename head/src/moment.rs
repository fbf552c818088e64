//! What a decision knows of the world: the time, the date and some chance.

use std::time::Duration;

use mobula_core::cluster::UnixTime;

/// The moment at which something is asked of the head. Given anew with each call.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the head's start, by a clock that never runs backwards.
    pub now: Duration,
    /// The date, which goes into rows and decides nothing.
    pub unix: UnixTime,
    /// 64 random bits, for the uids of what begins. From the system's source: they must not come again.
    pub chance: u64,
}
