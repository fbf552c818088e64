//! Who connects, proven before the first frame: a fixed-size challenge and answer under the cluster's secret.
//!
//! The dialer already knows which life of which node it wants, so it proves itself in its first bytes, and a stranger
//! gets no byte back. Dialer to acceptor, 96 bytes, integers big-endian:
//!
//! | offset | bytes | field       | meaning                                                        |
//! |-------:|------:|-------------|----------------------------------------------------------------|
//! |      0 |     8 | magic       | `MOBULA\r\n`                                                   |
//! |      8 |     2 | version min | oldest protocol version that the dialer speaks                 |
//! |     10 |     2 | version max | newest                                                         |
//! |     12 |     1 | lane        | 0 data, 1 control                                              |
//! |     13 |     1 | purpose     | 0 open, 1 resume, 2 probe                                      |
//! |     14 |     2 | reserved    | 0                                                              |
//! |     16 |     8 | target      | uid of the acceptor's life                                     |
//! |     24 |     8 | dialer      | uid of the dialer's life                                       |
//! |     32 |    32 | nonce       | random, new for each connection                                |
//! |     64 |    32 | proof       | BLAKE3 keyed hash of bytes 0 to 63                             |
//!
//! Acceptor to dialer, 56 bytes:
//!
//! | offset | bytes | field       | meaning                                                        |
//! |-------:|------:|-------------|----------------------------------------------------------------|
//! |      0 |     8 | magic       | `MOBULA\r\n`                                                   |
//! |      8 |     1 | status      | 0 welcome, 1 no common version, 2 another life                 |
//! |      9 |     1 | reserved    | 0                                                              |
//! |     10 |     2 | version     | chosen; with status 1 the newest that the acceptor speaks      |
//! |     12 |     2 | version min | the oldest that the acceptor speaks                            |
//! |     14 |     2 | reserved    | 0                                                              |
//! |     16 |     8 | acceptor    | its uid                                                        |
//! |     24 |    32 | proof       | BLAKE3 keyed hash of the dialer's 96 bytes and bytes 0 to 23   |
//!
//! The layout is outside the version negotiation and never changes.

use std::collections::{HashSet, VecDeque};

use mobula_core::NodeUid;
use mobula_core::planted::{self, Bug};

use crate::session::Lane;

/// Length of the dialer's preface.
pub const DIAL_BYTES: usize = 96;
/// Length of the acceptor's answer.
pub const ACCEPT_BYTES: usize = 56;
/// The versions of the protocol that this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 3 };

const MAGIC: &[u8; 8] = b"MOBULA\r\n";
const NONCES_KEPT: usize = 65_536;

/// A range of protocol versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// The secret that the processes of one cluster share. It shows itself in no log and no dump.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new secret from the operating system's random source.
    ///
    /// # Errors
    /// If that source fails.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// A secret that was passed on.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    /// The bytes, to be passed on over a private channel.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn proof(&self, parts: [&[u8]; 2]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why a dialer connects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Purpose {
    /// To begin a session.
    #[default]
    Open,
    /// To go on with a session whose connection broke; a [`Resume`](crate::Resume) follows.
    Resume,
    /// To see whether the life that is wanted still lives; the connection ends with the answer.
    Probe,
}

/// What a dialer claims and proves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dial {
    /// The dialer's life.
    pub dialer: NodeUid,
    /// The life it wants to reach.
    pub target: NodeUid,
    /// What the connection is for.
    pub lane: Lane,
    /// What the dialer speaks.
    pub versions: Versions,
    /// Why it connects.
    pub purpose: Purpose,
    /// Random and new.
    pub nonce: [u8; 32],
}

