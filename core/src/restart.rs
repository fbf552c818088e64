//! Whether and when a failed actor runs again: the policy, and the decision as a plain state machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// How often a failed actor is restarted, and how long it rests before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Restarts within [`window`](Self::window). Default 3 (Erlang/OTP's supervisors use 1 in 5 s, Akka leaves it
    /// open); 0 means that the first failure ends the actor.
    pub restarts_max: u32,
    /// The span in which restarts are counted. Default 10 s.
    pub window: Duration,
    /// Rest before the first restart; doubles with each restart within the window. Default 50 ms.
    pub backoff_min: Duration,
    /// The longest rest. Default 10 s.
    pub backoff_max: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy {
            restarts_max: 3,
            window: Duration::from_secs(10),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Rest so long, then start again.
    RestartAfter(Duration),
    /// The budget is spent: end, and tell the cause.
    GiveUp,
}

/// Counts the failures of one actor against its [`RestartPolicy`].
#[derive(Clone, Debug)]
pub struct RestartBudget {
    policy: RestartPolicy,
    failures: VecDeque<Instant>,
}

impl RestartBudget {
    /// A fresh budget.
    pub fn new(policy: RestartPolicy) -> Self {
        RestartBudget { policy, failures: VecDeque::new() }
    }

    /// Records a failure at `now` and decides. `jitter` in 0..=1 places the rest within ±20 % of its nominal length,
    /// so that actors which failed together do not start together.
    pub fn on_failure(&mut self, now: Instant, jitter: f64) -> Decision {
        while self.failures.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.policy.window) {
            self.failures.pop_front();
        }
        let before = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        if before >= self.policy.restarts_max && !planted::is(Bug::BudgetEndless) {
            return Decision::GiveUp;
        }
        self.failures.push_back(now);
        let before = if planted::is(Bug::BackoffForgotten) { 0 } else { before };
        Decision::RestartAfter(backoff(self.policy.backoff_min, self.policy.backoff_max, before, jitter))
    }
}

/// The rest after a failure that had `before` others before it: `min`, doubled for each of them, `max` at most, and within
/// ±20 % of that as `jitter` in 0..=1 says.
pub fn backoff(min: Duration, max: Duration, before: u32, jitter: f64) -> Duration {
    let nominal = min.saturating_mul(2_u32.saturating_pow(before)).min(max);
    let rest_s = nominal.as_secs_f64() * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    // A policy may come from a peer: the longest rest there is must not overflow.
    Duration::try_from_secs_f64(rest_s).unwrap_or(Duration::MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn three_restarts_in_the_window_then_the_end() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(RestartPolicy::default());
        for (n, rest_ms) in [50, 100, 200].into_iter().enumerate() {
            let now = start + Duration::from_millis(10 * n as u64);
            assert_eq!(budget.on_failure(now, 0.5), Decision::RestartAfter(Duration::from_millis(rest_ms)));
        }
        assert_eq!(budget.on_failure(start + Duration::from_secs(9), 0.5), Decision::GiveUp);
    }

    #[test]
    fn failures_leave_the_window() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(RestartPolicy::default());
        for n in 0..100 {
            let now = start + Duration::from_secs(10 * n);
            assert_eq!(budget.on_failure(now, 0.5), Decision::RestartAfter(Duration::from_millis(50)));
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth_and_the_rest_below_its_maximum() {
        let now = Instant::now();
        let policy = RestartPolicy { restarts_max: 40, ..RestartPolicy::default() };
        let mut early = RestartBudget::new(policy);
        let mut late = RestartBudget::new(policy);
        assert_eq!(early.on_failure(now, 0.0), Decision::RestartAfter(Duration::from_millis(40)));
        assert_eq!(late.on_failure(now, 1.0), Decision::RestartAfter(Duration::from_millis(60)));
        for _ in 0..38 {
            let Decision::RestartAfter(rest) = late.on_failure(now, 1.0) else { panic!("within the budget") };
            assert!(rest <= Duration::from_secs(12));
        }
    }

    #[test]
    fn no_restarts_allowed() {
        let policy = RestartPolicy { restarts_max: 0, ..RestartPolicy::default() };
        assert_eq!(RestartBudget::new(policy).on_failure(Instant::now(), 0.5), Decision::GiveUp);
    }
}
