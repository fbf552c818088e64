//! What the system says about a thread: on Linux, by `/proc`.
//!
//! It is the kernel's view: whether the thread runs or sleeps, in which call, and where in the kernel. The frames of the
//! program itself cannot be read from within without unsafe code; `gdb -p` or `perf` show them for the thread's number.

use serde::{Deserialize, Serialize};

/// A thread that an actor holds, as the system sees it. What cannot be read is left empty; all of it outside of Linux.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThreadLook {
    /// Its number, for a debugger.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `R` runs, `S` sleeps, `D` waits for a device, `T` is stopped.
    pub state: String,
    /// The function of the kernel in which it sleeps.
    pub waits_in: String,
    /// The system call that it is in, by number, with its arguments; `running` if in none.
    pub system_call: String,
    /// Its stack within the kernel, which is shown to root only. Never the frames of the program.
    pub kernel_stack: String,
}

/// Of one file of `/proc`.
const BYTES_MAX: usize = 2048;

/// The current thread's number.
pub(super) fn current() -> Option<u32> {
    std::fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

impl ThreadLook {
    /// The thread of this process with this number, as it is now.
    pub(super) fn at(number: u32) -> Self {
        let read = |what: &str| {
            let bytes = std::fs::read(format!("/proc/self/task/{number}/{what}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]).trim().to_owned()
        };
        let stat = read("stat");
        // The name before it may contain anything.
        let state = stat.rfind(')').and_then(|at| stat.get(at + 2..at + 3)).unwrap_or_default().to_owned();
        let waits_in = Some(read("wchan")).filter(|waits_in| waits_in != "0").unwrap_or_default();
        ThreadLook {
            number,
            name: read("comm"),
            state,
            waits_in,
            system_call: read("syscall"),
            kernel_stack: read("stack"),
        }
    }
}

impl std::fmt::Display for ThreadLook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} `{}` ({})", self.number, self.name, self.state)?;
        let looks = [("waits in", &self.waits_in), ("system call", &self.system_call), ("kernel", &self.kernel_stack)];
        for (what, text) in looks.into_iter().filter(|(_, text)| !text.is_empty()) {
            write!(f, ", {what} {}", text.replace('\n', " < "))?;
        }
        Ok(())
    }
}
