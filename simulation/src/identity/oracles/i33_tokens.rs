//! I33: join tokens are exact: each lets in as often as it says and no oftener, for its role, until its time by the head's clock, until it is taken
//! back, and only whoever its holder has signed for; and it does let those in. A use that was written by a head that was killed may be lost.

use std::collections::{BTreeMap, BTreeSet};

use mobula_core::NodeUid;
use mobula_identity::{Role, TokenId, UnixTime};

use super::{Fact, Oracle};
use crate::params::Time;

#[derive(Default)]
pub(super) struct Tokens {
    tokens: BTreeMap<TokenId, Known>,
    lives: BTreeSet<NodeUid>,
}

struct Known {
    role: Role,
    uses: u32,
    expires: UnixTime,
    joined: u32,
    /// Uses that may have been written by heads that were killed.
    maybe: u32,
    will_go: bool,
    gone: bool,
}

impl Oracle for Tokens {
    fn promise(&self) -> &'static str {
        "I33 join tokens are exact"
    }

    fn fact(&mut self, fact: &Fact, _: Time) -> Result<(), String> {
        match *fact {
            Fact::TokenMade { id, role, uses, expires } => {
                let known = Known { role, uses, expires, joined: 0, maybe: 0, will_go: false, gone: false };
                self.tokens.insert(id, known);
            }
            Fact::TokenWillGo { id } => self.change(id, |known| known.will_go = true),
            Fact::TokenGone { id } => self.change(id, |known| known.gone = true),
            Fact::HeadEnds { spending: Some(id) } => self.change(id, |known| known.maybe += 1),
            Fact::Joined { token, role, uid, now, right } => {
                if !self.lives.insert(uid) {
                    return Err(format!("{uid} is given twice"));
                }
                let Some(known) = self.tokens.get_mut(&token) else {
                    return Err(format!("somebody joins with {token}, which was never made"));
                };
                known.joined += 1;
                let wrong = match () {
                    () if !right => "which its holder did not sign for",
                    () if known.gone => "which was taken back",
                    () if known.expires <= now => "after its time",
                    () if known.role != role => "for another role",
                    () if known.joined > known.uses => "oftener than it says",
                    () => return Ok(()),
                };
                return Err(format!("{uid} joins as {role} with {token}, {wrong}"));
            }
            Fact::Refused { token, role, now, right: true, ref why } => {
                let Some(known) = self.tokens.get(&token) else { return Ok(()) };
                let used_up = known.joined + known.maybe >= known.uses;
                if !known.will_go && known.expires > now && known.role == role && !used_up {
                    return Err(format!("who comes with {token} is refused, and it is good: {why}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Tokens {
    fn change(&mut self, id: TokenId, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.tokens.get_mut(&id) {
            change(known);
        }
    }
}
