//! The world of identities: the real tokens, ledger of tokens, statements and lists of those cut off; a head that is killed at its writes, members
//! whose clocks differ, and visitors who replay, relay and forge are made up. TLS is not in it: a connection is what its certificates allow.
//!
//! Start at [`run`]. `simulate --world identity` runs many seeds. What must hold is in `oracles/`.
mod campaign;
mod fact;
mod head;
mod oracles;
mod params;
mod reach;
mod returns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use mobula_core::{NodeUid, limits};
use mobula_identity::{ClusterId, Request, Revocations, Role, Token, TokenId, UnixTime, renew_after};
use zeroize::Zeroizing;

pub use campaign::{Counts, Kind, Report, Summary};
pub use params::{How, Params, TokenPlan};
pub use reach::Branch;

use self::fact::Fact;
use self::head::{Answer, Head, Killed, Life};
use self::oracles::Oracle;
use crate::judge::Violation;
use crate::params::{MS, SECOND, Time};
use crate::random::Random;
use crate::reach::Reached;

/// When the world begins, by the head's clock.
const BEGIN: UnixTime = UnixTime(1_700_000_000);

/// Runs a world.
pub fn run(params: &Params, traced: bool) -> Report {
    let mut world = World::new(params.clone(), traced);
    world.begin();
    while let Some(Reverse((at, _, event))) = world.queue.pop() {
        // What is to be seen of the last revocation.
        if at > params.lasts + 30 * SECOND || world.violation.is_some() {
            break;
        }
        world.now = at;
        world.handle(event);
    }
    Report {
        violation: world.violation,
        hash: world.hash,
        facts: world.facts,
        lasted: world.now,
        counts: Counts { joined: world.joined, refused: world.refused, cut: world.cut, returned: world.returned },
        reached: world.reached,
        lines: world.lines.unwrap_or_default(),
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    MakeToken(usize),
    RevokeToken(usize),
    Visit(usize, How),
    Revoke,
    CutBegins(usize),
    CutEnds(usize, NodeUid),
    HeadBegins,
    /// A member hears the list with this number in `sent`.
    Hears(NodeUid, usize),
    Renews(NodeUid),
    /// Who had this life wants to come back, or, if true, one who has a copy of its credential.
    Returns(NodeUid, bool),
    Dials(NodeUid),
    Look,
}

struct Member {
    /// The first life of its line.
    line: NodeUid,
    role: Role,
    /// Seconds ahead of the head's clock.
    clock: i64,
    until: UnixTime,
    list: Revocations,
    /// Which of the lists that were sent it has heard last.
    newest: usize,
    cuts: u32,
}

struct World {
    params: Params,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    random: Random,
    head: Head,
    tokens: BTreeMap<usize, Token>,
    members: BTreeMap<NodeUid, Member>,
    /// Lives that are over or were copied: the first of the line, and the end of the certificate.
    former: BTreeMap<NodeUid, (NodeUid, UnixTime)>,
    /// Members that were cut off.
    outlaws: BTreeSet<NodeUid>,
    connected: BTreeSet<(NodeUid, NodeUid)>,
    /// Lists that are under way.
    sent: Vec<Revocations>,
    /// Requests that somebody has overheard.
    overheard: Vec<Vec<u8>>,
    next_uid: u64,
    oracles: Vec<Box<dyn Oracle>>,
    violation: Option<Violation>,
    hash: u64,
    facts: u64,
    joined: u64,
    refused: u64,
    cut: u64,
    returned: u64,
    reached: Reached<Branch>,
    lines: Option<Vec<String>>,
}

impl World {
    fn new(params: Params, traced: bool) -> Self {
        World {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            random: Random::new(params.seed),
            head: Head::new(ClusterId([7; 32]), params.kill_one_in),
            tokens: BTreeMap::new(),
            members: BTreeMap::new(),
            former: BTreeMap::new(),
            outlaws: BTreeSet::new(),
            connected: BTreeSet::new(),
            sent: Vec::new(),
            overheard: Vec::new(),
            next_uid: 0,
            oracles: oracles::all(),
            violation: None,
            hash: 0xcbf2_9ce4_8422_2325,
            facts: 0,
            joined: 0,
            refused: 0,
            cut: 0,
            returned: 0,
            reached: Reached::default(),
            lines: traced.then(Vec::new),
            params,
        }
    }

    fn begin(&mut self) {
        self.fact(Fact::HeadBegins);
        for (number, token) in self.params.tokens.clone().into_iter().enumerate() {
            self.at(token.at, Event::MakeToken(number));
            token.revoked_at.into_iter().for_each(|at| self.at(at, Event::RevokeToken(number)));
            token.visits.iter().for_each(|(at, how)| self.at(*at, Event::Visit(number, *how)));
        }
        self.params.revocations.clone().into_iter().for_each(|at| self.at(at, Event::Revoke));
        for (number, (at, _)) in self.params.cuts.clone().into_iter().enumerate() {
            self.at(at, Event::CutBegins(number));
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, event)));
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    fn fact(&mut self, fact: Fact) {
        self.facts += 1;
        self.reach_by_fact(&fact);
        let text = format!("{:>12.6}  {fact:?}", self.now as f64 / 1e6);
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for oracle in &mut self.oracles {
            if let Err(what) = oracle.fact(&fact, self.now)
                && self.violation.is_none()
            {
                self.violation = Some(Violation { promise: oracle.promise(), what, at: self.now });
            }
        }
        if let Some(lines) = &mut self.lines {
            lines.push(text);
            if let Some(Violation { promise, what, .. }) = &self.violation {
                lines.push(format!("VIOLATION of \"{promise}\": {what}"));
            }
        }
    }

    /// The time by the head's clock.
    fn head_time(&self) -> UnixTime {
        BEGIN.after(Duration::from_micros(self.now))
    }

    /// The time by a member's clock.
    fn time_of(&self, clock: i64) -> UnixTime {
        UnixTime(self.head_time().0.saturating_add_signed(clock))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::MakeToken(number) => self.make_token(number),
            Event::RevokeToken(number) => self.revoke_token(number),
            Event::Visit(number, how) => self.visit(number, how),
            Event::Revoke => self.revoke_someone(),
            Event::CutBegins(number) => self.cut_begins(number),
            Event::CutEnds(_, uid) => self.cut_ends(uid),
            Event::HeadBegins => {
                self.head.begin();
                self.fact(Fact::HeadBegins);
                self.tell_all();
            }
            Event::Hears(uid, number) => self.hears(uid, number),
            Event::Renews(uid) => self.renews(uid),
            Event::Returns(uid, copy) => self.returns(uid, copy),
            Event::Dials(uid) => self.dials(uid),
            Event::Look => self.fact(Fact::Look),
        }
    }

    fn killed(&mut self, spending: Option<TokenId>) {
        self.fact(Fact::HeadEnds { spending });
        let away = self.random.between(100, 20_000) * MS;
        self.after(away, Event::HeadBegins);
        if self.now > self.params.lasts {
            self.head.spare();
        }
    }

    /// An operator tries again until the head has an answer.
    fn again(&mut self, event: Event) {
        self.after(SECOND, event);
    }

    // Tokens.

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.iter_mut().for_each(|byte| *byte = self.random.bits() as u8);
        bytes
    }

    fn make_token(&mut self, number: usize) {
        if !self.head.up {
            return self.again(Event::MakeToken(number));
        }
        let plan = self.params.tokens[number].clone();
        let (id, seed) = (TokenId(self.random.bits()), Zeroizing::new(self.bytes::<32>()));
        let token = Token::new(self.head.cluster.0, id, seed);
        let (now, ttl) = (self.head_time(), Duration::from_secs(plan.ttl_s));
        match self.head.add_token(&token, plan.role, plan.uses, ttl, now, &mut self.random) {
            Ok(true) => {
                self.fact(Fact::TokenMade { id, role: plan.role, uses: plan.uses, expires: now.after(ttl) });
                // It is handed over as a text.
                let text = token.expose();
                if let Ok(token) = Token::parse(&text) {
                    self.tokens.insert(number, token);
                }
            }
            Ok(false) => {}
            Err(Killed) => {
                self.killed(None);
                self.again(Event::MakeToken(number));
            }
        }
    }

    fn revoke_token(&mut self, number: usize) {
        let Some(id) = self.tokens.get(&number).map(Token::id) else { return };
        if !self.head.up {
            return self.again(Event::RevokeToken(number));
        }
        self.fact(Fact::TokenWillGo { id });
        match self.head.revoke_token(id, &mut self.random) {
            Ok(()) => self.fact(Fact::TokenGone { id }),
            Err(Killed) => {
                self.killed(None);
                self.again(Event::RevokeToken(number));
            }
        }
    }

    fn visit(&mut self, number: usize, how: How) {
        if !self.head.up {
            return self.again(Event::Visit(number, how));
        }
        let Some(token) = self.tokens.get(&number) else { return };
        let (id, role, cluster) = (token.id(), self.params.tokens[number].role, self.head.cluster);
        let text = token.expose();
        let (exported, csr) = (self.bytes::<32>(), self.bytes::<40>().to_vec());
        let Ok(token) = Token::parse(&text) else { return };
        // The role is no part of what is signed: whoever asks for another one asks for what the token does not give.
        let right = matches!(how, How::Honest | How::OtherRole);
        let mut asked = role;
        let bytes = match how {
            How::Honest => head::written(&head::request(&token, role, &cluster, &exported, csr)),
            How::OtherRole => {
                asked = if role == Role::Operator { Role::Worker } else { Role::Operator };
                head::written(&head::request(&token, asked, &cluster, &exported, csr))
            }
            How::Replayed => {
                let heard = self.random.below(self.overheard.len() as u64) as usize;
                let Some(heard) = self.overheard.get(heard) else { return };
                heard.clone()
            }
            How::Relayed => head::written(&head::request(&token, role, &ClusterId([8; 32]), &exported, csr)),
            How::BitWrong => {
                let mut bytes = head::written(&head::request(&token, role, &cluster, &exported, csr));
                let bit = self.random.below(8 * bytes.len() as u64) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            }
            How::Unknown => {
                let unknown = Token::new(cluster.0, TokenId(self.random.bits()), Zeroizing::new(self.bytes::<32>()));
                head::written(&head::request(&unknown, role, &cluster, &exported, csr))
            }
            How::OtherKey => {
                let other = Token::new(cluster.0, id, Zeroizing::new(self.bytes::<32>()));
                head::written(&head::request(&other, role, &cluster, &exported, csr))
            }
        };
        let spending = match Request::decode(&bytes) {
            Ok(Request::Join { token, .. }) => Some(token),
            _ => None,
        };
        let now = self.head_time();
        match self.head.serve(&bytes, &exported, now, &mut self.random) {
            Ok(Answer::Yes { token, role }) => self.joins(token, role, now, right),
            Ok(Answer::No { named, why }) => {
                self.refused += 1;
                self.reach_by_refusal(&why);
                let (token, role) = named.unwrap_or((id, asked));
                let right = right && named.is_some();
                self.fact(Fact::Refused { token, role, now, right, why: why.to_string() });
            }
            Err(Killed) => {
                self.killed(spending);
                // Whoever hears nothing comes again.
                self.again(Event::Visit(number, how));
            }
        }
        self.overheard.push(bytes);
    }

    fn joins(&mut self, token: TokenId, role: Role, now: UnixTime, right: bool) {
        self.joined += 1;
        self.next_uid += 1;
        let uid = NodeUid(self.next_uid);
        self.fact(Fact::Joined { token, role, uid, now, right });
        let clock = self.params.clocks[self.joined as usize % self.params.clocks.len()];
        self.begins(Life { uid, line: uid }, role, clock, now);
    }

    /// A life begins.
    fn begins(&mut self, Life { uid, line }: Life, role: Role, clock: i64, now: UnixTime) {
        let list = self.head.revocations().clone();
        self.members.insert(uid, Member { line, role, clock, until: UnixTime(0), list, newest: 0, cuts: 0 });
        self.certified(uid, now);
        let first = self.random.below(self.params.dials_each);
        self.after(first, Event::Dials(uid));
        self.will_return(uid);
    }

    // Certificates.

    /// The head gives a certificate, as `Authority::issue` does.
    fn certified(&mut self, uid: NodeUid, now: UnixTime) {
        let until = now.after(limits::CERTIFICATE_LIFE);
        self.fact(Fact::Renewed { uid });
        let Some(member) = self.members.get_mut(&uid) else { return };
        member.until = until;
        let clock = member.clock;
        let wait = renew_after(self.time_of(clock), until);
        self.after(wait.as_secs() * SECOND, Event::Renews(uid));
    }

    fn renews(&mut self, uid: NodeUid) {
        let now = self.head_time();
        let Some(member) = self.members.get(&uid) else { return };
        if !self.head.up || member.cuts > 0 {
            self.reach(Branch::RenewedLate);
            return self.after(60 * SECOND, Event::Renews(uid));
        }
        // The head's TLS takes no certificate that is over, and refuses one of a life that was cut off.
        let life = Life { uid, line: member.line };
        if member.until > now && self.head.goes_on(life) {
            self.certified(uid, now);
        } else if !self.head.revocations().contains(uid) && member.until > now {
            self.reach(Branch::RenewalSuperseded);
        } else if self.outlaws.contains(&uid) {
            self.reach(Branch::RefusedOutlaw);
        }
    }

    // Connections.

    fn dials(&mut self, uid: NodeUid) {
        if !self.members.contains_key(&uid) {
            return;
        }
        let each = self.params.dials_each;
        let next = each / 2 + self.random.below(each);
        self.after(next, Event::Dials(uid));
        let others: Vec<NodeUid> = self.members.keys().copied().filter(|other| *other != uid).collect();
        if others.is_empty() {
            return;
        }
        let other = others[self.random.below(others.len() as u64) as usize];
        let pair = (uid.min(other), uid.max(other));
        if self.connected.contains(&pair) {
            if self.random.one_in(4) {
                self.connected.remove(&pair);
                self.fact(Fact::Ended { one: uid, other });
            }
            return;
        }
        let believes = |one: &Member, peer: NodeUid, shown: &Member| {
            shown.until > self.time_of(one.clock) && !one.list.contains(peer)
        };
        let (one, two) = (&self.members[&uid], &self.members[&other]);
        if believes(one, other, two) && believes(two, uid, one) {
            self.connected.insert(pair);
            self.fact(Fact::Connected { one: uid, other });
        }
    }

    // Those cut off.

    fn revoke_someone(&mut self) {
        if !self.head.up {
            return self.again(Event::Revoke);
        }
        let left: Vec<NodeUid> = self.members.keys().copied().filter(|uid| !self.outlaws.contains(uid)).collect();
        if left.is_empty() {
            return;
        }
        let uid = left[self.random.below(left.len() as u64) as usize];
        self.fact(Fact::WillRevoke { uid });
        match self.head.revoke_node(uid, self.head_time(), &mut self.random) {
            Ok(()) => {
                self.outlaws.insert(uid);
                self.fact(Fact::Revoked { uid });
                self.tell_all();
            }
            Err(Killed) => {
                self.killed(None);
                self.again(Event::Revoke);
            }
        }
    }

    /// The head's list goes to all that hear it; some get an older one, too, late.
    fn tell_all(&mut self) {
        self.sent.push(self.head.revocations().clone());
        let hearers: Vec<NodeUid> =
            self.members.iter().filter(|(_, member)| member.cuts == 0).map(|(uid, _)| *uid).collect();
        hearers.into_iter().for_each(|uid| self.tell(uid));
        self.after(2 * SECOND + MS, Event::Look);
    }

    fn tell(&mut self, uid: NodeUid) {
        let newest = self.sent.len() - 1;
        let way = self.random.between(1, 1500) * MS;
        self.after(way, Event::Hears(uid, newest));
        if self.random.one_in(3) {
            let older = self.random.below(self.sent.len() as u64) as usize;
            let way = self.random.between(1, 30_000) * MS;
            self.after(way, Event::Hears(uid, older));
        }
    }

    fn hears(&mut self, uid: NodeUid, number: usize) {
        let Some(member) = self.members.get_mut(&uid) else { return };
        // What was under way when the cut began is lost.
        if member.cuts > 0 {
            return;
        }
        let is_older = number < member.newest;
        member.newest = member.newest.max(number);
        let cut_off = member.list.adopt(self.sent[number].clone());
        if is_older {
            self.reach(Branch::OlderList);
        }
        if cut_off.len() > 1 {
            self.reach(Branch::SeveralNews);
        }
        for peer in cut_off {
            if self.connected.remove(&(uid.min(peer), uid.max(peer))) {
                self.cut += 1;
                self.fact(Fact::Cut { by: uid, peer });
            }
        }
    }

    fn cut_begins(&mut self, number: usize) {
        let uids: Vec<NodeUid> = self.members.keys().copied().collect();
        if uids.is_empty() {
            return;
        }
        let uid = uids[self.random.below(uids.len() as u64) as usize];
        if let Some(member) = self.members.get_mut(&uid) {
            member.cuts += 1;
        }
        self.fact(Fact::CutBegins { uid });
        let until = self.params.cuts[number].1;
        self.at(until.max(self.now), Event::CutEnds(number, uid));
    }

    /// Who hears the head again hears the list first.
    fn cut_ends(&mut self, uid: NodeUid) {
        let Some(member) = self.members.get_mut(&uid) else { return };
        member.cuts -= 1;
        let whole = member.cuts == 0;
        self.fact(Fact::CutEnds { uid });
        if whole && self.head.up {
            self.sent.push(self.head.revocations().clone());
            self.tell(uid);
            self.after(2 * SECOND + MS, Event::Look);
        }
    }
}
