//! Clusters of real nodes for the tests of the command: each node a process with a home of its own under one temporary directory, on a port of
//! loopback that the system chooses. All that was started ends with the [`Cluster`].

mod cluster;
mod node;
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use cluster::{Cluster, Root, running_from};
pub(crate) use mobula_integration_tests::process::{Process, Signal, wait_until};
pub(crate) use node::Node;
pub(crate) use program::{Ended, Program};

/// A bound that only something broken reaches, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The command, for the node whose home it is, with nothing of this process's environment that it would look at.
pub(crate) fn mobula(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mobula"));
    clean(&mut command);
    command.env("MOBULA_HOME", home);
    command
}

/// The program of `examples/job_program.rs`.
pub(crate) fn job_program() -> PathBuf {
    example("job_program")
}

/// A program of `examples/`.
///
/// # Panics
/// If it was not built: `cargo test` does that, but not for one `--test` alone.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("Linux");
    let built = own.parent().and_then(Path::parent).expect("a build directory").join("examples").join(name);
    assert!(built.exists(), "{}: run `cargo build -p mobula-cli --examples` first", built.display());
    built
}

/// The job program, run by hand where the node of `home` is.
pub(crate) fn outside(home: &Path) -> Command {
    outside_with(home, &job_program())
}

/// A program, run by hand where the node of `home` is.
pub(crate) fn outside_with(home: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    clean(&mut command);
    command.env("MOBULA_HOME", home).env("MOBULA_ADDRESS", "auto");
    command
}

fn clean(command: &mut Command) {
    for name in ["MOBULA_ADDRESS", "MOBULA_DRIVER", "MOBULA_NODE", "MOBULA_HOME", "MOBULA_LOG", "CUDA_VISIBLE_DEVICES"]
    {
        command.env_remove(name);
    }
}

/// Looks again and again until `look` finds something.
///
/// # Panics
/// If that takes longer than [`LONG`].
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(LONG, what, || {
        found = look();
        found.is_some()
    });
    found.expect("that was waited for")
}
