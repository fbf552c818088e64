//! Which process listens on a port, as far as the kernel tells this user.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use mobula_transport::tls::TlsError;

use crate::error::DaemonError;

/// `/proc/net/tcp` calls a socket that listens so.
const LISTENS: &str = "0A";

/// Who holds a port: a process with its name, or one that this user cannot see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder(Option<(u32, String)>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((pid, name)) => write!(f, "process {pid} ({name})"),
            None => f.write_str("a process that this user may not look into"),
        }
    }
}

/// Adds to a port in use who has it.
pub(crate) fn name_the_holder(error: TlsError) -> DaemonError {
    match error {
        TlsError::PortInUse { address } => DaemonError::PortInUse { address, holder: holder(address) },
        error => error.into(),
    }
}

impl Holder {
    /// Who listens on the port of `address`. May block.
    pub fn of(address: SocketAddr) -> Self {
        holder(address)
    }
}

fn holder(address: SocketAddr) -> Holder {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| sockets.iter().any(|socket| Path::new(socket) == link))
    });
    Holder(found.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, name.trim().escape_default().to_string())
    }))
}

/// The inodes of the sockets in a table of the kernel's that listen on `port`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let listens = fields.get(3) == Some(&LISTENS) && u16::from_str_radix(local, 16) == Ok(port);
        if listens { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   \
            1: 0100007F:18EB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n   \
            2: 0100007F:18EC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening(table, 6379), [4711]);
        assert!(listening("", 1).is_empty() && listening("x\ny z\n", 1).is_empty());
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let found = holder(held.local_addr().expect("bound"));
        assert_eq!(found.0.map(|(pid, _)| pid), Some(std::process::id()));
    }
}
