//! The rare branches of this world.

use mobula_core::cluster::{Placing, Refused};

use super::fact::Role;
use super::{Fact, Reply, World};
use crate::reach::branches;

branches! {
    Branch;
    Killed: "the head is killed",
    CameBack: "a head comes back, with jobs among its records",
    Leases: "a head comes back, with leases among its records",
    Fenced: "a node ends itself, since no answer has come",
    Silent: "a node is down, since it was silent",
    Reaped: "a node is down, since it says so or its successor does",
    LongCut: "a cut is over that has lasted longer than a lease and a margin",
    OldBeat: "a heartbeat comes after something newer",
    OldRegistration: "a registration comes after something newer",
    LeaseOver: "a node hears that its lease is over",
    Gone: "a node hears that its life is over",
    NameInUse: "a node finds that an earlier life has its name",
    Left: "a node leaves in order",
    SlowDrain: "a drained node's time is over",
    DriverRuns: "a driver begins on the cluster",
    IsolatedRuns: "a worker of one lease alone begins",
    ProcessEnded: "a client hears that the process of its lease has ended",
    ToldToEnd: "a process is told to end",
    JobLost: "a driver hears that its job has ended",
    Unheard: "a job ends of which its driver has never heard",
    Placed: "a request for resources is granted",
    Waits: "a request for resources waits",
    NoRoom: "a request for resources is refused",
    Stuck: "a request was stuck for long, and comes all the same",
}

impl World {
    pub(super) fn reach(&mut self, branch: Branch) {
        self.reached.reach(branch);
    }

    pub(super) fn reach_by_fact(&mut self, fact: &Fact) {
        let branch = match fact {
            Fact::HeadEnds => Branch::Killed,
            Fact::HeadBegins { leases, .. } if !leases.is_empty() => Branch::Leases,
            Fact::HeadBegins { jobs, .. } if !jobs.is_empty() => Branch::CameBack,
            Fact::Fenced { .. } => Branch::Fenced,
            Fact::Down { silence: true, .. } => Branch::Silent,
            Fact::Down { silence: false, .. } => Branch::Reaped,
            Fact::Heals { lasted, .. } if *lasted > super::LEASE_AND_MARGIN => Branch::LongCut,
            Fact::Begins { role: Role::Driver, .. } => Branch::DriverRuns,
            Fact::Begins { role: Role::Isolated(_), .. } => Branch::IsolatedRuns,
            Fact::Ends { told: true, .. } => Branch::ToldToEnd,
            Fact::JobHasEnded { .. } => Branch::JobLost,
            _ => return,
        };
        self.reach(branch);
    }

    pub(super) fn reach_by_reply(&mut self, reply: &Reply) {
        let refused = match reply {
            Reply::Registered(answer) => answer.as_ref().as_ref().err(),
            Reply::Beat(answer) => answer.as_ref().err(),
            Reply::Left => return self.reach(Branch::Left),
            Reply::Place(_, _, answer) => {
                return self.reach(match **answer {
                    Ok(Placing::Placed(_)) => Branch::Placed,
                    Ok(_) => Branch::Waits,
                    Err(Refused::ProcessEnded { .. }) => Branch::ProcessEnded,
                    Err(_) => Branch::NoRoom,
                });
            }
            _ => None,
        };
        match refused {
            Some(Refused::LeaseOver { .. }) => self.reach(Branch::LeaseOver),
            Some(Refused::Gone { .. }) => self.reach(Branch::Gone),
            Some(Refused::NameInUse { .. }) => self.reach(Branch::NameInUse),
            _ => {}
        }
    }
}
