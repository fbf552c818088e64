//! Tasks to be submitted.

use crate::gates;

/// Squares.
#[mobula::task]
pub fn square(x: u64) -> u64 {
    x * x
}

/// Tells in which process it runs.
#[mobula::task]
pub fn process_id() -> u32 {
    std::process::id()
}

/// Waits at a gate of its process, then tells in which process it ran.
#[mobula::task]
pub fn held_process_id(gate: String) -> u32 {
    gates::pass_blocking(&gate);
    std::process::id()
}

/// Panics with `text`.
#[mobula::task]
pub fn panics(text: String) {
    panic!("{text}")
}

/// Fails with an error of its own.
#[mobula::task]
pub fn fails(text: String) -> Result<u64, String> {
    Err(text)
}