/// A connection is refused before its first frame.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefaceError {
    /// The first bytes are not Mobula's. The peer got no answer.
    #[error("NotMobula: the first bytes are not those of a Mobula node")]
    NotMobula,
    /// The proof does not fit: another cluster's secret, or none. The peer got no answer.
    #[error("Unauthorized: the peer does not know this cluster's secret, or is another life of its node")]
    Unauthorized,
    /// The proof is right and was used before. The peer got no answer.
    #[error("Replayed: this handshake was used before")]
    Replayed,
    /// The peer wants another life of this node, or another node. The peer got no answer.
    #[error("StaleIncarnation: the peer wants life {wanted}, this is {ours}")]
    StaleIncarnation {
        /// What it wants.
        wanted: NodeUid,
        /// What it found.
        ours: NodeUid,
    },
    /// The peer's certificate is not one for the life that it claims to be. The peer got no answer.
    #[error("SpoofedSource: the peer claims to be life {claimed}, and its certificate is not one for that")]
    SpoofedSource {
        /// What it claims.
        claimed: NodeUid,
    },
    /// No protocol version in common.
    #[error(
        "VersionIncompatible: one side speaks {}..={} and the other {}..={}: upgrade the older one",
        ours.min, ours.max, theirs.min, theirs.max
    )]
    VersionIncompatible {
        /// What this side speaks.
        ours: Versions,
        /// What the other speaks.
        theirs: Versions,
    },
}

impl Dial {
    /// The session that begins with this: its name among those of the same two lives.
    pub fn session(&self) -> u64 {
        u64::from_be_bytes(array(&self.nonce, 0))
    }

    /// The 96 bytes.
    pub fn encode(&self, secret: &Secret) -> [u8; DIAL_BYTES] {
        let mut bytes = [0; DIAL_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&self.versions.min.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.versions.max.to_be_bytes());
        bytes[12] = match self.lane {
            Lane::Data => 0,
            Lane::Control => 1,
        };
        bytes[13] = match self.purpose {
            Purpose::Open => 0,
            Purpose::Resume => 1,
            Purpose::Probe => 2,
        };
        bytes[16..24].copy_from_slice(&self.target.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.dialer.0.to_be_bytes());
        bytes[32..64].copy_from_slice(&self.nonce);
        let proof = secret.proof([&bytes[..64], &[]]);
        bytes[64..].copy_from_slice(proof.as_bytes());
        bytes
    }
}

/// The acceptor's side: checks dialers, and remembers what must not be used twice.
#[derive(Debug)]
pub struct Acceptor {
    secret: Secret,
    uid: NodeUid,
    versions: Versions,
    seen: HashSet<[u8; 32]>,
    seen_in_order: VecDeque<[u8; 32]>,
}

impl Acceptor {
    /// Guards the node whose life is `uid`.
    pub fn new(secret: Secret, uid: NodeUid, versions: Versions) -> Self {
        Acceptor { secret, uid, versions, seen: HashSet::new(), seen_in_order: VecDeque::new() }
    }

    /// The version to speak with a dialer that was [let in](Self::check).
    pub fn agreed(&self, dial: &Dial) -> u16 {
        // Who was let in has a version in common with us.
        self.versions.common(dial.versions).unwrap_or(self.versions.min)
    }

    /// Checks a dialer's 96 bytes. With the verdict come the bytes to answer, if the peer deserves an answer: a
    /// stranger gets none.
    pub fn check(&mut self, bytes: &[u8; DIAL_BYTES]) -> (Result<Dial, PrefaceError>, Option<[u8; ACCEPT_BYTES]>) {
        let dial = match self.authenticate(bytes) {
            Ok(dial) => dial,
            // Who looks for a life that it knew is told that another is here: that is the end of the one it knew.
            Err(error @ PrefaceError::StaleIncarnation { .. }) if bytes[13] != 0 => {
                return (Err(error), Some(self.answer(bytes, 2, self.versions.max)));
            }
            Err(error) => return (Err(error), None),
        };
        let (status, version) = match self.versions.common(dial.versions) {
            Some(version) => (0, version),
            None => (1, self.versions.max),
        };
        let answer = self.answer(bytes, status, version);
        let verdict = if status == 0 {
            Ok(dial)
        } else {
            Err(PrefaceError::VersionIncompatible { ours: self.versions, theirs: dial.versions })
        };
        (verdict, Some(answer))
    }

