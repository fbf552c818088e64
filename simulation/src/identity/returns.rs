//! Workers that end and come back with what they have kept, and others who have a copy of that.

use mobula_core::NodeUid;
use mobula_identity::{Refusal, Role};

use super::head::{Killed, Life};
use super::{Branch, Event, Fact, World};

impl World {
    /// A worker will end and come back, and now and then somebody else with a copy of what it has kept, before or after it.
    pub(super) fn will_return(&mut self, uid: NodeUid) {
        let each = self.params.returns_each;
        if each == 0 || self.members.get(&uid).is_none_or(|member| member.role != Role::Worker) {
            return;
        }
        let after = each / 2 + self.random.below(each);
        self.after(after, Event::Returns(uid, false));
        if self.random.one_in(3) {
            let after = self.random.below(2 * each);
            self.after(after, Event::Returns(uid, true));
        }
    }

    pub(super) fn returns(&mut self, uid: NodeUid, copy: bool) {
        if !copy {
            self.ends(uid);
        }
        let held = self.members.get(&uid).map(|member| (member.line, member.until));
        let Some((line, until)) = held.or_else(|| self.former.get(&uid).copied()) else { return };
        if !self.head.up {
            return self.again(Event::Returns(uid, copy));
        }
        let now = self.head_time();
        // The head's TLS takes no certificate that is over.
        if until <= now {
            return self.reach(Branch::ReturnedTooLate);
        }
        self.fact(Fact::AsksBack { was: uid, copy });
        self.next_uid += 1;
        let drawn = NodeUid(self.next_uid);
        match self.head.comes_back(Life { uid, line }, [u8::from(copy); 16], drawn, now, &mut self.random) {
            Ok(Ok(next)) => {
                self.returned += 1;
                self.fact(Fact::Returned { was: uid, uid: next });
                let clock = self.params.clocks[next.0 as usize % self.params.clocks.len()];
                self.begins(Life { uid: next, line }, Role::Worker, clock, now);
            }
            Ok(Err(why)) => {
                self.reach_by_refusal(&why);
                self.fact(Fact::NotBack { was: uid, copy, why: why.to_string() });
                if matches!(why, Refusal::HeadFailed(_)) {
                    self.again(Event::Returns(uid, copy));
                }
            }
            Err(Killed) => {
                self.reach(Branch::KilledReturning);
                self.killed(None);
                // Whoever hears nothing comes again, with the same key.
                self.again(Event::Returns(uid, copy));
            }
        }
    }

    /// A life ends; what it has kept stays.
    fn ends(&mut self, uid: NodeUid) {
        let Some(member) = self.members.remove(&uid) else { return };
        self.former.insert(uid, (member.line, member.until));
        let pairs: Vec<_> =
            self.connected.iter().copied().filter(|(one, other)| *one == uid || *other == uid).collect();
        for (one, other) in pairs {
            self.connected.remove(&(one, other));
            self.fact(Fact::Ended { one, other });
        }
    }
}
