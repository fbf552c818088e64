//! The world of a seed: hosts, clients, and what will go wrong.

use crate::params::{SECOND, Time};
use crate::random::Random;

/// One thousandth of a second.
pub(super) const MS: Time = SECOND / 1000;

/// What a seed decides before anything happens.
#[derive(Clone, Debug)]
pub struct Params {
    /// Of the chance of everything that follows.
    pub seed: u64,
    /// Machines, each with a daemon.
    pub hosts: u32,
    /// Drivers, within the cluster or outside.
    pub clients: u32,
    /// How fast the clocks of the head and of each host are, in millionths.
    pub rates: Vec<u64>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The head's process is killed at about one in so many of its writes; 0 for none.
    pub kill_one_in: u64,
    /// From here on nothing goes wrong any more.
    pub calm_at: Time,
    /// Jobs want detached actors.
    pub keepers: bool,
    /// When a client wants more isolated workers on a node than that may have, if one does.
    pub crowd_at: Option<Time>,
}

/// Something goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault<W = What> {
    /// When.
    pub at: Time,
    /// For how long.
    pub lasts: Time,
    /// What.
    pub what: W,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Nothing passes between a host and the head, in one direction or both.
    Cut {
        /// Which host; beyond them clients.
        peer: u32,
        /// What the peer says is lost.
        from: bool,
        /// What the head says is lost.
        to: bool,
    },
    /// A host stands still, with all that runs on it.
    Pause {
        /// Which.
        host: u32,
    },
    /// The head stands still.
    PauseHead,
    /// A host is switched off and on again.
    Crash {
        /// Which.
        host: u32,
    },
    /// The head is killed between two writes.
    CrashHead,
    /// The drivers of all jobs that keep detached actors are killed.
    KillKeepers,
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

impl Params {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut params = Params::draw_plain(seed);
        params.add_wishes();
        params
    }

    /// The world of a seed without detached actors, and with no more isolated workers than chance brings: what the seed meant before they were added.
    pub fn draw_plain(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hosts = random.between(1, 4) as u32;
        let clients = random.between(1, 3) as u32;
        let calm_at = random.between(15, 45) * SECOND;
        let drifts = random.one_in(2);
        let rates = (0..=hosts).map(|_| if drifts { random.between(970_000, 1_030_000) } else { 1_000_000 }).collect();
        let count = random.below(7);
        let mut faults: Vec<Fault> = (0..count).map(|_| fault(&mut random, hosts, clients, calm_at)).collect();
        faults.sort_by_key(|fault| fault.at);
        let kill_one_in = if random.one_in(2) { random.between(20, 200) } else { 0 };
        Params { seed, hosts, clients, rates, faults, kill_one_in, calm_at, keepers: false, crowd_at: None }
    }

    /// Draws detached actors and isolated workers, from a stream of their own: the rest of the world is drawn as it was without them.
    fn add_wishes(&mut self) {
        let mut random = Random::new(self.seed ^ 0x6b65_6570);
        self.keepers = random.one_in(2);
        self.crowd_at = random.one_in(12).then(|| random.between(2 * SECOND, self.calm_at));
        if self.keepers && self.hosts > 1 && !random.one_in(4) {
            // Seldom together by chance: a keeper is lost while some of its actors live where nobody hears of it.
            let at = random.between(3 * SECOND, self.calm_at - SECOND);
            let peer = random.below(u64::from(self.hosts)) as u32;
            let lasts = random.between(3_000, 14_000) * MS;
            self.faults.push(Fault { at, lasts, what: What::Cut { peer, from: true, to: true } });
            let at = at + random.between(50, 1_500) * MS;
            self.faults.push(Fault { at, lasts: 0, what: What::KillKeepers });
            self.faults.sort_by_key(|fault| fault.at);
        }
    }
}

fn fault(random: &mut Random, hosts: u32, clients: u32, calm_at: Time) -> Fault {
    let at = random.between(SECOND, calm_at);
    // Blinks, pauses about as long as a lease, and cuts that outlast every deadline.
    let (low, high) = random.pick(&[(20, 1_900), (1_900, 7_000), (7_000, 11_000), (11_000, 24_000)]);
    let lasts = random.between(low, high) * MS;
    let host = random.below(u64::from(hosts)) as u32;
    let what = match random.below(12) {
        0..=2 => What::Cut { peer: host, from: true, to: true },
        3 => What::Cut { peer: host, from: true, to: false },
        4 => What::Cut { peer: host, from: false, to: true },
        5 => What::Cut { peer: hosts + random.below(u64::from(clients)) as u32, from: true, to: true },
        6 | 7 => What::Pause { host },
        8 => What::PauseHead,
        9 => What::Crash { host },
        10 => What::CrashHead,
        _ if random.one_in(2) => What::Drain { host },
        _ => What::Remove { host },
    };
    Fault { at, lasts, what }
}
