//! The tokens of a cluster, as the head knows them, and the decision who may join. Exact: a use is spent before anything is given for it.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use mobula_core::limits;
use mobula_core::planted::{self, Bug};
use serde::{Deserialize, Serialize};

use crate::error::{IdentityError, Refusal};
use crate::role::Role;
use crate::token::TokenId;
use mobula_core::cluster::UnixTime;

/// All tokens that are not used up, over or revoked.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    tokens: BTreeMap<TokenId, Entry>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Entry {
    #[serde(with = "serde_bytes")]
    public_key: [u8; 32],
    role: Role,
    uses_left: u32,
    expires: UnixTime,
}

/// What can be shown of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Which.
    pub id: TokenId,
    /// What it lets its holder become.
    pub role: Role,
    /// How often yet.
    pub uses_left: u32,
    /// Until when.
    pub expires: UnixTime,
}

impl Ledger {
    /// Notes a new token, and forgets those that are over.
    ///
    /// # Errors
    /// [`IdentityError::TokenForHead`], [`IdentityError::NoUses`], [`IdentityError::TooManyTokens`].
    pub fn add(&mut self, info: TokenInfo, public_key: [u8; 32], now: UnixTime) -> Result<(), IdentityError> {
        if !info.role.by_token() {
            return Err(IdentityError::TokenForHead);
        }
        if info.uses_left == 0 || info.expires <= now {
            return Err(IdentityError::NoUses);
        }
        self.tokens.retain(|_, entry| entry.expires > now && entry.uses_left > 0);
        if self.tokens.len() >= limits::TOKENS_MAX {
            return Err(IdentityError::TooManyTokens { limit: limits::TOKENS_MAX });
        }
        let TokenInfo { id, role, uses_left, expires } = info;
        self.tokens.insert(id, Entry { public_key, role, uses_left, expires });
        Ok(())
    }

    /// The tokens that would be accepted at `now`.
    pub fn list(&self, now: UnixTime) -> Vec<TokenInfo> {
        let valid = self.tokens.iter().filter(|(_, entry)| entry.expires > now && entry.uses_left > 0);
        valid
            .map(|(id, entry)| TokenInfo {
                id: *id,
                role: entry.role,
                uses_left: entry.uses_left,
                expires: entry.expires,
            })
            .collect()
    }

    /// Takes a token back. True if it was there.
    pub fn revoke(&mut self, id: TokenId) -> bool {
        if planted::is(Bug::TokenKept) {
            return self.tokens.contains_key(&id);
        }
        self.tokens.remove(&id).is_some()
    }

    /// Spends one use of the token `id` for `role`, if `signature` over `statement` is its holder's.
    ///
    /// # Errors
    /// [`Refusal`]: for the audit alone, and nothing is spent.
    pub fn spend(
        &mut self,
        id: TokenId,
        role: Role,
        statement: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let entry = self.tokens.get_mut(&id);
        // A token that is not known is checked all the same, so that the time taken does not tell.
        let key = entry.as_ref().map_or([0x58; 32], |entry| entry.public_key);
        let signed = UnparsedPublicKey::new(&ED25519, key).verify(statement, signature).is_ok();
        let entry = entry.ok_or(Refusal::UnknownToken)?;
        if !signed && !planted::is(Bug::TokenUnsigned) {
            return Err(Refusal::WrongSignature);
        }
        if entry.expires <= now && !planted::is(Bug::TokenOverTaken) {
            return Err(Refusal::Expired);
        }
        if entry.role != role && !planted::is(Bug::TokenAnyRole) {
            return Err(Refusal::WrongRole);
        }
        let left = entry.uses_left.checked_sub(1).ok_or(Refusal::UsedUp)?;
        entry.uses_left = if planted::is(Bug::TokenUnspent) { entry.uses_left } else { left };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::token::Token;

    const NOW: UnixTime = UnixTime(1_000);
    const END: UnixTime = UnixTime(2_000);
    const ID: TokenId = TokenId(7);

    fn token() -> Token {
        Token::new([1; 32], ID, Zeroizing::new([2; 32]))
    }

    fn info(id: TokenId, uses_left: u32) -> TokenInfo {
        TokenInfo { id, role: Role::Worker, uses_left, expires: END }
    }

    fn ledger(uses: u32) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add(info(ID, uses), token().public_key().expect("a key"), NOW).expect("room");
        ledger
    }

    fn signature() -> [u8; 64] {
        token().sign(b"this").expect("a key")
    }

    #[test]
    fn a_token_serves_as_often_as_it_says() {
        let mut ledger = ledger(2);
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), NOW), Ok(()));
        assert_eq!(ledger.list(NOW), [info(ID, 1)]);
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), NOW), Ok(()));
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), NOW), Err(Refusal::UsedUp));
        assert_eq!(ledger.list(NOW), []);
    }

    #[test]
    fn what_is_wrong_spends_nothing() {
        let mut ledger = ledger(1);
        let before = ledger.clone();
        let end = UnixTime(END.0 - 1);
        assert_eq!(ledger.spend(TokenId(8), Role::Worker, b"this", &signature(), NOW), Err(Refusal::UnknownToken));
        assert_eq!(ledger.spend(ID, Role::Worker, b"that", &signature(), NOW), Err(Refusal::WrongSignature));
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &[], NOW), Err(Refusal::WrongSignature));
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), END), Err(Refusal::Expired));
        assert_eq!(ledger.spend(ID, Role::Operator, b"this", &signature(), NOW), Err(Refusal::WrongRole));
        for bit in 0..512 {
            let mut wrong = signature();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ledger.spend(ID, Role::Worker, b"this", &wrong, NOW), Err(Refusal::WrongSignature), "bit {bit}");
        }
        assert_eq!(ledger, before);
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), end), Ok(()), "until its last second");
    }

    #[test]
    fn a_revoked_token_is_unknown() {
        let mut ledger = ledger(1);
        assert!(ledger.revoke(ID));
        assert!(!ledger.revoke(ID));
        assert_eq!(ledger.spend(ID, Role::Worker, b"this", &signature(), NOW), Err(Refusal::UnknownToken));
    }

    #[test]
    fn tokens_are_bounded_and_those_that_are_over_make_room() {
        let mut ledger = ledger(1);
        for id in 100..100 + limits::TOKENS_MAX as u64 - 1 {
            ledger.add(info(TokenId(id), 1), [3; 32], NOW).expect("room");
        }
        let full = ledger.add(info(TokenId(1), 1), [3; 32], NOW);
        assert!(matches!(full, Err(IdentityError::TooManyTokens { limit: limits::TOKENS_MAX })));
        let later = TokenInfo { expires: UnixTime(END.0 + 1), ..info(TokenId(1), 1) };
        ledger.add(later, [3; 32], END).expect("the others are over");
        assert_eq!(ledger.list(END), [later]);
    }

    #[test]
    fn no_token_makes_a_head_or_serves_never() {
        let mut ledger = Ledger::default();
        let head = TokenInfo { role: Role::Head, ..info(ID, 1) };
        assert!(matches!(ledger.add(head, [3; 32], NOW), Err(IdentityError::TokenForHead)));
        assert!(matches!(ledger.add(info(ID, 0), [3; 32], NOW), Err(IdentityError::NoUses)));
        assert!(matches!(ledger.add(info(ID, 1), [3; 32], END), Err(IdentityError::NoUses)));
    }
}
