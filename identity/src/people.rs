//! The people who have joined: clients, operators and observers, which are in no list of nodes, so that they can be seen and cut off.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mobula_core::cluster::UnixTime;
use mobula_core::{NodeUid, limits};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::role::Role;
use crate::token::TokenId;

/// The credentials of people that are not over.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct People {
    lives: BTreeMap<NodeUid, Entry>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Entry {
    role: Role,
    token: Option<TokenId>,
    from: SocketAddr,
    since: UnixTime,
    until: UnixTime,
}

/// What can be shown of a person's credential.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CredentialInfo {
    /// The life that it is for.
    pub uid: NodeUid,
    /// What its holder may do.
    pub role: Role,
    /// The token that it was given for; none if the head that gave it kept no list.
    pub token: Option<TokenId>,
    /// Where its holder was when it was given or last renewed.
    pub from: SocketAddr,
    /// When it was given first.
    pub since: UnixTime,
    /// Its end, unless it is renewed.
    pub until: UnixTime,
}

impl People {
    /// A certificate is given: to somebody new, or to one who renews and keeps when and by which token it came. Forgets those that are over.
    ///
    /// # Errors
    /// [`Refusal::TooManyCredentials`]: there are [`limits::CREDENTIALS_MAX`] others.
    pub(crate) fn put(&mut self, info: CredentialInfo, now: UnixTime) -> Result<(), Refusal> {
        let CredentialInfo { uid, role, token, from, since, until } = info;
        self.lives.retain(|life, entry| *life == uid || entry.until > now);
        if let Some(entry) = self.lives.get_mut(&uid) {
            (entry.from, entry.until) = (from, until);
            return Ok(());
        }
        if self.lives.len() >= limits::CREDENTIALS_MAX {
            return Err(Refusal::TooManyCredentials { limit: limits::CREDENTIALS_MAX });
        }
        self.lives.insert(uid, Entry { role, token, from, since, until });
        Ok(())
    }

    /// Those that are good at `now`.
    pub(crate) fn list(&self, now: UnixTime) -> Vec<CredentialInfo> {
        let good = self.lives.iter().filter(|(_, entry)| entry.until > now);
        good.map(|(uid, entry)| {
            let Entry { role, token, from, since, until } = *entry;
            CredentialInfo { uid: *uid, role, token, from, since, until }
        })
        .collect()
    }

    /// Takes one from the list. True if it was there.
    pub(crate) fn remove(&mut self, uid: NodeUid) -> bool {
        self.lives.remove(&uid).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    fn info(uid: u64, until: u64) -> CredentialInfo {
        CredentialInfo {
            uid: NodeUid(uid),
            role: Role::Client,
            token: Some(TokenId(5)),
            from: SocketAddr::from(([10, 0, 0, 7], 1)),
            since: NOW,
            until: UnixTime(until),
        }
    }

    #[test]
    fn who_renews_stays_the_one_that_came() {
        let mut people = People::default();
        people.put(info(1, 2_000), NOW).expect("room");
        let elsewhere = SocketAddr::from(([10, 0, 0, 8], 2));
        let again = CredentialInfo { token: None, from: elsewhere, since: UnixTime(1_500), ..info(1, 3_000) };
        people.put(again, UnixTime(1_500)).expect("no room is needed");
        assert_eq!(people.list(NOW), [CredentialInfo { from: elsewhere, ..info(1, 3_000) }]);
        assert!(people.remove(NodeUid(1)) && !people.remove(NodeUid(1)));
        assert_eq!(people.list(NOW), []);
    }

    #[test]
    fn their_number_is_bounded_and_those_that_are_over_make_room() {
        let mut people = People::default();
        for uid in 0..limits::CREDENTIALS_MAX as u64 {
            people.put(info(uid, 2_000), NOW).expect("room");
        }
        let full = Err(Refusal::TooManyCredentials { limit: limits::CREDENTIALS_MAX });
        assert_eq!(people.put(info(u64::MAX, 3_000), UnixTime(1_999)), full);
        people.put(info(7, 3_000), UnixTime(1_999)).expect("who is in may renew");
        people.put(info(u64::MAX, 3_000), UnixTime(2_000)).expect("the others are over");
        assert_eq!(people.list(UnixTime(2_000)), [info(7, 3_000), info(u64::MAX, 3_000)]);
    }
}
