//! What the `primes` program may be asked to do; anything else is refused before a node is started.
use clap::Parser;
use clap::error::ErrorKind;

use super::kernel::Kernel;
use super::sieve::END_MAX;
use crate::cli::{NODES_MAX, whole_number};

/// Node processes, where nobody says how many.
const NODES: u32 = 3;

/// 10^12: a sieve on one core takes about ten minutes for it.
pub const N_MAX: u64 = END_MAX - 1;
/// More threads than one machine has any use for.
pub const WORKERS_PER_NODE_MAX: u32 = 256;
/// A chunk costs the driver about a hundred bytes, and a message each way.
pub const CHUNKS_MAX: usize = 1_000_000;

/// Adds up the primes from 0 to n on a cluster: one that runs, or one of local node processes.
///
/// The range is cut into chunks; worker actors pull them, two at a time, so a slow node takes fewer. When a worker is
/// lost, its chunks run on the others and the sum stays right.
#[derive(Clone, Debug, Parser)]
#[command(name = "primes", version)]
pub struct PrimesArgs {
    /// The last number to look at: 0 to 1_000_000_000_000.
    #[arg(long, default_value = "100000000", value_parser = whole_number(0..=N_MAX), allow_hyphen_values = true)]
    pub n: u64,

    /// Node processes to start on this machine. Without it, or --port, the cluster of this user that runs here is used; if there is none, 3 are
    /// started.
    #[arg(long, value_parser = whole_number(1..=NODES_MAX), allow_hyphen_values = true)]
    pub nodes: Option<u32>,

    /// Worker actors on each node, a thread each.
    #[arg(long, default_value = "1", value_parser = whole_number(1..=WORKERS_PER_NODE_MAX), allow_hyphen_values = true)]
    pub workers_per_node: u32,

    /// Pieces to cut the range into; a range of fewer numbers gives a piece for each number.
    #[arg(long, default_value = "64", value_parser = whole_number(1..=CHUNKS_MAX), allow_hyphen_values = true)]
    pub chunks: usize,

    /// How a worker finds primes. The sieve is the default: with it the default n takes a moment, by trial division
    /// about half a minute of one core.
    #[arg(long, value_enum, default_value_t = Kernel::Sieve)]
    pub kernel: Kernel,

    /// Port of the first node on loopback; the next nodes take the ports after it. Without it the system picks.
    #[arg(long, value_parser = whole_number(1..=u16::MAX), allow_hyphen_values = true)]
    pub port: Option<u16>,

    /// Print one line of JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

impl PrimesArgs {
    /// Checks what no single flag can tell: that every node's port exists.
    /// # Errors
    /// A clap error that names the flags; its `exit` prints it and ends the program with code 2.
    pub fn check(self) -> Result<PrimesArgs, clap::Error> {
        if let Some(port) = self.port {
            let port_last = u32::from(port) + self.nodes_to_start() - 1;
            if port_last > u32::from(u16::MAX) {
                let nodes = self.nodes_to_start();
                let message = format!(
                    "invalid value '{port}' for '--port <PORT>': {nodes} nodes would need the ports up to {port_last}, \
                     and the last one is 65535"
                );
                return Err(<PrimesArgs as clap::CommandFactory>::command().error(ErrorKind::ValueValidation, message));
            }
        }
        Ok(self)
    }

    /// Node processes, if any are to be started.
    pub fn nodes_to_start(&self) -> u32 {
        self.nodes.unwrap_or(NODES)
    }

    /// True if a cluster that runs already will do.
    pub fn may_join(&self) -> bool {
        self.nodes.is_none() && self.port.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<PrimesArgs, clap::Error> {
        PrimesArgs::try_parse_from(line.split_whitespace())?.check()
    }

    #[test]
    fn defaults() {
        let args = parse("primes").unwrap();
        assert_eq!((args.n, args.nodes_to_start(), args.workers_per_node, args.chunks), (100_000_000, 3, 1, 64));
        assert_eq!((args.kernel, args.port, args.json), (Kernel::Sieve, None, false));
    }

    #[test]
    fn every_flag() {
        let args =
            parse("primes --n 1_000 --nodes 2 --workers-per-node 4 --chunks=7 --kernel trial --port 7000 --json")
                .unwrap();
        assert_eq!((args.n, args.nodes_to_start(), args.workers_per_node, args.chunks), (1000, 2, 4, 7));
        assert_eq!((args.kernel, args.port, args.json), (Kernel::Trial, Some(7000), true));
    }

    #[test]
    fn the_borders_of_n() {
        assert_eq!(parse("primes --n 0").unwrap().n, 0);
        assert_eq!(parse("primes --n 1000000000000").unwrap().n, N_MAX);
    }

    #[test]
    fn refusals_name_flag_value_and_valid_form() {
        for (line, expected) in [
            ("primes --n -5", ["--n", "'-5'", "from 0 to 1000000000000"]),
            ("primes --n 1e99", ["--n", "'1e99'", "plain digits"]),
            ("primes --n 1000000000001", ["--n", "'1000000000001'", "from 0 to 1000000000000"]),
            ("primes --nodes 0", ["--nodes", "'0'", "from 1 to 128"]),
            ("primes --nodes 4294967297", ["--nodes", "'4294967297'", "from 1 to 128"]),
            ("primes --workers-per-node 0", ["--workers-per-node", "'0'", "from 1 to 256"]),
            ("primes --chunks 0", ["--chunks", "'0'", "from 1 to 1000000"]),
            ("primes --kernel magic", ["--kernel", "'magic'", "trial, sieve"]),
            ("primes --port 65536", ["--port", "'65536'", "from 1 to 65535"]),
            ("primes --port 65534", ["--port", "'65534'", "65535"]),
        ] {
            let refusal = parse(line).unwrap_err();
            assert_eq!(refusal.exit_code(), 2, "{line}");
            let text = refusal.to_string();
            for part in expected {
                assert!(text.contains(part), "{line}: {text}");
            }
        }
    }
}
