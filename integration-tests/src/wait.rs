//! Waiting with a bound, for what a test waits for.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// A bound that only something broken reaches, also on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// How often a condition that nobody announces is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What `future` gives, within `bound`.
///
/// # Panics
/// If it takes longer.
#[track_caller]
pub fn within<F: Future>(bound: Duration, what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(bound, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: {what}: not within {bound:?}"),
        }
    }
}

/// Looks again and again until `look` finds something, within `bound`.
///
/// # Panics
/// If it takes longer.
pub async fn eventually<T>(bound: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + bound;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {bound:?}");
        sleep(LOOK_EVERY).await;
    }
}
