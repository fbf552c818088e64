//! What the host gives a node: descriptors, a port, and who reaches it there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use mobula_daemon::{HEAD_PORT, Holder, NODE_PORT, listening_at};

use super::Check;

/// Fewer descriptors than this are few for a node with many links.
const DESCRIPTORS_MIN: u64 = 1024;
const SAFE: &str = "TLS both ways, always: only a certificate of the cluster or a token is heard there";

pub(super) fn descriptors() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    descriptors_of(limit.current.unwrap_or(u64::MAX))
}

fn descriptors_of(soft: u64) -> Check {
    let found = format!("{soft} may be open at a time");
    match soft >= DESCRIPTORS_MIN {
        true => Check::ok("descriptors", found),
        false => Check::failed(
            "descriptors",
            found,
            format!("`ulimit -n {DESCRIPTORS_MIN}` or more, or LimitNOFILE= of the service"),
        ),
    }
}

/// The port of the node that runs in this home, or that on which one would start, and who would reach it.
pub(super) fn port_and_exposure(home: &Path, is_running: bool, asked: Option<u16>) -> [Check; 2] {
    let listens = is_running.then(|| listening_at(home)).flatten();
    if let (Some(at), None) = (listens, asked) {
        return [Check::ok("port", format!("the node of this home listens at {at}")), exposure(at)];
    }
    let default = if home.join("membership").exists() { NODE_PORT } else { HEAD_PORT };
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, asked.unwrap_or(default)));
    // Where a node was, or where somebody asks, one is to start.
    let is_wanted = asked.is_some() || home.join("membership").exists() || home.join("identity").exists();
    let port = match listens {
        Some(at) if at.port() == address.port() => Check::ok("port", format!("the node of this home listens at {at}")),
        _ => port(address, is_wanted),
    };
    let exposed = match (listens, is_running) {
        (Some(at), _) => exposure(at),
        (None, true) => Check::skipped("exposure", "the node has not said yet where it listens"),
        (None, false) => Check::skipped(
            "exposure",
            format!(
                "no node runs here; `mobula start` listens on all addresses of the host, or on that of --listen, with {SAFE}"
            ),
        ),
    };
    [port, exposed]
}

fn port(address: SocketAddr, is_wanted: bool) -> Check {
    let number = address.port();
    match TcpListener::bind(address) {
        Ok(_) => Check::ok("port", format!("{number} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let found = format!("{number} is in use by {}", Holder::of(address));
            match is_wanted {
                true => Check::failed("port", found, "start with another --port, or stop that process"),
                false => Check::skipped("port", format!("{found}: a node that is started here takes another --port")),
            }
        }
        Err(error) => Check::failed("port", format!("{number} cannot be used: {error}"), "start with another --port"),
    }
}

fn exposure(at: SocketAddr) -> Check {
    let who = match at.ip() {
        ip if ip.is_unspecified() => {
            "all addresses of this host, so whoever reaches one of them; --listen narrows that"
        }
        ip if ip.is_loopback() => "loopback: only this host reaches it, and no node elsewhere can join",
        ip if is_private(ip) => "a private address: hosts of that network reach it",
        _ => "a public address: whoever is in the Internet may reach it, unless a firewall is in front",
    };
    Check::ok("exposure", format!("it listens on {}, {who}. {SAFE}", at.ip()))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_link_local() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn few_descriptors_are_too_few() {
        assert_eq!(descriptors_of(DESCRIPTORS_MIN).state, State::Ok);
        let few = descriptors_of(DESCRIPTORS_MIN - 1);
        assert!(few.state == State::Failed && few.mend.is_some_and(|mend| mend.contains("ulimit -n 1024")));
    }

    #[test]
    fn a_port_is_free_or_somebody_has_it() {
        let held = TcpListener::bind("0.0.0.0:0").expect("a port");
        let address = held.local_addr().expect("bound");
        let used = port(address, true);
        let holder = format!("{} is in use by process {} (", address.port(), std::process::id());
        assert!(used.state == State::Failed && used.found.starts_with(&holder), "{used:?}");
        assert!(used.mend.is_some_and(|mend| mend.contains("--port")));
        assert_eq!(port(address, false).state, State::Skipped);
        drop(held);
        assert_eq!(port(address, true).state, State::Ok);
    }

    #[test]
    fn who_reaches_an_address_is_said_plainly() {
        for (ip, said) in [
            ("0.0.0.0", "all addresses of this host"),
            ("::", "all addresses of this host"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("10.0.0.1", "a private address"),
            ("192.168.7.1", "a private address"),
            ("100.64.0.1", "a private address"),
            ("fd00::1", "a private address"),
            ("203.0.113.7", "a public address"),
            ("2001:db8::1", "a public address"),
        ] {
            let check = exposure(SocketAddr::new(ip.parse().expect("an address"), 6379));
            assert!(check.found.contains(said) && check.found.contains("TLS both ways"), "{ip}: {check:?}");
        }
    }
}