    fn answer(&self, dialed: &[u8; DIAL_BYTES], status: u8, version: u16) -> [u8; ACCEPT_BYTES] {
        let mut answer = [0; ACCEPT_BYTES];
        answer[..8].copy_from_slice(MAGIC);
        answer[8] = status;
        answer[10..12].copy_from_slice(&version.to_be_bytes());
        answer[12..14].copy_from_slice(&self.versions.min.to_be_bytes());
        answer[16..24].copy_from_slice(&self.uid.0.to_be_bytes());
        let proof = self.secret.proof([dialed, &answer[..24]]);
        answer[24..].copy_from_slice(proof.as_bytes());
        answer
    }

    fn authenticate(&mut self, bytes: &[u8; DIAL_BYTES]) -> Result<Dial, PrefaceError> {
        if !is_magic(bytes) {
            return Err(PrefaceError::NotMobula);
        }
        // Comparison of two `Hash`es takes constant time.
        if self.secret.proof([&bytes[..64], &[]]) != blake3::Hash::from_bytes(array(bytes, 64)) {
            return Err(PrefaceError::Unauthorized);
        }
        let target = NodeUid(u64::from_be_bytes(array(bytes, 16)));
        let stale = target != self.uid && !planted::is(Bug::StaleAccepted);
        if stale && bytes[13] == 0 {
            return Err(PrefaceError::StaleIncarnation { wanted: target, ours: self.uid });
        }
        let nonce: [u8; 32] = array(bytes, 32);
        if !self.seen.insert(nonce) && !planted::is(Bug::ReplayAccepted) {
            return Err(PrefaceError::Replayed);
        }
        self.seen_in_order.push_back(nonce);
        if self.seen_in_order.len() > NONCES_KEPT
            && let Some(oldest) = self.seen_in_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        if stale {
            return Err(PrefaceError::StaleIncarnation { wanted: target, ours: self.uid });
        }
        let lane = match bytes[12] {
            0 => Lane::Data,
            1 => Lane::Control,
            _ => return Err(PrefaceError::NotMobula),
        };
        let purpose = match bytes[13] {
            0 => Purpose::Open,
            1 => Purpose::Resume,
            2 => Purpose::Probe,
            _ => return Err(PrefaceError::NotMobula),
        };
        Ok(Dial {
            dialer: NodeUid(u64::from_be_bytes(array(bytes, 24))),
            target,
            lane,
            versions: Versions { min: u16::from_be_bytes(array(bytes, 8)), max: u16::from_be_bytes(array(bytes, 10)) },
            purpose,
            nonce,
        })
    }
}

/// True if `bytes` begin as every preface does.
pub fn is_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The dialer's check of the acceptor's answer to `sent`. Returns the chosen version.
///
/// # Errors
/// [`PrefaceError`]: the acceptor does not know the secret, is another life, or speaks other versions.
pub fn check_answer(
    secret: &Secret,
    dial: &Dial,
    sent: &[u8; DIAL_BYTES],
    answer: &[u8; ACCEPT_BYTES],
) -> Result<u16, PrefaceError> {
    if !is_magic(answer) {
        return Err(PrefaceError::NotMobula);
    }
    if secret.proof([sent, &answer[..24]]) != blake3::Hash::from_bytes(array(answer, 24)) {
        return Err(PrefaceError::Unauthorized);
    }
    let uid = NodeUid(u64::from_be_bytes(array(answer, 16)));
    if uid != dial.target {
        return Err(PrefaceError::StaleIncarnation { wanted: dial.target, ours: uid });
    }
    let version = u16::from_be_bytes(array(answer, 10));
    // A choice that we do not speak is none.
    if answer[8] != 0 || version < dial.versions.min || version > dial.versions.max {
        let theirs = Versions { min: u16::from_be_bytes(array(answer, 12)), max: version };
        return Err(PrefaceError::VersionIncompatible { ours: dial.versions, theirs });
    }
    Ok(version)
}

