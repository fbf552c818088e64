//! What a host has, and how busy it is, as the kernel says.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;

use mobula_core::cluster::Usage;

/// Cores that this process may use.
pub(crate) fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

/// As in `x86_64-linux-gnu`: what a program has to be built for. See [`Platform`](mobula_core::cluster::Platform).
pub(crate) fn architecture() -> String {
    let loaders = ["/lib", "/lib64"].iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let names: Vec<String> = loaders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    format!("{}-{}{}", std::env::consts::ARCH, std::env::consts::OS, libraries(&names))
}

/// The C libraries whose programs can be started here: those of which there is a loader, `-gnu`, `-musl` or `-gnu+musl`. Where none is found nothing is
/// said, which fits every program: it may be in another place.
fn libraries(names: &[String]) -> String {
    let has = |prefixes: &[&str]| names.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    let found = [("gnu", has(&["ld-linux", "ld64.so"])), ("musl", has(&["ld-musl-"]))];
    let found: Vec<&str> = found.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
    if found.is_empty() { String::new() } else { format!("-{}", found.join("+")) }
}

/// Bytes of memory that the host has.
pub fn memory_bytes() -> u64 {
    memory().0
}

/// Bytes of memory: all, and what is in use.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = field(&text, "MemTotal:");
    (total, total.saturating_sub(field(&text, "MemAvailable:")))
}

fn field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Looks at how busy the host is since the last look.
#[derive(Default)]
pub(crate) struct Load {
    busy: u64,
    all: u64,
}

impl Load {
    pub(crate) fn look(&mut self) -> Usage {
        let (memory_total_bytes, memory_bytes) = memory();
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (busy, all) = ticks(&text);
        let (passed, worked) = (all.saturating_sub(self.all), busy.saturating_sub(self.busy));
        (self.busy, self.all) = (busy, all);
        let hundredths = (worked * 100 * u64::from(cores())).checked_div(passed).unwrap_or(0);
        Usage { cpu_percent: u32::try_from(hundredths).unwrap_or(u32::MAX), memory_bytes, memory_total_bytes }
    }
}

/// Ticks in which some core worked, and all.
fn ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    let all = ticks.iter().sum();
    // The fourth is idle, the fifth waits for a disk.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

/// The address by which others reach this host, as far as the host can know: that of the way to the rest of the world, else loopback.
/// Nothing is sent.
pub(crate) fn own_address() -> IpAddr {
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // An address for documentation (RFC 5737), which is nobody's.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let found = found.map(|address: SocketAddr| address.ip()).ok().filter(|ip| !ip.is_unspecified());
    found.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(field("MemTotal:  100 kB\nMemAvailable:  40 kB\n", "MemAvailable:"), 40 * 1024);
        assert_eq!(field("", "MemTotal:"), 0);
        assert_eq!(ticks("cpu  10 1 5 80 4 0 0 0 0 0\ncpu0 1"), (16, 100));
        assert_eq!(ticks(""), (0, 0));
        let (total, used) = memory();
        assert!(total > 0 && used < total);
        assert!(cores() > 0 && architecture().contains("linux"));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (gnu, musl) = ("ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1");
        let found = [&[gnu][..], &[musl], &["x", musl, gnu], &["x"]].map(|all| libraries(&names(all)));
        assert_eq!(found, ["-gnu", "-musl", "-gnu+musl", ""]);
    }
}
