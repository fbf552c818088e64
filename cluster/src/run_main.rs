//! One executable, several parts: the driver, which runs the program's `main`, and nodes and workers, which do not.

use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;

use crate::node_process::{self, StartedAs};
use crate::{driver, keepers, worker_process};

/// Runs a program: in a process that a driver started as a node, the node; in one that a node of a cluster started as a worker of a
/// job, the worker; in one that it started to keep detached actors of this program, their keeper; else `body`, inside an actix `System` on
/// the current thread; as the driver of a submitted job once the node that has started it lets it. `#[mobula::main]` writes the call.
///
/// Must be the first thing `main` does. An error of `body` is printed to standard error as `error: …`, and the exit
/// code is 1.
pub fn run_main<F, R>(body: F) -> ExitCode
where
    F: Future<Output = R> + 'static,
    R: MainResult + 'static,
{
    match node_process::started_as() {
        Some(StartedAs::Node(socket)) => node_process::run(socket),
        Some(StartedAs::Worker(socket)) => worker_process::run(socket),
        None => {
            node_process::wait_for_leave_to_drive();
            if driver::is_keeper() {
                return keepers::process::run();
            }
            actix_rt::System::new().block_on(run_body(body)).exit_code()
        }
    }
}

/// As a task beside the drivers of its links, the body is woken in the same turn of the thread that reads an answer; as
/// the runtime's root it would cost a look at the poller each time.
async fn run_body<F>(body: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    match actix_rt::spawn(body).await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody else has the handle that could cancel it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What the body of [`run_main`] may return.
pub trait MainResult {
    /// The exit code; an error is printed first.
    fn exit_code(self) -> ExitCode;
}

impl MainResult for () {
    fn exit_code(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

impl MainResult for ExitCode {
    fn exit_code(self) -> ExitCode {
        self
    }
}

impl<R: MainResult, E: Display> MainResult for Result<R, E> {
    fn exit_code(self) -> ExitCode {
        match self {
            Ok(result) => result.exit_code(),
            Err(error) => {
                // `{:#}` shows the whole chain of causes where the error type has one.
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
