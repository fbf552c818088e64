//! Begins what runs beside others. tokio compiles a hundred functions and more, several times over, for each type of work that it
//! is given. Work whose type depends on an actor or a message goes into a box first, so that a program pays for one type.

use std::future::Future;

use actix_rt::task::JoinHandle;
use futures::future::{FutureExt, LocalBoxFuture};

/// Runs `work` on this thread.
pub(crate) fn on_this_thread(work: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let work: LocalBoxFuture<'static, ()> = work.boxed_local();
    actix_rt::spawn(work)
}

/// Runs `work` on a thread where it may take its time.
pub(crate) fn where_it_may_block(work: impl FnOnce() + Send + 'static) {
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    tokio::task::spawn_blocking(work);
}
