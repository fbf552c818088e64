//! What a node keeps of its membership in its home, and how it comes back with that after its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mobula_control::{Heads, Home, SharedCredentials};
use mobula_core::cluster::UnixTime;
use mobula_core::limits;
use mobula_identity::{
    JoinError, Joined, Kept, NextKey, Role, Token, come_back, first_that_leads, join, keep_renewed, renew,
};
use mobula_transport::tls;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use crate::error::DaemonError;

/// The file in the home with a node's key, its certificate, its cluster's authority, and where heads are.
const FILE: &str = "membership";
/// The key for the next life, while it has no certificate.
const NEXT: &str = "membership.next";

/// What a node of this home may come back with: none if it is not the home of one that has joined. May block.
///
/// # Errors
/// [`DaemonError`] for a home or a file that is not safe or not whole; it is left as it is.
pub fn kept_membership(home: &Path) -> Result<Option<Kept>, DaemonError> {
    if !home.exists() {
        return Ok(None);
    }
    Ok(Kept::read(&Home::open(home)?.file(FILE))?)
}

/// A node's membership, from its joining to its end.
pub(crate) struct Membership {
    path: PathBuf,
    pub(crate) heads: Heads,
    joined: Mutex<Joined>,
}

impl Membership {
    /// Joins at one of `heads` with a token, or comes back with what the home has kept, and keeps what was given.
    pub(crate) async fn begin(home: &Home, heads: &[SocketAddr], token: Option<Token>) -> Result<Self, DaemonError> {
        let (path, next) = (home.file(FILE), home.file(NEXT));
        let (head, joined, key) = match token {
            Some(token) => {
                let (head, joined) = first_that_leads(heads, |head| join(head, &token, Role::Worker)).await?;
                (head, joined, None)
            }
            None => {
                let kept = block_in_place(|| Kept::read(&path))?.ok_or(DaemonError::NoMembership)?;
                if kept.is_over(UnixTime::now()) {
                    return Err(DaemonError::MembershipOver);
                }
                let key = block_in_place(|| NextKey::open(&next, &kept.joined))?;
                let returned = first_that_leads(heads, |head| come_back(head, &kept.joined, &key)).await;
                let (head, joined) = returned.map_err(|error| match error {
                    JoinError::JoinRejected { address } => DaemonError::NotTakenBack { address },
                    error => error.into(),
                })?;
                (head, joined, Some(key))
            }
        };
        let heads = Heads::new(head, heads.iter().copied());
        let membership = Membership { path, heads, joined: Mutex::new(joined) };
        if membership.keep(&*membership.joined.lock().await)
            && let Some(key) = key
        {
            key.has_served();
        }
        Ok(membership)
    }

    /// What was given last.
    pub(crate) async fn joined(&self) -> Joined {
        copy_of(&*self.joined.lock().await)
    }

    /// Renews the certificate at a head as long as the node lives, and keeps each.
    pub(crate) async fn stay(&self, shared: SharedCredentials) {
        let until = self.joined.lock().await.until;
        let renew = || async {
            let mut joined = self.joined.lock().await;
            let (_, renewed) = first_that_leads(&self.heads.all(), |head| renew(head, &joined)).await?;
            *shared.write() = std::sync::Arc::new(copy(&renewed.credentials));
            *joined = renewed;
            self.keep(&joined);
            Ok::<_, JoinError>(Some(joined.until))
        };
        keep_renewed("this node", until, renew).await;
    }

    /// Keeps where heads are whenever that has changed, for ever.
    pub(crate) async fn keep_heads(&self) {
        let mut kept = self.heads.all();
        loop {
            tokio::time::sleep(limits::HEADS_EVERY).await;
            let now = self.heads.all();
            if now != kept && self.keep(&*self.joined.lock().await) {
                kept = now;
            }
        }
    }

    /// True if it was written. A node that cannot keep it lives all the same.
    fn keep(&self, joined: &Joined) -> bool {
        let heads = self.heads.all().iter().map(SocketAddr::to_string).collect();
        let kept = block_in_place(|| Kept { joined: copy_of(joined), heads }.write(&self.path));
        if let Err(error) = &kept {
            tracing::warn!(%error, "this node may need a token to come back");
        }
        kept.is_ok()
    }
}

fn copy_of(joined: &Joined) -> Joined {
    let Joined { uid, role, credentials, from, until } = joined;
    Joined { uid: *uid, role: *role, credentials: copy(credentials), from: *from, until: *until }
}

pub(crate) fn copy(credentials: &tls::Credentials) -> tls::Credentials {
    tls::Credentials {
        chain: credentials.chain.clone(),
        key: credentials.key.clone_key(),
        authority: credentials.authority.clone(),
    }
}
