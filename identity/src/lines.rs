//! The lives that a node has had one after another, each come back as the next: its line. A certificate names the line of its life, and the newest life
//! of a line alone may go on.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_core::cluster::UnixTime;
use mobula_core::planted::{self, Bug};
use mobula_core::{NodeUid, limits};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::revocations::Revocations;

/// As long as a certificate may be valid that was given a moment ago.
const LIFE: Duration = limits::CERTIFICATE_LIFE.saturating_add(limits::CLOCK_SKEW_MAX);
const SUFFIX: &str = ".line.mobula";

/// Which life of each line is the newest, until the certificates of those before have ended anyway: one whose line is not in here is the newest.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Lines(BTreeMap<NodeUid, Newest>);

/// The newest life, the one before it, the key with which that came back, and until when this is kept. A list and no map in MessagePack: there may be
/// thousands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Newest(NodeUid, NodeUid, #[serde(with = "serde_bytes")] [u8; 16], UnixTime);

/// The name in the certificate of a life that goes on with the line that began with `first`: `0123456789abcdef.line.mobula`. A life that has begun with a
/// token is the first of a line, and bears no such name.
pub(crate) fn line_name(first: NodeUid) -> String {
    format!("{:016x}{SUFFIX}", first.0)
}

/// The line of the life `uid`, whose certificate bears these names: the life that it has begun with.
pub fn line_of<'a>(uid: NodeUid, names: impl IntoIterator<Item = &'a str>) -> NodeUid {
    let first = names.into_iter().find_map(|name| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok());
    first.map_or(uid, NodeUid)
}

impl Lines {
    /// The life `uid` of a line comes back as `next`, with a key of which `key` is a part of the hash. Gives the life that it is to have: who comes with
    /// the same key again has heard no answer, and gets the same life.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] if the life or its successor was cut off, [`Refusal::Superseded`] if it has come back before, [`Refusal::HeadFailed`] if too
    /// many are remembered. Nothing has changed then.
    pub fn comes_back(
        &mut self,
        revoked: &Revocations,
        line: NodeUid,
        uid: NodeUid,
        key: [u8; 16],
        next: NodeUid,
        now: UnixTime,
    ) -> Result<NodeUid, Refusal> {
        if revoked.contains(uid) {
            return Err(Refusal::Revoked);
        }
        self.0.retain(|_, Newest(.., until)| *until > now);
        match self.0.get(&line) {
            Some(Newest(newest, before, with, _)) if *before == uid && *with == key => {
                return if revoked.contains(*newest) { Err(Refusal::Revoked) } else { Ok(*newest) };
            }
            Some(Newest(newest, ..)) if *newest != uid && !planted::is(Bug::ReturnedTwice) => {
                return Err(Refusal::Superseded);
            }
            None if self.0.len() >= limits::LINES_MAX => {
                let limit = limits::LINES_MAX;
                return Err(Refusal::HeadFailed(format!(
                    "{limit} nodes have come back within a day, the most that are remembered"
                )));
            }
            _ => {}
        }
        self.0.insert(line, Newest(next, uid, key, now.after(LIFE)));
        Ok(next)
    }

    /// The newest life of a line has another certificate from now on. True if there is something to remember of that line.
    pub fn renewed(&mut self, line: NodeUid, now: UnixTime) -> bool {
        self.0.get_mut(&line).is_some_and(|Newest(.., until)| {
            *until = now.after(LIFE);
            true
        })
    }

    /// The lives that have come back and the newest of their lines, as long as that is remembered: the newer one may have been seen by nobody but this head.
    pub fn returned(&self) -> impl Iterator<Item = (NodeUid, NodeUid)> {
        self.0.values().map(|Newest(newest, before, ..)| (*before, *newest))
    }

    /// True if `uid` is known to be a life of the line: its first, its newest, or the one before that.
    pub fn is_of(&self, line: NodeUid, uid: NodeUid) -> bool {
        uid == line || self.0.get(&line).is_some_and(|Newest(newest, before, ..)| [newest, before].contains(&&uid))
    }

