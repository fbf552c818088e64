//! The head's side, as `identity/src/head.rs` does it: what is decided is on disk before anything is given for it. Its process is killed
//! before or after its writes.

use std::time::Duration;

use mobula_core::{NodeUid, codec};
use mobula_identity::{
    ClusterId, Ledger, Lines, Refusal, Request, Revocations, Role, Token, TokenId, TokenInfo, UnixTime,
};

use crate::random::Random;

#[derive(Clone, Default)]
struct State {
    tokens: Ledger,
    revocations: Revocations,
    lines: Lines,
}

pub(super) struct Head {
    pub(super) cluster: ClusterId,
    state: State,
    disk: State,
    kill_one_in: u64,
    pub(super) up: bool,
}

/// A life, and the first of its line.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) uid: NodeUid,
    pub(super) line: NodeUid,
}

/// What the head says to one who comes with a token.
pub(super) enum Answer {
    Yes {
        token: TokenId,
        role: Role,
    },
    No {
        /// The token and the role that it named, if that could be read.
        named: Option<(TokenId, Role)>,
        why: Refusal,
    },
}

/// The process was killed: nobody hears an answer.
pub(super) struct Killed;

impl Head {
    pub(super) fn new(cluster: ClusterId, kill_one_in: u64) -> Self {
        Head { cluster, state: State::default(), disk: State::default(), kill_one_in, up: true }
    }

    /// From now on nobody kills it.
    pub(super) fn spare(&mut self) {
        self.kill_one_in = 0;
    }

    /// It comes back with what it has written.
    pub(super) fn begin(&mut self) {
        self.state = self.disk.clone();
        self.up = true;
    }

    pub(super) fn revocations(&self) -> &Revocations {
        &self.state.revocations
    }

    fn write(&mut self, next: State, r: &mut Random) -> Result<(), Killed> {
        let killed = self.kill_one_in > 0 && r.one_in(self.kill_one_in);
        if killed && r.one_in(2) {
            self.up = false;
            return Err(Killed);
        }
        self.disk = next.clone();
        if killed {
            self.up = false;
            return Err(Killed);
        }
        self.state = next;
        Ok(())
    }

    /// Notes a token; false if it cannot.
    pub(super) fn add_token(
        &mut self,
        token: &Token,
        role: Role,
        uses: u32,
        ttl: Duration,
        now: UnixTime,
        r: &mut Random,
    ) -> Result<bool, Killed> {
        let info = TokenInfo { id: token.id(), role, uses_left: uses, expires: now.after(ttl) };
        let mut next = self.state.clone();
        let Some(key) = token.public_key() else { return Ok(false) };
        if next.tokens.add(info, key, now).is_err() {
            return Ok(false);
        }
        self.write(next, r).map(|()| true)
    }

    pub(super) fn revoke_token(&mut self, id: TokenId, r: &mut Random) -> Result<(), Killed> {
        let mut next = self.state.clone();
        next.tokens.revoke(id);
        self.write(next, r)
    }

    pub(super) fn revoke_node(&mut self, uid: NodeUid, now: UnixTime, r: &mut Random) -> Result<(), Killed> {
        let mut next = self.state.clone();
        next.revocations.revoke(uid, now);
        self.write(next, r)
    }

    /// Answers one who has shown the certificate of the life `uid` and wants to come back as another, with this key.
    pub(super) fn comes_back(
        &mut self,
        life: Life,
        key: [u8; 16],
        drawn: NodeUid,
        now: UnixTime,
        r: &mut Random,
    ) -> Result<Result<NodeUid, Refusal>, Killed> {
        let mut next = self.state.clone();
        match next.lines.comes_back(&next.revocations, life.line, life.uid, key, drawn, now) {
            Ok(successor) => self.write(next, r).map(|()| Ok(successor)),
            Err(why) => Ok(Err(why)),
        }
    }

    /// True if a life may have another certificate.
    pub(super) fn goes_on(&self, life: Life) -> bool {
        self.state.lines.goes_on(&self.state.revocations, life.line, life.uid).is_ok()
    }

    /// Answers one who comes over a connection that exports these bytes.
    pub(super) fn serve(
        &mut self,
        bytes: &[u8],
        exported: &[u8; 32],
        now: UnixTime,
        r: &mut Random,
    ) -> Result<Answer, Killed> {
        let (token, role, csr, signature) = match Request::decode(bytes) {
            Ok(Request::Join { token, role, csr, signature }) => (token, role, csr, signature),
            Ok(_) => return Ok(Answer::No { named: None, why: Refusal::NotTheHolder }),
            Err(error) => return Ok(Answer::No { named: None, why: Refusal::BadRequest(error.to_string()) }),
        };
        let statement = Request::statement(&self.cluster, exported, &csr);
        let mut next = self.state.clone();
        if let Err(why) = next.tokens.spend(token, role, &statement, &signature, now) {
            return Ok(Answer::No { named: Some((token, role)), why });
        }
        self.write(next, r)?;
        Ok(Answer::Yes { token, role })
    }
}

/// What an honest holder of `token` sends over a connection that exports these bytes.
pub(super) fn request(token: &Token, role: Role, cluster: &ClusterId, exported: &[u8; 32], csr: Vec<u8>) -> Request {
    let statement = Request::statement(cluster, exported, &csr);
    let signature = token.sign(&statement).map_or_else(Vec::new, |signature| signature.to_vec());
    Request::Join { token: token.id(), role, csr, signature }
}

/// As bytes.
pub(super) fn written(request: &Request) -> Vec<u8> {
    codec::encode(request).unwrap_or_default()
}
