//! The rare branches of this world.

use mobula_core::cluster::{JobId, JobPhase, Placing, Refused};

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
    KeeperRuns: "the driver of a keeper begins",
    KeeperClosed: "a keeper ends, since it has nothing to keep",
    KeeperLost: "a keeper's driver is lost, and it has actors",
    KeeperEnded: "a keeper wants a name after its job has ended",
    NameGiven: "a detached actor is given its name",
    NamesKept: "a head comes back, with names among its records",
    NameHeld: "a name is refused, since another keeper has it",
    NameOfEnding: "a name is refused, since a keeper has it that is about to end",
    NameUsedUp: "a request for a name comes after it was given back",
    ActorLost: "a detached actor is lost with its process",
    ActorFound: "a detached actor is found by its name",
    Crowded: "an isolated worker is refused, since its node has as many as it may have",
    Stuck: "a request was stuck for long, and comes all the same",
}

impl World {
    pub(super) fn reach(&mut self, branch: Branch) {
        self.reached.reach(branch);
    }

    pub(super) fn reach_by_fact(&mut self, fact: &Fact) {
        let branch = match fact {
            Fact::HeadEnds => Branch::Killed,
            Fact::HeadBegins { kept, leases, .. } if !kept.names.is_empty() => {
                if !leases.is_empty() {
                    self.reach(Branch::Leases);
                }
                Branch::NamesKept
            }
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
            Fact::NameGiven { .. } => Branch::NameGiven,
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
                    Err(Refused::Full { .. }) => Branch::Crowded,
                    Err(_) => Branch::NoRoom,
                });
            }
            Reply::Found(_, answer) => match answer {
                Ok(Some(_)) => return self.reach(Branch::ActorFound),
                Ok(None) => None,
                Err(refused) => Some(refused),
            },
            Reply::Held { keeper, answer: Err(refused), .. } => {
                let ends = |other: &JobId| self.head.job_phase(*other) == Some(JobPhase::Stopping);
                return match refused {
                    Refused::NameHeld { keeper: other, .. } if ends(other) => self.reach(Branch::NameOfEnding),
                    Refused::NameHeld { keeper: other, .. } if other != keeper => self.reach(Branch::NameHeld),
                    Refused::JobEnded { .. } => self.reach(Branch::KeeperEnded),
                    Refused::OtherRequest => self.reach(Branch::NameUsedUp),
                    _ => {}
                };
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