    /// The life `uid` of a line may go on.
    ///
    /// # Errors
    /// [`Refusal::Revoked`], [`Refusal::Superseded`].
    pub fn goes_on(&self, revoked: &Revocations, line: NodeUid, uid: NodeUid) -> Result<(), Refusal> {
        match self.0.get(&line) {
            _ if revoked.contains(uid) => Err(Refusal::Revoked),
            Some(Newest(newest, ..)) if *newest != uid => Err(Refusal::Superseded),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);
    const LINE: NodeUid = NodeUid(1);

    #[test]
    fn a_life_comes_back_once_and_its_successor_after_it() {
        let mut lines = Lines::default();
        let mut none = Revocations::default();
        let mut back = |uid, key, next| lines.comes_back(&none, LINE, NodeUid(uid), [key; 16], NodeUid(next), NOW);
        assert_eq!(back(1, 1, 2), Ok(NodeUid(2)));
        assert_eq!(back(1, 1, 3), Ok(NodeUid(2)), "the answer was lost");
        assert_eq!(back(1, 2, 3), Err(Refusal::Superseded), "a copy, with a key of its own");
        assert_eq!(back(2, 2, 3), Ok(NodeUid(3)));
        for (uid, key) in [(1, 1), (2, 1), (9, 2)] {
            assert_eq!(back(uid, key, 4), Err(Refusal::Superseded), "{uid}");
        }
        let goes_on = |revoked: &Revocations, line, uid| lines.goes_on(revoked, NodeUid(line), NodeUid(uid));
        assert_eq!([1, 2].map(|uid| goes_on(&none, 1, uid)), [Err(Refusal::Superseded), Err(Refusal::Superseded)]);
        assert_eq!([goes_on(&none, 1, 3), goes_on(&none, 7, 7)], [Ok(()), Ok(())]);
        assert!([1, 2, 3].into_iter().all(|uid| lines.is_of(LINE, NodeUid(uid))), "its first, the last two");
        assert!(!lines.is_of(LINE, NodeUid(7)) && !lines.is_of(NodeUid(7), NodeUid(3)));
        none.revoke(NodeUid(3), NOW);
        assert_eq!(goes_on(&none, 1, 3), Err(Refusal::Revoked));
    }

    #[test]
    fn a_life_that_was_cut_off_does_not_come_back_nor_one_whose_successor_was() {
        let (mut lines, mut revoked) = (Lines::default(), Revocations::default());
        assert_eq!(lines.comes_back(&revoked, LINE, LINE, [1; 16], NodeUid(2), NOW), Ok(NodeUid(2)));
        revoked.revoke(NodeUid(2), NOW);
        let before = lines.clone();
        for (uid, key) in [(1, 1), (2, 1), (2, 2)] {
            let back = lines.comes_back(&revoked, LINE, NodeUid(uid), [key; 16], NodeUid(3), NOW);
            assert_eq!(back, Err(Refusal::Revoked), "{uid}");
        }
        assert_eq!(lines, before);
    }

    #[test]
    fn a_line_is_remembered_as_long_as_a_certificate_of_an_old_life_could_be_valid() {
        let (mut lines, none) = (Lines::default(), Revocations::default());
        assert_eq!(lines.comes_back(&none, LINE, LINE, [1; 16], NodeUid(2), NOW), Ok(NodeUid(2)));
        let just_before = UnixTime(NOW.after(LIFE).0 - 1);
        assert_eq!(lines.comes_back(&none, LINE, LINE, [2; 16], NodeUid(3), just_before), Err(Refusal::Superseded));
        // With another certificate of its own the newest life is remembered for longer.
        let mut renewed = lines.clone();
        assert!(renewed.renewed(LINE, just_before) && !renewed.renewed(NodeUid(7), just_before));
        assert_eq!(renewed.returned().collect::<Vec<_>>(), [(LINE, NodeUid(2))]);
        assert_eq!(
            renewed.comes_back(&none, LINE, LINE, [2; 16], NodeUid(3), NOW.after(LIFE)),
            Err(Refusal::Superseded)
        );
        // Whoever bears a valid certificate of the line now is its newest life.
        assert_eq!(lines.comes_back(&none, LINE, NodeUid(2), [2; 16], NodeUid(3), NOW.after(LIFE)), Ok(NodeUid(3)));
    }

    #[test]
    fn so_many_lines_are_remembered_and_no_more() {
        let mut lines = Lines::default();
        let mut back = |line: u64, now| {
            lines.comes_back(&Revocations::default(), NodeUid(line), NodeUid(line), [0; 16], NodeUid(!line), now)
        };
        for line in 0..limits::LINES_MAX as u64 {
            assert!(back(line, NOW).is_ok());
        }
        let over = back(1 << 32, NOW);
        assert!(matches!(&over, Err(Refusal::HeadFailed(text)) if text.contains("8192")), "{over:?}");
        assert!(back(1 << 32, NOW.after(LIFE)).is_ok());
        // A head reads no file beyond 1 MiB.
        let mut full = Lines::default();
        for line in 0..limits::LINES_MAX as u64 {
            full.comes_back(&Revocations::default(), NodeUid(!line), NodeUid(!line), [7; 16], NodeUid(!line - 1), NOW)
                .expect("room");
        }
        let bytes = mobula_core::codec::encode(&full).expect("plain data");
        assert!(bytes.len() < 512 * 1024, "{}", bytes.len());
        assert_eq!(mobula_core::codec::decode::<Lines>(&bytes).expect("just written"), full);
    }

    #[test]
    fn a_line_is_read_from_the_names_of_a_certificate() {
        let uid = NodeUid(7);
        assert_eq!(line_of(uid, ["0000000000000007.node.mobula", "worker.role.mobula"]), uid);
        let name = line_name(NodeUid(0xab));
        assert_eq!(name, "00000000000000ab.line.mobula");
        assert_eq!(line_of(uid, ["worker.role.mobula", &name]), NodeUid(0xab));
    }
}
