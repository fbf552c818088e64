//! The world of a seed: hosts, clients, and what will go wrong.

use crate::head::params::MS;
use crate::params::{SECOND, Time};
use crate::random::Random;

/// What a seed decides before anything happens.
#[derive(Clone, Debug)]
pub struct Params {
    /// Of the chance of everything that follows.
    pub seed: u64,
    /// Machines, each with a node.
    pub hosts: u32,
    /// Drivers outside the cluster, and people who submit jobs.
    pub clients: u32,
    /// What a message takes at least.
    pub latency: Time,
    /// And at most in addition.
    pub jitter: Time,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The head's process is killed at about one in so many of its writes; 0 for none.
    pub kill_one_in: u64,
    /// From here on nothing goes wrong any more.
    pub calm_at: Time,
}

/// Something goes wrong.
pub type Fault = crate::head::Fault<What>;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// What passes between a host or a client and the head is lost, in one direction or both.
    Cut {
        /// Which host; beyond them clients.
        peer: u32,
        /// What the peer says is lost.
        from: bool,
        /// What the head says is lost.
        to: bool,
    },
    /// What passes between a host or a client and the head waits until it is over.
    Hold {
        /// Which host; beyond them clients.
        peer: u32,
    },
    /// What passes between a host or a client and the head may take so long.
    Delay {
        /// Which host; beyond them clients.
        peer: u32,
        /// At most.
        by: Time,
    },
    /// The head's process is killed.
    CrashHead {
        /// With its machine: nobody is told that its connections are gone.
        silent: bool,
    },
    /// A host's daemon is killed, with all that it has started.
    Crash {
        /// Which.
        host: u32,
        /// With its machine.
        silent: bool,
        /// It does not know who it was before.
        forgets: bool,
    },
    /// A host's daemon is told to stop.
    Stop {
        /// Which.
        host: u32,
    },
    /// An operator drains a host's node.
    Drain {
        /// Which.
        host: u32,
    },
    /// An operator removes a host's node.
    Remove {
        /// Which.
        host: u32,
    },
}

impl What {
    /// Which way is another while it lasts.
    pub(super) fn peer(self) -> Option<u32> {
        match self {
            What::Cut { peer, .. } | What::Hold { peer } | What::Delay { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Which host it is about.
    pub(super) fn host(self) -> Option<u32> {
        match self {
            What::Crash { host, .. } | What::Stop { host } | What::Drain { host } | What::Remove { host } => Some(host),
            _ => None,
        }
    }
}

impl Params {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7431_6864);
        let hosts = random.between(1, 4) as u32;
        let clients = random.between(1, 3) as u32;
        let calm_at = random.between(15, 40) * SECOND;
        let (latency, jitter) = (random.pick(&[MS, 5 * MS]), random.pick(&[0, 10 * MS, 60 * MS]));
        let count = random.below(7);
        let mut faults: Vec<Fault> = (0..count).map(|_| fault(&mut random, hosts, clients, calm_at)).collect();
        faults.sort_by_key(|fault| fault.at);
        let kill_one_in = if random.one_in(3) { random.between(20, 200) } else { 0 };
        Params { seed, hosts, clients, latency, jitter, faults, kill_one_in, calm_at }
    }
}

fn fault(random: &mut Random, hosts: u32, clients: u32, calm_at: Time) -> Fault {
    let at = random.between(SECOND, calm_at);
    // Blinks, cuts about as long as a lease, and those that outlast every deadline.
    let (low, high) = random.pick(&[(20, 1_900), (1_900, 7_000), (7_000, 11_000), (11_000, 24_000)]);
    let lasts = random.between(low, high) * MS;
    let host = random.below(u64::from(hosts)) as u32;
    let peer = random.below(u64::from(hosts + clients)) as u32;
    let what = match random.below(16) {
        0 | 1 => What::Cut { peer: host, from: true, to: true },
        2 | 3 => What::Cut { peer: host, from: true, to: false },
        4 | 5 => What::Cut { peer: host, from: false, to: true },
        6 => What::Cut { peer: hosts + random.below(u64::from(clients)) as u32, from: true, to: true },
        7 | 8 => What::Hold { peer },
        9 => What::Delay { peer, by: random.pick(&[400 * MS, 2 * SECOND, 6 * SECOND]) },
        10 | 11 => What::CrashHead { silent: random.one_in(2) },
        12 | 13 => What::Crash { host, silent: random.one_in(2), forgets: random.one_in(2) },
        14 => What::Stop { host },
        _ if random.one_in(2) => What::Drain { host },
        _ => What::Remove { host },
    };
    Fault { at, lasts, what }
}
