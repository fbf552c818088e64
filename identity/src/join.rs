//! Joining a cluster, and renewing what one was given.

use std::io;
use std::net::SocketAddr;

use mobula_core::{NodeUid, limits};
use mobula_transport::tls::pki_types::CertificateDer;
use mobula_transport::tls::{Credentials, JoinStream, TlsError, dial_head, find_authority};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::authority::{ClusterId, credentials};
use crate::message::{self, Answer, Request};
use crate::next_key::NextKey;
use crate::process::KeyRequest;
use crate::role::Role;
use crate::token::Token;
use mobula_core::cluster::UnixTime;

/// A member of a cluster, and what proves it.
pub struct Joined {
    /// This life, given by the head.
    pub uid: NodeUid,
    /// What it may do.
    pub role: Role,
    /// For an [`Endpoint`](mobula_transport::tls::Endpoint).
    pub credentials: Credentials,
    /// The certificate's life; see [`renew_after`](crate::renew_after).
    pub from: UnixTime,
    /// Its end.
    pub until: UnixTime,
}

/// A cluster could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The head was not reached, or is not the one that the token was made by.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The head said no; why stands in its audit log. Another try with the same token has the same end.
    #[error("JoinRejected: the head at {address} said no; its audit log says why")]
    JoinRejected {
        /// The head.
        address: SocketAddr,
    },
    /// There was no head to ask.
    #[error("there is no head to ask")]
    NoHeads,
    /// The conversation broke. The token may have been spent.
    #[error("joining at {address}: {error}")]
    Io {
        /// The head.
        address: SocketAddr,
        /// What came of it.
        error: io::Error,
    },
}

/// Joins the cluster whose head is at `address`, with a token for `role`.
///
/// # Errors
/// [`JoinError`]. Not cancel-safe: the token may have been spent.
pub async fn join(address: SocketAddr, token: &Token, role: Role) -> Result<Joined, JoinError> {
    let authority = find_authority(address, token.pin()).await?;
    let stream = dial_head(address, &authority, None).await?;
    let io_failed = |error| JoinError::Io { address, error };
    let KeyRequest { key, csr } = KeyRequest::new().map_err(io_failed)?;
    let exported = stream.export(Request::EXPORTER).map_err(io_failed)?;
    let statement = Request::statement(&ClusterId(token.pin()), &exported, &csr);
    let signature = token.sign(&statement).ok_or_else(|| io_failed(io::Error::other("cannot sign")))?;
    let request = Request::Join { token: token.id(), role, csr, signature: signature.to_vec() };
    petition(stream, request, key, authority).await
}

/// Gets a new certificate, with a new key, for the same life and role. The old one stays good until its end.
///
/// # Errors
/// [`JoinError`]; may be tried again. Cancel-safe.
pub async fn renew(address: SocketAddr, joined: &Joined) -> Result<Joined, JoinError> {
    let authority = joined.credentials.authority.clone();
    let stream = dial_head(address, &authority, Some(&joined.credentials)).await?;
    let KeyRequest { key, csr } = KeyRequest::new().map_err(|error| JoinError::Io { address, error })?;
    petition(stream, Request::Renew { uid: joined.uid, csr }, key, authority).await
}

/// Comes back to the cluster as another life, with what the last one had, which has to be over. `key` is for the certificate of the new one; with the same
/// key a life that has heard no answer may ask again. Workers alone come back.
///
/// # Errors
/// [`JoinError`]: after [`JoinError::JoinRejected`] it takes a token, other errors may be tried again with the same key. Cancel-safe.
pub async fn come_back(address: SocketAddr, last: &Joined, key: &NextKey) -> Result<Joined, JoinError> {
    let authority = last.credentials.authority.clone();
    let stream = dial_head(address, &authority, Some(&last.credentials)).await?;
    let KeyRequest { key, csr } = key.request().map_err(|error| JoinError::Io { address, error })?;
    petition(stream, Request::Return { uid: last.uid, csr }, key, authority).await
}

/// A head that does not answer for the cluster says nothing.
fn told(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let text = "it has hung up: only the head that leads lets others in; ask another head, or this one later";
            io::Error::new(error.kind(), text)
        }
        _ => error,
    }
}

async fn petition(
    mut stream: JoinStream,
    request: Request,
    key: Zeroizing<KeyPair>,
    authority: CertificateDer<'static>,
) -> Result<Joined, JoinError> {
    let address = stream.address();
    let talk = async {
        message::write(&mut stream, &request).await?;
        message::decoded::<Answer>(&message::read(&mut stream).await?)
    };
    let answer = match tokio::time::timeout(2 * limits::HANDSHAKE_DEADLINE, talk).await {
        Ok(answer) => answer.map_err(|error| JoinError::Io { address, error: told(error) })?,
        Err(_) => return Err(JoinError::Io { address, error: io::ErrorKind::TimedOut.into() }),
    };
    match answer {
        Answer::JoinRejected => Err(JoinError::JoinRejected { address }),
        Answer::Welcome { uid, role, certificate, from, until } => {
            Ok(Joined { uid, role, credentials: credentials(certificate.into(), &key, authority), from, until })
        }
    }
}
