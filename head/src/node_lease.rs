//! The node's end of its lease with the head.

use std::time::Instant;

use mobula_core::LeaseTimes;
use mobula_core::cluster::{Beat, HeadTime, Refused, Registered};
use mobula_core::directory::Lease;

/// Says when a node sends its heartbeats, and when it has to end what runs on it.
///
/// Each answer of the head prolongs the lease, counted from the sending of what it answers. A node that has heard no answer for the length of
/// its lease is fenced, once and for ever: it ends its workers and drivers before anything else, and comes back with a new uid. So it is with one
/// that the head refuses. An outage of the head that is longer than a lease looks the same from here, and has the same end.
#[derive(Debug)]
pub struct NodeLease {
    times: LeaseTimes,
    lease: Lease,
    heard: Option<HeadTime>,
    next_beat: Option<Instant>,
    /// Registrations and heartbeats so far.
    said: u64,
    fenced: bool,
}

impl NodeLease {
    /// Not registered yet. The times are the head's as soon as it has answered the registration.
    pub fn new(times: LeaseTimes) -> Self {
        NodeLease { times, lease: Lease::new(&times), heard: None, next_beat: None, said: 0, fenced: false }
    }

    /// A registration is sent, the first or another one of the same life: its number.
    pub fn register(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// The head has answered the registration that was sent at `sent`. False if it is too late to be of use: then, if the node had a lease,
    /// that is over.
    pub fn registered(&mut self, answer: &Registered, sent: Instant, now: Instant) -> bool {
        if !self.fenced {
            self.times = answer.times;
            self.lease.lasts(&self.times);
        }
        self.answered(sent, answer.at, now)
    }

    /// The head has answered a heartbeat that was sent at `sent`. False if it is too late to be of use.
    pub fn answered(&mut self, sent: Instant, at: HeadTime, now: Instant) -> bool {
        if self.fenced || !self.lease.granted(sent, now) {
            return false;
        }
        self.heard = self.heard.max(Some(at));
        self.next_beat.get_or_insert(now + self.times.heartbeat);
        true
    }

    /// The head has refused the registration or a heartbeat. True if the node is to register again; else its life is over, if the refusal
    /// was about that.
    pub fn refused(&mut self, refused: &Refused) -> bool {
        match refused {
            Refused::NotRegistered { .. } => return !self.fenced,
            Refused::Gone { .. } | Refused::LeaseOver { .. } => self.lease.refused(),
            _ => {}
        }
        false
    }

    /// When the next heartbeat is due; none before the registration has been answered, and after the end.
    pub fn next_beat(&self) -> Option<Instant> {
        self.next_beat.filter(|_| !self.fenced)
    }

    /// A heartbeat is sent at `now`: its number and what it says was heard. What runs, and how busy the host is, the caller adds.
    pub fn beat(&mut self, now: Instant) -> Beat {
        self.next_beat = Some(now + self.times.heartbeat);
        self.said += 1;
        Beat { number: self.said, heard: self.heard, ..Beat::default() }
    }

    /// True while what runs here may run.
    pub fn holds(&self, now: Instant) -> bool {
        !self.fenced && self.lease.holds(now)
    }

    /// When the lease ends unless it is prolonged: [`fence`](Self::fence) is to be asked then.
    pub fn until(&self) -> Option<Instant> {
        self.lease.until().filter(|_| !self.fenced)
    }

    /// True once, when the lease is over: everything that runs here has to end now.
    pub fn fence(&mut self, now: Instant) -> bool {
        if self.fenced || !self.lease.is_over(now) {
            return false;
        }
        self.fenced = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mobula_core::NodeUid;
    use mobula_core::cluster::Assignment;

    use super::*;

    fn at(seconds: u64) -> HeadTime {
        HeadTime { term: 1, at: Duration::from_secs(seconds) }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn begun() -> (NodeLease, impl Fn(u64) -> Instant) {
        let begin = Instant::now();
        (NodeLease::new(LeaseTimes::default()), move |seconds| begin + Duration::from_secs(seconds))
    }

    #[test]
    fn a_node_without_answers_is_fenced_once_and_for_ever() {
        let (mut lease, second) = begun();
        assert!(!lease.fence(second(100)), "it had none");
        assert!(lease.answered(second(0), at(0), second(1)));
        assert!(lease.answered(second(2), at(3), second(3)));
        assert_eq!(lease.beat(second(4)).heard, Some(at(3)));
        assert_eq!(lease.next_beat(), Some(second(4) + Duration::from_millis(500)));
        assert_eq!(lease.until(), Some(second(10)), "counted from the sending");
        assert!(lease.holds(second(9)) && !lease.fence(second(9)));
        assert!(!lease.holds(second(10)) && lease.fence(second(10)) && !lease.fence(second(11)));
        assert!(!lease.answered(second(9), at(9), second(11)) && !lease.holds(second(11)));
        assert_eq!((lease.until(), lease.next_beat()), (None, None));
    }

    fn registered(at: HeadTime) -> Registered {
        Registered { assignment: Assignment::default(), times: LeaseTimes::default(), at }
    }

    #[test]
    fn what_a_life_says_is_counted_also_when_it_registers_again() {
        let (mut lease, second) = begun();
        assert_eq!(lease.register(), 1);
        assert!(lease.registered(&registered(at(0)), second(0), second(0)));
        assert_eq!([1, 2].map(|at| lease.beat(second(at)).number), [2, 3]);
        assert_eq!(lease.register(), 4);
        assert!(lease.registered(&registered(at(3)), second(3), second(3)));
        assert_eq!(lease.beat(second(4)), Beat { number: 5, heard: Some(at(3)), ..Beat::default() });
    }

    #[test]
    fn the_leases_length_is_the_heads_and_a_registration_does_not_bring_it_back() {
        let (mut lease, second) = begun();
        let short = Registered { times: LeaseTimes::of(Duration::from_secs(2)), ..registered(at(0)) };
        assert!(lease.registered(&short, second(0), second(1)));
        assert_eq!((lease.until(), lease.next_beat()), (Some(second(2)), Some(second(1) + short.times.heartbeat)));
        lease.register();
        assert!(!lease.registered(&registered(at(1)), second(1), second(2)), "it was over before the answer came");
        assert!(lease.fence(second(2)) && !lease.registered(&registered(at(2)), second(2), second(2)));
    }

    #[test]
    fn a_thawed_node_is_fenced_although_an_answer_lies_there() {
        let (mut lease, second) = begun();
        assert!(lease.answered(second(0), at(0), second(0)));
        // Frozen from 1 to 20; the answer to what was sent before is read first.
        assert!(!lease.answered(second(1), at(1), second(20)));
        assert!(lease.fence(second(20)));
    }

    #[test]
    fn refusals_end_it_or_ask_for_a_registration() {
        let (mut lease, second) = begun();
        assert!(lease.answered(second(0), at(0), second(0)));
        assert!(lease.refused(&Refused::NotRegistered { uid: NodeUid(1) }));
        assert!(lease.holds(second(1)), "a head that forgot is no reason to end");
        assert!(!lease.refused(&Refused::LeaseOver { uid: NodeUid(1) }));
        assert!(lease.fence(second(1)) && !lease.refused(&Refused::NotRegistered { uid: NodeUid(1) }));
    }
}
