//! The world of a seed: tokens, who visits the head with them and how, members, and what will go wrong.

use mobula_identity::Role;

use crate::params::{MS, SECOND, Time};
use crate::random::Random;

const HOUR: Time = 3600 * SECOND;

/// What a seed decides before anything happens.
#[derive(Clone, Debug)]
pub struct Params {
    /// Of the chance of everything that follows.
    pub seed: u64,
    /// How long the world lasts.
    pub lasts: Time,
    /// How far the clocks of members are from the head's, in seconds; each member takes the next.
    pub clocks: Vec<i64>,
    /// The head's process is killed at about one in so many of its writes; 0 for none.
    pub kill_one_in: u64,
    /// The tokens, by time.
    pub tokens: Vec<TokenPlan>,
    /// When an operator cuts a member off.
    pub revocations: Vec<Time>,
    /// When nothing passes between a member and the head: from, until. Which member the world decides.
    pub cuts: Vec<(Time, Time)>,
    /// After about which time each worker ends and comes back; 0 for never.
    pub returns_each: Time,
    /// How often each member looks for another.
    pub dials_each: Time,
}

/// A token, from its making to its end.
#[derive(Clone, Debug)]
pub struct TokenPlan {
    /// When it is made.
    pub at: Time,
    /// What it gives.
    pub role: Role,
    /// How often.
    pub uses: u32,
    /// For so many seconds.
    pub ttl_s: u64,
    /// Taken back then.
    pub revoked_at: Option<Time>,
    /// Who comes with it.
    pub visits: Vec<(Time, How)>,
}

/// With what somebody comes to the head.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum How {
    /// As it should be. Who hears nothing comes again.
    Honest,
    /// Asks for another role.
    OtherRole,
    /// With a request that was overheard.
    Replayed,
    /// With a request that was made for another cluster's head.
    Relayed,
    /// One bit of the request is wrong.
    BitWrong,
    /// With the number of no token.
    Unknown,
    /// With the number of a token, and a key of its own.
    OtherKey,
}

impl Params {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6964_656e);
        let r = &mut random;
        // Minutes, in which everything meets; or days, in which certificates end.
        let lasts = r.pick(&[2 * 60 * SECOND, 10 * 60 * SECOND, HOUR, 40 * HOUR, 70 * HOUR]);
        let skew = r.pick(&[0, 0, 20, 300]);
        let clocks = (0..40).map(|_| r.between(0, 2 * skew) as i64 - skew as i64).collect();
        let tokens = (0..r.between(1, 6)).map(|_| token(r, lasts)).collect();
        let mut revocations = Vec::new();
        for _ in 0..r.between(0, 4) {
            let at = r.between(lasts / 10, lasts);
            // Several at once reach members in any order.
            revocations.extend((0..r.between(1, 3)).map(|_| at + r.below(300) * MS));
        }
        let mut cuts: Vec<_> = (0..r.below(4)).map(|_| cut(r, lasts)).collect();
        // News that comes late, and all at once.
        if r.one_in(2) {
            cuts.extend(revocations.first().map(|at| (at.saturating_sub(r.below(5 * SECOND)), at + 20 * SECOND)));
        }
        let kill_one_in = if r.one_in(2) { r.between(3, 20) } else { 0 };
        let dials_each = lasts / r.between(20, 60);
        let returns_each = if r.one_in(2) { lasts / r.between(3, 12) } else { 0 };
        Params { seed, lasts, clocks, kill_one_in, tokens, revocations, cuts, returns_each, dials_each }
    }
}

fn cut(r: &mut Random, lasts: Time) -> (Time, Time) {
    let at = r.below(lasts);
    (at, at + r.between(SECOND, lasts / 4))
}

fn token(r: &mut Random, lasts: Time) -> TokenPlan {
    let roles = [Role::Worker, Role::Worker, Role::Client, Role::Operator, Role::Observer];
    let at = r.below(lasts / 2);
    let uses = r.pick(&[1, 1, 2, 3, 8]);
    let ttl_s = r.between(1, lasts / SECOND);
    let end = at + ttl_s * SECOND;
    let mut visits: Vec<_> = (0..r.between(1, u64::from(uses) + 4)).map(|_| visit(r, at, lasts, end)).collect();
    visits.sort_by_key(|visit| visit.0);
    let revoked_at = r.one_in(4).then(|| r.between(at, lasts));
    TokenPlan { at, role: r.pick(&roles), uses, ttl_s, revoked_at, visits }
}

fn visit(r: &mut Random, made: Time, lasts: Time, end: Time) -> (Time, How) {
    let at = match r.below(4) {
        // Just before or after the token's end.
        0 => end.saturating_sub(2 * SECOND) + r.below(4 * SECOND),
        // All at once.
        1 => made + SECOND + r.below(50 * MS),
        _ => r.between(made + SECOND, made + SECOND + lasts),
    };
    let hows = [How::OtherRole, How::Replayed, How::Replayed, How::Relayed, How::BitWrong, How::Unknown, How::OtherKey];
    (at.max(made + SECOND), if r.one_in(2) { How::Honest } else { r.pick(&hows) })
}
