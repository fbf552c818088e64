//! What a process holds in memory, as the kernel counts it.
use std::fs;

use anyhow::{Context as _, Result};

/// Bytes of this process that are in memory now.
pub(crate) fn resident_bytes() -> Result<u64> {
    status_bytes(std::process::id(), "VmRSS:")
}

/// The most bytes that a process ever had in memory, since it began or [`forget_peak`] was called.
pub(crate) fn peak_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The peak is what it holds now. See proc(5), `clear_refs`.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forgetting a peak of memory")
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading /proc")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field} in /proc"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().with_context(|| format!("{field}{line}"))?;
    Ok(kib * 1024)
}
