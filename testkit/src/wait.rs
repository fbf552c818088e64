//! Waiting with a bound, for what a test waits for.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How often a condition that nobody announces is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What `future` gives, within `bound`.
///
/// ```
/// # use std::time::Duration;
/// # use mobula_testkit::{virtual_time, within};
/// # virtual_time(async {
/// assert_eq!(within(Duration::from_secs(1), async { 6 * 7 }).await, 42);
/// # });
/// ```
///
/// # Panics
/// With the place of the call, if it takes longer.
#[track_caller]
pub fn within<F: Future>(bound: Duration, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        match timeout(bound, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: not within {bound:?}"),
        }
    }
}

/// Waits until `condition` holds, looking again and again.
///
/// ```
/// # use std::time::Duration;
/// # use mobula_testkit::{TestCluster, eventually, virtual_time};
/// # virtual_time(async {
/// let cluster = TestCluster::start(1).await;
/// eventually(async || cluster.node(0).report().actors == 0, Duration::from_secs(1)).await;
/// # });
/// ```
///
/// # Panics
/// With the place of the call, if it takes longer than `bound`.
#[track_caller]
pub fn eventually(mut condition: impl AsyncFnMut() -> bool, bound: Duration) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + bound;
        while !condition().await {
            assert!(Instant::now() < end, "{caller}: not within {bound:?}");
            sleep(LOOK_EVERY).await;
        }
    }
}
