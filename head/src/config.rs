//! What can be set about the head's decisions.

use mobula_core::LeaseTimes;

/// What can be set about the head's decisions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct HeadConfig {
    /// The times of every node's lease, and of a driver's outside of the cluster. Default: those of [`LeaseTimes`]. A head that is started again
    /// must not have shorter ones than before, until the longer ones have passed.
    pub times: LeaseTimes,
}

impl HeadConfig {
    /// With these times.
    pub fn new(times: LeaseTimes) -> Self {
        HeadConfig { times }
    }
}
