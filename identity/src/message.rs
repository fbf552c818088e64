//! What one who joins and the head say to each other: one request and one answer, each a u32 length and MessagePack.

use std::io;

use aws_lc_rs::digest;
use mobula_core::codec::{self, DecodeError};
use mobula_core::{NodeUid, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::authority::ClusterId;
use crate::role::Role;
use crate::token::TokenId;
use mobula_core::cluster::UnixTime;

/// What one who wants a certificate sends.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// With a token.
    Join {
        /// Which.
        token: TokenId,
        /// What it wants to become; the token's role.
        role: Role,
        /// PKCS#10, for its key alone: the names in it are not looked at.
        #[serde(with = "serde_bytes")]
        csr: Vec<u8>,
        /// Ed25519 by the token's seed over [`statement`](Request::statement).
        #[serde(with = "serde_bytes")]
        signature: Vec<u8>,
    },
    /// With the certificate that is shown on this connection.
    Renew {
        /// The life that stays.
        uid: NodeUid,
        /// As above.
        #[serde(with = "serde_bytes")]
        csr: Vec<u8>,
    },
    /// A worker that has ended begins another life, with the certificate of the last one, which is shown on this connection.
    Return {
        /// The life that is over.
        uid: NodeUid,
        /// As above, for a key that no life had before. Who comes again with the same one gets the same life.
        #[serde(with = "serde_bytes")]
        csr: Vec<u8>,
    },
}

/// What the head answers. Every refusal is the same.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Welcome {
        uid: NodeUid,
        role: Role,
        #[serde(with = "serde_bytes")]
        certificate: Vec<u8>,
        from: UnixTime,
        until: UnixTime,
    },
    JoinRejected,
}

impl Request {
    /// The label of the bytes that bind a signature to its connection (RFC 5705).
    pub const EXPORTER: &[u8] = b"EXPORTER-mobula-join/1";

    /// Reads a request from the bytes after its length.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing larger than the bytes is allocated.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// What a joiner signs: it fits one cluster, one connection and one request, and says nothing about the seed.
    pub fn statement(cluster: &ClusterId, exported: &[u8; 32], csr: &[u8]) -> Vec<u8> {
        let hash = digest::digest(&digest::SHA256, csr);
        [b"join/1", &cluster.0[..], exported, hash.as_ref()].concat()
    }
}

pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let body = codec::encode(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
    stream.flush().await
}

/// The bytes of one message; a length beyond the limit is an error before anything is allocated for it.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > limits::JOIN_REQUEST_BYTES_MAX {
        let text = format!("{length} bytes were announced, at most {} are accepted", limits::JOIN_REQUEST_BYTES_MAX);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
}

pub(crate) fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    codec::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_differs_with_each_of_its_parts() {
        let of =
            |cluster: u8, exported: u8, csr: &[u8]| Request::statement(&ClusterId([cluster; 32]), &[exported; 32], csr);
        let one = of(1, 2, b"csr");
        assert_eq!(one.len(), 6 + 32 + 32 + 32);
        assert_eq!(one[..6], *b"join/1");
        for other in [of(9, 2, b"csr"), of(1, 9, b"csr"), of(1, 2, b"cs")] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_request_survives_the_wire() {
        let request =
            Request::Join { token: TokenId(1), role: Role::Worker, csr: vec![1; 300], signature: vec![2; 64] };
        let bytes = codec::encode(&request).expect("plain data");
        assert_eq!(Request::decode(&bytes).expect("just written"), request);
        for length in 0..bytes.len() {
            assert!(Request::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
