//! The head and its members under random schedules: no two members act under one name at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::{ActorId, NodeId, NodeUid, SplitMix64, limits};

const LEASE: Duration = Duration::from_secs(8);

fn node(uid: u64) -> NodeId {
    NodeId::new(&format!("node-{uid}"), NodeUid(uid))
}

fn directory() -> Directory {
    Directory::new(node(1), LeaseTimes::of(LEASE))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn claim(number: u64, name: &str, actor: u64) -> Request {
    Request::Claim { number, name: name.to_owned(), actor: ActorId(actor), actor_type: "test::Actor".to_owned() }
}

fn end(number: u64, actor: u64) -> Request {
    Request::End { number, actor: ActorId(actor) }
}

const RENEW: Request = Request::Renew { heard: None };

fn found(uid: u64, actor: u64) -> Found {
    Found { node: node(uid), actor: ActorId(actor) }
}

#[test]
fn a_name_has_one_holder_and_tokens_grow() {
    let mut directory = directory();
    for uid in [2, 3] {
        assert_eq!(directory.request(&node(uid), RENEW, secs(0)), Answer::Renewed { at: secs(0) });
    }
    assert_eq!(directory.request(&node(2), claim(0, "hits", 7), secs(1)), Answer::Granted(Fence(1)));
    assert_eq!(directory.request(&node(3), claim(0, "hits", 7), secs(1)), Answer::Taken(found(2, 7)));
    assert_eq!(directory.request(&node(1), claim(0, "hits", 7), secs(1)), Answer::Taken(found(2, 7)));
    assert_eq!(directory.find("hits", "test::Actor"), Some(&found(2, 7)));
    assert_eq!(directory.find("hits", "test::Other"), None);
    assert_eq!(directory.request(&node(2), end(1, 7), secs(2)), Answer::Done);
    assert_eq!(directory.request(&node(3), claim(1, "hits", 8), secs(2)), Answer::Granted(Fence(2)));
    assert_eq!(directory.names(), 1);
}

#[test]
fn a_repeated_request_has_one_effect() {
    let mut directory = directory();
    directory.request(&node(2), RENEW, secs(0));
    for _ in 0..2 {
        assert_eq!(directory.request(&node(2), claim(0, "hits", 7), secs(0)), Answer::Granted(Fence(1)));
    }
    for _ in 0..2 {
        assert_eq!(directory.request(&node(2), end(1, 7), secs(0)), Answer::Done);
        // Late, and for a second time: it must not hold the name for an actor that has ended.
        assert_eq!(directory.request(&node(2), claim(0, "hits", 7), secs(0)), Answer::Refused(Refusal::Repeated));
    }
    assert_eq!(directory.names(), 0);
}

/// A request that its member could not send.
#[test]
fn a_missing_request_keeps_nobody_from_asking() {
    let mut directory = directory();
    directory.request(&node(2), RENEW, secs(0));
    for round in 0..10_000 {
        let (first, second) = (2 * round + 1, 2 * round + 2);
        let granted = directory.request(&node(2), claim(first, "hits", round), secs(1));
        assert_eq!(granted, Answer::Granted(Fence(round + 1)));
        assert_eq!(directory.request(&node(2), end(second, round), secs(1)), Answer::Done);
    }
    assert_eq!(directory.names(), 0);
}

#[test]
fn a_silent_member_keeps_its_names_for_lease_and_margin() {
    let mut directory = directory();
    directory.request(&node(2), RENEW, secs(0));
    directory.request(&node(3), RENEW, secs(1));
    directory.request(&node(2), claim(0, "hits", 7), secs(1));
    directory.lost(NodeUid(2));
    // Lost is lost: no renewal, no claim, and nobody else gets the name before its time.
    assert_eq!(directory.request(&node(2), RENEW, secs(2)), Answer::Refused(Refusal::LeaseOver));
    assert_eq!(directory.request(&node(2), claim(1, "misses", 8), secs(2)), Answer::Refused(Refusal::LeaseOver));
    assert_eq!(directory.next_deadline(), Some(secs(10)));
    let before = Duration::from_millis(9_999);
    assert_eq!(directory.request(&node(1), claim(0, "hits", 1), before), Answer::Taken(found(2, 7)));
    assert_eq!(directory.request(&node(1), claim(1, "hits", 1), secs(10)), Answer::Granted(Fence(2)));
    assert_eq!(directory.request(&node(2), RENEW, secs(11)), Answer::Refused(Refusal::LeaseOver));
    assert_eq!(directory.members(), 0);
}

#[test]
fn a_member_whose_death_is_proven_holds_nothing() {
    let mut directory = directory();
    directory.request(&node(2), RENEW, secs(0));
    for number in 0..3 {
        directory.request(&node(2), claim(number, &format!("name-{number}"), number), secs(0));
    }
    directory.lost(NodeUid(2));
    directory.dead(NodeUid(2));
    assert_eq!((directory.names(), directory.members(), directory.holdings()), (0, 0, 0));
    assert_eq!(directory.request(&node(2), RENEW, secs(0)), Answer::Refused(Refusal::LeaseOver));
}

#[test]
fn a_member_that_hears_no_answer_loses_its_lease() {
    let mut directory = directory();
    let renew = |heard| Request::Renew { heard: Some(heard) };
    directory.request(&node(2), RENEW, secs(0));
    directory.request(&node(2), claim(0, "printer", 7), secs(0));
    for now in 1..=20 {
        let renewed = directory.request(&node(2), renew(secs(now - 1)), secs(now));
        assert_eq!(renewed, Answer::Renewed { at: secs(now) });
    }
    // From here on its renewals arrive, and the answers do not.
    for now in 21..=27 {
        assert!(matches!(directory.request(&node(2), renew(secs(19)), secs(now)), Answer::Renewed { .. }));
    }
    assert_eq!(directory.request(&node(2), renew(secs(19)), secs(28)), Answer::Refused(Refusal::LeaseOver));
    // A time that is yet to come does not help it.
    assert_eq!(directory.request(&node(2), renew(secs(90)), secs(29)), Answer::Refused(Refusal::LeaseOver));
    // It may have heard the answer to the last renewal that was granted. So its names are held for a lease and a margin from
    // there: two leases and a margin from the last answer that is known to have arrived.
    directory.tick(secs(36));
    assert_eq!(directory.find("printer", "test::Actor"), Some(&found(2, 7)));
    directory.tick(secs(37));
    assert_eq!(directory.find("printer", "test::Actor"), None);
}

#[test]
fn names_have_a_length_and_a_number() {
    let mut directory = directory();
    let long = "n".repeat(limits::NAME_BYTES_MAX + 1);
    let refused = directory.request(&node(1), claim(0, &long, 1), secs(0));
    assert!(matches!(refused, Answer::Refused(Refusal::BadName { bytes: 513, limit: 512 })), "{refused:?}");
    assert!(matches!(directory.request(&node(1), claim(1, &long[1..], 1), secs(0)), Answer::Granted(_)));
    assert!(matches!(directory.request(&node(1), claim(2, "", 1), secs(0)), Answer::Refused(Refusal::BadName { .. })));
}

fn chat() -> GroupName {
    GroupName { name: "chat".to_owned(), message: "test::Say".to_owned() }
}

fn members(directory: &mut Directory) -> Members {
    match directory.request(&node(1), Request::Members { group: chat() }, secs(0)) {
        Answer::Members(members) => members,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_a_set_that_loses_what_has_ended() {
    let mut directory = directory();
    let join = |number, actor| Request::Join { number, group: chat(), actor: ActorId(actor) };
    let leave = |number, actor| Request::Leave { number, group: chat(), actor: ActorId(actor) };
    assert_eq!(members(&mut directory), Members { version: 0, at: 0, members: vec![] });
    directory.request(&node(2), RENEW, secs(0));
    directory.request(&node(3), RENEW, secs(0));
    for (number, at) in [(0, 1), (0, 1), (1, 1)] {
        // Joining twice is being there once.
        assert_eq!(directory.request(&node(2), join(number, 7), secs(0)), Answer::Changed { at });
    }
    assert_eq!(directory.request(&node(3), join(0, 7), secs(0)), Answer::Changed { at: 2 });
    assert_eq!(directory.request(&node(2), join(2, 8), secs(0)), Answer::Changed { at: 3 });
    assert_eq!(directory.take_changed_groups().into_iter().collect::<Vec<_>>(), [chat()]);
    let all = members(&mut directory);
    assert_eq!((all.version, all.members), (3, vec![found(2, 7), found(2, 8), found(3, 7)]));
    // Out by its own will, with its end, with its node.
    assert_eq!(directory.request(&node(2), leave(3, 7), secs(0)), Answer::Changed { at: 4 });
    assert_eq!(directory.request(&node(2), join(1, 7), secs(0)), Answer::Refused(Refusal::Repeated));
    assert_eq!(directory.request(&node(2), end(4, 8), secs(0)), Answer::Done);
    assert_eq!(members(&mut directory).members, [found(3, 7)]);
    directory.dead(NodeUid(3));
    // Not the version in which it never was: whoever slept meanwhile has news.
    assert_eq!(members(&mut directory), Members { version: 6, at: 6, members: vec![] });
    assert_eq!((directory.groups(), directory.holdings()), (0, 0));
}

#[test]
fn a_group_has_a_number_of_members() {
    let mut directory = directory();
    let limit = limits::GROUP_MEMBERS_MAX as u64;
    let join = |number| Request::Join { number, group: chat(), actor: ActorId(number) };
    for number in 0..limit {
        assert!(matches!(directory.request(&node(1), join(number), secs(0)), Answer::Changed { .. }));
    }
    assert_eq!(directory.request(&node(1), join(limit), secs(0)), Answer::Refused(Refusal::Full { limit }));
}

/// A member as its node sees itself.
struct Member {
    id: NodeId,
    lease: Lease,
    heard: Option<Duration>,
    /// Claims that wait for an answer, and names that were granted, by actor.
    claimed: BTreeMap<u64, String>,
    held: BTreeMap<u64, String>,
    next_number: u64,
    next_actor: u64,
    frozen_until: Duration,
    cut: (bool, bool),
    dead: bool,
}

/// What is under way, and when it arrives.
enum Packet {
    Ask { member: usize, request: Request, sent: Duration },
    Answer { member: usize, request: Request, answer: Answer, sent: Duration },
}

struct Chance(SplitMix64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0.bits() % end
    }
}

struct World {
    directory: Directory,
    members: Vec<Member>,
    packets: BTreeMap<(Duration, u64), Packet>,
    packet: u64,
    begin: Instant,
    chance: Chance,
    /// Names that were granted, and names that were granted again to somebody else.
    granted: u64,
    handed_on: u64,
    last_fence: BTreeMap<String, Fence>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a lease wants instants; which ones does not matter")]
    fn new(seed: u64) -> Self {
        let members = (2..6).map(|uid| Member {
            id: node(uid),
            lease: Lease::new(&LeaseTimes::of(LEASE)),
            heard: None,
            claimed: BTreeMap::new(),
            held: BTreeMap::new(),
            next_number: 0,
            next_actor: 1,
            frozen_until: Duration::ZERO,
            cut: (false, false),
            dead: false,
        });
        World {
            directory: directory(),
            members: members.collect(),
            packets: BTreeMap::new(),
            packet: 0,
            begin: Instant::now(),
            chance: Chance(SplitMix64::new(seed)),
            granted: 0,
            handed_on: 0,
            last_fence: BTreeMap::new(),
        }
    }

    fn send(&mut self, packet: Packet, now: Duration) {
        let lost = match &packet {
            Packet::Ask { member, .. } => self.members[*member].cut.0,
            Packet::Answer { member, .. } => self.members[*member].cut.1,
        };
        if lost {
            return;
        }
        // Mostly quick, now and then as late as can be.
        let slow = if self.chance.below(20) == 0 { 6_000 } else { 50 };
        let at = now + Duration::from_millis(1 + self.chance.below(slow));
        self.packet += 1;
        self.packets.insert((at, self.packet), packet);
    }

    fn ask(&mut self, member: usize, request: Request, now: Duration) {
        // Some requests are repeated, as after a lost answer.
        let copies = if self.chance.below(10) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            self.send(Packet::Ask { member, request: request.clone(), sent: now }, now);
        }
    }

    fn number(&mut self, member: usize) -> u64 {
        let number = self.members[member].next_number;
        self.members[member].next_number += 1;
        number
    }

    fn step(&mut self, now: Duration) {
        while let Some(entry) = self.packets.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Packet::Ask { member, request, sent } => {
                    let answer = self.directory.request(&self.members[member].id.clone(), request.clone(), now);
                    self.send(Packet::Answer { member, request, answer, sent }, now);
                }
                Packet::Answer { member, request, answer, sent } => {
                    // A frozen process finds its answers when it wakes up.
                    let thaw = self.members[member].frozen_until;
                    if thaw > now {
                        self.packet += 1;
                        self.packets.insert((thaw, self.packet), Packet::Answer { member, request, answer, sent });
                    } else if !self.members[member].dead {
                        self.answered(member, &request, answer, sent, now);
                    }
                }
            }
        }
    }

    fn answered(&mut self, member: usize, request: &Request, answer: Answer, sent: Duration, now: Duration) {
        let begin = self.begin;
        let this = &mut self.members[member];
        match (request, answer) {
            (Request::Renew { .. }, Answer::Renewed { at }) => {
                this.heard = this.heard.max(Some(at));
                this.lease.granted(begin + sent, begin + now);
            }
            (Request::Renew { .. }, _) => this.lease.refused(),
            (Request::Claim { actor, .. }, answer) => {
                let Some(name) = this.claimed.remove(&actor.0) else { return };
                // What is granted to a member that has lost its lease on the way is of no use to it.
                if let Answer::Granted(fence) = answer
                    && this.lease.holds(begin + now)
                {
                    self.granted += 1;
                    this.held.insert(actor.0, name.clone());
                    let before = self.last_fence.insert(name, fence);
                    assert!(before.is_none_or(|before| before < fence), "a token that does not grow");
                    self.handed_on += u64::from(before.is_some());
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, now: Duration) {
        let member = self.chance.below(self.members.len() as u64) as usize;
        let this = &mut self.members[member];
        if this.dead || this.frozen_until > now {
            return;
        }
        match self.chance.below(400) {
            0 => {
                this.dead = true;
                this.held.clear();
                let uid = this.id.uid;
                self.directory.lost(uid);
                self.directory.dead(uid);
            }
            1 => this.frozen_until = now + Duration::from_millis(self.chance.below(20_000)),
            2 => this.cut = (self.chance.below(2) == 0, self.chance.below(2) == 0),
            3 => this.cut = (false, false),
            4 => {
                let uid = this.id.uid;
                self.directory.lost(uid);
            }
            5..100 => {
                let actor = this.next_actor;
                this.next_actor += 1;
                let name = format!("name-{}", self.chance.below(3));
                this.claimed.insert(actor, name.clone());
                let number = self.number(member);
                self.ask(member, claim(number, &name, actor), now);
            }
            100..200 => {
                if let Some((actor, _)) = this.held.pop_first() {
                    let number = self.number(member);
                    self.ask(member, end(number, actor), now);
                }
            }
            _ => {}
        }
    }

    /// Who acts under each name now: holds it, and believes in its lease. A frozen process acts as soon as it wakes up.
    fn check(&self, now: Duration) {
        let mut acting = BTreeMap::new();
        for member in self.members.iter().filter(|member| !member.dead && member.lease.holds(self.begin + now)) {
            for (actor, name) in &member.held {
                let other = acting.insert(name, (&member.id, actor));
                assert!(other.is_none(), "at {now:?}: {name} by {other:?} and by {}/{actor}", member.id);
            }
        }
    }

    fn run(&mut self) {
        let mut now = Duration::ZERO;
        for _ in 0..6_000 {
            now += Duration::from_millis(10);
            self.directory.tick(now);
            self.step(now);
            self.act(now);
            if now.as_millis().is_multiple_of(500) {
                for member in 0..self.members.len() {
                    if !self.members[member].dead && self.members[member].frozen_until <= now {
                        let heard = self.members[member].heard;
                        self.ask(member, Request::Renew { heard }, now);
                    }
                }
            }
            self.check(now);
        }
        // Nothing leaks: when all members are gone, so are their names.
        self.directory.tick(now + LEASE * 2);
        assert_eq!((self.directory.names(), self.directory.holdings(), self.directory.members()), (0, 0, 0));
    }
}

/// I5 and I14. A frozen, cut off, slow or dead member never shares a name with anybody.
#[test]
fn no_name_has_two_holders_under_any_schedule() {
    let (mut granted, mut handed_on) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(ran.is_ok(), "seed {seed}");
        granted += world.granted;
        handed_on += world.handed_on;
    }
    assert!(granted > 5_000 && handed_on > 3_000, "{granted} grants, {handed_on} of them to a second holder");
}
