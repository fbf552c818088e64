//! The rare branches of this world.

use crate::head::LEASE_AND_MARGIN;
use crate::head::fact::{Fact, Role};
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
    OneWay: "such a cut was in one direction only",
    Held: "such a cut has only held back what was sent",
    OldBeat: "a heartbeat comes after something newer",
    OldRegistration: "a registration comes after something newer",
    NameInUse: "a node finds that an earlier life has its name",
    CutOff: "one that is cut off asks",
    Left: "a node leaves in order",
    DriverRuns: "a driver begins on the cluster",
    IsolatedRuns: "a worker of one lease alone begins",
    ToldToEnd: "a process is told to end",
    JobSeen: "a driver sees its job",
    JobLost: "a driver hears that its job has ended",
    Placed: "a request for resources is granted",
    NoRoom: "a request for resources is refused",
    Returned: "a lease is given back",
}

pub(super) fn of_fact(fact: &Fact) -> Option<Branch> {
    Some(match fact {
        Fact::HeadEnds => Branch::Killed,
        Fact::HeadBegins { leases, .. } if !leases.is_empty() => Branch::Leases,
        Fact::HeadBegins { jobs, .. } if !jobs.is_empty() => Branch::CameBack,
        Fact::Fenced { .. } => Branch::Fenced,
        Fact::Down { silence: true, .. } => Branch::Silent,
        Fact::Down { silence: false, .. } => Branch::Reaped,
        Fact::Heals { lasted, .. } if *lasted > LEASE_AND_MARGIN => Branch::LongCut,
        Fact::Begins { role: Role::Driver, .. } => Branch::DriverRuns,
        Fact::Begins { role: Role::Isolated(_), .. } => Branch::IsolatedRuns,
        Fact::Ends { told: true, .. } => Branch::ToldToEnd,
        Fact::JobHasEnded { .. } => Branch::JobLost,
        Fact::LeaseGiven { .. } => Branch::Placed,
        Fact::LeaseReturned { done: true, .. } => Branch::Returned,
        _ => return None,
    })
}
