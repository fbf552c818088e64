//! What has happened, for the trace and for the oracles.

use mobula_core::NodeUid;
use mobula_identity::{Role, TokenId, UnixTime};

/// Something has happened.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A token is good from now on.
    TokenMade { id: TokenId, role: Role, uses: u32, expires: UnixTime },
    /// Somebody wants to take a token back.
    TokenWillGo { id: TokenId },
    /// The head has said that a token is taken back.
    TokenGone { id: TokenId },
    /// The head has let somebody in, at this time by its clock. `right`: the token's holder has signed this very request for this
    /// very connection with this cluster.
    Joined { token: TokenId, role: Role, uid: NodeUid, now: UnixTime, right: bool },
    /// The head has sent somebody away.
    Refused { token: TokenId, role: Role, now: UnixTime, right: bool, why: String },
    /// A head has begun.
    HeadBegins,
    /// It was killed, while it noted the use of this token.
    HeadEnds { spending: Option<TokenId> },
    /// Somebody shows the certificate of a life, or a copy of it, to come back as another.
    AsksBack { was: NodeUid, copy: bool },
    /// The head has let it.
    Returned { was: NodeUid, uid: NodeUid },
    /// The head has sent it away.
    NotBack { was: NodeUid, copy: bool, why: String },
    /// A member has a certificate.
    Renewed { uid: NodeUid },
    /// Somebody wants to cut a life off.
    WillRevoke { uid: NodeUid },
    /// The head has said that a life is cut off.
    Revoked { uid: NodeUid },
    /// Nothing passes any more between the head and a member.
    CutBegins { uid: NodeUid },
    /// It does again.
    CutEnds { uid: NodeUid },
    /// One has let in the other, or the other has.
    Connected { one: NodeUid, other: NodeUid },
    /// It has cut the other off.
    Cut { by: NodeUid, peer: NodeUid },
    /// A connection has ended for other reasons.
    Ended { one: NodeUid, other: NodeUid },
    /// Time has passed.
    Look,
}