/// `N` bytes at `at`; zeros where the slice is shorter, which the fixed layouts above exclude.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<N>()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial() -> Dial {
        Dial {
            dialer: NodeUid(1),
            target: NodeUid(2),
            lane: Lane::Control,
            versions: VERSIONS,
            purpose: Purpose::Open,
            nonce: [7; 32],
        }
    }

    fn acceptor(versions: Versions) -> Acceptor {
        Acceptor::new(Secret::from_bytes([9; 32]), NodeUid(2), versions)
    }

    #[test]
    fn both_sides_prove_the_secret() {
        let secret = Secret::from_bytes([9; 32]);
        let sent = dial().encode(&secret);
        let (verdict, answer) = acceptor(VERSIONS).check(&sent);
        assert_eq!(verdict, Ok(dial()));
        let answer = answer.expect("a friend gets an answer");
        assert_eq!(check_answer(&secret, &dial(), &sent, &answer), Ok(VERSIONS.max));
        for bit in 0..ACCEPT_BYTES * 8 {
            let mut wrong = answer;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(check_answer(&secret, &dial(), &sent, &wrong).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_stranger_gets_no_byte() {
        let other = dial().encode(&Secret::from_bytes([8; 32]));
        assert_eq!(acceptor(VERSIONS).check(&other), (Err(PrefaceError::Unauthorized), None));
        assert_eq!(acceptor(VERSIONS).check(&[0; DIAL_BYTES]), (Err(PrefaceError::NotMobula), None));
        let right = dial().encode(&Secret::from_bytes([9; 32]));
        for bit in 0..DIAL_BYTES * 8 {
            let mut wrong = right;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let (verdict, answer) = acceptor(VERSIONS).check(&wrong);
            assert!(verdict.is_err() && answer.is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_handshake_serves_once_and_for_one_life() {
        let sent = dial().encode(&Secret::from_bytes([9; 32]));
        let mut acceptor = acceptor(VERSIONS);
        assert!(acceptor.check(&sent).0.is_ok());
        assert_eq!(acceptor.check(&sent), (Err(PrefaceError::Replayed), None));
        let mut later = Acceptor::new(Secret::from_bytes([9; 32]), NodeUid(3), VERSIONS);
        let stale = PrefaceError::StaleIncarnation { wanted: NodeUid(2), ours: NodeUid(3) };
        assert_eq!(later.check(&sent), (Err(stale), None));
    }

    #[test]
    fn who_looks_for_a_life_that_is_gone_is_told_once_that_another_is_here() {
        let secret = Secret::from_bytes([9; 32]);
        for purpose in [Purpose::Resume, Purpose::Probe] {
            let wanted = Dial { target: NodeUid(3), purpose, ..dial() };
            let sent = wanted.encode(&secret);
            let mut acceptor = acceptor(VERSIONS);
            let stale = PrefaceError::StaleIncarnation { wanted: NodeUid(3), ours: NodeUid(2) };
            let (verdict, answer) = acceptor.check(&sent);
            assert_eq!(verdict, Err(stale.clone()));
            assert_eq!(check_answer(&secret, &wanted, &sent, &answer.expect("an answer")), Err(stale));
            assert_eq!(acceptor.check(&sent), (Err(PrefaceError::Replayed), None));
            // Who does not know the secret hears nothing.
            let stranger = wanted.encode(&Secret::from_bytes([8; 32]));
            assert_eq!(acceptor.check(&stranger), (Err(PrefaceError::Unauthorized), None));
        }
    }

    #[test]
    fn versions_are_agreed_or_refused_clearly() {
        let secret = Secret::from_bytes([9; 32]);
        let old = Dial { versions: Versions { min: 1, max: 2 }, ..dial() };
        let sent = old.encode(&secret);
        let mut newer = acceptor(Versions { min: 2, max: 5 });
        let (verdict, answer) = newer.check(&sent);
        assert_eq!(verdict.map(|dial| newer.agreed(&dial)), Ok(2));
        assert_eq!(check_answer(&secret, &old, &sent, &answer.expect("an answer")), Ok(2));

        let (verdict, answer) = acceptor(Versions { min: 3, max: 5 }).check(&sent);
        let (ours, theirs) = (Versions { min: 3, max: 5 }, Versions { min: 1, max: 2 });
        assert_eq!(verdict, Err(PrefaceError::VersionIncompatible { ours, theirs }));
        assert_eq!(
            check_answer(&secret, &old, &sent, &answer.expect("an answer")),
            Err(PrefaceError::VersionIncompatible { ours: theirs, theirs: ours })
        );
    }

    #[test]
    fn the_secret_does_not_show() {
        assert_eq!(format!("{:?}", acceptor(VERSIONS).secret), "Secret(hidden)");
    }
}
