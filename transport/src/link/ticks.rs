//! A clock for short work: read anew only when the system's own has ticked.

use std::time::Instant;

use super::now;

/// The clock of one turn: what it says is at most one tick of the system old, 1 to 10 ms. Reading the real one takes longer than
/// the rest of what a message needs of its mailbox; looking whether there was a tick does not.
#[derive(Debug, Default)]
pub struct Ticks {
    read: Option<(Tick, Instant)>,
}

impl Ticks {
    /// About now. Within one poll of a task, since a clock that is paused or simulated stands still there.
    #[inline]
    pub fn now(&mut self) -> Instant {
        let tick = tick();
        match self.read {
            Some((before, now)) if before == tick && tick.is_some() => now,
            _ => {
                let now = now();
                self.read = Some((tick, now));
                now
            }
        }
    }
}

/// Seconds and nanoseconds of the latest tick, where that can be had for less than the time itself.
type Tick = Option<(i64, i64)>;

#[cfg(target_os = "linux")]
fn tick() -> Tick {
    let latest = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Some((latest.tv_sec, latest.tv_nsec))
}

#[cfg(not(target_os = "linux"))]
fn tick() -> Tick {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_at_most_a_tick_behind() {
        let mut ticks = Ticks::default();
        let begun = now();
        let first = ticks.now();
        assert!(first >= begun);
        let mut latest = first;
        // A tick takes 10 ms at most; a machine that is busy with others may take longer to come back here.
        while now() < begun + Duration::from_millis(50) {
            let read = ticks.now();
            assert!(read >= latest, "it goes back");
            latest = read;
        }
        assert!(latest > first, "it stands");
    }
}
