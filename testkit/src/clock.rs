//! Time that passes at once.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// One day: what still waits after so much virtual time would wait for ever.
pub const VIRTUAL_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

thread_local! {
    static VIRTUAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `test` on a clock that stands still while anything has something to do, and then jumps to the next timer:
/// back-offs, deadlines and time-outs pass at once, and in their order.
///
/// A [`TestCluster`](crate::TestCluster) that is started within lives on this thread and this clock, and draws its
/// uids and jitter from a seed, so that a test does the same each time. What runs on other threads is not waited for;
/// `tokio::task::spawn_blocking` is.
///
/// ```
/// use std::time::Duration;
///
/// let slept = mobula_testkit::virtual_time(async {
///     let begun = tokio::time::Instant::now();
///     tokio::time::sleep(Duration::from_secs(3600)).await;
///     begun.elapsed()
/// });
/// assert!(slept >= Duration::from_secs(3600));
/// ```
///
/// # Panics
/// If `test` does, if it waits for more than [`VIRTUAL_TIME_MAX`], or within another runtime.
pub fn virtual_time<F: Future>(test: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for the test: {error}"));
    let _virtual = Virtual::begin();
    let test = async {
        let done = timeout(VIRTUAL_TIME_MAX, test).await;
        done.unwrap_or_else(|_| panic!("the test still waits after {VIRTUAL_TIME_MAX:?} of virtual time"))
    };
    LocalSet::new().block_on(&runtime, test)
}

/// True within [`virtual_time`].
pub(crate) fn is_virtual() -> bool {
    VIRTUAL.get()
}

struct Virtual(bool);

impl Virtual {
    fn begin() -> Self {
        Virtual(VIRTUAL.replace(true))
    }
}

impl Drop for Virtual {
    fn drop(&mut self) {
        VIRTUAL.set(self.0);
    }
}
