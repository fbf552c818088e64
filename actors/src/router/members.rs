//! Who is among a router's members, what each has in hand, and who takes the next message. No I/O: randomness is a
//! seed, and references are whatever the router makes of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use mobula_core::{SplitMix64, rendezvous_score};

/// How a [`Router`](crate::Router) chooses the member that takes a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Routing {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest asks that this router has sent it and that have not been answered; among equals, each in
    /// turn. What other routers send it is not known here, and tells are not counted.
    LeastLoaded,
    /// Any, by chance.
    Random,
    /// The one that the message's key belongs to, by rendezvous hashing: a member that comes or goes moves only the
    /// keys that it gets or had. Messages without a key go to each in turn.
    ConsistentHash,
    /// The one that is free: messages wait in the router, and each member has one at a time, so a slow one takes fewer.
    WorkPulling,
}

/// A member, as long as its router lives; not used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MemberId(u64);

#[derive(Debug)]
pub(crate) struct Members<R> {
    routing: Routing,
    members: Vec<Member<R>>,
    next_id: u64,
    /// Where the next turn begins to look.
    next_in_turn: usize,
    random: SplitMix64,
}

#[derive(Debug)]
struct Member<R> {
    id: MemberId,
    /// Its place among the keys.
    key: u64,
    reference: R,
    in_flight: usize,
    /// It takes further messages.
    open: bool,
}

impl<R: Clone> Members<R> {
    pub(crate) fn new(routing: Routing, seed: u64) -> Self {
        Members { routing, members: Vec::new(), next_id: 0, next_in_turn: 0, random: SplitMix64::new(seed) }
    }

    /// Chance begins anew from `seed`.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = SplitMix64::new(seed);
    }

    /// Adds a member, to whom the keys near `key` belong.
    pub(crate) fn add(&mut self, key: u64, reference: R) -> MemberId {
        let id = MemberId(self.next_id);
        self.next_id += 1;
        self.members.push(Member { id, key, reference, in_flight: 0, open: true });
        id
    }

    /// It takes no further message. It is forgotten once it has nothing in flight; then here is what is left of it, to be
    /// dropped without locks.
    pub(crate) fn close(&mut self, id: MemberId) -> Option<R> {
        if let Some(member) = self.get(id) {
            member.open = false;
        }
        self.forget_idle(id)
    }

    /// An ask is sent to it.
    pub(crate) fn begun(&mut self, id: MemberId) {
        if let Some(member) = self.get(id) {
            member.in_flight += 1;
        }
    }

    /// An ask sent to it has ended, one way or the other. What comes back is as of [`close`](Self::close).
    pub(crate) fn ended(&mut self, id: MemberId) -> Option<R> {
        if let Some(member) = self.get(id) {
            member.in_flight = member.in_flight.saturating_sub(1);
        }
        self.forget_idle(id)
    }

    /// False once it is closed and nothing of it is in flight.
    pub(crate) fn knows(&self, id: MemberId) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = (MemberId, &R)> {
        self.members.iter().filter(|member| member.open).map(|member| (member.id, &member.reference))
    }

    /// The member for the next message; none if there is none, or, where work is pulled, if none is free.
    pub(crate) fn choose(&mut self, key: Option<u64>) -> Option<(MemberId, R)> {
        let index = match self.routing {
            Routing::RoundRobin => self.in_turn(|member| member.open),
            Routing::LeastLoaded => {
                let least = self.members.iter().filter(|member| member.open).map(|member| member.in_flight).min()?;
                self.in_turn(|member| member.open && member.in_flight == least)
            }
            Routing::WorkPulling => self.in_turn(|member| member.open && member.in_flight == 0),
            Routing::ConsistentHash => match key {
                Some(key) => self.by_key(key),
                None => self.in_turn(|member| member.open),
            },
            Routing::Random => self.by_chance(),
        }?;
        let member = &self.members[index];
        Some((member.id, member.reference.clone()))
    }

    fn in_turn(&mut self, fits: impl Fn(&Member<R>) -> bool) -> Option<usize> {
        let count = self.members.len();
        let index = (0..count).map(|step| (self.next_in_turn + step) % count).find(|i| fits(&self.members[*i]))?;
        self.next_in_turn = index + 1;
        Some(index)
    }

    /// Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996: the highest score wins.
    fn by_key(&self, key: u64) -> Option<usize> {
        let open = self.members.iter().enumerate().filter(|(_, member)| member.open);
        open.max_by_key(|(_, member)| rendezvous_score(key, member.key)).map(|(index, _)| index)
    }

    fn by_chance(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.members.len()).filter(|index| self.members[*index].open).collect();
        // The high half of a product spreads the draw evenly over any count.
        let at = (u128::from(self.random.bits()) * open.len() as u128) >> 64;
        open.get(usize::try_from(at).unwrap_or(0)).copied()
    }

    fn get(&mut self, id: MemberId) -> Option<&mut Member<R>> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    fn forget_idle(&mut self, id: MemberId) -> Option<R> {
        let index = self.members.iter().position(|m| m.id == id && !m.open && m.in_flight == 0)?;
        let forgotten = self.members.remove(index);
        // Whoever was next stays next.
        if index < self.next_in_turn {
            self.next_in_turn -= 1;
        }
        Some(forgotten.reference)
    }
}

