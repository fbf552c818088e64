//! A name that another node has: waited for if that one is dead, since its lease will be over, and given up if it lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_core::NodeUid;

use crate::error::DaemonError;

/// How often a node that waits asks again.
const REST_MAX: Duration = Duration::from_secs(1);
const REST_MIN: Duration = Duration::from_millis(100);
/// A lease that was prolonged so often is that of a node that lives: a head that begins prolongs those of the dead as well, once.
const RENEWALS_OF_THE_LIVING: u32 = 3;

/// Who has the name, as the head says.
#[derive(Clone, Debug)]
pub(crate) struct NameHolder {
    pub(crate) name: Arc<str>,
    pub(crate) holder: NodeUid,
    pub(crate) address: String,
    /// The name is free then, if the lease is not prolonged until then.
    pub(crate) free_after: Duration,
}

/// The wait for a name, from one answer of the head to the next.
#[derive(Default)]
pub(crate) struct NameWait(Option<Held>);

struct Held {
    holder: NodeUid,
    /// One lease and its margin after the first answer, at most.
    lives_after: Instant,
    /// The latest moment at which the name is free, as far as was heard.
    free_at: Instant,
    renewals: u32,
}

impl NameWait {
    /// The head has answered at `now` what it was asked at `sent`. Gives after which rest to ask again.
    ///
    /// # Errors
    /// [`DaemonError::NameInUse`] once its holder has prolonged its lease beyond what it had when it was first heard of: it lives.
    pub(crate) fn wait(&mut self, found: NameHolder, sent: Instant, now: Instant) -> Result<Duration, DaemonError> {
        let NameHolder { name, holder, address, free_after } = found;
        let held = match &mut self.0 {
            Some(held) if held.holder == holder => held,
            _ => {
                tracing::warn!(%name, %holder, address, within = ?free_after, "another node has this name: it is waited for in case that node is dead");
                let free_at = now + free_after;
                self.0.insert(Held { holder, lives_after: free_at, free_at, renewals: 0 })
            }
        };
        // The head has answered somewhere between the two. What is free now was not prolonged.
        if !free_after.is_zero() && sent + free_after > held.free_at {
            held.renewals += 1;
        }
        held.free_at = held.free_at.max(now + free_after);
        if now >= held.lives_after && held.renewals >= RENEWALS_OF_THE_LIVING {
            return Err(DaemonError::NameInUse { name, holder, address });
        }
        Ok(free_after.clamp(REST_MIN, REST_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    /// Asks until the end of two leases whether the node lives that has the name; `left` says how long its lease still lasts.
    fn asked(begun: Instant, left: impl Fn(Duration) -> Duration) -> Result<(), (Duration, DaemonError)> {
        let mut wait = NameWait::default();
        let mut passed = Duration::ZERO;
        while passed < LEASE * 2 {
            let free_after = left(passed);
            let address = "10.0.0.1:6380".to_owned();
            let found = NameHolder { name: "node-1".into(), holder: NodeUid(7), address, free_after };
            // An answer takes its time.
            let (sent, now) = (begun + passed, begun + passed + Duration::from_millis(50));
            let rest = wait.wait(found, sent, now).map_err(|error| (passed, error))?;
            assert!(rest >= REST_MIN && rest <= REST_MAX, "{rest:?}");
            passed += rest + Duration::from_millis(50);
        }
        Ok(())
    }

    #[test]
    fn a_holder_that_renews_is_alive_after_one_lease_and_no_sooner() {
        let (after, error) = asked(mobula_transport::now(), |_| LEASE).expect_err("it lives");
        assert!(after >= LEASE - REST_MAX && after <= LEASE + REST_MAX, "{after:?}");
        assert_eq!(error.exit_code(), 4);
        let text = error.to_string();
        let words = ["node-1", "0000000000000007", "10.0.0.1:6380", "--name"];
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    }

    #[test]
    fn one_that_is_dead_is_waited_for_also_when_the_head_begins_again() {
        let begun = mobula_transport::now();
        asked(begun, |passed| LEASE.saturating_sub(passed)).expect("it is dead");
        // A head that begins gives every node that it knows a whole lease.
        let restart = Duration::from_secs(6);
        let left = |passed: Duration| match passed < restart {
            true => LEASE.saturating_sub(passed),
            false => (LEASE + restart).saturating_sub(passed),
        };
        asked(begun, left).expect("it is dead");
    }
}
