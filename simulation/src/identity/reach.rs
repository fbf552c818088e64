//! The rare branches of this world.

use mobula_identity::Refusal;

use super::{Fact, World};
use crate::reach::branches;

branches! {
    Branch;
    Joined: "somebody is let in",
    UnknownToken: "somebody comes with a token that nobody knows",
    WrongSignature: "somebody comes with what the token's holder did not sign",
    Expired: "somebody comes after the token's time",
    WrongRole: "somebody asks for a role that the token does not give",
    UsedUp: "somebody comes with a token that is used up",
    Malformed: "somebody comes with bytes that are no request",
    Killed: "the head is killed",
    KilledSpending: "the head is killed while it notes a use of a token",
    TakenBack: "a token is taken back",
    Connected: "two members connect",
    Cut: "a member cuts another's connection",
    Away: "a member is cut off from the head",
    Back: "a member hears the head again",
    OlderList: "an older list comes after a newer one",
    SeveralNews: "a list tells of several that are cut off",
    RenewedLate: "a certificate cannot be renewed yet",
    RefusedOutlaw: "one who was cut off gets no other certificate",
    Returned: "a life comes back as another",
    ReturnedTooLate: "a life wants to come back after the end of its certificate",
    OutlawStaysAway: "one who was cut off does not come back",
    Superseded: "a life wants to come back a second time",
    KilledReturning: "the head is killed while it notes that a life comes back",
    RenewalSuperseded: "a life that has come back as another gets no other certificate",
}

impl World {
    pub(super) fn reach(&mut self, branch: Branch) {
        self.reached.reach(branch);
    }

    pub(super) fn reach_by_fact(&mut self, fact: &Fact) {
        let branch = match fact {
            Fact::Joined { .. } => Branch::Joined,
            Fact::Returned { .. } => Branch::Returned,
            Fact::TokenGone { .. } => Branch::TakenBack,
            Fact::HeadEnds { spending: Some(_) } => Branch::KilledSpending,
            Fact::HeadEnds { spending: None } => Branch::Killed,
            Fact::Connected { .. } => Branch::Connected,
            Fact::Cut { .. } => Branch::Cut,
            Fact::CutBegins { .. } => Branch::Away,
            Fact::CutEnds { .. } => Branch::Back,
            _ => return,
        };
        self.reach(branch);
    }

    pub(super) fn reach_by_refusal(&mut self, why: &Refusal) {
        match why {
            Refusal::UnknownToken => self.reach(Branch::UnknownToken),
            Refusal::WrongSignature => self.reach(Branch::WrongSignature),
            Refusal::Expired => self.reach(Branch::Expired),
            Refusal::WrongRole => self.reach(Branch::WrongRole),
            Refusal::UsedUp => self.reach(Branch::UsedUp),
            Refusal::Revoked => self.reach(Branch::OutlawStaysAway),
            Refusal::Superseded => self.reach(Branch::Superseded),
            Refusal::BadRequest(_) => self.reach(Branch::Malformed),
            _ => {}
        }
    }
}
