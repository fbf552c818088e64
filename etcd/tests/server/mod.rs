//! An etcd of its own for a test: on free ports of loopback, with its data in a temporary directory, killed when it is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A server that runs, or has been killed.
pub(crate) struct Etcd {
    child: Child,
    data: TempDir,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    peers: SocketAddr,
}

impl Etcd {
    /// A new one; none where there is no etcd, which is said on standard error.
    pub(crate) fn start() -> Option<Etcd> {
        if let Err(error) = Command::new("etcd").arg("--version").stdout(Stdio::null()).status() {
            eprintln!("skipped: there is no etcd in PATH ({error}); on Debian: apt install etcd-server");
            return None;
        }
        // A port that was free may be taken in between.
        let mut tries = (0..10).map(|_| {
            let (data, address, peers) = (tempfile::tempdir().expect("a directory"), free(), free());
            Etcd { child: spawn(data.path(), address, peers), data, address, peers }
        });
        Some(tries.find_map(|mut etcd| etcd.is_there().then_some(etcd)).expect("etcd starts"))
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it on what the one before has left.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        self.child = spawn(self.data.path(), self.address, self.peers);
        assert!(self.is_there(), "etcd does not start again");
    }

    /// Its URL, as `--store` takes it.
    pub(crate) fn url(&self) -> String {
        format!("etcd://{}", self.address)
    }

    fn is_there(&mut self) -> bool {
        for _ in 0..3000 {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            if self.child.try_wait().expect("it can be waited for").is_some() {
                return false;
            }
            rest();
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(data: &std::path::Path, address: SocketAddr, peers: SocketAddr) -> Child {
    let (clients, peers) = (format!("http://{address}"), format!("http://{peers}"));
    let mut command = Command::new("etcd");
    command.args(["--data-dir".as_ref(), data.join("data").as_os_str()]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}")]);
    // What the environment says of another etcd is not for this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") && name != "ETCD_UNSUPPORTED_ARCH" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts")
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("a port")
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
fn rest() {
    std::thread::sleep(Duration::from_millis(10));
}
