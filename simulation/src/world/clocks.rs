//! Clocks: each node's runs a little faster or slower than the world's, and may jump ahead. A node reads no other.

use std::time::{Duration, Instant};

use mobula_core::Deadline;

use super::World;
use crate::params::Time;

pub(super) struct Clocks {
    base: Instant,
    /// By node: parts per million that it runs ahead.
    ppm: Vec<i32>,
    /// By node: how far it has jumped ahead.
    ahead: Vec<Time>,
}

const MILLION: i128 = 1_000_000;

impl Clocks {
    pub(super) fn new(base: Instant, ppm: Vec<i32>) -> Self {
        let ahead = vec![0; ppm.len()];
        Clocks { base, ppm, ahead }
    }

    fn rate(&self, node: u8) -> i128 {
        MILLION + i128::from(self.ppm[usize::from(node)])
    }

    /// What the node's clock shows at `at`.
    fn instant(&self, node: u8, at: Time) -> Instant {
        let local = i128::from(at) * self.rate(node) / MILLION;
        self.base + Duration::from_micros(local as u64 + self.ahead[usize::from(node)])
    }

    /// The first moment of the world at which the node's clock shows no less than `at`.
    fn time(&self, node: u8, at: Instant) -> Time {
        let local = at.saturating_duration_since(self.base).as_nanos().div_ceil(1000) as u64;
        let local = local.saturating_sub(self.ahead[usize::from(node)]);
        let rate = self.rate(node);
        ((i128::from(local) * MILLION + rate - 1) / rate) as Time
    }

    pub(super) fn jump(&mut self, node: u8, by: Time) {
        self.ahead[usize::from(node)] += by;
    }
}

impl World<'_> {
    /// Now, by the clock of `node`.
    pub(super) fn instant(&self, node: u8) -> Instant {
        self.clocks.instant(node, self.now)
    }

    /// The world's time when the clock of `node` shows `at`.
    pub(super) fn time(&self, node: u8, at: Instant) -> Time {
        self.clocks.time(node, at)
    }

    /// The world's time when so much has passed by the clock of `node`.
    pub(super) fn after(&self, node: u8, span: Time) -> Time {
        self.time(node, self.instant(node) + Duration::from_micros(span))
    }

    pub(super) fn deadline(&self, node: u8, at: Option<Time>) -> Deadline {
        at.map_or(Deadline::NEVER, |at| Deadline::at(self.clocks.instant(node, at)))
    }

    /// The node that a life runs on.
    pub(super) fn node_of(&self, life: crate::fact::LifeId) -> u8 {
        self.lives[life as usize].node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn time_is_found_again() {
        let mut clocks = Clocks::new(Instant::now(), vec![0, 9_000, -9_000]);
        for node in 0..3 {
            for at in [0, 1, 999, 1_000_001, 77_777_777] {
                let found = clocks.time(node, clocks.instant(node, at));
                assert!(found <= at && at - found <= 1, "{node} {at} {found}");
            }
        }
        clocks.jump(1, 500);
        assert_eq!(clocks.time(1, clocks.instant(1, 1_000_000)), 1_000_000);
        assert!(clocks.instant(1, 0) > clocks.instant(0, 0));
    }
}