/// A key as a number: the same in every process of one build.
pub(crate) fn hash_of(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(routing: Routing, count: u64) -> Members<u64> {
        let mut members = Members::new(routing, 7);
        for number in 0..count {
            members.add(hash_of(&number), number);
        }
        members
    }

    fn choose(members: &mut Members<u64>, times: usize) -> Vec<u64> {
        (0..times).filter_map(|_| members.choose(None)).map(|(_, number)| number).collect()
    }

    #[test]
    fn round_robin_goes_round_and_skips_the_closed() {
        let mut members = members(Routing::RoundRobin, 3);
        assert_eq!(choose(&mut members, 4), [0, 1, 2, 0]);
        members.begun(MemberId(1));
        members.close(MemberId(1));
        assert!(members.knows(MemberId(1)), "it still has something in hand");
        assert_eq!(choose(&mut members, 3), [2, 0, 2]);
        members.ended(MemberId(1));
        assert!(!members.knows(MemberId(1)));
        assert_eq!(choose(&mut members, 3), [0, 2, 0]);
        assert_eq!(members.add(9, 9), MemberId(3), "ids are not used again");
    }

    #[test]
    fn least_loaded_is_the_one_with_least_in_flight_and_in_turn_among_equals() {
        let mut members = members(Routing::LeastLoaded, 3);
        let begin = |members: &mut Members<u64>| {
            let (id, number) = members.choose(None).expect("three are open");
            members.begun(id);
            number
        };
        assert_eq!([(); 5].map(|()| begin(&mut members)), [0, 1, 2, 0, 1]);
        assert_eq!(begin(&mut members), 2);
        members.ended(MemberId(1));
        members.ended(MemberId(1));
        assert_eq!([(); 2].map(|()| begin(&mut members)), [1, 1]);
    }

    #[test]
    fn where_work_is_pulled_only_the_free_take() {
        let mut members = members(Routing::WorkPulling, 2);
        let first = members.choose(None).expect("all are free").0;
        members.begun(first);
        let second = members.choose(None).expect("one is free").0;
        members.begun(second);
        assert_ne!(first, second);
        assert_eq!(members.choose(None), None);
        members.ended(first);
        assert_eq!(members.choose(None).map(|(id, _)| id), Some(first));
    }

    #[test]
    fn chance_reaches_all_about_evenly_and_a_seed_repeats_it() {
        let draw = || choose(&mut members(Routing::Random, 4), 4000);
        let drawn = draw();
        assert_eq!(drawn, draw());
        for number in 0..4 {
            let share = drawn.iter().filter(|drawn| **drawn == number).count();
            assert!((850..1150).contains(&share), "{number} was drawn {share} times");
        }
        assert_eq!(members(Routing::Random, 0).choose(None), None);
    }

    #[test]
    fn a_member_that_comes_takes_its_share_and_nothing_else_moves() {
        let owner = |members: &mut Members<u64>, key: u64| members.choose(Some(hash_of(&key))).expect("open").1;
        let mut members = members(Routing::ConsistentHash, 8);
        let before: Vec<u64> = (0..9000).map(|key| owner(&mut members, key)).collect();
        for number in 0..8 {
            let share = before.iter().filter(|owner| **owner == number).count();
            assert!((900..1350).contains(&share), "{number} has {share} keys of about 1125");
        }
        let ninth = members.add(hash_of(&8_u64), 8);
        let after: Vec<u64> = (0..9000).map(|key| owner(&mut members, key)).collect();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!((850..1150).contains(&moved), "{moved} keys of about 1000 moved");
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == 8));
        members.close(ninth);
        assert_eq!((0..9000).map(|key| owner(&mut members, key)).collect::<Vec<_>>(), before);
    }

    /// Against a plain model: whoever is chosen is open, nobody is forgotten while it has something in hand, and
    /// counts return to nothing.
    #[test]
    fn any_course_of_events_keeps_the_books() {
        for (seed, routing) in [Routing::RoundRobin, Routing::LeastLoaded, Routing::Random, Routing::WorkPulling]
            .into_iter()
            .cycle()
            .take(200)
            .enumerate()
        {
            let mut members = Members::new(routing, seed as u64);
            let mut open: Vec<MemberId> = Vec::new();
            let mut in_hand: Vec<MemberId> = Vec::new();
            let mut random = SplitMix64::new(seed as u64);
            for step in 0..300_u64 {
                let state = random.bits();
                match state % 8 {
                    0 => open.push(members.add(step, step)),
                    1 if !open.is_empty() => {
                        let id = open.swap_remove((state >> 8) as usize % open.len());
                        members.close(id);
                    }
                    2..5 => match members.choose(None) {
                        Some((id, _)) => {
                            assert!(open.contains(&id), "a closed member was chosen");
                            assert!(routing != Routing::WorkPulling || !in_hand.contains(&id), "it was busy");
                            members.begun(id);
                            in_hand.push(id);
                        }
                        None if routing == Routing::WorkPulling => {
                            assert!(open.iter().all(|id| in_hand.contains(id)), "one was free");
                        }
                        None => assert!(open.is_empty(), "one was open"),
                    },
                    _ if !in_hand.is_empty() => {
                        let id = in_hand.swap_remove((state >> 8) as usize % in_hand.len());
                        members.ended(id);
                    }
                    _ => {}
                }
                assert!(in_hand.iter().chain(&open).all(|id| members.knows(*id)));
            }
            for id in in_hand {
                members.ended(id);
            }
            for id in open {
                members.close(id);
            }
            assert!(members.members.is_empty(), "{routing:?}, seed {seed}");
        }
    }
}
